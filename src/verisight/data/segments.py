"""What a correction changed: words for the eye, token weights for segment-weighted DPO (Yu et al. 2023, RLHF-V)."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from verisight.types import UserError

Mask = NDArray[np.bool_]
Spans = tuple[tuple[int, int], ...]
Element = TypeVar("Element", int, str)

MUFFIN_MIN_MATCH = 3
MAX_EQUAL_PLACES = 100_000
MAX_BITS = 4 * 10**8  # a common subsequence keeps one bit for every pair of elements: 50 MB
INNER = "'’-‐‑"  # noqa: RUF001 - apostrophes and hyphens that may stand inside a word
EMOJI_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)
# scripts that put no blanks between words, by the start of their characters' names: there a character is a word
UNSPACED = (
    *("CJK ", "IDEOGRAPHIC ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA"),
    *("THAI ", "LAO ", "KHMER ", "MYANMAR "),
)
# over the string of `_kind`s: a word | a flag | any other character with its marks, or emoji tied by joiners
WORD = re.compile(r"w[wmfz]*(?:iw[wmfz]*)*|gg?[mfz]*|[cpim][mfz]*(?:(?<=z)p[mfz]*)*")


@dataclass(frozen=True, slots=True)
class Changed:
    """The words that differ, as half-open spans of code points: sorted, disjoint, with an unchanged word between."""

    chosen: Spans
    rejected: Spans

    def as_notes(self) -> dict[str, list[list[int]]]:
        """Plain JSON for `Pair.notes["changed"]`: {"chosen": [[start, end], ...], "rejected": ...}."""
        return {
            "chosen": [list(span) for span in self.chosen],
            "rejected": [list(span) for span in self.rejected],
        }


class TokenMasks(NamedTuple):
    """True where a token differs from the other answer."""

    chosen: Mask  # (tokens of chosen,)
    rejected: Mask  # (tokens of rejected,)


class TokenWeights(NamedTuple):
    """What an answer token's log-prob is multiplied with; the dot product is the answer's weighted log-prob."""

    chosen: NDArray[np.float64]  # (answer tokens of chosen,)
    rejected: NDArray[np.float64]  # (answer tokens of rejected,)


def changed_words(chosen: str, rejected: str) -> Changed:
    """The words of each answer that the other one does not have at that place.

    A word is a run of letters, digits and marks with single apostrophes and hyphens inside, one character of a
    script without blanks (Chinese, Japanese, Thai, ...), or one punctuation mark or emoji. Case counts, blanks and
    invisible characters between words do not. What was only inserted marks one side. Swapping the answers swaps
    the spans.
    """
    sides = chosen, rejected
    places = [_word_spans(text) for text in sides]
    words = [[text[start:end] for start, end in spans] for text, spans in zip(sides, places, strict=True)]
    masks = _differing(words[0], words[1], min_match=1)
    merged = [
        tuple((spans[first][0], spans[last - 1][1]) for first, last in _runs(mask))
        for spans, mask in zip(places, masks, strict=True)
    ]
    return Changed(*merged)


def changed_tokens(chosen: Sequence[int], rejected: Sequence[int], *, min_match: int = 1) -> TokenMasks:
    """The tokens of each answer that the other one does not have at that place.

    The common start and end are set aside, then the longest common stretches are kept (`difflib`, no token taken
    for junk; a longest common subsequence for very long or looping answers). A stretch shorter than `min_match`
    (at least 1) between two changes counts as changed. What was only inserted marks one side. Swapping the answers
    swaps the masks.
    """
    assert min_match >= 1, f"a match has at least one token, not {min_match}"
    return TokenMasks(*_differing(list(chosen), list(rejected), min_match=min_match))


def changed_tokens_muffin(chosen: Sequence[int], rejected: Sequence[int]) -> TokenMasks:
    """The changed tokens as the code released with RLHF-V finds them (github.com/thunlp/Muffin, `diff_lib`).

    chosen, rejected: whole rows, prompt and image tokens included. That code compares rows of a padded batch, and
    the padding can end up in a change: for its very numbers hand the rows over padded. It departs from
    `changed_tokens` in five ways:

    - the first token is left out (targets are shifted by one), so its place is never marked;
    - in a chosen row of 200 tokens and more, a token that fills over 1 % of it starts no match (`autojunk`);
    - a match of fewer than 3 tokens counts as changed, wherever it stands;
    - a change that is empty on one side, a pure insertion or deletion, marks nothing at all;
    - the rejected row is the first sequence, and swapping the answers may give another result.
    """
    after, before = list(chosen)[1:], list(rejected)[1:]
    masks = TokenMasks(np.zeros(len(chosen), dtype=np.bool_), np.zeros(len(rejected), dtype=np.bool_))
    *blocks, end = SequenceMatcher(None, before, after).get_matching_blocks()
    kept = [(0, 0, 0), *(block for block in blocks if block.size >= MUFFIN_MIN_MATCH), end]
    for (old, new, size), (next_old, next_new, _) in pairwise(kept):
        old, new = old + size, new + size
        if next_old > old and next_new > new:
            masks.rejected[old + 1 : next_old + 1] = True
            masks.chosen[new + 1 : next_new + 1] = True
    return masks


@dataclass(frozen=True, slots=True)
class Segments:
    """How much more a changed token counts: the weighting of dense DPO (DDPO).

    With y_u the unchanged and y_c the changed answer tokens, both compared with the other answer of the pair,

        log pi(y|x) = (1/N) [sum over y_u of log p  +  gamma * sum over y_c of log p],   N = |y_u| + gamma |y_c|,

    and without 1/N if not `average`. Policy and reference model take the same weights. Yu et al. 2023, "RLHF-V:
    Towards Trustworthy MLLMs via Behavior Alignment from Fine-grained Correctional Human feedback".

    The published settings drifted, and they only belong together as a set: the paper has gamma 5 with the average
    and beta 0.5; the scripts for the later release of 5.7 thousand pairs have gamma 1.1 without the average and
    beta 0.1; the code's own default is gamma 3. Without the average log-ratios grow with the length of the answer,
    so that the same beta means something else.

    Args:
        gamma: weight of a changed token against 1 of an unchanged one; above 0, finite.
        average: divide by N.
        muffin_compat: find the changes as the released code does, see `changed_tokens_muffin`.

    Raises:
        UserError: gamma is not a finite number above 0.
    """

    gamma: float = 5.0
    average: bool = True
    muffin_compat: bool = False

    def __post_init__(self) -> None:
        number = isinstance(self.gamma, int | float) and not isinstance(self.gamma, bool)
        if not number or not 0 < self.gamma <= sys.float_info.max:
            raise UserError(f"gamma, the weight of a changed token: found {self.gamma!r}, wanted a finite number > 0")

    def weights(
        self,
        chosen_ids: Sequence[int],
        rejected_ids: Sequence[int],
        *,
        chosen_answer: Sequence[bool],
        rejected_answer: Sequence[bool],
    ) -> TokenWeights:
        """One weight for every answer token, in order, 1/N included: the dot product with log p is log pi(y|x).

        chosen_ids, rejected_ids: token ids of the rows. `muffin_compat` looks at all of them and needs the prompt;
        otherwise only answer tokens are compared, and the rows may as well hold nothing else.
        chosen_answer, rejected_answer: as long as the ids, True at the answer tokens (those with a log-prob).
        """
        rows = [np.asarray(ids, dtype=np.int64) for ids in (chosen_ids, rejected_ids)]
        answers = [np.asarray(answer, dtype=np.bool_) for answer in (chosen_answer, rejected_answer)]
        for row, answer in zip(rows, answers, strict=True):
            assert row.shape == answer.shape, f"{answer.size} answer flags for {row.size} tokens"
        if self.muffin_compat:
            assert not any(answer[:1].any() for answer in answers), "nothing precedes the first token of a whole row"
            whole = changed_tokens_muffin(rows[0].tolist(), rows[1].tolist())
            changed = [mask[answer] for mask, answer in zip(whole, answers, strict=True)]
        else:
            chosen, rejected = (row[answer].tolist() for row, answer in zip(rows, answers, strict=True))
            changed = changed_tokens(chosen, rejected)
        return TokenWeights(*(self._weigh(mask) for mask in changed))

    def _weigh(self, changed: Mask) -> NDArray[np.float64]:
        weights = np.where(changed, float(self.gamma), 1.0)
        return weights / weights.sum() if self.average and weights.size else weights


@lru_cache(maxsize=8192)
def _kind(char: str) -> str:
    """One letter: w of a word, c word by itself, i inner mark, m mark, f invisible, z joiner, g flag, p else, blank."""
    category, code = unicodedata.category(char), ord(char)
    if char.isspace():
        return " "
    if char in INNER:
        return "i"
    if char == "\N{ZERO WIDTH JOINER}":
        return "z"
    if category[0] == "M" or code in EMOJI_TONES:
        return "m"
    if category == "Cf":
        return "f"
    if code in FLAG_LETTERS:
        return "g"
    if not char.isalnum():
        return "p"
    return "c" if category != "Nd" and unicodedata.name(char, "").startswith(UNSPACED) else "w"


def _word_spans(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in WORD.finditer("".join(map(_kind, text)))]


def _differing(one: list[Element], two: list[Element], *, min_match: int) -> tuple[Mask, Mask]:
    """Masks over both lists. `difflib` depends on the order of its arguments, so the order is made canonical."""
    if (len(one), one) > (len(two), two):
        second, first = _differing(two, one, min_match=min_match)
        return first, second
    start = _num_common(one, two)
    end = _num_common(one[start:][::-1], two[start:][::-1])
    masks = np.zeros(len(one), dtype=np.bool_), np.zeros(len(two), dtype=np.bool_)
    middles = one[start : len(one) - end], two[start : len(two) - end]
    inner = [mask[start : len(mask) - end] for mask in masks]
    for mask in inner:
        mask[:] = True
    for first, second, size in _matching_blocks(*middles):
        if size >= min_match:
            inner[0][first : first + size] = False
            inner[1][second : second + size] = False
    return masks


def _matching_blocks(one: list[Element], two: list[Element]) -> list[tuple[int, int, int]]:
    """Stretches (start in one, start in two, length) that match, in order and not adjacent.

    `difflib` takes the longest first, which keeps phrases together but is cubic in the worst case (two answers that
    loop). Above MAX_EQUAL_PLACES pairs of equal elements, a text of some 3,000 words against another, it is a
    longest common subsequence instead; above MAX_BITS, two texts of 20,000 words, they have nothing in common.
    """
    num_one, num_two = Counter(one), Counter(two)
    if sum(num * num_two[element] for element, num in num_one.items()) <= MAX_EQUAL_PLACES:
        return [tuple(block) for block in SequenceMatcher(None, one, two, autojunk=False).get_matching_blocks()]
    blocks: list[tuple[int, int, int]] = []
    if len(one) * len(two) > MAX_BITS:
        return blocks  # all of it counts as changed
    for first, second in _common_subsequence(one, two):
        start, other, size = blocks[-1] if blocks else (-1, -1, 0)
        if (first, second) == (start + size, other + size):
            blocks[-1] = start, other, size + 1
        else:
            blocks.append((first, second, 1))
    return blocks


def _common_subsequence(one: list[Element], two: list[Element]) -> list[tuple[int, int]]:
    """Index pairs of a longest common subsequence, len(one) operations on integers of len(two) bits.

    Bit j of rows[i] is 0 where element j of `two` makes the subsequence with one[:i + 1] longer (Hyyrö 2004,
    "Bit-parallel LCS-length computation revisited").
    """
    places: dict[Element, int] = {}
    for j, element in enumerate(two):
        places[element] = places.get(element, 0) | 1 << j
    full = (1 << len(two)) - 1
    row, rows = full, []
    for element in one:
        equal = row & places.get(element, 0)
        row = (row + equal | row - equal) & full
        rows.append(row)
    pairs = []
    i, j = len(one), len(two)
    while i and j:
        if rows[i - 1] >> j - 1 & 1:
            j -= 1
            continue
        i -= 1
        if i == 0 or rows[i - 1] >> j - 1 & 1:
            j -= 1
            pairs.append((i, j))
    return pairs[::-1]


def _num_common(one: Sequence[Element], two: Sequence[Element]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Half-open index ranges of neighbouring True values."""
    return [run.span() for run in re.finditer(rb"\x01+", mask.tobytes())]
