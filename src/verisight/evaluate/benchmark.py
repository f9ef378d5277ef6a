"""What a benchmark is: questions, and a pure scorer of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from verisight.types import Decoding, Prompt


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark. `cluster` is what answers may be correlated by (the image)."""

    uid: str
    prompt: Prompt
    cluster: str
    truth: dict[str, Any] = field(default_factory=dict)


class Benchmark(Protocol):
    """Questions, and a pure scorer of answers."""

    @property
    def name(self) -> str:
        """File name of its answers and key of its summary."""
        ...

    @property
    def protocol(self) -> str:
        """Which rules its numbers follow, such as "official" or "corrected"."""
        ...

    @property
    def decoding(self) -> Decoding:
        """How its answers are generated."""
        ...

    def items(self) -> list[Item]:
        """All questions, in a fixed order."""
        ...

    def score(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answer rows (uid, cluster, truth, answer) in, the same rows with their counts added out. No model."""
        ...

    def summary(self, scored: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
        """Metric name -> {value, low, high, num} with 95 % intervals clustered by image."""
        ...


@runtime_checkable
class Judged(Protocol):
    """A benchmark whose answers a judge reads before they are scored."""

    def judge(self, rows: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """Answer rows in, the same rows with the judge's replies out; what was asked before is in `folder`."""
        ...

    def about(self) -> dict[str, Any]:
        """What a summary says besides the numbers: version, and how the judge is asked (None: nobody judges)."""
        ...
