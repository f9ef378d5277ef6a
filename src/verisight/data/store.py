"""Pairs on disk, one by one: an Arrow file that is mapped into memory. Rows and their pictures cost no memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from verisight.data.files import replacing
from verisight.data.records import SCHEMA, grouped, image_ref, to_pair, to_row
from verisight.data.views import Rows
from verisight.types import Pair, UserError


class Stored(Rows):
    """The pairs of a file that `store` wrote, read anew at every access."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises UserError when it is not such a file."""
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a store of pairs ({error}); delete it to have it made again") from error
        sizes = (self._file.get_batch(index).num_rows for index in range(self._file.num_record_batches))
        self._ends = list(accumulate(sizes))

    def __len__(self) -> int:
        """How many pairs there are."""
        return self._ends[-1] if self._ends else 0

    def at(self, number: int) -> Pair:
        """Pair `number` of the file."""
        batch = bisect_right(self._ends, number)
        first = self._ends[batch - 1] if batch else 0
        (row,) = self._file.get_batch(batch).slice(number - first, 1).to_pylist()
        return to_pair(row, find=image_ref)

    def __iter__(self) -> Iterator[Pair]:
        """All pairs in order, a batch of rows in memory at a time."""
        for index in range(self._file.num_record_batches):
            for row in self._file.get_batch(index).to_pylist():
                yield to_pair(row, find=image_ref)


def store(path: Path, pairs: Iterable[Pair]) -> Stored:
    """Write pairs to `path`, atomically and without holding them all, and open them."""
    with replacing(path) as handle, pa.ipc.new_file(handle, SCHEMA) as writer:
        for rows in grouped(to_row(pair) for pair in pairs):
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return Stored(path)
