"""Cells, columns, folders and pictures that are not what they should be: an error that names them, or counted rows."""

from __future__ import annotations

import base64
import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_files import PNG, png, write
from data_samples import SAMPLES, account, album, good, reasons, told
from verisight.data.readers import open_data
from verisight.types import UserError

KIND = "spa_vl"


# Parquet


def column(name: str) -> pa.Array:
    match name:
        case "no UTF-8":
            ends = np.array([0, 1, 3, 4], dtype=np.int32)
            buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"a\xff\xfeb")]
            return pa.Array.from_buffers(pa.string(), 3, buffers)
        case "a late time":
            return pa.array([0, 2**62, 0], pa.timestamp("us"))
        case "a late day":
            return pa.array([0, 2**31 - 1, 0], pa.int32()).cast(pa.date32())
        case "a zone of nowhere":
            return pa.array([None, 0, None], pa.timestamp("us", "Nowhere/At all"))
    raise AssertionError(name)


@pytest.mark.parametrize("name", ["no UTF-8", "a late time", "a late day"])
def test_a_cell_that_python_cannot_hold(tmp_path: Path, name: str) -> None:
    album(tmp_path)
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([good(KIND, n) for n in range(3)])
    pq.write_table(table, path)
    expected = account(open_data(path, images=tmp_path))
    pq.write_table(table.append_column("more", column(name)), path)
    found = told(path, num_rows=3, images=tmp_path)
    assert reasons(found) == ["", "value unreadable", ""]
    assert found[1].bad[0].detail.startswith("more: ")
    assert (found[0], found[2]) == (expected[0], expected[2])


def test_a_zone_of_nowhere(tmp_path: Path) -> None:
    album(tmp_path)
    table = pa.Table.from_pylist([good(KIND, n) for n in range(3)])
    pq.write_table(table.append_column("more", column("a zone of nowhere")), tmp_path / "a.parquet")
    found = reasons(told(tmp_path / "a.parquet", kind=KIND, num_rows=3, images=tmp_path))
    assert set(found) <= {"", "value unreadable"}


TYPED = {
    "int": pa.array([1, 2, 3]), "float": pa.array([1.0, float("nan"), None]), "bool": pa.array([True, False, None]),
    "null": pa.nulls(3), "bytes": pa.array([b"a", b"\xff", b""]), "list": pa.array([["a"], [], None]),
    "struct": pa.array([{"bytes": b"x", "path": "y"}, {"bytes": None, "path": None}, None]),
    "map": pa.array([[("bytes", 1), ("bytes", 2)]] * 3, pa.map_(pa.string(), pa.int32())),
    "time": pa.array([1, 2, 3], pa.timestamp("s")), "duration": pa.array([1, 2**62, 3], pa.duration("us")),
    "decimal": pa.array([1, 2, 3]).cast(pa.decimal128(20)), "unsigned": pa.array([2**64 - 1] * 3, pa.uint64()),
    "half": pa.array(np.ones(3, dtype=np.float16)), "blank": pa.array(["", " ", None]),
    "large list": pa.array([["a"]] * 3, pa.large_list(pa.string())),
}  # fmt: skip


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("key", ["image", "question", "chosen"])
def test_a_column_of_another_type(tmp_path: Path, typed: str, key: str) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([good(KIND, n) for n in range(3)])
    pq.write_table(table.set_column(table.column_names.index(key), key, TYPED[typed]), path)
    found = told(path, kind=KIND, num_rows=3, images=album(tmp_path))
    assert all(reasons(found))


