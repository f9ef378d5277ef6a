"""Ground truth of several files or a plain table, and captions as other tools save them, held beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from verisight.evaluate.answers import join, read_answers
from verisight.evaluate.chair_words import finder
from verisight.evaluate.ground_truth import read_coco, read_ids, read_objects
from verisight.evaluate.objects import find_objects
from verisight.evaluate.openers import chair_uid
from verisight.types import UserError

ROWS = [{"image_id": 42, "caption": "A dog."}, {"image_id": "COCO_val2014_000000000007.jpg", "caption": ""}]
FORMS = {
    "official.json": {"overall": {"CIDEr": 0.9}, "imgToEval": {str(at): row for at, row in enumerate(ROWS)}},
    "list.json": ROWS,
    "lines.jsonl": ROWS,
    "lines.json": "\n".join(map(json.dumps, ROWS)),
    "table.json": {"42": "A dog.", "7": ""},
}


def save(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    if path.suffix == ".jsonl":
        text = "\n".join(map(json.dumps, content)) + "\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_captions_of_every_form_find_their_images(name: str, tmp_path: Path) -> None:
    truths = read_objects(save(tmp_path / "objects.json", {"000042": ["dog"], "7": ["cat"]}), find_objects)
    joined = join(truths, read_answers(save(tmp_path / name, FORMS[name])), chair_uid)
    assert [(row["uid"], row["answer"]) for row in joined.rows] == [("42", "A dog."), ("7", "")]
    assert not any(joined.counts.values())


@pytest.mark.parametrize(
    ("second", "counts", "answers"),
    [
        ({"image_id": "042", "caption": "A dog."}, {"duplicated": 1}, ["A dog."]),
        ({"image_id": "042", "caption": "A cat."}, {"conflicting": 1, "missing": 1}, []),
        ({"image_id": 43, "caption": "A cat."}, {"extra": 1}, ["A dog."]),
        ({"image_id": 1.5, "caption": "A cat."}, {"no_id": 1}, ["A dog."]),
        ({"image_id": 43, "caption": None}, {"extra": 1}, ["A dog."]),
        ({"image_id": 42, "caption": 5}, {"not_text": 1}, ["A dog."]),
    ],
)
def test_a_second_caption_is_counted_never_mixed_in(
    second: dict[str, Any], counts: dict[str, int], answers: list[str], tmp_path: Path
) -> None:
    truths = read_objects(save(tmp_path / "objects.json", {"42": ["dog"]}), find_objects)
    given = read_answers(save(tmp_path / "captions.json", [ROWS[0], second]))
    joined = join(truths, given, chair_uid)
    assert [row["answer"] for row in joined.rows] == answers
    assert {key: num for key, num in joined.counts.items() if num} == counts
    assert all(
        str(tmp_path / "captions.json") in one["where"] for one in joined.problems if one["problem"] != "missing"
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["dog", "puppy", "dogs"], ["dog"]),
        (["Puppy", "wine glasses"], ["dog", "wine glass"]),
        (["bus"], ["bus"]),
        (["hot dog", "dog"], ["hot dog", "dog"]),
        ([], []),
    ],
)
def test_objects_are_mapped_to_categories(names: list[str], found: list[str], tmp_path: Path) -> None:
    """Each category once, in order; a category's own name counts though the official words miss it ("bus")."""
    path = save(tmp_path / "objects.json", {"1": names})
    for find in (find_objects, finder("official")):
        assert read_objects(path, find) == {"1": {"cluster": "1", "truth": {"objects": found}}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"1": ["dog and cat"]}, r"objects\.json: 1 names are no objects of COCO's, such as 'dog and cat'"),
        ({"1": [f"no{at}" for at in range(9)]}, r"9 names are no objects .* 'no0', 'no1', 'no2', 'no3', 'no4'; see"),
        ({"1": ["sky"], "2": ["sky", "tree"]}, r"2 names are no objects .* 'sky', 'tree'"),
        ({"1": ["dog", None]}, r"1 is \['dog', None\]; accepted is a list of texts"),
        ({"": ["dog"]}, r"'' is image None again"),
        ({}, r"holds \{\}; accepted is an object"),
        ('{"1": [], "1": []}', r"'1' is there twice in one object"),
        ('{"1": [', r"not valid JSON at line 1"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(table: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_objects(save(tmp_path / "objects.json", table), find_objects)


def coco(folder: Path, name: str, images: dict[int, list[str]], *, captions: bool = False) -> Path:
    if captions:
        rows = [{"image_id": key, "caption": text} for key, texts in images.items() for text in texts]
        return save(folder / name, {"annotations": rows})
    categories = sorted({one for objects in images.values() for one in objects})
    marks = [{"image_id": key, "category_id": categories.index(one)} for key, names in images.items() for one in names]
    content = {
        "images": [{"id": key, "file_name": f"{key}.jpg"} for key in images],
        "annotations": marks,
        "categories": [{"id": at, "name": one} for at, one in enumerate(categories)],
    }
    return save(folder / name, content)


def test_captions_count_by_the_words_that_are_asked_for(tmp_path: Path) -> None:
    """Image 1: marked dog; captions "A bus." and "Two kittens". The official words miss the one bus.

    Image 3 is in the captions alone and is left out; a mark twice counts once.
    """
    files = [
        coco(tmp_path, "captions.json", {1: ["A bus.", "Two kittens"], 3: ["A dog"]}, captions=True),
        coco(tmp_path, "instances.json", {1: ["dog", "dog"], 2: []}),
    ]
    corrected, official = (read_coco(files, finder(words)) for words in ("corrected", "official"))
    assert corrected["1"]["truth"] == {"objects": ["dog", "bus", "cat"], "image": "1.jpg"}
    assert official["1"]["truth"]["objects"] == ["dog", "cat"]
    assert list(official) == ["1", "2"]
    assert official["2"]["truth"]["objects"] == []
    assert list(read_coco(files, find_objects, among=["2", "3"])) == ["2"]


def test_ids_are_read_in_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("\ufeff7\nCOCO_val2014_000000000042.jpg\n\n000000000009\n")
    assert read_ids(path) == ["7", "42", "9"]
    for text in ("7\n07\n", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"ids\.txt holds \d ids, \d different; accepted: each once"):
            read_ids(path)
    with pytest.raises(UserError, match=r"--ids: .*none\.txt can't be read"):
        read_ids(tmp_path / "none.txt")


def test_a_file_of_keypoints_takes_no_objects_away(tmp_path: Path) -> None:
    """COCO's person_keypoints_*.json has the same images and `categories`, and marks people alone."""
    files = [
        coco(tmp_path, "instances.json", {1: ["dog", "person"], 2: ["cat"]}),
        coco(tmp_path, "person_keypoints.json", {1: ["person"], 2: []}),
    ]
    for order in (files, files[::-1]):
        found = {uid: set(one["truth"]["objects"]) for uid, one in read_coco(order, find_objects).items()}
        assert found == {"1": {"dog", "person"}, "2": {"cat"}}
