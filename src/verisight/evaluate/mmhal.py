"""MMHal-Bench (Sun et al. 2023) and MMHal-V (Amirloo et al. 2024): a judge rates answers from 0 to 6."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args
from urllib.parse import unquote, urlsplit

from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.rubric import check_shown, fill
from verisight.evaluate.stats import Direction, Measure, mean_among
from verisight.evaluate.votes import mean_vote
from verisight.types import Decoding, ImageRef, Request, UserError

Protocol = Literal["official", "corrected"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Row = dict[str, Any]
DECODING = Decoding(max_new_tokens=1024, temperature=0.0)  # RLAIF-V's runs take 3 beams too
JUDGE_DECODING = Decoding(max_new_tokens=1024, temperature=0.0)  # the official script sets no limit
TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
BEST = 6
CLEAN = 3  # ratings below it say that the answer makes something up
_CASE = """

Things in the picture (there may be more): {contents}
Question: {question}
A person's answer: {reference}
Answer to rate: {answer}
"""
_SCALE = """
Two things count: whether the answer makes anything up, and how much it tells of what was asked. Made up is whatever
it says of the picture (a thing, a number, a colour, an action, a mood, any detail) that isn't so and doesn't follow
from what is there. The person's answer may be short: what it leaves out is not made up for that alone, so look twice.
To leave the question open, to be unsure or to name less than the person did is not making things up. General
knowledge and reasoning that fit the picture make an answer better.

The scale:
6: nothing made up, tells a lot, and explains or reasons well
5: nothing made up, tells a lot
4: nothing made up, tells something
3: nothing made up, tells next to nothing
2: something made up, tells a lot
1: something made up, tells something
0: something made up, tells next to nothing

