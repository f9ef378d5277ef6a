"""Tasks on a Ray cluster (`pip install verisight[ray]`)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verisight.studies.launch import Handle, Task, command, tail
from verisight.types import UserError

_RETRIES = 3  # of a task whose worker died
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Ray:
    """A Ray task a task, with so many cores and GPUs. Every node has to see the store.

    `address` joins a cluster ("auto", or host:port); without it one is started on this machine. A task whose worker
    or node dies is run again elsewhere, and does what is missing.
    """

    slots: int = 8
    address: str | None = None
    cpus: int = 1
    gpus: float = 0

    def submit(self, task: Task) -> Handle:
        """Hand the task to the cluster.

        Raises:
            UserError: Ray is not installed, or no cluster answers.
        """
        ray = self._opened()
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)(run_command)
        return _Running(ray, remote.remote(command(task), str(task.log), self.cpus), task.log)

    def _opened(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise UserError(f"ray: {error}; accepted: `pip install verisight[ray]`") from error
        if not ray.is_initialized():
            try:
                ray.init(address=self.address or "local", include_dashboard=False, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(f"ray: no cluster at {self.address} ({error}); accepted: its address") from error
        return ray


def run_command(words: Sequence[str], log: str, threads: int) -> int:
    """Run a command, its output in `log`; its exit code. It ends when this process does, however that ends."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with Path(log).open("ab") as handle:
        process = subprocess.Popen(
            words, stdout=handle, stderr=handle, stdin=subprocess.DEVNULL, env=environment, preexec_fn=_die_with_parent
        )
        return process.wait()


def _die_with_parent() -> None:
    """A worker that is killed cannot end its child; the kernel can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Running:
    ray: Any
    ref: Any
    log: Path

    def done(self) -> bool:
        ready, _ = self.ray.wait([self.ref], timeout=0)
        return bool(ready)

    def error(self) -> str | None:
        try:
            code = self.ray.get(self.ref)
        except self.ray.exceptions.RayError as error:
            return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}; {self.log}:\n{tail(self.log)}"
        return None if code == 0 else f"exit code {code}; {self.log}:\n{tail(self.log)}"

    def cancel(self) -> None:
        self.ray.cancel(self.ref, force=True)
