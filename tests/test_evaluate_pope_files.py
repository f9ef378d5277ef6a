"""POPE's files: what a question is about, RePOPE's labels by content, and what is written and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verisight.evaluate.objects import CATEGORIES
from verisight.evaluate.pope import Question
from verisight.evaluate.pope_files import read_questions, write_questions
from verisight.types import UserError

SUFFIX = "\nAnswer the question using a single word or phrase."


def save(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(at: int, image: str, name: str, label: str, text: str = "Is there a {} in the image?") -> dict[str, Any]:
    return {"question_id": at, "image": image, "text": text.format(name), "label": label}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Is there a dog in the image?", "dog"),
        ("Is there an apple in the imange?", "apple"),
        ("Is there a hair drier in the image?", "hair drier"),
        (f"Is there an oven in the image?{SUFFIX}", "oven"),
        (f" Is there an oven in the imange?{SUFFIX} ", "oven"),
        ("is there a tv in the image?", "tv"),
        ("Is there a cat in the image in the image?", "cat in the image"),
        ("Is there dog in the image?", ""),
        ("Is there a dog in the picture?", ""),
        ("Is there a  in the image?", ""),
    ],
)
def test_what_a_question_asks_about(text: str, name: str, tmp_path: Path) -> None:
    asked = read_questions([save(tmp_path / "coco_pope_popular.json", [row(3, "a/7.jpg", "", "no", text)])])
    assert asked.truths == {
        "popular/3": {
            "cluster": "a/7.jpg",
            "truth": {"split": "popular", "label": "no", "object": name, "image": "a/7.jpg", "question": text},
        }
    }


def test_labels_are_told_by_picture_and_object(tmp_path: Path) -> None:
    """Five random questions. RePOPE, in another order, with other ids, folders and without the typo, holds three.

    1.jpg apple: yes, stays. 1.jpg dog: no, becomes yes. 2.jpg dog: not held, ambiguous. 2.jpg cat: yes, becomes no.
    2.jpg bus: not held (the row about 3.jpg is another question's). So 2 changed, 2 left out, of 5.
    """
    asked = [
        row(1, "1.jpg", "apple", "yes", "Is there an {} in the imange?"),
        row(2, "1.jpg", "dog", "no"),
        row(3, "2.jpg", "dog", "yes"),
        row(4, "2.jpg", "cat", "yes"),
        row(5, "2.jpg", "bus", "no"),
    ]
    relabels = [
        row(1, "val2014/2.jpg", "cat", "no"),
        row(2, "val2014/3.jpg", "bus", "no"),
        row(3, "val2014/1.jpg", "Dog", "yes"),
        row(4, "val2014/1.jpg", "apple", "yes", "Is there an {} in the image?"),
    ]
    files = [save(tmp_path / "coco_pope_random.json", asked)]
    found = read_questions(files, [save(tmp_path / "coco_repope_random.json", relabels)])
    labels = {uid: one["truth"]["label"] for uid, one in found.truths.items()}
    assert labels == {"random/1": "yes", "random/2": "yes", "random/4": "no"}
    assert "2 changed, 2 ambiguous ones left out" in found.version
    before = read_questions(files).truths["random/2"]
    assert found.truths["random/2"] == before | {"truth": before["truth"] | {"label": "yes"}}


def test_labels_of_one_split_leave_the_others_alone(tmp_path: Path) -> None:
    """The same question in two splits: its new label counts where it was given, and no other split loses any."""
    files = [
        save(tmp_path / f"coco_pope_{split}.json", [row(1, "1.jpg", "dog", "yes"), row(2, "1.jpg", "cat", "no")])
        for split in ("random", "popular")
    ]
    found = read_questions(files, [save(tmp_path / "coco_repope_popular.json", [row(9, "1.jpg", "dog", "no")])])
    labels = {uid: one["truth"]["label"] for uid, one in found.truths.items()}
    assert labels == {"random/1": "yes", "random/2": "no", "popular/1": "no"}


def test_the_rows_name_their_split_before_the_file_does(tmp_path: Path) -> None:
    rows = [row(1, "1.jpg", "dog", "yes") | {"category": split} for split in ("adversarial", "popular", "other")]
    found = read_questions([save(tmp_path / "coco_pope_random.json", rows)])
    assert list(found.truths) == ["adversarial/1", "popular/1", "random/1"]


def test_llava_ids_run_over_all_splits(tmp_path: Path) -> None:
    """LLaVA's file begins with the adversarial questions and counts on; the labels are in the released files."""
    asked = {"random": ["dog", "cat"], "adversarial": ["dog", "cup"]}
    files = [
        save(tmp_path / f"coco_pope_{split}.json", [row(at, "1.jpg", one, "yes") for at, one in enumerate(names, 1)])
        for split, names in asked.items()
    ]
    order = [("adversarial", one) for one in asked["adversarial"]] + [("random", one) for one in asked["random"]]
    rows = [
        {"question_id": at, "image": "1.jpg", "text": f"Is there a {one} in the image?{SUFFIX}", "category": split}
        for at, (split, one) in enumerate(order)
    ]
    found = read_questions([*files, save(tmp_path / "llava_pope_test.jsonl", rows)])
    assert found.places == {"0": "adversarial/1", "1": "adversarial/2", "2": "random/1", "3": "random/2"}
    assert len(found.truths) == 4


QUESTIONS = st.lists(
    st.builds(Question, st.integers(1, 3), st.sampled_from(CATEGORIES), st.sampled_from(["yes", "no"])), min_size=1
)


@settings(deadline=None, max_examples=40)
@given(questions=QUESTIONS, compat=st.booleans())
def test_questions_come_back_as_they_were_written(
    questions: list[Question], compat: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The official fault touches only objects that begin with a vowel, and both forms ask about the same object."""
    path = tmp_path_factory.mktemp("asked") / "coco_pope_random.json"
    write_questions(path, questions, {at: f"{at}.jpg" for at in range(1, 4)}, compat=compat)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(one) for one in rows] == [["question_id", "image", "text", "label"]] * len(questions)
    assert [one["question_id"] for one in rows] == list(range(1, len(questions) + 1))
    for one, asked in zip(rows, questions, strict=True):
        assert ("imange" in one["text"]) == (compat and asked.object[0] in "aeiou")
    found = [one["truth"] for one in read_questions([path]).truths.values()]
    read = [Question(int(one["image"].removesuffix(".jpg")), one["object"], one["label"]) for one in found]
    assert read == questions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "Yes"}, r"coco_pope_random\.json: row 1\.label is 'Yes'; accepted are yes, no"),
        ({"label": True}, r"row 1\.label is True; accepted are yes, no"),
        ({"question_id": 1}, r"row 1\.question_id is 1 a second time in random"),
        ({"question_id": None}, r"row 1\.question_id is missing"),
        ({"image": ""}, r"row 1\.image is ''"),
        ({"text": ["x"]}, r"row 1\.text is \['x'\]"),
    ],
)
def test_rows_that_are_no_questions_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [row(1, "1.jpg", "dog", "yes"), row(2, "1.jpg", "cat", "no") | change]
    path = save(tmp_path / "coco_pope_random.json", rows)
    with pytest.raises(UserError, match=message):
        read_questions([path])


def test_llava_ids_follow_the_question_not_the_place(tmp_path: Path) -> None:
    """LLaVA's file lacks questions that the later release has: beside its labels every id behind one would slip."""
    labels = [row(at, "1.jpg", one, "yes") for at, one in enumerate(("dog", "cat", "bus"), 1)]
    rows = [row(at, "1.jpg", one, "", "Is there a {} in the imange?") | {"category": "random"}
            for at, one in enumerate(("dog", "bus", "tie"))]  # fmt: skip
    rows = [{key: value for key, value in one.items() if key != "label"} for one in rows]
    files = [save(tmp_path / "coco_pope_random.json", labels), save(tmp_path / "llava_pope_test.jsonl", rows)]
    assert read_questions(files).places == {"0": "random/1", "1": "random/3"}


def test_labels_for_other_questions_are_told(tmp_path: Path) -> None:
    """Of three new labels one is for a question asked; the two others tell that the files don't belong together."""
    files = [save(tmp_path / "coco_pope_random.json", [row(1, "1.jpg", "dog", "yes"), row(2, "1.jpg", "cat", "no")])]
    relabels = [row(1, "1.jpg", "dog", "yes"), row(2, "2.jpg", "dog", "no"), row(3, "2.jpg", "cat", "no")]
    found = read_questions(files, [save(tmp_path / "coco_repope_random.json", relabels)])
    assert "(0 changed, 1 ambiguous ones left out, 2 for questions that are not here)" in found.version
    twice = [*relabels, row(4, "1.jpg", "dog", "no")]
    with pytest.raises(UserError, match=r"repope_random\.json: row 3\.label is 'no', but another row says otherwise"):
        read_questions(files, [save(tmp_path / "coco_repope_random.json", twice)])


def test_pictures_without_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out\.json: image 5 has no file name"):
        write_questions(tmp_path / "out.json", [Question(5, "dog", "yes")], {})
    assert not (tmp_path / "out.json").exists()


def test_a_release_is_named_by_all_its_splits(tmp_path: Path) -> None:
    """The random split of August 2023 beside a popular one that lost questions: 2,910 of 144 typos, 1 of 44."""
    first = row(1, "COCO_val2014_000000310196.jpg", "snowboard", "yes")
    typos = [row(at, f"{at}.jpg", "apple", "no", "Is there an {} in the imange?") for at in range(2, 146)]
    rest = [row(at, f"{at}.jpg", "dog", "no") for at in range(146, 2911)]
    random = save(tmp_path / "coco_pope_random.json", [first, *typos, *rest])
    assert read_questions([random]).version == "POPE e3e3926 (August 2023)"
    popular = save(tmp_path / "coco_pope_popular.json", [first, *typos[:44]])
    assert "unknown version, 2955 questions" in read_questions([random, popular]).version
