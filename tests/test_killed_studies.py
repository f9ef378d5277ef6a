"""A study that is killed at random and started again ends with the same results file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small_studies import write_study

VERISIGHT = [sys.executable, "-c", "from verisight.cli import main; main()"]


def started(file: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*VERISIGHT, "study", "run", str(file), "--jobs", "1"], start_new_session=True, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_three_times_a_study_ends_with_the_same_results(tmp_path: Path) -> None:
    files = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        files.append(write_study(tmp_path / name, seeds=[0], arms={"bdhs": {"label": "BDHS"}}))
    whole, killed = files
    assert started(whole).wait(timeout=280) == 0
    luck = random.Random(0)
    for _ in range(3):
        process = started(killed)
        time.sleep(luck.uniform(6, 16))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert started(killed).wait(timeout=280) == 0
    one, two = ((file.parent / "results" / "small" / "results.json").read_bytes() for file in files)
    assert one == two


@pytest.mark.slow
def test_a_study_that_is_ended_ends_what_it_runs(tmp_path: Path) -> None:
    file = write_study(tmp_path, seeds=[0])
    process = started(file)
    deadline = time.monotonic() + 120
    log = tmp_path / "store" / "logs"
    while not list(log.glob("run-*.log")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
