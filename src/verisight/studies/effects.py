"""Arms compared: seeds are a random effect, items are paired, and everything of a benchmark shares its resamples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from verisight.evaluate.paired import SIGNIFICANCE, ScoredRun
from verisight.evaluate.stats import LEVEL, Direction, Measure, holm
from verisight.studies.findings import Effect, Verdict

NUM_RESAMPLES = 4000
Numbers = NDArray[np.float64]


class Spread(NamedTuple):
    """A quantity: its mean over seeds, 95 % interval over seeds and items, p-value against 0, one value a seed."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    by_seed: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Resampled:
    """One benchmark of one run: every metric's value, and its values over the resamples of clusters (R,)."""

    values: Mapping[str, float]
    resampled: Mapping[str, Numbers]
    measures: Mapping[str, Measure]
    items: str = ""  # hash of what was answered


@dataclass(slots=True)
class Resampler:
    """Draws the clusters of a benchmark once, for all runs that answered its items. `known` keeps runs read before."""

    seed: int = 0
    known: dict[str, Mapping[str, Resampled]] = field(default_factory=dict)
    _weights: dict[str, tuple[NDArray[np.intp], Numbers]] = field(default_factory=dict)

    def __call__(self, name: str, run: ScoredRun) -> Resampled:
        """Resample a run; runs that answered the same items get the same resamples."""
        items = hashlib.sha256(json.dumps([name, run.uids, run.clusters]).encode()).hexdigest()
        if items not in self._weights:
            self._weights[items] = _draw(run.clusters, self.seed)
        index, weights_RC = self._weights[items]
        names = list(run.measures)
        table = np.hstack([run.measures[one].counts for one in names])
        sums_CK = np.zeros((weights_RC.shape[1], table.shape[1]))
        np.add.at(sums_CK, index, table)
        resampled_RK, total_K = weights_RC @ sums_CK, sums_CK.sum(axis=0)
        values, many, at = {}, {}, 0
        for one in names:
            measure = run.measures[one]
            part = slice(at, at := at + measure.counts.shape[1])
            values[one] = float(measure.statistic(total_K[None, part])[0])
            many[one] = measure.statistic(resampled_RK[:, part])
        return Resampled(values, many, run.measures, items)


def _draw(clusters: Sequence[str], seed: int) -> tuple[NDArray[np.intp], Numbers]:
    order: dict[str, int] = {}
    index = np.array([order.setdefault(cluster, len(order)) for cluster in clusters], dtype=np.intp)
    num = len(order)
    weights = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=NUM_RESAMPLES)
    return index, weights.astype(float)


def spread(ours: Sequence[tuple[float, Numbers]], others: Sequence[tuple[float, Numbers]] | float = 0.0) -> Spread:
    """Mean over seeds of ours - others, each a value and its resamples; others may be a constant.

    The interval adds two spreads: clusters, resampled jointly for all runs (their bootstrap), and seeds, as Student t
    with seeds - 1 degrees of freedom on the standard error of the seeds' mean. The p-value (two-sided, that the mean
    is 0) is of the same sum: the t tail beyond every resample, averaged. With one seed both are of the items alone.
    """
    if isinstance(others, float):
        by_seed = np.array([value - others for value, _ in ours])
        many = np.mean([resampled - others for _, resampled in ours], axis=0)
    else:
        assert len(ours) == len(others), "as many runs on either side"
        by_seed = np.array([a - b for (a, _), (b, _) in zip(ours, others, strict=True)])
        many = np.mean([a - b for (_, a), (_, b) in zip(ours, others, strict=True)], axis=0)
    told = tuple(None if np.isnan(one) else float(one) for one in by_seed)
    many = many[~np.isnan(many)]
    if np.isnan(by_seed).any() or not len(many):
        return Spread(None if np.isnan(by_seed).any() else float(by_seed.mean()), None, None, None, told)
    num = len(by_seed)
    error = float(by_seed.std(ddof=1)) / num**0.5 if num > 1 else 0.0
    if error < 1e-12:
        drawn = many
        below, above = ((1 + np.sum(many * sign <= 0)) / (1 + len(many)) for sign in (1, -1))
    else:
        drawn = many + error * np.random.default_rng(1).standard_t(num - 1, size=len(many))
        below, above = (student.cdf(-sign * many / error, num - 1).mean() for sign in (1, -1))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p_value = min(1.0, 2 * float(min(below, above)))
    return Spread(float(by_seed.mean()), float(low), float(high), p_value, told)


def effects(spreads: Sequence[tuple[Spread, Direction]]) -> list[Effect]:
    """Effects of one family: p-values Holm-corrected over all of them, verdicts no stronger than p and interval."""
    tested = [at for at, (one, _) in enumerate(spreads) if one.p_value is not None]
    adjusted = dict(zip(tested, holm([spreads[at][0].p_value or 0.0 for at in tested]), strict=True))
    return [
        Effect(one.value, one.low, one.high, adjusted.get(at), verdict(one, adjusted.get(at), better))
        for at, (one, better) in enumerate(spreads)
    ]


def verdict(one: Spread, p_holm: float | None, better: Direction) -> Verdict:
    """What may be said of a difference."""
    if one.value is None:
        return "not measured"
    if p_holm is None or p_holm >= SIGNIFICANCE or one.low is None or one.high is None or one.low <= 0 <= one.high:
        return "can't tell"
    direction = "higher" if one.value > 0 else "lower"
    if better == "neutral":
        return direction
    return "better" if direction == better else "worse"
