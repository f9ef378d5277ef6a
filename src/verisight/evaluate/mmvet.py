"""MM-Vet (Yu et al. 2023): a judge grades short and long answers from 0 to 1, by the capabilities they take."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from verisight.data.files import read_json
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.rubric import check_shown, fill
from verisight.evaluate.stats import Direction, Measure, mean_among
from verisight.evaluate.votes import mean_vote
from verisight.types import Decoding, ImageRef, Request, UserError

Protocol = Literal["official", "corrected"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Row = dict[str, Any]
DECODING = Decoding(max_new_tokens=1024, temperature=0.0)
JUDGE_DECODING = Decoding(max_new_tokens=3, temperature=0.0)
CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math", "seq")  # seq: version 2 alone
_RULES = """Grade how far an answer to a question{picture} is right, in tenths from 0.0 (nothing) to 1.0 (all of it).
In the right answer <AND> joins parts that are all needed, and <OR> parts of which one will do. Words may differ where
the meaning is the same; whatever else the answer says counts only if it contradicts.

Question | Right answer | Answer | Grade
--- | --- | --- | ---
How many birds are on the wire? | five | There are four birds on it. | 0.0
What do the two signs say? | stop <AND> exit | One sign says "Stop". | 0.5
Who holds the cup? | the woman <OR> the one on the left | It is the person on the left. | 1.0
What is the total of the bill? | 12 + 8.5 = 20.5 | 12 and 8.5 make 20. | 0.4
What makes the picture funny? | a cat drives the bus <AND> mice ride in it | A cat is at the wheel, which is odd. | 0.6
"""
TEMPLATE = _RULES + "{question} | {reference} | {answer} | "
_FIELDS = ("question", "reference", "answer")
_MARKS = re.compile("[*_`~#$<>\\[\\]{}()\"'\u201c\u201d\u2018\u2019|]")
_GRADE = re.compile(r"(?<![\w.,/-])(\d+(?:[.,]\d+)?)(?:\s*/\s*1(?:[.,]0+)?)?(?![\w/%]|[.,]\d)")
_CALLED = re.compile(r"(?:grade|score|correctness|rating)s?\W{0,3}(?:is|of)?\W{0,3}$")


def read_truths(path: Path) -> dict[str, dict[str, Any]]:
    """The questions, from mm-vet.json or mm-vet-v2.json: an object of id: question.

    Returns:
        id -> cluster (the picture) and truth: question, reference (with <AND> and <OR>), capabilities, image. A
        question of version 2 with several pictures keeps the text between them; its first picture is `image`.

    Raises:
        UserError: not that format, a key lacks or has another value, or an id twice.
    """
    table = read_json(path, unique=True)
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: holds {short(table)}; MM-Vet is an object of id: question")
    found = {}
    for uid, row in table.items():
        where = f"{path}: {uid}"
        if not isinstance(row, dict):
            raise UserError(f"{where} is {short(row)}; accepted is an object")
        image, question = text_field(row, "imagename", where), text_field(row, "question", where)
        skills = row.get("capability")
        if not isinstance(skills, list) or not skills or not set(map(str, skills)) <= set(CAPABILITIES):
            raise UserError(f"{where}.capability is {short(skills)}; accepted is a list of {', '.join(CAPABILITIES)}")
        truth = {
            "question": question, "reference": text_field(row, "answer", where, numbers=True),
            "capabilities": sorted(set(skills)), "image": image,
        }  # fmt: skip
        found[uid] = {"cluster": image, "truth": truth}
    return found


def request(
    uid: str,
    truth: Mapping[str, Any],
    answer: str,
    *,
    template: str | None = None,
    vision: bool = False,
    images: Sequence[ImageRef] = (),
) -> Request:
    """The judge's question: a table with graded examples in our words, and a last row without its grade.

    A `template` has {question}, {reference} and {answer}; the official prompt takes no other form of ours. Line breaks
    of the answer are blanks, as a row of the table needs. With `vision` the judge sees `images`.

    Raises:
        UserError: a template that lacks one of these or has others, or `vision` and no picture.
    """
    check_shown("mmvet", uid, truth["image"], vision=vision, images=images)
    values = {"question": truth["question"], "reference": truth["reference"], "answer": answer}
    values = {name: " ".join(value.split()) for name, value in values.items()}
    values["answer"] = values["answer"] or "(empty)"
    values["picture"] = " about the picture shown" if vision else " about a picture that you don't see"
    text = fill("mmvet", template or TEMPLATE, values, needed=_FIELDS, accepted=(*_FIELDS, "picture"))
    return Request(uid, text, tuple(images) if vision else ())


def parse_official(reply: str) -> float | None:
    """What stands in front of the first blank, if it is a number from 0 to 1; else None.

    The official script then asks again, warmer each time, and takes 0 after five tries: so does `score`, without
    asking. "0.5.", "**0.8**" and "Grade: 0.8" are none.
    """
    try:
        grade = float(reply.split(" ")[0])
    except ValueError:
        return None
    return grade if 0 <= grade <= 1 else None


def parse_corrected(reply: str) -> float | None:
    """The one number from 0 to 1 that the reply gives: bare, bold, after "Grade:", as "0.5/1", at the end of a row.

    None for none, for another number ("1.4", "80 %"), or for several where none of them is called the grade.
    """
    text = _MARKS.sub(" ", unicodedata.normalize("NFKC", reply).lower())
    found = [(text[: match.start()], float(match[1].replace(",", "."))) for match in _GRADE.finditer(text)]
    called = {grade for before, grade in found if _CALLED.search(before)}
    grades = called or {grade for _, grade in found}
    if len(grades) != 1 or re.search(r"\d\s*%", text):
        return None
    grade = grades.pop()
    return grade if 0 <= grade <= 1 else None


def score(rows: Sequence[Row], *, protocol: Protocol = "official") -> list[Row]:
    """Adds `score` (0..1: the mean over the judge's `replies`), `grades` (one a vote), `failed`, `unparsed` and counts.

    A reply without a grade counts 0 under "official" (and the row is `unparsed`), and not at all under "corrected"
    (`unparsed`: no reply has one). Where the judge failed there is no score under either. `num_words`, `empty`: of the
    answer.

    Raises:
        UserError: an unknown protocol, or a row without `replies`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"mmvet: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    return [row | _found(row, protocol) for row in rows]


def _found(row: Row, protocol: Protocol) -> Row:
    replies: Sequence[str | None] = row.get("replies") or ()
    if not replies:
        raise UserError(f"mmvet: row {row['uid']} has no `replies`; ask a judge")
    parse = parse_official if protocol == "official" else parse_corrected
    grades = [None if reply is None else parse(reply) for reply in replies]
    unread = any(grade is None and reply is not None for grade, reply in zip(grades, replies, strict=True))
    if protocol == "official":
        grades = [
            0.0 if grade is None and reply is not None else grade for grade, reply in zip(grades, replies, strict=True)
        ]
    known = [grade for grade in grades if grade is not None]
    vote = mean_vote(replies, parse)
    return {
        "score": sum(known) / len(known) if known else None,
        "grades": grades,
        "failed": vote.failed,
        "unparsed": unread if protocol == "official" else vote.unparsed,
        "num_words": len(row["answer"].split()),
        "empty": not row["answer"].strip(),
    }


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """MM-Vet's metrics before they are summed (0..1, published times 100); without a score in the shares alone.

    `total`: mean score; `<capability>/score`: over the questions that take it, whatever else they take;
    `set/<a+b>/score`: over those that take just these; of all answers `length_words`, `empty_fraction`,
    `failed_fraction`, `unparsed_fraction`.
    """
    known = [row["score"] is not None for row in scored]
    skills = [row["truth"]["capabilities"] for row in scored]
    found = {"total": _mean(scored, "score", known, "higher")}
    for name in CAPABILITIES:
        among = [each and name in held for each, held in zip(known, skills, strict=True)]
        found[f"{name}/score"] = _mean(scored, "score", among, "higher")
    for one in sorted({"+".join(held) for held in skills}):
        among = [each and "+".join(held) == one for each, held in zip(known, skills, strict=True)]
        found[f"set/{one}/score"] = _mean(scored, "score", among, "higher")
    everything = [True] * len(scored)
    found["length_words"] = _mean(scored, "num_words", everything, "neutral", fraction=False)
    for name in ("empty", "failed", "unparsed"):
        found[f"{name}_fraction"] = _mean(scored, name, everything, "neutral")
    return found


def vote_totals(scored: Sequence[Row]) -> tuple[list[float], float | None]:
    """The total of each vote, as the official runs are told, and their standard deviation (None for one vote)."""
    num = max((len(row["grades"]) for row in scored), default=0)
    totals = []
    for at in range(num):
        grades = [row["grades"][at] for row in scored if at < len(row["grades"]) and row["grades"][at] is not None]
        totals.append(float(np.mean(grades)) if grades else math.nan)
    return totals, float(np.std(totals)) if num > 1 else None


def _mean(
    scored: Sequence[Row], key: str, among: Sequence[bool], better: Direction, *, fraction: bool = True
) -> Measure:
    return mean_among([row.get(key) for row in scored], among, better=better, fraction=fraction)
