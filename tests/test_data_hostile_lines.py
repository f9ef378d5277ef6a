"""Lines that are no rows, or absurdly long ones, among good lines: counted rows, and the good ones as they were."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from data_files import write
from data_samples import account, album, good, reasons, told, tsv_row
from verisight.data import rows as rows_module
from verisight.data.readers import open_data

KIND = "spa_vl"
LINES = "".join(json.dumps(good(KIND, n)) + "\n" for n in range(3))
TABS = "".join("\t".join(tsv_row(n)) + "\n" for n in range(3))
FULL = json.dumps(good(KIND, 1))
BETWEEN = {
    "not JSON": [
        b"{", b"}", b"[", b"NOT", b"'a'", b'{"a": 1,}', b'{"a" 1}', b"{'a': 1}", b'{"a": .5}', b'{"a": 01}', b'"\t"',
        b'{"a": "\\x41"}', b'{"a": "\\u12"}', FULL.encode() * 2, FULL.encode() + b" x", FULL[:-1].encode(),
        b'{"a": "\x00"}', b"\x00", b"[" * 50_000, b"1" * 5_000, b"// a comment", b"\xef\xbb\xbf" + FULL.encode(),
        b"nan", b"None", b"True", b'{"a": "b\x0bc"}', b"version https://git-lfs", b"<html>", b"\x1b[2J",
    ],
    "not UTF-8": [b"\xff", b"\xfe\xff", FULL.encode().replace(b"good", b"caf\xe9"), b'"\xed\xa0\x80"', b'"\xc0\x80"',
                  FULL.encode("utf-16"), gzip.compress(FULL.encode()), b"\x80\x04\x95"],
    "wrong type": [b"null", b"true", b"3", b"-0.0", b"NaN", b"-Infinity", b'""', b'"text"', b"[]", b"[[]]", b"[{}]"],
    "missing key": [b"{}", b'{"": 1}', b'{"data": []}', b'{"Question": "Q?"}'],
    "key given twice": [FULL.encode()[:-1] + b', "chosen": "better"}', b'{"a": {"b": 1, "b": 1}}', b'{"": 0, "": 0}'],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason in BETWEEN for line in BETWEEN[reason]])
def test_a_line_among_good_ones(tmp_path: Path, reason: str, line: bytes) -> None:
    album(tmp_path)
    lines = LINES.encode().splitlines(keepends=True)
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES.encode())
    expected = account(open_data(path, images=tmp_path))
    path.write_bytes(lines[0] + line + b"\n" + lines[2])
    found = told(path, num_rows=3, images=tmp_path)
    assert reasons(found) == ["", reason, ""]
    assert (found[0], found[2]) == (expected[0], expected[2])


@pytest.mark.parametrize(
    "text", ['[{"a": 1, "a": 2}]', '[{"b": [{"a": 1, "c": 0, "a": 2}]}]', '[[{"\\u0061": 1, "a": 2}]]']
)
def test_a_key_given_twice_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    (found,) = told(path, kind=KIND)
    assert [(bad.reason, bad.detail) for bad in found.bad] == [("key given twice", "'a'")]


def test_a_line_that_is_too_long_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    album(tmp_path)
    monkeypatch.setattr(rows_module, "MAX_ROW", 300)
    path = tmp_path / "a.jsonl"
    lines = LINES.splitlines()
    for size in (301, 350, 600, 601, 100_000):
        row = json.dumps(good(KIND, 1) | {"chosen": "x" * size})
        for end in ("\n", ""):
            path.write_text(f"{lines[0]}\n{row}\n{lines[2]}\n{row}{end}")
            assert reasons(told(path, images=tmp_path)) == ["", "row too long", "", "row too long"]
    path.write_text(TABS + "x" * 400 + "\t" * 6 + "\n" + TABS)
    assert reasons(told(path, images=tmp_path)) == ["", "", "", "row too long", "", "", ""]


def test_a_row_of_a_list_that_is_too_long_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MAX_ROW", 300)
    monkeypatch.setattr(rows_module, "_CHUNK", 100)
    path = tmp_path / "a.json"
    path.write_text('[{"a": "' + "x" * 5000 + '"}]')
    message = told(path)
    assert isinstance(message, str)
    assert "line 1, column 8" in message
    assert "or a row of more than 300 characters" in message


def test_many_keys_and_many_rows(tmp_path: Path) -> None:
    album(tmp_path)
    many = {f"key {n}": n for n in range(20_000)}
    path = write(tmp_path / "a.jsonl", [good(KIND, 0), good(KIND, 1) | many, many, good(KIND, 2)])
    assert reasons(told(path, kind=KIND, images=tmp_path)) == ["", "", "missing key", ""]
    write(path, [many])
    assert len(str(told(path))) < 4000
