"""How other harnesses read yes or no from an answer, to set their figures beside ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from verisight.evaluate.pope import parse_corrected, parse_official

Said = Literal["yes", "no"]
_MARKS = ';/[]"{}()=+\\_-><@`,?!'  # the others (* : ' and more) stay on their words
_NUMBER = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_STOPS_TAKEN = 32  # the value of re.UNICODE, which VLMEvalKit passes as the count


def parse_lmms_eval(answer: str) -> Said | None:
    """lmms-eval: the whole answer, lower case and without blanks around it, has to be yes or no ("Yes." is wrong)."""
    text = answer.lower().strip()
    return "yes" if text == "yes" else "no" if text == "no" else None


def parse_vlmevalkit(answer: str) -> Said | None:
    """VLMEvalKit without its language model: one of the words yes and no, not both, some marks taken away.

    A mark goes if it stands beside a blank anywhere in the answer (or that holds "1,000"), else it becomes a blank.
    """
    text = asked = answer.lower()
    grouped = _NUMBER.search(asked) is not None
    for mark in _MARKS:
        text = text.replace(mark, "" if grouped or f"{mark} " in asked or f" {mark}" in asked else " ")
    words = set(_STOP.sub("", text, count=_STOPS_TAKEN).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


def parse_opera(answer: str) -> Said:
    """OPERA: no where any word is No, not, no or NO, or ends in n't; else yes."""
    words = answer.replace(".", "").replace(",", "").split(" ")
    return "no" if any(word in ("No", "not", "no", "NO") or word.endswith("n't") for word in words) else "yes"


PARSERS: Mapping[str, Callable[[str], Said | None]] = {
    "official": parse_official,
    "corrected": parse_corrected,
    "lmms-eval": parse_lmms_eval,
    "vlmevalkit": parse_vlmevalkit,
    "opera": parse_opera,
}
