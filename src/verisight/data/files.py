"""Writing files so that a kill leaves the old one or the new one, and reading back what a killed run left."""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from verisight.types import UserError

MARKER = "recipe.sha256"


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """An open temporary file that becomes `path` when the block ends well and disappears when it raises.

    The folder is made if it is missing. File and folder are synced, so the rename survives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data` (text as UTF-8) or leave it as it was."""
    with replacing(path) as handle:
        handle.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as indented UTF-8 JSON, atomically. NaN and infinities stay as Python spells them."""
    write_atomic(path, json.dumps(obj, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path, *, unique: bool = False) -> Any:
    """The JSON value in `path`.

    Raises:
        UserError: the file is missing, not UTF-8, or not JSON (with line and column); with `unique` also where an
            object holds a key twice, of which only the last would be seen.
    """
    raw = _read_bytes(path)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            key = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{path}: {key!r} is there twice in one object; ids and keys must be unique")
        return found

    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=once if unique else None)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text at byte {error.start}, a JSON file is accepted") from error


def append_jsonl(path: Path, row: dict[str, Any]) -> None:
    """Add one row. A half-written last line, as a killed run leaves it, is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        _mend_tail(handle)
        handle.write(_line(row))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSON-lines file; blank lines are skipped.

    A last line without its newline that isn't a whole row is what a killed run leaves: it is dropped.

    Raises:
        UserError: the file is missing, or any other line is not a JSON object (with its 1-based number).
    """
    *lines, tail = _read_bytes(path).split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_parse(line))
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}; each line is one JSON object") from error
    return [*rows, _parse(tail)] if _is_whole(tail) else rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace `path` by `rows`, one JSON object a line, atomically and without holding them all."""
    with replacing(path) as handle:
        for row in rows:
            handle.write(_line(row))


def claim_run_folder(folder: Path, recipe_hash: str) -> bool:
    """Make `folder` the run folder of this recipe.

    Returns:
        True when the folder already held this very run, which is then a resume; False for a new run.

    Raises:
        UserError: `folder` is a file, holds the run of another recipe, or holds files and no marker.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, a run needs a folder of its own")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output: {folder} cannot be made ({error.strerror}); accepted: a folder that can") from error
    names = {name for name in os.listdir(folder) if not (name.startswith(".") and name.endswith(".tmp"))}
    if not names:
        write_atomic(folder / MARKER, recipe_hash + "\n")
        return False
    found = _read_bytes(folder / MARKER).decode(errors="replace").strip() if MARKER in names else None
    if found == recipe_hash:
        return True
    what = f"files but no {MARKER}" if found is None else f"recipe {found[:12]}, this one is {recipe_hash[:12]}"
    raise UserError(
        f"{folder}: already holds another run ({what}); name a new or empty folder, "
        "or start the unchanged recipe to resume it"
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    if os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    row = json.loads(line.decode())
    if not isinstance(row, dict):
        raise ValueError(f"found a JSON {type(row).__name__}")
    return row


def _is_whole(line: bytes) -> bool:
    try:
        _parse(line)
    except ValueError:
        return False
    return True


def _mend_tail(handle: BinaryIO) -> None:
    """Leave the file empty or ending in a newline. `handle` is open for reading and appending."""
    if handle.seek(0, os.SEEK_END) == 0:
        return
    handle.seek(-1, os.SEEK_END)
    if handle.read(1) == b"\n":
        return
    handle.seek(0)
    content = handle.read()
    tail = content.rpartition(b"\n")[2]
    if _is_whole(tail):
        handle.write(b"\n")
    else:
        handle.truncate(len(content) - len(tail))
