"""MM-Vet: what both parsers read, and scores by capability, derived by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from verisight.evaluate.mmvet import measures, parse_corrected, parse_official, read_truths, request, score, vote_totals
from verisight.evaluate.stats import summarise
from verisight.types import ImageRef, UserError

REPLIES = [  # reply, official, corrected
    ("0.5", 0.5, 0.5),
    ("1", 1.0, 1.0),
    ("0", 0.0, 0.0),
    ("1.0", 1.0, 1.0),
    ("0.5 because it is half right", 0.5, 0.5),
    ("0.5.", None, 0.5),
    ("**0.8**", None, 0.8),
    ("Grade: 0.8", None, 0.8),
    ("Correctness: 0.3", None, 0.3),
    ("The score is 0.9", None, 0.9),
    (" 0.5", None, 0.5),
    ("0.5\n", 0.5, 0.5),
    ("0,5", None, 0.5),
    ("0.5/1", None, 0.5),
    ("0.7/1.0", None, 0.7),
    ("1.4", None, None),
    ("-0.5", None, None),
    ("5/10", None, None),
    ("80%", None, None),
    ("80 %", None, None),
    ("0.4 or 0.6", 0.4, None),
    ("0.4, so 0.4", None, 0.4),
    ("Three of 5 parts. Grade: 0.6", None, 0.6),
    ("| 0.6 |", None, 0.6),
    ("\uff10.\uff15", 0.5, 0.5),  # Python reads full-width digits too
    ("I can't grade that.", None, None),
    ("", None, None),
    ("nan", None, None),
    ("1e-1", 0.1, None),
    ("inf", None, None),
]


@pytest.mark.parametrize(("reply", "official", "corrected"), REPLIES, ids=[str(at) for at in range(len(REPLIES))])
def test_replies_by_hand(reply: str, official: float | None, corrected: float | None) -> None:
    """Official: float of what stands before the first blank, 0 to 1. Corrected: the one number, or that called so."""
    assert parse_official(reply) == official
    assert parse_corrected(reply) == corrected


ROWS = [  # capabilities, replies
    (["ocr", "rec"], ["1.0"]),
    (["rec"], ["0.5"]),
    (["rec"], ["**0.5**"]),
    (["math", "ocr"], [None]),
    (["gen"], ["no idea"]),
    (["gen"], ["0.2", "0.4", None]),
]


def rows() -> list[dict[str, Any]]:
    return [
        {
            "uid": f"v1_{at}",
            "cluster": f"{at}.jpg",
            "truth": {"capabilities": skills},
            "answer": "two words",
            "replies": said,
        }
        for at, (skills, said) in enumerate(ROWS)
    ]


def values(scored: list[dict[str, Any]]) -> dict[str, float | None]:
    found = summarise(measures(scored), [row["cluster"] for row in scored], seed=0)
    return {name: one["value"] for name, one in found.items()}


def test_scores_by_hand() -> None:
    """Official: 1, 0.5, 0 (bold), none (failed), 0 (no grade), 0.3: total 1.8/5; rec 1.5/3; gen 0.3/2; math none.

    Corrected: 1, 0.5, 0.5, -, -, 0.3: total 2.3/4; rec 2/3; gen 0.3; rec alone (0.5 + 0.5)/2.
    """
    found = values(score(rows()))
    assert found["total"] == pytest.approx(1.8 / 5)
    assert (found["rec/score"], found["gen/score"]) == pytest.approx((0.5, 0.15))
    assert (found["math/score"], found["seq/score"]) == (None, None)
    assert (found["failed_fraction"], found["unparsed_fraction"]) == pytest.approx((1 / 6, 2 / 6))
    found = values(score(rows(), protocol="corrected"))
    assert found["total"] == pytest.approx(2.3 / 4)
    assert (found["rec/score"], found["gen/score"], found["ocr/score"]) == pytest.approx((2 / 3, 0.3, 1.0))
    assert (found["set/rec/score"], found["set/ocr+rec/score"]) == (0.5, 1.0)
    assert (found["failed_fraction"], found["unparsed_fraction"]) == pytest.approx((1 / 6, 1 / 6))
    assert found["length_words"] == 2.0


def test_the_total_of_each_vote() -> None:
    """Votes 0.2, 0.4 and 0.6, 1.0: totals 0.4 and 0.7, standard deviation 0.15."""
    scored = score(
        [row | {"replies": said} for row, said in zip(rows(), (["0.2", "0.4"], ["0.6", "1.0"]), strict=False)]
    )
    totals, spread = vote_totals(scored)
    assert totals == pytest.approx([0.4, 0.7])
    assert spread == pytest.approx(0.15)
    assert vote_totals(score(rows()[:2]))[1] is None


def test_rows_are_left_as_they_were_and_must_be_judged() -> None:
    given = rows()
    score(given)
    assert given == rows()
    with pytest.raises(UserError, match="row v1_0 has no `replies`; ask a judge"):
        score([{key: value for key, value in given[0].items() if key != "replies"}])
    with pytest.raises(UserError, match="protocol is 'x'; accepted are official, corrected"):
        score(given, protocol="x")  # type: ignore[arg-type]


GOOD = {"imagename": "a.jpg", "question": "What?", "answer": "x <AND> y", "capability": ["rec", "ocr"]}


def write(folder: Path, value: Any) -> Path:
    path = folder / "mm-vet.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_read_truths(tmp_path: Path) -> None:
    truth = {"question": "What?", "reference": "x <AND> y", "capabilities": ["ocr", "rec"], "image": "a.jpg"}
    assert read_truths(write(tmp_path, {"v1_0": GOOD})) == {"v1_0": {"cluster": "a.jpg", "truth": truth}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([GOOD], r"MM-Vet is an object of id: question"),
        ({}, r"holds {}"),
        ({"v1_0": "x"}, r"v1_0 is 'x'; accepted is an object"),
        ({"v1_0": GOOD | {"imagename": None}}, r"v1_0\.imagename is missing"),
        ({"v1_0": GOOD | {"answer": ""}}, r"v1_0\.answer is ''"),
        ({"v1_0": GOOD | {"capability": []}}, r"v1_0\.capability is \[\]; accepted is a list of rec, ocr"),
        ({"v1_0": GOOD | {"capability": ["smell"]}}, r"capability is \['smell'\]"),
        ('{"v1_0": {}, "v1_0": {}}', r"'v1_0' is there twice"),
    ],
)
def test_bad_files_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, value))


def test_what_the_judge_is_asked() -> None:
    truth = {"question": "What\nis it?", "reference": "x {answer}", "image": "a.jpg"}
    one = request("v1_0", truth, "it is {question}\nreally")
    assert one.text.endswith("What is it? | x {answer} | it is {question} really | ")
    assert request("v1_0", truth, " ").text.endswith("| (empty) | ")
    assert one.images == ()
    shown = (ImageRef(data=b"x"),)
    seen = request("v1_0", truth, "y", vision=True, images=shown)
    assert seen.images == shown
    assert "picture shown" in seen.text
    assert request("v1_0", truth, "y", template="{question}/{reference}/{answer}").text == "What is it?/x {answer}/y"
    with pytest.raises(UserError, match=r"mmvet: the rubric lacks {answer}"):
        request("v1_0", truth, "y", template="{question} {reference}")
    with pytest.raises(UserError, match=r"mmvet: the rubric has {other}; accepted are {question}"):
        request("v1_0", truth, "y", template="{question} {reference} {answer} {other}")
    with pytest.raises(UserError, match="was given no picture"):
        request("v1_0", truth, "y", vision=True)
