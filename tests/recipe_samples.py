"""A good recipe and small helpers for the tests of recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from verisight import recipe
from verisight.types import UserError

BASE = """
output: runs/here
model: {path: pocket, tune: {kind: full}}
source:
  kind: generated
  data: {kind: llava_instruct, file: rows.json, images: pictures}
  negatives: {view: {kind: masked, rho: 0.5}}
objective: {kind: dpo, beta: 0.2}
train: {steps: 10, lr: 5e-7}
evaluate:
  - {kind: chair, images: pictures, instances: i.json}
  - {kind: pope, images: pictures, instances: i.json}
"""
OFFLINE = ("source.kind=offline", "source.data={kind: pairs, file: p.parquet}")
SFT_DATA = ("source.kind=offline", "source.data={kind: llava_instruct, file: rows.json, images: pictures}")


def write_base(folder: Path) -> Path:
    """The good recipe as recipes/base.yaml below a folder, which should be the working directory."""
    (folder / "recipes").mkdir()
    return write("base.yaml", BASE)


def write(name: str, text: str) -> Path:
    path = Path("recipes") / name
    path.write_text(text)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        recipe.load(path, overrides)
    return str(caught.value)
