"""Raw rows of data files, one at a time: JSON lists, JSON lines, Parquet, TSV. What a row means is a reader's matter.

The container is told by content, never by the file's name. Memory holds one row (or one batch of a Parquet file).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from verisight.data.parquet import parquet_rows
from verisight.data.unusable import Unusable
from verisight.types import UserError

Container = Literal["JSON list", "JSON lines", "Parquet", "TSV"]
MAX_ROW = 64 * 2**20  # characters of a JSON row, bytes of a line
_CHUNK = 2**20
_FOREIGN = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"(\xb5/\xfd", "a zstd archive"),
    (b"ARROW1", "an Arrow file"),
    (b"\x80\x02", "a pickle, which is never opened"),
    (b"\x80\x03", "a pickle, which is never opened"),
    (b"\x80\x04", "a pickle, which is never opened"),
    (b"\x80\x05", "a pickle, which is never opened"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the data (`git lfs pull` fetches it)"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
)
_ACCEPTED = "a JSON list, JSON lines, Parquet or TSV"


class Raw(NamedTuple):
    """A row as it stands in its file: a JSON value, the fields of a TSV line, or why it could not be read."""

    file: Path
    row: int  # 0-based
    value: Any


def data_files(path: Path) -> tuple[Path, ...]:
    """The files that `path` names: a file, a pattern with `*`, or a folder of Parquet shards of one split.

    Raises:
        UserError: nothing there, or a folder whose files are of several splits or of no known kind.
    """
    if os.path.isdir(path):
        shards = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
        below = {shard.parent.name for shard in path.glob("*/*.parquet")} - {"data"}
        splits = sorted({_split_of(shard) for shard in shards} | below)
        if len(splits) > 1:
            example = f"{shards[0].parent}/{splits[0]}*.parquet"
            raise UserError(f"{path}: found several splits ({', '.join(splits)}); accepted: one, such as {example}")
        if not shards:
            names = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise UserError(f"{path}: found a folder with {names}; accepted: a data file, or a folder of *.parquet")
    elif "*" in path.name and not os.path.exists(path):
        try:
            shards = sorted(path.parent.glob(path.name))
        except ValueError as error:
            raise UserError(f"{path}: no pattern of file names ({error})") from error
        if not shards:
            raise UserError(f"{path}: no file fits the pattern")
    else:
        shards = [path]
    for shard in shards:
        if not os.path.exists(shard):
            raise UserError(f"{shard}: cannot be read: No such file or directory")
        if not os.path.isfile(shard):  # a pipe would hang
            raise UserError(f"{shard}: found no regular file; accepted: {_ACCEPTED}")
    return tuple(shards)


def container_of(path: Path) -> Container:
    """What the file is, by its first bytes.

    Raises:
        UserError: it cannot be read, is empty, or is something else (named where it is recognised).
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(4096)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith(b"PAR1"):
        return "Parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, name in _FOREIGN:
        if any(start.startswith(magic) for start in (head, text, text[:16].lower())):
            raise UserError(f"{path}: found {name}; accepted: {_ACCEPTED}")
    if not text:
        raise UserError(f"{path}: found an empty file; accepted: {_ACCEPTED}")
    if b"\x00" in (text[:4] if text.startswith((b"[", b"{")) else head):  # behind a sound start it is a bad row
        raise UserError(f"{path}: found binary data of no known kind; accepted: {_ACCEPTED}")
    if text.startswith(b"["):
        return "JSON list"
    if text.startswith(b"{"):
        return "JSON lines"
    if b"\t" in text:
        return "TSV"
    raise UserError(
        f"{path}: found text that begins with {text[:20].decode(errors='replace')!r}; accepted: {_ACCEPTED}"
    )


def raw_rows(path: Path) -> Iterator[Raw]:
    """Every row of one file. A line that is no JSON is a row whose value is an `Unusable`.

    Raises:
        UserError: a file of another kind, or one that breaks off (a JSON list or Parquet file has no next line to
            go on from).
    """
    kind = container_of(path)
    match kind:
        case "JSON list":
            values = _json_list(path)
        case "JSON lines":
            values = _json_lines(path)
        case "Parquet":
            values = parquet_rows(path)
        case "TSV":
            values = _tsv(path)
    for row, value in enumerate(values):
        yield Raw(path, row, value)


def _split_of(shard: Path) -> str:
    """The split a shard's name begins with, as in train-00000-of-00008.parquet; "" when it names none."""
    head = shard.name.split("-")[0].split("_")[0].split(".")[0].lower()
    return head if head in ("train", "test", "validation", "val", "valid", "dev", "eval") else ""


