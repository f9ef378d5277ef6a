"""What a check finds on the other side: same files, same COCO numbers, look-alikes, prompts and pairs."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from checked_sets import checked, encoded, photo, pictures, row, written
from verisight.data.check_facts import as_json
from verisight.data.check_text import listings
from verisight.data.images import fingerprint
from verisight.types import UserError


@pytest.fixture
def leaky(tmp_path: Path) -> tuple[Path, Path]:
    """Four rows: of a shared file, a shared COCO number, a re-encoded picture, and one of its own."""
    names = ["a.png", "COCO_train2014_000000000042.jpg", "look.png", "own.png"]
    images = pictures(tmp_path / "images", names)
    rows = [row(n, name, "What?", f"A cat {n}.", f"A dog {n}.") for n, name in enumerate(names)]
    return written(tmp_path / "d.json", [*rows, row(4, "look.png", "Where?", "Here.", "There.")]), images


def evaluation(folder: Path) -> Path:
    """Pictures for evaluation: the same file, the same number in 2017's name, and the same picture re-encoded."""
    folder.mkdir()
    (folder / "other_name.png").write_bytes(encoded(photo(0)))
    (folder / "000000000042.jpg").write_bytes(encoded(photo(99), "JPEG"))
    (folder / "re.jpg").write_bytes(encoded(photo(2), "JPEG", quality=95))
    (folder / "readme.txt").write_text("no picture")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.mark.parametrize("as_zip", [False, True])
def test_leaks_into_evaluation_pictures(tmp_path: Path, leaky: tuple[Path, Path], as_zip: bool) -> None:
    against = evaluation(tmp_path / "eval")
    if as_zip:
        with zipfile.ZipFile(tmp_path / "eval.zip", "w") as archive:
            for path in sorted(against.iterdir()):
                archive.write(path, f"val/{path.name}")
        against = tmp_path / "eval.zip"
    assert fingerprint(photo(2)) == fingerprint(Image.open(tmp_path / "eval" / "re.jpg"))
    (leak,) = checked(*leaky, against).facts.leaks
    assert (leak.num_pictures, leak.num_unusable, leak.num_pairs) == (3, 1, 4)
    shared = [leak.same_file, leak.same_coco, leak.look_alike]
    assert [(one.num_pictures, one.num_pairs) for one in shared if one] == [(1, 1), (1, 1), (1, 2)]
    assert leak.same_file is not None
    assert leak.same_file.examples[0].startswith("row 0: ")
    assert leak.same_file.examples[0].endswith("other_name.png")
    assert (leak.same_prompts, leak.same_pairs) == (None, None)


def test_without_decoding_files_are_hashed_and_look_alikes_not_looked_for(
    tmp_path: Path, leaky: tuple[Path, Path]
) -> None:
    (leak,) = checked(*leaky, evaluation(tmp_path / "eval"), decode=False).facts.leaks
    assert leak.look_alike is None
    assert [one.num_pictures for one in (leak.same_file, leak.same_coco) if one] == [1, 1]


def test_flat_pictures_do_not_look_alike(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "images" / "a.png")
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "eval" / "b.png")
    data = written(tmp_path / "d.json", [row(0, "a.png", "What?", "Red.", "Blue.")])
    (leak,) = checked(data, tmp_path / "images", tmp_path / "eval").facts.leaks
    assert leak.num_pairs == 0
    assert leak.look_alike is None


def test_leaks_into_another_split(tmp_path: Path, leaky: tuple[Path, Path]) -> None:
    path, images = leaky
    rows = [
        row(0, "a.png", "What?", "A cat 0.", "A dog 0."),
        row(1, "look.png", "Where?", "Elsewhere.", "There."),
    ]
    (leak,) = checked(path, images, written(tmp_path / "test.json", rows)).facts.leaks
    assert leak.what.startswith("data set: POVID")
    assert (leak.num_pictures, leak.num_pairs, leak.same_prompts, leak.same_pairs) == (2, 3, 2, 1)


@pytest.mark.parametrize("what", ["instances", "questions"])
def test_leaks_by_names_alone(tmp_path: Path, leaky: tuple[Path, Path], what: str) -> None:
    name = "COCO_val2014_000000000042.jpg"
    against = tmp_path / "names.json"
    if what == "instances":
        against.write_text(json.dumps({"images": [{"id": 42, "file_name": name}], "annotations": []}))
    else:
        against.write_text(json.dumps({"question_id": 1, "image": name, "text": "Cat?", "label": "no"}) + "\n")
    (leak,) = checked(*leaky, against).facts.leaks
    assert leak.same_coco is not None
    assert leak.same_coco.examples == (f"row 1: {name}",)
    assert (leak.num_pairs, leak.same_file, leak.look_alike) == (1, None, None)


def test_an_other_side_of_nothing_is_refused(tmp_path: Path, leaky: tuple[Path, Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text('{"a": 1}')
    for against in (tmp_path / "empty", tmp_path / "x.json", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="accepted: a data set, a folder or zip"):
            checked(*leaky, against)


def test_the_json_has_these_keys(leaky: tuple[Path, Path], tmp_path: Path) -> None:
    told = json.loads(json.dumps(as_json(checked(*leaky, evaluation(tmp_path / "eval")).facts)))
    assert list(told) == [
        "version", "taken", "rows", "reasons", "num_equal", "placeholders", "turns", "pictures", "num_pictures",
        "licenses", "chosen", "rejected", "length_bias", "repeats", "splits", "leaks", "words",
    ]  # fmt: skip
    assert list(told["rows"]) == [
        "num", "num_usable", "num_faulty", "num_left_out", "num_pairs", "num_supervised", "max_bad", "passed",
    ]  # fmt: skip
    assert list(told["leaks"][0]) == [
        "against", "what", "num_pictures", "num_unusable", "num_pairs", "same_file", "same_coco", "look_alike",
        "same_prompts", "same_pairs",
    ]  # fmt: skip
    assert told["version"] == 1


def test_every_table_is_square(leaky: tuple[Path, Path], tmp_path: Path) -> None:
    facts = checked(*leaky, evaluation(tmp_path / "eval")).facts
    tables = list(listings(facts))
    assert len(tables) >= 6
    for table in tables:
        widths = {len(table_row) for table_row in table.rows} | ({len(table.header)} if table.header else set())
        assert len(widths) == 1, table.title
