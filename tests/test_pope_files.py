"""POPE's released files, RePOPE's labels, and five harnesses' readings of the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from test_score import entry, run, write
from user_files import finished
from verisight.data.files import read_jsonl
from verisight.evaluate.pope import Question
from verisight.evaluate.pope_files import read_questions, write_questions
from verisight.evaluate.pope_parsers import PARSERS
from verisight.pocket.datasets import write_split
from verisight.types import UserError

# answer -> official (LLaVA's is the same), corrected, lmms-eval, VLMEvalKit, OPERA; None: can't tell, which is wrong
ANSWERS: dict[str, tuple[str | None, ...]] = {
    "Yes": ("yes", "yes", "yes", "yes", "yes"),
    "No": ("no", "no", "no", "no", "no"),
    "Yes.": ("yes", "yes", None, "yes", "yes"),
    "No.": ("no", "no", None, "no", "no"),
    "There isn't a dog.": ("yes", "no", None, None, "no"),
    "NO": ("yes", "no", "no", "no", "no"),
    "No\n": ("yes", "no", "no", "no", "yes"),
    "The image does not show a dog.": ("no", "no", None, None, "no"),
    "Yes, the dog is not on the mat": ("no", "yes", None, "yes", "no"),
    "": ("yes", None, None, None, "yes"),
    " yes ": ("yes", "yes", "yes", "yes", "yes"),
    "no, there is none": ("no", "no", None, "no", "no"),
    "Yes or no? No": ("no", "yes", None, None, "no"),
    "I can't see one": ("yes", "no", None, None, "no"),
    "It cannot be seen": ("yes", "no", None, None, "yes"),
    "It is unclear": ("yes", None, None, None, "yes"),
    "**No**": ("yes", "no", None, None, "yes"),
    "Nope": ("yes", None, None, None, "yes"),
    "A dog is there. No cat": ("yes", "yes", None, "no", "no"),
    "Ja": ("yes", None, None, None, "yes"),
    "There is a dog": ("yes", "yes", None, None, "yes"),
    "yes/no": ("yes", "yes", None, None, "yes"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_parsers_by_hand(answer: str) -> None:
    """official: the words No, no, not in front of the first stop, parted by single blanks; all else is yes.

    So "NO", "No" with a line break, "isn't", "cannot" and nothing at all are yes, and a yes with a "not" in it is no.
    lmms-eval takes the bare word alone; VLMEvalKit a yes or a no among the words (stars stay, "yes/no" is both);
    OPERA reads all sentences and knows n't.
    """
    assert tuple(parse(answer) for parse in PARSERS.values()) == ANSWERS[answer]
    assert list(PARSERS) == ["official", "corrected", "lmms-eval", "vlmevalkit", "opera"]


def question(at: int, label: str = "yes", image: str = "1.jpg", name: str = "dog", **changes: Any) -> dict[str, Any]:
    text = f"Is there {'an' if name[0] in 'aeiou' else 'a'} {name} in the image?"
    return {"question_id": at, "image": image, "text": text, "label": label} | changes


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Four random, two adversarial questions about two pictures."""
    names = ["dog", "apple", "cat", "bus"]
    random = [question(at + 1, ("yes", "no")[at % 2], f"{at // 2}.jpg", name) for at, name in enumerate(names)]
    adversarial = [question(1, "yes", "0.jpg", "dog"), question(2, "no", "0.jpg", "tie")]
    return [
        write(tmp_path / "coco_pope_random.jsonl", random),
        write(tmp_path / "coco_pope_adversarial.jsonl", adversarial),
    ]


def test_questions_by_split_and_id(files: list[Path]) -> None:
    asked = read_questions(files)
    assert list(asked.truths) == ["random/1", "random/2", "random/3", "random/4", "adversarial/1", "adversarial/2"]
    assert asked.truths["random/2"] == {
        "cluster": "0.jpg",
        "truth": {
            "split": "random", "label": "no", "object": "apple", "image": "0.jpg",
            "question": "Is there an apple in the image?",
        },
    }  # fmt: skip
    assert asked.version.startswith("POPE of an unknown version, 6 questions, ")


