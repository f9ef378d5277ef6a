"""Layouts of training tools: TRL's vision preferences, LLaMA-Factory's sharegpt rows, ms-swift's messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.readers.base import Desk, Format, compare, prompt
from verisight.data.readers.chats import (
    answers,
    check_media,
    check_system,
    messages,
    parted,
    restored,
    seen,
    supervised,
)
from verisight.data.rows import Unusable
from verisight.types import Message, Pair


class _TrlRow(TypedDict):
    chosen: Any
    rejected: Any
    prompt: NotRequired[Any]
    images: NotRequired[Any]
    image: NotRequired[Any]


class _LlamaRow(TypedDict):
    conversations: NotRequired[Any]
    messages: NotRequired[Any]
    chosen: NotRequired[Any]
    rejected: NotRequired[Any]
    images: NotRequired[Any]
    image: NotRequired[Any]
    videos: NotRequired[Any]
    audios: NotRequired[Any]
    system: NotRequired[Any]
    verisight: NotRequired[Any]


class _SwiftRow(TypedDict):
    messages: list[dict[str, Any]]
    rejected_response: NotRequired[Any]
    rejected_messages: NotRequired[Any]
    images: NotRequired[Any]
    image: NotRequired[Any]
    rejected_images: NotRequired[Any]
    videos: NotRequired[Any]
    audios: NotRequired[Any]
    system: NotRequired[Any]
    verisight: NotRequired[Any]


def _trl(row: _TrlRow, desk: Desk) -> Iterator[Pair]:
    """A prompt and two answers. Without a prompt the answers are whole conversations that part behind it."""
    chosen, rejected = answers(row["chosen"], "chosen"), answers(row["rejected"], "rejected")
    given = row.get("prompt")
    if isinstance(given, list):
        before = messages(given, "prompt")
    elif chosen and chosen[0].role == "user":
        at = parted(chosen, rejected)
        before, chosen, rejected = chosen[:at], chosen[at:], rejected[at:]
    elif given is None:
        raise Unusable("no prompt", "accepted: a prompt, or chosen and rejected that begin with the user's turn")
    elif isinstance(given, str):
        before = [Message("user", given)]
    else:
        raise Unusable("wrong type", f"prompt: found {type(given).__name__}; accepted: a string or a list of messages")
    yield _compared(before, chosen, rejected, row, desk)


def _llama_factory(row: _LlamaRow, desk: Desk) -> Iterator[Pair]:
    """Conversations, and a chosen and a rejected answer to the last of them; without those a supervised row."""
    check_media(row, "videos", "audios")
    check_system(row.get("system"))
    key = "messages" if row.get("conversations") is None and "messages" in row else "conversations"
    turns = messages(row.get(key), key)
    compares = "chosen" in row or "rejected" in row
    chosen, rejected = (answers(row.get(side), side) if compares else [] for side in ("chosen", "rejected"))
    if (own := row.get("verisight")) is not None:
        yield restored(own, [*turns, *chosen], rejected, row, desk)
    elif compares:
        yield _compared(turns, chosen, rejected, row, desk)
    else:
        yield supervised(turns, row, desk)


def _ms_swift(row: _SwiftRow, desk: Desk) -> Iterator[Pair]:
    """Messages up to the chosen answer and the rejected one; without it a supervised row.

    Of a supervised row, answers with `"loss": false` are history.
    """
    check_media(row, "videos", "audios", "rejected_images")
    check_system(row.get("system"))
    turns = messages(row["messages"], "messages")
    rejected = _rejected(row)
    own = row.get("verisight")
    if rejected and rejected[0].role == "user":
        at = parted(turns, rejected)
        rejected = rejected[at:]
    else:
        at = len(turns) - len(rejected)
    if own is not None:
        yield restored(own, turns, rejected, row, desk)
    elif rejected or "rejected_response" in row or "rejected_messages" in row:
        yield _compared(turns[: max(0, at)], turns[max(0, at) :], rejected, row, desk)
    else:
        told = [turn for turn in row["messages"] if turn.get("role", turn.get("from")) != "system"]
        trained = [turn.get("loss") is None or bool(turn["loss"]) for turn in told]
        yield supervised(turns, row, desk, trained=trained)


def _rejected(row: _SwiftRow) -> list[Message]:
    """The rejected answer, or the whole conversation with it; empty where the row has none."""
    if row.get("rejected_messages") is not None:
        return messages(row.get("rejected_messages"), "rejected_messages")
    response = row.get("rejected_response")
    return [] if response is None else answers(response, "rejected_response")


def _compared(before: list[Message], chosen: list[Message], rejected: list[Message], row: Any, desk: Desk) -> Pair:
    images, split = seen(row, desk)
    made, notes = prompt(before, images, desk, group=split)
    return compare(made, chosen, rejected, notes)


def _is_trl(row: dict[str, Any]) -> bool:
    return not isinstance(row["chosen"], dict) and ("prompt" in row or isinstance(row["chosen"], list))


def _is_llama_factory(row: dict[str, Any]) -> bool:
    if isinstance(row.get("chosen"), dict):
        return True
    return "conversations" in row and "images" in row


TRL = Format(
    "trl", "TRL's vision preference format", "huggingface/trl, docs/source/dataset_formats.md", "", _TrlRow, _trl,
    where=_is_trl,
)  # fmt: skip
LLAMA_FACTORY = Format(
    "llama_factory", "LLaMA-Factory's sharegpt format", "hiyouga/LLaMA-Factory, data/README.md", "", _LlamaRow,
    _llama_factory, where=_is_llama_factory, one_of=frozenset({"conversations", "messages"}),
)  # fmt: skip
MS_SWIFT = Format(
    "ms_swift", "ms-swift's messages", "modelscope/ms-swift, custom datasets", "", _SwiftRow, _ms_swift,
)  # fmt: skip
