"""Small data sets in POVID's layout, and a check of them."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from verisight.data.check import Checked, check
from verisight.data.check_leaks import read_against
from verisight.data.readers import open_data


def photo(seed: int, size: int = 64) -> Image.Image:
    """A picture that looks like no other one."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def row(number: int, image: str | None, asked: str, chosen: str, rejected: str) -> dict[str, Any]:
    """As POVID has it."""
    mark = "<image>\n" if image else ""
    asking = {"from": "human", "value": mark + asked}
    told = {"id": number} | ({"image": image} if image else {})
    return told | {
        "conversations": [asking, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [asking, {"from": "gpt", "value": rejected}],
    }


def written(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


def pictures(folder: Path, names: Iterable[str]) -> Path:
    """A folder in which the n-th picture is photo n."""
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(photo(number), "JPEG" if name.endswith("jpg") else "PNG"))
    return folder


def checked(path: Path, images: Path | None = None, *against: Path, decode: bool = True, **options: Any) -> Checked:
    reading = open_data(path, images=images, check_images=decode, text_only=images is None)
    return check(reading, against=[read_against(one, images=images, decode=decode) for one in against], **options)
