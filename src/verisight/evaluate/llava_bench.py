"""LLaVA-Bench, in the wild and COCO (Liu et al. 2023): a judge scores a reference answer and the model's, 1 to 10."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from verisight.data.files import read_jsonl
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.rubric import check_shown, fill
from verisight.evaluate.stats import Direction, Measure, mean_among, ratio_measure
from verisight.types import Decoding, ImageRef, Request, UserError

Protocol = Literal["official", "corrected", "both-orders"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Row = dict[str, Any]
Scores = tuple[float, float]  # of the answer shown first and second
DECODING = Decoding(max_new_tokens=1024, temperature=0.0)
JUDGE_DECODING = Decoding(max_new_tokens=1024, temperature=0.2)
CATEGORIES = ("conv", "detail", "complex")
LOWEST, HIGHEST = 1, 10
UNREAD: Scores = (-1.0, -1.0)
SYSTEM = "You compare answers to questions about pictures, carefully and without favour."
TEMPLATE = """What is known of the picture:
{context}

Question: {question}

Answer of assistant 1:
{first}

Answer of assistant 2:
{second}

Score both answers from 1 to 10, ten the best: are they right by what is known of the picture, do they say what was
asked, in useful detail, and do they make nothing up? Their order and length are no reasons. Begin with a line that
holds the two scores alone, assistant 1's first, a blank between them. Then say in a few sentences why."""
VISION_TEMPLATE = TEMPLATE.replace("What is known of the picture:\n{context}\n\n", "").replace(
    "by what is known of the picture", "by the picture shown"
)
_FIELDS = ("context", "question", "first", "second")
_NAMED = re.compile(r"\b(?:assistant|answer|model|response)s?\s*(?:#|no\.?)?\s*[12ab]\b(?:'s)?")
_OF_TEN = re.compile(r"\s*(?:/|out of)\s*10\b(?![.,]\d)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w%]|\.\d)")


def read_truths(questions: Path, context: Path, answers: Path) -> dict[str, dict[str, Any]]:
    """The three official files, JSON lines: questions, captions by picture, the reference's answers.

    In the wild `caption` is a text or a list of texts, in COCO `captions` is a list, with `instances` (boxes) beside.

    Returns:
        question_id -> cluster (the picture) and truth: question, category (conv, detail, complex), context, reference,
        image.

    Raises:
        UserError: a key lacks or has another value, an id twice, or a question without context or reference answer.
    """
    contexts: dict[str, str] = {}
    for at, row in enumerate(read_jsonl(context)):
        where = f"{context}: row {at}"
        contexts[text_field(row, "image", where)] = _context(row, where)
    references: dict[str, str] = {}
    for at, row in enumerate(read_jsonl(answers)):
        where = f"{answers}: row {at}"
        references[text_field(row, "question_id", where, numbers=True)] = text_field(row, "text", where)
    found: dict[str, dict[str, Any]] = {}
    for at, row in enumerate(read_jsonl(questions)):
        where = f"{questions}: row {at}"
        uid, image = text_field(row, "question_id", where, numbers=True), text_field(row, "image", where)
        if uid in found:
            raise UserError(f"{where}.question_id is {uid} a second time; ids must be unique")
        if row.get("category") not in CATEGORIES:
            raise UserError(f"{where}.category is {short(row.get('category'))}; accepted are {', '.join(CATEGORIES)}")
        if image not in contexts:
            raise UserError(f"{where}.image is {image!r}, which {context} has no caption of")
        if uid not in references:
            raise UserError(f"{where}: {answers} has no answer to question {uid}")
        truth = {
            "question": text_field(row, "text", where), "category": row["category"], "context": contexts[image],
            "reference": references[uid], "image": image,
        }  # fmt: skip
        found[uid] = {"cluster": image, "truth": truth}
    if not found:
        raise UserError(f"{questions}: holds no questions; accepted is a question a line")
    return found


def request(
    uid: str,
    truth: Mapping[str, Any],
    answer: str,
    *,
    template: str | None = None,
    vision: bool = False,
    images: Sequence[ImageRef] = (),
    swapped: bool = False,
) -> Request:
    """The judge's question: the reference is assistant 1, as officially, or with `swapped` assistant 2.

    A `template` has {question}, {first}, {second} and, unless the judge sees `images` (`vision`), {context}.

    Raises:
        UserError: a template that lacks one of these or has others, or `vision` and no picture.
    """
    check_shown("llava_bench", uid, truth["image"], vision=vision, images=images)
    both = [truth["reference"], answer.strip() or "(empty)"]
    first, second = reversed(both) if swapped else both
    values = {"context": truth["context"], "question": truth["question"], "first": first, "second": second}
    ours = VISION_TEMPLATE if vision else TEMPLATE
    needed = _FIELDS[1:] if vision else _FIELDS
    text = fill("llava_bench", template or ours, values, needed=needed, accepted=_FIELDS)
    return Request(uid, text, tuple(images) if vision else (), SYSTEM)


