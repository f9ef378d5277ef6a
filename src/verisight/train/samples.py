"""What is said of answers that were sampled while a model trains: lengths, KL, rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from verisight.data.repetition import repetition
from verisight.types import Group, Rewarder, Sampled


class Divergence(NamedTuple):
    """One sampled answer, policy against reference: log pi(y|x) - log ref(y|x), its k3 form, tokens in both sums."""

    k1_sum: float
    k3_sum: float
    num_tokens: int


def measured(drawn: Sequence[Sampled], diverged: Sequence[Sequence[Divergence]]) -> dict[str, Any]:
    """Lengths and repetition of sampled answers, and their KL to the reference if any. Errors: None for one prompt."""
    found: dict[str, Any] = {
        "num": len(drawn),
        "tokens": sum(one.num_tokens for one in drawn) / len(drawn),
        "words": sum(len(one.text.split()) for one in drawn) / len(drawn),
        "truncated_fraction": sum(one.truncated for one in drawn) / len(drawn),
        "repetition": sum(repetition(one.text) for one in drawn) / len(drawn),
    }
    if not diverged:
        return found
    answers = np.array([len(row) for row in diverged])
    k1, k3, tokens = np.array([np.sum(row, axis=0) for row in diverged]).T
    found["kl_sum"], found["kl_sum_se"] = ratio(k1, answers)
    found["kl_token_mean"], found["kl_token_mean_se"] = ratio(k3, tokens)
    return found


def rated(raters: Mapping[str, Rewarder], groups: Sequence[Group]) -> dict[str, float | None]:
    """Mean reward of the answers by every rater, and its standard error clustered by prompt (None for one prompt)."""
    found: dict[str, float | None] = {}
    counts = np.array([len(group.answers) for group in groups])
    for name, rater in raters.items():
        sums = np.array([math.fsum(row) for row in rater.rate(groups)])
        found[f"{name}_reward"], found[f"{name}_reward_se"] = ratio(sums, counts)
    return found


def ratio(above: np.ndarray, below: np.ndarray) -> tuple[float, float | None]:
    """sum(above) / sum(below) over independent clusters, and its standard error (linearised; None for one cluster)."""
    total, num = float(below.sum()), len(above)
    ratio = float(above.sum()) / total
    if num < 2:
        return ratio, None
    return ratio, math.sqrt(num / (num - 1) * float(((above - ratio * below) ** 2).sum())) / total
