"""Pairs from a list that was read beforehand, in a new order every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from verisight.types import Pair, UserError


class Offline:
    """Walks over `pairs` for ever; epoch e is shuffled by (seed, e)."""

    def __init__(self, pairs: Sequence[Pair], *, seed: int) -> None:
        if not pairs:
            raise ValueError("an offline source needs at least one pair")
        self._pairs = pairs
        self._seed = seed
        self._position = 0
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def draw(self, n: int, policy: Any = None) -> list[Pair]:
        """The next n pairs. `policy` is ignored."""
        drawn = []
        for _ in range(n):
            epoch, index = divmod(self._position, len(self._pairs))
            if epoch != self._epoch:
                order = np.random.default_rng([self._seed, epoch]).permutation(len(self._pairs))
                self._epoch, self._order = epoch, order
            drawn.append(self._pairs[int(self._order[index])])
            self._position += 1
        return drawn

    def counts(self) -> dict[str, int]:
        """Nothing is left out here."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """How many pairs were drawn, and of what."""
        return {"position": self._position, "pairs": self._told}

    @cached_property
    def _told(self) -> str:
        """Names the pairs by their number and those of up to 64 of them, evenly spaced."""
        some = range(0, len(self._pairs), max(1, len(self._pairs) // 64))
        told = [[one.prompt.uid, one.prompt.text, one.chosen.text] for one in (self._pairs[at] for at in some)]
        return f"{len(self._pairs)} {hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}"

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many.

        Raises:
            UserError: the state was taken of other pairs.
        """
        if (found := state.get("pairs", self._told)) != self._told:
            raise UserError(
                f"source: the data changed since this run was killed (number of pairs and digest: then {found}, now "
                f"{self._told}); accepted: the data it began with, or a new output folder"
            )
        self._position = int(state["position"])
