"""Preference files as their publishers write them, on a small scale, and the pairs that they mean."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from verisight.data.readers import open_data
from verisight.types import Answer, ImageRef, Message, Pair, Prompt


def png(shade: int = 0) -> bytes:
    """A grey picture of 4 x 4."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


PNG = png()
SHA = hashlib.sha256(PNG).hexdigest()


def write(path: Path, rows: Sequence[Any]) -> Path:
    """Rows in the container that the name ends in: json, jsonl, parquet, tsv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(list(rows), ensure_ascii=False), encoding="utf-8")
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        case ".tsv":
            path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        case other:
            raise AssertionError(other)
    return path


def picture(folder: Path, name: str, shade: int = 0) -> ImageRef:
    """Write a picture; the checked reference to it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))
    return ImageRef(path=path, sha256=hashlib.sha256(png(shade)).hexdigest())


def inside(shade: int = 0) -> ImageRef:
    """The checked reference to a picture that a row holds as bytes."""
    return ImageRef(data=png(shade), sha256=hashlib.sha256(png(shade)).hexdigest())


def base64_json(value: Any) -> str:
    """JSON in base64, as the oldest RLHF-V files have it."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def turns(*texts: str) -> list[dict[str, str]]:
    """A conversation in LLaVA's spelling, human first."""
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def chat(*texts: str) -> list[dict[str, str]]:
    """The same in the spelling of chat templates."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def history(*texts: str) -> tuple[Message, ...]:
    """The same as messages."""
    return tuple(Message("assistant" if at % 2 else "user", text) for at, text in enumerate(texts))


def made(
    place: str, *images: ImageRef, uid: str = "", group: str = "", before: tuple[Message, ...] = (), **notes: Any
) -> Pair:
    """The pair "Q?", "good", "bad" of the row `place` ("file#row" and the pair's suffix) of the set in the notes."""
    row = place.partition("#")[2]
    number, _, suffix = row.partition(".")
    uid = (f"{number}:{uid}" if uid else number) + (f".{suffix}" if suffix else "")
    prompt = Prompt(uid, images, "Q?", before, split_group=group or uid, provenance=place)
    told = {"placeholder": "none"} | notes
    return Pair(prompt, Answer("good"), (Answer("bad"),), (1.0,), origin=notes["dataset"], notes=told)


def read_pairs(path: Path, *, kind: str, seen: str = "", **options: Any) -> list[Pair]:
    """The pairs of a file in which nothing is amiss; `auto` has to take it for the same as its `kind`."""
    reading = open_data(path, **options)
    assert reading.format.name == kind
    assert seen in reading.seen
    read = reading.read()
    assert not read.bad
    assert open_data(path, kind=kind, **options).read() == read
    return read.pairs


def amiss(path: Path, **options: Any) -> list[tuple[str, bool]]:
    """Why rows, or pairs in them, cannot be used, and whether that is a fault."""
    return [(bad.reason, bad.fault) for bad in open_data(path, **options).read().bad]
