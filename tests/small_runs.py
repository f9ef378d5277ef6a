"""A small re-enacted POVID and recipes on it, for tests of whole runs."""

from __future__ import annotations

from pathlib import Path

from verisight import recipe
from verisight.data.files import read_jsonl
from verisight.pocket.datasets import write_split
from verisight.pocket.reenact import WRITERS, gather

POVID = "{kind: povid, file: povid.json, images: povid/images}"
ORACLE = "{kind: oracle, scenes: preference/scenes.json}"
ONLINE = f"{{kind: online, data: {POVID}, annotator: {ORACLE}, max_new_tokens: 64}}"
OFFLINE = f"{{kind: offline, data: {POVID}}}"
BDHS = "{guidance: {max_new_tokens: 12}, check: {kind: always}}"
BASE = f"""
output: run
model: {{path: pocket, tune: {{kind: lora, r: 4, alpha: 8}}}}
source: {OFFLINE}
objective: {{kind: dpo}}
train: {{steps: 4, batch_size: 3, lr: 1e-3}}
"""


def write_small(folder: Path) -> Path:
    """A small re-enacted POVID, its scenes, and a recipe."""
    asked = gather(num=8, seed=0, quiet=True)
    [name] = [name for name in WRITERS if name.startswith("povid")]
    WRITERS[name](folder / "povid", asked, noise=0.1, seed=0).rename(folder / "povid.json")
    write_split(folder, "preference", num=8)
    (folder / "recipe.yaml").write_text(BASE)
    return folder


def loaded(made: Path, name: str, *overrides: str) -> recipe.Recipe:
    return recipe.load(made / "recipe.yaml", [f"output={made / name}", *(placed(made, one) for one in overrides)])


def placed(made: Path, override: str) -> str:
    """Overrides count paths from the working directory."""
    for name in ("povid.json", "povid/images", "preference/scenes.json"):
        override = override.replace(f": {name}", f": {made / name}")
    return override


def rows_of(folder: Path) -> list[dict]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "seconds_of")}
        for row in read_jsonl(folder / "metrics.jsonl")
    ]


def mixed(p: float, *others: str) -> str:
    first = f"{{weight: {p}, source: {OFFLINE}}}"
    rest = ", ".join(f"{{weight: {(1 - p) / len(others)}, source: {other}}}" for other in others)
    return f"source={{kind: mixed, parts: [{first}, {rest}]}}"
