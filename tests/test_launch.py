"""Who runs tasks: order, failures, ends. Processes, Slurm (submitit's own executors, and a written script), Ray."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from verisight.studies import launch, launch_ray, launch_slurm
from verisight.studies.launch import Failed, Handle, Processes, Task, command, run_tasks
from verisight.studies.launch_ray import Ray
from verisight.studies.launch_slurm import Slurm
from verisight.types import UserError

SCRIPT = """
import os, pathlib, sys, time
name, seconds, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
with open("started", "a") as handle:
    handle.write(f"{name} {os.getpid()} {os.getppid()} {os.environ['OMP_NUM_THREADS']}\\n")
print("hello from", name, flush=True)
time.sleep(seconds)
with open("ended", "a") as handle:
    handle.write(name + "\\n")
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tasks are little scripts that note when they begin and end."""
    monkeypatch.chdir(tmp_path)
    for module in (launch, launch_slurm, launch_ray):
        monkeypatch.setattr(module, "command", lambda task: [sys.executable, "-c", SCRIPT, *task.arguments])
    return tmp_path


def task(folder: Path, name: str, *, seconds: float = 0.0, code: int = 0, needs: tuple[str, ...] = ()) -> Task:
    return Task(name, (name, str(seconds), str(code)), folder / "logs" / f"{name}.log", needs)


def noted(folder: Path, name: str) -> list[str]:
    file = folder / name
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


@dataclass
class Fake:
    """Runs nothing: a task ends after so many looks; notes how many ran at once."""

    slots: int = 2
    running: int = 0
    most: int = 0
    order: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def submit(self, task: Task) -> Handle:
        self.order.append(task.name)
        self.running += 1
        self.most = max(self.most, self.running)
        return Looks(self, task.name)


@dataclass
class Looks:
    launcher: Fake
    name: str
    left: int = 2

    def done(self) -> bool:
        self.left -= 1
        self.launcher.running -= self.left == 0
        return self.left <= 0

    def error(self) -> str | None:
        return "broke" if self.name.startswith("bad") else None

    def cancel(self) -> None:
        self.launcher.cancelled.append(self.name)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_POLL", 0.01)


def test_tasks_wait_for_what_they_need_and_for_a_slot(tmp_path: Path) -> None:
    fake = Fake()
    tasks = [task(tmp_path, "c", needs=("a", "b")), *(task(tmp_path, name) for name in "abde")]
    run_tasks(tasks, fake)
    assert sorted(fake.order) == list("abcde")
    assert fake.order.index("c") > max(fake.order.index("a"), fake.order.index("b"))
    assert fake.most == 2


def test_a_failure_takes_down_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    fake = Fake()
    tasks = [
        task(tmp_path, "bad"), task(tmp_path, "on bad", needs=("bad",)),
        task(tmp_path, "on on bad", needs=("on bad",)), task(tmp_path, "good"),
    ]  # fmt: skip
    with pytest.raises(Failed, match=r"^1 of 4 tasks failed, 2 more need them\nbad: broke$"):
        run_tasks(tasks, fake)
    assert fake.order == ["bad", "good"]


def test_needs_that_are_not_among_the_tasks_are_done_already(tmp_path: Path) -> None:
    fake = Fake()
    run_tasks([task(tmp_path, "a", needs=("before",))], fake)
    assert fake.order == ["a"]


def test_an_interrupt_cancels_what_runs(tmp_path: Path) -> None:
    fake = Fake()

    def interrupt(line: str) -> None:
        if line.startswith("done"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks([task(tmp_path, name) for name in "abc"], fake, report=interrupt)
    assert fake.cancelled == ["b"]


def test_processes_run_with_their_threads_and_leave_a_log(folder: Path) -> None:
    lines: list[str] = []
    run_tasks([task(folder, "a"), task(folder, "b", needs=("a",))], Processes(2, threads=3), report=lines.append)
    assert noted(folder, "ended") == ["a", "b"]
    assert [line.split()[3] for line in (folder / "started").read_text().splitlines()] == ["3", "3"]
    assert (folder / "logs" / "a.log").read_text() == "hello from a\n"
    assert [line.split(" (")[0] for line in lines] == ["started a", "done a", "started b", "done b"]


def test_a_process_that_fails_shows_its_log(folder: Path) -> None:
    with pytest.raises(Failed, match=r"a: exit code 3; .*a.log:\nhello from a"):
        run_tasks([task(folder, "a", code=3)], Processes())


def test_cancelled_processes_are_ended(folder: Path) -> None:
    handle = Processes().submit(task(folder, "a", seconds=60))
    handle.cancel()
    assert handle.done()
    assert "exit code -15" in (handle.error() or "")


def test_a_command_is_this_python_and_verisight(tmp_path: Path) -> None:
    words = command(Task("x", ("study", "work", "file"), tmp_path / "x.log"))
    assert words[0] == sys.executable
    assert words[-3:] == ["study", "work", "file"]


@pytest.mark.parametrize("executor", ["local", "debug"])
def test_submitit_runs_tasks(folder: Path, executor: str) -> None:
    slurm = Slurm(folder / "slurm", slots=2, cpus=2, minutes=2, executor=executor)  # type: ignore[arg-type]
    run_tasks([task(folder, "a"), task(folder, "b", needs=("a",))], slurm)
    assert noted(folder, "ended") == ["a", "b"]
    assert (folder / "started").read_text().splitlines()[0].split()[3] == "2"
    if executor == "debug":  # opens a debugger where a task fails
        return
    with pytest.raises(Failed, match=r"bad: .*exit code 4 \(job .*\); .*\nhello from bad"):
        run_tasks([task(folder, "bad", code=4)], slurm)


def test_the_script_for_slurm_says_what_was_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sbatch on the path keeps the script that submitit hands it."""
    tools = folder / "tools"
    tools.mkdir()
    for name, text in {
        "sbatch": f'#!/bin/sh\ncp "$1" {folder}/script.sh\necho "Submitted batch job 77"\n',
        "srun": "#!/bin/sh\nexit 0\n",
        "sacct": "#!/bin/sh\necho 'JobID|State|NodeList'\necho '77|PENDING|'\n",
        "scancel": f'#!/bin/sh\necho "$1" > {folder}/cancelled\n',
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    more = {"slurm_additional_parameters": {"account": "vision"}}
    slurm = Slurm(folder / "slurm", partition="gpu", minutes=90, cpus=8, gpus=1, memory_gb=64, more=more)
    handle = slurm.submit(task(folder, "dpo-0"))
    script = (folder / "script.sh").read_text()
    for line in ("partition=gpu", "time=90", "cpus-per-task=8", "gpus-per-node=1", "mem=64GB", "account=vision"):
        assert f"#SBATCH --{line}\n" in script
    assert "--job-name=dpo-0" in script
    assert not handle.done()
    handle.cancel()
    assert (folder / "cancelled").read_text().strip() == "77"


def test_what_slurm_refuses_is_told_and_what_has_ended_can_be_cancelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = folder / "tools"
    tools.mkdir()
    told = "sbatch: error: Batch job submission failed: Invalid account"
    for name, text in {
        "sbatch": f'#!/bin/sh\n[ -e {folder}/open ] && echo Submitted batch job 7 && exit\necho "{told}" >&2; exit 1\n',
        "srun": "#!/bin/sh\nexit 0\n",
        "sacct": "#!/bin/sh\necho 'JobID|State|NodeList'\n",
        "scancel": "#!/bin/sh\nexit 1\n",
    }.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=f"slurm: sbatch refused a: {told}; accepted: "):
        Slurm(folder / "slurm").submit(task(folder, "a"))
    (folder / "open").touch()
    Slurm(folder / "slurm").submit(task(folder, "a")).cancel()


