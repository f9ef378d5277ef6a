"""A study's numbers for elsewhere: Markdown, LaTeX, CSV. What comes from data is escaped for each."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence

from verisight.studies.findings import ArmRow, Cell, Column, Effect, Findings
from verisight.study.tables import Metric, number

_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
_BLOCK_START = re.compile(r"^([-+=>]|\d+[.)])")
_FORMULA = ("=", "+", "-", "@")
_ARROWS = {"lower": "\u2193", "higher": "\u2191", "neutral": ""}
_LATEX_ARROWS = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "neutral": ""}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "\u2212": "$-$", "[": "{[}", "]": "{]}", "`": r"\textasciigrave{}",
    "\u2193": r"$\downarrow$", "\u2191": r"$\uparrow$",
}  # fmt: skip
_FIELDS = (
    "arm", "label", "role", "column", "column_label", "percent", "better", "kind", "seed", "value", "low", "high",
    "p_holm", "verdict", "best",
)  # fmt: skip


def shown(value: float | None, column: Column, *, signed: bool = False) -> str:
    """A value without its unit, one decimal, fractions in percent; an en dash for None."""
    return number(
        value, Metric("", column.key, column.label, column.meaning, column.better, column.percent), signed=signed
    )


def interval(found: Cell | Effect, column: Column) -> str:
    """The words "low to high", signed for an effect; nothing where there is no interval."""
    if found.low is None or found.high is None:
        return ""
    low, high = (shown(end, column, signed=isinstance(found, Effect)) for end in (found.low, found.high))
    return f"{low} to {high}"


def heading(column: Column) -> str:
    """A column's label with its unit and which way is better: "Recall, % \u2191"."""
    return f"{column.label}{', %' if column.percent else ''} {_ARROWS[column.better]}".rstrip()


def role(row: ArmRow, findings: Findings) -> str:
    """The word "base" or "control" for an arm that is one, else nothing."""
    return "base" if row.key == findings.base else "control" if row.control or row.key == findings.control else ""


def by_seed(row: ArmRow, cell: Cell) -> list[tuple[str, float | None]]:
    """Each seed and its value. Where only some seeds have one, it isn't known which: they go without a name."""
    names = map(str, row.seeds) if len(row.seeds) == len(cell.by_seed) else [""] * len(cell.by_seed)
    return list(zip(names, cell.by_seed, strict=True))


def paper_labels(rows: Sequence[ArmRow]) -> list[str]:
    """The columns of the paper that any arm has a figure for, in the order they come."""
    return list(dict.fromkeys(label for row in rows for label, _ in row.paper))


