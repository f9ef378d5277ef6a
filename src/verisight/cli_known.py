"""What the verbs on judges and reward models share: pairs whose better answer is known, and figures as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verisight.data.readers import Reading
    from verisight.types import Pair


def draw_sample(
    reading: Reading, *, log: Path, num: int, seed: int, max_bad: float
) -> tuple[list[Pair], dict[str, Any]]:
    """Pairs to ask about, and what a summary says of the data. Bad rows are listed in `log`."""
    from verisight.data.outcome import enforce_bad_fraction
    from verisight.study.judging import sample_pairs
    from verisight.types import BadRow

    bad: list[BadRow] = []
    num_rows = 0

    def pairs() -> Iterator[Pair]:
        nonlocal num_rows
        for outcome in reading:
            num_rows += 1
            bad.extend(outcome.bad)
            yield from outcome.pairs

    sample, num_left_out = sample_pairs(pairs(), num=num, seed=seed)
    enforce_bad_fraction(bad, num_rows=num_rows, max_bad_fraction=max_bad, log=log)
    facts = {"data": [str(file) for file in reading.files], "kind": reading.format.name, "seed": seed}
    return sample, facts | {"num_pairs": len(sample), "num_rows": num_rows, "num_without_two_answers": num_left_out}


def percent(found: dict[str, Any]) -> str:
    """A share with its interval, in percent."""
    return interval(found, scale=100.0, digits=1)


def interval(found: dict[str, Any], *, scale: float, digits: int) -> str:
    """A value with its interval, "-" where there is none."""
    if found["value"] is None:
        return "-"
    value = f"{found['value'] * scale:.{digits}f}"
    if found["low"] is None:
        return value
    return f"{value} [{found['low'] * scale:.{digits}f}, {found['high'] * scale:.{digits}f}]"
