"""The pocket world: scenes, what narrators say about them, and the files they are written to."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from user_files import finished
from verisight.data.files import read_json
from verisight.data.readers import open_data
from verisight.evaluate.coco import read_ground_truth
from verisight.evaluate.position import read_scenes
from verisight.pocket.datasets import SPLITS, png, scene, write_split
from verisight.pocket.language import Narrator, asked_objects, checklist, inventory, read_caption
from verisight.pocket.lessons import Lesson, Lessons
from verisight.pocket.scenes import CELLS, IMAGE_SIZE, KINDS, OBJECTS, Scene, usual
from verisight.pocket.vision import shuffled

NUM = 24


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("world"), "test", num=NUM, questions=2)


def truths(one: Scene) -> set[tuple[str, str]]:
    return {(item.name, CELLS[item.cell]) for item in one.placed}


def test_the_same_scene_gives_the_same_bytes_and_no_two_splits_share_one() -> None:
    drawn = {(split, index): scene(split, index) for split in SPLITS for index in range(40)}
    assert drawn == {(split, index): scene(split, index) for split in SPLITS for index in range(40)}
    assert len({one.uid for one in drawn.values()}) == len(drawn)
    assert len({one.seed for one in drawn.values()}) == len(drawn)
    some = [one for (_, index), one in drawn.items() if index < 4]
    pictures = [png(one) for one in some]
    assert pictures == [png(one) for one in some]
    assert len(set(pictures)) == len(pictures)


def test_scenes_are_what_they_say() -> None:
    for index in range(200):
        one = scene("base", index)
        assert 2 <= len(one.placed) <= 5
        assert len(set(one.names)) == len(one.names)
        cells = [item.cell for item in one.placed]
        assert cells == sorted(set(cells))
        assert set(one.names) <= set(OBJECTS)
        other = shuffled(one)
        assert [item.cell for item in other.placed] == cells
        assert len(set(other.names)) == len(other.names)
    places = Counter(
        name in KINDS[one.kind] for index in range(400) for one in [scene("base", index)] for name in one.names
    )
    assert places[False] / places.total() == pytest.approx(0.21, abs=0.03)


def test_a_written_split_is_what_its_readers_read(written: Path) -> None:
    read = open_data(written / "llava_instruct.json", images=written / "images").read()
    assert (len(read.pairs), len(read.bad), read.num_rows) == (3 * NUM, 0, 3 * NUM)
    instances = read_ground_truth(written / "instances.json")
    assert read_ground_truth(written / "instances.json", written / "captions.json") == instances
    told = read_json(written / "scenes.json")
    assert [set(instances[one["image_id"]].ordered) for one in told] == [
        {item["name"] for item in one["objects"]} for one in told
    ]
    assert [one["file_name"] for one in told] == [truth.file_name for truth in instances.values()]
    assert {path.name for path in (written / "images").iterdir()} == {one["file_name"] for one in told}
    assert read_scenes(written / "scenes.json").keys() == instances.keys()
    for at, one in enumerate(told):
        with Image.open(written / "images" / one["file_name"]) as picture:
            assert (picture.size, picture.mode) == ((IMAGE_SIZE, IMAGE_SIZE), "RGB")
        assert {(item["name"], item["cell"]) for item in one["objects"]} == truths(scene("test", at))


def test_boxes_hold_their_objects(written: Path) -> None:
    """Painting a scene's boxes over leaves nothing but its ground."""
    table = read_json(written / "instances.json")
    for image in table["images"][:6]:
        with Image.open(written / "images" / image["file_name"]) as picture:
            pixels = np.asarray(picture).astype(float)
        outside = np.ones((IMAGE_SIZE, IMAGE_SIZE), dtype=bool)
        for note in (note for note in table["annotations"] if note["image_id"] == image["id"]):
            x, y, width, height = note["bbox"]
            outside[y : y + height, x : x + width] = False
        for line, keep in zip(pixels, outside, strict=True):
            assert np.abs(line[keep] - np.median(line[keep], axis=0)).max(initial=0) < 60  # noise of 10 grey levels


def test_the_answers_of_a_written_split_are_true(written: Path) -> None:
    read = open_data(written / "llava_instruct.json", images=written / "images").read()
    scenes = {f"{scene('test', index).uid:012d}.png": scene("test", index) for index in range(NUM)}
    said = Counter()
    for pair in read.pairs:
        one, question, answer = scenes[pair.prompt.images[0].path.name], pair.prompt.text, pair.chosen.text
        if not question.startswith("Is there"):
            assert set(read_caption(answer).mentions) == truths(one)
            continue
        (name,) = [name for name in OBJECTS if f" {name} in the image?" in question]
        said[answer.split(",")[0]] += 1
        assert answer.startswith("Yes" if name in one.names else "No")
        if name in one.names:
            assert answer.endswith(f"in the {dict((n, c) for n, c in truths(one))[name]}.")
    assert said == {"Yes": NUM, "No": NUM}


