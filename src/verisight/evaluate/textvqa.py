"""TextVQA: questions about writing in pictures, scored by how many of ten people gave the same answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from verisight.data.files import read_json
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.stats import Measure, ratio_measure
from verisight.types import UserError

Protocol = Literal["official", "official-ocr", "corrected", "corrected-ocr"]
TEMPLATE = "{question}\nReply with one word or a short phrase and nothing else."
TEMPLATE_OCR = (
    "{question}\nWords that an OCR program read in the image: {tokens}\n"
    "Reply with one word or a short phrase and nothing else."
)
PEOPLE = 10
_OCR_LINE = re.compile(r"\bOCR\b[^\n]*:")
_MARKS = ';/[]"{}()=+\\_-><@`!'
_DOT = re.compile(r"\.(?!\d)")
_MAX_DOTS = 32
_ARTICLES = ("a", "an", "the")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)} | {"none": "0"}
_SHORT_FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""


def _without_one_apostrophe(forms: str) -> dict[str, str]:
    return {form[:at] + form[at + 1 :]: form for form in forms.split() for at, char in enumerate(form) if char == "'"}


_CONTRACTIONS = _without_one_apostrophe(_SHORT_FORMS + "somebody'd")
_CONTRACTIONS_OFFICIAL = _without_one_apostrophe(_SHORT_FORMS) | {"somebody'd": "somebodyd"}


def read_truths(path: Path) -> dict[str, dict[str, Any]]:
    """What people answered, from the official annotation file (TextVQA_0.5.1_val.json).

    Returns:
        question_id as text -> {"cluster": image_id, "truth": {question, image_id, image, answers (10 texts)}}.

    Raises:
        UserError: not that format, a question_id twice, or not ten answers (the test split has none).
    """
    found: dict[str, dict[str, Any]] = {}
    for at, row in enumerate(_data(path)):
        where = f"{path}: data[{at}]"
        number, image, question = (
            text_field(row, key, where, numbers=True) for key in ("question_id", "image_id", "question")
        )
        answers = row.get("answers")
        if not (isinstance(answers, list) and len(answers) == PEOPLE and all(isinstance(a, str) for a in answers)):
            raise UserError(f"{where}.answers is {short(answers)}; accepted is a list of {PEOPLE} texts")
        if number in found:
            raise UserError(f"{where}.question_id is {number} a second time; ids must be unique")
        truth = {"question": question, "image_id": image, "image": f"{image}.jpg", "answers": answers}
        found[number] = {"cluster": image, "truth": truth}
    return found


def read_tokens(path: Path) -> dict[str, tuple[str, ...]]:
    """image_id -> the words read in it, from an official OCR file (TextVQA_Rosetta_OCR_v0.2_val.json).

    Raises:
        UserError: not that format, or an image twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for at, row in enumerate(_data(path)):
        where = f"{path}: data[{at}]"
        image, tokens = text_field(row, "image_id", where, numbers=True), row.get("ocr_tokens")
        if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
            raise UserError(f"{where}.ocr_tokens is {short(tokens)}; accepted is a list of texts")
        if image in found:
            raise UserError(f"{where}.image_id is {image} a second time; ids must be unique")
        found[image] = tuple(tokens)
    return found


def prompt(question: str, *, tokens: Sequence[str] | None = None, template: str | None = None) -> str:
    """What the model is asked, with the words read in the picture (`tokens`) or, if None, without them.

    `template` has {question} and, exactly where `tokens` are given, {tokens}.

    Raises:
        UserError: a template that lacks one of them or has {tokens} for none.
    """
    if template is None:
        template = TEMPLATE if tokens is None else TEMPLATE_OCR
    if "{question}" not in template or ("{tokens}" in template) != (tokens is not None):
        wanted = "{question}, and no {tokens}" if tokens is None else "{question} and {tokens}"
        raise UserError(f"textvqa: the template is {short(template)}; accepted is one with {wanted}")
    values = {"question": question, "tokens": ", ".join(tokens or ()) or "(nothing)"}
    return re.sub(r"\{(question|tokens)\}", lambda match: values[match[1]], template)


