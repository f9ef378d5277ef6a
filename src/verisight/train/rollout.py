"""The rollout step: rated answers -> log-probs under the policy as it is now -> one loss per prompt. RLOO and PPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from verisight.data.repetition import repetition
from verisight.models.policy import Policy
from verisight.models.scoring import Scorer
from verisight.models.value import ValueFunction
from verisight.objectives.policy_gradient import (
    Ratio,
    clipped,
    masked_mean,
    ppo_policy,
    ppo_value,
    reinforce,
    sequence_kl,
)
from verisight.train.preference import Outcome
from verisight.types import Rated, Rollout

ORIGIN = "rollouts"


class Answers(NamedTuple):
    """Drawn answers of all prompts as tensors, (answers, tokens) padded on the right; `mask` is true at real tokens.

    `logp`, `values` and `entropy` are those of the models as they are now and carry gradients. (answers,) are
    `answer_weight`, one over the answers of its prompt, and `token_weight`, see `types.Rollout`.
    """

    logp: Tensor
    old_logp: Tensor
    ref_logp: Tensor
    advantages: Tensor
    mask: Tensor
    answer_weight: Tensor
    token_weight: Tensor
    entropy: Tensor
    values: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None


class Losses(NamedTuple):
    """The loss of every answer, (answers,), and what to report of it, likewise."""

    loss: Tensor
    facts: dict[str, Tensor]


class RolloutObjective(Protocol):
    """Makes a loss of drawn answers, weighed so that a prompt's loss is the sum of its answers'."""

    @property
    def trains_entropy(self) -> bool:
        """Whether the entropy's gradient is needed."""
        ...

    def __call__(self, answers: Answers) -> Losses:
        """One value per answer."""
        ...


@dataclass(frozen=True, slots=True)
class Rloo:
    """REINFORCE with the advantages of whole answers (Ahmadian et al. 2024); the paper's RLOO (eq. 2).

    `clip`: PPO's clipping, for rollouts trained on more than once, by the `ratio` of answers or of tokens. None: none.
    """

    clip: float | None = 0.2
    ratio: Ratio = "sequence"

    @property
    def trains_entropy(self) -> bool:
        """No."""
        return False

    def __call__(self, answers: Answers) -> Losses:
        """One value per answer, times its weight."""
        advantages = answers.advantages[:, 0]
        if self.clip is None:
            loss = reinforce(answers.logp.where(answers.mask, 0).sum(-1), advantages)
            return Losses(answers.answer_weight * loss, {})
        found = clipped(answers.logp, answers.old_logp, advantages, answers.mask, clip=self.clip, ratio=self.ratio)
        return Losses(answers.answer_weight * found.loss, {"clipped_fraction": found.clipped_fraction})


@dataclass(frozen=True, slots=True)
class Ppo:
    """PPO (Schulman et al. 2017): clipped policy loss + value_weight x value loss - entropy_weight x entropy.

    Means over all tokens of the minibatch.
    """

    clip: float = 0.2
    value_clip: float | None = 0.2
    value_weight: float = 0.1
    entropy_weight: float = 0.0

    @property
    def trains_entropy(self) -> bool:
        """With a weight."""
        return self.entropy_weight != 0

    def __call__(self, answers: Answers) -> Losses:
        """One value per answer: a sum over its tokens, times the token's weight."""
        assert answers.values is not None, "a value function"
        assert answers.old_values is not None, "values when the answers were drawn"
        assert answers.returns is not None, "returns"
        mask = answers.mask
        policy = ppo_policy(answers.logp, answers.old_logp, answers.advantages, mask, clip=self.clip)
        value = ppo_value(answers.values, answers.old_values, answers.returns, mask, clip=self.value_clip)
        total = policy.loss + self.value_weight * value.loss - self.entropy_weight * answers.entropy
        facts = {
            "policy_loss": masked_mean(policy.loss, mask, -1),
            "value_loss": masked_mean(value.loss, mask, -1),
            "clipped_fraction": masked_mean(policy.clipped.float(), mask, -1),
            "value_clipped_fraction": masked_mean(value.clipped.float(), mask, -1),
        }
        return Losses(answers.token_weight * total.where(mask, 0).sum(-1), facts)


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """RLOO or PPO on any rollouts: groups are read once, prompt and picture once for all answers.

    Args:
        policy: what is trained.
        reference: what it is compared with; rollouts hold what it said, the step does not ask it again.
        objective: makes the loss.
        critic: the value function that trains with it; only with PPO.
    """

    policy: Policy
    reference: Scorer
    objective: RolloutObjective
    critic: ValueFunction | None = None

    def __call__(self, rollouts: Sequence[Rollout]) -> Outcome:
        """One loss per rollout: the mean over its answers (RLOO), the weighted sum over its tokens (PPO)."""
        groups = [rollout.group for rollout in rollouts]
        states = self.policy.read(groups)
        counts = states.num_tokens
        values = None if self.critic is None else _padded(self.critic.values(groups, states).split(counts))
        logp = self.policy.log_probs(states).token_logp
        with torch.set_grad_enabled(self.objective.trains_entropy and torch.is_grad_enabled()):
            entropy = self.policy.entropy(states)
        answers = _answers(rollouts, _padded(logp.split(counts)), _padded(entropy.split(counts)), values)
        losses = self.objective(answers)
        of_rollout = torch.arange(len(rollouts)).repeat_interleave(
            torch.tensor([len(rollout.rated) for rollout in rollouts])
        )
        loss = losses.loss.new_zeros(len(rollouts)).index_add(0, of_rollout.to(losses.loss.device), losses.loss)
        return _outcome(rollouts, loss, answers, losses.facts)


