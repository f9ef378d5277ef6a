"""The table of public benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

from verisight.evaluate import (
    amber,
    chair,
    gqa,
    grounded,
    hallusion,
    llava_bench,
    mmhal,
    mmvet,
    object_hal,
    openers,
    pope,
    textvqa,
)
from verisight.evaluate.pope_parsers import PARSERS
from verisight.evaluate.scorers import Judging, Scorer
from verisight.types import Decoding, UserError

_LIST = (
    Scorer(
        "pope", "question files (coco_pope_random.json, ...)", tuple(PARSERS), openers.open_pope, pope.measures,
        ("f1", "accuracy"),
    ),
    Scorer(
        "chair", "COCO instances and captions files, or --objects FILE", ("official", "corrected"),
        openers.open_chair, chair.measures, ("chair_i", "chair_s", "recall"), chair.DECODING,
        open_ended=openers.chair_uid,
    ),
    Scorer(
        "amber", "annotations.json, relation.json, safe_words.txt, query files", ("official", "corrected"),
        openers.open_amber, amber.measures, ("chair", "cover", "hal", "cog", "f1", "amber_score"), amber.DECODING,
    ),
    Scorer(
        "object_hal", "the questions, COCO instances and captions files (or --objects FILE)", object_hal.PROTOCOLS,
        openers.open_object_hal, object_hal.measures,
        ("response_hallucination", "object_hallucination", "object_recall"), object_hal.DECODING,
        Judging(openers.ask_object_hal, object_hal.JUDGE_DECODING, without=("plain",), blind=True),
    ),
    Scorer(
        "gqa", "the questions file", ("official", "llava", "corrected"), openers.open_gqa, gqa.measures,
        ("accuracy",),
    ),
    Scorer(
        "textvqa", "the annotations", ("official", "official-ocr", "corrected", "corrected-ocr"), openers.open_textvqa,
        textvqa.measures, ("accuracy",),
    ),
    Scorer(
        "mmhal", "its rows (response_template.json)", mmhal.PROTOCOLS, openers.open_mmhal, mmhal.measures,
        ("score", "hallucination_rate", "informativeness"), mmhal.DECODING,
        Judging(openers.ask_mmhal, mmhal.JUDGE_DECODING),
    ),
    Scorer(
        "llava_bench", "questions, contexts, reference answers", llava_bench.PROTOCOLS, openers.open_llava_bench,
        llava_bench.measures, ("relative",), llava_bench.DECODING,
        Judging(openers.ask_llava_bench, llava_bench.JUDGE_DECODING),
    ),
    Scorer(
        "mmvet", "mm-vet.json", mmvet.PROTOCOLS, openers.open_mmvet, mmvet.measures, ("total",), mmvet.DECODING,
        Judging(openers.ask_mmvet, mmvet.JUDGE_DECODING),
    ),
    Scorer(
        "hallusion", "HallusionBench.json", ("official", "corrected", "words"), openers.open_hallusion,
        hallusion.measures, ("accuracy", "figure_accuracy", "pair_accuracy"),
        judging=Judging(openers.ask_hallusion, Decoding(max_new_tokens=256, temperature=0.0), without=("words",)),
    ),
    Scorer(
        "grounded", "the form.json of a form", ("v1",), openers.open_grounded, grounded.measures,
        ("seeing", "pair_accuracy", "f05", "easy/f05", "precision", "recall", "object/typical_accuracy"),
        grounded.DECODING,
    ),
)  # fmt: skip
SCORERS: Mapping[str, Scorer] = {one.name: one for one in _LIST}


def find_scorer(name: str) -> Scorer:
    """The benchmark of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SCORERS:
        raise UserError(f"benchmark: found {name!r}; accepted: {', '.join(SCORERS)}")
    return SCORERS[name]


def headline(name: str) -> tuple[str, ...]:
    """The metrics that a benchmark is known by; none for one that isn't in the table."""
    found = SCORERS.get(name.removesuffix("_v"))
    return () if found is None else found.headline
