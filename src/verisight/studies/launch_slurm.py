"""Tasks as Slurm jobs, through submitit (`pip install verisight[slurm]`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from verisight.studies.launch import Handle, Task, command, tail
from verisight.types import UserError

_NAMED = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")  # the line of a traceback that says what happened

_STARTS = 3  # of a command that gets SIGTERM


@dataclass(frozen=True, slots=True)
class Slurm:
    """A job a task. Scripts and submitit's own logs go to `folder`, which every node has to see, as the store.

    A job that reaches its limit of `minutes` or is pre-empted is queued again: tasks do what is missing. `more` are
    further settings of sbatch by submitit's names. `executor` local runs jobs as processes here, debug in this one.
    """

    folder: Path
    slots: int = 8
    partition: str | None = None
    minutes: int = 240
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    executor: Literal["slurm", "local", "debug"] = "slurm"

    def submit(self, task: Task) -> Handle:
        """Queue a job.

        Raises:
            UserError: submitit is not installed, there is no Slurm here, or sbatch refuses the job.
        """
        executor = self._opened(task.name)
        task.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            job = executor.submit(Command(tuple(command(task)), str(task.log), self.cpus))
        except (RuntimeError, OSError) as error:  # submitit's own derive from it
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"slurm: sbatch refused {task.name}: {told[-1]}; accepted: what the cluster allows"
            ) from error
        return _Job(job, task.log, lazy=self.executor == "debug")

    def _opened(self, name: str) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise UserError(f"slurm: {error}; accepted: `pip install verisight[slurm]`") from error
        try:
            executor = submitit.AutoExecutor(folder=self.folder, cluster=self.executor)
        except RuntimeError as error:
            raise UserError(f"slurm: {error}; accepted: a machine with sbatch, or --on processes") from error
        settings: dict[str, Any] = {
            "name": name, "timeout_min": self.minutes, "cpus_per_task": self.cpus, "gpus_per_node": self.gpus,
        }  # fmt: skip
        if self.memory_gb is not None:
            settings["mem_gb"] = self.memory_gb
        if self.partition is not None:
            settings["slurm_partition"] = self.partition
        executor.update_parameters(**settings, **self.more)
        return executor


@dataclass(frozen=True, slots=True)
class Command:
    """What a job does: a command, its output in a log. Calling it raises where the command fails.

    SIGTERM is what Slurm sends before it takes a node away. The command is started again then, so that the job says
    neither done nor failed before it is killed and queued anew; one that was ended by hand goes on where it was.
    """

    words: tuple[str, ...]
    log: str
    threads: int

    def __call__(self) -> None:
        """Run the command."""
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with Path(self.log).open("ab") as handle:
            for _ in range(_STARTS):
                code = subprocess.run(
                    self.words, stdout=handle, stderr=handle, stdin=subprocess.DEVNULL, env=environment, check=False
                ).returncode
                if code != -signal.SIGTERM:
                    break
        if code != 0:
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> Any:
        """What submitit queues when the job is pre-empted or out of time: the same again, it goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True, slots=True)
class _Job:
    job: Any
    log: Path
    lazy: bool  # runs when it is asked for

    def done(self) -> bool:
        if self.lazy:
            self.job.exception()
        return bool(self.job.done())

    def error(self) -> str | None:
        problem = self.job.exception()
        if problem is None:
            return None
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        told = next((line for line in reversed(lines) if _NAMED.match(line)), lines[0])
        return f"{told} (job {self.job.job_id}, {self.job.state}); {self.log}:\n{tail(self.log)}"

    def cancel(self) -> None:
        with suppress(subprocess.CalledProcessError):  # scancel of a job that has just ended
            self.job.cancel()
