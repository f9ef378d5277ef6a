"""Object mentions in text, where they are put, and what is known to be in the picture."""

import json

import pytest

from verisight.evaluate.coco import read_ground_truth
from verisight.evaluate.objects import CATEGORIES, find_objects, singular
from verisight.evaluate.position import CELLS, placements, read_scenes, scene_counts
from verisight.types import UserError


def names(text):
    return [mention.name for mention in find_objects(text)]


def test_there_are_eighty_categories_and_each_is_found_by_its_name_and_plural():
    assert len(CATEGORIES) == 80
    for name in CATEGORIES:
        assert names(f"There is a {name}.") == [name]
        plural = {"person": "people", "knife": "knives", "mouse": "mice"}.get(name) or (
            name
            if name in ("sheep", "skis", "scissors", "broccoli")
            else name + ("es" if name.endswith(("s", "ch", "sh")) else "s")
        )
        assert names(f"Two {plural}!") == [name], plural


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He eats a hot dog near a dog.", ["hot dog", "dog"]),
        ("two hotdogs", ["hot dog"]),
        ("a teddy bear beside a polar bear", ["teddy bear", "bear"]),
        ("the toilet seat is up", ["toilet"]),
        ("a roll of toilet paper", []),
        ("a stop sign and traffic lights", ["stop sign", "traffic light"]),
        ("wine glasses and glasses", ["wine glass"]),
        ("a tennis racket, a tennis court", ["tennis racket"]),
        ("train tracks at a train station", []),
        ("a train on the train tracks", ["train"]),
        ("A baby elephant and a baby", ["elephant", "person"]),
        ("the bus stop where a bus is parked", ["bus"]),
        ("Men, women and children on sofas", ["person", "person", "person", "couch"]),
        ("TVs, a television and a mobile phone", ["tv", "tv", "cell phone"]),
        (
            "buses, knives, sandwiches, toothbrushes, vases",
            ["bus", "knife", "sandwich", "toothbrush", "vase"],
        ),
        ("a carrot cake and pancakes", ["cake"]),
        ("a black-and-white cat's dog", ["cat", "dog"]),
        ("an orange cat on an orange and white couch", ["cat", "couch"]),
        ("An orange and a banana. The wall is orange.", ["orange", "banana"]),
        ("An orange can be seen in the center. Oranges.", ["orange", "orange"]),
        ("There is an orange", ["orange"]),
        ("a hot, dog-like fox", ["dog"]),
        ("category, carpet, scatter, catalog", []),
        ("", []),
    ],
)
def test_traps(text, expected):
    assert names(text) == expected


def test_mentions_point_into_the_text():
    text = "In the photo, Teddy  bears & a WINE-GLASS."
    found = find_objects(text)
    assert [(m.name, m.word) for m in found] == [("teddy bear", "Teddy  bears"), ("wine glass", "WINE-GLASS")]
    assert all(text[m.start : m.end] == m.word for m in found)


@pytest.mark.parametrize("word", ["bus", "glass", "tennis", "this", "tie", "sheep"])
def test_singular_words_stay(word):
    assert singular(word) == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is a dog in the top left.", [("dog", "top left")]),
        ("In the bottom center there is an apple.", [("apple", "bottom center")]),
        ("A car can be seen in the center.", [("car", "center")]),
        (
            "A cat in the upper-left and a dog at the lower right.",
            [("cat", "top left"), ("dog", "bottom right")],
        ),
        ("In the centre is a cup, in the middle left a bowl.", [("cup", "center"), ("bowl", "middle left")]),
        ("A cat and a dog in the top right.", [("dog", "top right")]),
        ("There is a bus. In the top left. A shopping center.", []),
        ("In the top left there is a dog. A cat in the center.", [("dog", "top left"), ("cat", "center")]),
    ],
)
def test_placements(text, expected):
    assert placements(text) == expected


