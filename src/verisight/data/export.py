"""Pairs as files of other training tools, LLaMA-Factory and ms-swift: JSON lines, pictures as files beside them.

LLaMA-Factory, declared in `dataset_info.json`:
    preference: {"conversations": [{"from": "human" | "gpt", "value"}, ...], "chosen": {"from": "gpt", "value"},
        "rejected": {"from": "gpt", "value"}, "images": [path, ...], "verisight"}
    supervised: {"messages": [{"role": "user" | "assistant", "content"}, ...], "images", "verisight"}
ms-swift:
    preference: {"messages": [..., the chosen answer], "rejected_response": text, "images", "verisight"}
    supervised: {"messages", "images", "verisight"}, the assistant's messages with "loss": false in the history.

The first user turn begins with one "<image>" for every picture; nothing else is added to any text. Relative paths
are meant from the file's folder. "verisight" is a JSON object written as text (as an object its keys would become
columns of ever new types): uid, origin, provenance, split_group, notes, weights, image_sha256 (one a picture, null
where unknown), extra_rejected (answers beyond the first rejected one) and num_history (messages before the question).
The tools leave it unread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from verisight.data.export_rows import Exported, Layout, Placer, file_name, peek, turns_after, turns_before, write_rows
from verisight.data.files import read_json, write_json
from verisight.data.texts import PLACEHOLDER
from verisight.types import Message, Pair, UserError

_PREFERENCE_ENTRY = {
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
}
_SUPERVISED_ENTRY = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def to_llama_factory(
    folder: Path, pairs: Iterable[Pair], *, name: str = "verisight", copy_images: bool = False
) -> Exported:
    """Write `<name>.jsonl` and its entry in `dataset_info.json`: use with `dataset_dir: folder, dataset: name`.

    All pairs have a rejected answer (for `stage: dpo`) or none has (`stage: sft`). Picture files stay where they
    are; those held as bytes or in an archive are written unchanged to `images/<sha256>.<ext>`. Rows name all by
    absolute path. With `copy_images` all are written there and named from the folder, which may then be moved.
    Other entries of `dataset_info.json` are kept. In a supervised row LLaMA-Factory trains on the history too
    unless told `mask_history: true`.

    Left out and counted are pairs with a missing picture, equal answers, or <image>, <video> or <audio> in a text,
    where the tool would look for a medium.

    Raises:
        UserError: no usable pair, pairs of both kinds, the first picture behind 10 MiB of rows, a name with other
            characters than letters, digits and ._-, or that `dataset_info.json` gives to another layout.
    """
    pairs, preference = peek(pairs)
    path, info = folder / file_name(name), folder / "dataset_info.json"
    entry = {"file_name": path.name, **(_PREFERENCE_ENTRY if preference else _SUPERVISED_ENTRY)}
    entries = _with_entry(info, name, entry)
    row = _llama_preference if preference else _llama_supervised
    layout = Layout(row, preference, marks=(PLACEHOLDER, "<video>", "<audio>"))
    exported = write_rows(path, pairs, layout, Placer(folder, copy=copy_images, relative=copy_images))
    write_json(info, entries)
    return replace(exported, files=(*exported.files, info))


def to_ms_swift(folder: Path, pairs: Iterable[Pair], *, name: str = "verisight", copy_images: bool = False) -> Exported:
    """Write `<name>.jsonl`: use with `--dataset folder/<name>.jsonl`.

    As `to_llama_factory`, but pictures are always named by absolute path (ms-swift looks from the folder it is
    started in), the history of a supervised row carries `"loss": false`, and of marks only <image> is looked for.

    Raises:
        UserError: as there.
    """
    pairs, preference = peek(pairs)
    layout = Layout(_swift_preference if preference else _swift_supervised, preference, marks=(PLACEHOLDER,))
    placer = Placer(folder, copy=copy_images, relative=False)
    return write_rows(folder / file_name(name), pairs, layout, placer)


def _with_entry(info: Path, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The data sets declared in `info`, this one among them."""
    entries = read_json(info) if info.exists() else {}
    if not isinstance(entries, dict):
        raise UserError(f"{info}: found a JSON {type(entries).__name__}, an object of data sets is accepted")
    if entries.get(name, entry) != entry:
        raise UserError(
            f"{info}: {name!r} is already declared as {json.dumps(entries[name])}, this export would be "
            f"{json.dumps(entry)}; accepted: another name, or a folder without that entry"
        )
    return entries | {name: entry}


def _marked(pair: Pair, turns: list[Message]) -> list[Message]:
    """`turns` with the placeholders in front."""
    first = turns[0]
    return [Message(first.role, PLACEHOLDER * len(pair.prompt.images) + first.text), *turns[1:]]


def _messages(turns: Iterable[Message]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _llama_preference(pair: Pair) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {
        "conversations": [{"from": names[turn.role], "value": turn.text} for turn in _marked(pair, turns_before(pair))],
        "chosen": {"from": "gpt", "value": pair.chosen.text},
        "rejected": {"from": "gpt", "value": pair.rejected[0].text},
    }


def _llama_supervised(pair: Pair) -> dict[str, Any]:
    return {"messages": _messages(_marked(pair, [*turns_before(pair), *turns_after(pair)]))}


def _swift_preference(pair: Pair) -> dict[str, Any]:
    return _llama_supervised(pair) | {"rejected_response": pair.rejected[0].text}


def _swift_supervised(pair: Pair) -> dict[str, Any]:
    row = _llama_supervised(pair)
    for place, message in enumerate(row["messages"]):
        if message["role"] == "assistant":
            message["loss"] = place > len(pair.prompt.history)
    return row
