"""What a check found as one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from verisight.data.check import Checked, Sample
from verisight.data.check_text import cautions, listings, verdict
from verisight.data.encoded import ImageError, where_is
from verisight.data.files import write_atomic
from verisight.data.images import load_image
from verisight.data.segments import Spans, changed_words
from verisight.types import Answer, ImageRef, Message, Pair

LARGEST = 384  # pixels: the longer side of a picture on the page
_SMALL = 96  # pixels: pictures with no longer side are shown enlarged, pixel by pixel
_MAX_TEXT = 6000  # characters of an answer that are shown
_MAX_NOTE = 600
_HEADLINE_NOTES = ("chosen_model", "rejected_model", "chosen_score", "rejected_score", "category", "rule")
_HIDDEN_NOTES = ("changed", "dataset", "license", "placeholder", *_HEADLINE_NOTES)


class Piece(NamedTuple):
    """A stretch of text. The pieces of a text, joined, are the text."""

    text: str
    changed: bool


class Picture(NamedTuple):
    """A thumbnail as a data URI, or the problem why there is none. Sizes in pixels as shown."""

    alt: str
    uri: str = ""
    width: int = 0
    height: int = 0
    pixelated: bool = False
    problem: str = ""


class Card(NamedTuple):
    """One sample pair, made for looking at."""

    place: str
    uid: str
    pictures: tuple[Picture, ...]
    history: tuple[Message, ...]
    question: str
    chosen: tuple[Piece, ...]
    rejected: tuple[tuple[Piece, ...], ...]
    badges: tuple[str, ...]
    notes: tuple[tuple[str, str], ...]


def write_page(checked: Checked, *, target: Path, seed: int) -> None:
    """Write the page, atomically. `seed` is told as that of the sample."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    facts = checked.facts
    page = environment.get_template("check_page.html.j2").render(
        facts=facts, name=Path(facts.taken.path).name, verdict=verdict(facts), cautions=list(cautions(facts)),
        listings=list(listings(facts)), cards=list(map(card, checked.samples)), seed=seed, version=version("verisight"),
    )  # fmt: skip
    write_atomic(target, page.encode(errors="replace"))


def card(sample: Sample) -> Card:
    """A sample with thumbnails and the changed words marked; of several rejected answers, each against the chosen."""
    pair = sample.pair
    chosen, rejected = _spoken(pair.chosen), [_spoken(answer) for answer in pair.rejected]
    spans = [changed_words(chosen, text) for text in rejected]
    notes = {key: value for key, value in pair.notes.items() if key not in _HIDDEN_NOTES}
    return Card(
        sample.place,
        _clip(pair.prompt.uid, 120),
        tuple(thumbnail(ref, alt=f"Picture {number} of row {sample.place}") for number, ref in _numbered(pair)),
        tuple(Message(turn.role, _clip(turn.text, _MAX_TEXT)) for turn in pair.prompt.history),
        _clip(pair.prompt.text, _MAX_TEXT),
        _pieces(chosen, spans[0].chosen if spans else ()),
        tuple(_pieces(text, one.rejected) for text, one in zip(rejected, spans, strict=True)),
        tuple(_badges(pair)),
        tuple((key.replace("_", " "), _clip(_plain(value), _MAX_NOTE)) for key, value in notes.items()),
    )


def thumbnail(ref: ImageRef, *, alt: str) -> Picture:
    """The picture, no side longer than LARGEST, without its metadata; one that cannot be read becomes a note."""
    try:
        image = load_image(ref)
    except ImageError as error:
        return Picture(alt, problem=f"{error.reason} ({where_is(ref)})")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    small = max(image.size) <= _SMALL
    kind: Literal["PNG", "JPEG"] = "PNG" if small else "JPEG"
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"optimize": True} if small else {"quality": 82}))
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    factor = max(1, LARGEST // 2 // max(image.size))
    return Picture(alt, uri, image.width * factor, image.height * factor, pixelated=factor > 1)


def _numbered(pair: Pair) -> list[tuple[int, ImageRef]]:
    return list(enumerate(pair.prompt.images, start=1))


def _spoken(answer: Answer) -> str:
    """The answer and its further turns as one text."""
    turns = (f"\n\n{turn.role.capitalize()}: {turn.text}" for turn in answer.follow_up)
    return _clip("".join([answer.text, *turns]), _MAX_TEXT)


def _clip(text: str, num: int) -> str:
    return text if len(text) <= num else f"{text[:num]} [... {len(text) - num:,} characters more]"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pieces(text: str, spans: Spans) -> tuple[Piece, ...]:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [Piece(text[at:start], False), Piece(text[start:end], True)]
        at = end
    return tuple(piece for piece in (*pieces, Piece(text[at:], False)) if piece.text)


def _badges(pair: Pair) -> Sequence[str]:
    """Short notes: models with their scores, the category, the rule, the licence."""
    notes, badges = pair.notes, []
    for side in ("chosen", "rejected"):
        told = [_plain(notes[key]) for key in (f"{side}_model", f"{side}_score") if notes.get(key) is not None]
        if told:
            badges.append(f"{side}: {', '.join(told)}")
    badges += [_plain(notes[key]) for key in ("category", "rule", "license") if notes.get(key)]
    return [_clip(badge, 120) for badge in badges]
