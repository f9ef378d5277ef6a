"""Good rows with anything done to them, and good files with anything done to their bytes, found by hypothesis.

A UserError or a counted row, whatever it is; the rows beside it give what they gave.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data_files import png, write
from data_samples import SAMPLES, account, album, good, told, tsv_row
from verisight.data.images import image_hash
from verisight.data.outcome import Outcome
from verisight.data.readers import open_data
from verisight.types import ImageRef, Pair

UNCHECKED = [HealthCheck.too_slow, HealthCheck.filter_too_much]
PROFILE = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=UNCHECKED)
OWN = {image_hash(ImageRef(data=png(1)))}
ODD = (
    "", " ", "<image>", "Q?<image>", "</s>", "\ud800", "\0", "../0.jpg", "/etc/passwd", "human", "gpt", "user",
    "assistant", "system", "NaN", "-1e999", "1", "null", "{}", "[]", '"', "train", "USER: Q? ASSISTANT:", "zip://a::b",
    "x" * 5000, "\u2028", "é",
)  # fmt: skip
WORDS = st.sampled_from(ODD) | st.text(max_size=8)
KEYS = st.sampled_from(
    ["role", "content", "from", "value", "type", "text", "image", "images", "bytes", "path", "id", "chosen", "rejected",
     "conversations", "messages", "completions", "interaction", "loss", "score", "verisight", "system", "videos",
     "notes"]
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | WORDS
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf")])
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=3), max_leaves=6
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in a row, the row itself first."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Something else in a value's place."""
    match draw(st.integers(0, 9)):
        case 0:
            return [value]
        case 1:
            return {draw(KEYS): value}
        case 2:
            return json.dumps(value, default=str)
        case 3 if isinstance(value, list):
            return value + value
        case 4 if isinstance(value, list | str):
            return value[::-1]
        case 5 if isinstance(value, dict):
            return list(value.items()) if draw(st.booleans()) else {key.upper(): one for key, one in value.items()}
        case 6 if isinstance(value, dict):
            return value | {draw(KEYS): draw(VALUES)}
        case 7 if isinstance(value, str):
            at = draw(st.integers(0, len(value)))
            return value[:at] + draw(WORDS) + value[at:]
    return draw(VALUES)


