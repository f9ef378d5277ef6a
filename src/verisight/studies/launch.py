"""Tasks that wait for each other, and who runs them: processes of this machine, or a cluster's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from verisight.types import UserError

Report = Callable[[str], None]
_POLL = 0.2  # seconds between two looks at what runs
_TAIL = 2000  # characters of a log that an error shows


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work: `verisight` with these arguments, its output in `log`. It runs when all of `needs` are done.

    A task that is run twice, or again after a kill, does only what is missing.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    needs: tuple[str, ...] = ()


class Handle(Protocol):
    """A task under way."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        ...

    def error(self) -> str | None:
        """Once it has ended: why it failed, in words; None where it did not."""
        ...

    def cancel(self) -> None:
        """End it."""
        ...


class Launcher(Protocol):
    """Who runs tasks."""

    @property
    def slots(self) -> int:
        """Tasks that are handed over at once."""
        ...

    def submit(self, task: Task) -> Handle:
        """Start the task, or put it into a queue."""
        ...


class Failed(UserError):
    """Tasks ended with an error; all that did not need them were run."""


def run_tasks(tasks: Sequence[Task], launcher: Launcher, *, report: Report = lambda _: None) -> None:
    """Run every task once those it needs are done, in the order given otherwise.

    A failed task takes down what needs it, not the others. Interrupted, all that run are cancelled.

    Raises:
        Failed: at the end, naming every task that failed and how many were left out for it.
    """
    names = {task.name for task in tasks}
    assert len(names) == len(tasks), "names of tasks are unique"
    waiting, running = list(tasks), dict[str, tuple[Handle, float]]()
    ended, failed, left_out = set[str](), dict[str, str](), 0
    try:
        while waiting or running:
            lost = [task for task in waiting if not failed.keys().isdisjoint(task.needs)]
            left_out += len(lost)
            failed |= {task.name: "" for task in lost}
            waiting = [task for task in waiting if task not in lost]
            for task in [task for task in waiting if {*task.needs} & names <= ended][: launcher.slots - len(running)]:
                running[task.name] = launcher.submit(task), time.monotonic()
                waiting.remove(task)
                report(f"started {task.name}")
            for name in [name for name, (handle, _) in running.items() if handle.done()]:
                handle, began = running.pop(name)
                problem = handle.error()
                if problem is None:
                    ended.add(name)
                else:
                    failed[name] = problem
                left = f"{len(ended) + len(failed)} of {len(tasks)}"
                report(f"{'done' if problem is None else 'FAILED'} {name} ({time.monotonic() - began:.0f} s, {left})")
            if running:
                time.sleep(_POLL)
    finally:
        for handle, _ in running.values():
            handle.cancel()
    if failed:
        told = "\n".join(f"{name}: {problem}" for name, problem in failed.items() if problem)
        raise Failed(f"{len(failed) - left_out} of {len(tasks)} tasks failed, {left_out} more need them\n{told}")


def command(task: Task) -> list[str]:
    """What a task runs, with this Python."""
    return [sys.executable, "-c", "from verisight.cli import main; main()", *task.arguments]


def tail(log: Path) -> str:
    """The end of a log."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return text[-_TAIL:].strip()


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of this machine, `slots` at a time, each with `threads` of the cores."""

    slots: int = 2
    threads: int = 1

    def submit(self, task: Task) -> Handle:
        """Start a process."""
        task.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with task.log.open("ab") as handle:
            process = subprocess.Popen(
                command(task), stdout=handle, stderr=handle, stdin=subprocess.DEVNULL, env=environment
            )
        return _Process(process, task.log)


@dataclass(frozen=True, slots=True)
class _Process:
    process: subprocess.Popen[bytes]
    log: Path

    def done(self) -> bool:
        return self.process.poll() is not None

    def error(self) -> str | None:
        code = self.process.wait()
        return None if code == 0 else f"exit code {code}; {self.log}:\n{tail(self.log)}"

    def cancel(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