class _Decoder(json.JSONDecoder):
    """JSON whose objects have every key once, else the value is `Unusable`: which one is meant nobody knows."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self._twice: str | None = None

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        self._twice = None
        value, end = super().raw_decode(s, idx)
        return (value if self._twice is None else Unusable("key given twice", self._twice)), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self._twice = ascii(next(key for key, num in Counter(key for key, _ in pairs).items() if num > 1))[:60]
        return found


def _json_list(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig") as handle:
            yield from _elements(_Window(handle), path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}), a JSON file is accepted") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


class _Window:
    """The part of a text file that is being parsed, and where in the file it begins."""

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle
        self.text, self.at, self.ended = "", 0, False
        self._lines, self._columns = 0, 0

    def grow(self) -> None:
        """Drop what was parsed and read on, twice as far as before."""
        passed = self.text[: self.at]
        self._lines += passed.count("\n")
        self._columns = len(passed) - passed.rfind("\n") - 1 if "\n" in passed else self._columns + len(passed)
        more = self._handle.read(max(_CHUNK, len(self.text) - self.at))
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.grow()

    def where(self, position: int) -> str:
        """Line and column of a character of `text`, from 1."""
        before = self.text[:position]
        columns = len(before) - before.rfind("\n") - 1 if "\n" in before else self._columns + len(before)
        return f"line {self._lines + before.count(chr(10)) + 1}, column {columns + 1}"


def _elements(window: _Window, path: Path) -> Iterator[Any]:
    decoder = _Decoder()
    window.peek()
    window.at += 1  # "["
    if window.peek() != "]":
        while True:
            yield _element(decoder, window, path)
            mark = window.peek()
            if mark == "]":
                break
            if mark != ",":
                found = repr(mark) if mark else "the end of the file"
                raise UserError(f"{path}: not valid JSON at {window.where(window.at)}: found {found} behind a row")
            window.at += 1
    window.at += 1
    if window.peek():
        raise UserError(f"{path}: not valid JSON at {window.where(window.at)}: found text behind the list")


def _element(decoder: _Decoder, window: _Window, path: Path) -> Any:
    """The next value. A cut one is tried again with more text, so a real mistake is told after MAX_ROW characters."""
    window.peek()
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.at)
        except RecursionError as error:
            raise UserError(f"{path}: a row at {window.where(window.at)} is nested too deep to be read") from error
        except json.JSONDecodeError as error:
            if window.ended or len(window.text) - window.at > MAX_ROW:
                long = "" if window.ended else f", or a row of more than {MAX_ROW:,} characters"
                raise UserError(f"{path}: not valid JSON at {window.where(error.pos)}: {error.msg}{long}") from error
        except ValueError as error:
            raise UserError(f"{path}: a row at {window.where(window.at)} cannot be read: {error}") from error
        else:
            if end + 3 <= len(window.text) or window.ended:  # the 1 of a cut 1e+5 is a number too
                window.at = end
                return value
        window.grow()


def _lines(path: Path, *, blanks: bytes) -> Iterator[bytes | Unusable]:
    """Lines that are more than `blanks`, without their ends; one longer than MAX_ROW is skipped and told."""
    try:
        with path.open("rb") as handle:
            if handle.read(3) != b"\xef\xbb\xbf":
                handle.seek(0)
            while line := handle.readline(MAX_ROW):
                whole = len(line) < MAX_ROW or line.endswith(b"\n")
                while not line.endswith(b"\n") and (more := handle.readline(MAX_ROW)):
                    line = more
                if not whole:
                    yield Unusable("row too long", f"more than {MAX_ROW:,} bytes")
                elif line.strip(blanks):
                    yield line.rstrip(b"\r\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _json_lines(path: Path) -> Iterator[Any]:
    decoder = _Decoder()
    for line in _lines(path, blanks=b" \t\r\n"):
        if isinstance(line, Unusable):
            yield line
            continue
        try:
            yield decoder.decode(line.decode())
        except RecursionError:
            yield Unusable("not JSON", "nested too deep to be read")
        except UnicodeDecodeError as error:
            yield Unusable("not UTF-8", f"byte {error.start} of the line")
        except json.JSONDecodeError as error:
            yield Unusable("not JSON", f"column {error.colno}: {error.msg}")
        except ValueError as error:
            yield Unusable("not JSON", str(error))


def _tsv(path: Path) -> Iterator[Any]:
    for line in _lines(path, blanks=b" \r\n"):
        if isinstance(line, Unusable):
            yield line
            continue
        try:
            yield line.decode().split("\t")
        except UnicodeDecodeError as error:
            yield Unusable("not UTF-8", f"byte {error.start} of the line")
