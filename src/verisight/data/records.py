"""Pairs as a Parquet file: the columns of TRL's vision preference format, plus our own.

A supervised row has no rejected messages and may hold follow-up turns in `chosen`. A picture keeps its path
or its bytes; `ImageRef.sha256` is not stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verisight.data.files import replacing
from verisight.data.images import ImageChecker, ImageError
from verisight.data.readers import PLACEHOLDER, Read, Unusable, check_order, shorten
from verisight.types import Answer, BadRow, ImageRef, Message, Pair, Prompt, UserError

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
        ("extra_rejected", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("notes", pa.string()),
    ]
)
# What `datasets` reads the columns' features from: without it pictures would load as structs of bytes and path.
_TEXT = {"dtype": "string", "_type": "Value"}
_TURNS = {"feature": {"role": _TEXT, "content": _TEXT}, "_type": "List"}
_FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    **dict.fromkeys(("prompt", "chosen", "rejected"), _TURNS),
    **dict.fromkeys(("uid", "origin", "provenance", "split_group", "license"), _TEXT),
    "extra_rejected": {"feature": _TEXT, "_type": "List"},
    "weights": {"feature": {"dtype": "float64", "_type": "Value"}, "_type": "List"},
    "notes": _TEXT,
}
assert list(_FEATURES) == SCHEMA.names, "one feature a column"
_WRITTEN = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
_REQUIRED = ("images", "prompt", "chosen", "rejected")
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
        for rows in _groups(_to_row(pair, license=license) for pair in pairs):
            writer.write_table(pa.Table.from_pylist(rows, schema=_WRITTEN))
            num_rows += len(rows)
    return num_rows


def read_pairs(path: Path, *, check_images: bool = True, limit: int | None = None) -> Read:
    """All pairs of a file that `write_pairs` or another tool wrote in the same layout.

    Unusable are rows with an empty or equal answer, a missing or broken picture, turns out of order, or an
    image placeholder in a text; they are returned, not raised. Columns beyond images, prompt, chosen and
    rejected may be missing. `check_images` decodes every picture once; without it files only have to exist.
    `limit` reads the first rows only.

    Raises:
        UserError: not a Parquet file, or a column is missing or of another type.
    """
    pairs: list[Pair] = []
    bad: list[BadRow] = []
    for entry in islice(iter_pairs(path, check_images=check_images), limit):
        if isinstance(entry, Pair):
            pairs.append(entry)
        else:
            bad.append(entry)
    return Read(pairs, bad, len(pairs) + len(bad))


def iter_pairs(path: Path, *, check_images: bool = True) -> Iterator[Pair | BadRow]:
    """`read_pairs` one row at a time, holding no more than a batch of rows."""
    check = ImageChecker(decode=check_images)
    folder = _full(path).parent
    for index, row in enumerate(_rows(path)):
        try:
            yield _to_pair(row, fallback=f"{path.name}#{index}", folder=folder, check=check)
        except (Unusable, ImageError) as error:
            yield BadRow(str(path), index, error.reason, error.detail)


def _full(path: Path) -> Path:
    return path.resolve() if ".." in path.parts else path.absolute()


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(len(image["bytes"] or b"") for image in row["images"])
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _to_row(pair: Pair, *, license: str) -> dict[str, Any]:
    assert not (pair.rejected and pair.chosen.follow_up), "a preference pair has no follow-up turns"
    prompt, chosen = pair.prompt, pair.chosen
    return {
        "images": [_image_struct(ref) for ref in prompt.images],
        "prompt": _messages(*prompt.history, Message("user", prompt.text)),
        "chosen": _messages(Message("assistant", chosen.text), *chosen.follow_up),
        "rejected": _messages(*(Message("assistant", answer.text) for answer in pair.rejected[:1])),
        "uid": prompt.uid,
        "origin": pair.origin,
        "provenance": prompt.provenance,
        "split_group": prompt.split_group,
        "license": str(pair.notes.get("license", license)),
        "extra_rejected": [answer.text for answer in pair.rejected[1:]],
        "weights": list(pair.weights),
        "notes": json.dumps(pair.notes, ensure_ascii=False),
    }


def _messages(*messages: Message) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _image_struct(ref: ImageRef) -> dict[str, Any]:
    if ref.path is None:
        return {"bytes": ref.data, "path": None}
    return {"bytes": None, "path": _full(ref.path).as_posix()}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(file.schema_arrow, path=path)
            columns = [name for name in SCHEMA.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=_GROUP_ROWS, columns=columns):
                yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error


def _check_schema(found: pa.Schema, *, path: Path) -> None:
    for field in SCHEMA:
        if field.name not in found.names:
            if field.name in _REQUIRED:
                raise UserError(
                    f"{path}: no column {field.name!r}, found {', '.join(found.names)}; "
                    f"needed are {', '.join(_REQUIRED)}"
                )
        elif not _fits(found.field(field.name).type, field.type):
            raise UserError(
                f"{path}: column {field.name!r} is {found.field(field.name).type}, {field.type} is accepted"
            )


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of `found` read as `wanted`: large variants and columns of nulls do."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _fits(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted):
        if not pa.types.is_struct(found):
            return False
        fields = {field.name: field.type for field in found}
        return all(field.name in fields and _fits(fields[field.name], field.type) for field in wanted)
    if pa.types.is_floating(wanted):
        return pa.types.is_floating(found)
    large = pa.types.is_large_string if pa.types.is_string(wanted) else pa.types.is_large_binary
    return found == wanted or large(found)


def _to_pair(row: dict[str, Any], *, fallback: str, folder: Path, check: Callable[[ImageRef], None]) -> Pair:
    """The pair in a row of the right schema; `fallback` is its uid and provenance when the file has none."""
    prompt = [_message(turn) for turn in row["prompt"] or ()]
    chosen = [_message(turn) for turn in row["chosen"] or ()]
    rejected = [_message(turn) for turn in row["rejected"] or ()]
    check_order([turn.role for turn in (*prompt, *chosen)], first="user", second="assistant")
    if len(prompt) % 2 == 0:
        raise Unusable("turns out of order", f"the prompt has {len(prompt)} turns and must end with the user's")
    if rejected and not [turn.role for turn in (*rejected, *chosen[1:])] == ["assistant"]:
        raise Unusable("turns out of order", "chosen and rejected are one assistant turn each")
    answers = [turn.text for turn in rejected] + list(row.get("extra_rejected") or ())
    weights = tuple(row.get("weights") or ())
    _check_answers([turn.text for turn in chosen if turn.role == "assistant"], answers, weights)
    images = tuple(_image_ref(image, folder=folder) for image in row["images"] or ())
    for ref in images:
        check(ref)
    return Pair(
        Prompt(
            uid=_text(row, "uid", fallback),
            images=images,
            text=prompt[-1].text,
            history=tuple(prompt[:-1]),
            split_group=_text(row, "split_group", ""),
            provenance=_text(row, "provenance", fallback),
        ),
        Answer(chosen[0].text, tuple(chosen[1:])),
        tuple(Answer(text) for text in answers),
        weights=weights,
        origin=_text(row, "origin", "offline"),
        notes=_notes(row),
    )


def _text(row: dict[str, Any], column: str, default: str) -> str:
    value = row.get(column)
    return default if value is None else value


def _message(turn: dict[str, Any]) -> Message:
    role, text = turn["role"], turn["content"]
    if role not in ("user", "assistant") or text is None:
        raise Unusable("turns out of order", f"found role {role!r}; user and assistant are accepted")
    if PLACEHOLDER in text:
        raise Unusable("<image> in a text", f"{shorten(text)}; the images column says that there is a picture")
    return Message(role, text)


def _check_answers(chosen: list[str], rejected: list[str], weights: tuple[float, ...]) -> None:
    for name, texts in (("chosen", chosen), ("rejected", rejected)):
        if not all(text and text.strip() for text in texts):
            raise Unusable(f"empty {name}", "an answer is empty or blank")
    if chosen[0].strip() in [text.strip() for text in rejected]:
        raise Unusable("chosen equals rejected", shorten(chosen[0]))
    if weights and len(weights) != len(rejected):
        raise Unusable("weights do not fit", f"{len(weights)} weights for {len(rejected)} rejected answers")
    if weights and not (all(weight >= 0 for weight in weights) and math.isclose(sum(weights), 1, abs_tol=1e-6)):
        raise Unusable("weights do not fit", f"{list(weights)}; accepted: none negative, summing to 1")


def _image_ref(image: dict[str, Any] | None, *, folder: Path) -> ImageRef:
    if image and image["bytes"] is not None:
        return ImageRef(data=image["bytes"])
    if image and image["path"] is not None:
        return ImageRef(path=folder / image["path"])
    raise ImageError("image missing", "neither bytes nor a path")


def _notes(row: dict[str, Any]) -> dict[str, Any]:
    try:
        notes = json.loads(row.get("notes") or "{}")
    except json.JSONDecodeError as error:
        raise Unusable("notes unreadable", f"{shorten(row['notes'])} is not JSON") from error
    if not isinstance(notes, dict):
        raise Unusable("notes unreadable", f"{shorten(row['notes'])} is not a JSON object")
    if row.get("license"):
        notes.setdefault("license", row["license"])
    return notes