def parse_official(reply: str) -> Scores:
    """The first line, commas as blanks, has to be two numbers with one blank between; else -1 and -1.

    So "8,7" is read, and "8, 7", "8 7 ", "Scores: 8 7" and "**8 7**" are -1, which the official means include.
    """
    parts = reply.split("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = map(float, parts)
    except ValueError:
        return UNREAD
    return first, second


def parse_corrected(reply: str) -> Scores | None:
    """The two scores from 1 to 10 of the first line that holds two numbers; None where none does or they are others.

    Names ("Assistant 1: 8, Assistant 2: 7"), "/10", bold and full-width characters don't matter.
    """
    text = _OF_TEN.sub(" ", _NAMED.sub(" ", re.sub("[*_`#|]", " ", unicodedata.normalize("NFKC", reply).lower())))
    for line in text.splitlines():
        numbers = [float(number) for number in _NUMBER.findall(line)]
        if len(numbers) == 2:
            return (numbers[0], numbers[1]) if all(LOWEST <= one <= HIGHEST for one in numbers) else None
        if numbers:
            return None
    return None


def score(rows: Sequence[Row], *, protocol: Protocol = "official") -> list[Row]:
    """Adds `reference_score`, `model_score` (1..10), `position_bias`, `failed`, `unparsed`, `num_words`, `empty`.

    Both scores are means over the judge's `replies` (reference first) and, under "both-orders", `replies_swapped`
    (model first); `position_bias` is then how much more whoever stands first gets, else None. Under "official" a reply
    that can't be read is -1 for both, as published (and the row is `unparsed`); under the others it counts nowhere, and
    a row is `unparsed` where an order has no reply that can be read. Where the judge failed (both-orders: in one of
    them) there are no scores.

    Raises:
        UserError: an unknown protocol, or a row without `replies`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"llava_bench: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    return [row | _found(row, protocol) for row in rows]


def _found(row: Row, protocol: Protocol) -> Row:
    columns = ("replies", "replies_swapped") if protocol == "both-orders" else ("replies",)
    orders = []
    for column in columns:
        if not row.get(column):
            raise UserError(f"llava_bench: row {row['uid']} has no `{column}`; ask a judge")
        orders.append([reply for reply in row[column] if reply is not None])
    parse: Callable[[str], Scores | None] = parse_official if protocol == "official" else parse_corrected
    read = [[pair for reply in replies if (pair := parse(reply)) is not None] for replies in orders]
    failed = not all(orders)
    unparsed = not failed and (not all(read) or (protocol == "official" and UNREAD in read[0]))
    found: Row = {"reference_score": None, "model_score": None, "position_bias": None}
    if all(read):
        firsts = [sum(pair[0] for pair in pairs) / len(pairs) for pairs in read]
        seconds = [sum(pair[1] for pair in pairs) / len(pairs) for pairs in read]
        found = {"reference_score": firsts[0], "model_score": seconds[0], "position_bias": None}
        if len(read) == 2:
            found["reference_score"] = (firsts[0] + seconds[1]) / 2
            found["model_score"] = (seconds[0] + firsts[1]) / 2
            found["position_bias"] = (firsts[0] - seconds[0] + firsts[1] - seconds[1]) / 2
    about = {"num_words": len(row["answer"].split()), "empty": not row["answer"].strip()}
    return found | {"failed": failed, "unparsed": unparsed} | about


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """LLaVA-Bench's metrics before they are summed; answers without scores are in the shares alone.

    `relative`: the model's summed scores / the reference's (published times 100; above 1 the model is better), also
    `<category>/relative`; `reference/score` and `model/score`: means (published times 10); `position_bias`: points that
    standing first is worth; of all answers `length_words`, `empty_fraction`, `failed_fraction`, `unparsed_fraction`.
    """
    known = [row["model_score"] is not None for row in scored]
    found = {"relative": _relative(scored, known)}
    for name in CATEGORIES:
        among = [each and row["truth"]["category"] == name for each, row in zip(known, scored, strict=True)]
        found[f"{name}/relative"] = _relative(scored, among)
    found["reference/score"] = _mean(scored, "reference_score", known, "neutral", fraction=False)
    found["model/score"] = _mean(scored, "model_score", known, "higher", fraction=False)
    biased = [row["position_bias"] is not None for row in scored]
    found["position_bias"] = _mean(scored, "position_bias", biased, "neutral", fraction=False)
    everything = [True] * len(scored)
    found["length_words"] = _mean(scored, "num_words", everything, "neutral", fraction=False)
    for name in ("empty", "failed", "unparsed"):
        found[f"{name}_fraction"] = _mean(scored, name, everything, "neutral")
    return found


def _relative(scored: Sequence[Row], among: Sequence[bool]) -> Measure:
    over, under = (
        [float(row[key]) if each else 0.0 for row, each in zip(scored, among, strict=True)]
        for key in ("model_score", "reference_score")
    )
    return ratio_measure(over, under, better="higher", fraction=False)._replace(num_items=sum(among))


def _mean(
    scored: Sequence[Row], key: str, among: Sequence[bool], better: Direction, *, fraction: bool = True
) -> Measure:
    return mean_among([row.get(key) for row in scored], among, better=better, fraction=fraction)


def _context(row: Mapping[str, Any], where: str) -> str:
    captions = row.get("caption", row.get("captions"))
    texts = [captions] if isinstance(captions, str) else captions
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise UserError(f"{where}.caption is {short(captions)}; accepted is a text or a list of texts")
    boxes = row.get("instances")
    if isinstance(boxes, list):
        named = [box for box in boxes if isinstance(box, dict) and isinstance(box.get("category"), str)]
        texts = [*texts, *(f"{box['category']}: {box.get('bbox')}" for box in named)]
    return "\n".join(texts)
