"""Checkpoints: trainable weights and optimizer in safetensors, the rest in JSON. Whole or absent, never half."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from verisight.data.files import read_json, sync_folder, write_json
from verisight.types import UserError

_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(
    folder: Path, *, step: int, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Any],
    keep: int, good_step: int | None = None,
) -> Path:  # fmt: skip
    """Write `folder/step-<8 digits>` and delete all but the newest `keep` checkpoints. `state` holds JSON values.

    The newest of step `good_step` or earlier stays, too. Files and folders are synced before older ones go.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({name: w.detach().contiguous() for name, w in weights.items()}, temporary / "trainable.safetensors")
    save_file(_flatten(optimizer), temporary / "optimizer.safetensors")
    write_json(temporary / "state.json", {"step": step, **state})
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(temporary)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    sync_folder(folder)
    kept = {path for _, path in _checkpoints(folder)[-keep:]}
    if good_step is not None and (good := latest_checkpoint(folder, up_to=good_step)):
        kept.add(good)
    for _, old in _checkpoints(folder):
        if old not in kept:
            shutil.rmtree(old)
    return final


def latest_checkpoint(folder: Path, *, up_to: int | None = None) -> Path | None:
    """The newest complete checkpoint (of step `up_to` or earlier), if there is one."""
    found = [path for step, path in _checkpoints(folder) if up_to is None or step <= up_to]
    return found[-1] if found else None


def load_checkpoint(path: Path, *, weights: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Fill `weights` and `optimizer` in place and return the state.

    Raises:
        UserError: the checkpoint's tensors are not those that train now.
    """
    load_weights(path, weights, whole=True)
    current = optimizer.state_dict()
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / "optimizer.safetensors").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": current["param_groups"]})
    return read_json(path / "state.json")


def load_weights(path: Path, weights: dict[str, Tensor], *, whole: bool = False) -> None:
    """Fill `weights` in place from a checkpoint, which may hold others besides unless `whole`.

    Raises:
        UserError: the checkpoint's tensors are not those that train now.
    """
    stored = load_file(path / "trainable.safetensors")
    if not whole:
        stored = {name: tensor for name, tensor in stored.items() if name in weights}
    unlike = {(n, t.shape) for n, t in stored.items()} ^ {(n, t.shape) for n, t in weights.items()}
    if unlike:
        names = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(unlike)[:3])
        raise UserError(f"{path}: holds other trainable tensors than this recipe trains, such as {names}")
    with torch.no_grad():
        for name, tensor in stored.items():
            weights[name].copy_(tensor)


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of the optimizer's state under "<parameter index>.<name>"."""
    return {
        f"{index}.{name}": value.detach().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in named)