def _answers(rollouts: Sequence[Rollout], logp: Tensor, entropy: Tensor, values: Tensor | None) -> Answers:
    rated = [one for rollout in rollouts for one in rollout.rated]
    lengths = torch.tensor([len(one.logp) for one in rated])
    weights = [(1 / len(rollout.rated), rollout.token_weight) for rollout in rollouts for _ in rollout.rated]
    of_answer, of_token = torch.tensor(weights).to(logp).unbind(1)

    def table(name: str) -> Tensor:
        return _padded([torch.tensor(getattr(one, name)) for one in rated]).to(logp)

    return Answers(
        logp, table("logp"), table("ref_logp"), table("advantages"),
        (torch.arange(int(lengths.max())) < lengths[:, None]).to(logp.device), of_answer, of_token, entropy, values,
        *(() if values is None else (table("values"), table("returns"))),
    )  # fmt: skip


@torch.no_grad()
def _outcome(rollouts: Sequence[Rollout], loss: Tensor, answers: Answers, facts: dict[str, Tensor]) -> Outcome:
    """Means over a rollout's answers, summed over rollouts."""
    columns = {
        "kl_sum": sequence_kl(answers.old_logp, answers.ref_logp, answers.mask, kind="k1"),
        "kl_k3_sum": sequence_kl(answers.old_logp, answers.ref_logp, answers.mask, kind="k3"),
        "entropy": masked_mean(answers.entropy, answers.mask, -1),
        "ratio_kl_sum": sequence_kl(answers.old_logp, answers.logp, answers.mask, kind="k3"),
        **facts,
    }
    table = torch.stack([column.float() for column in columns.values()], dim=1).tolist()
    sums = {"loss": float(loss.detach().sum())}
    first = 0
    for rollout in rollouts:
        rows = table[first : first + len(rollout.rated)]
        first += len(rows)
        for name, values in zip(columns, zip(*rows, strict=True), strict=True):
            sums[name] = sums.get(name, 0.0) + sum(values) / len(values)
        for name, value in _told(rollout.rated).items():
            sums[name] = sums.get(name, 0.0) + value
    return Outcome(loss, sums, Counter({ORIGIN: len(rollouts)}), unit="rollouts")


def _told(rated: Sequence[Rated]) -> dict[str, float]:
    """What a rollout's answers look like, means over them; `distinct_fraction` is 1 where they are not all alike."""
    num = len(rated)
    return {
        "reward": sum(one.reward for one in rated) / num,
        "answer_tokens": sum(len(one.logp) for one in rated) / num,
        "truncated_fraction": sum(one.truncated for one in rated) / num,
        "repetition": sum(repetition(one.answer.text) for one in rated) / num,
        **({"distinct_fraction": float(len({one.answer.text for one in rated}) > 1)} if num > 1 else {}),
    }


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)
