"""Arms side by side: every metric with its interval and its paired difference to the base, as facts and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from verisight.data.files import read_json
from verisight.evaluate.paired import compare
from verisight.evaluate.stats import Direction
from verisight.types import UserError

if TYPE_CHECKING:
    from rich.table import Table

Verdict = Literal["better", "worse", "higher", "lower", "can't tell"]
VERDICT_COLOURS: dict[str, str] = {"better": "green", "worse": "red"}
_ARROWS = {"lower": " \u2193", "higher": " \u2191", "neutral": ""}


@dataclass(frozen=True, slots=True)
class Arm:
    """A model to report on: its name in the report, and the folder that holds evaluate/ (and what its run left)."""

    label: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a benchmark. `percent`: a fraction, printed in percent and its differences in points."""

    benchmark: str
    name: str
    label: str
    meaning: str
    better: Direction
    percent: bool = True

    @property
    def arrow(self) -> str:
        """Which way is better: an arrow after a space, or nothing."""
        return _ARROWS[self.better]


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of one arm with its 95 % interval over `num` items; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    num: int
    file: str


@dataclass(frozen=True, slots=True)
class Change:
    """Arm minus base on the same items, its 95 % interval, and what may be said about it (see `compare`)."""

    value: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    verdict: Verdict
    files: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm in a row. `value` is None where the arm wasn't measured, `change` there and for the base."""

    label: str
    value: Value | None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of every arm, the base first."""

    metric: Metric
    cells: tuple[Cell, ...]


METRICS = (
    Metric("chair", "chair_i", "CHAIR_i", "object mentions that are made up", "lower"),
    Metric("chair", "chair_s", "CHAIR_s", "answers with a made-up object", "lower"),
    Metric("chair", "recall", "Recall", "objects in the picture that are named", "higher"),
    Metric("chair", "position_accuracy", "Positions right", "placed objects put where they are", "higher"),
    Metric("chair", "typical_fraction", "Typical", "made-up objects that are typical of the scene", "neutral"),
    Metric("chair", "length_words", "Length", "words an answer", "neutral", percent=False),
    Metric("pope", "random/accuracy", "Accuracy, random", "absent objects drawn at random", "higher"),
    Metric("pope", "popular/accuracy", "Accuracy, popular", "absent objects that are common", "higher"),
    Metric("pope", "adversarial/accuracy", "Accuracy, adversarial", "absent objects that usually go along", "higher"),
    Metric("pope", "f1", "F1", "mean of the three splits, \u201cyes\u201d is positive", "higher"),
    Metric("pope", "random/yes_fraction", "Says yes, random", "half of the right answers are yes", "neutral"),
    Metric("pope", "popular/yes_fraction", "Says yes, popular", "half of the right answers are yes", "neutral"),
    Metric("pope", "adversarial/yes_fraction", "Says yes, adversarial", "half of the right answers are yes", "neutral"),
)
_HEADLINE = (("chair", "chair_i"), ("chair", "recall"), ("chair", "length_words"))
_HEADLINE_POPE = (("pope", "f1"), ("pope", "adversarial/accuracy"))


def comparison(arms: Sequence[Arm]) -> list[Row]:
    """A row for every metric of `METRICS` that the base was measured on; the first arm is the base.

    Raises:
        UserError: there is no arm, two have the same label, one was never evaluated, or an arm answered other
            questions than the base.
    """
    labels = [arm.label for arm in arms]
    if not labels or len(set(labels)) < len(labels):
        raise UserError(
            f"report: arms are {', '.join(map(repr, labels)) or 'none'}; one or more with labels of their own"
        )
    summaries = {arm.label: read_summary(arm) for arm in arms}
    base = arms[0]
    changes = {arm.label: compare(base.folder, arm.folder) for arm in arms[1:]}
    rows = []
    for metric in METRICS:
        if metric.name in summaries[base.label].get(metric.benchmark, {}).get("metrics", {}):
            cells = tuple(
                Cell(arm.label, _value(metric, arm, summaries), _change(metric, base, arm, changes)) for arm in arms
            )
            rows.append(Row(metric, cells))
    if not rows:
        raise UserError(f"{summary_file(base)}: holds none of the benchmarks that a report shows: chair, pope")
    return rows


def summary_file(arm: Arm) -> Path:
    """Where an arm's measured numbers are."""
    return arm.folder / "evaluate" / "summary.json"


def read_summary(arm: Arm) -> dict[str, Any]:
    """Benchmark -> its entry. A missing file is a UserError."""
    path = summary_file(arm)
    if not path.is_file():
        raise UserError(f"{path}: missing, so {arm.label!r} has no numbers to report; evaluate it first")
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}; an object of benchmarks is accepted")
    return found


def number(value: float | None, metric: Metric, *, signed: bool = False) -> str:
    """A value without its unit, one decimal, fractions in percent; an en dash for None."""
    if value is None:
        return "\u2013"
    text = format(100 * value if metric.percent else value, "+z.1f" if signed else "z.1f")
    return "0.0" if text == "+0.0" else text.replace("-", "\u2212")


