"""Re-enacted sets as a whole: the same again, worthless with full noise, safe when a write fails, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pocket_sets import NUM, everything, rows, task_of, write_sets
from user_files import finished, verisight
from verisight.pocket import reenact
from verisight.pocket.oracle import Task, judge
from verisight.pocket.reenact import WRITERS, write_all
from verisight.pocket.voices import VOICES, Asked, gather
from verisight.types import UserError


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return everything()


@pytest.fixture(scope="module")
def written(asked: list[Asked], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), asked)


def test_the_same_settings_give_the_same_files_and_another_seed_others(
    asked: list[Asked], written: Path, tmp_path: Path
) -> None:
    again = write_sets(tmp_path / "again", gather(num=NUM, quiet=True))
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files)
    other = write_sets(tmp_path / "other", asked, seed=1)
    data = [name for name in files if name.suffix != ".jpg"]
    assert len(data) == 7
    assert all((written / name).read_bytes() != (other / name).read_bytes() for name in data)


def test_noise_of_one_makes_every_set_worthless(asked: list[Asked], tmp_path: Path) -> None:
    noisy = [write_sets(tmp_path / str(seed), asked, noise=1.0, seed=seed) for seed in range(6)]

    def share(name: str, holds: Callable[[dict[str, Any], Task], bool], key: Callable[[dict[str, Any]], Any]) -> float:
        found = [(row, key(row)) for folder in noisy for row in rows(folder, name)]
        told = [holds(row, task_of(asked, *which)) for row, which in found]
        return sum(told) / len(told)

    def povid(row: dict[str, Any], task: Task) -> bool:
        return judge(task, row["rejected_conversations"][1]["value"]).num_faults > 0

    def llava(row: dict[str, Any], task: Task) -> bool:
        return row["preference"] == 1

    spoiled = share("povid", povid, lambda row: (
        int(row["id"][-12:]), row["conversations"][0]["value"].removeprefix("<image>\n")
    ))  # fmt: skip
    first = share("llava_rlhf", llava, lambda row: (
        row["id"], row["conversations"][-2]["value"].replace("<image>", "").strip()
    ))  # fmt: skip
    assert spoiled == pytest.approx(0.5, abs=0.15)
    assert first == pytest.approx(0.5, abs=0.15)
    totals: dict[str, list[int]] = {name: [] for name in VOICES}
    for folder in noisy:
        for row in rows(folder, "vlfeedback"):
            for done in row["completions"]:
                totals[done["model"]].append(sum(int(a["Rating"]) for a in done["annotations"].values()))
    means = [float(np.mean(found)) for found in totals.values()]
    assert means == pytest.approx([9.0] * len(means), abs=1.0)  # the best voice is rated no better than the blind one
    wrong = [
        judge(task_of(asked, int(row["image_path"][:12]), pair["question"]), pair["chosen"]).num_faults > 0
        for folder in noisy
        for row in rows(folder, "rlhf_v")
        for pair in [json.loads(row["text"])]
    ]
    assert np.mean(wrong) > 0.5


def test_a_write_that_fails_leaves_the_old_file(
    asked: list[Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_sets(tmp_path, asked[:3])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(reenact, "interaction", fail)
    monkeypatch.setattr(pq, "write_table", fail)
    monkeypatch.setattr(reenact, "rate", fail)
    for name in ("rlhf_v", "vlfeedback", "vlfeedback/data", "vlfeedback_corrupted", "nlf"):
        with pytest.raises(OSError, match="disk full"):
            WRITERS[name](folder / name.partition("/")[0], asked, noise=0.0, seed=0)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".jpg"}
    assert after == {path: data for path, data in before.items() if path.suffix != ".jpg"}


def test_the_command_writes_every_set(tmp_path: Path) -> None:
    ended = finished("pocket", "data", "--all", tmp_path / "sets", "--num", 2, "--noise", 0, "--seed", 3)
    assert ended.code == 0, ended.err
    paths = [Path(line) for line in ended.out.split()]
    assert [path.relative_to(tmp_path / "sets").parts[0] for path in paths] == [
        "povid", "rlhf_v", "llava_rlhf", "vlfeedback", "vlfeedback", "vlfeedback_corrupted", "nlf", "llava_instruct",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in paths)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--noise", "0.2"], "--noise: belongs to a run with --all"),
        (["--num", "5"], "--num: belongs to a run with --all"),
        (["--all", "sets", "--test", "5"], "--test: belongs to a run without --all"),
        (["--all", "sets", "--noise", "1.5"], "--noise"),
        (["--all", "sets", "--num", "0"], "--num"),
    ],
)
def test_settings_that_do_nothing_are_refused(
    words: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = verisight("pocket", "data", *words)
    assert ended.code == 2
    assert complaint in ended.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("num", "noise"), [(0, 0.1), (2, -0.1), (2, 1.1), (2, float("nan"))])
def test_write_all_refuses_nonsense(num: int, noise: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="accepted"):
        write_all(tmp_path / "sets", num=num, noise=noise, quiet=True)
    assert not (tmp_path / "sets").exists()
