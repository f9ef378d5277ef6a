"""Nodes of benchmarks -> what is measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import assert_never

from verisight import recipe
from verisight.build.annotators import chat
from verisight.evaluate.benchmark import Benchmark
from verisight.evaluate.chair import Chair
from verisight.evaluate.grounded import Grounded
from verisight.evaluate.pope import Pope
from verisight.evaluate.public import Judge, PublicBenchmark
from verisight.evaluate.scorers import Files
from verisight.evaluate.table import SCORERS
from verisight.types import Chat, UserError


def benchmark(node: recipe.Benchmark) -> Benchmark:
    """What is measured.

    Raises:
        UserError: a protocol that the benchmark doesn't have, or a judge where none is asked, or none where one is.
    """
    match node:
        case recipe.Chair():
            return Chair(
                images=node.images, instances=node.instances, captions=node.captions, scenes=node.scenes,
                prompt=node.prompt, limit=node.limit, words=node.protocol, synonyms=node.synonyms,
                max_new_tokens=node.max_new_tokens,
            )  # fmt: skip
        case recipe.Pope():
            return _pope(node)
        case recipe.Public():
            return _public(node)
        case recipe.Grounded():
            return Grounded(folder=node.form)
        case other:
            assert_never(other)


def _pope(node: recipe.Pope) -> Benchmark:
    if node.instances is None:
        files = Files(annotations=node.questions, relabels=node.relabels)
        return PublicBenchmark(scorer=SCORERS["pope"], files=files, images=node.images, protocol=node.parser)
    return Pope(
        images=node.images, instances=node.instances, captions=node.captions, num_images=node.num_images,
        per_image=node.per_image, seed=node.seed, parser=node.parser,
    )  # fmt: skip


def _public(node: recipe.Public) -> PublicBenchmark:
    scorer = SCORERS[node.kind]
    judge, protocol = None, scorer.check_protocol(node.protocol)
    if node.judge is not None:
        one = node.judge
        where = f"{one.model} at {one.url}" if isinstance(one, recipe.Http) else one.path
        judge = Judge(
            f"{where}, temperature {one.temperature:g}, {one.max_new_tokens} tokens", partial(_chat, one), node.votes,
            node.vision, node.images, None if node.rubric is None else _text(node.rubric), protocol,
        )  # fmt: skip
    return PublicBenchmark(
        scorer=scorer, files=Files(annotations=node.annotations, objects=node.objects), images=node.images,
        protocol=protocol, suffix=node.suffix, max_new_tokens=node.max_new_tokens,
        judge_settings=judge, limit=node.limit,
    )  # fmt: skip


def _chat(node: recipe.Http | recipe.Local, folder: Path) -> Chat:
    return chat(node, folder=folder, seed=0)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"rubric: {file} can't be read ({error}); accepted: a text file") from error
