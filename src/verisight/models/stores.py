"""Where looks at pictures are kept: the last few, all of them in memory, or on disk."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from verisight.types import UserError

RECENT_BYTES = 1 << 30
T = TypeVar("T")

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

    @property
    def num_bytes(self) -> int:
        """Of pixels and tower output."""
        return sum(tensor.nbytes for tensor in (*self.tower, *(() if self.pixels is None else (self.pixels,))))


def chunks(items: Sequence[T], sizes: Sequence[int], limit: int) -> Iterator[list[T]]:
    """Items in order, as many at a time as stay within `limit` together; at least one."""
    chunk: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if chunk and total + size > limit:
            yield chunk
            chunk, total = [], 0
        chunk.append(item)
        total += size
    if chunk:
        yield chunk


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
    """The last looks, where they were made: enough for policy and reference, and for the rounds of BDHS.

    At most `size` looks and `num_bytes` of tower output; always the last one.
    """

    size: int = 64
    num_bytes: int = RECENT_BYTES
    _looks: OrderedDict[str, Look] = field(default_factory=OrderedDict)

    def get(self, key: str) -> Look | None:
        """The look, or None."""
        if key in self._looks:
            self._looks.move_to_end(key)
        return self._looks.get(key)

    def put(self, key: str, look: Look) -> None:
        """Keep it until others need the room."""
        self._looks[key] = look
        total = sum(one.num_bytes for one in self._looks.values())
        while len(self._looks) > 1 and (len(self._looks) > self.size or total > self.num_bytes):
            total -= self._looks.popitem(last=False)[1].num_bytes


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
        temporary = path.with_suffix(f".{uuid4().hex}.partial")
        save_file(tensors, temporary)
        os.replace(temporary, path)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"
