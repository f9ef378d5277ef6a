"""What all benchmarks share: one table on the screen, one file with the figures."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


def table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as text, floats with three digits."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([title, *lines])


def keep(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put the rows of benchmark `name` into results.json, beside those of the others."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with_what = {package: version(package) for package in ("torch", "transformers")}
    found[name] = {"machine": platform.machine(), **with_what, "rows": list(rows)}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