def with_unit(value: float | None, metric: Metric) -> str:
    """A value as it stands in a sentence: "15.7 %", "28.1 words"."""
    return f"{number(value, metric)}{' %' if metric.percent else ' words'}"


def interval(found: Value | Change, metric: Metric) -> str:
    """The words "low to high", signed for a difference; nothing where there is no interval."""
    if found.low is None or found.high is None:
        return ""
    signed = isinstance(found, Change)
    return f"{number(found.low, metric, signed=signed)} to {number(found.high, metric, signed=signed)}"


def headlines(rows: Sequence[Row]) -> list[str]:
    """A sentence, no stronger than its intervals, for every arm but the base (for the base if there is no other)."""
    by_name = {(row.metric.benchmark, row.metric.name): row for row in rows}
    wanted = [by_name[key] for key in _HEADLINE if key in by_name] or [
        by_name[key] for key in _HEADLINE_POPE if key in by_name
    ]
    places = range(1, len(rows[0].cells)) if len(rows[0].cells) > 1 else [0]
    return [
        f"{rows[0].cells[at].label}: {'; '.join(_clause(row.metric, row.cells[0], row.cells[at]) for row in wanted)}."
        for at in places
    ]


def terminal_table(rows: Sequence[Row]) -> Table:
    """The comparison for a terminal; verdicts are coloured only where one is reached."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="95 % intervals in brackets, differences to the base on the same items", title_justify="left")
    table.add_column("metric")
    for cell in rows[0].cells:
        table.add_column(Text(cell.label), justify="right")
    for at, row in enumerate(rows):
        texts = [Text(f"{row.metric.benchmark} {row.metric.label}{row.metric.arrow}")]
        for cell in row.cells:
            text = Text(_measured(row.metric, cell))
            if cell.change is not None:
                style = VERDICT_COLOURS.get(cell.change.verdict, "")
                text.append(f"\n{_difference(row.metric, cell.change)}", style=style or "dim")
            texts.append(text)
        table.add_row(*texts, end_section=at + 1 < len(rows) and rows[at + 1].metric.benchmark != row.metric.benchmark)
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The comparison as a Markdown table, base first; ends in a newline."""
    cells = rows[0].cells
    head = ["metric", cells[0].label]
    for cell in cells[1:]:
        head += [cell.label, f"{cell.label} \u2212 {cells[0].label}"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        line = [f"{row.metric.benchmark} {row.metric.label}{row.metric.arrow}", _measured(row.metric, row.cells[0])]
        for cell in row.cells[1:]:
            line += [_measured(row.metric, cell), _difference(row.metric, cell.change) if cell.change else "\u2013"]
        lines.append(line)
    return "".join(f"| {' | '.join(map(_plain, line))} |\n" for line in lines)


def _value(metric: Metric, arm: Arm, summaries: dict[str, dict[str, Any]]) -> Value | None:
    found = summaries[arm.label].get(metric.benchmark, {}).get("metrics", {}).get(metric.name)
    if found is None:
        return None
    return Value(found["value"], found["low"], found["high"], found["num"], str(summary_file(arm)))


def _change(metric: Metric, base: Arm, arm: Arm, changes: dict[str, dict[str, Any]]) -> Change | None:
    found = changes.get(arm.label, {}).get(metric.benchmark, {}).get(metric.name)
    if found is None:
        return None
    files = [str(one.folder / "evaluate" / f"{metric.benchmark}.jsonl") for one in (base, arm)]
    return Change(found["value"], found["low"], found["high"], found["p_holm"], found["verdict"], (files[0], files[1]))


def _clause(metric: Metric, base: Cell, cell: Cell) -> str:
    name = metric.label if metric.label.isupper() or "_" in metric.label else metric.label.lower()
    if cell.value is None:
        return f"{name} was not measured"
    now = with_unit(cell.value.value, metric)
    if cell is base:
        around = interval(cell.value, metric)
        return f"{name} is {now}" + (f" (95 % interval {around})" if around else "")
    assert base.value is not None, "rows exist for what the base was measured on"
    before, change = with_unit(base.value.value, metric), cell.change
    if change is None or change.value is None or change.low is None or change.high is None:
        return f"{name}: can't tell ({before} before, {now} after, no interval)"
    facts = f"difference {number(change.value, metric, signed=True)}, 95 % interval {interval(change, metric)}"
    if change.verdict == "can't tell":
        why = "" if change.low <= 0 <= change.high else " once corrected for testing several metrics"
        return f"{name}: can't tell{why} ({before} before, {now} after; {facts})"
    verb = "rose" if change.value > 0 else "fell"
    return f"{name} {verb} from {before} to {now} ({'worse; ' if change.verdict == 'worse' else ''}{facts})"


def _measured(metric: Metric, cell: Cell) -> str:
    if cell.value is None:
        return "\u2013"
    around = interval(cell.value, metric)
    return with_unit(cell.value.value, metric) + (f" [{around}]" if around else "")


def _difference(metric: Metric, change: Change) -> str:
    around = interval(change, metric)
    return f"{number(change.value, metric, signed=True)}{f' [{around}]' if around else ''} {change.verdict}"


def _plain(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())
