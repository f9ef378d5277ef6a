"""GroundedBench: forms, and what an oracle, a yes-sayer and a prior that sees nothing get on them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from test_score import entry, run
from user_files import finished
from verisight.data.files import read_json, read_jsonl, write_jsonl
from verisight.evaluate.grounded import KINDS, LEVELS, Grounded, measures, read_form, score
from verisight.evaluate.stats import summarise
from verisight.pocket.grounded import write_form
from verisight.pocket.grounded_scenes import CONTRAST, draw, picture
from verisight.pocket.scenes import CELL_SIZE, GRID, usual
from verisight.types import UserError

NUM = 64


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_form(tmp_path_factory.mktemp("forms") / "a", seed=0, num=NUM)


@pytest.fixture(scope="module")
def rows(form: Path) -> list[dict[str, Any]]:
    return read_form(form)


def caption(truth: dict[str, Any]) -> str:
    told = [f"There is a {one['name']} in the {one['cell']}." for one in truth["objects"]]
    return " ".join([f"The image shows a {truth['place']}.", *told])


def answered(rows: list[dict[str, Any]], say: Any, describe: Any = caption) -> list[dict[str, Any]]:
    return [row | {"answer": describe(row["truth"]) if row["truth"]["form"] == "caption" else say(row)} for row in rows]


def values(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    scored = score(rows)
    return {
        name: one["value"] for name, one in summarise(measures(scored), [r["cluster"] for r in rows], seed=0).items()
    }


def test_an_oracle_gets_everything_right(rows: list[dict[str, Any]]) -> None:
    found = values(answered(rows, lambda row: row["truth"]["label"]))
    right = [name for name in found if name.endswith(("accuracy", "precision", "recall", "f05")) or name == "seeing"]
    assert {name: found[name] for name in right if found[name] != 1.0} == {
        "count/precision": None, "relation/precision": None,  # a truthful caption claims none
    }  # fmt: skip
    assert (found["hallucination_rate"], found["guessing"], found["yes_fraction"]) == (0.0, 0.0, 0.5)


def test_always_yes_is_at_chance_and_sees_nothing(rows: list[dict[str, Any]]) -> None:
    found = values(answered(rows, lambda row: "Yes.", lambda truth: ""))
    for name in ("accuracy", *(f"{kind}/accuracy" for kind in KINDS), "small/accuracy", "object/typical_accuracy"):
        assert found[name] == 0.5
    assert (found["seeing"], found["guessing"], found["pair_accuracy"]) == (0.0, 1.0, 0.0)
    assert (found["recall"], found["precision"], found["empty_fraction"]) == (0.0, None, NUM / len(rows))


def test_a_prior_without_eyes_falls_on_what_is_usual(rows: list[dict[str, Any]]) -> None:
    """It says yes to what is usual in the place, and describes that."""
    place = {row["cluster"]: row["truth"]["place"] for row in rows if row["truth"]["form"] == "caption"}

    def say(row: dict[str, Any]) -> str:
        return "yes" if any(name in row["prompt"] for name in usual(place[row["cluster"]])) else "no"

    def describe(truth: dict[str, Any]) -> str:
        return f"This is a {truth['place']}. " + " ".join(f"There is a {name}." for name in truth["usual"])

    found = values(answered(rows, say, describe))
    assert found["object/typical_yes"] == 1.0
    assert found["object/random_yes"] == 0.0
    assert found["seeing"] == 0.0
    assert found["typical_fraction"] == 1.0
    assert found["scene/precision"] == 1.0
    assert found["hallucination_rate"] > 0.5


def test_descriptions_by_hand() -> None:
    """Scene: dog top left, cat center, park. Told: park, dog top left (both true), bus center (both false), a car.

    precision 3/6, recall: of dog, cat, two places, park: 3/5; F0.5 = 1.25 * 0.3 / (0.25 * 0.5 + 0.6) = 0.5172.
    """
    objects = [{"name": "dog", "cell": "top left"}, {"name": "cat", "cell": "center"}]
    truth = {
        "form": "caption", "kind": "caption", "place": "park", "objects": objects, "usual": ["dog", "bus"],
        "size": "small", "clutter": "few", "contrast": "full", "pair": None, "edited": False, "bias": None,
    }  # fmt: skip
    told = "A park. There is a dog in the top left. There is a bus in the center. A car."
    rows = [{"uid": "1", "cluster": "1", "truth": truth, "answer": told, "truncated": False}]
    found = values(rows)
    assert (found["precision"], found["recall"], found["f05"]) == pytest.approx((0.5, 0.6, 0.375 / 0.725))
    parts = (found["object/precision"], found["position/precision"], found["scene/recall"])
    assert parts == pytest.approx((1 / 3, 1 / 2, 1))
    assert (found["small/recall"], found["normal/recall"], found["accuracy"]) == (pytest.approx(0.6), None, None)
    assert (found["hallucination_rate"], found["typical_fraction"], found["truncated_fraction"]) == (1.0, 0.5, 0.0)


QUESTION = {"form": "yesno", "kind": "object", "size": "small", "clutter": "few", "contrast": "full", "bias": "typical"}


def test_pairs_by_hand() -> None:
    """Four pairs (original, edited): yes/no sees, yes/yes and no/no guess, no/yes is worse; half of a fifth is there.

    pair accuracy 1/4; yes is said to two originals and to two edited pictures: seeing 0; guessing 2/4.
    """
    rows = []
    for at, (first, second) in enumerate([("Yes", "No."), ("yes", "Yes it is"), ("No", "no"), ("no", "yes")]):
        truth = QUESTION | {"label": "yes", "pair": f"{at}", "edited": False}
        rows.append({"uid": f"{at}", "cluster": f"{at}", "truth": truth, "answer": first})
        rows.append(
            rows[-1] | {"uid": f"{at}-removed", "truth": truth | {"label": "no", "edited": True}, "answer": second}
        )
    rows.append(rows[-1] | {"uid": "9-removed", "truth": rows[-1]["truth"] | {"pair": "9"}, "answer": "no"})
    found = values(rows)
    assert (found["pair_accuracy"], found["seeing"], found["guessing"]) == (0.25, 0.0, 0.5)
    assert found["accuracy"] == 0.5, "edited pictures count in pairs alone"


TRICKY = [  # answer, said
    ("Yes.", "yes"), ("no", "no"), ("NO!", "no"), ("There isn't one.", "no"), ("There is a dog.", "yes"), ("", None),
    ("Unclear", None), ("It is not possible to tell", None), ("Yes, but not the one you mean", "yes"), ("Ja", None),
    ("没有", None), ("**No**, there is none", "no"), ("I can't see a dog", "no"), ("Yes\nNo", "yes"), ("Maybe", None),
    ("No, there is a cat.", "no"), ("\u201cYes\u201d", "yes"), ("The answer is yes", "yes"), ("Nothing", None),
    ("None is visible", "no"), ("dog Yes, cat No", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "said"), TRICKY, ids=[str(at) for at in range(len(TRICKY))])
def test_yes_and_no_by_hand(answer: str, said: str | None) -> None:
    truth = QUESTION | {"label": "yes", "pair": None, "edited": False}
    (row,) = score([{"uid": "1", "cluster": "1", "truth": truth, "answer": answer}])
    assert (row["said"], row["correct"]) == (said, said == "yes")


def test_a_form_is_balanced_in_every_cell(rows: list[dict[str, Any]]) -> None:
    questions = [row["truth"] for row in rows if row["truth"]["form"] == "yesno" and not row["truth"]["edited"]]
    keys = ("kind", "bias", *LEVELS)
    cells: dict[tuple[Any, ...], Counter[str]] = {}
    for truth in questions:
        cells.setdefault(tuple(truth[key] for key in keys), Counter()).update([truth["label"]])
    assert {(found["yes"] == found["no"]) for found in cells.values()} == {True}
    captions = Counter(
        tuple(row["truth"][level] for level in LEVELS) for row in rows if row["truth"]["form"] == "caption"
    )
    assert set(captions.values()) == {NUM // 8}
    assert len(captions) == 8
    assert len({row["uid"] for row in rows}) == len(rows)


def test_questions_are_true_of_their_scenes(rows: list[dict[str, Any]]) -> None:
    """Every question's answer is derived again from the caption's facts, by its words."""
    scenes = {row["cluster"]: row["truth"] for row in rows if row["truth"]["form"] == "caption"}
    for row in rows:
        truth, words = row["truth"], row["prompt"]
        if truth["form"] == "caption" or truth["edited"]:
            continue
        names = [one["name"] for one in scenes[row["cluster"]]["objects"]]
        match truth["kind"]:
            case "object":
                asked = words.removeprefix("Is there a").removeprefix("n").removesuffix(" in the image?").strip()
                expected = asked in names
            case "scene":
                expected = words.endswith(f" {scenes[row['cluster']]['place']}?")
            case "count":
                number = next(n for n, word in enumerate(("one", "two", "three"), 1) if f"exactly {word}" in words)
                asked = words.partition(" exactly ")[2].partition(" ")[2].replace("people", "person")
                thing = next(name for name in names if asked.startswith(name[:3]))
                expected = names.count(thing) == number
            case _:
                continue
        assert (truth["label"] == "yes") == expected, words


def test_the_same_seed_gives_the_same_bytes_and_another_one_a_parallel_form(form: Path, tmp_path: Path) -> None:
    again = write_form(tmp_path / "again", seed=0, num=NUM)
    assert read_json(again / "form.json") == read_json(form / "form.json")
    other = write_form(tmp_path / "b", seed=1, num=NUM)
    assert read_json(other / "form.json")["items_sha256"] != read_json(form / "form.json")["items_sha256"]
    mine, theirs = ({row["cluster"] for row in read_form(one)} for one in (form, other))
    assert not mine & theirs


def test_the_items_of_version_1_do_not_change(tmp_path: Path) -> None:
    """Whoever changes what a seed gives has to give it another version."""
    about = read_json(write_form(tmp_path / "golden", seed=7, num=16) / "form.json")
    assert (about["version"], about["items_sha256"][:16]) == ("1", "39f12a84a0517c1b")


def test_an_edited_picture_differs_only_where_the_object_was(form: Path, rows: list[dict[str, Any]]) -> None:
    edited = [row for row in rows if row["truth"]["edited"]]
    assert len(edited) > NUM // 2
    originals = {row["uid"]: row for row in rows}
    for row in edited[:20]:
        before = np.asarray(Image.open(form / "images" / originals[row["truth"]["pair"]]["image"]))
        after = np.asarray(Image.open(form / "images" / row["image"]))
        index = int(row["cluster"])
        name = row["image"].removesuffix(".png").partition("-without-")[2].replace("-", " ")
        changed = {tuple(place) for place in np.argwhere((before != after).any(-1)) // CELL_SIZE}
        cells = {divmod(cell, GRID) for cell in draw(0, index).cells(name)}
        assert changed == cells


def test_faint_and_small_objects_are_that() -> None:
    """Pixels that an object changes: fewer where small; less where faint."""
    from dataclasses import replace

    for index in range(8):
        one = draw(3, index)
        name = one.names[0]
        seen = {
            level: np.abs(
                np.asarray(picture(replace(one, contrast=level)), int)
                - np.asarray(picture(replace(one, contrast=level).without(name)), int)
            ).sum()
            for level in CONTRAST
        }
        assert 0.3 < seen["faint"] / seen["full"] < 0.6
        sizes = {item.size for item in one.scene.placed}
        assert sizes <= (set(range(14, 19)) if one.size == "small" else set(range(25, 33)))
    large = picture(draw(3, 0), scale=4)
    assert large.size == (384, 384)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "form.json").write_text('{"version": "2"}'), "version is '2'; accepted is '1'"),
        (lambda folder: (folder / "items.jsonl").write_text("{}\n"), r"items\.jsonl: is not what was written"),
        (lambda folder: next((folder / "images").iterdir()).unlink(), r"images: is not what was written"),
        (lambda folder: (folder / "items.jsonl").unlink(), r"can't be read; a form is a whole folder"),
        (lambda folder: (folder / "form.json").unlink(), r"form\.json"),
    ],
)
def test_a_changed_form_is_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    folder = write_form(tmp_path / "form", seed=2, num=2)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        Grounded(folder=folder).items()


def test_a_form_replaces_a_form_and_nothing_else(tmp_path: Path) -> None:
    folder = write_form(write_form(tmp_path / "form", seed=2, num=1), seed=3, num=1)
    (folder / "images" / ".DS_Store").write_bytes(b"mac")
    assert {row["cluster"] for row in read_form(folder)} == {"3000000"}
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="thesis: holds something that is no form"):
        write_form(other, seed=0, num=1)
    assert (other / "thesis.txt").read_text() == "years"


def test_the_pocket_model_is_measured_and_its_answers_score_again(tmp_path: Path) -> None:
    finished("pocket", "grounded", tmp_path / "form", "--num", 16, "--seed", 5)
    told = finished("eval", "pocket", tmp_path / "form", "--out", tmp_path / "run", "--quiet", "--max-bad", 1).out
    assert "grounded (v1, " in told
    assert "*f05" in told
    (tmp_path / "bench.yaml").write_text("evaluate: [{kind: grounded, form: form}]\n")
    assert (
        finished("eval", "pocket", tmp_path / "bench.yaml", "--out", tmp_path / "run", "--quiet", "--max-bad", 1).out
        == told
    )
    measured = read_json(tmp_path / "run" / "evaluate" / "summary.json")["grounded"]["metrics"]
    assert measured["scene/recall"]["value"] > 0.7
    assert measured["object/typical_yes"]["value"] > measured["object/random_yes"]["value"]
    rows = [
        {"uid": row["uid"], "answer": row["answer"]} for row in read_jsonl(tmp_path / "run/evaluate/grounded.jsonl")
    ]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    words = ("--answers", tmp_path / "answers.jsonl", "--annotations", tmp_path / "form" / "form.json")
    run("grounded", *words, "--out", tmp_path / "again", "--max-bad", 1)
    again = entry(tmp_path / "again", "grounded")["metrics"]
    assert again | {"truncated_fraction": 0} == measured | {"truncated_fraction": 0}
    assert json.dumps(again["f05"]) == json.dumps(measured["f05"])
