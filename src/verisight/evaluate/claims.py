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
_CLAUSE = re.compile(r"[^.!?;\n]+")
_BUT = re.compile(r"\b(?:but|however|although|while)\b", re.IGNORECASE)
_NEGATION = re.compile(
    r"\b(?:no|not|without|neither|nor|none|never|nothing|cannot|missing|absent|absence|lacks?|lacking|devoid"
    r"|instead of|rather than)\b|n['\u2019]t\b",
    re.I,
)
_STATEMENT = re.compile(  # a part with one of these says something of its own and continues no list
    r"\b(?:is|are|was|were|has|have|can|there|it|they|sits?|stands?|lies?|shows?|only|just|instead|(?:in|on|at) the)\b",
    re.I,
)
_OR = re.compile(r"\bn?or\b", re.I)
_AND = re.compile(r"\s*and\b", re.I)
_VAGUE = re.compile(
    r"\b(?:at (?:least|most)|(?:more|less|fewer) than|up to|about|around|over|nearly|almost|roughly|maybe|perhaps)\s+$",
    re.I,
)
_NO_NUMBER = re.compile(r"\b(?:or|to|more|other)\b", re.I)  # "two or three", "one more": not how many there are
_PAIRS = {"scissors", "skis"}  # of which "a pair of" is one
_COUNTED = re.compile(
    rf"\b(?P<number>{'|'.join(sorted(_NUMBERS, reverse=True))}|\d{{1,2}})\s+(?!of\b)(?:[a-z-]+\s+){{0,2}}$",
    re.IGNORECASE,
)
_PLACE_NAMES = {name: place for place, names in PLACES.items() for name in names}
_BEFORE = "an? the this in of shows? outdoor indoor busy small modern sunny".replace(" ", "|")
_AFTER = "with and in where that on at is are has scene setting area view under near by full while during".replace(
    " ", r"\b|"
)
_NOT_ADJECTIVE = (  # makes it another thing ("a post office", "a car park"), or is no adjective at all
    "post box head car theme amusement skate water trailer ball dog of in on at near by to from with and or is are "
    "like as for next beside behind than"
).replace(" ", "|")
_PLACE = re.compile(  # a word behind it makes it another thing ("a street sign", "an office chair")
    rf"(?:^\W*|\b(?:{_BEFORE}) (?:(?!(?:{_NOT_ADJECTIVE})\b)[a-z-]+,?\s+){{0,2}})"
    rf"(?P<name>{'|'.join(sorted(_PLACE_NAMES, key=len, reverse=True))})\b(?!\s+(?!{_AFTER}\b)[a-z])",
    re.IGNORECASE,
)
_INSIDE = re.compile(  # "the center of the table": a part of a thing, no part of the picture
    r"\b(?:in|at|on) the (?=(?:[a-z]+[ -]){0,2}(?:left|right|center|centre|middle)(?: corner| side)? of "
    r"(?:the|an?|this) (?!(?:whole |entire )?(?:image|picture|photo|photograph|scene|frame|view|grid)\b))",
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
    B", right of, above, below. Parts of a sentence with a negation ("no", "not", "without", ...) claim nothing, nor
    does the rest of a list that is denied ("no dogs, cats, or buses"). "At least two" and "two or three" give no count,
    "the center of the table" no position.
    """
    found: dict[Claim, None] = {}
    for clause in _clauses(text):
        mentions = find_objects(clause)
        made = [Claim("object", (one.name,)) for one in mentions]
        made += [Claim("count", counted) for counted in _counts(clause, mentions)]
        made += [Claim("relation", told) for told in _relations(clause, mentions)]
        found |= dict.fromkeys(made)
    told = list(_clauses(text, whole=True))
    found |= {Claim("scene", (place,)): None for one in told for place in _scenes(one, find_objects(one))}
    sentences = _INSIDE.sub("by the ", ". ".join(told))
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
        kept = [part for clause in _CLAUSE.findall(sentence) for one in _BUT.split(clause) for part in _told(one)]
        if whole and kept:
            yield ", ".join(kept)
        elif not whole:
            yield from kept


def _told(clause: str) -> list[str]:
    """What stands between commas and isn't denied; a denial goes on to the end of the list that it starts."""
    parts = [part for part in clause.split(",") if part.strip()]
    kept, at = [], 0
    while at < len(parts):
        if not _NEGATION.search(parts[at]):
            kept.append(parts[at])
            at += 1
            continue
        at += 1 + _listed(parts[at + 1 :])
    return kept


def _listed(parts: Sequence[str]) -> int:
    """How many of the parts behind a denied one continue its list: up to one with "or", or bare ones to an "and"."""
    for at, part in enumerate(parts):
        if _NEGATION.search(_OR.sub("", part)):
            return 0
        verb, either = _STATEMENT.search(part), _OR.search(part)
        if either is not None and (verb is None or either.start() < verb.start()):
            return at + 1
        if verb is not None:
            return 0
        if _AND.match(part):
            return at + 1
    return 0


def _counts(clause: str, mentions: Sequence[Mention]) -> Iterator[tuple[str, int]]:
    for before, one in pairwise([None, *mentions]):
        assert one is not None
        told = clause[0 if before is None else before.end : one.start]
        match = _COUNTED.search(told)
        if match is not None and not (_VAGUE.search(told[: match.start()]) or _NO_NUMBER.search(match[0])):
            number = match["number"].lower()
            if number == "pair of" and one.name in _PAIRS:
                continue
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
