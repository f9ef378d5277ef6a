"""Where metrics go: metrics.jsonl always, and through accelerate to the trackers a user names. Imports no torch."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verisight.data.files import append_jsonl
from verisight.types import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}  # name -> modules of which one has to be there
FOLDER = "trackers"  # in the run folder
PROJECT = "verisight"

Write = Callable[[dict[str, Any]], None]


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what a run could not send its metrics to. Looks for the packages without importing any.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"train.trackers: found {name!r}, accepted: {', '.join(TRACKERS)}")
        if not any(find_spec(module) for module in TRACKERS[name]):
            raise UserError(f"train.trackers: found {name}, which is not installed; accepted: after pip install {name}")


def flatten(row: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Numbers of a nested row, named by the keys that lead to them: "by_origin/offline/margin_mean".

    What no tracker shows (text, None, NaN) is left out; characters that MLflow refuses in names become "_".
    """
    found: dict[str, float] = {}
    for key, value in row.items():
        name = prefix + re.sub(r"[^\w.\- /:]", "_", key)
        if isinstance(value, Mapping):
            found |= flatten(value, prefix=f"{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[name] = value
    return found


@contextmanager
def recording(metrics: Path, accelerator: Accelerator, *, names: Sequence[str], first: int) -> Iterator[Write]:
    """Open the trackers; rows {"step", "split", ...} are appended to `metrics`, then sent to them.

    Trackers see "<split>/<name>" at the row's step. `first` steps were done before: TensorBoard drops what an earlier
    process sent beyond them (everything, if there are none), the others keep it. TensorBoard's files are in trackers/
    beside `metrics`. wandb stays offline unless WANDB_MODE says otherwise.

    Raises:
        UserError: a tracker does not start.
    """
    _start(accelerator, names, folder=metrics.parent, first=first)

    def write(row: dict[str, Any]) -> None:
        if accelerator.is_main_process:
            append_jsonl(metrics, row)
        if names:
            numbers = {key: value for key, value in row.items() if key not in ("step", "split")}
            accelerator.log(flatten(numbers, prefix=f"{row['split']}/"), step=row["step"])

    try:
        yield write
    finally:
        if names:
            accelerator.end_training()


def _start(accelerator: Accelerator, names: Sequence[str], *, folder: Path, first: int) -> None:
    """Start the trackers, each with what lets a resumed run go on in the same place."""
    given = [str(one) for one in accelerator.log_with]
    run = f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
    settings: dict[str, dict[str, Any]] = {
        "tensorboard": {"purge_step": first + 1 if first else 0},
        "trackio": {"name": run, "resume": "allow", "embed": False},
        "wandb": {
            "name": run, "id": run, "resume": "allow", "dir": str(folder / FOLDER),
            "mode": os.environ.get("WANDB_MODE", "offline"),
        },
        "mlflow": {"run_name": run},
    }  # fmt: skip
    for name in names:
        if name not in given:
            raise UserError(f"train.trackers: {name} is there, accelerate does not accept it; accepted: {given}")
    if names:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            accelerator.init_trackers(PROJECT, init_kwargs=settings)
        except Exception as error:  # whatever a tracker raises where it is badly installed or set up
            raise UserError(
                f"train.trackers: one of {', '.join(names)} does not start ({type(error).__name__}: {error}); "
                "accepted: trackers that do, or none"
            ) from error
