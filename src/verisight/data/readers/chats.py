"""Rows of chat messages in the spellings of training tools, and what our own exports carry in them beside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from verisight.data.readers.base import Desk, continued, noted, parse, picture, prompt
from verisight.data.records import to_pair
from verisight.data.rows import Unusable
from verisight.data.texts import EQUAL, PLACEHOLDER, check_unicode, clean, shorten
from verisight.types import ImageRef, Message, Pair

_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


class _Own(TypedDict):
    uid: str
    origin: str
    provenance: str
    split_group: str
    notes: dict[str, Any]
    weights: list[float]
    image_sha256: list[str | None]
    extra_rejected: list[str]
    num_history: int


class _Carrier(TypedDict):
    verisight: _Own


_CARRIER = TypeAdapter(_Carrier)


def messages(turns: Any, key: str) -> list[Message]:
    """Turns of `key` as messages: role and content, or from and value; content is text or a list of parts.

    An image among the parts becomes a placeholder. Raises Unusable; for a system turn that says something too,
    because a prompt has no place for one.
    """
    if not isinstance(turns, list):
        raise Unusable("wrong type", f"{key}: found {shorten(str(turns))}; accepted: a list of messages")
    told = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unusable("wrong type", f"{key}: found {shorten(str(turn))}; accepted: a message")
        role = turn["role"] if "role" in turn else turn.get("from")
        text = _text(turn["content"] if "content" in turn else turn.get("value"), key)
        if role == "system":
            check_system(text)
        elif isinstance(role, str) and role in _ROLES:
            told.append(Message("user" if _ROLES[role] == "user" else "assistant", text))
        else:
            raise Unusable(
                "turns out of order", f"{key}: found a turn of {shorten(str(role))}; user and assistant accepted"
            )
    return told


def answers(value: Any, key: str) -> list[Message]:
    """An answer as messages: a text, one message, or a list of them."""
    if value is None or isinstance(value, str):
        return [Message("assistant", value or "")]
    return messages([value] if isinstance(value, dict) else value, key)


def check_system(text: Any) -> None:
    """Raise Unusable for a system prompt."""
    if text:
        raise Unusable("system prompt", f"{shorten(str(text))}; accepted: turns of user and assistant")


def check_media(row: Any, *keys: str) -> None:
    """Raise Unusable where one of the keys holds something."""
    for key in keys:
        if row.get(key):
            raise Unusable(key, f"{shorten(str(row[key]))}; pictures are accepted")


def cells(row: Any) -> list[Any]:
    """What the row holds of pictures: the list `images`, or the single `image`."""
    found = row.get("images")
    if found is None:
        found = row.get("image")
    return found if isinstance(found, list) else [] if found is None else [found]


def seen(row: Any, desk: Desk) -> tuple[tuple[ImageRef, ...], str]:
    """The row's pictures, and the split group of the first."""
    found = [picture(cell, desk) for cell in cells(row)]
    return tuple(ref for ref, _ in found), found[0][1] if found else ""


def parted(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Where two conversations part: the index of the first answers that differ; raises Unusable if questions do."""
    for index, (one, other) in enumerate(zip(chosen, rejected, strict=False)):
        if one.role != other.role:
            raise Unusable("turns out of order", f"turn {index} is the {one.role}'s and the {other.role}'s")
        if _bare(one) == _bare(other):
            continue
        if one.role == "user":
            raise Unusable("questions differ", f"{shorten(one.text)} and {shorten(other.text)}")
        return index
    if len(chosen) == len(rejected):
        raise Unusable(EQUAL, shorten(chosen[-1].text if chosen else ""))
    raise Unusable("turns out of order", f"{len(chosen)} chosen and {len(rejected)} rejected turns, one goes on alone")


def supervised(turns: Sequence[Message], row: Any, desk: Desk, *, trained: Sequence[bool] = ()) -> Pair:
    """A conversation to learn from; answers before the first `trained` one (one flag a turn) are history."""
    flags = trained or [True] * len(turns)
    learned = [flag for turn, flag in zip(turns, flags, strict=True) if turn.role == "assistant"]
    if True not in learned:
        raise Unusable("no answer", f"{len(turns)} turns, {len(learned)} of the assistant, none to learn from")
    num_before = learned.index(True)
    if not all(learned[num_before:]):
        raise Unusable("untrained turn", "an answer that is not learned from stands behind one that is")
    at = [index for index, turn in enumerate(turns) if turn.role == "assistant"][num_before]
    images, split = seen(row, desk)
    made, notes = prompt(turns[:at], images, desk, group=split)
    return Pair(made, continued(turns[at:]), notes=notes)


def restored(own: Any, turns: Sequence[Message], rejected: Sequence[Message], row: Any, desk: Desk) -> Pair:
    """A pair that we exported, as it was: `turns` are prompt and chosen, `own` is the row's "verisight".

    Raises Unusable where somebody changed the row so that it fits no more.
    """
    if isinstance(own, str):
        try:
            own = json.loads(own)
        except (ValueError, RecursionError) as error:
            raise Unusable("notes unreadable", f"verisight: {shorten(own)} is not JSON") from error
    told = parse(_CARRIER, {"verisight": own})["verisight"]
    noted(told["notes"])
    notes = json.dumps(told["notes"])
    check_unicode(told["uid"], told["origin"], told["provenance"], told["split_group"])
    at = told["num_history"] + 1
    if not 0 < at < len(turns):
        raise Unusable("turns out of order", f"{len(turns)} turns, verisight tells of {at} before the answer")
    found = cells(row)
    first = Message(turns[0].role, turns[0].text.removeprefix(PLACEHOLDER * len(found)))
    before = [first, *turns[1:at]]
    record = {"prompt": _rows(before), "chosen": _rows(turns[at:]), "rejected": _rows(rejected), "images": found}
    return to_pair(told | record | {"notes": notes}, find=desk.pictures.cell)


def _rows(turns: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _bare(turn: Message) -> str:
    return clean(turn).text.strip()


def _text(content: Any, key: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    told = []
    for part in content if isinstance(content, list) else [content]:
        match part:
            case str():
                told.append(part)
            case {"type": "image"}:
                told.append(PLACEHOLDER)
            case {"type": "text", "text": str() as text}:
                told.append(text)
            case _:
                raise Unusable("wrong type", f"{key}: found {shorten(str(part))}; accepted: a text or image part")
    return "".join(told)
