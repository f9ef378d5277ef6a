"""Tasks on a Ray cluster of two nodes of one core each, all on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from verisight.studies import launch, launch_ray
from verisight.studies.launch import Failed, Task, run_tasks
from verisight.studies.launch_ray import Ray, run_command
from verisight.types import UserError

HELD = """
import os, pathlib, time
with open("started", "a") as handle:
    handle.write(f"{os.getpid()} {os.getppid()} {os.environ['OMP_NUM_THREADS']}\\n")
print("held", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.02)
"""  # notes that it runs and under whom, and ends when it is told to

slow_ray = [
    pytest.mark.slow,
    pytest.mark.enable_socket,  # the nodes talk over the loopback interface
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and a worker node."""
    ray = pytest.importorskip("ray", reason="an optional extra that has no wheel for every Python")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for what tasks write; looks are frequent."""
    monkeypatch.setattr(launch, "_POLL", 0.02)
    return tmp_path


@pytest.fixture
def held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task that goes on until there is a file `go`."""
    words = ["/usr/bin/env", "-C", str(folder), sys.executable, "-S", "-c", HELD]
    monkeypatch.setattr(launch_ray, "command", lambda task: words)
    return Task("held", (), folder / "logs" / "held.log")


def kinds(folder: Path, *words: str, name: str = "kinds", needs: tuple[str, ...] = ()) -> Task:
    """A task that is quick: `verisight data kinds`."""
    return Task(name, ("data", "kinds", *words), folder / "logs" / f"{name}.log", needs)


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def starts(folder: Path) -> list[list[int]]:
    """Process, parent and threads of every start."""
    file = folder / "started"
    return [[int(word) for word in line.split()] for line in file.read_text().splitlines()] if file.exists() else []


def runs(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


class TestCluster:
    """What needs a cluster."""

    pytestmark = slow_ray

    def test_tasks_run_in_order_with_logs(self, folder: Path, cluster: Any) -> None:
        lines: list[str] = []
        tasks = [kinds(folder, name="b", needs=("a",)), kinds(folder, name="a"), kinds(folder, name="c")]
        run_tasks(tasks, Ray(slots=2), report=lines.append)
        told = [line.split(" (")[0] for line in lines]
        assert told.index("done a") < told.index("started b")
        assert sorted(line for line in told if line.startswith("done")) == ["done a", "done b", "done c"]
        assert "llava_instruct" in (folder / "logs" / "b.log").read_text()

    def test_a_failure_shows_code_and_log_and_others_run(self, folder: Path, cluster: Any) -> None:
        tasks = [kinds(folder, "--nonsense", name="bad"), kinds(folder, name="on bad", needs=("bad",)), kinds(folder)]
        told = r"^1 of 3 tasks failed, 1 more need them\nbad: exit code 2; .*bad\.log:\n(.|\n)*No such option"
        with pytest.raises(Failed, match=told):
            run_tasks(tasks, Ray(slots=2))
        assert (folder / "logs" / "kinds.log").exists()
        assert not (folder / "logs" / "on bad.log").exists()

    def test_what_a_killed_worker_had_runs_again(self, folder: Path, cluster: Any, held: Task) -> None:
        handle = Ray().submit(held)
        until(lambda: len(starts(folder)) == 1)
        process, worker, threads = starts(folder)[0]
        assert threads == 1
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(starts(folder)) == 2)
        assert not runs(process)
        assert not handle.done()
        (folder / "go").touch()
        until(handle.done)
        assert handle.error() is None
        assert held.log.read_text() == "held\nheld\n"

    def test_a_worker_that_dies_every_time_is_told_of(self, folder: Path, cluster: Any, held: Task) -> None:
        handle = Ray().submit(held)
        for kills in range(4):  # the first run and three more
            until(lambda kills=kills: len(starts(folder)) == kills + 1)  # type: ignore[misc]
            os.kill(starts(folder)[-1][1], signal.SIGKILL)
        until(handle.done)
        problem = handle.error() or ""
        assert problem.startswith("WorkerCrashedError: ")
        assert problem.endswith("held.log:" + 4 * "\nheld")

    def test_what_a_lost_node_had_runs_on_another(self, folder: Path, cluster: Any, held: Task) -> None:
        cluster.add_node(num_cpus=2)  # the only one with two cores
        handle = Ray(cpus=2).submit(held)
        until(lambda: len(starts(folder)) == 1)
        node = next(node for node in cluster.worker_nodes if node.get_resource_and_label_spec().num_cpus == 2)
        cluster.remove_node(node, allow_graceful=False)
        until(lambda: not runs(starts(folder)[0][0]))
        cluster.add_node(num_cpus=2)
        until(lambda: len(starts(folder)) == 2)
        assert starts(folder)[1][2] == 2
        (folder / "go").touch()
        until(handle.done)
        assert handle.error() is None

    def test_an_interrupt_ends_the_process(self, folder: Path, cluster: Any, held: Task) -> None:
        def interrupt(line: str) -> None:
            until(lambda: len(starts(folder)) == 1)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_tasks([held], Ray(), report=interrupt)
        until(lambda: not runs(starts(folder)[0][0]))
        time.sleep(1)
        assert len(starts(folder)) == 1


def test_a_process_ends_with_the_one_that_runs_it(folder: Path) -> None:
    """The kernel ends it, whatever ends its parent (here a fork, killed)."""
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        run_command([sys.executable, "-S", "-c", HELD], str(folder / "held.log"), 1)
        os._exit(0)
    until(lambda: len(starts(folder)) == 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: not runs(starts(folder)[0][0]))


def test_without_ray_its_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install verisight\[ray\]"):
        Ray().submit(kinds(folder))
