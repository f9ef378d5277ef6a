"""Sources made of sources: mixtures, and pairs that are drawn anew every so many steps."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from verisight.models.policy import Policy
from verisight.sources.collect import as_json, from_json
from verisight.types import Pair, Source


class Mixed:
    """Every pair comes from one of several sources (the paper's eq. 4: offline with probability p, else online).

    `parts`: (weight, source), weights above 0 or 0, not all 0; they need not sum to 1. `order`: "bernoulli" draws the
    part of every pair from the stream named by (`seed`, `stream`), "interleave" takes the one that is furthest behind
    its share, so that the shares are exact. Whatever the sizes of the draws, the pairs are the same.
    """

    def __init__(
        self, parts: Sequence[tuple[float, Source]], *, seed: int, stream: str = "",
        order: Literal["bernoulli", "interleave"] = "bernoulli",
    ) -> None:  # fmt: skip
        weights = np.array([weight for weight, _ in parts], dtype=np.float64)
        assert weights.min() >= 0 < weights.sum(), f"weights {weights.tolist()}"
        self._sources = [source for _, source in parts]
        self._shares = weights / weights.sum()
        self._stream = [seed, zlib.crc32(stream.encode())]
        self._order = order
        self._taken = np.zeros(len(parts), dtype=np.int64)

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs, each part asked once."""
        picked = [self._pick() for _ in range(n)]
        drawn = {part: iter(self._sources[part].draw(num, policy)) for part, num in sorted(Counter(picked).items())}
        return [next(drawn[part]) for part in picked]

    def _pick(self) -> int:
        """The part of the next pair."""
        number = int(self._taken.sum())
        if self._order == "bernoulli":
            uniform = np.random.default_rng([*self._stream, number]).random()
            part = int(np.searchsorted(self._shares.cumsum(), uniform, side="right"))
            part = min(part, int(self._shares.nonzero()[0][-1]))  # rounding of the sum
        else:
            part = int((self._shares * (number + 1) - self._taken).argmax())
        self._taken[part] += 1
        return part

    def counts(self) -> dict[str, int]:
        """What the parts left out so far, by reason."""
        return dict(sum((Counter(source.counts()) for source in self._sources), Counter()))

    def state_dict(self) -> dict[str, Any]:
        """How many pairs each part gave, and the parts' states."""
        return {"taken": self._taken.tolist(), "parts": [source.state_dict() for source in self._sources]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._taken = np.array(state["taken"], dtype=np.int64)
        for source, part in zip(self._sources, state["parts"], strict=True):
            source.load_state_dict(part)


class Iterated:
    """Pairs of a source drawn `every` steps ahead: the policy that makes them is brought up to date only then.

    Between online (every 1) and offline: iterated alignment. A step is one draw; inside a mixture, whose draws are not
    of one size, it is about so many. The pairs that wait are part of the state.
    """

    def __init__(self, source: Source, *, every: int) -> None:
        assert every >= 1, f"every {every}"
        self._source = source
        self._every = every
        self._waiting: list[Pair] = []

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs; where too few wait, `every` x n more are made by `policy` as it is now."""
        if len(self._waiting) < n:
            self._waiting += self._source.draw(n * self._every, policy)
        drawn, self._waiting = self._waiting[:n], self._waiting[n:]
        return drawn

    def counts(self) -> dict[str, int]:
        """What the source left out so far, by reason."""
        return self._source.counts()

    def state_dict(self) -> dict[str, Any]:
        """The source's state and the pairs that wait."""
        return {"source": self._source.state_dict(), "waiting": [as_json(pair) for pair in self._waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._source.load_state_dict(state["source"])
        self._waiting = [from_json(row) for row in state["waiting"]]
