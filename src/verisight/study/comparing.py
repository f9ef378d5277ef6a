"""Two runs side by side: differences, what can be told of them, and what could have been."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from verisight.evaluate.paired import compare
from verisight.evaluate.power import detectable_difference
from verisight.types import UserError

Found = Mapping[str, Mapping[str, dict[str, Any]]]


def compared(first: Path, second: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Benchmark -> metric -> what `evaluate.paired.compare` says of second - first, and `detectable`.

    `detectable`: the smallest true difference that two such runs would find in four of five cases, in the metric's
    unit; None where there is no interval.

    Raises:
        UserError: a folder without an evaluation, no benchmark in common, or what `compare` raises.
    """
    for folder in (first, second):
        if not (folder / "evaluate" / "summary.json").is_file():
            raise UserError(
                f"{folder}: holds no evaluate/summary.json; accepted: a folder that `verisight eval` filled"
            )
    table = compare(first, second)
    if not table:
        raise UserError(f"{first} and {second}: have no benchmark in common; accepted: runs measured on the same")
    for rows in table.values():
        for row in rows.values():
            told = row["low"] is not None and row["high"] is not None
            row["detectable"] = detectable_difference(row["low"], row["high"]) if told else None
    return table


def comparison_table(found: Found) -> Iterator[Table]:
    """A table a benchmark."""
    for name, rows in found.items():
        table = Table(
            "", "A", "B", "B - A [95 %]", "p (Holm)", "", "detectable", box=None, pad_edge=False, title=escape(name),
            title_justify="left",
        )  # fmt: skip
        for metric, row in rows.items():
            interval = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
            table.add_row(
                escape(metric), _number(row["a"]), _number(row["b"]), escape(f"{_number(row['value'], '+')}{interval}"),
                _number(row["p_holm"]), row["verdict"], _number(row["detectable"]),
            )  # fmt: skip
        yield table


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else format(value, f"{sign}.3f")
