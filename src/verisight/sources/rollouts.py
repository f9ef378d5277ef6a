"""Rollouts: the policy answers, rewarders rate, policy, reference and value function say what they think of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.models.scoring import Scorer
from verisight.models.value import ValueFunction
from verisight.objectives.policy_gradient import AdaptiveKL, masked_mean
from verisight.sources.advantages import Advantages, Batch, Estimate, answer_kl
from verisight.sources.collect import numbered
from verisight.types import Decoding, Group, Pair, Prompt, Rated, Rewarder, Rollout, Sampled, Stream


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn and scored. `truncated_penalty` is taken off the reward of an answer that was cut off.

    `num`: answers to a prompt. `batch_size`: prompts that are scored at once; changes speed and memory only.
    """

    decoding: Decoding
    num: int = 4
    truncated_penalty: float = 0.0
    batch_size: int = 16


class _Answered(NamedTuple):
    """Answers to one prompt, their rewards, and of each answer log-probs, the reference's, values (or nothing)."""

    drawn: list[Sampled]
    rewards: list[float]
    columns: list[list[Tensor]]


class Rollouts:
    """Draws `drawing.num` answers to the next prompts from the current policy and rates them.

    A prompt is read once for all its answers. Log-probs are those of the training step, token by token, under the
    weights that drew; so are the reference's and the value function's. The KL's weight is steered batch by batch if
    `beta` has a target.

    Raises:
        UserError: by `draw`, what a rewarder raises.
    """

    def __init__(
        self, prompts: Stream[Pair], rewarder: Rewarder, reference: Scorer, estimate: Estimate, *, beta: AdaptiveKL,
        drawing: Drawing, seed: int, critic: ValueFunction | None = None, stream: str = "",
    ) -> None:  # fmt: skip
        assert (critic is not None) == estimate.needs_values, "a value function where it is asked, and only there"
        self._prompts, self._rewarder, self._reference = prompts, rewarder, reference
        self._estimate, self._critic, self._beta = estimate, critic, beta
        self._drawing, self._seed, self._stream = drawing, seed, stream
        self._num_drawn = 0
        self._facts: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def draw(self, n: int, policy: Policy) -> list[Rollout]:
        """The next n prompts with answers of `policy` as it is now."""
        self._seconds.clear()
        examples = self._prompts.draw(n, policy)
        prompts = numbered([one.prompt for one in examples], first=self._num_drawn, stream=self._stream)
        self._num_drawn += n
        named = list(zip(prompts, (one.prompt for one in examples), strict=True))
        told = ranks().share(named, lambda some: self._answered(some, policy))
        groups = [
            Group(one.prompt, tuple(s.answer for s in row.drawn)) for one, row in zip(examples, told, strict=True)
        ]
        drawn = [one for row in told for one in row.drawn]
        rewards = [value for row in told for value in row.rewards]
        columns = [
            [one for part in parts for one in part] for parts in zip(*(row.columns for row in told), strict=True)
        ]
        batch = self._batch(rewards, drawn, columns)
        found = self._estimate(batch, beta=self._beta.coef)
        self._note(batch, found)
        rollouts = _rollouts(groups, drawn, batch, found)
        self._beta = self._beta.update(answer_kl(batch), len(rewards))
        return rollouts

    def _answered(self, named: Sequence[tuple[Prompt, Prompt]], policy: Policy) -> list[_Answered]:
        """Answers to prompts, named by draw and as they are, their rewards, and what the models say of their tokens."""
        with self._timed("sampling"):
            prompts = [prompt for prompt, _ in named]
            drawn = policy.sample(prompts, decoding=self._drawing.decoding, seed=self._seed, num=self._drawing.num)
        groups = [Group(one, tuple(s.answer for s in row)) for (_, one), row in zip(named, drawn, strict=True)]
        with self._timed("rewards"):
            rewards = self._rewarder.rate(groups)
        with self._timed("scoring"):
            columns = self._scored(groups, policy)
        num = self._drawing.num
        return [
            _Answered(row, list(rated), [column[at * num : (at + 1) * num] for column in columns])
            for at, (row, rated) in enumerate(zip(drawn, rewards, strict=True))
        ]

    def _scored(self, groups: Sequence[Group], policy: Policy) -> list[list[Tensor]]:
        """Token log-probs under policy and reference, and values (or nothing): a tensor an answer, on the CPU."""
        columns: list[list[Tensor]] = [[], [], []]
        with torch.no_grad():
            for start in range(0, len(groups), self._drawing.batch_size):
                some = groups[start : start + self._drawing.batch_size]
                states = policy.read(some)
                found = [policy.log_probs(states).token_logp, self._reference.score(some).token_logp]
                if self._critic is not None:
                    found.append(self._critic.values(some, states))
                for column, one in zip(columns, found, strict=False):
                    column += one.float().cpu().split(states.num_tokens)
        return columns

    def _batch(self, rewards: Sequence[float], drawn: Sequence[Sampled], told: Sequence[Sequence[Tensor]]) -> Batch:
        logp, ref_logp, values = (pad_sequence(list(rows), batch_first=True) if rows else None for rows in told)
        assert logp is not None
        assert ref_logp is not None
        lengths = torch.tensor([len(row) for row in told[0]])
        worth = torch.tensor(rewards) - self._drawing.truncated_penalty * torch.tensor([s.truncated for s in drawn])
        mask = torch.arange(logp.shape[1]) < lengths[:, None]
        return Batch(worth.float(), logp, ref_logp, mask, self._drawing.num, values)

    def _note(self, batch: Batch, found: Advantages) -> None:
        """What holds for the whole batch and is no mean over prompts."""
        self._facts = {"beta": self._beta.coef, "reward_std": float(batch.rewards.std(correction=0))}
        if batch.values is not None and found.returns is not None:
            left, own = (_variance(one, batch.mask) for one in (found.returns - batch.values, found.returns))
            self._facts["explained_variance"] = 1 - left / own if own else 0.0

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - started

    def facts(self) -> dict[str, float]:
        """Of the newest batch: beta (the KL's weight), reward_std, explained_variance of the values."""
        return dict(self._facts)

    def seconds(self) -> dict[str, float]:
        """What the newest draw took: sampling, rewards, scoring."""
        return dict(self._seconds)

    def counts(self) -> dict[str, int]:
        """Nothing is left out here."""
        return self._prompts.counts()

    def state_dict(self) -> dict[str, Any]:
        """Position in the prompts and in the random stream, and the KL's weight."""
        return {
            "prompts": self._prompts.state_dict(), "num_drawn": self._num_drawn, "beta": self._beta.coef,
            "facts": self._facts,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._prompts.load_state_dict(state["prompts"])
        self._num_drawn, self._facts = int(state["num_drawn"]), dict(state["facts"])
        self._beta = replace(self._beta, coef=float(state["beta"]))


def _rollouts(groups: Sequence[Group], drawn: Sequence[Sampled], batch: Batch, found: Advantages) -> list[Rollout]:
    """Tensors to numbers, prompt by prompt."""
    lengths = batch.mask.sum(1).tolist()
    columns = [batch.logp, batch.ref_logp, found.advantages, batch.values, found.returns]
    rows = [
        [() if column is None else tuple(column[index, :length].tolist()) for column in columns]
        for index, length in enumerate(lengths)
    ]
    rated = iter(
        Rated(one.answer, one.truncated, float(reward), *row)
        for one, reward, row in zip(drawn, batch.rewards.tolist(), rows, strict=True)
    )
    return [Rollout(group.prompt, tuple(next(rated) for _ in group.answers)) for group in groups]


def _variance(values: Tensor, mask: Tensor) -> float:
    return float(masked_mean((values - masked_mean(values, mask)).square(), mask))
