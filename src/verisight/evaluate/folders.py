"""The folder that a benchmark's answers, rows and summary are in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from verisight.data.files import read_json, read_jsonl, write_json
from verisight.types import UserError


def rows_path(folder: Path, name: str) -> Path:
    """Answers, and once they are scored their counts."""
    return folder / "evaluate" / f"{name}.jsonl"


def shard_path(folder: Path, name: str, index: int, num: int) -> Path:
    """Answers of one of `num` processes, until all are there."""
    return rows_path(folder, name) if num == 1 else folder / "evaluate" / f"{name}.shard-{index}-of-{num}.jsonl"


def meta_path(folder: Path, name: str) -> Path:
    """What the answers belong to."""
    return folder / "evaluate" / f"{name}.json"


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """All answers so far, those of every process."""
    whole = rows_path(folder, name)
    rows = read_jsonl(whole) if whole.exists() else []
    for part in shards(folder, name):
        try:
            rows += read_jsonl(part)
        except UserError:
            if part.exists():
                raise
            return read_rows(folder, name)  # another process has just put all parts together
    return rows


def shards(folder: Path, name: str) -> list[Path]:
    """The files of processes that share the work."""
    return sorted((folder / "evaluate").glob(f"{name}.shard-*-of-*.jsonl"))


def read_summary(folder: Path) -> dict[str, Any]:
    """What `folder`/evaluate/summary.json holds: benchmark -> entry; empty where there is none."""
    return read_object(folder / "evaluate" / "summary.json")


def add_entry(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Set a benchmark's entry of the summary. Processes that do so at once don't undo each other."""
    (folder / "evaluate").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "evaluate" / ".lock"):
        write_json(folder / "evaluate" / "summary.json", read_summary(folder) | {name: dict(entry)})


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}; a JSON object is needed")
    return found
