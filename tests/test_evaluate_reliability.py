"""Test-retest, parallel forms, split halves and items needed, on numbers whose result is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from verisight.evaluate.reliability import consistency, needed, retest, split_half
from verisight.evaluate.stats import Measure, ratio_measure
from verisight.types import UserError


def test_consistency_by_hand() -> None:
    """(1, 2, 3, 4) and (2, 1, 4, 3): covariance 3/4 of the variances' 5/4, r = 3/5; ranks the same; apart by 1 each.

    z = atanh(0.6) = 0.6931, its error 1.96 / sqrt(1): r from tanh(-1.267) = -0.853 to tanh(2.653) = 0.990.
    """
    found = consistency([1, 2, 3, 4], [2, 1, 4, 3])
    assert found.pearson == pytest.approx(0.6)
    assert found.spearman == pytest.approx(0.6)
    assert (found.low, found.high) == pytest.approx((-0.853, 0.990), abs=1e-3)
    assert found.mean_absolute_difference == 1.0
    assert consistency([1, 2, 3], [1, 2, 3])[1:4] == (pytest.approx(1.0), None, None)
    assert consistency([1, 1, 1], [1, 2, 3])[1:5] == (None, None, None, None)
    assert consistency([1, math.nan], [1, 2]).pearson is None
    assert consistency([0.1, 0.1, 0.1], [0.1, 0.2, 0.4]).pearson is None, "0.1 three times has a mean of nearly 0.1"


def rows(right: str, prefix: str = "") -> list[dict[str, Any]]:
    return [{"uid": f"{prefix}{at}", "cluster": f"{at}", "correct": one == "1"} for at, one in enumerate(right)]


def test_retest_by_hand() -> None:
    """1100 and 1010: half agree; each side has half right, so half agree by chance: kappa 0. 1110, 1110: kappa 1."""
    assert retest(rows("1100"), rows("1010")) == {"num_items": 4, "agreed_fraction": 0.5, "kappa": 0.0}
    assert retest(rows("1110"), rows("1110"))["kappa"] == 1.0
    assert retest(rows("1111"), rows("1111"))["kappa"] is None
    described = [{"uid": "x", "cluster": "x"}]
    assert retest(rows("11") + described, rows("01") + described)["num_items"] == 2
    with pytest.raises(UserError, match="4 and 3 items with `correct`"):
        retest(rows("1111"), rows("111"))


def measures(scored: Any) -> dict[str, Measure]:
    return {"accuracy": ratio_measure([row["correct"] for row in scored], [1.0] * len(scored), better="higher")}


def test_split_halves_of_models_that_differ_and_of_models_that_do_not() -> None:
    """Six models with true accuracies 0.1 to 0.9 on 400 items go together almost perfectly; equal ones not at all."""
    rng = np.random.default_rng(0)
    apart = [rows("".join("1" if x < share else "0" for x in rng.random(400))) for share in np.linspace(0.1, 0.9, 6)]
    found = split_half(apart, measures=measures, metric="accuracy")
    assert found is not None
    assert 0.97 < found < 1.0
    same = [rows("".join("1" if x < 0.5 else "0" for x in rng.random(400))) for _ in range(6)]
    found = split_half(same, measures=measures, metric="accuracy")
    assert found is None or found < 0.7
    assert split_half([rows("1111"), rows("1111")], measures=measures, metric="accuracy") is None


def test_split_halves_by_hand() -> None:
    """Two clusters of two items are the halves: models have 0, 1/2, 1 and 1/2, 0, 1 right: r = 1/2, stepped up 2/3."""

    def made(right: str) -> list[dict[str, Any]]:
        return [row | {"cluster": f"{at // 2}"} for at, row in enumerate(rows(right))]

    found = split_half([made("0010"), made("1000"), made("1111")], measures=measures, metric="accuracy")
    assert found == pytest.approx(2 / 3)


def test_halves_that_contradict_each_other_are_not_stepped_up() -> None:
    """Of two clusters, models get the one or the other right: r = -1 in every split, where 2 r / (1 + r) is none."""
    assert split_half([rows("10"), rows("01")], measures=measures, metric="accuracy") == pytest.approx(-1.0)
    with pytest.raises(UserError, match="split_half: the runs hold other items"):
        split_half([rows("10"), rows("01", "x")], measures=measures, metric="accuracy")


def test_needed_by_hand() -> None:
    """A difference of d on n items with per-item standard deviation s is detectable from 2.80 s / sqrt(n).

    100 items, b right on 20 that a isn't, a on 10 that b isn't: s = sqrt(0.3 - 0.01) = 0.5385, 2.80 s / 10 = 0.151; for
    0.05 it takes 100 (0.151 / 0.05)^2 = 910 items, give or take the bootstrap's noise.
    """
    a, b = rows("1" * 60 + "0" * 40), rows("0" * 10 + "1" * 50 + "1" * 20 + "0" * 20)
    found = needed(a, b, measures=measures, metric="accuracy", differences=(0.05,))
    assert found["num_clusters"] == 100
    assert found["detectable"] == pytest.approx(0.151, rel=0.08)
    assert found["needed"][0.05] == pytest.approx(910, rel=0.16)
    with pytest.raises(UserError, match="hold other items"):
        needed(a, rows("1" * 100, "x"), measures=measures, metric="accuracy", differences=(0.05,))
    with pytest.raises(UserError, match="accuracy has no interval on these 1 clusters"):
        needed(rows("1"), rows("0"), measures=measures, metric="accuracy", differences=(0.05,))
