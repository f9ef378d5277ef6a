"""Slurm jobs through submitit: its local and debug executors, and a Slurm of shell scripts that runs what is queued."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from verisight.studies import launch, launch_slurm
from verisight.studies.launch import Failed, Handle, Task, run_tasks
from verisight.studies.launch_slurm import Slurm
from verisight.types import UserError

HELD = """
import os, pathlib, time
here = pathlib.Path.cwd()
with open(here / "started", "a") as handle:
    handle.write(f"{os.getpid()}\\n")
print("held", flush=True)
while not (here / "go").exists():
    time.sleep(0.02)
"""  # notes that it runs, and ends when it is told to

# A queue of one folder: `script` is the job's, `state` what sacct says, `step` the process group of what srun runs.
SLURM = {
    "sbatch": """
if grep -q 'partition=closed' "$1"; then echo "sbatch: error: invalid partition specified: closed" >&2; exit 1; fi
cp "$1" "$queue/script"; echo PENDING > "$queue/state"
setsid "$tools/node" > /dev/null 2>&1 < /dev/null &
echo "Submitted batch job 4711"
""",
    "node": """
export SLURM_JOB_ID=4711 SLURM_NTASKS=1 SLURM_PROCID=0
while true; do
    echo RUNNING > "$queue/state"
    if bash "$queue/script"; then ended=COMPLETED; else ended=FAILED; fi
    if [ -e "$queue/again" ]; then rm "$queue/again"; continue; fi
    grep -q RUNNING "$queue/state" && echo $ended > "$queue/state"
    exit
done
""",
    "srun": """
while [ "${1#-}" != "$1" ]; do
    case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
setsid "$@" & echo $! > "$queue/step"; wait $!
""",
    "sacct": 'echo "JobID|State|NodeList"; echo "4711|$(cat "$queue/state")|here"',
    "scancel": 'echo "CANCELLED by 1" > "$queue/state"; kill -KILL -"$(cat "$queue/step")"',
    "scontrol": 'echo "$@" >> "$queue/asked"; touch "$queue/again"',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where jobs run; looks are frequent, and a result that isn't there is not waited for as on slow file systems."""
    from submitit.core.core import Job

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "_POLL", 0.02)
    monkeypatch.setattr(Job, "_results_timeout_s", 0)
    return tmp_path


