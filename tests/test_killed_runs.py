"""Runs that are killed and started again: they end with what an uninterrupted run ends with, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from user_files import LORA, ROWS, Files, assert_same_weights, finished, of_pairs, untimed, verisight, write_files
from verisight.data.files import read_jsonl
from verisight.data.records import write_pairs
from verisight.types import Answer, ImageRef, Pair, Prompt


class Killed(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("a user's folder"))


@pytest.fixture(scope="module")
def made(files: Files) -> Path:
    """Finished pairs."""
    file = files.folder / "pairs.parquet"
    pairs = [
        Pair(
            Prompt(str(uid), (ImageRef(path=files.pictures / picture),), "Describe this image in detail."),
            Answer(turns[1]),
            (Answer("There is a dog in the top left."),),
            (1.0,),
        )
        for uid, picture, turns in ROWS
    ]
    write_pairs(file, pairs)
    return file


def kill_at_row(monkeypatch: pytest.MonkeyPatch, module: Any, *, number: int) -> None:
    """The process dies when the module is about to write its `number`-th line."""
    write, count = module.append_jsonl, 0

    def dying(path: Path, row: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        write(path, row)

    monkeypatch.setattr(module, "append_jsonl", dying)


def test_pairs_killed_in_a_batch_are_the_same_in_the_end(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from verisight.sources import generated

    finished("pairs", files.recipe, f"output={files.folder / 'whole pairs'}")
    words = ("pairs", files.recipe, f"output={files.folder / 'killed pairs'}")
    kill_at_row(monkeypatch, generated, number=7)
    with pytest.raises(Killed):
        verisight(*words)
    monkeypatch.undo()
    journal = files.folder / "killed pairs" / "negatives.jsonl"
    assert len(read_jsonl(journal)) == 6
    finished(*words)
    assert not journal.exists()
    tables = [pq.read_table(files.folder / name / "pairs.parquet") for name in ("killed pairs", "whole pairs")]
    assert tables[0].to_pylist() == tables[1].to_pylist()


@pytest.mark.parametrize(
    "kind", ["full", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lora", "online")), "sft"]
)
def test_a_run_killed_between_checkpoints_ends_with_the_same_weights(
    kind: str, files: Files, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verisight.train import tracking

    variant = {
        "full": (files.recipe, *of_pairs(made)),
        "lora": (files.recipe, LORA, *of_pairs(made)),
        "online": (files.recipe, "source.when=online"),
        "sft": (files.sft,),
    }[kind]
    words = ("train", *variant, "train.steps=4", "train.checkpoint_every=2", "train.batch_size=2")
    killed, whole = files.folder / f"killed {kind}", files.folder / f"whole {kind}"
    finished(*words, f"output={whole}")
    kill_at_row(monkeypatch, tracking, number=4)
    with pytest.raises(Killed):
        verisight(*words, f"output={killed}")
    monkeypatch.undo()
    assert not (killed / "model").exists()
    assert [path.name for path in (killed / "checkpoints").iterdir()] == ["step-00000002"]
    finished(*words, f"output={killed}")
    assert_same_weights(killed, whole)
    assert untimed(killed) == untimed(whole)
    assert not (killed / "checkpoints").exists()


@pytest.mark.slow
def test_a_process_that_is_really_killed_continues(files: Files, made: Path) -> None:
    killed, whole = files.folder / "really killed", files.folder / "never killed"
    words = [str(files.recipe), *of_pairs(made), "train.steps=12", "train.checkpoint_every=2", "train.schedule=linear"]
    command = [sys.executable, "-c", "from verisight.cli import main; main()", "train", *words, f"output={killed}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list((killed / "checkpoints").glob("step-*")):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "model").exists(), "it was too fast to be killed"
    finished("train", *words, f"output={killed}")
    finished("train", *words, f"output={whole}")
    assert_same_weights(killed, whole)
    assert untimed(killed) == untimed(whole)