Say in a few sentences what speaks for which rating. Then end with a line of its own: the word "Rating", a colon, a
blank and one of these whole numbers, in plain text."""
TEMPLATE = (
    "You rate the answer that a model gave to a question about a picture. You can't see the picture. Go by what is\n"
    "known of it: the names of some things in it, and what a person answered, who saw it." + _CASE + _SCALE
)
VISION_TEMPLATE = (
    "You rate the answer that a model gave to a question about the picture shown. Go by what you see in it. Names of\n"
    "some things in it and what a person answered are given too; where they and the picture differ, the picture counts."
    + _CASE
    + _SCALE
)
_FIELDS = ("contents", "question", "reference", "answer")
_PLACE = re.compile(r"\{(\w*)\}")
_NUMBER = r"\d++(?:[.,]\d++)?+"
_MARKS = re.compile("[*_`~#$<>\\[\\]{}\"'\u201c\u201d\u201e\u2018\u2019]|\\\\boxed")
_CLAIM = re.compile(
    r"\b(rating|score) ?(?:\([^()\n]*\)|out of 6)? ?(?:is|of|as)?\s?(?:[:=]|[-\u2013\u2014](?= ))?\s?"
    rf"(-?{_NUMBER})(?![\w%])(?: ?(/|out of|of|to|or|and|,|&|-|\u2013|\u2014) ?({_NUMBER}))?"
)
_ALONE = re.compile(rf"({_NUMBER})(?: ?(/|out of|of) ?({_NUMBER}))?[.!]?")
_AT_END = re.compile(rf"(?:^|[ :])({_NUMBER}) ?(/) ?({_NUMBER})[.!]?$")


def read_truths(path: Path) -> dict[str, dict[str, Any]]:
    """The questions, from the official rows (response_template.json, also with answers in it; JSON list or JSON lines).

    The official script takes a question's type from its place (i % 8), which in the official file is its question_type.

    Returns:
        image_id -> cluster (the image) and truth: question, type (one of `TYPES`), contents (names of things in the
        picture), reference, image (file name: the last part of image_src). Where several rows ask about an image, the
        id is image_id/row, rows from 0.

    Raises:
        UserError: not that format, a key lacks or has another value, or a question on an image twice.
    """
    rows = list(_rows(path))
    images = [text_field(row, "image_id", where, numbers=True) for where, row in rows]
    times = Counter(images)
    found: dict[str, dict[str, Any]] = {}
    asked: set[tuple[str, str]] = set()
    for at, ((where, row), image) in enumerate(zip(rows, images, strict=True)):
        truth = _truth(row, where)
        uid = image if times[image] == 1 else f"{image}/{at}"
        if (image, truth["question"]) in asked or uid in found:
            raise UserError(f"{where}.image_id is {image} a second time with one question; questions must be unique")
        asked.add((image, truth["question"]))
        found[uid] = {"cluster": image, "truth": truth}
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = path.suffix in (".jsonl", ".ndjson")
    table = read_jsonl(path) if lines else read_json(path)
    if not isinstance(table, list) or not table:
        raise UserError(f"{path}: holds {short(table)}; MMHal-Bench is a list of questions, or one a line (.jsonl)")
    for at, row in enumerate(table):
        where = f"{path}: [{at}]"
        if not isinstance(row, dict):
            raise UserError(f"{where} is {short(row)}; accepted is an object")
        yield where, row


def _truth(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind, source = text_field(row, "question_type", where), text_field(row, "image_src", where)
    if kind not in TYPES:
        raise UserError(f"{where}.question_type is {kind!r}; accepted are {', '.join(TYPES)}")
    try:
        image = PurePosixPath(unquote(urlsplit(source).path if "://" in source else source)).name
    except ValueError:  # an address such as http://[
        image = ""
    if image in ("", ".."):
        raise UserError(f"{where}.image_src is {source!r}; accepted is an address or path that ends in a file name")
    contents = row.get("image_content")
    if not (isinstance(contents, list) and all(isinstance(name, str) and name for name in contents)):
        raise UserError(f"{where}.image_content is {short(contents)}; accepted is a list of texts")
    return {
        "question": text_field(row, "question", where),
        "type": kind,
        "contents": contents,
        "reference": text_field(row, "gt_answer", where),
        "image": image,
    }


def request(
    uid: str,
    truth: Mapping[str, Any],
    answer: str,
    *,
    template: str | None = None,
    vision: bool = False,
    images: Sequence[ImageRef] = (),
) -> Request:
    """The judge's question, in our words or in a `template`; with `vision` (MMHal-V) the judge sees `images` too.

    A template has {contents}, {question}, {reference} and {answer}, or, as the official one, four {} in that order.
    With `vision` it may do without {contents}. MMHal-V as published is the official template with the picture added.

    Raises:
        UserError: a template that lacks one of these or has others, or `vision` and no picture.
    """
    check_shown("mmhal", uid, truth["image"], vision=vision, images=images)
    if template is None:
        template = VISION_TEMPLATE if vision else TEMPLATE
    if _PLACE.findall(template) == [""] * len(_FIELDS):
        names = iter(_FIELDS)
        template = _PLACE.sub(lambda _: f"{{{next(names)}}}", template)
    values = {"question": truth["question"], "reference": truth["reference"], "answer": answer.strip() or "(empty)"}
    values["contents"] = ", ".join(truth["contents"]) or "(none listed)"
    text = fill("mmhal", template, values, needed=_FIELDS[1 if vision else 0 :], accepted=_FIELDS)
    return Request(uid, text, tuple(images) if vision else ())


def parse_official(reply: str) -> float:
    """The one of "rating: 0" to "rating: 6" that is in the reply in any case, or 0 where there is none or several.

    So "Rating: **4**", "Rating:4", "Rating 4" and a refusal are 0, the worst rating, and "Rating: 10" is 1.
    """
    found = _official(reply)
    return found[0] if len(found) == 1 else 0.0


def _official(reply: str) -> list[float]:
    text = reply.lower()
    return [float(rating) for rating in range(BEST + 1) if f"rating: {rating}" in text]


def parse_corrected(reply: str) -> float | None:
    """The whole number from 0 to 6 that the reply gives as rating; None for none, several, or another number.

    Markdown, quotes, brackets, tags and full-width characters don't matter; "4/6" is 4, "4/10" and "4-5" are none.
    Without a rating, what is called score counts, and without that a number alone in the first or last line, or "4/6"
    at the end.
    """
    text = _MARKS.sub(" ", unicodedata.normalize("NFKC", reply).lower())
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    called = [match.groups() for match in _CLAIM.finditer("\n".join(lines))]
    claims = [rest for word, *rest in called if word == "rating"] or [rest for _, *rest in called]
    if not claims and lines:
        ends = [_ALONE.fullmatch(lines[0]), _ALONE.fullmatch(lines[-1]), _AT_END.search(lines[-1])]
        claims = [list(match.groups()) for match in ends if match is not None]
    ratings = {_rating(*claim) for claim in claims}
    return ratings.pop() if len(ratings) == 1 else None


def _rating(number: str, joint: str | None, other: str | None) -> float | None:
    value = _value(number)
    of_six = joint is None or (joint in ("/", "out of", "of") and other is not None and _value(other) == BEST)
    return value if of_six and 0 <= value <= BEST and value.is_integer() else None


def _value(number: str) -> float:
    return float(number.replace(",", "."))


def score(rows: Sequence[Row], *, protocol: Protocol = "official") -> list[Row]:
    """Adds `score` (0..6), `hallucinated`, `informativeness` (0..1), `num_read`, `failed`, `unparsed` and counts.

    `score` is the mean over the judge's `replies` (one a vote, None: it failed), read with the parser of the protocol's
    name; `hallucinated`: that mean is below 3; `informativeness`: the mean over the replies of how much each rating
    says that the answer tells, (r - 3)/3 from 3 on, r/3 below. `num_read`: replies with a rating. A reply without one
    counts 0 under "official", as in the official script, and the row is `unparsed`; under "corrected" it doesn't count
    (`unparsed`: no reply has one). Where nothing counts, these three are None: also under "official" where the judge
    failed, which the official script asks again without end. `num_words`, `empty`: of the answer.

    Raises:
        UserError: an unknown protocol, or a row without `replies`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"mmhal: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    return [row | _found(row, protocol) for row in rows]


