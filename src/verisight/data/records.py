"""Pairs as a Parquet file: the columns of TRL's vision preference format, plus our own.

A supervised row has no rejected messages and may hold follow-up turns in `chosen`. A picture keeps its path
or its bytes, an entry of a zip archive the address `zip://entry::archive` that `datasets` understands.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verisight.data.encoded import ZIP, encoded_bytes, zip_address, zip_ref
from verisight.data.files import replacing
from verisight.data.rows import Unusable
from verisight.data.texts import EQUAL, PLACEHOLDER, check_roles, check_text, shorten
from verisight.types import Answer, ImageRef, Message, Pair, Prompt

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("uid", pa.string()),
        ("origin", pa.string()),
        ("provenance", pa.string()),
        ("split_group", pa.string()),
        ("license", pa.string()),
        ("image_sha256", pa.list_(pa.string())),
        ("extra_rejected", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("notes", pa.string()),
        ("rejected_images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ]
)
# What `datasets` reads the columns' features from: without it pictures would load as structs of bytes and path.
_TEXT = {"dtype": "string", "_type": "Value"}
_TURNS = {"feature": {"role": _TEXT, "content": _TEXT}, "_type": "List"}
_FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    **dict.fromkeys(("prompt", "chosen", "rejected"), _TURNS),
    **dict.fromkeys(("uid", "origin", "provenance", "split_group", "license"), _TEXT),
    "image_sha256": {"feature": _TEXT, "_type": "List"},
    "extra_rejected": {"feature": _TEXT, "_type": "List"},
    "weights": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
    "notes": _TEXT,
    "rejected_images": {"feature": {"_type": "Image"}, "_type": "List"},
}
assert list(_FEATURES) == SCHEMA.names, "one feature a column"
_WRITTEN = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
_GROUP_ROWS = 256
_GROUP_BYTES = 64 * 2**20


def write_pairs(path: Path, pairs: Iterable[Pair], *, license: str = "") -> int:
    """Write pairs row group by row group, atomically.

    A picture is stored with its absolute path, so that any tool finds it from any folder. `license`
    fills the column of rows whose notes name none.

    Returns:
        How many rows were written.
    """
    num_rows = 0
    with replacing(path) as handle, pq.ParquetWriter(handle, _WRITTEN) as writer:
        for rows in grouped(to_row(pair, license=license) for pair in pairs):
            writer.write_table(pa.Table.from_pylist(rows, schema=_WRITTEN))
            num_rows += len(rows)
    return num_rows


def _full(path: Path) -> Path:
    return path.resolve() if ".." in path.parts else path.absolute()


def grouped(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in lists that fit into memory, pictures counted."""
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(image["bytes"] or b"") for image in (*row["images"], *row["rejected_images"]))
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def to_row(pair: Pair, *, license: str = "") -> dict[str, Any]:
    """The pair as a row of SCHEMA; `license` where its notes name none."""
    prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
    assert not any(answer.follow_up for answer in rejected[1:]), "only the first rejected answer may have more turns"
    return {
        "images": [_image_struct(ref) for ref in prompt.images],
        "prompt": _messages(*prompt.history, Message("user", prompt.text)),
        "chosen": _messages(Message("assistant", chosen.text), *chosen.follow_up),
        "rejected": _messages(*(turn for a in rejected[:1] for turn in (Message("assistant", a.text), *a.follow_up))),
        "uid": prompt.uid,
        "origin": pair.origin,
        "provenance": prompt.provenance,
        "split_group": prompt.split_group,
        "license": str(pair.notes.get("license", license)),
        "image_sha256": [ref.sha256 for ref in prompt.images],
        "extra_rejected": [answer.text for answer in rejected[1:]],
        "weights": list(pair.weights),
        "notes": json.dumps(pair.notes, ensure_ascii=False),
        "rejected_images": [_image_struct(ref) for ref in pair.rejected_images],
    }


def _messages(*messages: Message) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _image_struct(ref: ImageRef) -> dict[str, Any]:
    if ref.path is None:
        return {"bytes": ref.data, "path": None}
    full = replace(ref, path=Path(_full(ref.path).as_posix()))
    return {"bytes": None, "path": str(full.path) if ref.member is None else zip_address(full)}


def embedded(pair: Pair) -> Pair:
    """The pair with its pictures' encoded bytes, unchanged, instead of where they are; raises ImageError."""
    prompt = replace(pair.prompt, images=tuple(_held(ref) for ref in pair.prompt.images))
    return replace(pair, prompt=prompt, rejected_images=tuple(_held(ref) for ref in pair.rejected_images))


def _held(ref: ImageRef) -> ImageRef:
    encoded = encoded_bytes(ref)
    return ImageRef(data=encoded, sha256=hashlib.sha256(encoded).hexdigest())


