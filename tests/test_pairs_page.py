"""The page of `verisight pairs`: counts, marks, and nothing of the data that a browser would obey."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tiny import pair
from verisight.data.records import write_pairs
from verisight.study.pairs_facts import collect_facts, pair_files, summary_lines
from verisight.study.pairs_page import write_pairs_page
from verisight.types import Answer, Pair, UserError


def made(index: int, *, round_: int, similarity: float) -> Pair:
    notes = {
        "round": round_, "guided": round_ < 3, "similarity": similarity, "encoder": "scripted", "eps": 0.97,
        "view": {"kind": "masked", "kept": 1, "of": 36}, "guidance": "sentence_guided", "seed": 0, "truncated": False,
        "cuts": [3], "written": [[40, 55]],
    }  # fmt: skip
    return replace(pair(index), origin="bdhs_attn", notes=notes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rounds = [(1, 0.5)] * 6 + [(2, 0.8)] * 3 + [(3, 0.99)]
    write_pairs(tmp_path / "pairs.parquet", [made(i, round_=r, similarity=s) for i, (r, s) in enumerate(rounds)])
    return tmp_path


def test_the_share_resolved_after_each_round_is_said(folder: Path) -> None:
    told = " ".join(summary_lines(collect_facts(folder / "pairs.parquet", seed=0)))
    for share in ("60", "90"):
        assert share in told
    assert "10" in told


def test_the_page_holds_pictures_marks_and_figures(folder: Path) -> None:
    page = write_pairs_page(folder, num=4).read_text()
    assert page.count("data:image/png;base64") == 4
    assert "<svg" in page
    assert "horse" in page
    assert "0.97" in page
    assert write_pairs_page(folder, num=4).read_text() == page


def test_hostile_texts_stay_texts(folder: Path) -> None:
    evil = '<script>alert("x")</script><img src=x onerror=y>'
    hostile = replace(
        made(0, round_=1, similarity=0.5), chosen=Answer(f"A dog. {evil}"), rejected=(Answer(f"A cat. {evil}"),)
    )
    prompt = replace(hostile.prompt, uid=evil, text=evil, provenance=evil)
    notes = hostile.notes | {"encoder": evil, "view": {"kind": evil, "text": evil}, "guidance": evil}
    write_pairs(folder / "pairs.parquet", [replace(hostile, prompt=prompt, notes=notes, origin=evil)])
    page = write_pairs_page(folder).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_every_pairs_file_of_a_run_has_a_section(folder: Path) -> None:
    write_pairs(folder / "pairs.parts.1.source.parquet", [pair(0), pair(1)])
    assert [path.name for path in pair_files(folder)] == ["pairs.parquet", "pairs.parts.1.source.parquet"]
    page = write_pairs_page(folder).read_text()
    assert page.count("<h2") >= 2


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_pairs_page(tmp_path)
