"""Intervals and differences of metrics that are functions of summed counts, clustered by image.

Every metric here is `statistic(sum of per-item counts)`: a ratio of sums (CHAIR_i, accuracy, F1 = 2tp/(said +
is)) or a mean of such ratios. Resampling whole clusters keeps the answers about one image together. Array
suffixes: `_CK` is (clusters, counts), `_RK` is (resamples, counts).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], Counts]
Direction = Literal["higher", "lower", "neutral"]

LEVEL = 0.95
NUM_RESAMPLES = 2000
_CHUNK_CELLS = 4_000_000  # resampling weights held in memory at once


class Interval(NamedTuple):
    """A value and its 95 % interval over `num` items.

    `value` is None where the metric is undefined (0/0); `low` and `high` are None there and with a single
    cluster.
    """

    value: float | None
    low: float | None
    high: float | None
    num: int


class Difference(NamedTuple):
    """b minus a on the same items, its 95 % interval, and the two-sided p-value of "no difference"."""

    value: float | None
    low: float | None
    high: float | None
    num: int
    p_value: float | None


class Measure(NamedTuple):
    """A metric before it is summed.

    `counts` is (items, k); `statistic` maps sums (n, k) to values (n,), NaN where undefined. `better` says
    which way is an improvement. `fraction`: values lie in 0..1 (see `bootstrap_statistic`). `num_items`:
    items it is about.
    """

    counts: Counts
    statistic: Statistic
    better: Direction
    fraction: bool = True
    num_items: int | None = None


def ratio(sums: Counts) -> Counts:
    """First count over the second: (n, 2) -> (n,), NaN where the second is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] != 0)


def ratio_measure(
    numerator: Sequence[float], denominator: Sequence[float], *, better: Direction, fraction: bool = True
) -> Measure:
    """The metric sum(numerator) / sum(denominator), both one number an item."""
    counts = np.column_stack([np.asarray(numerator, float), np.asarray(denominator, float)])
    return Measure(counts, ratio, better, fraction)


def mean_among(values: Sequence[Any], among: Sequence[bool], *, better: Direction, fraction: bool = True) -> Measure:
    """The mean of `values` over the items in `among`; what the other items hold (None, say) doesn't matter."""
    counted = [float(value) if each else 0.0 for value, each in zip(values, among, strict=True)]
    ones = [float(each) for each in among]
    return ratio_measure(counted, ones, better=better, fraction=fraction)._replace(num_items=sum(among))


def cluster_bootstrap(
    numerator: Sequence[float],
    denominator: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    fraction: bool = True,
) -> Interval:
    """Interval of sum(numerator) / sum(denominator), resampling whole clusters. See `bootstrap_statistic`."""
    measure = ratio_measure(numerator, denominator, better="neutral", fraction=fraction)
    return intervals({"": measure}, clusters, seed=seed, num_resamples=num_resamples)[""]


def bootstrap_statistic(
    counts: Counts,
    statistic: Statistic,
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
    fraction: bool = True,
) -> Interval:
    """Percentile bootstrap interval of `statistic(counts summed over the items)`, resampling whole clusters.

    counts (items, k), clusters (items,). Resamples in which the statistic is undefined are left out. A
    fraction that is exactly 0 or 1 in every resample gets the exact binomial (Clopper-Pearson) bound over
    clusters on its open side, because "0 of 20" doesn't prove a rate of 0.
    """
    measure = Measure(counts, statistic, "neutral", fraction)
    return intervals({"": measure}, clusters, seed=seed, num_resamples=num_resamples)[""]