def test_a_command_that_is_asked_to_end_starts_again(tmp_path: Path) -> None:
    once = f'if [ -e {tmp_path}/once ]; then echo again; exit "$1"; fi; touch {tmp_path}/once; kill -TERM $$'
    launch_slurm.Command(("sh", "-c", once, "sh", "0"), str(tmp_path / "log"), 1)()
    assert (tmp_path / "log").read_text() == "again\n"
    with pytest.raises(RuntimeError, match="exit code 3"):
        launch_slurm.Command(("sh", "-c", once, "sh", "3"), str(tmp_path / "log"), 1)()
    with pytest.raises(RuntimeError, match="exit code -15"):
        launch_slurm.Command(("sh", "-c", "kill -TERM $$"), str(tmp_path / "log"), 1)()


def test_a_job_that_is_cut_off_is_queued_as_it_was(tmp_path: Path) -> None:
    one = launch_slurm.Command(("true",), str(tmp_path / "log"), 1)
    assert one.checkpoint().function == one


@pytest.fixture
def ray_cluster():
    """A local cluster with two workers' worth of cores."""
    ray = pytest.importorskip("ray", reason="an optional extra that has no wheel for every Python")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.filterwarnings("ignore")  # Ray's own, of its dependencies
def test_ray_runs_tasks_and_runs_again_what_a_killed_worker_had(folder: Path, ray_cluster: object) -> None:
    killed: list[str] = []

    def kill(line: str) -> None:
        if line == "started long":
            deadline = time.monotonic() + 60
            while "long" not in noted(folder, "started") and time.monotonic() < deadline:
                time.sleep(0.1)
            row = next(row for row in (folder / "started").read_text().splitlines() if row.startswith("long"))
            os.kill(int(row.split()[2]), signal.SIGKILL)
            killed.append(row.split()[1])

    tasks = [task(folder, "long", seconds=3), task(folder, "short"), task(folder, "after", needs=("long",))]
    run_tasks(tasks, Ray(slots=2), report=kill)
    assert sorted(noted(folder, "started")) == ["after", "long", "long", "short"]
    assert noted(folder, "ended").count("long") == 1
    assert noted(folder, "ended")[-1] == "after"
    assert not Path(f"/proc/{killed[0]}").exists()
    with pytest.raises(Failed, match=r"bad: exit code 5; .*\nhello from bad"):
        run_tasks([task(folder, "bad", code=5)], Ray())
