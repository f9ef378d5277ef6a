"""The page of `verisight pairs`: how the pairs were made, in figures, and some of them with their pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from verisight.data.files import write_atomic
from verisight.data.segments import Spans, changed_words
from verisight.study import svg
from verisight.study.gallery import Picture, embed
from verisight.study.pairs_counts import Shares, Similarities
from verisight.study.pairs_facts import PairsFacts, collect_facts, pair_files, percent, resolved_in_words, spoken
from verisight.study.pairs_notes import Told, told_of
from verisight.study.report import SHOWN_FIRST
from verisight.types import Message, Pair, UserError

_MAX_TEXT = 6000  # characters of an answer that are shown
_MAX_BADGE = 120
_MAX_MARKS = 3  # thresholds that are drawn, those of most answers


class Stretch(NamedTuple):
    """Characters of an answer: whether the other answer lacks them in that place, and whether the model wrote them."""

    text: str
    changed: bool
    written: bool


class Shown(NamedTuple):
    """An answer to look at. `label` says which it is."""

    label: str
    stretches: tuple[Stretch, ...]


class Card(NamedTuple):
    """A pair to look at. The chosen answer is the first one."""

    uid: str
    pictures: tuple[Picture, ...]
    history: tuple[Message, ...]
    question: str
    answers: tuple[Shown, ...]
    badges: tuple[str, ...]


class Figure(NamedTuple):
    """A drawing of ours (SVG), what it shows, and its numbers: a row for every place on its axis."""

    title: str
    drawing: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(NamedTuple):
    """One pairs file."""

    facts: PairsFacts
    headline: str
    overview: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    cards: tuple[Card, ...]
    marks_written: bool


def write_pairs_page(
    folder: Path,
    *,
    target: Path | None = None,
    num: int = 24,
    seed: int = 0,
    found: Sequence[PairsFacts] | None = None,
) -> Path:
    """Write folder/pairs.html, or `target`: one page without scripts that needs no other file and no network.

    Every pairs file of the folder has a section, with `num` of its pairs drawn at random by `seed`. `found`: what
    `collect_facts` gave for them, where it is known already.

    Raises:
        UserError: the folder has no pairs file, or one of them has no pair that can be read.
    """
    files = pair_files(folder)
    if not files:
        raise UserError(f"{folder}: holds no pairs.parquet; accepted: a folder that `verisight pairs` wrote to")
    if found is None:
        found = [collect_facts(file, num=num, seed=seed) for file in files]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("pairs.html.j2").render(
        name=folder.name, sections=list(map(section, found)), seed=seed, shown_first=SHOWN_FIRST,
        version=version("verisight"),
    )  # fmt: skip
    target = target or folder / "pairs.html"
    write_atomic(target, page.encode(errors="replace"))
    return target


def section(facts: PairsFacts) -> Section:
    """A file's facts, made for looking at."""
    alike = facts.made.similarities if facts.made else None
    if alike:
        headline = f"Answers that differ enough from the chosen one: {resolved_in_words(alike)}."
    elif facts.edits:
        headline = f"{percent(facts.edits.mean)} of the words of the two answers differ."
    else:
        headline = ""
    cards = tuple(map(card, facts.sample))
    marks_written = any(one.written for shown in cards for answer in shown.answers for one in answer.stretches)
    return Section(facts, headline, tuple(_overview(facts)), tuple(_figures(facts)), cards, marks_written)


def card(pair: Pair) -> Card:
    """A pair with its pictures, changed words marked: of several rejected answers, each against the chosen one."""
    told, _ = told_of(pair)
    chosen, texts = spoken(pair.chosen), [spoken(answer) for answer in pair.rejected]
    answers = [Shown("Chosen" if texts else "Answer", stretches(chosen, texts[0] if texts else chosen))]
    for at, (text, weight) in enumerate(zip(texts, pair.weights, strict=True)):
        written = told[at].written if at in told else None
        weighed = f", weight {weight:g}" if len(texts) > 1 else ""
        answers.append(Shown(f"Rejected{weighed}", stretches(text, chosen, written=written or ())))
    badges = [pair.origin]
    for one in told.values():
        badges += _making(one)
    for name in ("annotator", "verdict", "num_samples", "writer"):
        if pair.notes.get(name):
            badges.append(f"{name.removeprefix('num_')}: {_plain(pair.notes[name])}")
    return Card(
        _clip(pair.prompt.uid, _MAX_BADGE),
        tuple(embed(ref, alt=f"Picture of pair {_clip(pair.prompt.uid, _MAX_BADGE)}") for ref in pair.prompt.images),
        tuple(Message(turn.role, _clip(turn.text, _MAX_TEXT)) for turn in pair.prompt.history),
        _clip(pair.prompt.text, _MAX_TEXT),
        tuple(answers),
        tuple(_clip(badge, _MAX_BADGE) for badge in badges if badge),
    )


def stretches(text: str, other: str, *, written: Spans = ()) -> tuple[Stretch, ...]:
    """The text cut wherever a changed word or something that the model wrote begins or ends.

    Joined they are the text, or the first 6,000 characters of it and how many more there are. `written`: in order.
    """
    changed = changed_words(text, other).chosen
    num = min(len(text), _MAX_TEXT)
    cuts = sorted({0, num, *(at for span in (*changed, *written) for at in span if at < num)})
    shown = [Stretch(text[a:b], _inside(a, changed), _inside(a, written)) for a, b in pairwise(cuts)]
    if num < len(text):
        shown.append(Stretch(f" [... {len(text) - num:,} characters more]", False, False))
    return tuple(shown)


def _inside(at: int, spans: Spans) -> bool:
    return any(start <= at < end for start, end in spans)