@st.composite
def mutated(draw: st.DrawFn, row: Any) -> Any:
    """The row with one to four places deleted, replaced, nested, retyped or swapped."""
    row = copy.deepcopy(row)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from(list(places(row))))
        if not at:
            if draw(st.integers(0, 9)) == 0:
                row = changed(draw, row)
            continue
        inner = row
        for key in at[:-1]:
            inner = inner[key]
        if draw(st.integers(0, 3)) == 0:
            del inner[at[-1]]
        else:
            inner[at[-1]] = changed(draw, inner[at[-1]])
    return row


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A folder with the pictures of all rows."""
    with tempfile.TemporaryDirectory() as folder:
        album(Path(folder))
        yield Path(folder)


@cache
def unspoiled(folder: Path, kind: str, *, shards: bool = False) -> list[Outcome]:
    """What three good rows give, in one file or each in its own."""
    if not shards:
        path = folder / f"{kind}.jsonl"
        write(path, [good(kind, n) for n in range(3)])
    else:
        path = folder / f"shards-{kind}"
        for n in range(3):
            write(path / f"{n}.parquet", [good(kind, n, encoded=SAMPLES[kind].takes_bytes)])
    return account(open_data(path, kind=kind, images=folder))


def named(pair: Pair) -> Pair:
    """The pair without the name of the file it is from."""
    return replace(pair, prompt=replace(pair.prompt, provenance=pair.prompt.provenance.partition("#")[2]))


def check_neighbours(found: list[Outcome] | str, whole: list[Outcome]) -> None:
    """The first and the last row are as they were; the one between shows nothing but its own picture."""
    assert not isinstance(found, str), found
    assert len(found) == 3
    for at in (0, 2):
        assert not found[at].bad
        assert [named(pair) for pair in found[at].pairs] == [named(pair) for pair in whole[at].pairs]
    for pair in found[1].pairs:
        assert {image_hash(ref) for ref in pair.prompt.images} <= OWN


@pytest.mark.parametrize("kind", SAMPLES)
@PROFILE
@given(data=st.data())
def test_a_mutated_row_among_good_ones(room: Path, kind: str, data: st.DataObject) -> None:
    rows = [good(kind, n) for n in range(3)]
    rows[1] = data.draw(mutated(rows[1]))
    path = room / f"{kind}.{data.draw(st.sampled_from(['json', 'jsonl']))}"
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    by_name = kind == "csr" or data.draw(st.booleans())
    check_neighbours(told(path, kind=kind if by_name else "auto", images=room), unspoiled(room, kind))


@pytest.mark.parametrize("kind", SAMPLES)
@PROFILE
@given(data=st.data())
def test_a_mutated_row_in_a_shard_of_its_own(room: Path, kind: str, data: st.DataObject) -> None:
    """Parquet: a row of other types needs a file of its own."""
    row = good(kind, 1, encoded=SAMPLES[kind].takes_bytes)
    whole = unspoiled(room, kind, shards=True)
    row = data.draw(mutated(row))
    try:
        write(room / f"shards-{kind}" / "1.parquet", [row])
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        assume(False)  # Parquet cannot hold that
    assume(row)  # a Parquet file without columns has no rows
    check_neighbours(list(open_data(room / f"shards-{kind}", kind=kind, images=room)), whole)


@PROFILE
@given(data=st.data())
def test_a_mutated_line_of_a_tsv(room: Path, data: st.DataObject) -> None:
    rows = [tsv_row(n) for n in range(3)]
    path = room / "rows.tsv"
    whole = account(open_data(write(path, rows), images=room))
    fields: list[str] = list(rows[1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(fields)))
        fields[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(WORDS | VALUES.map(json.dumps), max_size=2))
    line = "\t".join(fields).encode(errors="surrogatepass").translate(None, b"\r\n\0")
    if line.strip(b" "):
        path.write_bytes("\t".join(rows[0]).encode() + b"\n" + line + b"\n" + "\t".join(rows[2]).encode())
        check_neighbours(told(path, images=room), whole)


# bytes


@st.composite
def scarred(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with one to three ranges turned, deleted, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 20)))
        part = content[at:end]
        new = draw(
            st.sampled_from([b"", part * 2, bytes(byte ^ 0xFF for byte in part), bytes(byte ^ 1 for byte in part)])
            | st.binary(max_size=12)
        )
        content = content[:at] + new + content[end:]
    return content


@pytest.mark.parametrize("container", ["json", "jsonl", "parquet", "tsv"])
@PROFILE
@given(data=st.data())
def test_a_file_of_mutated_bytes(room: Path, container: str, data: st.DataObject) -> None:
    """A file that cannot be read at all is one error; else every row is accounted for, which `told` checks."""
    kind = "rlhf_v"
    path = room / f"bytes.{container}"
    if container == "tsv":
        write(path, [tsv_row(n) for n in range(3)])
    else:
        write(path, [good(kind, n, encoded=container == "parquet") for n in range(3)])
    path.write_bytes(data.draw(scarred(path.read_bytes())))
    told(path, images=room)
    told(path, kind=kind, images=room)


@PROFILE
@given(data=st.data())
def test_a_line_of_mutated_bytes(room: Path, data: st.DataObject) -> None:
    lines = [json.dumps(good("spa_vl", n)).encode() for n in range(3)]
    path = room / "line.jsonl"
    path.write_bytes(b"\n".join(lines))
    whole = account(open_data(path, images=room))
    lines[1] = data.draw(scarred(lines[1])).replace(b"\n", b"")
    if lines[1].strip(b" \t\r"):
        path.write_bytes(b"\n".join(lines))
        check_neighbours(told(path, images=room), whole)
