"""How far a benchmark agrees with itself: test-retest, parallel forms, split halves, and what it can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from verisight.evaluate.agreement import kappa, spearman
from verisight.evaluate.paired import Measures
from verisight.evaluate.power import detectable_difference, items_needed
from verisight.evaluate.stats import Measure, paired_difference
from verisight.types import UserError

Row = dict[str, Any]


class Consistency(NamedTuple):
    """How two measurements of the same models go together.

    pearson and spearman: -1..1, None where one side doesn't vary; `low`, `high`: the 95 % interval of pearson, by
    Fisher's z (None below four models). mean_absolute_difference: in the metric's unit.
    """

    num_models: int
    pearson: float | None
    low: float | None
    high: float | None
    spearman: float | None
    mean_absolute_difference: float


def consistency(a: Sequence[float], b: Sequence[float]) -> Consistency:
    """Two measurements of several models, one value a model: parallel forms, or the same form twice.

    a, b: (models,). Interval: tanh(atanh(r) +- 1.96 / sqrt(models - 3)) (Fisher 1915), wide for a handful of models.
    """
    one, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    assert one.shape == other.shape == (one.size,), "one value of each for every model"
    pearson = _pearson(one, other)
    low = high = None
    if pearson is not None and one.size > 3:
        z, error = math.atanh(min(max(pearson, -1 + 1e-12), 1 - 1e-12)), 1.959964 / math.sqrt(one.size - 3)
        low, high = math.tanh(z - error), math.tanh(z + error)
    rank = spearman(one, other)
    apart = float(np.abs(one - other).mean()) if one.size else math.nan
    return Consistency(one.size, pearson, low, high, None if math.isnan(rank) else rank, apart)


def retest(a: Sequence[Row], b: Sequence[Row], *, key: str = "correct") -> dict[str, float | int | None]:
    """Two runs of one model on the same items: how often `key` is the same, and Cohen's kappa of it.

    Rows without the key (descriptions among questions) are left out.

    Raises:
        UserError: other items.
    """
    first, second = ({row["uid"]: bool(row[key]) for row in rows if key in row} for rows in (a, b))
    if first.keys() != second.keys() or not first:
        raise UserError(f"retest: {len(first)} and {len(second)} items with `{key}`; accepted: the same ones in both")
    ones, others = np.array(list(first.values()), float), np.array([second[uid] for uid in first], float)
    agreed = kappa(ones, others)
    return {
        "num_items": len(first),
        "agreed_fraction": float((ones == others).mean()),
        "kappa": None if math.isnan(agreed) else agreed,
    }


def split_half(
    runs: Sequence[Sequence[Row]], *, measures: Measures, metric: str, seed: int = 0, num_splits: int = 200
) -> float | None:
    """Mean correlation over models of a metric on two random halves of the clusters, stepped up to the whole.

    2 r / (1 + r) (Spearman 1910, Brown 1910) of the mean r over `num_splits` splits: what a parallel form of the same
    length would correlate with this one. A mean r of 0 or less is given as it is, because there is nothing to step up.
    None where a half doesn't vary between the models.

    Args:
        runs: the scored rows of each model on the same items.
        measures: of the benchmark.
        metric: which of them.
        seed: draws the halves.
        num_splits: how many.

    Raises:
        UserError: the runs hold other items.
    """
    if any([row["uid"] for row in rows] != [row["uid"] for row in runs[0]] for rows in runs[1:]):
        raise UserError("split_half: the runs hold other items; accepted: the same ones in the same order")
    made: list[Measure] = [measures(rows)[metric] for rows in runs]
    clusters = [row["cluster"] for row in runs[0]]
    names = sorted(set(clusters))
    index = _index(clusters, names)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num_splits):
        side = np.zeros(len(names), dtype=bool)
        side[rng.permutation(len(names))[: len(names) // 2]] = True
        halves = [[_value(one, side[index] == half) for one in made] for half in (True, False)]
        r = _pearson(*(np.array(values) for values in halves))
        if r is not None:
            found.append(r)
    if not found:
        return None
    mean = float(np.mean(found))
    return 2 * mean / (1 + mean) if mean > 0 else mean


def needed(
    a: Sequence[Row], b: Sequence[Row], *, measures: Measures, metric: str, differences: Sequence[float], seed: int = 0
) -> dict[str, Any]:
    """What two runs on the same items could tell apart, and how many clusters find given differences (power 0.8).

    Returns {"num_clusters", "detectable", "needed": {difference: clusters}}; detectable is in the metric's unit.

    Raises:
        UserError: other items, or no interval to go by.
    """
    if [row["uid"] for row in a] != [row["uid"] for row in b]:
        raise UserError("needed: the two runs hold other items; accepted: the same ones in the same order")
    clusters = [row["cluster"] for row in a]
    one, other = measures(a)[metric], measures(b)[metric]
    found = paired_difference(one.counts, other.counts, clusters, statistic=one.statistic, seed=seed)
    if found.low is None or found.high is None:
        raise UserError(f"needed: {metric} has no interval on these {len(set(clusters))} clusters")
    num, detectable = len(set(clusters)), detectable_difference(found.low, found.high)
    return {
        "num_clusters": num,
        "detectable": detectable,
        "needed": {wanted: items_needed(num, detectable, wanted) for wanted in differences},
    }


def _index(clusters: Sequence[str], names: Sequence[str]) -> NDArray[np.intp]:
    place = {name: at for at, name in enumerate(names)}
    return np.array([place[cluster] for cluster in clusters], dtype=np.intp)


def _value(measure: Measure, among: NDArray[np.bool_]) -> float:
    return float(measure.statistic(measure.counts[among].sum(0, keepdims=True))[0])


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if a.size < 2 or np.isnan(a).any() or np.isnan(b).any() or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
