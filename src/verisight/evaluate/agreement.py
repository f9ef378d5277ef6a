"""How far two judges (or rubrics, or a judge and people) agree on the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verisight.evaluate.fields import short
from verisight.evaluate.power import mcnemar
from verisight.evaluate.stats import Counts, Interval, Measure, Statistic, intervals, ratio
from verisight.types import UserError

Row = Mapping[str, Any]
Values = NDArray[np.float64]
_SAME = 1e-9  # means of votes are not exact: 7/3 - 4/3 is a little more than 1
_UNUSED = ("failed", "unparsed")


def agreement(
    a: Sequence[Row], b: Sequence[Row], *, key: str = "score", threshold: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """What two scorings of the same items have in common, as JSON values; values of a metric are as in a summary.

    Counts `num_both`, `num_one_only`, `num_neither`: items with a value from both, one, none. A value of None is none,
    and so is that of a `failed` or `unparsed` row: official protocols give those the worst score.
    Over the items that both judged, each {value, low, high, num} with a 95 % interval clustered as the rows are (`low`
    equals `high` where everything agrees, which proves nothing beyond these items):
    `mean_difference` (b less a), `mean_absolute_difference`, `exact_agreement` and `agreement_within_one` (shares),
    `spearman`, `kappa` and `quadratic_kappa` (of scores rounded, halves up).
    With a `threshold` also the verdict "below it": `verdict_difference` (share of b less that of a),
    `verdict_agreement`, `verdict_kappa`, and `mcnemar_p` that the shares are equal (items taken as independent).

    Args:
        a: scored rows (uid, `key`; cluster, answer, failed, unparsed if known).
        b: the same items by another judge, in any order.
        key: the field with the score: a number, a truth value or None.
        threshold: what a score must reach not to be below, such as 3 for MMHal-Bench.
        seed: of the resampling.

    Raises:
        UserError: no rows, an item twice, other items, other answers to them, or a row without a score.
    """
    first, second = _by_uid(a, "first"), _by_uid(b, "second")
    _check_same(first, second)
    values = [(_value(row, key, "first"), _value(second[uid], key, "second")) for uid, row in first.items()]
    judged = [one is not None and other is not None for one, other in values]
    found: dict[str, Any] = {
        "num_both": sum(judged),
        "num_one_only": sum((one is None) != (other is None) for one, other in values),
        "num_neither": sum(one is None and other is None for one, other in values),
    }
    pairs = np.array([pair for pair, both in zip(values, judged, strict=True) if both], dtype=float).reshape(-1, 2)
    measures = _measures(pairs[:, 0], pairs[:, 1])
    if threshold is not None:
        below_a, below_b = pairs[:, 0] < threshold - _SAME, pairs[:, 1] < threshold - _SAME
        measures |= _verdict_measures(below_a, below_b)
        found |= {"threshold": threshold, "mcnemar_p": mcnemar(below_a, below_b) if any(judged) else None}
    if not any(judged):
        return found | {name: Interval(None, None, None, 0)._asdict() for name in measures}
    clusters = [_cluster(row, second[uid]) for (uid, row), both in zip(first.items(), judged, strict=True) if both]
    return found | {name: one._asdict() for name, one in intervals(measures, clusters, seed=seed).items()}


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation (Spearman 1904) of two lists of numbers: Pearson's of their ranks, ties at their mean rank.

    a, b: (items,). -1..1, NaN where one of them is constant or there is none.
    """
    return _once(_spearman_measure, a, b)


def kappa(a: ArrayLike, b: ArrayLike, *, quadratic: bool = False) -> float:
    """Cohen's kappa (1960) of two lists of whole numbers; quadratic: disagreement counts by its square (1968).

    a, b: (items,). 1 less observed over expected disagreement: at most 1, 0 for chance, NaN where both give one and the
    same number to all, or there is none.
    """
    return _once(partial(_kappa_measure, quadratic=quadratic), a, b)


def _once(measure_of: Any, a: ArrayLike, b: ArrayLike) -> float:
    one, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    assert one.shape == other.shape == (one.size,), "one value of each for every item"
    measure: Measure = measure_of(one, other)
    return float(measure.statistic(measure.counts.sum(0, keepdims=True))[0])


def _measures(a: Values, b: Values) -> dict[str, Measure]:
    apart = np.abs(b - a)
    labels = np.floor(a + 0.5 + _SAME), np.floor(b + 0.5 + _SAME)
    return {
        "mean_difference": _mean_measure(b - a, fraction=False),
        "mean_absolute_difference": _mean_measure(apart, fraction=False),
        "exact_agreement": _mean_measure(apart <= _SAME),
        "agreement_within_one": _mean_measure(apart <= 1 + _SAME),
        "spearman": _spearman_measure(a, b),
        "kappa": _kappa_measure(*labels, quadratic=False),
        "quadratic_kappa": _kappa_measure(*labels, quadratic=True),
    }


