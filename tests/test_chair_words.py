"""CHAIR's words: what the official pipeline finds, what the corrected one does, with our synonyms and a given list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_score import entry, run, write
from verisight.evaluate.chair_official import (
    _tokens,
    find_mentions_corrected,
    find_mentions_official,
    own_synonyms,
    read_synonyms,
)
from verisight.evaluate.chair_words import finder
from verisight.evaluate.ground_truth import image_key, read_coco, read_objects
from verisight.evaluate.objects import CATEGORIES, find_objects
from verisight.types import UserError

# The official list's format with its faults: a joined word, a blank too many, capitals, three words.
LIST = """person, man, woman, boy, passenger
motorcycle, scooter,  motor bike, motorbike
oven, stove, stove top oven
cell phone, phone, iPhone
dining table, table,desk
bus, minibus
toilet
tie, bow
wine glass
dog, puppy
cat, kitten
hot dog
elephant
train, locomotive
airplane, jet, plane
orange
chair, seat
"""
TEXTS = [  # text, official, corrected; derived in the docstring of the test below
    ("A bus is parked.", [], ["bus"]),
    ("Two buses are parked.", ["bus"], ["bus"]),
    ("A minibus.", [], ["bus"]),
    ("A man on a motor bike.", ["person"], ["person", "motorcycle"]),
    ("A motorbike and a scooter.", ["motorcycle"] * 2, ["motorcycle"] * 2),
    ("An iPhone.", [], ["cell phone"]),
    ("A phone and cell phones.", ["cell phone"] * 2, ["cell phone"] * 2),
    ("A stove top oven.", ["oven", "oven"], ["oven"]),
    ("A dining table.", [], ["dining table"]),
    ("A table.", [], []),
    ("A desk.", [], []),
    ("A hot dog beside a dog.", ["hot dog", "dog"], ["hot dog", "dog"]),
    ("A hot-dog.", [], ["hot dog"]),
    ("Wine glasses on it.", ["wine glass"], ["wine glass"]),
    ("A glass of wine.", [], []),
    ("A baby elephant.", ["elephant"], ["elephant"]),
    ("Adult elephants!", ["elephant"], ["elephant"]),
    ("A passenger train, a passenger jet.", ["train", "airplane"], ["person", "train", "person", "airplane"]),
    ("He wears a bow tie.", ["tie"], ["tie", "tie"]),
    ("A seat beside the toilet.", ["toilet"], ["chair", "toilet"]),
    ("A toilet seat.", ["toilet"], ["toilet", "chair"]),
    ("An orange cat.", ["orange", "cat"], ["orange", "cat"]),
    ("There is no dog.", ["dog"], ["dog"]),
    ("A cat/dog.", [], ["cat", "dog"]),
    ("The dog's bowl and the cat.Dogs", ["dog"], ["dog", "cat", "dog"]),
    ("MEN and WOMEN", ["person"] * 2, ["person"] * 2),
    ("“Kittens” (puppies), 'dogs'.", ["cat", "dog", "dog"], ["cat", "dog", "dog"]),
    ("", [], []),
    ("图中有一只猫。", [], []),
]


@pytest.fixture
def synonyms(tmp_path: Path) -> Path:
    path = tmp_path / "synonyms.txt"
    path.write_text(LIST)
    return path


@pytest.mark.parametrize(("text", "official", "corrected"), TEXTS)
def test_texts_by_hand(text: str, official: list[str], corrected: list[str], synonyms: Path) -> None:
    """What each rule does.

    official: "bus" and "minibus" lose their s and are not known as "bu"; " motor bike" keeps a blank and is never
    found, while its two words were merged; "iphone" is not "iPhone"; of "stove top oven" two words count; "dining
    table" is no pair of the fixed list, and "table" is joined with "desk" ("table,desk" is one word); a hyphen or
    slash joins words; "toilet seat" is a toilet; no seat counts beside a toilet; a stop without a blank joins
    "cat.Dogs".
    corrected: all of these are found as a person would, except where the list itself says otherwise ("bow" and "tie"
    are two ties, a "passenger" is a person, "table,desk" is one word that nobody writes).
    """
    table = read_synonyms(synonyms)
    assert [one.name for one in find_mentions_official(text, table)] == official
    assert [one.name for one in find_mentions_corrected(text, table)] == corrected


@given(st.lists(st.sampled_from(["A dog.", "two cats", "hot dogs,", "wine glasses", "bus", "Buses!", "the man's"])))
def test_mentions_point_at_their_words(parts: list[str]) -> None:
    text = " ".join(parts)
    for find in (finder("official"), finder("corrected"), find_objects):
        ends = 0
        for one in find(text):
            assert text[one.start : one.end] == one.word != ""
            assert one.start >= ends
            ends = one.end


@pytest.mark.parametrize(
    "text",
    [
        "a man's dog isn't there, is it?",
        "two hot-dogs (on a plate); one cat/dog!",
        "the sign says: stop... and a $5 bus at 3:30",
        "they're o'clock people who can't or cannot go",
        "a bench, a bench [and] {two} <chairs> -- done.",
    ],
)
def test_chunks_give_the_tokens_of_the_whole_sentence(text: str) -> None:
    """What NLTK makes of a sentence at once, up to the singular forms."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    assert [text[one.start : one.end] for one in _tokens(text)] == NLTKWordTokenizer().tokenize(text)


