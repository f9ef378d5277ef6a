"""What a benchmark can tell apart: McNemar's test, and the smallest difference that a run of its size would find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_NORMAL = NormalDist()
_WIDTH = 2 * _NORMAL.inv_cdf(0.975)  # of a 95 % interval, in standard errors


def mcnemar(a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Two-sided exact p-value that two models are right equally often, from the items where just one of them is.

    McNemar 1947, with the binomial in place of chi-squared. a, b: (items,), whether each model is right on the same
    items. 1 where they never differ. Items are taken as independent: with several questions an image it is too sure
    of itself, and `stats.paired_difference`, which swaps whole images, is the one to use.
    """
    one, other = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    assert one.shape == other.shape, "the same items"
    wins, losses = int((~one & other).sum()), int((one & ~other).sum())
    num = wins + losses
    logs = [math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(min(wins, losses) + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - num * math.log(2)) for log in logs))


def detectable_difference(low: float, high: float, *, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that is found with probability `power` by a two-sided test at `level`.

    low, high: 95 % interval of a difference of two runs on the same items (`stats.paired_difference`), whose width
    says how far it scatters; the result is in its unit. The normal approximation.
    """
    assert low <= high, f"{low} to {high}"
    return (_NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)) * (high - low) / _WIDTH


def items_needed(num: int, detectable: float, wanted: float) -> int:
    """How many items find a difference of `wanted`, where `num` find `detectable`: errors fall with the root."""
    assert wanted > 0, f"wanted {wanted}"
    return math.ceil(num * (detectable / wanted) ** 2)
