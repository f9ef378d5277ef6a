"""Natural language feedback of DRESS (Chen et al. 2024): an answer, its critique, and answers refined after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.pairing import number
from verisight.data.readers.base import Desk, Format, picture, prompt, ruled
from verisight.data.rows import Unusable
from verisight.types import Message, Pair

_Turn = TypedDict(
    "_Turn",
    {
        "user": str | None,
        "model": str | None,
        "rating": NotRequired[Any],
        "critique NLF": NotRequired[Any],
        "critique_NLF": NotRequired[Any],
    },
)


class _Row(TypedDict):
    image_id: str | int
    interaction: list[_Turn]


def _read(row: _Row, desk: Desk) -> Iterator[Pair | Unusable]:
    """Answers of all turns, compared as answers to the first question, by the desk's rule on their ratings.

    The set gives ratings and no pairs; this pairing is ours. A refined answer was written in view of the feedback:
    `chosen_turn` and `rejected_turn` of the notes, 0-based, say which turn an answer is from.
    """
    turns = row["interaction"]
    name = str(row["image_id"])
    name = f"{int(name):012d}.jpg" if name.isascii() and name.isdecimal() and len(name) <= 12 else name
    if not turns:
        raise Unusable("turns out of order", "interaction has no turn")
    ref, split = picture(name, desk)
    uid = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    made, notes = prompt([Message("user", turns[0]["user"] or "")], (ref,), desk, uid=uid, group=split)
    if len(turns) == 1:
        raise Unusable("fewer than two answers", "one turn, so nothing was refined", fault=False)
    scores = [number(turn.get("rating")) for turn in turns]
    for first, second, reason in desk.rule(scores):
        if reason is not None:
            yield Unusable(reason, f"turns {first} and {second}", fault=False)
            continue
        told = {
            "chosen_score": scores[first], "rejected_score": scores[second], "rule": str(desk.rule),
            "chosen_turn": first, "rejected_turn": second,
            "critique": _critiques(chosen=turns[first], rejected=turns[second]) or None,
        }  # fmt: skip
        yield ruled(made, turns[first]["model"], turns[second]["model"], notes | told)


def _critiques(**turns: Any) -> dict[str, str]:
    """What was said of either answer."""
    found = {side: turn.get("critique NLF") or turn.get("critique_NLF") for side, turn in turns.items()}
    return {side: text for side, text in found.items() if isinstance(text, str) and text}


NLF = Format("nlf", "NLF of DRESS (Chen et al. 2024)", "YangyiYY/LVLM_NLF", "", _Row, _read, scored=True)
