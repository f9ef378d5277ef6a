"""The page of `verisight pairs`: how the pairs were made, in figures, and some of them with their pictures."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from verisight.data.files import write_atomic
from verisight.data.segments import changed_words
from verisight.study import svg
from verisight.study.gallery import Picture, embed
from verisight.study.pairs_facts import BINS, Facts, collect_facts, made_notes, pair_files
from verisight.types import Pair, UserError


class Stretch(NamedTuple):
    """Characters of an answer: whether the other answer lacks them, and whether the model wrote them."""

    text: str
    changed: bool
    written: bool


class Card(NamedTuple):
    """A pair to look at."""

    uid: str
    pictures: tuple[Picture, ...]
    question: str
    chosen: tuple[Stretch, ...]
    rejected: tuple[tuple[Stretch, ...], ...]
    badges: tuple[str, ...]


def write_pairs_page(folder: Path, *, target: Path | None = None, num: int = 24, seed: int = 0) -> Path:
    """Write folder/pairs.html, or `target`: one page without scripts that needs no other file.

    Every pairs file of the folder has a section, with `num` pairs drawn at random by `seed`.

    Raises:
        UserError: the folder has no pairs file, or one cannot be read.
    """
    files = pair_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no pairs.parquet; accepted: a folder that `verisight pairs` wrote to")
    sections = [
        (one, [_card(pair) for pair in one.sample]) for one in (collect_facts(f, num=num, seed=seed) for f in files)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("pairs.html.j2").render(
        title=f"Pairs of {folder.name}", sections=sections, svg=svg, histogram=histogram, seed=seed
    )
    target = target or folder / "pairs.html"
    write_atomic(target, page)
    return target


def histogram(facts: Facts, name: str) -> list[tuple[str, int, float]]:
    """(range, pairs, share of the fullest bin) of the used bins of `similarities` or `edits`."""
    counts = getattr(facts, name)
    most = max(counts.values(), default=1)
    used = range(min(counts, default=0), max(counts, default=0) + 1)
    return [(f"{at / BINS:.2f} to {(at + 1) / BINS:.2f}", counts[at], counts[at] / most) for at in used]


def stretches(text: str, other: str, *, written: list[list[int]]) -> tuple[Stretch, ...]:
    """The text cut where something begins or ends to be changed, or to be written by the model."""
    changed = changed_words(text, other).chosen
    cuts = {0, len(text)} | {at for span in (*changed, *written) for at in span if 0 <= at <= len(text)}
    places = sorted(cuts)
    return tuple(
        Stretch(text[a:b], any(s <= a and b <= e for s, e in changed), any(s <= a and b <= e for s, e in written))
        for a, b in pairwise(places)
    )


def _card(pair: Pair) -> Card:
    notes = made_notes(pair)
    texts = [answer.text for answer in pair.rejected]
    written = [[] for _ in texts[:-1]] + [notes.get("written", [])]
    return Card(
        pair.prompt.uid,
        tuple(embed(ref, alt=f"Picture of pair {pair.prompt.uid}") for ref in pair.prompt.images),
        pair.prompt.text,
        stretches(pair.chosen.text, texts[0] if texts else pair.chosen.text, written=[]),
        tuple(stretches(text, pair.chosen.text, written=spans) for text, spans in zip(texts, written, strict=False)),
        (pair.origin, *_badges(notes)),
    )


def _badges(notes: dict[str, Any]) -> list[str]:
    told = [f"round {notes['round']}"] if "round" in notes else []
    if notes.get("guided") is False:
        told.append("free")
    if isinstance(notes.get("similarity"), int | float):
        told.append(f"similarity {notes['similarity']:.2f}")
    view = notes.get("view", {})
    told += [f"{name} {view[name]}" for name in ("kept", "steps", "overflow", "colour", "text") if name in view]
    told += ["met the token limit"] if notes.get("truncated") else []
    told += [f"{name}: {notes[name]}" for name in ("annotator", "writer") if name in notes]
    return told
