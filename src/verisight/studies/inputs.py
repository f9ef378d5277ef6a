"""What runs were made from, by content: runs of other data or weights are not put beside each other unseen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from verisight.models.weights_hash import weights_sha256
from verisight.recipe import named_files
from verisight.recipe.base import Node
from verisight.studies.arms import portable_tree
from verisight.types import UserError

_LENGTH = 16  # hex digits of a hash
_LARGE = 1 << 26  # bytes


def inputs_of(nodes: Iterable[Node], store: Path) -> dict[str, str]:
    """Path, counted from the store -> hash of every data file and of the weights of every model folder they name.

    Folders and archives of pictures are not read, nor is what the store holds, whose names say what made it, nor models
    of the hub. Of files above 64 MiB size, beginning and end are.
    """
    found: dict[str, str] = {}
    for node in nodes:
        for _, value, what in named_files(node):
            path = Path(value)
            if what == "model" and (value == "pocket" or path.is_absolute()) and not path.is_relative_to(store):
                digest = weights_sha256(str(value))
                if digest is not None:
                    found[portable_tree(str(value), store)] = digest[:_LENGTH]
            elif what in ("file", "data"):
                found |= {portable_tree(str(file), store): _hash_of(file) for file in _files(path)}
    return dict(sorted(found.items()))


def changed(noted: Mapping[str, str], store: Path) -> Iterator[tuple[str, str, str]]:
    """Path, hash noted and hash found of every input that is here with other contents. What is not here is not told."""
    for name, digest in noted.items():
        path = name if name == "pocket" else os.path.normpath(store / name)
        if name == "pocket" or Path(path).is_dir():
            here = (weights_sha256(path) or digest)[:_LENGTH]
        elif Path(path).is_file():
            here = _hash_of(Path(path))
        else:
            continue
        if here != digest:
            yield name, digest, here


def check_alike(told: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises UserError where two runs, each with its name and what its run.json says, were made from other contents."""
    first: dict[str, tuple[str, str]] = {}
    for run, about in told:
        for name, digest in about.get("inputs", {}).items():
            known, other = first.setdefault(name, (digest, run))
            if known != digest:
                raise UserError(
                    f"{name}: {run} was made from contents {digest}, {other} from {known}; accepted: the same for all "
                    "runs of a study (`verisight study forget` the older arms, and run them again)"
                )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.parquet"))
    return [path] if path.is_file() else sorted(path.parent.glob(path.name)) if "*" in path.name else []


def _hash_of(file: Path) -> str:
    about = file.stat()
    return _hashed(file, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hashed(file: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as handle:
        if size <= _LARGE:
            digest.update(handle.read())
        else:
            digest.update(handle.read(_LARGE // 2))
            handle.seek(size - _LARGE // 2)
            digest.update(handle.read())
    return digest.hexdigest()[:_LENGTH]