def markdown(findings: Findings) -> str:
    """The study as Markdown: its table, the paper's figures, claims and what is missing; ends in a newline."""
    parts = [f"# {_md(findings.title)}", _paragraph(findings.about)]
    if findings.missing:
        parts.append(f"**Missing runs:** {_md('; '.join(findings.missing))}")
    if findings.rows and findings.columns:
        parts += [_md_summary(findings), (
            "In brackets 95 % intervals, each for itself; below them the difference to the base, with its interval and "
            "its verdict, which is corrected for all differences of the table (Holm). "
            "Bold: best; underlined: second; only where the difference to the next one is told from 0."
        )]  # fmt: skip
    labels = paper_labels(findings.rows)
    if labels:
        lines = [["In the paper (LLaVA-1.6-7B)", *map(_md, labels)]]
        for row in findings.rows:
            figures = dict(row.paper)
            if figures:
                lines.append([_md(row.label), *(_figure(figures.get(label)) for label in labels)])
        parts.append(_md_table(lines))
    if findings.claims:
        parts.append(_md_claims(findings))
    parts += [_paragraph(note) for note in findings.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(findings: Findings) -> str:
    """The summary as a LaTeX table as wide as the text (needs booktabs, graphicx): best bold, second underlined.

    A second line under an arm holds its differences to the base. The paper's figures are a table of their own.
    """
    head = [_tex(one.label) + (r", \%" if one.percent else "") + _LATEX_ARROWS[one.better] for one in findings.columns]
    lines = []
    for row in findings.rows:
        what = role(row, findings)
        name = _tex(row.label) + (f" ({what})" if what else "")
        lines.append([name, *map(_tex_cell, row.cells, findings.columns)])
        if any(cell.to_base for cell in row.cells):
            pairs = zip(row.cells, findings.columns, strict=True)
            lines.append(["", *(_tex_effect(cell.to_base, column) for cell, column in pairs)])
    caption = (
        rf"{_tex(findings.title)}. Small: 95\,\% intervals. Bold: best, underlined: second, where the difference "
        "to the next one is told from 0. Second lines: difference to the base."
    )
    text = "% \\usepackage{booktabs,graphicx}\n" + _tex_table(["", *head], lines, caption)
    labels = paper_labels(findings.rows)
    if labels:
        known = [(_tex(row.label), dict(row.paper)) for row in findings.rows if row.paper]
        told = [[name, *(_figure(found.get(label), "--") for label in labels)] for name, found in known]
        text += _tex_table(["", *map(_tex, labels)], told, "In the paper, LLaVA-1.6-7B.")
    return text


def csv_rows(findings: Findings) -> str:
    """One row a number: arm x column x kind (value, seed, to_base, to_control, paper). Fractions stay fractions.

    Text is on one line; what a spreadsheet would take for a formula gets a leading apostrophe. Numbers never do.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in findings.rows:
        who = {"arm": row.key, "label": row.label, "role": role(row, findings)}
        for column, cell in zip(findings.columns, row.cells, strict=True):
            what = {
                "column": column.key, "column_label": column.label, "percent": "yes" if column.percent else "no",
                "better": column.better,
            }  # fmt: skip
            for found in _numbers(row, cell):
                writer.writerow({name: _csv(value) for name, value in (who | what | found).items()})
        for label, figure in row.paper:
            found = {"column": label, "column_label": label, "kind": "paper", "value": figure}
            writer.writerow({name: _csv(value) for name, value in (who | found).items()})
    return buffer.getvalue()


def _numbers(row: ArmRow, cell: Cell) -> Iterator[dict[str, str | float | None]]:
    yield {"kind": "value", "value": cell.value, "low": cell.low, "high": cell.high, "best": cell.best}
    for seed, value in by_seed(row, cell):
        yield {"kind": "seed", "seed": seed, "value": value}
    for kind, effect in (("to_base", cell.to_base), ("to_control", cell.to_control)):
        if effect is not None:
            yield {
                "kind": kind, "value": effect.value, "low": effect.low, "high": effect.high,
                "p_holm": effect.p_holm, "verdict": effect.verdict,
            }  # fmt: skip


def _csv(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = " ".join(value.split())
        return f"'{text}" if text.startswith(_FORMULA) else text
    return repr(value)


def _md_summary(findings: Findings) -> str:
    lines = [["Arm", *(_md(heading(column)) for column in findings.columns)]]
    for row in findings.rows:
        what = role(row, findings)
        name = _md(row.label) + (f" ({what})" if what else "")
        lines.append([name, *map(_md_cell, row.cells, findings.columns)])
    return _md_table(lines)


def _md_cell(cell: Cell, column: Column) -> str:
    text = shown(cell.value, column)
    text = {"best": f"**{text}**", "second": f"<ins>{text}</ins>", "": text}[cell.best]
    around = interval(cell, column)
    text += f" [{around}]" if around else ""
    return f"{text}<br>{_effect(cell.to_base, column)}" if cell.to_base else text


def _md_claims(findings: Findings) -> str:
    lines = [["Claim", "Outcome", "Stands on", "Expected", "Effect"]]
    for claim in findings.claims:
        name = f"{_md(claim.key)}: {_md(claim.text)}{f' {_md(claim.note)}' if claim.note else ''}"
        first = [name, f"**{claim.outcome}**"]
        if not claim.parts:
            lines.append([*first, "", "", ""])
        for at, part in enumerate(claim.parts):
            effect = f"{_md(part.column.label)} {_effect(part.effect, part.column)}: {part.outcome}"
            lines.append([*(first if at == 0 else ["", ""]), _md(part.text), _md(part.expects), effect])
    return _md_table(lines, right=False)


def _effect(effect: Effect, column: Column) -> str:
    around = interval(effect, column)
    return f"{shown(effect.value, column, signed=True)}{f' [{around}]' if around else ''} {effect.verdict}"


def _md_table(lines: Sequence[Sequence[str]], *, right: bool = True) -> str:
    rule = ["---", *["---:" if right else "---"] * (len(lines[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _md(text: str) -> str:
    """Text that no Markdown reads as more than text, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", plain)


def _paragraph(text: str) -> str:
    return _BLOCK_START.sub(lambda found: f"{found[1][:-1]}\\{found[1][-1]}", _md(text))


def _figure(value: float | None, none: str = "\u2013") -> str:
    """A figure of the paper, which prints two decimals."""
    return none if value is None else f"{value:.2f}"


def _tex_table(head: Sequence[str], lines: Sequence[Sequence[str]], caption: str) -> str:
    head_line, *body = (" & ".join(line).strip() + r" \\" for line in (head, *lines))
    return "\n".join((
        r"\begin{table}", r"\centering", rf"\caption{{{caption}}}",
        r"\resizebox{\textwidth}{!}{" + rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule", head_line, r"\midrule", *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ))  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _tex_number(text: str) -> str:
    """A number as `shown` gives it, set in mathematics where it has a sign."""
    if text == "\u2013":
        return "--"
    return "$" + text.replace("\u2212", "-") + "$" if text[0] in "+\u2212" else text


def _tex_interval(found: Cell | Effect, column: Column) -> str:
    around = interval(found, column)
    return f" {{\\small {{[}}{', '.join(map(_tex_number, around.split(' to ')))}{{]}}}}" if around else ""


def _tex_cell(cell: Cell, column: Column) -> str:
    text = _tex_number(shown(cell.value, column))
    text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}", "": text}[cell.best]
    return text + _tex_interval(cell, column)


def _tex_effect(effect: Effect | None, column: Column) -> str:
    if effect is None:
        return ""
    number = _tex_number(shown(effect.value, column, signed=True))
    return rf"{number}{_tex_interval(effect, column)} {{\small {effect.verdict}}}"
