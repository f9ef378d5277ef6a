"""The demo in miniature: everything it promises to leave behind, and what a second call does."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from user_files import finished, verisight
from verisight.data.files import read_json, read_jsonl
from verisight.pocket.budget import Budget
from verisight.study.demo import Size, run_demo

SIZE = Size(Budget(scenes=12, steps=4, batch_size=2), test=16, pope_images=4)


class Demo(NamedTuple):
    folder: Path
    report: Path
    shown: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A finished demo."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        shown = show(patch)
        report = run_demo(folder / "runs", size=SIZE, quiet=True)
    return Demo(folder / "runs", report, "".join(shown))


def show(patch: pytest.MonkeyPatch) -> list[str]:
    """What is printed to standard output from now on, at a fixed width."""
    patch.setenv("COLUMNS", "150")
    shown: list[str] = []
    patch.setattr(sys.stdout, "write", lambda text: shown.append(text) or len(text))
    return shown


class Links(HTMLParser):
    """Everything a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("script", "img", "iframe", "link", "source", "object", "embed", "image", "use"):
            self.found += [value or "" for name, value in attrs if name in ("src", "href", "data", "xlink:href")]


def test_every_arm_leaves_its_files(demo: Demo) -> None:
    assert {path.name for path in demo.folder.iterdir()} == {"data", "base", "bdhs_dpo", "sft", "report.html"}
    for arm in ("base", "bdhs_dpo", "sft"):
        summary = read_json(demo.folder / arm / "evaluate" / "summary.json")
        assert {name: entry["num_items"] for name, entry in summary.items()} == {"chair": 16, "pope": 4 * 3 * 2 * 3}
        assert len(read_jsonl(demo.folder / arm / "evaluate" / "chair.jsonl")) == 16
    for arm in ("bdhs_dpo", "sft"):
        assert (demo.folder / arm / "model" / "model.safetensors").exists()
        assert [row["step"] for row in read_jsonl(demo.folder / arm / "metrics.jsonl")] == [1, 2, 3, 4]
    pairs = pq.read_table(demo.folder / "bdhs_dpo" / "pairs.parquet")
    equal = demo.folder / "bdhs_dpo" / "equal_pairs.jsonl"
    assert 12 <= pairs.num_rows == 24 - (len(read_jsonl(equal)) if equal.exists() else 0)
    assert set(pairs["origin"].to_pylist()) == {"bdhs_attn"}
    assert not (demo.folder / "sft" / "pairs.parquet").exists()


def test_both_arms_saw_the_same_rows_steps_and_rates(demo: Demo) -> None:
    dpo, sft = (read_jsonl(demo.folder / arm / "metrics.jsonl") for arm in ("bdhs_dpo", "sft"))
    assert [(row["lr"], row["num_pairs"]) for row in dpo] == [(row["lr"], row["num_pairs"]) for row in sft]
    assert {row["num_pairs"] for row in dpo} == {2}


def test_the_report_is_one_file_that_fetches_nothing(demo: Demo) -> None:
    assert demo.report == demo.folder / "report.html"
    page = demo.report.read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert {"html", "table", "svg", "img"} <= links.tags
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert not re.search(r"url\((?!['\"]?(data:|#))|@import", page)
    for word in ("BDHS-DPO", "SFT on chosen", "CHAIR", "POPE"):
        assert word in page


def test_the_table_shows_all_arms(demo: Demo) -> None:
    for word in ("base", "BDHS-DPO", "SFT on chosen", "Report: "):
        assert word in demo.shown


def test_a_second_call_does_nothing_again_and_shows_the_same(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("verisight.models.policy.decode", "verisight.study.run.fit", "verisight.study.demo.write_split"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("it was done again"))
    page, shown = demo.report.read_bytes(), show(monkeypatch)
    assert run_demo(demo.folder, size=SIZE, quiet=True) == demo.report
    assert demo.report.read_bytes() == page
    assert table("".join(shown)) == table(demo.shown)


def table(shown: str) -> str:
    """Without the closing line, which tells the seconds."""
    return re.sub(r"^\d+ s\. Report", "Report", shown, flags=re.MULTILINE)


def test_another_seed_in_the_same_folder_is_refused_before_any_work(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))
    refused = verisight("demo", "--out", demo.folder, "--seed", 1)
    assert refused.code == 2
    assert "bdhs_dpo: already holds another run" in refused.err


def test_the_report_command_writes_the_comparison(demo: Demo, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    words = (demo.folder / "base", demo.folder / "bdhs_dpo", demo.folder / "sft", "--out", target)
    assert finished("report", *words).out == f"{target}\n"
    assert "bdhs_dpo" in target.read_text(encoding="utf-8")
    empty = verisight("report", demo.folder / "base", tmp_path)
    assert empty.code == 2
    assert str(tmp_path) in empty.err


@pytest.mark.slow
def test_a_killed_demo_continues(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it measures the aligned model, it ends with the first demo's numbers."""
    from verisight.evaluate import runner

    write, count = runner.append_jsonl, 0

    def dying(path: Path, row: dict[str, object]) -> None:
        nonlocal count
        count += "bdhs_dpo" in str(path)
        if count == 20:
            raise KeyboardInterrupt
        write(path, row)

    monkeypatch.setattr(runner, "append_jsonl", dying)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "runs", size=SIZE, quiet=True)
    monkeypatch.setattr(runner, "append_jsonl", write)
    run_demo(tmp_path / "runs", size=SIZE, quiet=True)
    for arm in ("base", "bdhs_dpo", "sft"):
        measured = [
            read_json(folder / arm / "evaluate" / "summary.json") for folder in (tmp_path / "runs", demo.folder)
        ]
        assert measured[0] == measured[1]
