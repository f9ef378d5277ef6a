"""The verbs on data sets, from the command line: check, convert, export, kinds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from checked_sets import encoded, photo, pictures, row, written
from test_cli_light import spied
from verisight.cli import app
from verisight.data.check_text import Listing, show
from verisight.data.readers import open_data
from verisight.types import UserError


def ran(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, Path]:
    """Four rows, one of which lacks its picture, and the pictures."""
    images = pictures(tmp_path / "images", ["a.png", "COCO_val2014_000000000007.jpg"])
    names = ["a.png", "COCO_val2014_000000000007.jpg", "gone.png", "a.png"]
    rows = (row(n, name, f"What {n}?", "A cat.", "A big dog.") for n, name in enumerate(names))
    return written(tmp_path / "d.json", rows), images


def test_exit_codes_of_check(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    path, images = mixed
    assert ran("check", path, "--images", images).exit_code == 1
    assert ran("check", path, "--images", images, "--max-bad", 0.25).exit_code == 0
    assert ran("check", path, "--images", images, "--max-bad", 0.24).exit_code == 1
    assert ran("check", path, "--images", images, "--limit", 2).exit_code == 0
    assert isinstance(ran("check", tmp_path / "nowhere").exception, UserError)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rule", "margin:0"], "--rule: found 'margin:0'"),
        (["--rule", "best"], "accepted: all_pairs, best_worst, margin:NUMBER"),
        (["--against-images", "."], "--against-images: found without --against"),
        (["--kind", "povit"], "kind: found 'povit'"),
        (["--against", "nowhere"], "--against nowhere"),
        (["--rule", "best_worst"], "rule: found best_worst with kind povid, which has no scores; accepted: "),
        (["--samples", "3"], "--samples: found 3 without --html"),
        (["--seed", "1"], "--seed: found 1 without --html"),
    ],
)
def test_mistakes_are_told(mixed: tuple[Path, Path], words: list[str], told: str) -> None:
    assert told in str(ran("check", mixed[0], "--images", mixed[1], *words).exception)


def test_json_is_all_there_is_on_stdout(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    result = ran("check", mixed[0], "--images", mixed[1], "--against", mixed[1], "--json", "--html", page)
    facts = json.loads(result.stdout)
    assert facts["rows"]["num_faulty"] == 1
    assert facts["rows"]["passed"] is False
    assert facts["leaks"][0]["same_file"]["num_pictures"] == 2
    assert page.read_text().count('<li class="card"') == 3
    assert result.exit_code == 1


def test_a_pipe_gets_plain_lines_that_are_not_cut(mixed: tuple[Path, Path]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", "from verisight.cli import main; main()", "data", "check", str(mixed[0]),
         "--images", str(mixed[1])],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "40"},
    )  # fmt: skip
    assert told.returncode == 1
    assert told.stderr == ""
    assert f"'gone.png' is not in {mixed[1]}" in told.stdout
    assert "Too many faulty rows: 1 of 4 rows are faulty (25.0%), 0.0% accepted." in told.stdout
    assert not set(told.stdout) & set("│─┃━┏└\x1b")
    assert all(line == line.rstrip() for line in told.stdout.splitlines())


def test_control_characters_never_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Listing("a\x1b[31m", ("x", "y"), (("b\x1b]0;c\x07", "[red]d[/red]\ne"),))
    show(table)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(table)
    told = capsys.readouterr().out
    assert "\x1b]" not in told
    assert "\x07" not in told
    assert told.count("[red]d[/red]") == 2


@pytest.mark.parametrize("verb", ["check", "convert", "export", "kinds"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    ended = spied("data", verb, "--help")
    assert "heavy: []" in ended.stderr
    assert ended.stdout


def test_check_imports_no_torch(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    ended = spied("data", "check", mixed[0], "--images", mixed[1], "--html", tmp_path / "p.html")
    assert "heavy: ['pyarrow']" in ended.stderr


def test_convert_writes_pairs_and_lists_what_it_could_not(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out" / "pairs.parquet"
    log = out.with_name("pairs.parquet.bad_rows.jsonl")
    refused = ran("convert", mixed[0], "--images", mixed[1], "--out", out)
    assert refused.exit_code == 1
    assert "nothing written: 1 of 4 rows are faulty" in refused.stderr
    assert [path.name for path in out.parent.iterdir()] == [log.name]
    (bad,) = map(json.loads, log.read_text().splitlines())
    assert (bad["row"], bad["reason"], bad["fault"]) == (2, "image missing", True)

    accepted = ran("convert", mixed[0], "--images", mixed[1], "--out", out, "--max-bad", 0.5)
    assert accepted.exit_code == 0
    assert "1 times image missing" in accepted.stderr
    assert f"3 pairs of 4 rows in {out}" in accepted.stdout
    again = open_data(out).read()
    first = open_data(mixed[0], images=mixed[1]).read()
    assert again.pairs == first.pairs
    assert log.exists()

    assert ran("convert", mixed[0], "--images", mixed[1], "--out", out, "--limit", 2).exit_code == 0
    assert not log.exists(), "the list of an earlier run is gone"


def test_convert_embeds_pictures_unchanged(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs.parquet"
    ran("convert", mixed[0], "--images", mixed[1], "--out", out, "--max-bad", 0.5, "--embed")
    stored = [images[0]["bytes"] for images in pq.read_table(out)["images"].to_pylist()]
    assert stored == [encoded(photo(0)), encoded(photo(1), "JPEG"), encoded(photo(0))]
    (pair, *_) = open_data(out).read().pairs
    assert (pair.prompt.images[0].data, pair.prompt.images[0].path) == (stored[0], None)
    told = json.loads(ran("check", out, "--against", mixed[1], "--json").stdout)
    assert told["leaks"][0]["same_file"]["num_pairs"] == 3


def test_convert_takes_supervised_rows(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    path = written(tmp_path / "s.json", [{"id": "1", "conversations": turns}])
    assert ran("convert", path, "--out", tmp_path / "o.parquet", "--text-only").exit_code == 0
    (pair,) = open_data(tmp_path / "o.parquet", text_only=True).read().pairs
    assert (pair.chosen.text, pair.rejected) == ("A cat.", ())


def test_convert_never_writes_over_its_own_data(mixed: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs.parquet"
    ran("convert", mixed[0], "--images", mixed[1], "--out", out, "--max-bad", 0.5)
    before = out.read_bytes()
    assert "is data that is read" in str(ran("convert", out, "--out", out).exception)
    assert "found a folder" in str(ran("convert", out, "--out", tmp_path).exception)
    blocked = ran("convert", mixed[0], "--images", mixed[1], "--out", out / "below" / "x.parquet")
    assert "cannot be written" in str(blocked.exception)
    assert out.read_bytes() == before


@pytest.mark.parametrize("tool", ["llama_factory", "ms_swift"])
def test_export_is_read_back(mixed: tuple[Path, Path], tmp_path: Path, tool: str) -> None:
    out = tmp_path / "out"
    refused = ran("export", mixed[0], "--images", mixed[1], "--to", tool, "--out", out)
    assert refused.exit_code == 1
    assert not (out / "verisight.jsonl").exists()
    result = ran(
        "export", mixed[0], "--images", mixed[1], "--to", tool, "--out", out, "--max-bad", 0.5, "--copy-images"
    )
    assert (result.exit_code, result.exception) == (0, None)
    assert "3 pairs of 4 rows in" in result.stdout
    assert "2 pictures in" in result.stdout
    again = open_data(out / "verisight.jsonl", images=out).read()
    assert [pair.chosen.text for pair in again.pairs] == ["A cat."] * 3


def test_kinds_are_listed() -> None:
    told = ran("kinds").stdout
    assert all(kind in told for kind in ("povid", "rlhf_v", "vlfeedback", "llava_rlhf", "pairs"))
