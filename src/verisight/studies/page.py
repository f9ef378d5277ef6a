"""The page of a study: one HTML file with its tables, figures, claims and a browser of answers and training pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from verisight.data.files import write_atomic
from verisight.studies import export
from verisight.studies.drawings import NUM_STYLES, Compared, Dot, Series, chart, forest, has_value, swatch
from verisight.studies.findings import ArmRow, Cell, Column, Findings, Sweep
from verisight.studies.scatter import Placed, scatter
from verisight.study.gallery import embed
from verisight.study.marks import named_objects
from verisight.study.pairs_page import stretches
from verisight.types import ImageRef

_NO_PICTURE = "image missing"


class Figure(NamedTuple):
    """A drawing of ours (SVG), and which arms or series its colours are: (label, swatch)."""

    title: str
    drawing: str
    legend: tuple[tuple[str, str], ...] = ()


class Arms:
    """The arms of a study: their labels, and the colour each has in every figure. Found by key or by label.

    Arms that only samples, curves or facts name come after those of the table, under the name they have there.
    """

    def __init__(self, findings: Findings) -> None:
        self.labels = {row.key: row.label for row in findings.rows}
        self._keys = {label: key for key, label in reversed(self.labels.items())} | {key: key for key in self.labels}
        named = [one.arm for many in (findings.curves, findings.pairs, findings.facts) for one in many]
        for name in (*named, *(said.arm for one in findings.answers for said in one.answers)):
            if name not in self._keys:
                self._keys[name] = self.labels[name] = name
        self._styles = {key: at for at, key in enumerate(self.labels)}

    def label(self, name: str) -> str:
        """What an arm is called; the name itself where there is no such arm."""
        return self.labels.get(self._keys.get(name, name), name)

    def style(self, name: str, other: int = -1) -> int:
        """The number of its colour, its place among `labels`; `other` where there is no such arm."""
        return self._styles.get(self._keys.get(name, name), other)

    def swatch(self, name: str) -> str:
        """An arm's colour, dashes and marker."""
        return swatch(self.style(name))