@pytest.mark.parametrize("typed", [pa.large_string(), pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_is_text_in_whatever_type(tmp_path: Path, typed: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([good(KIND, n) for n in range(3)])
    for name in ("image", "question", "chosen", "rejected"):
        cells = table[name].dictionary_encode() if pa.types.is_dictionary(typed) else table[name].cast(typed)
        table = table.set_column(table.column_names.index(name), name, cells)
    pq.write_table(table, path)
    assert reasons(told(path, num_rows=3, images=album(tmp_path))) == [""] * 3


def test_columns_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist([good(KIND, 0)])
    pq.write_table(pa.Table.from_arrays([*table.columns, table["chosen"]], [*table.column_names, "chosen"]), path)
    assert told(path) == f"{path}: found column 'chosen' twice; accepted: every column once"
    inner = pa.StructArray.from_arrays([pa.array([b""]), pa.array([b"x"])], names=["bytes", "bytes"])
    pq.write_table(table.set_column(0, "image", inner), path)
    assert reasons(told(path, kind=KIND)) == ["value unreadable"]
    for empty in (pa.table({}), table.slice(0, 0)):
        pq.write_table(empty, path)
        assert "no rows, so its layout cannot be told" in str(told(path))


# paths that are no files


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would hang."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "dangling.json").symlink_to(tmp_path / "none")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "shards").mkdir()
    os.mkfifo(tmp_path / "shards" / "a.parquet")
    (tmp_path / "nested" / "a.parquet").mkdir(parents=True)
    words = {
        "pipe.jsonl": "no regular file", "loop.json": "No such file", "dangling.json": "No such file",
        "device.json": "no regular file", "none.json": "No such file", "none/a.json": "No such file",
        "x" * 300: "No such file", "a\0b": "No such file", "none*.json": "no file fits the pattern",
        "pipe*": "no regular file", "dangling*": "No such file", "**x": "no pattern of file names",
        "folder": "found a folder with nothing", "shards": "no regular file", "nested": "no regular file",
    }  # fmt: skip
    for name, message in words.items():
        with pytest.raises(UserError) as error:
            open_data(tmp_path / name)
        assert message in str(error.value)
        assert str(tmp_path) in str(error.value)
    with pytest.raises(UserError, match="no pictures is not there"):
        open_data(write(tmp_path / "a.json", [good(KIND, 0)]), images=tmp_path / "no pictures")


def test_what_holds_no_pictures(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [good(KIND, 0)])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name in ("empty.zip", "broken.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            if name == "broken.zip":
                archive.writestr("0.png", PNG)
    (tmp_path / "broken.zip").write_bytes((tmp_path / "broken.zip").read_bytes()[:-9])
    for name in ("empty", "empty.zip"):
        assert reasons(account(open_data(path, images=tmp_path / name))) == ["image missing"]
    for name in ("pipe", "a.json", "broken.zip"):
        with pytest.raises(UserError, match=f"{name}: found no folder and no readable zip archive"):
            account(open_data(path, images=tmp_path / name))


def test_folders_of_shards(tmp_path: Path) -> None:
    rows = [good(KIND, n, encoded=True) for n in range(3)]
    for n in range(2):
        write(tmp_path / "good" / f"train-0000{n}-of-00002.parquet", rows)
        write(tmp_path / "splits" / "data" / f"{('train', 'test')[n]}-0.parquet", rows)
        write(tmp_path / "mixed" / f"{n}.parquet", rows)
    found = account(open_data(tmp_path / "good"))
    assert [one.row for one in found] == [0, 1, 2] * 2
    assert len({pair.prompt.uid for one in found for pair in one.pairs}) == 6
    with pytest.raises(UserError, match=r"several splits \(test, train\)"):
        open_data(tmp_path / "splits")
    (tmp_path / "mixed" / "1.parquet").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"mixed/1\.parquet: found an HTML page"):
        account(open_data(tmp_path / "mixed"))
    write(tmp_path / "other" / "0.parquet", rows)
    write(tmp_path / "other" / "1.parquet", [{"text": "another layout"}])
    assert reasons(account(open_data(tmp_path / "other"))) == ["", "", "", "missing key"]


def test_a_pattern_over_several_containers(tmp_path: Path) -> None:
    album(tmp_path)
    rows = [good(KIND, n) for n in range(3)]
    for suffix in ("json", "jsonl", "parquet"):
        write(tmp_path / f"part.{suffix}", rows)
    found = account(open_data(tmp_path / "part.*", images=tmp_path))
    assert reasons(found) == [""] * 9
    (tmp_path / "part.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"part\.parquet: found an empty file"):
        account(open_data(tmp_path / "part.*", images=tmp_path))


# texts that stay texts


@pytest.mark.parametrize("kind", SAMPLES)
def test_markup_in_an_answer_is_text(tmp_path: Path, kind: str) -> None:
    mark = "<b>good</b><script>alert('x')</script> &amp; {{ 7*7 }} ${HOME} `id` %s \\n \U0001f600 \u202eabc"
    album(tmp_path)
    escaped = json.dumps(mark)[1:-1]
    if kind == "rlhf_v":  # JSON in JSON
        escaped = json.dumps(escaped)[1:-1]
    (tmp_path / "a.jsonl").write_text(json.dumps(good(kind, 0)).replace("good 0", escaped))
    (found,) = account(open_data(tmp_path / "a.jsonl", kind=kind, images=tmp_path))
    assert [pair.chosen.text for pair in found.pairs] == [mark]


def test_pictures_in_cells_that_are_none(tmp_path: Path) -> None:
    cells = [
        png(1), b"", b"\0", PNG[:30], b"<svg/>", b"GIF89a", gzip.compress(PNG), base64.b64encode(PNG), b"PK\x03\x04",
        bytes(9999),
    ]  # fmt: skip
    names = [None, "", "../0.png", "/0.png", "none.png"]
    rows = [good(KIND, n) | {"image": {"bytes": cell, "path": "0.png"}} for n, cell in enumerate(cells)]
    rows += [good(KIND, 0) | {"image": {"bytes": None, "path": name}} for name in names]
    album(tmp_path)
    found = reasons(told(write(tmp_path / "a.parquet", rows), num_rows=len(rows)))
    assert found[0] == ""
    assert found[1:] == [
        "image truncated", "image unreadable", "image truncated", *["image unreadable"] * 6,
        "image missing", "image missing", "image outside root", "image outside root", "image missing",
    ]  # fmt: skip


def test_entries_of_a_zip_that_lead_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("../1.png", "/2.png", "a/../../3.png", "C:\\4.png", "0.png"):
            archive.writestr(name, PNG)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    names = ["0.png", "../1.png", "1.png", "/2.png", "2.png", "a/../../3.png", "3.png", "4.png", "link.png", "", None]
    rows = [good(KIND, n) | {"image": name} for n, name in enumerate(names)]
    path = write(tmp_path / "a.json", rows)
    found = reasons(told(path, num_rows=len(rows), images=tmp_path / "images.zip"))
    assert found[0] == ""
    assert set(found[1:]) <= {"image outside root", "image missing", "no image"}
