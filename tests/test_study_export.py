"""A study's numbers as Markdown, LaTeX and CSV: the same numbers, escaped for each."""

import csv
import io
import re
from dataclasses import replace

import pytest

from studies_made import COLUMNS, findings, with_text
from verisight.studies.export import csv_rows, interval, latex, markdown, shown
from verisight.studies.findings import ArmRow, Cell, Effect

EVIL = 'a|b `c` <b>d</b> *e* _f_ [g](h) \\ $i$ #j & 100% ^k ~l {m} "n"\nnext'


def rows_of(found):
    return list(csv.DictReader(io.StringIO(csv_rows(found))))


def test_markdown_holds_every_mean_interval_and_difference():
    found = findings(num_arms=5)
    text = markdown(found)
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    for row in found.rows:
        for cell, column in zip(row.cells, found.columns, strict=True):
            assert f"{shown(cell.value, column)} [{interval(cell, column)}]" in text.replace("*", "")
            if cell.to_base:
                change = shown(cell.to_base.value, column, signed=True)
                assert f"<br>{change} [{interval(cell.to_base, column)}] {cell.to_base.verdict}" in text
    assert "start (base)" in text
    assert "SFT control (control)" in text
    assert "**can't tell**" in text
    assert "**Missing runs:** mixed, seed 2: ran out of memory" in text


def test_best_is_bold_and_second_underlined():
    found = findings()
    cells = {row.key: row.cells[0] for row in found.rows}
    best, second = shown(cells["terse"].value, COLUMNS[0]), shown(cells["mixed"].value, COLUMNS[0])
    assert f"| **{best}** [" in markdown(found)
    assert f"| <ins>{second}</ins> [" in markdown(found)
    assert rf"\textbf{{{best}}}" in latex(found)
    assert rf"\underline{{{second}}}" in latex(found)


def test_markdown_escapes_what_comes_from_data():
    text = markdown(with_text(findings(num_arms=3), lambda said: said + EVIL))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    plain = re.sub(r"<br>|</?ins>", "", text)
    assert "<" not in plain
    assert not re.search(r"(?<!\\)[`_$]", plain)
    assert "\\[g\\](h)" in text
    assert (
        markdown(replace(findings(num_arms=1), about="- 1. #x", notes=("12. no list", "> no quote"))).count("\\") >= 3
    )


@pytest.mark.parametrize("start", ["- a", "+ a", "1. a", "2) a", "=== a", "# a", "> a"])
def test_markdown_text_begins_no_block(start):
    line = markdown(replace(findings(num_arms=1), about=start)).split("\n\n")[1]
    assert line[0] in "\\&" or line[1] == "\\"


def test_latex_escapes_every_special_character():
    text = latex(with_text(findings(num_arms=3), lambda said: said + EVIL))
    told = r"a\textbar{}b \textasciigrave{}c\textasciigrave{} \textless{}b\textgreater{}d\textless{}/b\textgreater{} "
    told += r"*e* \_f\_ {[}g{]}(h) \textbackslash{} \$i\$ \#j \& 100\% \textasciicircum{}k \textasciitilde{}l \{m\} "
    told += "''n'' next"
    assert told in text
    body = re.sub(r"\\[&%$#_{}]", "", text.split("\n", 1)[1])
    assert not set('#|<>"`^~%') & set(body)
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0


def test_latex_lines_have_as_many_cells():
    text = latex(findings())
    for table in text.split(r"\begin{table}")[1:]:
        columns = len(re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", table)[1])
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
    assert "\u2212" not in text
    assert "$-2.2$ {\\small {[}$-3.5$, $-0.9${]}} {\\small better}" in text


def test_csv_has_a_row_a_number():
    found = findings(num_arms=4)
    rows = rows_of(found)
    by = {(row["arm"], row["column"], row["kind"], row["seed"]): row for row in rows}
    assert len(by) == len(rows)
    for arm in found.rows:
        for column, cell in zip(found.columns, arm.cells, strict=True):
            told = by[arm.key, column.key, "value", ""]
            assert [float(told[name]) for name in ("value", "low", "high")] == [cell.value, cell.low, cell.high]
            seeds = [float(by[arm.key, column.key, "seed", str(seed)]["value"]) for seed in arm.seeds]
            assert tuple(seeds) == cell.by_seed
            for kind, effect in (("to_base", cell.to_base), ("to_control", cell.to_control)):
                if effect:
                    told = by[arm.key, column.key, kind, ""]
                    assert (float(told["value"]), float(told["p_holm"])) == (effect.value, effect.p_holm)
                    assert told["verdict"] == effect.verdict
        for label, value in arm.paper:
            assert float(by[arm.key, label, "paper", ""]["value"]) == value


def test_csv_text_is_no_formula_and_numbers_stay_numbers():
    made = findings(num_arms=1)
    cells = (Cell(-0.5, None, None, (-0.5,), Effect(-0.1, None, None, None, "can't tell")),) * len(COLUMNS)
    for start in ("=", "+", "-", "@", "\t=", "\r\n@"):
        row = ArmRow("x", f"{start}cmd|' /C calc'!A0", "", False, (0,), cells)
        told = rows_of(replace(made, rows=(row,)))
        assert {one["label"][:2] for one in told} == {f"'{start[-1]}"}
        assert {one["value"] for one in told} == {"-0.5", "-0.1"}
        assert {one["verdict"] for one in told} == {"", "can't tell"}


def test_what_was_not_measured_is_a_dash_or_empty():
    made = findings(num_arms=1)
    cell = Cell(None, None, None, (None,), Effect(None, None, None, None, "not measured"))
    found = replace(made, rows=(ArmRow("x", "X", "", False, (0,), (cell,) * len(COLUMNS)),))
    assert "| \u2013<br>\u2013 not measured |" in markdown(found)
    assert "X & -- & --" in latex(found)
    assert {row["value"] for row in rows_of(found)} == {""}
    partly = replace(found.rows[0], seeds=(0, 1), cells=(replace(cell, by_seed=(0.5,)),) * len(COLUMNS))
    told = [row for row in rows_of(replace(found, rows=(partly,))) if row["kind"] == "seed"]
    assert {(row["seed"], row["value"]) for row in told} == {("", "0.5")}
    assert "None" not in markdown(found) + latex(found) + csv_rows(found)


def test_a_study_of_nothing_is_a_title():
    empty = replace(findings(num_arms=1), rows=(), columns=(), claims=(), notes=(), missing=(), about="")
    assert markdown(empty) == "# What makes pairs good\n"
    assert rows_of(empty) == []
    assert r"\begin{tabular}{l}" in latex(empty)
