"""TextVQA: both processors and the soft accuracy on answers whose value is derived by hand."""

from __future__ import annotations

import json

import pytest

from verisight.evaluate.stats import summarise
from verisight.evaluate.textvqa import (
    measures,
    normalise_corrected,
    normalise_official,
    prompt,
    read_tokens,
    read_truths,
    score,
    soft_accuracy,
)
from verisight.types import UserError

OTHERS = [f"other{at}" for at in range(10)]


def people(answer, num=10):
    return [answer] * num + OTHERS[num:]


ITEMS = [  # answer, people, official, corrected
    ("Stop.", people("stop"), 1, 1),
    ("the stop", people("stop"), 1, 1),
    ("stop\n", people("stop"), 1, 1),
    ("nokia", people("nokia", 4), 1, 1),
    ("nokia", people("nokia", 3), 0.9, 0.9),
    ("nokia", people("nokia", 2), 0.6, 0.6),
    ("nokia", people("nokia", 1), 0.3, 0.3),
    ("nokia", people("nokia", 0), 0, 0),
    ("", people("a"), 1, 0),
    ("A", people("a"), 1, 1),
    ("A", people("the", 1), 0.3, 0),
    ("red,blue", people("red blue"), 0, 1),
    ("8, 7", people("8 7"), 1, 1),
    ("1,000", people("1000"), 1, 1),
    ("12.", people("12"), 1, 1),
    ("3.5", people("3.5", 5), 1, 1),
    ("two", people("2"), 1, 1),
    ("none", [*people("none", 3)[:1], "0", "zero", *OTHERS[3:]], 0.9, 0.9),
    ("hes", people("he's"), 0, 1),
    ("don't", people("dont"), 1, 1),
    ("somebodyd", people("somebody'd"), 1, 1),
    ("john\u2019s", people("john's"), 0, 1),
    ("\uff11\uff12", people("12"), 0, 1),
    ("x-ray -z", people("x ray z"), 0, 1),
    ("coca-cola", people("coca cola"), 1, 1),
    ("**stop**", people("stop"), 0, 1),
    ("Auf dem Schild steht stop", people("stop"), 0, 0),
    ("stop" + "." * 33, people("stop"), 0, 1),
]


def rows():
    return [
        {"uid": str(at), "cluster": f"image{at // 2}", "truth": {"answers": answers}, "answer": answer}
        for at, (answer, answers, _, _) in enumerate(ITEMS)
    ]


@pytest.mark.parametrize(("at", "protocol"), [(at, p) for at in range(len(ITEMS)) for p in ("official", "corrected")])
def test_an_answers_score_by_hand(at, protocol):
    """Leave-one-out of k same answers: k (k-1)/3 + (10-k) k/3, over 10, each third capped at 1: .3, .6, .9, 1.

    Official: "" and "a" are both empty once the article is gone (1), so are "A" and one person's "the" (0.3);
    a comma joins ("redblue"); "hes" -> "he's" but "he's" -> "he 's"; curly quotes and full-width digits differ;
    in "x-ray -z" the second dash touches a blank, so both go: "xray z"; stars aren't marks; of 33 dots one stays.
    None, 0 and zero are the same answer, given by three: 0.9.
    """
    answer, answers, official, corrected = ITEMS[at]
    (scored,) = score([{"uid": "x", "truth": {"answers": answers}, "answer": answer}], protocol=protocol)
    assert scored["score"] == pytest.approx(official if protocol == "official" else corrected)
    assert scored["empty"] == (answer == "" or (answer == "A" and protocol == "official"))


@pytest.mark.parametrize(("protocol", "total"), [("official", 17.0), ("corrected", 22.7)])
def test_headline_by_hand(protocol, total):
    """Official: 14 ones + 0.9 + 0.6 + 0.3 (the nokias) + 0.3 ("A", the) + 0.9 (none) = 17 of 28.

    Corrected: "" and "A" (the) fall to 0 and seven zeros rise to 1: 17 - 1 - 0.3 + 7 = 22.7. Words: 23 answers
    have one, three have two, one has five and one none: 23 + 6 + 5 = 34.
    """
    scored = score(rows(), protocol=protocol)
    found = summarise(measures(scored), [row["cluster"] for row in scored], seed=0)
    assert found["accuracy"]["value"] == pytest.approx(total / 28)
    assert found["accuracy"]["num"] == 28
    assert found["accuracy"]["low"] < total / 28 < found["accuracy"]["high"]
    assert found["empty_fraction"]["value"] == pytest.approx((3 if protocol == "official" else 1) / 28)
    assert found["length_words"]["value"] == pytest.approx(34 / 28)


