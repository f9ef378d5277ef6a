"""AMBER's words: which name an object, how they are found in a description, and what they count for there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from verisight.data.files import read_json
from verisight.evaluate.fields import short
from verisight.evaluate.objects import singular
from verisight.types import UserError

Similar = Callable[[str, str], float]
Nouns = Callable[[str], list[str]]

SIMILARITY = 0.8  # a word is another one where they are more alike than this

_TOKEN = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_SAFE = re.compile(r"[^\W\d_]+(?:[- ][^\W\d_]+)*")
# Lemmas of AMBER's words that `singular` doesn't know, or gives otherwise than WordNet.
_LEMMAS = {
    "people": "people", "leaves": "leaf", "scarves": "scarf", "shelves": "shelf", "bookshelves": "bookshelf",
    "potatoes": "potato", "tomatoes": "tomato", "kiwis": "kiwi", "neckties": "necktie", "snowmen": "snowman",
}  # fmt: skip


@dataclass(frozen=True)
class Words:
    """Object -> words that may stand for it (relation.json), and words that never count (safe_words.txt)."""

    associated: Mapping[str, tuple[str, ...]]
    safe: frozenset[str]

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word that counts as an object: the keys and the words that may stand for them."""
        return frozenset(self.associated) | {word for words in self.associated.values() for word in words}

    @cached_property
    def folded(self) -> Words:
        """The same words in lower case ("TV" is "tv")."""
        table: dict[str, tuple[str, ...]] = {}
        for name, words in self.associated.items():
            lower = name.casefold()
            table[lower] = (*table.get(lower, ()), *(word.casefold() for word in words))
        return Words(table, frozenset(word.casefold() for word in self.safe))


def read_words(relation: Path, safe_words: Path) -> Words:
    """The official relation.json (object -> list of words) and safe_words.txt (a word a line).

    Raises:
        UserError: not that format.
    """
    table = read_json(relation)
    if not isinstance(table, dict) or not table:
        raise UserError(f"{relation}: holds {short(table)}; accepted is an object of object: list of words")
    for name, words in table.items():
        if not (isinstance(words, list) and all(isinstance(word, str) and word for word in words)):
            raise UserError(f"{relation}: {name} is {short(words)}; accepted is a list of words")
    try:
        lines = safe_words.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{safe_words}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip() and not _SAFE.fullmatch(line.strip()):
            raise UserError(f"{safe_words}: line {number} is {short(line)}; accepted is a word a line")
    safe = frozenset(line.strip() for line in lines if line.strip())
    return Words({name: tuple(words) for name, words in table.items()}, safe)


def noun_finder(words: Words, *, as_written: bool) -> Nouns:
    """Finds the words of the vocabulary in an answer, in the singular, in order, repeats too. Needs no data.

    A stand-in for the official NLTK pipeline (tokens, part of speech, WordNet lemma): only words of the vocabulary are
    kept in the end, so that no parts of speech are needed. It differs where such a word is no noun ("light blue", "he
    parks the train", "the sign can be seen"), which it takes for one, and where WordNet has another lemma.
    Hyphenated words are one token, as in NLTK ("dog-like" is no dog).

    as_written: as in the official pipeline, which doesn't lower the case: "Dogs run" names no dog. Else case doesn't
    count, and a plural that is itself in the vocabulary is found ("sunglasses", "leaves" as the word "leave").
    """
    vocabulary = words.vocabulary if as_written else words.folded.vocabulary

    def written(answer: str) -> list[str]:
        lemmas = (_lemma(token) for token in _TOKEN.findall(answer))
        return [lemma for lemma in lemmas if lemma in vocabulary]

    def lowered(answer: str) -> list[str]:
        found = []
        for token in _TOKEN.findall(unicodedata.normalize("NFKC", answer).casefold()):
            forms = (token, _lemma(token), singular(token))
            found.extend([form for form in forms if form in vocabulary][:1])
        return found

    return written if as_written else lowered


