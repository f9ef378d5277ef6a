"""The verbs about benchmarks themselves: which there are, and POPE's questions for any set of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from verisight.evaluate.scorers import Scorer


def benchmarks() -> None:
    """List the benchmarks: their files, whose rules they know, who judges, and what is their headline."""
    from verisight.data.check_text import Listing, show
    from verisight.evaluate.table import SCORERS

    rows = [
        (
            one.name, one.annotations, ", ".join(one.protocols),
            _judged(one), ", ".join(one.headline),
        )
        for one in SCORERS.values()
    ]  # fmt: skip
    show(Listing("Benchmarks", ("name", "files (--annotations)", "protocols", "judge", "headline"), tuple(rows)))


def build_pope(
    out: Annotated[Path, typer.Argument(help="Folder that gets coco_pope_random.json, _popular and _adversarial.")],
    instances: Annotated[Path, typer.Option(help="COCO instances JSON: objects in each image.")],
    captions: Annotated[Path | None, typer.Option(help="COCO captions JSON; objects named there count too.")] = None,
    num_images: Annotated[int, typer.Option(min=1, help="Images drawn by --seed.")] = 500,
    per_image: Annotated[int, typer.Option(min=1, help="Objects that are there asked about, and as many absent.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Draws images and random absent objects.")] = 0,
    compat: Annotated[bool, typer.Option("--compat", help="Keep the official article's fault (the imange).")] = False,
) -> None:
    """Build POPE's three splits from any COCO-format set, in the format of the released files."""
    from verisight.evaluate.coco import read_ground_truth
    from verisight.evaluate.pope import SPLITS, build_questions
    from verisight.evaluate.pope_files import write_questions

    truths = read_ground_truth(instances, captions)
    names = {image_id: truth.file_name for image_id, truth in truths.items()}
    for split in SPLITS:
        questions = build_questions(truths, num_images=num_images, per_image=per_image, seed=seed, split=split)
        path = out / f"coco_pope_{split}.json"
        write_questions(path, questions, names, compat=compat)
        typer.echo(f"{path}: {len(questions)} questions")


def _judged(scorer: Scorer) -> str:
    if scorer.judging is None:
        return ""
    return f"not with {', '.join(scorer.judging.without)}" if scorer.judging.without else "yes"