def test_every_category_but_the_bus_is_found_with_our_words() -> None:
    """In the plural the bus is found too. Names of two words that the fixed list lacks count by their parts or not."""
    find = finder("official")
    missed = [name for name in CATEGORIES if name not in {one.name for one in find(f"a {name}")}]
    assert missed == ["bus"]
    assert [one.name for one in find("buses")] == ["bus"]
    assert set(own_synonyms().values()) == set(CATEGORIES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"holds no words"),
        ("human, man\n", r"line 1 begins with 'human'; accepted: one of COCO's 80"),
        ("dog\ncat\ndog, puppy\n", r"line 3 is 'dog' again, first in line 1"),
    ],
)
def test_bad_lists_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_synonyms(path)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (17, "17"),
        ("310196", "310196"),
        ("COCO_val2014_000000310196.jpg", "310196"),
        ("val2014/COCO_val2014_000000310196.jpg", "310196"),
        ("000000310196", "310196"),
        ("chair/42", "42"),
        ("0", "0"),
        ("n161313", "n161313"),
        (None, None),
        (True, None),
        ("", None),
    ],
)
def test_image_ids(value: Any, key: str | None) -> None:
    assert image_key(value) == key


def coco(folder: Path, split: str, images: dict[int, list[str]], captions: dict[int, str]) -> list[Path]:
    names = sorted({name for objects in images.values() for name in objects} | {"dog"})
    rows = [(key, name) for key, objects in images.items() for name in objects]
    instances = {
        "images": [{"id": key, "file_name": f"{key}.jpg"} for key in images],
        "annotations": [{"image_id": key, "category_id": names.index(name)} for key, name in rows],
        "categories": [{"id": at, "name": name} for at, name in enumerate(names)],
    }
    texts = {"annotations": [{"image_id": key, "caption": text} for key, text in captions.items()]}
    return [write(folder / f"instances_{split}.json", instances), write(folder / f"captions_{split}.json", texts)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Image 1: a dog and, by its caption, a cat. 2: a person. 3, of another split: a bus."""
    train = coco(tmp_path, "train", {1: ["dog"], 2: ["person"]}, {1: "A kitten.", 9: "Nowhere."})
    return [*train, *coco(tmp_path, "val", {3: ["bus"]}, {3: "Street."})]


def test_ground_truth_is_the_union_of_all_files(files: list[Path]) -> None:
    for order in (files, files[::-1]):
        found = read_coco(order, find_objects)
        assert {uid: set(one["truth"]["objects"]) for uid, one in found.items()} == {
            "1": {"dog", "cat"}, "2": {"person"}, "3": {"bus"},
        }  # fmt: skip
    assert list(read_coco(files, find_objects, among={"3"})) == ["3"]
    with pytest.raises(UserError, match="none of 1 files holds `categories`"):
        read_coco(files[1:2], find_objects)


def test_chair_scores_what_was_answered(files: list[Path], tmp_path: Path) -> None:
    """Image 1: "A dog and a bus." official finds the dog alone; 3: "Buses and a dog." one of two is made up.

    official: CHAIR_i 1/3, CHAIR_s 1/2, recall (dog) + (bus) of 3 = 2/3; corrected sees the bus too: 2/4, 1, 2/3.
    """
    captions = [{"image_id": 1, "caption": "A dog and a bus."}, {"image_id": 3, "caption": "Buses and a dog."}]
    answers = write(tmp_path / "captions.json", captions)
    words = ["chair", "--answers", answers, "--out", tmp_path / "out"]
    words += [word for file in files for word in ("--annotations", file)]
    run(*words)
    found = entry(tmp_path / "out", "chair")
    metrics = {name: one["value"] for name, one in found["metrics"].items()}
    assert (metrics["chair_i"], metrics["chair_s"], metrics["recall"]) == pytest.approx((1 / 3, 1 / 2, 2 / 3))
    assert metrics["truncated_fraction"] is None
    assert (found["protocol"], found["version"]) == ("official", "own synonyms")
    run(*words, "--protocol", "corrected")
    metrics = {name: one["value"] for name, one in entry(tmp_path / "out", "chair")["metrics"].items()}
    assert (metrics["chair_i"], metrics["chair_s"], metrics["recall"]) == pytest.approx((2 / 4, 1, 2 / 3))
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")
    run(*words, "--ids", tmp_path / "ids.txt")
    assert "1 missing" in entry(tmp_path / "out", "chair")["refused"]
    (tmp_path / "ids.txt").write_text("1\n77\n")
    with pytest.raises(UserError, match=r"--ids: 1 images have no ground truth, the first is 77"):
        run(*words, "--ids", tmp_path / "ids.txt")


def test_chair_takes_a_table_of_objects_and_a_list(tmp_path: Path, synonyms: Path) -> None:
    """The table's words are read by the list: a puppy is a dog. Official CHAIR_i: of dog and man the man is made up."""
    objects = write(tmp_path / "objects.json", {"COCO_val2014_000000000001.jpg": ["puppy", "dog"], "2": []})
    rows = [{"image_id": 1, "caption": "A dog and a man."}, {"image_id": "000000000002", "caption": "Nothing."}]
    answers = write(tmp_path / "captions.jsonl", rows)
    run("chair", "--answers", answers, "--objects", objects, "--synonyms", synonyms, "--out", tmp_path / "out")
    found = entry(tmp_path / "out", "chair")
    assert found["metrics"]["chair_i"]["value"] == 0.5
    assert found["version"].startswith("synonyms ")
    assert found["num_items"] == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], r"holds \[\]; accepted is an object"),
        ({"1": "dog"}, r"1 is 'dog'; accepted is a list of texts"),
        ({"1": ["dog", "xylophone", "sky"]}, r"2 names are no objects of COCO's, such as 'xylophone', 'sky'"),
        ({"1": [], "01": []}, r"'01' is image 1 again"),
    ],
)
def test_bad_tables_are_refused(table: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match=message):
        read_objects(path, find_objects)
