"""Forms of GroundedBench: items about scenes whose content is known completely, written from a seed.

Two seeds give parallel forms: other scenes, the same construction. A form is a folder with items.jsonl, images/ and
form.json, which holds the version, the seed and the hash of the rest (`evaluate.grounded` checks it).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from verisight.data.files import write_atomic, write_json, write_jsonl
from verisight.data.forms import ITEMS, VERSION, form_facts
from verisight.pocket.grounded_scenes import GroundedScene, draw, picture
from verisight.pocket.language import DETAIL_PROMPTS, with_article
from verisight.pocket.scenes import CELLS, GRID, KINDS, OBJECTS, usual
from verisight.types import UserError

_NUMERALS = {2: "two", 3: "three"}
_PLURALS = {"person": "people", "bus": "buses", "sheep": "sheep", "knife": "knives", "scissors": "scissors"}
_NO_COUNT = ("scissors", "sheep", "mouse")  # their plural is one, or needs care
Row = dict[str, Any]


def write_form(folder: Path, *, seed: int, num: int, scale: int = 1) -> Path:
    """Write the form of a seed: `num` scenes (a multiple of 16 crosses all levels evenly), about 14 items each.

    `scale` enlarges the pictures (4: 384 pixels a side), for models that want more than 96. An older form in `folder`
    is replaced.

    Raises:
        UserError: `folder` holds anything else.
    """
    if folder.exists() and not (folder / "form.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something that is no form; accepted: a new or empty folder, or an older form")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    rows = []
    for index in range(num):
        one = draw(seed, index)
        for row, shown in items(one, np.random.default_rng([seed, index, 1])):
            rows.append(row)
            target = partial / "images" / row["image"]
            if not target.exists():
                write_atomic(target, _png(shown, scale))
    write_jsonl(partial / ITEMS, rows)
    about = {"version": VERSION, "seed": seed, "num_scenes": num, "scale": scale, "num_items": len(rows)}
    write_json(partial / "form.json", about | form_facts(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def items(one: GroundedScene, rng: np.random.Generator) -> Iterator[tuple[Row, GroundedScene]]:
    """A scene's items, each with the scene that its picture shows (the edited one for questions on what was removed).

    As many questions have the answer yes as no, in every kind; pairs come on top.
    """
    yield _row(one, "caption", DETAIL_PROMPTS[0], {"form": "caption", "kind": "caption"} | _facts(one)), one
    present = list(one.names)
    rng.shuffle(present)
    for bias, absent in _absent(one, rng):
        there = present.pop()
        asked = _ask(
            one, f"object-{bias}", "object", there, absent, lambda name: f"Is there {with_article(name)} in the image?"
        )
        yes, no = [row | {"truth": row["truth"] | {"bias": bias}} for row in asked]
        if bias == "typical":
            edited = one.without(there)
            pair = {"pair": yes["uid"], "bias": bias}
            yes["truth"] |= pair
            removed = yes["truth"] | {"label": "no", "edited": True}
            yield yes | {"uid": f"{yes['uid']}-removed", "image": _file(one, there), "truth": removed}, edited
        yield yes, one
        yield no, one
    for kind, questions in (("position", _position), ("count", _count), ("scene", _place), ("relation", _relation)):
        found = questions(one, rng)
        if found is not None:
            for row in _ask(one, kind, kind, *found, str):
                yield row, one


def _ask(one: GroundedScene, name: str, kind: str, yes: str, no: str, text: Any) -> list[Row]:
    return [
        _row(one, f"{name}-{label}", text(value), {"form": "yesno", "kind": kind, "label": label})
        for label, value in (("yes", yes), ("no", no))
    ]


def _row(one: GroundedScene, name: str, prompt: str, truth: Row) -> Row:
    levels = {"size": one.size, "clutter": one.clutter, "contrast": one.contrast, "pair": None, "edited": False}
    scene = str(one.scene.uid)
    return {
        "uid": f"{scene}/{name}", "cluster": scene, "image": _file(one), "prompt": prompt,
        "truth": levels | {"bias": None} | truth,
    }  # fmt: skip


def _facts(one: GroundedScene) -> Row:
    placed = [{"name": item.name, "cell": CELLS[item.cell]} for item in one.scene.placed]
    return {"place": one.scene.kind, "objects": placed, "usual": list(usual(one.scene.kind))}


def _absent(one: GroundedScene, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """What is asked about and isn't there: usual in such a place, then anything else."""
    expected = [name for name in usual(one.scene.kind) if name not in one.names]
    if expected:
        yield "typical", str(rng.choice(expected))
    others = [name for name in OBJECTS if name not in one.names and name not in KINDS[one.scene.kind]]
    yield "random", str(rng.choice(others))


