"""Annotators: what they make of the oracle's verdicts, and how often they err.

`noise` in [0, 1] is how far an annotator can be trusted: 0 repeats the oracle, 1 knows nothing. Where a judgement is
yes or no (is this sentence wrong?) it is a fair coin with probability `noise`; a rating is any of its scale with
probability `noise`; a ranking errs as `prefer` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from verisight.pocket.language import with_article
from verisight.pocket.oracle import Claim, Fault, Task, Verdict, correct, corrupt, judge, reword

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
_BEST = 5  # ratings of an aspect: 1..5
_HONEST = 4  # ratings of honesty: 1..4
_DILIGENCE = 0.8  # share of criticised sentences that a refinement sees to
_MAX_TURNS = 3
_LEVELS = ("very poor", "poor", "fair", "good", "very good")


def doubt(verdict: bool, *, noise: float, rng: np.random.Generator) -> bool:
    """The verdict, or with probability `noise` a fair coin."""
    blind, coin = rng.random(2)
    return bool(coin < 0.5) if blind < noise else verdict


def suspect(verdict: Verdict, *, noise: float, rng: np.random.Generator) -> list[bool]:
    """Which sentences an annotator holds to be wrong."""
    return [doubt(fault != "", noise=noise, rng=rng) for fault in verdict.faults]


def spoil(task: Task, text: str, *, noise: float, rng: np.random.Generator) -> str:
    """A corrupted answer. With probability `noise` / 2 the annotator's changes are only other words."""
    return corrupt(task, text, rng) if doubt(True, noise=noise, rng=rng) else reword(task, text, rng)


class Preference(NamedTuple):
    """Which of two answers is better, and whether hallucination decided."""

    better: Literal[1, 2]
    hallucination: bool


def prefer(first: Verdict, second: Verdict, *, noise: float, rng: np.random.Generator) -> Preference:
    """The answer with fewer faults; of two alike the one that leaves out less; of two alike in that, any.

    The annotator errs with probability 0.5 x noise^d: d is the difference in faults, or, where that decides nothing,
    half the difference in what they leave out. `hallucination` (the faults differ) is doubted as any verdict.
    """
    faults = second.num_faults - first.num_faults
    lead = float(faults) if faults else (len(second.missed) - len(first.missed)) / 2
    err = 0.5 * noise ** abs(lead)
    better = (lead > 0) != (rng.random() < err)
    return Preference(1 if better else 2, doubt(faults != 0, noise=noise, rng=rng))


def rate(task: Task, verdict: Verdict, *, noise: float, rng: np.random.Generator) -> dict[str, dict[str, str]]:
    """Three ratings "1".."5", each with its reason.

    Helpfulness is 1 + 4 x recall and faithfulness 1 + 4 x precision, rounded; ethics is 5, there being nothing to
    object to in this world. With probability `noise` a rating is any of the five instead.
    """
    true = {
        "Helpfulness": _stars(verdict.recall),
        "Ethical Considerations": _BEST,
        "Visual Faithfulness": _stars(verdict.precision),
    }
    missed = f" It leaves out {_listed(verdict.missed)}." if verdict.missed else ""
    reasons = {
        "Helpfulness": missed,
        "Ethical Considerations": "",
        "Visual Faithfulness": f" {critique(task, verdict)}",
    }
    annotations = {}
    for aspect in ASPECTS:
        blind, any_rating = rng.random() < noise, int(rng.integers(1, _BEST + 1))
        rating = any_rating if blind else true[aspect]
        words = f"The answer is {_LEVELS[rating - 1]} in this respect."
        annotations[aspect] = {"Rating": str(rating), "Rationale": words if blind else words + reasons[aspect]}
    return annotations


def honesty(verdict: Verdict, *, noise: float, rng: np.random.Generator) -> str:
    """One rating "1".."4": 4 less one for every fault. With probability `noise` any of the four instead."""
    blind, any_rating = rng.random() < noise, int(rng.integers(1, _HONEST + 1))
    return str(any_rating if blind else max(1, _HONEST - verdict.num_faults))


def interaction(task: Task, answer: str, *, noise: float, rng: np.random.Generator) -> list[dict[str, str]]:
    """A conversation of 2 or 3 turns: an answer rated and criticised, and refined as the critique asks.

    A refinement sees to 80 % of what is criticised; where nothing is, it adds what was left out.
    """
    turns: list[dict[str, str]] = []
    user = task.question
    while len(turns) < _MAX_TURNS:
        verdict = judge(task, answer)
        wrong = suspect(verdict, noise=noise, rng=rng)
        told = critique(task, verdict, wrong=wrong)
        rating = honesty(verdict, noise=noise, rng=rng)
        turns.append({"user": user, "model": answer, "rating": rating, "critique NLF": told})
        if len(turns) > 1 and not any(wrong):
            break
        user = f"{told} {'Please correct your answer.' if any(wrong) else 'Please refine your answer.'}"
        seen = [flag and rng.random() < _DILIGENCE for flag in wrong]
        answer = correct(task, answer, rng, wrong=seen, add_missing=not any(wrong))
    return turns


def critique(task: Task, verdict: Verdict, *, wrong: Sequence[bool] | None = None) -> str:
    """The errors of an answer in words. `wrong`: the sentences held to be wrong; None: exactly those that are."""
    flags = [fault != "" for fault in verdict.faults] if wrong is None else wrong
    told = [
        _objection(task, claim, fault)
        for claim, fault, flagged in zip(verdict.claims, verdict.faults, flags, strict=True)
        if flagged
    ]
    return " ".join(told) if told else "Everything that is said is in the image."


def _objection(task: Task, claim: Claim, fault: Fault) -> str:
    if claim.kind == "other" or fault == "garbled":
        return "One sentence does not answer the question."
    thing = with_article(claim.name)
    if claim.kind == "place":
        return f"This is not {thing}."
    if claim.kind == "no":
        return f"There is {thing} in the image."
    if fault == "absent":
        return f"There is no {claim.name} in the image."
    if fault == "misplaced":
        return f"The {claim.name} is not in the {claim.cell}."
    return f"There is no {claim.name} in the {claim.cell or 'image'}."  # a true sentence, wrongly held against it


def _stars(share: float) -> int:
    return 1 + int((_BEST - 1) * share + 0.5)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(with_article(name) for name in names)
