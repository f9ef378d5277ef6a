"""Rollouts trained on more than once (PPO's epochs and minibatches), and rollouts as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from verisight.models.policy import Policy
from verisight.sources.collect import as_json, from_json
from verisight.sources.rollouts import Rollouts
from verisight.types import Answer, Pair, Rated, Rollout


class Replayed:
    """Every batch of rollouts is cut into `minibatches` and gone through `epochs` times, in a new order each time.

    A step gets one minibatch; `minibatches` x `epochs` steps later the policy draws anew (Schulman et al. 2017). The
    rollouts that wait are part of the state.
    """

    def __init__(self, rollouts: Rollouts, *, minibatches: int, epochs: int, seed: int) -> None:
        assert minibatches >= 1 <= epochs, f"minibatches {minibatches}, epochs {epochs}"
        self._rollouts, self._minibatches, self._epochs, self._seed = rollouts, minibatches, epochs, seed
        self._batch: list[Rollout] = []
        self._waiting: list[int] = []  # numbers in the batch, in the order in which they come
        self._num_batches = 0
        self._fresh = False

    def draw(self, n: int, policy: Policy) -> list[Rollout]:
        """The next n rollouts of the batch; of a new one, drawn by `policy` as it is now, where none wait."""
        self._fresh = not self._waiting
        if self._fresh:
            self._batch = self._rollouts.draw(n * self._minibatches, policy)
            for epoch in range(self._epochs):
                rng = np.random.default_rng([self._seed, self._num_batches, epoch])
                self._waiting += rng.permutation(len(self._batch)).tolist()
            self._num_batches += 1
        numbers, self._waiting = self._waiting[:n], self._waiting[n:]
        return weighted([self._batch[number] for number in numbers])

    def facts(self) -> dict[str, float]:
        """Of the batch in use."""
        return self._rollouts.facts()

    def seconds(self) -> dict[str, float]:
        """What the newest draw took; nothing where rollouts waited."""
        return self._rollouts.seconds() if self._fresh else {}

    def counts(self) -> dict[str, int]:
        """Nothing is left out here."""
        return self._rollouts.counts()

    def state_dict(self) -> dict[str, Any]:
        """The state of the rollouts, and those that wait."""
        batch = [to_json(one) for one in self._batch] if self._waiting else []
        told = {"batch": batch, "waiting": self._waiting, "num_batches": self._num_batches}
        return {"rollouts": self._rollouts.state_dict()} | told

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._rollouts.load_state_dict(state["rollouts"])
        self._batch = [from_row(row) for row in state["batch"]]
        self._waiting, self._num_batches = list(state["waiting"]), int(state["num_batches"])


def weighted(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The same with token weights by which the mean over these rollouts is the mean over their tokens."""
    num_tokens = sum(len(one.logp) for rollout in rollouts for one in rollout.rated)
    return [replace(rollout, token_weight=len(rollouts) / num_tokens) for rollout in rollouts]


def to_json(rollout: Rollout) -> dict[str, Any]:
    """The rollout as JSON values, pictures held as bytes in base64."""
    return {
        "prompt": as_json(Pair(rollout.prompt, Answer("-"))),  # a pair has to have one
        "rated": [asdict(one) for one in rollout.rated],
    }


def from_row(row: dict[str, Any]) -> Rollout:
    """The rollout that `to_json` wrote."""
    return Rollout(from_json(row["prompt"]).prompt, tuple(map(_rated, row["rated"])))


def _rated(told: dict[str, Any]) -> Rated:
    answer = Answer(told["answer"]["text"], token_ids=tuple(told["answer"]["token_ids"]))
    per_token = [tuple(told[name]) for name in ("logp", "ref_logp", "advantages", "values", "returns")]
    return Rated(answer, told["truncated"], told["reward"], *per_token)
