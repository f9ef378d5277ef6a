"""The pocket world's oracle in the writer's part: a chat model that makes true answers wrong when asked to."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from verisight.negatives.rewrite_prompt import read_request, written
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.raters import spoil
from verisight.types import Prompt, Reply, Request, UserError


class Scribe:
    """Answers what `Rewrite` asks about pictures of the pocket world (`types.Chat`), the picture in sight.

    One or two plausible errors more than the answer has (`verisight.pocket.oracle.corrupt`); with probability
    `noise` / 2, `noise` in [0, 1], only other words. Chance belongs to (seed, uid, question, answer): the same request
    gets the same reply in any batch.
    """

    def __init__(self, scenes: Path | KnownScenes, *, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise <= 1:
            raise UserError(f"noise: found {noise}; accepted: 0 to 1")
        if seed < 0:
            raise UserError(f"seed: found {seed}; accepted: 0 or more")
        self._scenes = scenes if isinstance(scenes, KnownScenes) else KnownScenes(scenes)
        self._noise, self._seed = noise, seed

    @property
    def name(self) -> str:
        """It, and how noisy."""
        return f"scribe, noise {self._noise:g}"

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply each, in order.

        Raises:
            UserError: a request that is not `Rewrite`'s, without a picture or with one of no known scene, or about a
                question that the oracle knows no answer to.
        """
        return [self._reply(one) for one in requests]

    def _reply(self, one: Request) -> Reply:
        asked = read_request(one.text)
        if asked is None:
            raise UserError(f"request {one.uid}: the scribe does not know what is asked; accepted: guidance rewrite")
        task = task_of(Prompt(one.uid, one.images, asked.question), self._scenes)
        words = [zlib.crc32(text.encode()) for text in (one.uid, *asked)]
        rng = np.random.default_rng([self._seed, *words])
        return Reply(written(spoil(task, asked.answer, noise=self._noise, rng=rng)))
