"""The LLaVA family of layouts: conversations of human and gpt turns beside the name of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.pairing import number
from verisight.data.pictures import group
from verisight.data.readers.base import Desk, Format, compare, noted, pair, picture, prompt
from verisight.data.rows import Unusable
from verisight.data.texts import EQUAL, PLACEHOLDER, clean, shorten
from verisight.types import Answer, ImageRef, Message, Pair

Turn = TypedDict("Turn", {"from": str, "value": str})


class _InstructRow(TypedDict):
    id: NotRequired[str | int | None]
    image: NotRequired[Any]
    conversations: list[Turn]


class _PovidRow(TypedDict):
    id: NotRequired[str | int | None]
    image: NotRequired[Any]
    conversations: list[Turn]
    rejected_conversations: list[Turn]


class _RankedRow(TypedDict):
    id: NotRequired[str | int | None]
    image: NotRequired[Any]
    conversations: list[Turn] | list[list[Turn]]
    output_1: Turn
    output_2: Turn
    preference: int | float | str
    hallucination: NotRequired[bool | int | float | str | None]


def messages(turns: Sequence[Turn]) -> list[Message]:
    """Turns as messages; raises Unusable for a speaker who is neither human (user) nor gpt (assistant)."""
    told = []
    for turn in turns:
        match turn["from"]:
            case "human" | "user":
                told.append(Message("user", turn["value"]))
            case "gpt" | "assistant":
                told.append(Message("assistant", turn["value"]))
            case other:
                raise Unusable("turns out of order", f"found a turn of {shorten(other)}; human and gpt are accepted")
    return told


def _picture(row: Any, desk: Desk) -> tuple[tuple[ImageRef, ...], str]:
    """The row's picture, if it names one, and the group a split keeps together."""
    cell = row.get("image")
    if not cell:
        return (), ""
    if isinstance(cell, str):
        ref = desk.pictures.named(cell)
        return (ref,), group(ref, cell)
    ref, split = picture(cell, desk)  # a table with the pictures inside
    return (ref,), split


def _uid(row: Any) -> str | int:
    return "" if row.get("id") is None else row["id"]


def _instruct(row: _InstructRow, desk: Desk) -> Iterator[Pair]:
    """One supervised pair: the first answer is chosen, further turns are its follow-up. One placeholder, first turn."""
    turns = messages(row["conversations"])
    if len(turns) < 2:
        raise Unusable("turns out of order", f"found {len(turns)} turns; human, gpt, ... is accepted")
    first = turns[0].text
    if row.get("image") and first.count(PLACEHOLDER) != 1:
        many = PLACEHOLDER in first
        reason = "several <image> placeholders" if many else "no <image> placeholder"
        raise Unusable(reason, f"first turn is {shorten(first)}, one <image> is accepted")
    if not row.get("image") and (not desk.text_only or any(PLACEHOLDER in turn.text for turn in turns)):
        raise Unusable("no image", f"id {row.get('id')} names no image: {shorten(first)}")
    told = [clean(turn) for turn in turns]
    images, split = _picture(row, desk)
    made, notes = prompt(turns[:1], images, desk, uid=_uid(row), group=split)
    _check_alternate(told)
    yield Pair(made, Answer(told[1].text, tuple(told[2:])), notes=notes)


def _povid(row: _PovidRow, desk: Desk) -> Iterator[Pair]:
    """Two conversations: what they share is the prompt, and every answer behind it is compared, as POVID trains."""
    chosen, rejected = messages(row["conversations"]), messages(row["rejected_conversations"])
    yield from compared(chosen, rejected, row, desk)


def compared(chosen: list[Message], rejected: list[Message], row: Any, desk: Desk) -> Iterator[Pair]:
    """A pair of two whole conversations about the row's picture; raises Unusable if their questions differ."""
    if [turn.role for turn in chosen] != [turn.role for turn in rejected] or len(chosen) < 2:
        raise Unusable("turns out of order", f"found {len(chosen)} chosen and {len(rejected)} rejected turns")
    asked = [[clean(turn).text for turn in turns[::2]] for turns in (chosen, rejected)]
    if asked[0] != asked[1]:
        raise Unusable("questions differ", f"{shorten(asked[0][-1])} and {shorten(asked[1][-1])}")
    answers = zip(chosen[1::2], rejected[1::2], strict=True)
    parted = next((index for index, (a, b) in enumerate(answers) if a.text.strip() != b.text.strip()), None)
    if parted is None:
        raise Unusable(EQUAL, shorten(chosen[-1].text))
    images, split = _picture(row, desk)
    at = 2 * parted + 1
    made, notes = prompt(chosen[:at], images, desk, uid=_uid(row), group=split)
    yield compare(made, chosen[at:], rejected[at:], notes)


def _check_alternate(turns: Sequence[Message]) -> None:
    roles = [turn.role for turn in turns]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        found = ", ".join(map(repr, roles[:6]))
        raise Unusable("turns out of order", f"found {found}; human, gpt, human, gpt, ... is accepted")


def _ranked(row: _RankedRow, desk: Desk) -> Iterator[Pair]:
    """Two outputs and which of them was preferred. The last gpt turn is a slot for them; earlier turns are history."""
    turns: Any = row["conversations"]
    if turns and isinstance(turns[-1], list):  # as their own preprocessing leaves it
        turns = turns[-1]
    told = messages(turns)
    if not told or told[-1].role != "assistant":
        raise Unusable("turns out of order", "the last turn is not gpt's, whose place the two outputs take")
    preferred = number(row["preference"])
    if preferred not in (1, 2):
        raise Unusable("no preference", f"preference is {shorten(str(row['preference']))}, 1 or 2 is accepted")
    outputs = [row["output_1"]["value"], row["output_2"]["value"]]
    chosen, rejected = outputs if preferred == 1 else outputs[::-1]
    images, split = _picture(row, desk)
    made, notes = prompt(told[:-1], images, desk, uid=_uid(row), group=split)
    yield pair(made, chosen, rejected, noted(notes | {"hallucination": row.get("hallucination")}))


LLAVA_INSTRUCT = Format(
    "llava_instruct", "LLaVA-Instruct-150K and kin (Liu et al. 2023)", "liuhaotian/LLaVA-Instruct-150K",
    "cc-by-4.0 (LLaVA-Instruct-150K itself)",
    _InstructRow, _instruct,
)  # fmt: skip
POVID = Format(
    "povid", "POVID (Zhou et al. 2024)", "YiyangAiLab/POVID_preference_data_for_VLLMs", "cc-by-4.0", _PovidRow, _povid,
)  # fmt: skip
CSR = Format(
    "csr", "CSR (Zhou et al. 2024), POVID's layout", "YiyangZhou/CSR", "", _PovidRow, _povid,
    where=lambda row: False,  # cannot be told from POVID: only by name
)  # fmt: skip
LLAVA_RLHF = Format(
    "llava_rlhf", "LLaVA-RLHF human preferences (Sun et al. 2023)", "zhiqings/LLaVA-Human-Preference-10K",
    "apache-2.0 (project page: cc-by-nc-4.0)", _RankedRow, _ranked,
)  # fmt: skip
