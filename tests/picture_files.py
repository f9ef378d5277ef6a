"""Folders and archives of small pictures, told apart by their shade."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from verisight.data.images import load_image
from verisight.types import ImageRef

COCO = "000000442786.jpg"
TRAIN, VAL = f"COCO_train2014_{COCO}", f"COCO_val2014_{COCO}"


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(ref: ImageRef) -> int:
    return load_image(ref).getpixel((0, 0))[0]


def fill(root: Path, names: Iterable[str], *, as_zip: bool) -> Path:
    """A folder or an archive of pictures; the n-th is of shade n, counted from 1."""
    if as_zip:
        root = root.with_suffix(".bin")  # told by content
        with zipfile.ZipFile(root, "w") as archive:
            for number, name in enumerate(names, 1):
                archive.writestr(name, png(number))
        return root
    root.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    return root
