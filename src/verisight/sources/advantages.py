"""From rewards and log-probs of drawn answers to advantages: leave-one-out (RLOO), generalised (PPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from verisight.objectives.policy_gradient import (
    Kl,
    gae,
    kl_per_token,
    leave_one_out,
    sequence_kl,
    token_rewards,
    whiten,
)

_EPS = 1e-8


class Batch(NamedTuple):
    """A batch of drawn answers: k to each prompt, prompt behind prompt. Tokens are padded on the right.

    rewards: (answers,). logp, ref_logp, values: (answers, tokens), nats, values in units of the reward; mask: bool of
    the same shape. num_draws: k.
    """

    rewards: Tensor
    logp: Tensor
    ref_logp: Tensor
    mask: Tensor
    num_draws: int
    values: Tensor | None = None


class Advantages(NamedTuple):
    """Both (answers, tokens), 0 in padded places; `returns` None without values."""

    advantages: Tensor
    returns: Tensor | None = None


class Estimate(Protocol):
    """Turns rewards into advantages. `beta`: weight of the KL to the reference, per nat."""

    @property
    def needs_values(self) -> bool:
        """Whether a value function has to speak."""
        ...

    def __call__(self, batch: Batch, *, beta: float) -> Advantages:
        """Advantages of every token."""
        ...


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """RLOO: reward less beta x KL of the whole answer, less the mean of the prompt's other answers' (eq. 2).

    Ahmadian et al. 2024. Every token of an answer has the answer's advantage. `whitened`: divided by the standard
    deviation over the batch (their mean is 0 by construction); in the paper's runs it is not.
    """

    kl: Kl = "k1"
    whitened: bool = False

    @property
    def needs_values(self) -> bool:
        """The other answers are the baseline."""
        return False

    def __call__(self, batch: Batch, *, beta: float) -> Advantages:
        """Advantages; no returns."""
        worth = batch.rewards - beta * sequence_kl(batch.logp, batch.ref_logp, batch.mask, kind=self.kl)
        found = leave_one_out(worth.view(-1, batch.num_draws)).flatten()
        if self.whitened:
            found = found * (found.square().mean() + _EPS).rsqrt()
        return Advantages(torch.where(batch.mask, found[:, None], 0))


@dataclass(frozen=True, slots=True)
class Generalised:
    """PPO: the KL is taken off token by token, the reward comes with the last one; GAE over both (Schulman 2016).

    `whitened`: advantages of all tokens of the batch get mean 0 and variance 1 (Ziegler et al. 2019).
    """

    kl: Kl = "k1"
    gamma: float = 1.0
    lam: float = 0.95
    whitened: bool = True

    @property
    def needs_values(self) -> bool:
        """They are the baseline."""
        return True

    def __call__(self, batch: Batch, *, beta: float) -> Advantages:
        """Advantages and returns."""
        assert batch.values is not None, "a value function has spoken"
        kl = kl_per_token(batch.logp, batch.ref_logp, kind=self.kl)
        rewards = token_rewards(batch.rewards, kl, batch.mask, beta=beta)
        found = gae(rewards, batch.values, batch.mask, gamma=self.gamma, lam=self.lam)
        advantages = whiten(found.advantages, batch.mask) if self.whitened else found.advantages
        return Advantages(advantages, found.returns)


def answer_kl(batch: Batch) -> float:
    """Mean over answers of log pi/pi_ref (k1), nats: an estimate of KL(pi || pi_ref) that is unbiased."""
    return float(sequence_kl(batch.logp, batch.ref_logp, batch.mask, kind="k1").mean())