def intervals(
    measures: Mapping[str, Measure],
    clusters: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """`bootstrap_statistic` for several metrics of the same items at once, on the same resamples."""
    names = list(measures)
    index, num_clusters = _index(clusters)
    tables_CK = [_by_cluster(measures[name].counts, index, num_clusters) for name in names]
    sums_RK = _resampled_sums(np.hstack(tables_CK), np.random.default_rng(seed), num_resamples)
    splits = np.cumsum([table.shape[1] for table in tables_CK])[:-1]
    result = {}
    for name, table, sums in zip(names, tables_CK, np.split(sums_RK, splits, axis=1), strict=True):
        measure = measures[name]
        value = float(measure.statistic(table.sum(0, keepdims=True))[0])
        low, high = _percentiles(measure.statistic(sums), value, num_clusters)
        if measure.fraction and low == high == value and value in (0.0, 1.0):
            edge = 1 - ((1 - LEVEL) / 2) ** (1 / num_clusters)
            low, high = (0.0, edge) if value == 0.0 else (1 - edge, 1.0)
        num = len(index) if measure.num_items is None else measure.num_items
        result[name] = Interval(_number(value), low, high, num)
    return result


def summarise(measures: Mapping[str, Measure], clusters: Sequence[Hashable], *, seed: int) -> dict[str, dict[str, Any]]:
    """The metrics as the JSON values of a summary file: name -> {value, low, high, num}."""
    found = intervals(measures, clusters, seed=seed)
    return {name: interval._asdict() for name, interval in found.items()}


def paired_difference(
    a: Counts,
    b: Counts,
    clusters: Sequence[Hashable],
    *,
    statistic: Statistic = ratio,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Difference:
    """statistic(b) - statistic(a) of two runs on the same items, clusters resampled jointly.

    a and b are (items, k), row for row the same items. The interval is the percentile bootstrap's; the
    p-value comes from approximate randomisation (the two runs' answers swapped per cluster), which stays
    valid with few clusters.
    """
    assert a.shape == b.shape, "the two runs must hold the same items and counts"
    index, num_clusters = _index(clusters)
    a_CK, b_CK = _by_cluster(a, index, num_clusters), _by_cluster(b, index, num_clusters)
    rng = np.random.default_rng(seed)
    sums = _resampled_sums(np.hstack([a_CK, b_CK]), rng, num_resamples)
    k = a_CK.shape[1]
    value = float((statistic(b_CK.sum(0, keepdims=True)) - statistic(a_CK.sum(0, keepdims=True)))[0])
    low, high = _percentiles(statistic(sums[:, k:]) - statistic(sums[:, :k]), value, num_clusters)
    p_value = None
    if num_clusters > 1 and not np.isnan(value):
        moved = _chunked(
            b_CK - a_CK, num_resamples, lambda size: rng.integers(0, 2, (size, num_clusters), dtype=np.int8)
        )
        swapped = statistic(b_CK.sum(0) - moved) - statistic(a_CK.sum(0) + moved)
        extreme = np.sum(~(np.abs(swapped) < abs(value) - 1e-12))  # undefined (NaN) swaps count as extreme
        p_value = float((1 + extreme) / (1 + num_resamples))
    return Difference(_number(value), low, high, len(index), p_value)


def seed_and_cluster_difference(
    a: Sequence[Counts],
    b: Sequence[Counts],
    clusters: Sequence[Hashable],
    *,
    statistic: Statistic = ratio,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Mean over training seeds of statistic(b) - statistic(a), with the spread of seeds and of images.

    a and b hold one (items, k) array a training seed, in the same order of seeds and of items. Clusters are
    resampled jointly for all runs; the seeds' spread is added as Student t with S - 1 degrees of freedom,
    because resampling a handful of seeds understates it (two seeds prove next to nothing, and the interval
    says so). With a single seed it holds the images' spread alone.
    """
    assert len(a) == len(b) > 0, "as many runs of a as of b"
    index, num_clusters = _index(clusters)
    num_seeds, k = len(a), a[0].shape[1]
    table = np.hstack([_by_cluster(counts, index, num_clusters) for counts in (*a, *b)])
    rng = np.random.default_rng(seed)

    def difference(sums: Counts) -> Counts:  # (n, 2 * seeds * k) -> (n, seeds)
        n = len(sums)
        values = statistic(sums.reshape(n * 2 * num_seeds, k)).reshape(n, 2, num_seeds)
        return values[:, 1] - values[:, 0]

    by_seed = difference(table.sum(0, keepdims=True))[0]
    value = float(by_seed.mean())
    resampled = difference(_resampled_sums(table, rng, num_resamples)).mean(1)
    if num_seeds > 1:
        error = by_seed.std(ddof=1) / np.sqrt(num_seeds)
        resampled = resampled + error * rng.standard_t(num_seeds - 1, size=num_resamples)
    low, high = _percentiles(resampled, value, num_clusters)
    return Interval(_number(value), low, high, len(index))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the order given."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, p_values[at] * (len(p_values) - rank)))
        adjusted[at] = worst
    return adjusted


def _index(clusters: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(cluster, len(order)) for cluster in clusters], dtype=np.intp)
    assert order, "no items to summarise"
    return index, len(order)


def _by_cluster(counts: Counts, index: NDArray[np.intp], num_clusters: int) -> Counts:
    assert len(counts) == len(index), "one row of counts an item"
    table = np.zeros((num_clusters, counts.shape[1]))
    np.add.at(table, index, counts)
    return table


def _resampled_sums(table_CK: Counts, rng: np.random.Generator, num_resamples: int) -> Counts:
    num_clusters = len(table_CK)
    even = np.full(num_clusters, 1 / num_clusters)
    return _chunked(table_CK, num_resamples, lambda size: rng.multinomial(num_clusters, even, size=size))


def _chunked(table_CK: Counts, num_resamples: int, draw: Callable[[int], NDArray[Any]]) -> Counts:
    """Weights drawn in chunks of rows, times the table: (resamples, k), without the whole weight matrix."""
    size = max(1, min(num_resamples, _CHUNK_CELLS // len(table_CK)))
    starts = range(0, num_resamples, size)
    return np.vstack([draw(min(size, num_resamples - start)).astype(float) @ table_CK for start in starts])


def _percentiles(resampled: Counts, value: float, num_clusters: int) -> tuple[float | None, float | None]:
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or num_clusters < 2 or not len(defined):
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
