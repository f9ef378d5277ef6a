"""Forms of GroundedBench as files: what they are called, and the hash that says nobody changed them."""

from __future__ import annotations

import hashlib
from pathlib import Path

VERSION = "1"
ITEMS = "items.jsonl"


def form_facts(folder: Path) -> dict[str, str]:
    """`items_sha256` over items.jsonl (the same everywhere) and `pictures_sha256` over names and bytes of images/.

    The second may differ between versions of the libraries that draw and compress. Hidden files (a Mac's .DS_Store) are
    no part of a form.
    """
    pictures = hashlib.sha256()
    for path in sorted(path for path in (folder / "images").iterdir() if not path.name.startswith(".")):
        pictures.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    items = hashlib.sha256((folder / ITEMS).read_bytes()).hexdigest()
    return {"items_sha256": items, "pictures_sha256": pictures.hexdigest()}
