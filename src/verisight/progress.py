"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_LINE_SECONDS = 15.0  # between two plain lines


class Advance(Protocol):
    """Reports work done; `note` is a short text shown beside the bar (a loss, a share)."""

    def __call__(self, amount: int = 1, note: str = "") -> None:
        """`amount` more units are done."""
        ...


@contextmanager
def track(
    label: str, *, total: int | None, unit: str, done: int = 0, quiet: bool = False, brief: bool = False
) -> Iterator[Advance]:
    """Track `total` units of work (None: nobody knows) of which `done` were finished before (a resumed run).

    `brief` work says nothing in plain lines when it is done within seconds.
    """
    if quiet:
        yield lambda amount=1, note="": None
    elif sys.stderr.isatty():
        with _bar(label, total=total, unit=unit, done=done) as advance:
            yield advance
    else:
        with _lines(label, total=total, unit=unit, done=done, brief=brief) as advance:
            yield advance


@contextmanager
def _bar(label: str, *, total: int | None, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    start = time.monotonic()
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, completed=done, rate="", note="")

        def advance(amount: int = 1, note: str = "") -> None:
            progress.update(task, advance=amount)
            rate = (progress.tasks[0].completed - done) / max(time.monotonic() - start, 1e-9)
            progress.update(task, rate=f"{rate:.1f} {unit}/s", note=note)

        yield advance


@contextmanager
def _lines(label: str, *, total: int | None, unit: str, done: int, brief: bool) -> Iterator[Advance]:
    start = last = time.monotonic()
    count, latest = done, ""

    def line(now: float) -> str:
        rate = (count - done) / max(now - start, 1e-9)
        left = f", {(total - count) / rate:.0f} s left" if total and rate > 0 and count < total else ""
        return f"{label}: {count}{f'/{total}' if total else ''} ({rate:.1f} {unit}/s{left}) {latest}".rstrip()

    def advance(amount: int = 1, note: str = "") -> None:
        nonlocal count, last, latest
        count, latest, now = count + amount, note, time.monotonic()
        if now - last >= _LINE_SECONDS:
            last = now
            print(line(now), file=sys.stderr, flush=True)

    yield advance
    if brief and last == start:
        return
    print(f"{line(time.monotonic())} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