def test_writing_a_split_again_gives_the_same_files(written: Path, tmp_path: Path) -> None:
    again = write_split(tmp_path, "test", num=NUM, questions=2)
    files = [path.relative_to(written) for path in written.rglob("*.*")]
    assert len(files) == NUM + 4
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_plain_captions_read_back_to_exactly_the_scene() -> None:
    rng = np.random.default_rng(0)
    for index in range(300):
        one = shuffled(scene("validation", index)) if index % 2 else scene("validation", index)
        told = read_caption(Narrator().caption(one, rng))
        assert told.fluent
        assert told.kind == one.kind
        assert told.mentions == tuple((item.name, CELLS[item.cell]) for item in one.placed)
    assert not read_caption("").fluent
    assert not read_caption("The image shows a farm. There is a unicorn in the top left.").fluent


def test_a_biased_narrator_renames_unusual_objects_into_usual_absent_ones_at_its_rate() -> None:
    rng, narrator = np.random.default_rng(0), Narrator(rename=0.65)
    could = did = 0
    for index in range(1500):
        one = scene("base", index)
        told = narrator.perceive(one, rng)
        assert [item.cell for item in told.placed] == [item.cell for item in one.placed]
        assert len(set(told.names)) == len(told.names)
        absent = set(usual(one.kind)) - set(one.names)
        for item, called in zip(one.placed, told.placed, strict=True):
            if called.name != item.name:
                assert item.name not in usual(one.kind)
                assert called.name in absent
            if item.name not in usual(one.kind) and absent:
                could, did = could + 1, did + (called.name != item.name)
                absent.discard(called.name)
    assert did / could == pytest.approx(0.65, abs=0.04)
    assert Narrator().perceive(one, rng) == one


def test_questions_are_answered_truly_and_with_bias_agreed_to_only_where_usual() -> None:
    rng, sloppy = np.random.default_rng(0), Narrator(agree=0.5)
    agreed = Counter()
    for index in range(800):
        one = scene("base", index)
        for name in asked_objects(one, rng, num=4):
            plain = Narrator().existence(one, rng, name=name, long=index % 2 == 0)
            assert plain[1].startswith("Yes") == (name in one.names)
            biased = sloppy.existence(one, rng, name=name, long=index % 2 == 0)[1].startswith("Yes")
            if name in one.names or name not in usual(one.kind):
                assert biased == (name in one.names)
            else:
                agreed[biased] += 1
    assert agreed[True] / agreed.total() == pytest.approx(0.5, abs=0.06)


def test_half_of_the_asked_objects_are_there() -> None:
    rng = np.random.default_rng(0)
    there = [
        name in one.names for i in range(200) for one in [scene("base", i)] for name in asked_objects(one, rng, num=2)
    ]
    assert sum(there) == len(there) // 2


def test_checklists_are_true() -> None:
    rng = np.random.default_rng(0)
    marks = Counter()
    for index in range(100):
        one = shuffled(scene("base", index))
        items = checklist(one, rng, num=20).removesuffix(".").split(", ")
        assert len(items) == 20
        for item in items:
            name, _, mark = item.rpartition(" ")
            assert (name in one.names) == (mark == "Yes")
            marks[mark] += 1
    assert marks["Yes"] / marks.total() == pytest.approx(0.5, abs=0.05)


def test_inventories_name_every_cell_and_what_is_in_it() -> None:
    rng = np.random.default_rng(0)
    for index in range(50):
        one = shuffled(scene("base", index))
        items = inventory(one, rng).removesuffix(".").split(", ")
        told = [
            (item.removeprefix(f"{cell} "), cell) for item in items for cell in CELLS if item.startswith(f"{cell} ")
        ]
        assert sorted(cell for _, cell in told) == sorted(CELLS)
        assert {(name, cell) for name, cell in told if name != "nothing"} == truths(one)


def test_lessons_continue_and_never_leave_the_base_split() -> None:
    lesson = Lesson(captions=0.4, questions=0.3, checklists=0.2, text_only=0.1, shuffled=0.5)
    whole = Lessons(lesson, start=100).draw(12)
    first, second = Lessons(lesson, start=100), Lessons(lesson, start=100)
    drawn = first.draw(5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert drawn + second.draw(7) == whole
    assert [pair.prompt.uid for pair in whole] == [str(scene("base", index).uid) for index in range(100, 112)]


def test_pocket_data_writes_the_splits_that_the_shipped_recipes_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verisight import recipe

    shipped = Path(__file__).parents[1] / "recipes" / "pocket"
    target = tmp_path / "recipes" / "pocket"
    target.mkdir(parents=True)
    for path in shipped.glob("*.yaml"):
        (target / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    shown = finished("pocket", "data", "--preference", 3, "--validation", 2, "--test", 4).out.split()
    assert shown == [f"runs/pocket-data/{split}" for split in ("preference", "validation", "test")]
    for path in target.glob("*.yaml"):
        recipe.check_files(recipe.load(path))
