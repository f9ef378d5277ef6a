"""The official CHAIR pipeline from a text to objects (Rohrbach et al. 2018), with its faults, and a corrected one.

Tokens are NLTK's, singular forms textblob's (a port of the rules that the official script uses). Both take a list of
synonyms, ours or one in the official format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from verisight.evaluate.objects import CATEGORIES, Mention, singular, words_for
from verisight.types import UserError

Synonyms = Mapping[str, str]  # word -> category

# Two words that count as one. What singular forms do to them is part of the rules ("wine glas").
_PAIRS = {
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light",
    "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove",
    "tennis racket", "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier",
    "potted plant", "laptop computer", "stove top oven", "home plate", "train track",
}  # fmt: skip
_ANIMALS = {
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub",
}  # fmt: skip
_DOUBLES = (
    {pair: pair for pair in _PAIRS}
    | {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS}
    | {f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")}
    | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
)
_CHUNK = re.compile(r"\S+")
_STOP = re.compile(r"(?<=[^.]\.)(?=[)\";}\]*:@'({\[!?])")  # where the splitter ends a sentence inside a chunk
_WORD = re.compile(r"([^\W\d_]+)(?:['\u2019]s\b)?")
_JOINT = re.compile(r"\s+|-")


class _Token(NamedTuple):
    word: str
    start: int
    end: int


@cache
def own_synonyms() -> Synonyms:
    """Our list as the official pipeline can use it: a plural category name ("skis") is known by its singular too."""
    found = {}
    for name in CATEGORIES:
        for word in (name, *words_for(name)):
            found[word] = name
            found.setdefault(singular(word), name)
    return found


@cache
def read_synonyms(path: Path) -> Synonyms:
    """A list in the official format: a line a category, its name first, commas and blanks between words.

    Words are kept as the official script splits them, at ", ": one behind a comma without a blank stays joined, one
    behind two blanks keeps a blank in front and is never found.

    Raises:
        UserError: a line without a word, a first word that is none of COCO's categories, or a category twice.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}); accepted: CHAIR's synonyms.txt") from error
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        words = line.strip().split(", ")
        name = words[0].strip()
        if name not in CATEGORIES:
            raise UserError(f"{path}: line {number} begins with {name!r}; accepted: one of COCO's 80 category names")
        if name in seen:
            raise UserError(f"{path}: line {number} is {name!r} again, first in line {seen[name]}; accepted: once")
        seen[name] = number
        found |= dict.fromkeys((name, *words[1:]), name)
    if not found:
        raise UserError(f"{path}: holds no words; accepted: CHAIR's synonyms.txt")
    return found


def find_mentions_official(text: str, synonyms: Synonyms) -> list[Mention]:
    """Objects as the official script finds them, in order; repeats count.

    Its faults: a singular "bus" is never found (it becomes "bu"); only two words in a row from a fixed list count as
    one, so of longer names a part may count or nothing; "orange" is a fruit wherever it stands; a negated object
    counts; in a text with a toilet no seat counts. A stop in front of a blank or a mark ("**A dog.**") is taken off its
    word, where NLTK's sentence splitter (whose data can't be shipped) leaves those of abbreviations and numbers.
    """
    tokens = list(_merged(list(_tokens(_lower(text)))))
    words = {token.word for token in tokens}
    if {"toilet", "seat"} <= words:
        tokens = [token for token in tokens if token.word != "seat"]
    return [
        Mention(synonyms[one.word], one.start, one.end, text[one.start : one.end])
        for one in tokens
        if one.word in synonyms
    ]


def find_mentions_corrected(text: str, synonyms: Synonyms) -> list[Mention]:
    """Objects by the same list without these faults: names of any length, the longest first, in any case and number."""
    phrases, longest = _phrases(tuple(synonyms.items()))
    tokens = list(_WORD.finditer(text))
    words = [singular(token[1].lower()) for token in tokens]
    joined = [bool(_JOINT.fullmatch(text[a.end() : b.start()])) for a, b in pairwise(tokens)] + [False]
    found, at = [], 0
    while at < len(tokens):
        for length in range(min(longest, len(tokens) - at), 0, -1):
            name = phrases.get(tuple(words[at : at + length]))
            if name is not None and all(joined[at : at + length - 1]):
                start, end = tokens[at].start(), tokens[at + length - 1].end(1)
                found.append(Mention(name, start, end, text[start:end]))
                break
        else:
            length = 1
        at += length
    return found


@cache
def _phrases(items: tuple[tuple[str, str], ...]) -> tuple[dict[tuple[str, ...], str], int]:
    table = {tuple(singular(one) for one in word.lower().split()): name for word, name in items if word.strip()}
    return table, max(map(len, table))


def _tokens(text: str) -> Iterator[_Token]:
    for chunk in _CHUNK.finditer(text):
        for word, start, end in _chunk(chunk[0]):
            yield _Token(word, chunk.start() + start, chunk.start() + end)


@lru_cache(maxsize=200_000)
def _chunk(text: str) -> tuple[_Token, ...]:
    """Tokens of what stands between two blanks: the rules don't look further, and texts repeat themselves."""
    found, first = [], 0
    for part in _STOP.split(text):
        spans = _tokenizer().span_tokenize(part)
        found += [_Token(_singular(part[start:end]), first + start, first + end) for start, end in spans]
        first += len(part)
    return tuple(found)


def _lower(text: str) -> str:
    """In lower case with every character in its place: the dotted capital I alone would become two."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.replace("\u0130", "I").lower()


def _merged(tokens: Sequence[_Token]) -> Iterator[_Token]:
    at = 0
    while at < len(tokens):
        both = _DOUBLES.get(f"{tokens[at].word} {tokens[at + 1].word}") if at + 1 < len(tokens) else None
        if both is None:
            yield tokens[at]
            at += 1
        else:
            yield _Token(both, tokens[at].start, tokens[at + 1].end)
            at += 2


@cache
def _tokenizer() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


@cache
def _singular(word: str) -> str:
    from textblob.en.inflect import singularize

    return singularize(word)
