"""Where looks at pictures are kept: the last few, all of them in memory, or on disk."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from verisight.types import UserError

_ALWAYS = {"ids", "num_image_tokens", "pixel_shape"}  # in every file of a look


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt as ids, and its pictures: as pixels, or (tower frozen) as what the vision tower made of them.

    `fields` are the processor's other outputs about the pictures; `pixel_shape` is () without pictures.
    """

    ids: tuple[int, ...]
    num_image_tokens: int
    fields: dict[str, Tensor]
    pixel_shape: tuple[int, ...]
    pixels: Tensor | None = None
    tower: tuple[Tensor, ...] = ()


class Store(Protocol):
    """Keeps looks by key. A key names the prompt's text and the bytes of its pictures."""

    def get(self, key: str) -> Look | None:
        """The look, or None."""
        ...

    def put(self, key: str, look: Look) -> None:
        """Keep it, as long as the store does."""
        ...


@dataclass(frozen=True, slots=True)
class Recent:
    """The last `size` looks, where they were made: enough for policy and reference, and for every round of BDHS."""

    size: int = 64
    _looks: OrderedDict[str, Look] = field(default_factory=OrderedDict)

    def get(self, key: str) -> Look | None:
        """The look, or None."""
        if key in self._looks:
            self._looks.move_to_end(key)
        return self._looks.get(key)

    def put(self, key: str, look: Look) -> None:
        """Keep it until `size` others were put."""
        self._looks[key] = look
        while len(self._looks) > self.size:
            self._looks.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Memory:
    """Every look, in main memory."""

    _looks: dict[str, Look] = field(default_factory=dict)

    def get(self, key: str) -> Look | None:
        """The look, or None."""
        return self._looks.get(key)

    def put(self, key: str, look: Look) -> None:
        """Keep it for good."""
        self._looks[key] = replace(look, tower=tuple(tensor.cpu() for tensor in look.tower))


@dataclass(frozen=True, slots=True)
class Disk:
    """Every look, one safetensors file each, in a folder that belongs to one tower and one processor."""

    folder: Path

    def get(self, key: str) -> Look | None:
        """The look, or None.

        Raises:
            UserError: its file is broken.
        """
        path = self._path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not readable ({error}); accepted: what was written, or no file") from error
        if lacking := _ALWAYS - tensors.keys():
            raise UserError(f"{path}: lacks {', '.join(sorted(lacking))}; accepted: what was written, or no file")
        tower = sorted(name for name in tensors if name.startswith("tower."))
        return Look(
            ids=tuple(tensors["ids"].tolist()),
            num_image_tokens=int(tensors["num_image_tokens"]),
            fields={n.removeprefix("field."): t for n, t in tensors.items() if n.startswith("field.")},
            pixel_shape=tuple(tensors["pixel_shape"].tolist()),
            tower=tuple(tensors[name] for name in tower),
        )

    def put(self, key: str, look: Look) -> None:
        """Write it, whole or not at all. Looks that still hold pixels are none of a frozen tower."""
        assert look.pixels is None, "only what a frozen tower made is kept"
        tensors = {
            "ids": torch.tensor(look.ids),
            "num_image_tokens": torch.tensor(look.num_image_tokens),
            "pixel_shape": torch.tensor(look.pixel_shape, dtype=torch.int64),
            **{f"field.{name}": tensor.contiguous().cpu() for name, tensor in look.fields.items()},
            **{f"tower.{i:03d}": tensor.contiguous().cpu() for i, tensor in enumerate(look.tower)},
        }
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.partial")
        save_file(tensors, temporary)
        os.replace(temporary, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