def same_word(a: str, b: str) -> float:
    """1 where two words are the same but for case and blanks, else 0: no similarity at all.

    The official script takes spaCy's en_core_web_lg vectors here. Without them fewer words are forgiven, so that CHAIR
    and Hal are higher and Cover lower than published figures.
    """
    return float(a.strip().casefold() == b.strip().casefold())


def match_official(nouns: Sequence[str], truth: Mapping[str, Any], words: Words, similar: Similar) -> dict[str, Any]:
    """What the nouns of a description count for, by the official rules (see `amber.score`)."""
    objects, likely = truth["objects"], truth["likely"]
    there, expected = _targets(objects, words, own_first=False), _targets(likely, words, own_first=False)
    covered, hit = set[int](), set[int]()
    made_up = []
    for noun in nouns:
        if noun in words.safe:
            continue
        if (at := _first(there, noun)) is not None:
            covered.add(at)
            continue
        for at in (_first(expected, noun), _alike(expected, noun, similar)):
            hit |= set() if at is None else {at}
        if (at := _alike(there, noun, similar)) is not None:
            covered.add(at)
        else:
            made_up.append(noun)
    return _counts(nouns, made_up, objects, covered, likely, hit)


def match_corrected(nouns: Sequence[str], truth: Mapping[str, Any], words: Words, similar: Similar) -> dict[str, Any]:
    """The same, mended (see `amber.score`). `words` are folded, nouns in lower case."""
    every = list(dict.fromkeys(name.casefold() for name in truth["objects"]))
    objects = [name for name in every if name not in words.safe]
    likely = [name for name in dict.fromkeys(name.casefold() for name in truth["likely"]) if name not in every]
    likely = [name for name in likely if name not in words.safe]
    # A word that may stand for an object which is a safe word is not made up; the object itself counts nowhere.
    ordered = objects + [name for name in every if name in words.safe]
    there, expected = _targets(ordered, words, own_first=True), _targets(likely, words, own_first=True)
    nouns = [noun for noun in nouns if noun not in words.safe]
    covered, hit = set[int](), set[int]()
    made_up = []
    for noun in nouns:
        if (at := _first(there, noun)) is not None:
            covered.add(at)
            continue
        at = _first(expected, noun)
        if at is None and (near := _alike(there, noun, similar)) is not None:
            covered.add(near)
            continue
        at = _alike(expected, noun, similar) if at is None else at
        hit |= set() if at is None else {at}
        made_up.append(noun)
    return _counts(nouns, made_up, objects, {at for at in covered if at < len(objects)}, likely, hit)


def _targets(names: Sequence[str], words: Words, *, own_first: bool) -> list[tuple[str, int]]:
    """Words and the object each stands for; the official order has the objects' own names last."""
    own = [(name, at) for at, name in enumerate(names)]
    others = [(word, at) for at, name in enumerate(names) for word in words.associated[name]]
    return own + others if own_first else others + own


def _first(targets: Sequence[tuple[str, int]], noun: str) -> int | None:
    return next((at for word, at in targets if word == noun), None)


def _alike(targets: Sequence[tuple[str, int]], noun: str, similar: Similar) -> int | None:
    return next((at for word, at in targets if similar(noun, word) > SIMILARITY), None)


def _counts(
    nouns: Sequence[str], made_up: list[str], objects: Sequence[str], covered: set[int], likely: Sequence[str],
    hit: set[int],
) -> dict[str, Any]:  # fmt: skip
    found = {"nouns": list(nouns), "made_up": made_up}
    found |= {"covered": [objects[at] for at in sorted(covered)], "hit": [likely[at] for at in sorted(hit)]}
    return found | {
        "num_nouns": len(nouns),
        "num_made_up": len(made_up),
        "num_objects": len(objects),
        "num_covered": len(covered),
        "num_likely": len(likely),
        "num_hit": len(hit),
    }


def _lemma(token: str) -> str:
    return _LEMMAS.get(token) or singular(token)