def normalise_official(answer: str) -> str:
    """The official processor (M4C, as in MMF and LLaVA), with its faults.

    A comma or question mark joins its neighbours ("red,blue" is "redblue"); a mark is dropped where it touches
    a blank anywhere in the answer and is a blank otherwise; only the first 32 dots go, and a dot in front of a
    digit stays; an answer of articles ("A") is empty; "hes" becomes "he's", but "he's" becomes "he 's".
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ")
    plain = text
    for mark in _MARKS:
        plain = plain.replace(mark, "" if f"{mark} " in text or f" {mark}" in text else " ")
    words = [_NUMBERS.get(word, word) for word in _DOT.sub("", plain, count=_MAX_DOTS).split()]
    return " ".join(_CONTRACTIONS_OFFICIAL.get(word, word) for word in words if word not in _ARTICLES)


def normalise_corrected(answer: str) -> str:
    """The same, repaired: marks part words (only a comma between digits joins), dots go however many, "'s" stays on.

    A star (bold) is a mark too, full-width characters and curly apostrophes are read as plain ones, and
    articles stay where they are all there is.
    """
    text = unicodedata.normalize("NFKC", answer).lower().replace("\u2019", "'")
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    words = _DOT.sub("", re.sub(f"[{re.escape(_MARKS)},?*]", " ", text)).split()
    words = [_NUMBERS.get(word, word) for word in words]
    words = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_CONTRACTIONS.get(word, word) for word in words)


def soft_accuracy(num_same: int) -> float:
    """Mean over the ten people, each left out in turn, of min(1, others who said the same / 3).

    0, 0.3, 0.6, 0.9 and then 1 for `num_same` 0, 1, 2, 3 and more (Singh et al. 2019, after Antol et al. 2015).
    """
    left_out = num_same * min(1.0, max(0, num_same - 1) / 3)
    return (left_out + (PEOPLE - num_same) * min(1.0, num_same / 3)) / PEOPLE


def score(rows: Sequence[dict[str, Any]], *, protocol: Protocol = "official") -> list[dict[str, Any]]:
    """Adds `said` (normalised answer), `num_same` (people who said it), `score` (0..1), `empty` and `num_words`.

    Protocols ending in "-ocr" are for prompts that held the words read in the picture, the others for prompts
    that didn't: LLaVA-1.5's published figures are "official-ocr". The rule is the same. Under "official" an
    answer that is empty once normalised equals people's answers that are empty too; "corrected" never rewards it.

    Raises:
        UserError: an unknown protocol, or a row whose `question` or `prompt` (as it was asked) isn't of its kind.
    """
    if protocol not in get_args(Protocol):
        raise UserError(f"textvqa: protocol is {protocol!r}; accepted are {', '.join(get_args(Protocol))}")
    official, with_ocr = protocol.startswith("official"), protocol.endswith("-ocr")
    normalise = normalise_official if official else normalise_corrected
    scored = []
    for row in rows:
        asked = next((row[key] for key in ("prompt", "question") if key in row), None)
        if asked is not None and (_OCR_LINE.search(asked) is not None) != with_ocr:
            other = protocol.removesuffix("-ocr") if with_ocr else f"{protocol}-ocr"
            holds = "no OCR words" if with_ocr else "OCR words"
            raise UserError(
                f"textvqa: row {row['uid']} was asked with {holds}, protocol is {protocol!r}; use {other!r}"
            )
        said = normalise(row["answer"])
        num_same = sum(normalise(answer) == said for answer in row["truth"]["answers"])
        num_same = num_same if official or said else 0
        found = {"said": said, "num_same": num_same, "score": soft_accuracy(num_same)}
        scored.append(row | found | {"empty": not said, "num_words": len(row["answer"].split())})
    return scored


def measures(scored: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """accuracy: mean soft accuracy; empty_fraction: answers with nothing left; length_words: mean words an answer."""
    ones = [1.0] * len(scored)

    def column(key: str) -> list[float]:
        return [float(row[key]) for row in scored]

    return {
        "accuracy": ratio_measure(column("score"), ones, better="higher"),
        "empty_fraction": ratio_measure(column("empty"), ones, better="neutral"),
        "length_words": ratio_measure(column("num_words"), ones, better="neutral", fraction=False),
    }


def _data(path: Path) -> list[dict[str, Any]]:
    table = read_json(path)
    rows = table.get("data") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: `data` is {short(rows)}; a TextVQA file is an object with a list of rows there")
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}: data[{at}] is {short(row)}; accepted is an object")
    return rows
