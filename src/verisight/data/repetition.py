"""How much of a text was said before in it."""

from __future__ import annotations

import re
import unicodedata

# scripts without blanks between words: Thai to Myanmar, Khmer, kana, Han; every letter counts as a word there
_WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    r"|[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]+"
)


def repetition(text: str, n: int = 4) -> float:
    """Share of a text's runs of n words that stand in it before, in [0, 1]; 0 for fewer than n words.

    1 less the number of different n-grams over that of all: seq-rep-n of Welleck et al. 2020 ("Neural text generation
    with unlikelihood training"). Case and punctuation do not count; where no blanks part words, letters are counted.
    """
    assert n >= 1, f"n {n}"
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall("".join(one for one in plain if not unicodedata.category(one).startswith("M")))
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