@pytest.fixture
def queue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm on the path, which submitit asks anew in every test."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    tools, queue = folder / "tools", folder / "queue"
    tools.mkdir()
    queue.mkdir()
    for name, text in SLURM.items():
        (tools / name).write_text(f"#!/bin/bash\ntools={tools}\nqueue={queue}\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=1))
    return queue


@pytest.fixture
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task that goes on until there is a file `go`."""
    monkeypatch.setattr(launch_slurm, "command", lambda task: [sys.executable, "-S", "-c", HELD])
    return Task("held", (), folder / "logs" / "held.log")


def kinds(folder: Path, *words: str, name: str = "kinds", needs: tuple[str, ...] = ()) -> Task:
    """A task that is quick: `verisight data kinds`."""
    return Task(name, ("data", "kinds", *words), folder / "logs" / f"{name}.log", needs)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def starts(folder: Path) -> list[int]:
    file = folder / "started"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def runs(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def ended(handle: Handle) -> str | None:
    until(handle.done)
    return handle.error()


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_submitit_runs_verisight(folder: Path, executor: str) -> None:
    lines: list[str] = []
    slurm = Slurm(folder / "slurm", executor=executor)  # type: ignore[arg-type]
    run_tasks([kinds(folder, name="b", needs=("a",)), kinds(folder, name="a")], slurm, report=lines.append)
    assert [line.split(" (")[0] for line in lines] == ["started a", "done a", "started b", "done b"]
    assert "llava_instruct" in (folder / "logs" / "a.log").read_text()


def test_a_failed_job_shows_code_job_and_log(folder: Path) -> None:
    told = r"bad: RuntimeError: exit code 2 \(job \d+, FINISHED\); .*bad\.log:\n(.|\n)*No such option"
    with pytest.raises(Failed, match=told):
        run_tasks([kinds(folder, "--nonsense", name="bad")], Slurm(folder / "slurm", executor="local"))


def test_a_job_that_is_cancelled_leaves_no_process(folder: Path, held: Task) -> None:
    handle = Slurm(folder / "slurm", executor="local").submit(held)
    until(lambda: bool(starts(folder)))
    handle.cancel()
    assert "INTERRUPTED" in (ended(handle) or "")
    until(lambda: not runs(starts(folder)[0]))


def test_slurm_runs_a_job_with_what_was_asked(folder: Path, queue: Path) -> None:
    more = {"slurm_additional_parameters": {"account": "vision"}}
    slurm = Slurm(folder / "slurm", partition="gpu", minutes=90, cpus=3, gpus=1, memory_gb=1.5, more=more)
    handle = slurm.submit(kinds(folder))
    assert ended(handle) is None
    assert "llava_instruct" in (folder / "logs" / "kinds.log").read_text()
    script = (queue / "script").read_text()
    asked = ("job-name=kinds", "partition=gpu", "time=90", "cpus-per-task=3", "gpus-per-node=1", "mem=1536MB")
    for line in (*asked, "account=vision", "signal=USR2@90", "open-mode=append"):
        assert f"#SBATCH --{line}\n" in script


def test_a_failed_slurm_job_shows_code_job_and_log(folder: Path, queue: Path) -> None:
    problem = ended(Slurm(folder / "slurm").submit(kinds(folder, "--nonsense"))) or ""
    assert problem.startswith("RuntimeError: exit code 2 (job 4711, ")
    assert "No such option" in problem


def test_cut_off_jobs_are_queued_again_and_go_on(folder: Path, queue: Path, held: Task) -> None:
    """Slurm signals every process of the step, as here; the batch script around it lives."""
    handle = Slurm(folder / "slurm").submit(held)
    until(lambda: len(starts(folder)) == 1)
    os.killpg(int((queue / "step").read_text()), signal.SIGUSR2)
    until(lambda: len(starts(folder)) == 2)
    assert not runs(starts(folder)[0])
    assert (queue / "asked").read_text() == "requeue 4711\n"
    assert not handle.done()
    (folder / "go").touch()
    assert ended(handle) is None
    assert (folder / "logs" / "held.log").read_text() == "held\nheld\n"


def test_a_job_that_is_out_of_time_too_often_says_so(folder: Path, queue: Path, held: Task) -> None:
    """Under 10 minutes submitit counts every cut as a time-out; it allows three."""
    handle = Slurm(folder / "slurm", minutes=9).submit(held)
    for cut in range(4):
        until(lambda cut=cut: len(starts(folder)) == cut + 1)  # type: ignore[misc]
        os.killpg(int((queue / "step").read_text()), signal.SIGUSR2)
    problem = ended(handle) or ""
    assert "timed-out too many times" in problem
    assert problem.endswith("held.log:" + 4 * "\nheld")


def test_a_lost_node_is_named(folder: Path, queue: Path, held: Task) -> None:
    handle = Slurm(folder / "slurm").submit(held)
    until(lambda: len(starts(folder)) == 1)
    (queue / "state").write_text("NODE_FAIL\n")
    os.killpg(int((queue / "step").read_text()), signal.SIGKILL)
    problem = ended(handle) or ""
    assert "(job 4711, NODE_FAIL)" in problem
    assert problem.endswith("held.log:\nheld")


def test_an_interrupt_cancels_the_job(folder: Path, queue: Path, held: Task) -> None:
    def interrupt(line: str) -> None:
        until(lambda: len(starts(folder)) == 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks([held], Slurm(folder / "slurm"), report=interrupt)
    assert (queue / "state").read_text().startswith("CANCELLED")
    until(lambda: not runs(starts(folder)[0]))


def test_without_submitit_its_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install verisight\[slurm\]"):
        Slurm(folder / "slurm").submit(kinds(folder))


def test_without_slurm_what_to_do_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(UserError, match=r"slurm: .*accepted: a machine with sbatch"):
        Slurm(folder / "slurm").submit(kinds(folder))