def _found(row: Row, protocol: Protocol) -> Row:
    replies, official = row.get("replies"), protocol == "official"
    if not replies:
        raise UserError(f"mmhal: row {row['uid']} has no `replies`; ask a judge")
    parse = parse_official if official else parse_corrected
    vote = mean_vote(replies, parse)
    told = mean_vote(replies, lambda reply: _informativeness(parse(reply)))
    unread = sum(reply is not None and len(_official(reply)) != 1 for reply in replies) if official else 0
    return {
        "score": vote.value,
        "hallucinated": None if vote.value is None else vote.value < CLEAN,
        "informativeness": told.value,
        "num_read": vote.num_read - unread,
        "failed": vote.failed,
        "unparsed": vote.unparsed or unread > 0,
        "num_words": len(row["answer"].split()),
        "empty": not row["answer"].strip(),
    }


def _informativeness(rating: float | None) -> float | None:
    return None if rating is None else (rating - CLEAN if rating >= CLEAN else rating) / 3


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """MMHal-Bench's metrics before they are summed; answers without a score are in none but the shares.

    `score`: mean rating (0..6); `hallucination_rate`: answers below 3; `informativeness` (RLAIF-V's, 0..1): its
    coverage; `<type>/score` and `<type>/hallucination_rate` for each of `TYPES`. Of all answers: `length_words`,
    `truncated_fraction` (where that is known), `empty_fraction`, `failed_fraction`, `unparsed_fraction`.
    """
    known = [row["score"] is not None for row in scored]
    found = _rates(scored, known, "")
    found["informativeness"] = _mean(scored, "informativeness", known, "higher")
    for name in TYPES:
        among = [each and row["truth"]["type"] == name for row, each in zip(scored, known, strict=True)]
        found |= _rates(scored, among, f"{name}/")
    everything = [True] * len(scored)
    found["length_words"] = _mean(scored, "num_words", everything, "neutral", fraction=False)
    cut = [isinstance(row.get("truncated"), bool) for row in scored]
    found["truncated_fraction"] = _mean(scored, "truncated", cut, "neutral")
    for name in ("empty", "failed", "unparsed"):
        found[f"{name}_fraction"] = _mean(scored, name, everything, "neutral")
    return found


def _rates(scored: Sequence[Row], among: Sequence[bool], prefix: str) -> dict[str, Measure]:
    return {
        f"{prefix}score": _mean(scored, "score", among, "higher", fraction=False),
        f"{prefix}hallucination_rate": _mean(scored, "hallucinated", among, "lower"),
    }


def _mean(
    scored: Sequence[Row], key: str, among: Sequence[bool], better: Direction, *, fraction: bool = True
) -> Measure:
    return mean_among([row.get(key) for row in scored], among, better=better, fraction=fraction)
