"""How much of a benchmark can be trusted: what was missing, failed or couldn't be read, and when that is too much."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

MAX_BAD_FRACTION = 0.02
_WORD = re.compile(r"[^\W\d_]+")
_MANY_WORDS = 8
# Hardly an English sentence of eight words does without all of these, and no other language in Latin letters has them.
_ENGLISH = {
    "the", "are", "were", "and", "with", "this", "that", "there", "its", "their", "have", "from", "not", "which",
    "who", "your", "they", "appears", "shows",
}  # fmt: skip


def not_english(text: str) -> bool:
    """Whether an answer is in another language, as far as its letters and smallest words tell.

    True where less than half of the letters are Latin, or where eight words or more hold none of the words that
    English sentences are held together by. Short answers in Latin letters pass ("Oui" is a word to the scorers).
    """
    letters = [char for char in unicodedata.normalize("NFKC", text) if char.isalpha()]
    if not letters:
        return False
    if 2 * sum(char < "\u0250" for char in letters) < len(letters):
        return True
    words = [word.lower() for word in _WORD.findall(text)]
    return len(words) >= _MANY_WORDS and _ENGLISH.isdisjoint(words)


def count(scored: Sequence[Mapping[str, Any]], *, joined: Mapping[str, int] | None = None) -> dict[str, int]:
    """Items by what is wrong with them.

    `num_items`, then `missing` to `no_id` as `answers.join` counts them, then `empty`, `not_english`, and for
    judged rows `failed` (the judge could not be asked) and `unparsed` (its words give no score, or, without a judge,
    the answer's do not).
    """
    missing = (joined or {}).get("missing", 0)
    counts = {"num_items": len(scored) + missing} | dict(joined or {})
    counts["empty"] = sum(not row["answer"].strip() for row in scored)
    counts["not_english"] = sum(not_english(row["answer"]) for row in scored)
    counts["failed"] = sum(bool(row.get("failed")) for row in scored)
    counts["unparsed"] = sum(_unparsed(row) for row in scored)
    counts["unusable"] = missing + sum(_unusable(row) for row in scored)
    return counts


def refusal(counts: Mapping[str, int], *, limit: float = MAX_BAD_FRACTION) -> str:
    """Why no headline is given, or "": more than `limit` of the items are unusable (missing to unparsed, each once)."""
    share = counts["unusable"] / max(counts["num_items"], 1)
    if share <= limit:
        return ""
    reasons = ("missing", "empty", "not_english", "failed", "unparsed")
    told = ", ".join(f"{counts[reason]} {reason.replace('_', ' ')}" for reason in reasons if counts.get(reason))
    found = f"{counts['unusable']} of {counts['num_items']} items ({share:.1%}) are unusable ({told})"
    return f"{found}; accepted: at most {limit:.1%}"


def _unusable(row: Mapping[str, Any]) -> bool:
    answer = row["answer"]
    return not answer.strip() or not_english(answer) or bool(row.get("failed")) or _unparsed(row)


def _unparsed(row: Mapping[str, Any]) -> bool:
    """Scorers without a judge that read yes or no say `said: None` where they can't."""
    return bool(row.get("unparsed")) or ("said" in row and row["said"] is None)
