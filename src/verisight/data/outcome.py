"""What reading gave: pairs, and whatever could not be used, counted by row and by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from verisight.data.files import write_jsonl
from verisight.types import BadRow, Pair, UserError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one row gave: its pairs (several where a rule makes pairs of scores), and what was left out, and why."""

    file: str
    row: int
    pairs: tuple[Pair, ...]
    bad: tuple[BadRow, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What a whole file gave: pairs, what was left out, and how many rows it had."""

    pairs: list[Pair]
    bad: list[BadRow]
    num_rows: int


def collect(outcomes: Iterable[Outcome]) -> Read:
    """All outcomes in memory."""
    pairs: list[Pair] = []
    bad: list[BadRow] = []
    num_rows = 0
    for outcome in outcomes:
        pairs += outcome.pairs
        bad += outcome.bad
        num_rows += 1
    return Read(pairs, bad, num_rows)


def enforce_bad_fraction(bad: Sequence[BadRow], *, num_rows: int, max_bad_fraction: float, log: Path | None) -> None:
    """Write what was left out to `log` (JSON lines) if there is any, and stop when too many rows are at fault.

    `max_bad_fraction` is a share of `num_rows`, 0..1; a row counts once, and what a rule leaves out does not count.
    No usable row at all is always too many.

    Raises:
        UserError: with the counts by reason and the first three rows.
    """
    if bad and log is not None:
        write_jsonl(log, (asdict(row) for row in bad))
    faults = [row for row in bad if row.fault]
    num_bad = len({(row.file, row.row) for row in faults})
    if num_rows > num_bad and num_bad <= max_bad_fraction * num_rows:
        return
    if num_rows == 0:
        raise UserError("no rows: the data holds nothing to train on")
    counts = ", ".join(f"{reason}: {num}" for reason, num in Counter(row.reason for row in faults).most_common())
    first = "".join(f"\n  {row.file}: row {row.row}: {row.reason}: {row.detail}" for row in faults[:3])
    listed = f"\nAll of them are in {log}." if log is not None else ""
    raise UserError(
        f"{num_bad} of {num_rows} rows ({num_bad / num_rows:.1%}) cannot be used, max_bad_fraction accepts "
        f"{max_bad_fraction:.1%} and at least one usable row. {counts}. First:{first}{listed}"
    )