def test_an_empty_answer_equals_empty_people_under_official_alone():
    row = {"uid": "x", "truth": {"answers": people("?!")}, "answer": ""}
    assert [score([row], protocol=protocol)[0]["score"] for protocol in ("official", "corrected")] == [1, 0]


def test_soft_accuracy_of_every_count():
    assert [soft_accuracy(num) for num in range(11)] == pytest.approx([0, 0.3, 0.6, 0.9] + [1] * 7)


@pytest.mark.parametrize(
    ("answer", "official", "corrected"),
    [
        ("(a) Pepsi [zero]", "pepsi 0", "pepsi 0"),
        ("a/b", "b", "b"),
        ("What?!", "what", "what"),
        ("x-ray- z", "xray z", "x ray z"),
        ("v.2 at 3.50.", "v.2 at 3.50", "v.2 at 3.50"),
        ("yall'd've", "y'all'd've", "y'all'd've"),
        ("The An A", "", "the an a"),
        ("\u5317\u4eac", "\u5317\u4eac", "\u5317\u4eac"),
        ("tab\tand\nline", "tab and line", "tab and line"),
    ],
)
def test_processors(answer, official, corrected):
    assert normalise_official(answer) == official
    assert normalise_corrected(answer) == corrected


def test_protocol_says_whether_the_prompt_held_ocr_words():
    with_ocr, without = prompt("What brand?", tokens=["NOKIA", "{question}"]), prompt("What brand?")
    assert "NOKIA, {question}" in with_ocr
    assert "What brand?" in without
    row = {"uid": "7", "truth": {"answers": people("nokia")}, "answer": "Nokia"}
    for asked in (with_ocr, prompt("What brand?", tokens=[]), "What?\nReference OCR token: A, B\nAnswer."):
        assert score([row | {"prompt": asked}], protocol="official-ocr")[0]["score"] == 1
        with pytest.raises(
            UserError, match="row 7 was asked with OCR words, protocol is 'official'; use 'official-ocr'"
        ):
            score([row | {"prompt": asked}])
    assert score([row | {"question": without}], protocol="corrected")[0]["score"] == 1
    with pytest.raises(UserError, match="asked with no OCR words, protocol is 'corrected-ocr'; use 'corrected'"):
        score([row | {"question": without}], protocol="corrected-ocr")
    with pytest.raises(UserError, match="protocol is 'vqa'; accepted are official, official-ocr"):
        score([row], protocol="vqa")


def test_own_templates_hold_what_they_need():
    assert prompt("Q?", template="{question} Short answer:") == "Q? Short answer:"
    assert prompt("Q?", tokens=["a", "b"], template="{tokens}\n{question}") == "a, b\nQ?"
    with pytest.raises(UserError, match=r"accepted is one with {question} and {tokens}"):
        prompt("Q?", tokens=["a"], template="{question}")
    with pytest.raises(UserError, match=r"accepted is one with {question}, and no {tokens}"):
        prompt("Q?", template="{question} {tokens}")


GOOD = {"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "what brand?", "answers": people("nokia", 5)}


def write(folder, value):
    path = folder / "truths.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_read_truths_and_tokens(tmp_path):
    truths = read_truths(write(tmp_path, {"dataset_type": "val", "data": [GOOD, GOOD | {"question_id": 34603}]}))
    assert list(truths) == ["34602", "34603"]
    assert truths["34602"]["cluster"] == "003a8ae2ef43b901"
    assert truths["34602"]["truth"]["answers"] == GOOD["answers"]
    path = write(tmp_path, {"data": [{"image_id": "i", "ocr_tokens": ["A", "B"]}]})
    assert read_tokens(path) == {"i": ("A", "B")}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not valid JSON"),
        ([GOOD], "`data` is missing"),
        ({"data": []}, r"`data` is \[\]"),
        ({"data": [3]}, r"data\[0\] is 3"),
        ({"data": [GOOD, GOOD]}, r"data\[1\]\.question_id is 34602 a second time"),
        ({"data": [GOOD | {"answers": ["a"] * 9}]}, r"data\[0\]\.answers is .* accepted is a list of 10 texts"),
        ({"data": [{k: v for k, v in GOOD.items() if k != "answers"}]}, r"answers is missing"),
        ({"data": [GOOD | {"question": None}]}, r"data\[0\]\.question is missing"),
    ],
)
def test_bad_truths(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, value))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"image_id": "i", "ocr_tokens": "A"}], r"ocr_tokens is 'A'"),
        ([{"image_id": "i", "ocr_tokens": []}] * 2, r"image_id is i a second time"),
    ],
)
def test_bad_tokens(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        read_tokens(write(tmp_path, {"data": data}))