@pytest.mark.parametrize(
    ("num", "typos", "version"),
    [
        (2910, 144, "POPE e3e3926 (August 2023)"),
        (3000, 0, "POPE 109985c and later (November 2023)"),
        (3000, 144, "POPE of an unknown version, 3000 questions, "),
        (2910, 0, "POPE of an unknown version, 2910 questions, "),
        (2910, 143, "POPE of an unknown version, 2910 questions, "),
        (2909, 144, "POPE of an unknown version, 2909 questions, "),
    ],
)
def test_the_two_releases_are_told_by_what_they_hold(num: int, typos: int, version: str, tmp_path: Path) -> None:
    """The released files begin with a snowboard; without it the same counts are another set's, such as our own."""
    rows = [question(0, image="COCO_val2014_000000310196.jpg", name="snowboard")]
    rows += [question(at, image=f"{at}.jpg", name="apple") for at in range(1, num)]
    for row in rows[1 : 1 + typos]:
        row["text"] = row["text"].replace("image", "imange")
    asked = read_questions([write(tmp_path / "coco_pope_random.jsonl", rows)])
    assert asked.version.startswith(version)
    assert asked.truths["random/1"]["truth"]["object"] == "apple"
    other = read_questions([write(tmp_path / "other_random.jsonl", [rows[0] | {"label": "no"}, *rows[1:]])])
    assert other.version.startswith(f"POPE of an unknown version, {num} questions, ")
    assert other.version != asked.version


def test_repope_changes_labels_and_leaves_ambiguous_questions_out(files: list[Path], tmp_path: Path) -> None:
    """Its ids are its own: dog stays yes, apple becomes yes, cat is ambiguous, bus stays; adversarial isn't covered."""
    rows = [question(7, "yes", "0.jpg", "dog"), question(8, "yes", "0.jpg", "apple"), question(9, "no", "1.jpg", "bus")]
    relabels = write(tmp_path / "coco_repope_random.jsonl", rows)
    asked = read_questions(files, [relabels])
    labels = {uid: one["truth"]["label"] for uid, one in asked.truths.items()}
    assert labels == {
        "random/1": "yes", "random/2": "yes", "random/4": "no", "adversarial/1": "yes", "adversarial/2": "no",
    }  # fmt: skip
    assert asked.version.endswith("RePOPE labels (1 changed, 1 ambiguous ones left out)")
    with pytest.raises(UserError, match="holds none of the questions"):
        read_questions(files[:1], [write(tmp_path / "repope_random.jsonl", [question(1, image="99.jpg")])])


GOLD = ["yes", "no", "yes", "no", "yes", "no"]


