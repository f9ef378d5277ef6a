"""GQA: three protocols on answers judged by hand, the splits, and files that can't be used."""

from __future__ import annotations

import json

import pytest

from verisight.evaluate.gqa import PROTOCOLS, measures, read_truths, score
from verisight.evaluate.stats import summarise
from verisight.types import UserError

ITEMS = [  # answer, right answer, structural, semantic, correct under official, llava, corrected
    ("yes", "yes", "verify", "obj", 1, 1, 1),
    ("Yes", "yes", "verify", "obj", 0, 1, 1),
    ("Yes.", "yes", "verify", "obj", 0, 1, 1),
    ("yes..", "yes", "verify", "obj", 0, 1, 1),
    ("Yes. ", "yes", "verify", "obj", 0, 0, 1),
    (" no", "no", "verify", "attr", 0, 0, 1),
    ("**no**", "no", "verify", "attr", 0, 0, 1),
    ("no!", "no", "verify", "rel", 0, 0, 1),
    ("", "no", "logical", "obj", 0, 0, 0),
    ("No, it is not.", "no", "logical", "obj", 0, 0, 0),
    ("...", "no", "logical", "obj", 0, 0, 0),
    ("dog", "dog", "query", "obj", 1, 1, 1),
    ("a dog", "dog", "query", "obj", 0, 0, 1),
    ("The dog.", "dog", "query", "obj", 0, 0, 1),
    ("dogs", "dog", "query", "obj", 0, 0, 0),
    ("DOG", "dog", "query", "cat", 0, 1, 1),
    ("perro", "dog", "query", "cat", 0, 0, 0),
    ("\uff44\uff4f\uff47", "dog", "query", "cat", 0, 0, 1),
    ("light  blue", "light blue", "query", "attr", 0, 0, 1),
    ("light-blue", "light blue", "query", "attr", 0, 0, 0),
    ("left", "left", "choose", "rel", 1, 1, 1),
    ("on the left.", "left", "choose", "rel", 0, 0, 0),
    ("color", "color", "compare", "attr", 1, 1, 1),
    ("Material\n", "material", "compare", "attr", 0, 0, 1),
    ("indoors", "indoors", "query", "global", 1, 1, 1),
]
COLUMN = {"official": 4, "llava": 5, "corrected": 6}


def row(answer, gold, structural="query", semantic="obj", *, balanced=True, uid="x"):
    truth = {"answer": gold, "structural": structural, "semantic": semantic, "balanced": balanced}
    return {"uid": uid, "cluster": f"image{len(answer)}", "truth": truth, "answer": answer}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("item", ITEMS, ids=[repr(item[0]) for item in ITEMS])
def test_an_answer_by_hand(item, protocol):
    """Official compares as it stands; llava drops dots at the very end and case; corrected blanks and marks too."""
    (scored,) = score([row(*item[:4])], protocol=protocol)
    assert scored["correct"] == bool(item[COLUMN[protocol]])
    assert scored["empty"] == (item[0] == "")


@pytest.mark.parametrize(
    ("protocol", "right", "binary", "opened"), [("official", 5, 3, 2), ("llava", 9, 6, 3), ("corrected", 18, 11, 7)]
)
def test_headline_and_splits_by_hand(protocol, right, binary, opened):
    """25 balanced questions, 15 binary (8 verify, 3 logical, 2 choose, 2 compare) and 10 query.

    Official: yes, dog, left, color, indoors. llava adds Yes, "Yes." and "yes..", and DOG. Corrected: all 8 verify,
    left, color, Material; dog, a dog, The dog, DOG, full-width dog, light  blue, indoors. A 26th question isn't
    balanced and counts nowhere.
    """
    rows = [row(*item[:4], uid=str(at)) for at, item in enumerate(ITEMS)]
    scored = score([*rows, row("cat", "cat", balanced=False, uid="25")], protocol=protocol)
    found = summarise(measures(scored), [each["cluster"] for each in scored], seed=0)
    assert found["accuracy"]["value"] == pytest.approx(right / 25)
    assert found["accuracy"]["num"] == 25
    assert found["binary/accuracy"]["value"] == pytest.approx(binary / 15)
    assert found["open/accuracy"]["value"] == pytest.approx(opened / 10)
    assert (found["binary/accuracy"]["num"], found["open/accuracy"]["num"]) == (15, 10)
    verify = {"official": 1, "llava": 4, "corrected": 8}[protocol]
    assert found["structural/verify"]["value"] == pytest.approx(verify / 8)
    assert found["structural/logical"]["value"] == 0
    assert found["structural/query"] == found["open/accuracy"]
    assert found["semantic/category"]["value"] == pytest.approx(
        {"official": 0, "llava": 1, "corrected": 2}[protocol] / 3
    )
    assert found["semantic/scene"]["value"] == 1
    assert found["empty_fraction"]["value"] == pytest.approx(1 / 25)
    assert found["length_words"]["value"] == pytest.approx((19 + 2 + 2 + 2 + 3 + 4) / 25)


def test_llava_drops_dots_at_the_end_alone_and_nothing_is_never_right():
    assert [score([row(".yes", "yes")], protocol=protocol)[0]["correct"] for protocol in PROTOCOLS] == [
        False,
        False,
        True,
    ]
    assert not score([row("", "--")], protocol="corrected")[0]["correct"]


def test_a_type_nobody_asked_about_is_undefined():
    found = measures(score([row("dog", "dog")]))
    assert found["structural/choose"].num_items == 0
    assert summarise(found, ["a"], seed=0)["structural/choose"]["value"] is None
    assert {measure.better for name, measure in found.items() if "/" in name} == {"higher"}


def test_only_known_protocols():
    with pytest.raises(UserError, match="protocol is 'lmms'; accepted are official, llava, corrected"):
        score([], protocol="lmms")


GOOD = {
    "question": "Is it red?",
    "answer": "yes",
    "imageId": "n161313",
    "isBalanced": True,
    "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
}


def write(folder, value):
    path = folder / "questions.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_read_truths(tmp_path):
    assert read_truths(write(tmp_path, {"201307251": GOOD, "2": GOOD | {"isBalanced": False}})) == {
        uid: {
            "cluster": "n161313",
            "truth": {
                "question": "Is it red?",
                "answer": "yes",
                "image": "n161313.jpg",
                "balanced": uid != "2",
                "structural": "verify",
                "semantic": "attr",
            },
        }
        for uid in ("201307251", "2")
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not valid JSON"),
        ([GOOD], "a GQA questions file is an object"),
        ({}, "holds {}"),
        ({"1": "yes"}, "1 is 'yes'; accepted is an object"),
        ({"1": GOOD | {"answer": None}}, r"1\.answer is missing"),
        ({"1": GOOD | {"imageId": 3}}, r"1\.imageId is 3; accepted is a text"),
        ({"1": GOOD | {"isBalanced": "true"}}, r"1\.isBalanced is 'true'; accepted is true or false"),
        ({"1": GOOD | {"types": None}}, r"1\.types\.structural is missing; accepted are query, verify"),
        ({"1": GOOD | {"types": {"structural": "query", "semantic": "object"}}}, r"types\.semantic is 'object'"),
        (f'{{"1": {json.dumps(GOOD)}, "1": {json.dumps(GOOD)}}}', "'1' is there twice"),
    ],
)
def test_bad_truths(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, value))
