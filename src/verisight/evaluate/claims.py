"""What a free description claims of a picture: objects, places of objects, counts, the scene, relations.

Rules over words, for worlds whose truth is known completely. A sentence part with a negation claims nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from verisight.evaluate.objects import Mention, find_objects
from verisight.evaluate.position import CELLS, placements

Kind = Literal["object", "position", "count", "scene", "relation"]
KINDS: tuple[Kind, ...] = ("object", "position", "count", "scene", "relation")
PLACES = {
    "street": ("street", "city street", "road", "roadside"),
    "kitchen": ("kitchen",),
    "farm": ("farm", "farmyard", "barnyard"),
    "savanna": ("savanna", "savannah", "grassland"),
    "office": ("office", "workplace", "workspace"),
    "park": ("park", "playground"),
    "beach": ("beach", "seaside", "seashore", "shore"),
    "living room": ("living room", "lounge", "sitting room"),
}
_NUMBERS = {
    word: number
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1)
} | {"single": 1, "both": 2, "pair of": 2}
_CLAUSE = re.compile(r"[^.!?;,\n]+")
_BUT = re.compile(r"\b(?:but|however|although|while)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|none|never|nothing|cannot|missing|absent)\b|n['\u2019]t\b", re.I
)
_COUNTED = re.compile(
    rf"\b(?P<number>{'|'.join(sorted(_NUMBERS, reverse=True))}|\d{{1,2}})\s+(?!of\b)(?:[a-z-]+\s+){{0,2}}$",
    re.IGNORECASE,
)
_PLACE_NAMES = {name: place for place, names in PLACES.items() for name in names}
_BEFORE = "an? the this in of shows? outdoor indoor busy small modern sunny".replace(" ", "|")
_AFTER = "with and in where that on at is are has scene setting under near by full".replace(" ", r"\b|")
_PLACE = re.compile(  # a word behind it makes it another thing ("a street sign", "an office chair")
    rf"\b(?:{_BEFORE}) (?P<name>{'|'.join(sorted(_PLACE_NAMES, key=len, reverse=True))})\b(?!\s+(?!{_AFTER}\b)[a-z])",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"^(?:\W|\b(?:is|are|sits?|stands?|lies?|can|be|seen|located|placed|directly|just|to|on|the|a|an|side|which|that|there)\b)*"
    r"\b(?P<word>left|right|above|below|under|underneath|beneath|over)\b(?: side)?(?: (?:of|to|from))?"
    r"(?:\W|\b(?:the|a|an)\b)*$",
    re.I,
)
_SAME = {"under": "below", "underneath": "below", "beneath": "below", "over": "above"}


class Claim(NamedTuple):
    """One claim: of an object its name, of a place (name, cell), of a count (name, number), of a relation (a, r, b)."""

    kind: Kind
    what: tuple[Any, ...]


def claims(text: str) -> list[Claim]:
    """Every different claim of a text, in order.

    object: a category is named; position: `position.placements` puts it into a cell; count: a number in front of it
    ("a dog" says nothing of how many); scene: one of the eight places, as a place; relation: "A is (to the) left of
    B", right of, above, below. Parts of a sentence with a negation ("no", "not", "without", ...) claim nothing.
    """
    found: dict[Claim, None] = {}
    for clause in _clauses(text):
        mentions = find_objects(clause)
        made = [Claim("object", (one.name,)) for one in mentions]
        made += [Claim("count", counted) for counted in _counts(clause, mentions)]
        made += [Claim("relation", told) for told in _relations(clause, mentions)]
        made += [Claim("scene", (place,)) for place in _scenes(clause, mentions)]
        found |= dict.fromkeys(made)
    sentences = ". ".join(_clauses(text, whole=True))
    found |= dict.fromkeys(Claim("position", (one.name, one.cell)) for one in placements(sentences))
    return list(found)


def facts(truth: Mapping[str, Any]) -> list[Claim]:
    """What there is to be told of a scene: its objects, where each is, and the place."""
    placed = [(item["name"], item["cell"]) for item in truth["objects"]]
    found = [Claim("object", (name,)) for name, _ in placed]
    found += [Claim("position", one) for one in placed]
    return [*dict.fromkeys(found), Claim("scene", (truth["place"],))]


def holds(claim: Claim, truth: Mapping[str, Any]) -> bool:
    """Whether a claim is true of a scene {place, objects: [{name, cell}]}."""
    cells: dict[str, list[int]] = {}
    for item in truth["objects"]:
        cells.setdefault(item["name"], []).append(CELLS.index(item["cell"]))
    match claim.kind:
        case "object":
            return claim.what[0] in cells
        case "position":
            name, cell = claim.what
            return CELLS.index(cell) in cells.get(name, [])
        case "count":
            name, number = claim.what
            return len(cells.get(name, [])) == number
        case "scene":
            return claim.what[0] == truth["place"]
        case "relation":
            a, relation, b = claim.what
            return any(_related(x, relation, y) for x in cells.get(a, []) for y in cells.get(b, []))


def _related(a: int, relation: str, b: int) -> bool:
    (row_a, column_a), (row_b, column_b) = divmod(a, 3), divmod(b, 3)
    return {
        "left": column_a < column_b, "right": column_a > column_b, "above": row_a < row_b, "below": row_a > row_b,
    }[relation]  # fmt: skip


def _clauses(text: str, *, whole: bool = False) -> Iterator[str]:
    """Parts of sentences that deny nothing; `whole`: sentences, their denying parts left out."""
    for sentence in re.findall(r"[^.!?\n]+", text):
        parts = [part for clause in _CLAUSE.findall(sentence) for part in _BUT.split(clause)]
        kept = [part for part in parts if part.strip() and not _NEGATION.search(part)]
        if whole and kept:
            yield ", ".join(kept)
        elif not whole:
            yield from kept


def _counts(clause: str, mentions: Sequence[Mention]) -> Iterator[tuple[str, int]]:
    for before, one in pairwise([None, *mentions]):
        assert one is not None
        told = clause[0 if before is None else before.end : one.start]
        match = _COUNTED.search(told)
        if match is not None:
            number = match["number"].lower()
            yield one.name, int(number) if number.isdecimal() else _NUMBERS[number]


def _relations(clause: str, mentions: Sequence[Mention]) -> Iterator[tuple[str, str, str]]:
    for a, b in pairwise(mentions):
        match = _BETWEEN.match(clause[a.end : b.start])
        if match is not None and a.name != b.name:
            word = match["word"].lower()
            yield a.name, _SAME.get(word, word), b.name


def _scenes(clause: str, mentions: Sequence[Mention]) -> Iterator[str]:
    for match in _PLACE.finditer(clause):
        if not any(one.start < match.end("name") and match.start("name") < one.end for one in mentions):
            yield _PLACE_NAMES[match["name"].lower()]
