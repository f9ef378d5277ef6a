"""The curves of a training: panels over the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verisight.study.svg import Line
from verisight.train.tracking import flatten

_MAX_POINTS = 400  # of a curve; longer ones are averaged over neighbouring steps

# title, y axis, shown in percent, key of metrics.jsonl -> name of its line
_PANELS: tuple[tuple[str, str, bool, dict[str, str]], ...] = (
    ("Loss", "loss", False, {"loss": "loss"}),
    ("Margin", "nats", False, {"margin_mean": "margin"}),
    ("Pair accuracy", "share", True, {"accuracy": "accuracy"}),
    ("Log-ratio to the start", "nats", False, {"chosen_logratio_sum": "chosen", "rejected_logratio_sum": "rejected"}),
    ("Reward", "reward", False, {"reward": "reward"}),
    ("KL to the start, own answers", "nats", False, {"kl_sum": "KL"}),
    ("Length of own answers", "tokens", False, {"answer_tokens": "tokens"}),
    ("Repetition and cut-off", "share", True, {"repetition": "repeated", "truncated_fraction": "cut off"}),
    ("Entropy a token", "nats", False, {"entropy": "entropy"}),
    ("Ratios clipped", "share", True, {"clipped_fraction": "clipped"}),
    ("Value function", "share", False, {"drawn/explained_variance": "explained variance"}),
    ("Value loss", "loss", False, {"value_loss": "value loss"}),
    ("Log-probability a token", "nats", False, {"chosen_logp_mean": "chosen", "rejected_logp_mean": "rejected"}),
)
# the same of the pairs that were looked at while training
_PROBE_PANELS: tuple[tuple[str, str, bool, dict[str, str]], ...] = (
    (
        "Margin by what is shown (probe)", "nats", False,
        {"margin_mean": "its picture", "swapped/margin_mean": "another", "no_image/margin_mean": "none"},
    ),
    ("Log-ratio to the start (probe)", "nats", False,
     {"chosen_logratio_sum": "chosen", "rejected_logratio_sum": "rejected"}),
    ("KL to the start, own answers (probe)", "nats", False, {"samples/kl_sum": "KL"}),
    ("Length of own answers (probe)", "words", False, {"samples/words": "words"}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves that share an axis."""

    title: str
    y_label: str
    percent: bool
    lines: tuple[Line, ...]


def training_charts(written: Sequence[dict[str, Any]]) -> tuple[Chart, ...]:
    """All charts that the rows of a metrics.jsonl have the columns for."""
    rows = [flatten(row) for row in written if row.get("split", "train") == "train"]
    looks = [flatten(row) for row in written if row.get("split") == "probe"]
    charts = list(_charts(rows, _PANELS))
    if any(chart.title.startswith("Log-ratio") for chart in charts):
        charts = [chart for chart in charts if not chart.title.startswith("Log-probability")]
    return (*charts, *_charts(looks, _PROBE_PANELS))


def _charts(rows: Sequence[dict[str, Any]], panels: Sequence[tuple[str, str, bool, dict[str, str]]]) -> Iterator[Chart]:
    for title, y_label, percent, keys in panels:
        lines = tuple(line for key, label in keys.items() if (line := _line(rows, key, label)))
        if len(lines) == len(keys):
            yield Chart(title, y_label, percent, lines)


def _line(rows: Sequence[dict[str, Any]], key: str, label: str) -> Line | None:
    known = [
        (row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]
    if not known:
        return None
    size = math.ceil(len(known) / _MAX_POINTS)
    groups = [known[at : at + size] for at in range(0, len(known), size)]
    return Line(
        label,
        tuple(group[-1][0] for group in groups),
        tuple(sum(value for _, value in group) / len(group) for group in groups),
    )
