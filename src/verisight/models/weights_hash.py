"""Which weights lie in a model folder: a hash of its files, without opening them as a model."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

_NAMES = ("config.json", "adapter_config.json", "reward_head.safetensors")
_PIECE = 1 << 22  # bytes read at either end of a large file


def weights_sha256(path: str) -> str | None:
    """Hex SHA-256 over names, sizes and content of a folder's weights, configuration and adapter ("pocket": built in).

    Of files above 8 MiB the first and last 4 MiB are read: training moves weights everywhere. None for what is no
    folder here (a hub id). An adapter's base counts by the name in its configuration.
    """
    folder = Path(str(files("verisight.pocket") / "assets" / "model")) if path == "pocket" else Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(
        {*folder.glob("*.safetensors"), *(folder / name for name in _NAMES if (folder / name).exists())}
    ):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as handle:
            if size <= 2 * _PIECE:
                digest.update(handle.read())
            else:
                digest.update(handle.read(_PIECE))
                handle.seek(size - _PIECE)
                digest.update(handle.read())
    return digest.hexdigest()
