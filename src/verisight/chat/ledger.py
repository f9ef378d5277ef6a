"""What was asked and what it cost, a line a request; and the answers, kept so that nobody pays for them twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from verisight.chat.bodies import Said
from verisight.chat.endpoint import Prices
from verisight.data.files import append_jsonl, read_json, read_jsonl, write_atomic, write_json
from verisight.types import UserError


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: tokens as the server counts them, attempts made, and seconds from its turn to its answer.

    `num_limited`: attempts that the server refused for coming too fast. `waited`: seconds of `seconds` spent waiting
    on purpose. A `cached` answer cost nothing this time: no attempt, no tokens. `cost` is None where no price or no
    count is known.
    """

    uid: str
    model: str
    cached: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    attempts: int = 0
    num_limited: int = 0
    waited: float = 0.0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a ledger. `num_uncounted`: paid requests whose tokens the server did not tell."""

    num_requests: int = 0
    num_cached: int = 0
    num_failed: int = 0
    num_attempts: int = 0
    num_limited: int = 0
    num_uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def plus(self, entry: Entry) -> Totals:
        """With one more request."""
        paid = not entry.cached and entry.attempts > 0
        return Totals(
            self.num_requests + 1,
            self.num_cached + entry.cached,
            self.num_failed + bool(entry.problem),
            self.num_attempts + entry.attempts,
            self.num_limited + entry.num_limited,
            self.num_uncounted + (paid and (entry.prompt_tokens is None or entry.completion_tokens is None)),
            self.prompt_tokens + (entry.prompt_tokens or 0),
            self.completion_tokens + (entry.completion_tokens or 0),
            self.cost + (entry.cost or 0.0),
            self.seconds + entry.seconds,
        )


class Ledger:
    """`folder`/ledger.jsonl, which every run adds to, and `folder`/totals.json. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ledger.jsonl"
        self._lock = Lock()
        self._totals = Totals()
        for row in read_jsonl(self._path) if self._path.exists() else []:
            row.pop("time", None)
            try:
                self._totals = self._totals.plus(Entry(**row))
            except TypeError as error:
                raise UserError(f"{self._path}: a row is no entry of a ledger ({error}); move the file away") from error

    def add(self, entry: Entry) -> None:
        """Write a line."""
        with self._lock:
            append_jsonl(self._path, {"time": datetime.now(UTC).isoformat(timespec="seconds")} | asdict(entry))
            self._totals = self._totals.plus(entry)

    @property
    def totals(self) -> Totals:
        """Sums over all runs that wrote here."""
        with self._lock:
            return self._totals

    def write_totals(self) -> None:
        """Write the sums."""
        write_json(self._path.with_name("totals.json"), asdict(self.totals))


def cost(said: Said, prices: Prices | None) -> float | None:
    """What an answer cost, None where no price or no count is known."""
    if prices is None or said.prompt_tokens is None or said.completion_tokens is None:
        return None
    return prices.of(said.prompt_tokens, said.completion_tokens)


class Answers:
    """Answers by the key of their question, one small file each in `folder`/answers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "answers"

    def find(self, key: str) -> Said | None:
        """The answer, None if it was never given. Raises UserError for a file that holds none."""
        path = self._path(key)
        if not path.exists():
            return None
        found: Any = read_json(path)
        try:
            said = Said(**found)
        except TypeError:
            said = None
        if said is None or not isinstance(said.text, str) or not isinstance(said.problem, str):
            raise UserError(f"{path}: holds no answer; delete it to have it asked again")
        return said

    def keep(self, key: str, said: Said) -> None:
        """Keep an answer, atomically."""
        write_atomic(self._path(key), json.dumps(said._asdict(), ensure_ascii=False) + "\n")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