def forms(files: list[Path], folder: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """The same answers ("yes" to everything) as different tools save them: answer files, further question files."""
    official = [
        write(folder / f"answers_{split}.jsonl", [{"question": text, "answer": "yes"} for text in texts])
        for split, texts in (
            ("random", ["Is there a dog in the image?", "Is there an apple in the image?",
                        "Is there a cat in the image?", "Is there a bus in the image?"]),
            ("adversarial", ["Is there a dog in the image?", "Is there a tie in the image?"]),
        )
    ]  # fmt: skip
    rows = [row for file in files[::-1] for row in read_jsonl(file)]
    suffix = "\nAnswer the question using a single word or phrase."
    asked = [
        {"question_id": 50 + at, "category": split, "image": row["image"], "text": row["text"] + suffix}
        for at, (row, split) in enumerate(zip(rows, ["adversarial"] * 2 + ["random"] * 4, strict=True))
    ]
    llava = write(folder / "llava_pope_test.jsonl", asked)
    said = write(folder / "llava.jsonl", [{"question_id": one["question_id"], "text": "Yes"} for one in asked])
    rows = [("random", at) for at in range(1, 5)] + [("adversarial", at) for at in range(1, 3)]
    samples = [
        {
            "doc_id": at, "filtered_resps": "Yes", "input": "x",
            "pope_accuracy": {"question_id": str(number), "category": split, "score": 1.0},
        }
        for at, (split, number) in enumerate(rows)
    ]  # fmt: skip
    ours = [{"uid": f"{split}/{number}", "answer": "Yes"} for split, number in rows]
    return {
        "official": (official, []),
        "llava": ([said], [llava]),
        "lmms-eval": ([write(folder / "samples.jsonl", samples)], []),
        "ours": ([write(folder / "pope.jsonl", ours)], []),
    }


@pytest.mark.parametrize("form", ["official", "llava", "lmms-eval", "ours"])
def test_every_form_of_answers_is_scored_alike(form: str, files: list[Path], tmp_path: Path) -> None:
    """Always yes: accuracy 1/2, precision 1/2, recall 1, F1 2/3 in each split, and pooled."""
    answers, more = forms(files, tmp_path)[form]
    words: list[object] = ["pope", "--out", tmp_path / "out"]
    words += [word for file in answers for word in ("--answers", file)]
    words += [word for file in files + more for word in ("--annotations", file)]
    run(*words)
    found = entry(tmp_path / "out", "pope")
    metrics = {name: one["value"] for name, one in found["metrics"].items()}
    for split in ("random/", "adversarial/", "", "pooled/"):
        assert metrics[f"{split}accuracy"] == pytest.approx(1 / 2)
        assert metrics[f"{split}f1"] == pytest.approx(2 / 3)
    assert metrics["random/recall"] == 1.0
    assert metrics["popular/accuracy"] is None
    assert found["counts"]["missing"] == 0


def test_means_of_splits_and_pooled_questions_differ(files: list[Path], tmp_path: Path) -> None:
    """Always yes on four random questions (1/2; F1 2/3), both adversarial right: means 3/4, 5/6; pooled 4/6, 3/4."""
    said = {f"random/{at}": "yes" for at in range(1, 5)} | {"adversarial/1": "yes", "adversarial/2": "no"}
    words = [word for file in files for word in ("--annotations", file)]
    run("pope", "--answers", write(tmp_path / "a.json", said), *words, "--out", tmp_path / "out")
    metrics = {name: one["value"] for name, one in entry(tmp_path / "out", "pope")["metrics"].items()}
    assert (metrics["accuracy"], metrics["f1"]) == pytest.approx((3 / 4, 5 / 6))
    assert (metrics["pooled/accuracy"], metrics["pooled/f1"]) == pytest.approx((4 / 6, 6 / 8))


def test_a_category_that_is_no_text_is_no_split(files: list[Path], tmp_path: Path) -> None:
    rows = [{"category": ["random"], "answer": "yes"}, {"uid": "random/1", "answer": "yes", "category": {}}]
    answers = write(tmp_path / "a.json", rows)
    run("pope", "--answers", answers, "--annotations", files[0], "--out", tmp_path / "out")
    counts = entry(tmp_path / "out", "pope")["counts"]
    assert (counts["no_id"], counts["missing"]) == (1, 3)


def test_answers_in_order_must_be_to_these_questions(files: list[Path], tmp_path: Path) -> None:
    rows = [{"question": "Is there a zebra in the image?", "answer": "yes"}]
    answers = write(tmp_path / "answers_random.jsonl", rows)
    with pytest.raises(UserError, match="none of 1 rows can be used for pope"):
        run("pope", "--answers", answers, "--annotations", files[0], "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("coco_pope_random.jsonl", [question(1, "maybe")], r"row 0\.label is 'maybe'; accepted are yes, no"),
        ("coco_pope_random.jsonl", [question(1), question(1)], r"row 1\.question_id is 1 a second time in random"),
        ("coco_pope_random.jsonl", [question(1, image=3)], r"row 0\.image is 3; accepted is a text"),
        ("coco_pope_random.jsonl", [question(1, text="")], r"row 0\.text is ''"),
        ("questions.jsonl", [question(1)], r"row 0: neither its `category` nor the file's name says which split"),
        ("pope_random.jsonl", [{"question_id": 1, "image": "x", "text": "x"}], r"no question has a label"),
    ],
)
def test_bad_question_files_are_refused(name: str, rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_questions([write(tmp_path / name, rows)])


@pytest.mark.parametrize(
    ("compat", "text"),
    [(False, "Is there an apple in the image?"), (True, "Is there an apple in the imange?")],
)
def test_our_questions_are_written_in_the_released_form(compat: bool, text: str, tmp_path: Path) -> None:
    path = tmp_path / "coco_pope_popular.json"
    write_questions(path, [Question(5, "apple", "no"), Question(5, "dog", "yes")], {5: "5.jpg"}, compat=compat)
    asked = read_questions([path])
    assert [one["truth"]["question"] for one in asked.truths.values()] == [text, "Is there a dog in the image?"]
    assert asked.truths["popular/1"]["truth"]["object"] == "apple"


def test_pope_is_built_from_coco_files_and_scored(tmp_path: Path) -> None:
    """The pocket world's own files: three balanced splits whose questions a truthful model answers rightly."""
    folder = write_split(tmp_path, "test", num=30)
    files = ("--instances", folder / "instances.json", "--captions", folder / "captions.json")
    told = finished("pope", tmp_path / "pope", *files, "--num-images", 10, "--per-image", 2, "--seed", 3).out
    assert told.count("40 questions") == 3
    built = sorted((tmp_path / "pope").iterdir())
    asked = read_questions(built)
    answers = [{"uid": uid, "answer": one["truth"]["label"]} for uid, one in asked.truths.items()]
    words = [word for file in built for word in ("--annotations", file)]
    run("pope", "--answers", write(tmp_path / "a.jsonl", answers), *words, "--out", tmp_path / "out")
    metrics = entry(tmp_path / "out", "pope")["metrics"]
    assert [metrics[f"{split}accuracy"]["value"] for split in ("random/", "popular/", "adversarial/", "")] == [1.0] * 4
    assert metrics["random/yes_fraction"]["value"] == 0.5
