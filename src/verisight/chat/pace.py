"""When the next attempt may start: requests a minute, waits that double, waits that a server asks for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock

_FIRST_WAIT = 0.5  # seconds


class Pace:
    """Spaces the starts of requests evenly, for all threads together."""

    def __init__(self, requests_per_minute: float | None, *, sleep: Callable[[float], object]) -> None:
        self._interval = 60 / requests_per_minute if requests_per_minute else 0.0
        self._sleep = sleep
        self._lock = Lock()
        self._free = time.monotonic()

    def wait(self) -> float:
        """Sleep until a request may start. Returns the seconds."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + self._interval
        if start > now:
            self._sleep(start - now)
        return start - now

    def hold(self, seconds: float) -> None:
        """No request starts for so long: the server said that it is too busy."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)


def backoff(attempt: int, *, seed: int, key: str, longest: float) -> float:
    """Seconds to wait after a failed attempt (0 is the first): half a second doubled each time, times 0.5 to 1.

    The factor is drawn from seed, request and attempt, so that requests that failed together do not come back
    together.
    """
    drawn = random.Random(f"{seed}/{key}/{attempt}").uniform(0.5, 1.0)
    return min(longest, _FIRST_WAIT * 2.0 ** min(attempt, 30)) * drawn


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number of them, or a date. None for anything else."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header[:12])
    try:
        return max(0.0, float(header)) if float(header) < float("inf") else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
