"""GroundedBench's forms against the scenes that they were written from: every answer derived again from the grid."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from verisight.data.files import read_json
from verisight.pocket.datasets import SPLITS, scene
from verisight.pocket.grounded import items, write_form
from verisight.pocket.grounded_scenes import GroundedScene, draw, picture
from verisight.pocket.scenes import CELL_SIZE, CELLS, GRID, KINDS, OBJECTS, usual

SEED, NUM = 3, 160
Asked = tuple[GroundedScene, dict[str, Any], GroundedScene]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    """(scene, item, scene that its picture shows) of a form."""
    found = []
    for index in range(NUM):
        one = draw(SEED, index)
        found += [(one, row, shown) for row, shown in items(one, np.random.default_rng([SEED, index, 1]))]
    return found


def of_kind(asked: list[Asked], kind: str) -> list[Asked]:
    found = [one for one in asked if one[1]["truth"]["kind"] == kind]
    assert len(found) > NUM, kind
    return found


def named(text: str) -> str:
    """The one object of the world that a question names; the longest, so that no bear is in a teddy bear."""
    return max((name for name in OBJECTS if re.search(rf"\b{name}\b", text)), key=len)


def parts(pattern: str, row: dict[str, Any]) -> tuple[str, ...]:
    found = re.fullmatch(pattern, row["prompt"])
    assert found is not None, row
    return found.groups()


def test_a_position_is_right_where_the_grid_says_so(asked: list[Asked]) -> None:
    for one, row, _ in of_kind(asked, "position"):
        name, cell = parts(r"Is there an? (.+) in the ([a-z ]+)\?", row)
        (true,) = (CELLS[item.cell] for item in one.scene.placed if item.name == name)
        assert (row["truth"]["label"] == "yes") == (cell == true), row


SIDES = {"to the left of": (1, -1), "to the right of": (1, 1), "above": (0, -1), "below": (0, 1)}


def test_a_relation_holds_or_its_reverse_does_and_none_is_a_matter_of_opinion(asked: list[Asked]) -> None:
    """By columns for left and right, by rows for above and below; both objects are there once and differ in it."""
    seen = set()
    for one, row, _ in of_kind(asked, "relation"):
        a, words, b = parts(rf"Is the (.+) ({'|'.join(SIDES)}) the (.+)\?", row)
        (first,), (second,) = (one.cells(name) for name in (a, b))
        axis, sign = SIDES[words]
        apart = divmod(first, GRID)[axis] - divmod(second, GRID)[axis]
        assert apart != 0, row
        assert (row["truth"]["label"] == "yes") == (np.sign(apart) == sign), row
        seen.add((words, row["truth"]["label"]))
    assert len(seen) == 8, "four relations, right and wrong"


def test_a_count_is_of_all_copies(asked: list[Asked]) -> None:
    plurals = {"people": "person", "knives": "knife", "buses": "bus", "couches": "couch", "sandwiches": "sandwich"}
    plurals |= {"wine glasses": "wine glass"} | {f"{name}s": name for name in OBJECTS}
    numbers = {"one": 1, "two": 2, "three": 3}
    told = set()
    for one, row, _ in of_kind(asked, "count"):
        number, things = parts(r"(?:Is|Are) there exactly (one|two|three) (.+) in the image\?", row)
        name = things if number == "one" else plurals[things]
        assert one.count(name) > 0, "an object that is there"
        assert (row["truth"]["label"] == "yes") == (one.count(name) == numbers[number]), row
        told.add((number, row["truth"]["label"]))
    assert len(told) == 6


def test_the_absent_object_is_typical_or_of_other_places(asked: list[Asked]) -> None:
    """And in each scene every object question is about another object."""
    for one, row, shown in of_kind(asked, "object"):
        name, truth = named(row["prompt"]), row["truth"]
        assert (truth["label"] == "yes") == (name in shown.names), row
        if truth["label"] == "no" and not truth["edited"]:
            pool = usual(one.scene.kind) if truth["bias"] == "typical" else set(OBJECTS) - set(KINDS[one.scene.kind])
            assert name in pool, row
    by_scene: dict[str, list[str]] = {}
    for _, row, _ in of_kind(asked, "object"):
        if not row["truth"]["edited"]:
            by_scene.setdefault(row["cluster"], []).append(named(row["prompt"]))
    assert all(len(names) == len(set(names)) for names in by_scene.values())


def test_a_pair_differs_in_nothing_but_its_picture_and_its_label(asked: list[Asked]) -> None:
    """So whoever goes by the words, the place or the level answers both the same: guessing 1, seeing 0."""
    by_uid = {row["uid"]: row for _, row, _ in asked}
    pairs = [(by_uid[row["truth"]["pair"]], row) for _, row, _ in asked if row["truth"]["edited"]]
    assert len(pairs) > NUM // 2
    for first, second in pairs:
        assert first["truth"] | {"label": "no", "edited": True} == second["truth"]
        assert (first["prompt"], first["cluster"]) == (second["prompt"], second["cluster"])
        assert first["image"] != second["image"]


@pytest.mark.parametrize("scale", [1, 3])
def test_an_edit_takes_every_copy_and_touches_only_their_boxes(asked: list[Asked], scale: int) -> None:
    copies = set()
    for one, row, shown in asked:
        if not row["truth"]["edited"]:
            continue
        name = named(row["prompt"])
        boxes = np.zeros((96 * scale, 96 * scale), dtype=bool)
        for item in one.scene.placed:
            if item.name == name:
                row_at, column_at = divmod(item.cell, GRID)
                top, left = (row_at * CELL_SIZE + item.dy) * scale, (column_at * CELL_SIZE + item.dx) * scale
                boxes[top : top + item.size * scale, left : left + item.size * scale] = True
        before, after = (np.asarray(picture(each, scale=scale), int) for each in (one, shown))
        changed = (before != after).any(-1)
        assert changed.any()
        assert not (changed & ~boxes).any(), row
        assert name not in shown.names
        assert len(shown.scene.placed) == len(one.scene.placed) - one.count(name)
        copies.add(one.count(name))
    assert copies == {1, 2, 3}


def test_every_scene_keeps_to_its_levels() -> None:
    for index in range(NUM):
        one = draw(SEED, index)
        low, high = {"few": (2, 3), "many": (5, 7)}[one.clutter]
        assert low <= len(one.names) <= high
        assert max(map(one.count, one.names)) <= 3
        cells = [item.cell for item in one.scene.placed]
        assert len(set(cells)) == len(cells)
        assert cells == sorted(cells), "reading order"
        assert all(item.dx + item.size <= CELL_SIZE and item.dy + item.size <= CELL_SIZE for item in one.scene.placed)
    levels = [(draw(SEED, index).size, draw(SEED, index).clutter, draw(SEED, index).contrast) for index in range(NUM)]
    assert {levels.count(each) for each in levels} == {NUM // 8}


def test_no_scene_is_of_another_form_or_of_any_split() -> None:
    """By what is in it and where; 300 scenes of each."""

    def content(one: Any) -> Any:
        return one.kind, one.placed

    forms = [{content(draw(seed, index).scene) for index in range(300)} for seed in (0, 1, 2)]
    splits = {content(scene(split, index)) for split in SPLITS for index in range(300)}
    assert len(set.union(*forms)) == 900
    assert not set.union(*forms) & splits


def test_larger_pictures_have_the_same_items(tmp_path: Path) -> None:
    small, large = (write_form(tmp_path / f"{scale}", seed=SEED, num=2, scale=scale) for scale in (1, 2))
    facts = [read_json(folder / "form.json") for folder in (small, large)]
    assert facts[0]["items_sha256"] == facts[1]["items_sha256"]
    assert facts[0]["pictures_sha256"] != facts[1]["pictures_sha256"]


@pytest.mark.parametrize(
    ("module", "without"),
    [("verisight.pocket.grounded", "torch"), ("verisight.evaluate.grounded", "torch"),
     ("verisight.evaluate.grounded", "verisight.pocket"), ("verisight.evaluate.reliability", "torch")],
)  # fmt: skip
def test_layers(module: str, without: str) -> None:
    code = (
        f"import sys, {module}; sys.exit(any(n == {without!r} or n.startswith({without + '.'!r}) for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
