"""Whole files that are broken, foreign or no files at all: an error that names the file, or rows that are counted."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from data_files import PNG, write
from data_samples import account, album, good, reasons, told, tsv_row
from user_files import verisight
from verisight import recipe
from verisight.build.data import read
from verisight.data.readers import open_data
from verisight.types import Pair, UserError

KIND = "spa_vl"
LINES = "".join(json.dumps(good(KIND, n)) + "\n" for n in range(3))
LIST = json.dumps([good(KIND, n) for n in range(3)])
TABS = "".join("\t".join(tsv_row(n)) + "\n" for n in range(3))
FRENCH = json.dumps([good(KIND, 0) | {"chosen": "un café"}], ensure_ascii=False)


def zipped(**entries: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def arrow() -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist([good(KIND, 0)])
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


REFUSED = {
    "nothing": (b"", "an empty file"),
    "blanks": (b" \n\t\r\n ", "an empty file"),
    "only a BOM": (b"\xef\xbb\xbf", "an empty file"),
    "an empty list": (b"[]", "no rows"),
    "NUL bytes": (bytes(100), "binary data"),
    "NUL bytes behind a list's start": (b"[\0\0\0", "binary data"),
    "latin-1": (FRENCH.encode("latin-1"), "not UTF-8"),
    "UTF-16": (LIST.encode("utf-16"), "UTF-16 text"),
    "UTF-16, big end first": (b"\xfe\xff" + LIST.encode("utf-16-be"), "UTF-16 text"),
    "UTF-16 without a BOM": (LIST.encode("utf-16-le"), "binary data"),
    "UTF-16 without a BOM, big end first": (LINES.encode("utf-16-be"), "binary data"),
    "UTF-32": (LIST.encode("utf-32"), "UTF-16 text"),
    "EBCDIC": (LIST.encode("cp500"), "found text that begins with"),
    "gzip": (gzip.compress(LIST.encode()), "a gzip archive"),
    "bzip2": (bz2.compress(LIST.encode()), "a bzip2 archive"),
    "xz": (lzma.compress(LIST.encode()), "an xz archive"),
    "zip": (zipped(**{"a.json": LIST}), "a zip archive"),
    "an empty zip": (zipped(), "a zip archive"),
    "7z": (b"7z\xbc\xaf'\x1c" + bytes(30), "a 7z archive"),
    "zstd": (b"(\xb5/\xfd" + bytes(30), "a zstd archive"),
    "Arrow": (arrow(), "an Arrow file"),
    **{f"pickle {n}": (pickle.dumps([1], protocol=n), "a pickle, which is never opened") for n in (2, 3, 4, 5)},
    "pickle 0": (pickle.dumps({"a": 1}, protocol=0), "found text that begins with '(dp0"),
    "a numpy array": (array(), "binary data"),
    "a picture": (PNG, "binary data"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "an HTML page": (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
    "an HTML page in small letters": (b"\n\n<!doctype html>", "an HTML page"),
    "an HTML page behind a BOM": (b"\xef\xbb\xbf<html lang=en>", "an HTML page"),
    "an HTML page in capitals": (b"<HTML><BODY>Not found</BODY></HTML>", "an HTML page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "found text that begins with '<?xml"),
    "an error message": (b"Entry not found", "found text that begins with 'Entry not found'"),
    "CSV": (b"question,chosen,rejected\nQ?,a,b\n", "found text that begins with 'question,chosen"),
    "YAML": (b"- question: Q?\n  chosen: a\n", "found text that begins with '- question"),
    "a string": (b'"a"', "found text that begins with '\"a\"'"),
    "a null": (b"null", "found text that begins with 'null'"),
    "a number": (b"3", "found text that begins with '3'"),
    "true": (b"true", "found text that begins with 'true'"),
    "NaN": (b"NaN", "found text that begins with 'NaN'"),
    "the start of a list": (b"[", "not valid JSON at line 1, column 2"),
    "the start of an object": (b"{", "no known layout"),
    "a comma alone": (b"[,]", "not valid JSON at line 1, column 2"),
    "a comma too many": (f"{LIST[:-1]},]".encode(), "not valid JSON at line 1"),
    "a comma too few": (b'[{"a": 1} {"a": 2}]', "not valid JSON at line 1, column 11"),
    "two lists": (f"{LIST}\n{LIST}".encode(), "not valid JSON at line 2, column 1"),
    "a comment": (b'[ // rows\n{"a": 1}]', "not valid JSON at line 1, column 3"),
    "Python's quotes": (b"[{'id': 1}]", "not valid JSON at line 1"),
    "a list of lists": (b"[[1, 2], [3, 4]]", "no known layout 2 columns"),
    "numbers": (b"[1, 2, 3]", "no known layout rows of type int"),
    "nulls": (b"[null, null]", "no known layout rows of type NoneType"),
    "rows under a key": (f'{{"data": {LIST}}}'.encode(), "no known layout keys data"),
    "one object over several lines": (json.dumps(good(KIND, 0), indent=1).encode(), "no known layout: not JSON"),
    "an object of columns": (json.dumps({k: [v] for k, v in good(KIND, 0).items()}).encode(), "wrong type"),
    "a list too deep": (b"[" * 100_000, "nested too deep"),
    "a number too long": (b'[{"id": ' + b"9" * 100_000 + b"}]", "line 1, column 2 cannot be read"),
    "a TSV of two columns": (b"a\tb\n", "no known layout 2 columns"),
    "a Parquet magic alone": (b"PAR1", "not a readable Parquet file"),
    "two Parquet magics": (b"PAR1" + bytes(40) + b"PAR1", "not a readable Parquet file"),
    "a Parquet footer of 4 GB": (b"PAR1" + b"\xff\xff\xff\xffPAR1", "not a readable Parquet file"),
    "an encrypted Parquet file": (b"PARE" + bytes(20) + b"PARE", "binary data"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_data(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    path = tmp_path / "data.json"
    path.write_bytes(content)
    found = told(path, images=album(tmp_path))
    if message == "wrong type":  # rows of a known layout, each of which is at fault
        assert set(reasons(found)) == {"wrong type"}
    else:
        assert isinstance(found, str)
        assert message in found
        assert len(found) < 3000
    by_name = told(path, kind=KIND, images=tmp_path)  # says the same, or counts every line
    assert isinstance(by_name, str) or all(reasons(by_name))


@pytest.mark.parametrize("content", [b"{", b'{"data": []}\n', b"[]", b'{"a": 1}\n\n\n{"b": \n'])
def test_the_command_line_tells_it_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    words = ("--kind", KIND) if content != b"[]" else ()
    export = ("export", "--to", "ms_swift", "--out", tmp_path)
    for verb in (("check",), ("convert", "--out", tmp_path / "o.parquet"), export):
        ended = verisight("data", verb[0], tmp_path / "d.jsonl", *verb[1:], *words)
        assert ended.code in (1, 2)
        assert "Traceback" not in ended.err + ended.out
        assert str(tmp_path / "d.jsonl") in ended.err + ended.out or "not JSON" in ended.err + ended.out
    assert not (tmp_path / "o.parquet").exists()


# what a recipe is told


def node(path: Path) -> Any:
    told = {"kind": KIND, "file": str(path), "images": str(path.parent)}
    return TypeAdapter(recipe.Data).validate_python(told)


@pytest.mark.parametrize("name", ["nothing", "latin-1", "gzip", "an HTML page", "a list too deep", "a comma too few"])
def test_a_recipe_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(REFUSED[name][0])
    with pytest.raises(UserError) as error:
        read(node(path), folder=tmp_path / "run")
    assert str(path) in str(error.value)


def test_a_recipe_counts_bad_rows(tmp_path: Path) -> None:
    album(tmp_path)
    path = tmp_path / "data.jsonl"
    path.write_text(LINES + '{"cut": \n[]\n3\n{}\n')
    composed = read(node(path), folder=tmp_path / "run")
    assert (len(composed.pairs), composed.num_rows, len(composed.bad)) == (3, 7, 4)
    assert [bad.row for bad in composed.bad] == [3, 4, 5, 6]
    list(composed.pairs)


# cut files


def pairs(path: Path, **options: Any) -> list[Pair]:
    return [pair for one in account(open_data(path, kind=KIND, images=path.parent, **options)) for pair in one.pairs]


def test_a_list_cut_at_any_byte(tmp_path: Path) -> None:
    album(tmp_path)
    path = tmp_path / "a.json"
    for at in range(len(LIST)):
        path.write_text(LIST[:at])
        assert isinstance(told(path, kind=KIND, images=tmp_path), str)


def test_a_list_that_breaks_off_late_gives_what_stands_before(tmp_path: Path) -> None:
    """`open_data` looks at fifty rows; the mistake comes behind them."""
    album(tmp_path)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([good(KIND, n % 3) for n in range(60)])[:-9])
    reading = iter(open_data(path, kind=KIND, images=tmp_path))
    assert [next(reading).row for _ in range(59)] == list(range(59))
    with pytest.raises(UserError, match=r"a\.json: not valid JSON at line 1, column \d+"):
        next(reading)


def test_lines_cut_at_any_byte(tmp_path: Path) -> None:
    album(tmp_path)
    path = write(tmp_path / "a.jsonl", [good(KIND, n) for n in range(3)])
    whole = path.read_bytes()
    expected = pairs(path)
    for at in range(1, len(whole)):
        path.write_bytes(whole[:at])
        num_whole = whole[: at + 1].count(b"\n")
        found = told(path, kind=KIND, images=tmp_path, num_rows=num_whole + (whole[at - 1 : at + 1].find(b"\n") < 0))
        assert not isinstance(found, str)
        assert [pair for one in found for pair in one.pairs] == expected[:num_whole]
        assert reasons(found)[num_whole:] in ([], ["not JSON"])


def test_a_tsv_cut_at_any_byte(tmp_path: Path) -> None:
    album(tmp_path)
    path = tmp_path / "a.tsv"
    path.write_text(TABS)
    expected = [one.pairs for one in account(open_data(path, kind="rlhf_v", images=tmp_path))]
    for at in range(TABS.index("\n") + 2, len(TABS)):
        path.write_text(TABS[:at])
        found = told(path, kind="rlhf_v", images=tmp_path, num_rows=TABS[:at].rstrip("\n").count("\n") + 1)
        assert not isinstance(found, str)
        assert [one.pairs for one in found if one.pairs] == expected[: TABS[: at + 1].count("\n")]


def test_a_line_of_tabs_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{TABS}\t\t\t\t\t\t\n\t\n\n \r\n{TABS}")
    found = reasons(told(path, num_rows=8, images=album(tmp_path)))
    assert found == ["", "", "", "wrong type", "wrong number of columns", "", "", ""]


@pytest.mark.parametrize("compression", ["NONE", "snappy", "zstd"])
def test_a_parquet_file_cut_and_turned(tmp_path: Path, compression: str) -> None:
    album(tmp_path)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([good(KIND, n, encoded=True) for n in range(3)]), path, compression=compression)
    whole = path.read_bytes()
    for at in range(0, len(whole), 11):
        path.write_bytes(whole[:at])
        assert isinstance(told(path, kind=KIND), str)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        told(path, kind=KIND)


# the same rows in other words


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "\ufeff" + LINES),
        ("a.jsonl", LINES.replace("\n", "\r\n")),
        ("a.jsonl", "\n\n  \n" + LINES.replace("\n", "\n\n \t\n")),
        ("a.jsonl", LINES.rstrip("\n")),
        ("a.jsonl", LINES.replace('{"', '  { "')),
        ("a.txt", LINES),
        ("a.parquet", LINES),
        ("a.json", LINES),
        ("a.json", "\ufeff" + LIST),
        ("a.json", json.dumps(json.loads(LIST), indent=4).replace("\n", "\r\n") + "\r\n\r\n"),
        ("a.jsonl", LIST),
        ("a.json", LIST.replace("good", "g\\u006f\\u006fd")),
        ("a.json", LIST.replace('"id"', '"extra": [NaN, Infinity, 1e999], "id"')),
    ],
)
def test_the_same_rows_in_other_words(tmp_path: Path, name: str, content: str) -> None:
    album(tmp_path)
    path = tmp_path / name
    path.write_bytes(content.encode())
    found = pairs(path)
    assert [(pair.chosen.text, pair.prompt.images[0].path) for pair in found] == [
        (f"good {n}", tmp_path / f"{n}.png") for n in range(3)
    ]