def test_every_cell_is_read():
    for cell in CELLS:
        assert placements(f"There is a dog in the {cell}.") == [("dog", cell)]


def test_scene_counts_by_hand():
    """Dog right, cat wrong, car made up (usual), kite made up (unusual): 1 of 2 right, 1 of 2 typical."""
    scene = {"kind": "street", "cells": {"dog": ["top left"], "cat": ["center"]}, "usual": ["car", "bus"]}
    text = "A dog in the top left. A cat in the top right. A car in the center. A kite in the center."
    counts = scene_counts(text, ["car", "kite"], scene)
    assert counts == {"num_placed": 2, "num_placed_right": 1, "num_typical": 1}


def write_coco(folder, *, captions=("A man with a hot dog.", "A dog.")):
    instances = {
        "images": [{"id": 7, "file_name": "seven.jpg"}, {"id": 3, "file_name": "three.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 3},
            {"image_id": 7, "category_id": 18},
            {"image_id": 7, "category_id": 3},
        ],
    }
    told = {"annotations": [{"image_id": 7, "caption": caption} for caption in captions]}
    told["annotations"].append({"image_id": 99, "caption": "A cat."})
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "captions.json").write_text(json.dumps(told))
    return folder / "instances.json", folder / "captions.json"


def test_ground_truth_is_instances_then_captions_in_first_appearance_order(tmp_path):
    instances, captions = write_coco(tmp_path)
    truth = read_ground_truth(instances, captions)
    assert list(truth) == [7, 3]
    assert truth[7].ordered == ("car", "dog", "person", "hot dog")
    assert truth[7].objects == {"car", "dog", "person", "hot dog"}
    assert (truth[3].file_name, truth[3].ordered) == ("three.jpg", ())
    assert read_ground_truth(instances)[7].ordered == ("car", "dog")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("images"), r"instances\.json: `images` is missing"),
        (lambda t: t["images"][1].pop("file_name"), r"instances\.json: images\[1\] has no `file_name`"),
        (lambda t: t["images"][1].update(id=7), r"images\[1\]\.id is 7 a second time"),
        (
            lambda t: t["annotations"][2].update(category_id=5),
            r"annotations\[2\]\.category_id is 5, which is not in",
        ),
        (
            lambda t: t["annotations"][0].update(image_id="7"),
            r"annotations\[0\]\.image_id is '7'; accepted is int",
        ),
        (
            lambda t: t["categories"][0].update(name="Dog"),
            r"categories\[0\]\.name is 'Dog'; accepted are COCO's 80",
        ),
        (lambda t: t.update(annotations={}), r"`annotations` is a dict"),
    ],
)
def test_malformed_ground_truth_names_file_and_key(tmp_path, change, message):
    instances, _ = write_coco(tmp_path)
    table = json.loads(instances.read_text())
    change(table)
    instances.write_text(json.dumps(table))
    with pytest.raises(UserError, match=message):
        read_ground_truth(instances)


def test_ground_truth_that_is_no_json(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: not valid JSON"):
        read_ground_truth(tmp_path / "x.json")


def test_scenes_are_read_and_checked(tmp_path):
    entry = {
        "image_id": 4, "file_name": "4.png", "kind": "farm", "usual": ["cow"],
        "objects": [{"name": "cow", "cell": "center"}],
    }  # fmt: skip
    file = tmp_path / "scenes.json"
    file.write_text(json.dumps([entry]))
    assert read_scenes(file) == {4: {"kind": "farm", "cells": {"cow": ["center"]}, "usual": ["cow"]}}
    for change, message in (
        ({"usual": None}, "entry 0 is incomplete"),
        ({"usual": ["unicorn"]}, "the object 'unicorn'"),
        ({"objects": [{"name": "cow", "cell": "north"}]}, "the cell 'north'"),
    ):
        file.write_text(json.dumps([entry | change]))
        with pytest.raises(UserError, match=message):
            read_scenes(file)