def _making(told: Told) -> Iterator[str]:
    """How an answer was made, in badges."""
    yield f"round {told.round}{'' if told.guided else ', unguided'}"
    if told.similarity is not None:
        yield f"similarity {told.similarity:.2f}"
    view = {key: value for key, value in told.view.items() if key != "kind"}
    if view.keys() == {"kept", "of"}:
        numbers = f" {_plain(view['kept'])} of {_plain(view['of'])} visible"
    else:
        numbers = " " + ", ".join(f"{key} {_plain(value)}" for key, value in view.items())
    yield f"{_plain(told.view.get('kind', ''))}{numbers.rstrip()}"
    if told.written is not None and told.num_characters:
        share = sum(end - start for start, end in told.written) / told.num_characters
        yield f"{percent(share)} written by the model"
    if told.truncated:
        yield "cut off at the token limit"


def _overview(facts: PairsFacts) -> Iterator[tuple[str, str]]:
    """The numbers of a file that have no figure, as rows of name and value."""
    yield "Pairs", f"{facts.num:,}"
    yield "From", ", ".join(f"{one.name} ({one.num:,})" for one in facts.origins)
    for name, groups in (("Annotator", facts.annotators), ("Rows that could not be read", facts.unread)):
        if groups:
            yield name, ", ".join(f"{one.name} ({one.num:,})" for one in groups)
    for one in facts.left_out:
        yield f"Without a pair ({one.file})", f"{one.reason} ({one.num:,})"
    if facts.num_several:
        yield "With several rejected answers", f"{facts.num_several:,}"
    if facts.num_supervised:
        yield "Without a rejected answer", f"{facts.num_supervised:,}"
    if facts.num_misfit:
        yield "Answers with notes that don\u2019t fit them", f"{facts.num_misfit:,}; they are in no figure"
    for name, words in (("Words, chosen", facts.chosen), ("Words, rejected", facts.rejected)):
        if words:
            yield name, f"mean {words.mean:.1f}, median {words.median:g}"
    if facts.made:
        for name, groups in (("View", facts.made.views), ("Guidance", facts.made.guidances)):
            if groups:
                yield name, ", ".join(f"{one.name} ({one.num:,})" for one in groups)
        share = percent(facts.made.num_truncated / facts.made.num)
        yield "Cut off at the token limit", f"{share} ({facts.made.num_truncated:,} of {facts.made.num:,})"


def _figures(facts: PairsFacts) -> Iterator[Figure]:
    alike = facts.made.similarities if facts.made else None
    if alike:
        yield _rounds(alike)
        yield _similarities(alike)
    if facts.edits:
        note = "Words that the other answer doesn\u2019t have in that place, among all words of both"
        yield _shares(facts.edits, title="Share of words that differ", of="words", note=note)
    if facts.made and facts.made.written:
        note = "Characters that the model wrote itself, among all of the rejected answer"
        yield _shares(facts.made.written, title="Share written by the model", of="characters", note=note)


def _rounds(alike: Similarities) -> Figure:
    title = "Resolved after each round"
    points = [svg.Point(one.number, one.resolved, one.free) for one in alike.rounds]
    note = f"Share of {alike.num_examples:,} examples whose answer is below its threshold of similarity"
    if any(point.hollow for point in points):
        note += "; hollow: written freely, kept whatever its similarity"
    if alike.num_similar:
        note += f"; {alike.num_similar:,} were kept although still similar"
    if alike.num_unpaired:
        note += f"; {alike.num_unpaired:,} gave no pair"
    rows = tuple(
        (f"{one.number}{', unguided' if one.free else ''}", f"{one.num:,}", f"{one.num_resolved:,}",
         percent(one.resolved), "\u2013" if one.similarity is None else f"{one.similarity:.3f}")
        for one in alike.rounds
    )  # fmt: skip
    header = ("Round", "Taken in it", "of them resolved", "Resolved after it", "Median similarity")
    return Figure(title, svg.rounds_chart(points, title=title), f"{note}.", header, rows)


def _similarities(alike: Similarities) -> Figure:
    title = "Similarity to the chosen answer"
    marks = [svg.Mark(one.eps, f"threshold {one.eps:g}") for one in alike.thresholds]
    unlike = {mark.value: mark for mark in marks[:_MAX_MARKS] if alike.bins[0].low <= mark.value <= 1}
    encoders = sorted({one.encoder or "not named" for one in alike.thresholds})
    note = f"Cosine similarity of the {alike.num:,} answers that were taken, median {alike.median:.3f}"
    kinds = "encoders, whose numbers don\u2019t compare" if len(encoders) > 1 else "encoder"
    note += f"; {kinds}: {', '.join(encoders)}."
    drawing = svg.histogram(alike.bins, title=title, x_label="cosine similarity", marks=list(unlike.values()))
    rows = tuple((f"{one.low:.2f} to {one.high:.2f}", f"{one.num:,}") for one in alike.bins if one.num)
    return Figure(title, drawing, note, ("Similarity", "Answers"), rows)


def _shares(shares: Shares, *, title: str, of: str, note: str) -> Figure:
    drawing = svg.histogram(shares.bins, title=title, x_label=f"share of {of}", percent=True)
    rows = tuple((f"{100 * one.low:.0f} to {100 * one.high:.0f} %", f"{one.num:,}") for one in shares.bins if one.num)
    return Figure(title, drawing, f"{note}: {percent(shares.mean)} on average.", ("Share", "Answers"), rows)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _clip(text: str, num: int) -> str:
    return text if len(text) <= num else f"{text[:num]} [... {len(text) - num:,} characters more]"