def image_ref(image: dict[str, Any]) -> ImageRef:
    """The reference in an entry of `images` that `to_row` made."""
    if image["bytes"] is not None:
        return ImageRef(data=image["bytes"])
    path = str(image["path"])
    return zip_ref(path) if path.startswith(ZIP) else ImageRef(path=Path(path))


def to_pair(row: Any, *, find: Callable[[Any], ImageRef]) -> Pair:
    """The pair in a row of SCHEMA's types; `find` turns an entry of `images` into a reference.

    Raises:
        Unusable: an empty or equal answer, turns out of order, a placeholder in a text, weights or notes that do
            not fit. And what `find` raises.
    """
    prompt, chosen, rejected = (_turns(row[name]) for name in ("prompt", "chosen", "rejected"))
    check_roles([turn.role for turn in (*prompt, *chosen)])
    if len(prompt) % 2 == 0:
        raise Unusable("turns out of order", f"the prompt has {len(prompt)} turns and must end with the user's")
    if rejected:
        check_roles(["user", *(turn.role for turn in rejected)])
    if not all(turn.text.strip() for turn in prompt):
        raise Unusable("empty question", "a turn of the prompt is empty or blank")
    extra = list(row.get("extra_rejected") or ())
    for text in extra:
        _check_plain(text)
    num = bool(rejected) + len(extra)
    weights = tuple(row.get("weights") or (1 / num,) * num if num else ())
    _check_answers(chosen, rejected, extra, weights)
    answers = [Answer(rejected[0].text, tuple(rejected[1:]))] if rejected else []
    images = tuple(find(image) for image in row["images"] or ())
    hashes = list(row.get("image_sha256") or ())
    if len(hashes) == len(images):
        images = tuple(_as_written(ref, known) for ref, known in zip(images, hashes, strict=True))
    return Pair(
        Prompt(
            uid=row.get("uid") or "",
            images=images,
            text=prompt[-1].text,
            history=tuple(prompt[:-1]),
            split_group=row.get("split_group") or "",
            provenance=row.get("provenance") or "",
        ),
        Answer(chosen[0].text, tuple(chosen[1:])),
        (*answers, *(Answer(text) for text in extra)),
        weights=weights,
        origin="offline" if (origin := row.get("origin")) is None else origin,
        notes=_notes(row),
        rejected_images=tuple(find(image) for image in row.get("rejected_images") or ()),
    )


def _turns(rows: Any) -> list[Message]:
    told = []
    for turn in rows or ():
        role, text = turn["role"], turn["content"]
        if role not in ("user", "assistant") or text is None:
            found = f"role {shorten(role or '')}" if text is not None else "a turn without a text"
            raise Unusable("turns out of order", f"found {found}; user and assistant are accepted")
        _check_plain(text)
        told.append(Message(role, text))
    return told


def _check_plain(text: str) -> None:
    if PLACEHOLDER in text:
        raise Unusable("<image> in a text", f"{shorten(text)}; the images column says that there is a picture")
    check_text(text)


def _check_answers(
    chosen: list[Message], rejected: list[Message], extra: list[str], weights: tuple[float, ...]
) -> None:
    for name, texts in (
        ("chosen", [t.text for t in chosen[::2]]),
        ("rejected", [t.text for t in rejected[::2]] + extra),
    ):
        if not all(text and text.strip() for text in texts):
            raise Unusable(f"empty {name}", "an answer is empty or blank")
    told = [[turn.text.strip() for turn in turns] for turns in (chosen, rejected)]
    if told[0] in (told[1], *([text.strip()] for text in extra)):
        raise Unusable(EQUAL, shorten(chosen[0].text))
    num = bool(rejected) + len(extra)
    if weights and len(weights) != num:
        raise Unusable("weights do not fit", f"{len(weights)} weights for {num} rejected answers")
    if weights and not (all(weight >= 0 for weight in weights) and math.isclose(sum(weights), 1, abs_tol=1e-6)):
        raise Unusable("weights do not fit", f"{list(weights)}; accepted: none negative, summing to 1")


def _as_written(ref: ImageRef, known: str | None) -> ImageRef:
    """The reference with the hash it was written with; raises Unusable where its file is another one by now."""
    if known and ref.sha256 and known != ref.sha256:
        where = "picture held as bytes" if ref.path is None else str(ref.path)
        raise Unusable("image changed", f"{where} is not the picture that the pair was written with")
    return replace(ref, sha256=ref.sha256 or known)


def _notes(row: dict[str, Any]) -> dict[str, Any]:
    try:
        notes = json.loads(row.get("notes") or "{}")
    except (ValueError, RecursionError) as error:
        raise Unusable("notes unreadable", f"{shorten(row['notes'])} is not JSON") from error
    if not isinstance(notes, dict):
        raise Unusable("notes unreadable", f"{shorten(row['notes'])} is not a JSON object")
    if row.get("license"):
        notes.setdefault("license", row["license"])
    return notes
