"""Two runs' answers to the same questions, metric by metric: how far apart they are, and whether that can be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from verisight.data.files import read_jsonl
from verisight.evaluate.folders import meta_path, read_object, read_summary, rows_path
from verisight.evaluate.power import mcnemar
from verisight.evaluate.stats import Counts, Measure, holm, paired_difference, ratio
from verisight.evaluate.table import SCORERS
from verisight.types import UserError

Measures = Callable[[Sequence[dict[str, Any]]], dict[str, Measure]]

MEASURES: Mapping[str, Measures] = {
    **{name: one.measures for name, one in SCORERS.items()},
    **{f"{name}_v": one.measures for name, one in SCORERS.items() if one.judging is not None},
}
SIGNIFICANCE = 0.05


class ScoredRun(NamedTuple):
    """One benchmark of one run: uids and clusters (items,), and the metrics before they are summed."""

    uids: list[str]
    clusters: list[str]
    measures: dict[str, Measure]


def read_scored(folder: Path, name: str, *, measures: Measures, among: Collection[str] | None = None) -> ScoredRun:
    """The scored rows of `folder`/evaluate/<name>.jsonl (those whose uid is in `among`), ready for `stats`."""
    rows = [row for row in read_jsonl(rows_path(folder, name)) if among is None or row["uid"] in among]
    return ScoredRun([row["uid"] for row in rows], [row["cluster"] for row in rows], measures(rows))


def compare(
    folder_a: Path, folder_b: Path, *, measures: Mapping[str, Measures] = MEASURES, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences b - a of every metric of every benchmark that both runs hold.

    Benchmark -> metric -> {a, b, value, low, high, num, p_value, p_mcnemar, p_holm, verdict}. p_value is from swapping
    whole images, p_mcnemar McNemar's exact one for shares of the same items (taken as independent: too sure of itself
    where an image has several questions), p_holm is p_value Holm-corrected over the benchmark's metrics. verdict is
    better | worse (for metrics with no good side: higher | lower) where p_holm is below 0.05 and the 95 % interval
    leaves out 0, else "can't tell"; "refused" where one of the two has too many unusable items for a headline. Only
    questions that both have answers to count.

    Raises:
        UserError: the two runs answered different questions, were scored under different protocols, or hold a
            benchmark that `measures` doesn't know.
    """
    summary_a, summary_b = (read_summary(folder) for folder in (folder_a, folder_b))
    table = {}
    for name in (name for name in summary_a if name in summary_b):
        if name not in measures:
            raise UserError(f"compare: no measures for benchmark {name!r}; known are {', '.join(measures)}")
        found = [read_object(meta_path(folder, name)).get("fingerprint") for folder in (folder_a, folder_b)]
        protocols = [summary[name]["protocol"] for summary in (summary_a, summary_b)]
        if found[0] != found[1] or protocols[0] != protocols[1]:
            raise UserError(
                f"{folder_a} and {folder_b}: {name} was run with different questions, decoding or protocol "
                f"({protocols[0]}, {protocols[1]}); only equal ones can be compared"
            )
        judges = [summary[name].get("judge") for summary in (summary_a, summary_b)]
        if judges[0] != judges[1]:
            raise UserError(
                f"{folder_a} and {folder_b}: {name} was judged by {judges[0]} and by {judges[1]}; only scores of one "
                "judge, asked in one way, can be compared (`verisight judge agree` compares judges)"
            )
        both = set.intersection(*(_uids(folder, name) for folder in (folder_a, folder_b)))
        if not both:
            raise UserError(f"{folder_a} and {folder_b}: {name} has no question that both have an answer to")
        a, b = (read_scored(folder, name, measures=measures[name], among=both) for folder in (folder_a, folder_b))
        assert a.uids == b.uids, "equal fingerprints mean equal items in equal order"
        table[name] = _differences(a, b, seed=seed)
        if any(summary[name].get("refused") for summary in (summary_a, summary_b)):
            table[name] = {metric: row | {"verdict": "refused"} for metric, row in table[name].items()}
    return table


def _differences(a: ScoredRun, b: ScoredRun, *, seed: int) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, measure in a.measures.items():
        pair = (measure.counts, b.measures[name].counts)
        difference = paired_difference(*pair, a.clusters, statistic=measure.statistic, seed=seed)
        values = [float(measure.statistic(counts.sum(0, keepdims=True))[0]) for counts in pair]
        value_a, value_b = (None if value != value else value for value in values)
        rows[name] = {"a": value_a, "b": value_b} | difference._asdict() | {"p_mcnemar": _mcnemar(measure, pair)}
        if measure.num_items is not None:
            rows[name]["num"] = measure.num_items
    tested = [name for name in rows if rows[name]["p_value"] is not None]
    adjusted = dict(zip(tested, holm([rows[name]["p_value"] for name in tested]), strict=True))
    for name, row in rows.items():
        row["p_holm"] = adjusted.get(name)
        row["verdict"] = _verdict(row, a.measures[name].better)
    return rows


def _mcnemar(measure: Measure, pair: tuple[Counts, Counts]) -> float | None:
    """McNemar's exact p where a metric is a share of the same items in both runs (right or wrong); else None."""
    a, b = pair
    counted = a.shape[1] == 2 and measure.statistic is ratio and np.array_equal(a[:, 1], b[:, 1])
    if not counted or not measure.fraction or not np.isin(np.hstack(pair), (0.0, 1.0)).all():
        return None
    asked = a[:, 1] == 1
    return mcnemar(a[asked, 0] == 1, b[asked, 0] == 1)


def _uids(folder: Path, name: str) -> set[str]:
    return {row["uid"] for row in read_jsonl(rows_path(folder, name))}


def _verdict(row: dict[str, Any], better: str) -> str:
    if row["p_holm"] is None or row["low"] is None or row["p_holm"] >= SIGNIFICANCE or row["low"] <= 0 <= row["high"]:
        return "can't tell"
    direction = "higher" if row["value"] > 0 else "lower"
    if better == "neutral":
        return direction
    return "better" if direction == better else "worse"
