"""LLaVA-Bench: what both parsers read, relative scores, both orders; derived by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from verisight.evaluate.llava_bench import measures, parse_corrected, parse_official, read_truths, request, score
from verisight.evaluate.stats import summarise
from verisight.types import ImageRef, UserError

UNREAD = (-1.0, -1.0)
REPLIES = [  # reply, official, corrected
    ("8 7", (8, 7), (8, 7)),
    ("8,7", (8, 7), (8, 7)),
    ("8, 7", UNREAD, (8, 7)),
    ("8 7 ", UNREAD, (8, 7)),
    ("8  7", UNREAD, (8, 7)),
    ("8.5 7", (8.5, 7), (8.5, 7)),
    ("8 7\nBecause the first is better by 3 points and 2 words.", (8, 7), (8, 7)),
    ("Scores: 8 7", UNREAD, (8, 7)),
    ("**8 7**", UNREAD, (8, 7)),
    ("Assistant 1: 8, Assistant 2: 7", UNREAD, (8, 7)),
    ("Assistant 1: 8\nAssistant 2: 7", UNREAD, None),
    ("8/10 and 7/10", UNREAD, (8, 7)),
    ("8 out of 10, 7 out of 10", UNREAD, (8, 7)),
    ("\n8 7", UNREAD, (8, 7)),
    ("Here are my scores.\n8 7", UNREAD, (8, 7)),
    ("8", UNREAD, None),
    ("8 7 6", UNREAD, None),
    ("11 7", (11, 7), None),
    ("0 7", (0, 7), None),
    ("8 -7", (8, -7), None),
    ("80% 70%", UNREAD, None),
    ("\uff18 \uff17", (8, 7), (8, 7)),  # Python reads full-width digits too
    ("eight seven", UNREAD, None),
    ("I'm sorry, I can't compare them.", UNREAD, None),
    ("", UNREAD, None),
    ("10 1", (10, 1), (10, 1)),
]


@pytest.mark.parametrize(("reply", "official", "corrected"), REPLIES, ids=[str(at) for at in range(len(REPLIES))])
def test_replies_by_hand(reply: str, official: Any, corrected: Any) -> None:
    """Official: the first line, commas as blanks, two numbers and one blank. Corrected: the first line with numbers."""
    assert parse_official(reply) == official
    assert parse_corrected(reply) == corrected


ROWS = [  # category, replies, replies in the other order
    ("conv", ["8 4"], ["6 8"]),
    ("conv", ["10 5"], ["5 10"]),
    ("detail", ["8, 8"], ["8 8"]),
    ("detail", ["8 6", "6 8", None], ["7 7"]),
    ("complex", [None], ["8 8"]),
]


def rows() -> list[dict[str, Any]]:
    return [
        {
            "uid": f"{at}", "cluster": f"{at}", "truth": {"category": category}, "answer": "some words here",
            "replies": replies, "replies_swapped": swapped,
        }
        for at, (category, replies, swapped) in enumerate(ROWS)
    ]  # fmt: skip


def values(scored: list[dict[str, Any]]) -> dict[str, float | None]:
    found = summarise(measures(scored), [row["cluster"] for row in scored], seed=0)
    return {name: one["value"] for name, one in found.items()}


def test_scores_by_hand() -> None:
    """Official: (8, 4), (10, 5), (-1, -1), (7, 7), failed: relative 15/24; conv 9/18; detail (-1 + 7)/(-1 + 7).

    Corrected: the third is (8, 8): relative 24/33, detail 15/15. Both orders: row 0 is (8 + 8)/2 = 8 and (4 + 6)/2 = 5,
    its bias ((8 - 4) + (6 - 8))/2 = 1; row 1 (10, 5), bias ((10 - 5) + (5 - 10))/2 = 0; rows 2, 3 none.
    """
    found = values(score(rows()))
    assert found["relative"] == pytest.approx(15 / 24)
    assert (found["conv/relative"], found["detail/relative"], found["complex/relative"]) == (0.5, 1.0, None)
    assert (found["reference/score"], found["model/score"]) == (24 / 4, 15 / 4)
    assert (found["failed_fraction"], found["unparsed_fraction"]) == (0.2, 0.2)
    assert found["position_bias"] is None
    found = values(score(rows(), protocol="corrected"))
    assert found["relative"] == pytest.approx(24 / 33)
    assert (found["detail/relative"], found["unparsed_fraction"]) == (1.0, 0.0)
    scored = score(rows(), protocol="both-orders")
    assert (scored[0]["reference_score"], scored[0]["model_score"], scored[0]["position_bias"]) == (8, 5, 1)
    found = values(scored)
    assert found["relative"] == pytest.approx((5 + 5 + 8 + 7) / (8 + 10 + 8 + 7))
    assert found["position_bias"] == pytest.approx(1 / 4)
    assert found["length_words"] == 3.0


def test_an_order_that_cannot_be_read_is_unparsed_and_one_that_failed_is_failed() -> None:
    (one,) = score([rows()[0] | {"replies_swapped": ["?"]}], protocol="both-orders")
    assert (one["model_score"], one["unparsed"], one["failed"]) == (None, True, False)
    (one,) = score([rows()[0] | {"replies_swapped": [None]}], protocol="both-orders")
    assert (one["model_score"], one["unparsed"], one["failed"]) == (None, False, True)
    with pytest.raises(UserError, match="row 0 has no `replies_swapped`; ask a judge"):
        score([{key: value for key, value in rows()[0].items() if key != "replies_swapped"}], protocol="both-orders")
    with pytest.raises(UserError, match="protocol is 'x'; accepted are official, corrected, both-orders"):
        score(rows(), protocol="x")  # type: ignore[arg-type]


QUESTION = {"question_id": 0, "image": "1.jpg", "text": "What?", "category": "conv"}
CONTEXT = {"image": "1.jpg", "caption": "A dog."}
ANSWER = {"question_id": 0, "text": "It is a dog."}


def write(folder: Path, questions: Any, contexts: Any, answers: Any) -> list[Path]:
    paths = []
    for name, rows in (("questions", questions), ("context", contexts), ("answers", answers)):
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (CONTEXT, "A dog."),
        ({"image": "1.jpg", "caption": ["A dog.", "A cat."]}, "A dog.\nA cat."),
        (
            {"image": "1.jpg", "captions": ["A dog."], "instances": [{"category": "dog", "bbox": [0, 1, 2, 3]}]},
            "A dog.\ndog: [0, 1, 2, 3]",
        ),
    ],
)
def test_read_truths(context: Any, told: str, tmp_path: Path) -> None:
    truth = {
        "question": "What?", "category": "conv", "context": told, "reference": "It is a dog.", "image": "1.jpg",
    }  # fmt: skip
    assert read_truths(*write(tmp_path, [QUESTION], [context], [ANSWER])) == {"0": {"cluster": "1.jpg", "truth": truth}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (([], [CONTEXT], [ANSWER]), r"questions\.jsonl: holds no questions"),
        (([QUESTION, QUESTION], [CONTEXT], [ANSWER]), r"row 1\.question_id is 0 a second time"),
        (([QUESTION | {"category": "x"}], [CONTEXT], [ANSWER]), r"category is 'x'; accepted are conv, detail, complex"),
        (([QUESTION | {"image": "2.jpg"}], [CONTEXT], [ANSWER]), r"image is '2\.jpg', which .*context\.jsonl has no"),
        (([QUESTION], [CONTEXT], []), r"answers\.jsonl has no answer to question 0"),
        (([QUESTION], [{"image": "1.jpg"}], [ANSWER]), r"row 0\.caption is missing; accepted is a text or a list"),
        (([QUESTION], [CONTEXT], [{"question_id": 0}]), r"row 0\.text is missing"),
    ],
)
def test_bad_files_are_refused(files: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_truths(*write(tmp_path, *files))


TRUTH = {"question": "What?", "context": "A dog.", "reference": "REF", "image": "1.jpg"}


def test_what_the_judge_is_asked() -> None:
    one, other = (request("0", TRUTH, " {context} ", swapped=swapped) for swapped in (False, True))
    assert one.text.index("REF") < one.text.index("{context}")
    assert other.text.index("REF") > other.text.index("{context}")
    assert "A dog." in one.text
    assert one.system
    shown = (ImageRef(data=b"x"),)
    seen = request("0", TRUTH, "", vision=True, images=shown)
    assert seen.images == shown
    assert "A dog." not in seen.text
    assert "(empty)" in seen.text
    template = "{context}|{question}|{first}|{second}"
    assert request("0", TRUTH, "M", template=template, swapped=True).text == "A dog.|What?|M|REF"
    with pytest.raises(UserError, match=r"the rubric lacks {second}"):
        request("0", TRUTH, "M", template="{context} {question} {first}")
    with pytest.raises(UserError, match="was given no picture"):
        request("0", TRUTH, "M", vision=True)