def write_page(findings: Findings, target: Path) -> Path:
    """Write the study's page: one file that needs no other and no network, and no script but for the samples.

    A picture that can't be read becomes a note. Returns `target`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    arms = Arms(findings)
    text = environment.get_template("page.html.j2").render(
        found=findings, arms=arms, export=export, version=version("verisight"), has_value=has_value,
        paper=export.paper_labels(findings.rows), outcomes=_outcomes(findings), forests=list(_forests(findings, arms)),
        scatter=_scatter(findings, arms), silent=_silent(findings), curves=list(_curves(findings, arms)),
        curve_arms=list(dict.fromkeys(one.arm for one in findings.curves)),
        sweeps=[_sweep(one, arms) for one in findings.sweeps], rounds=_rounds(findings, arms),
        samples=_samples(findings, arms),
        controlled=[row for row in findings.rows if any(cell.to_control for cell in row.cells)],
    )  # fmt: skip
    write_atomic(target, text.encode(errors="replace"))
    return target


def _outcomes(findings: Findings) -> list[tuple[str, int]]:
    """How many claims hold, fail, can't be told, weren't measured; without those that are none."""
    counts = {"holds": 0, "fails": 0, "can't tell": 0, "not measured": 0}
    for claim in findings.claims:
        counts[claim.outcome] += 1
    return [(outcome, num) for outcome, num in counts.items() if num]


def _forests(findings: Findings, arms: Arms) -> Iterator[Figure]:
    for at, column in enumerate(findings.columns):
        cells = ((row, row.cells[at]) for row in findings.rows)
        compared = [
            Compared(row.label, cell.to_base, cell.to_control)
            for row, cell in cells
            if has_value(cell.to_base) or has_value(cell.to_control)
        ]
        if compared:
            base, control = arms.label(findings.base), arms.label(findings.control)
            yield Figure(column.label, forest(compared, column, base=base, control=control))


def _scattered(findings: Findings) -> tuple[Column, Column, list[tuple[ArmRow, Cell, Cell]]] | None:
    """Both columns of the scatter, and the arms with their cells in them; None where there is none to draw."""
    places = {column.key: at for at, column in enumerate(findings.columns)}
    if findings.scatter is None or not places.keys() >= set(findings.scatter):
        return None
    across, up = (places[key] for key in findings.scatter)
    return (
        findings.columns[across],
        findings.columns[up],
        [(row, row.cells[across], row.cells[up]) for row in findings.rows],
    )


def _scatter(findings: Findings, arms: Arms) -> Figure | None:
    found = _scattered(findings)
    if found is None:
        return None
    across, up, rows = found
    placed = [
        Placed(
            row.label,
            arms.style(row.key),
            (a.value, a.low, a.high),
            (b.value, b.low, b.high),
            row.key == findings.base,
        )
        for row, a, b in rows
        if a.value is not None and b.value is not None
    ]
    if not placed:
        return None
    return Figure(f"{across.label} and {up.label}", scatter(placed, across, up))


def _silent(findings: Findings) -> list[str]:
    """Arms that make up less than the base and also find less.

    Of the latter an interval below 0 is enough, whatever the correction says: this is a caution, not a finding.
    """
    found = _scattered(findings)
    if found is None or (found[0].better, found[1].better) != ("lower", "higher"):
        return []
    return [
        row.label
        for row, a, b in found[2]
        if a.to_base is not None and a.to_base.verdict == "better"
        if b.to_base is not None and b.to_base.high is not None and b.to_base.high < 0
    ]


def _curves(findings: Findings, arms: Arms) -> Iterator[Figure]:
    for quantity, unit in dict.fromkeys((one.quantity, one.unit) for one in findings.curves):
        series = [
            Series(arms.label(one.arm), arms.style(one.arm), tuple(map(Dot, one.steps, one.values, one.low, one.high)))
            for one in findings.curves
            if (one.quantity, one.unit) == (quantity, unit) and one.steps
        ]
        if series:
            drawing = chart(series, title=quantity, x_label="step", y_label=unit, band=True)
            yield Figure(quantity, drawing)


def _sweep(sweep: Sweep, arms: Arms) -> Figure:
    column = sweep.column
    series = [
        Series(name, at + 1, tuple(
            Dot(p.x, p.value, p.low, p.high, f"{arms.label(p.arm)}: {export.shown(p.value, column)} at {p.x:g}")
            for p in sorted(points, key=lambda p: p.x)
        ))
        for at, (name, points) in enumerate(sweep.series) if points
    ]  # fmt: skip
    if not series:
        return Figure(sweep.title, "")
    label = export.heading(column)
    drawing = chart(
        series, title=sweep.title, x_label=sweep.x_label, y_label=label, percent=column.percent, log_x=sweep.log_x
    )
    return Figure(sweep.title, drawing, _legend(series))


def _rounds(findings: Findings, arms: Arms) -> Figure | None:
    series = [
        Series(one.label, arms.style(one.label, at + 1), tuple(map(Dot, range(1, len(one.shares) + 1), one.shares)))
        for at, one in enumerate(findings.rounds)
        if one.shares
    ]
    if not series:
        return None
    title = "Answers that differ enough after each round"
    drawing = chart(series, title=title, x_label="round", y_label="share, %", percent=True, whole=True)
    return Figure(title, drawing, _legend(series))


def _legend(series: Sequence[Series]) -> tuple[tuple[str, str], ...]:
    return tuple((one.label, swatch(one.style)) for one in series)


def _samples(findings: Findings, arms: Arms) -> str:
    """What the sample browser shows, as JSON that ends no script element; "" where there is nothing to look at."""
    if not findings.answers and not findings.pairs:
        return ""
    shown = [*(one.picture for one in findings.answers), *(one.picture for one in findings.pairs)]
    data = {
        "arms": [{"label": label, "style": at % NUM_STYLES} for at, label in enumerate(arms.labels.values())],
        "base": arms.style(findings.base),
        "answers": [
            {
                "uid": one.uid, "picture": one.picture, "question": one.question, "objects": one.objects,
                "answers": [_said(arms.style(said.arm), said.text, said.mentions) for said in one.answers],
            }
            for one in findings.answers
        ],
        "pairs": [
            {
                "arm": arms.style(one.arm), "uid": one.uid, "kind": one.kind, "picture": one.picture,
                "question": one.question, "chosen": stretches(one.chosen, one.rejected),
                "rejected": stretches(one.rejected, one.chosen, written=one.written), "notes": one.notes,
            }
            for one in findings.pairs
        ],
        "pictures": {key: _picture(findings.pictures.get(key)) for key in dict.fromkeys(shown)},
    }  # fmt: skip
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")


def _said(arm: int, text: str, mentions: Sequence[Any]) -> dict[str, Any]:
    spans = [{"start": one.start, "end": one.end, "hallucinated": one.hallucinated} for one in mentions]
    return {
        "arm": arm,
        "pieces": named_objects(text, spans),
        "made": sorted({text[one.start : one.end].lower() for one in mentions if one.hallucinated}),
        "num_made": sum(one.hallucinated for one in mentions),
        "num": len(mentions),
    }


def _picture(content: bytes | None) -> dict[str, Any]:
    if content is None:
        return {"problem": _NO_PICTURE}
    found = embed(ImageRef(data=content), alt="")
    if found.problem:
        return {"problem": found.problem}
    return {"uri": found.uri, "width": found.width, "height": found.height, "pixelated": found.pixelated}