def _position(one: GroundedScene, rng: np.random.Generator) -> tuple[str, str] | None:
    name = _single(one, rng)
    if name is None:
        return None
    (cell,) = one.cells(name)
    wrong = int(rng.choice([other for other in range(GRID * GRID) if other != cell]))
    thing = with_article(name)
    return f"Is there {thing} in the {CELLS[cell]}?", f"Is there {thing} in the {CELLS[wrong]}?"


def _count(one: GroundedScene, rng: np.random.Generator) -> tuple[str, str] | None:
    """Of a scene with copies, of these; else of one object."""
    names = [name for name in one.names if name not in _NO_COUNT]
    copied = [name for name in names if one.count(name) > 1]
    if not names:
        return None
    name = str(rng.choice(copied or names))
    true = one.count(name)
    wrong = int(rng.choice([number for number in (1, 2, 3) if number != true]))
    return _how_many(name, true), _how_many(name, wrong)


def _how_many(name: str, number: int) -> str:
    if number == 1:
        return f"Is there exactly one {name} in the image?"
    return f"Are there exactly {_NUMERALS[number]} {_plural(name)} in the image?"


def _place(one: GroundedScene, rng: np.random.Generator) -> tuple[str, str]:
    other = str(rng.choice([kind for kind in KINDS if kind != one.scene.kind]))
    yes, no = (f"Does this picture show {with_article(kind)}?" for kind in (one.scene.kind, other))
    return yes, no


def _relation(one: GroundedScene, rng: np.random.Generator) -> tuple[str, str] | None:
    """Two objects that are there once, in different columns or rows."""
    alone = [name for name in one.names if one.count(name) == 1]
    found = []
    for a, b in permutations(alone, 2):
        (row_a, column_a), (row_b, column_b) = (divmod(one.cells(name)[0], GRID) for name in (a, b))
        found += [(a, b, "to the left of")] * (column_a < column_b) + [(a, b, "to the right of")] * (
            column_a > column_b
        )
        found += [(a, b, "above")] * (row_a < row_b) + [(a, b, "below")] * (row_a > row_b)
    if not found:
        return None
    a, b, words = found[int(rng.integers(len(found)))]
    return f"Is the {a} {words} the {b}?", f"Is the {b} {words} the {a}?"


def _single(one: GroundedScene, rng: np.random.Generator) -> str | None:
    alone = [name for name in one.names if one.count(name) == 1]
    return str(rng.choice(alone)) if alone else None


def _plural(name: str) -> str:
    if name in _PLURALS:
        return _PLURALS[name]
    return f"{name}es" if name.endswith(("s", "ch", "sh", "x")) else f"{name}s"


def _file(one: GroundedScene, removed: str | None = None) -> str:
    name = f"{one.scene.uid:012d}"
    return f"{name}.png" if removed is None else f"{name}-without-{removed.replace(' ', '-')}.png"


def _png(one: GroundedScene, scale: int) -> bytes:
    buffer = BytesIO()
    picture(one, scale=scale).save(buffer, format="PNG")
    return buffer.getvalue()
