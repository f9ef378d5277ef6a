"""The curves of a training: panels over the step, and what tells that a reward is being hacked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
    ("Reward", "standard deviations", False, {"reward": "reward"}),
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
    return (*charts, *_watch(looks), *_charts(looks, _PROBE_PANELS))


def _watch(looks: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """Reward and gold reward (in deviations of the starting model's answers), sqrt of the KL, length, repetition.

    Against the square root of the KL Gao et al. 2022 see the gold reward rise and fall while the other goes on rising.
    All are changes since the first look; length as a share of it.
    """
    if not looks or not all(f"samples/{name}" in looks[0] for name in ("train_reward", "gold_reward", "kl_sum")):
        return
    first = looks[0]

    def change(name: str, label: str, *, scale: float = 1.0) -> Line:
        rows = [(row["step"], (row[f"samples/{name}"] - first[f"samples/{name}"]) / scale) for row in looks]
        return Line(label, tuple(step for step, _ in rows), tuple(value for _, value in rows))

    kl = Line(
        "sqrt KL",
        tuple(row["step"] for row in looks),
        tuple(math.sqrt(max(0.0, row["samples/kl_sum"])) for row in looks),
    )
    yield Chart(
        "Reward-hacking watch (probe)", "sd, sqrt nats, shares", False,
        (
            change("train_reward", "reward"), change("gold_reward", "gold"), kl,
            change("tokens", "length", scale=max(1e-9, first["samples/tokens"])), change("repetition", "repetition"),
        ),
    )  # fmt: skip


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
