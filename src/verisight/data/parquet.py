"""Rows of a Parquet file, one batch in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verisight.data.unusable import Unusable
from verisight.types import UserError

_BATCH = 32  # rows that are in memory at once, beside their row group


def parquet_rows(path: Path) -> Iterator[Any]:
    """Every row as a dict.

    One with a value that Python cannot hold (text that is no UTF-8, a date of the year 12,000) is an `Unusable`.

    Raises:
        UserError: the file cannot be read, breaks off, or has a column twice.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            _check_columns(file.schema_arrow, path)
            num_rows = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                num_rows += batch.num_rows
                yield from _rows(batch)
            if num_rows != file.metadata.num_rows:
                said = f"its footer says {file.metadata.num_rows} rows, {num_rows} are there"
                raise UserError(f"{path}: not a readable Parquet file: {said}")
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error


def _check_columns(schema: pa.Schema, path: Path) -> None:
    twice = [name for name, num in Counter(schema.names).items() if num > 1]
    if twice:
        raise UserError(f"{path}: found column {twice[0][:60]!r} twice; accepted: every column once")


def _rows(batch: pa.RecordBatch) -> list[Any]:
    try:
        return batch.to_pylist()
    except Exception:  # anything from UnicodeDecodeError to OverflowError
        return [_row(batch.slice(at, 1)) for at in range(batch.num_rows)]


def _row(one: pa.RecordBatch) -> Any:
    row: dict[str, Any] = {}
    for name, column in zip(one.schema.names, one.columns, strict=True):
        try:
            (row[name],) = column.to_pylist()
        except Exception as error:
            return Unusable("value unreadable", f"{name[:60]}: {str(error)[:200]}")
    return row