def _verdict_measures(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> dict[str, Measure]:
    one, other = a.astype(float), b.astype(float)
    return {
        "verdict_difference": _mean_measure(other - one, fraction=False),
        "verdict_agreement": _mean_measure(one == other),
        "verdict_kappa": _kappa_measure(one, other, quadratic=False),
    }


def _mean_measure(values: ArrayLike, *, fraction: bool = True) -> Measure:
    column = np.asarray(values, dtype=float)
    return Measure(np.column_stack([column, np.ones_like(column)]), ratio, "neutral", fraction)


def _spearman_measure(a: Values, b: Values) -> Measure:
    return _cell_measure(a, b, lambda one, other: partial(_spearman, a=one, b=other))


def _kappa_measure(a: Values, b: Values, *, quadratic: bool) -> Measure:
    return _cell_measure(a, b, lambda one, other: partial(_kappa, a=one, b=other, quadratic=quadratic))


def _cell_measure(a: Values, b: Values, statistic: Any) -> Measure:
    """Counts are how often each pair of values (a cell, all that occur) comes up: what every statistic here needs."""
    cells, of_item = np.unique(np.column_stack([a, b]), axis=0, return_inverse=True)
    counts = np.zeros((len(a), len(cells)))
    counts[np.arange(len(a)), of_item.ravel()] = 1
    found: Statistic = statistic(cells[:, 0], cells[:, 1])
    return Measure(counts, found, "higher", fraction=False)


def _spearman(weights: Counts, *, a: Values, b: Values) -> Counts:
    """Of weights (n, cells) of cells whose two values are a and b (cells,): (n,)."""
    ranks_a, ranks_b = _ranks(weights, a), _ranks(weights, b)
    covariance, spread_a, spread_b = (
        (weights * x * y).sum(1) for x, y in ((ranks_a, ranks_b), (ranks_a, ranks_a), (ranks_b, ranks_b))
    )
    return _over(covariance, np.sqrt(spread_a * spread_b))


def _ranks(weights: Counts, values: Values) -> Counts:
    """Mean ranks less their mean, (n, cells)."""
    levels, of_cell = np.unique(values, return_inverse=True)
    by_level = weights @ np.eye(len(levels))[of_cell.ravel()]
    ranks = (np.cumsum(by_level, axis=1) - by_level / 2)[:, of_cell.ravel()]
    return ranks - weights.sum(1, keepdims=True) / 2


def _kappa(weights: Counts, *, a: Values, b: Values, quadratic: bool) -> Counts:
    """Of weights (n, cells) of cells whose two labels are a and b (cells,): (n,)."""
    labels = np.unique(np.concatenate([a, b]))
    sides = [weights @ (values[:, None] == labels).astype(float) for values in (a, b)]
    apart = np.abs(labels[:, None] - labels)
    cost = apart**2 if quadratic else (apart > 0).astype(float)
    observed = weights @ ((a - b) ** 2 if quadratic else (a != b).astype(float))
    expected = np.einsum("ni,ij,nj->n", sides[0], cost, sides[1])
    return 1 - _over(observed * weights.sum(1), expected)


def _over(numerator: Counts, denominator: Counts) -> Counts:
    nothing = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=nothing, where=denominator > _SAME)


def _by_uid(rows: Sequence[Row], which: str) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for at, row in enumerate(rows):
        uid = row.get("uid")
        if not isinstance(uid, str):
            raise UserError(f"agreement: row {at} of the {which} list has uid {short(uid)}; accepted is a text")
        if uid in found:
            raise UserError(f"agreement: {uid} is twice in the {which} list; each item has one row")
        found[uid] = row
    if not found:
        raise UserError(f"agreement: the {which} list is empty; accepted are scored rows of the same items")
    return found


def _check_same(first: Mapping[str, Row], second: Mapping[str, Row]) -> None:
    for one, other, names in ((first, second, "first, not the second"), (second, first, "second, not the first")):
        alone = [uid for uid in one if uid not in other]
        if alone:
            raise UserError(f"agreement: {len(alone)} items are only in the {names} list, such as {alone[0]}")
    for uid, row in first.items():
        if "answer" in row and "answer" in second[uid] and row["answer"] != second[uid]["answer"]:
            raise UserError(f"agreement: {uid} has different answers in the two lists; both must judge the same ones")


def _value(row: Row, key: str, which: str) -> float | None:
    if key not in row:
        raise UserError(f"agreement: {row['uid']} has no `{key}` in the {which} list; score its rows first")
    value = row[key]
    if value is None or any(row.get(name) for name in _UNUSED):
        return None
    if not isinstance(value, bool | int | float) or not np.isfinite(value):
        raise UserError(f"agreement: {row['uid']}.{key} is {short(value)} in the {which} list; accepted is a number")
    return float(value)


def _cluster(one: Row, other: Row) -> str:
    """People's rows may not say which picture they are about."""
    return one.get("cluster", other.get("cluster", one["uid"]))
