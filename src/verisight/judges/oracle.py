"""The pocket world's annotator: it knows what is in the picture, and errs as often as it is told to."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.oracle import judge
from verisight.pocket.raters import prefer
from verisight.types import Comparison, UserError, Verdict


class OracleAnnotator:
    """Compares answers about pictures of the pocket world with their scenes (`types.Annotator`).

    Fewer faults win; of two alike in that the one that leaves out less; of two alike in both neither (a tie).
    `noise` in [0, 1]: 0 is always right, 1 a coin; between, an order is turned round with probability
    0.5 x noise^d (`verisight.pocket.raters.prefer`: d is how far the answers are apart), and a tie is broken by a
    coin with probability `noise`. Chance belongs to (seed, uid, both texts): the same comparison gets the same verdict
    in any batch.
    """

    def __init__(self, scenes: Path | KnownScenes, *, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise <= 1:
            raise UserError(f"noise: found {noise}; accepted: 0 to 1")
        self._scenes = scenes if isinstance(scenes, KnownScenes) else KnownScenes(scenes)
        self._noise, self._seed = noise, seed

    @property
    def name(self) -> str:
        """It, and how noisy."""
        return f"oracle, noise {self._noise:g}"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order, by the scene that the prompt's picture shows.

        Raises:
            UserError: a picture of no known scene, or a question that the oracle cannot judge.
        """
        return [self._verdict(one) for one in comparisons]

    def _verdict(self, one: Comparison) -> Verdict:
        task = task_of(one.prompt, self._scenes)
        first, second = judge(task, one.first), judge(task, one.second)
        words = [zlib.crc32(text.encode(errors="replace")) for text in (one.uid, one.first, one.second)]
        rng = np.random.default_rng([self._seed, *words])
        counts = ((first.num_faults, len(first.missed)), (second.num_faults, len(second.missed)))
        reason = f"faults {counts[0][0]}:{counts[1][0]}, missed {counts[0][1]}:{counts[1][1]}"
        if counts[0] == counts[1] and rng.random() >= self._noise:
            return Verdict("tie", reason)
        better = prefer(first, second, noise=self._noise, rng=rng).better
        return Verdict("first" if better == 1 else "second", reason)
