"""The preference step: pairs -> log-probs under policy and reference -> one loss per pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from verisight.models.policy import Policy
from verisight.models.scoring import Scores
from verisight.objectives.preference import dpo, sft
from verisight.types import Group, Pair


class Comparisons(NamedTuple):
    """Log-probs of chosen against rejected answers, one row per (pair, rejected answer). Nats, summed over tokens."""

    chosen_logp_sum: Tensor
    rejected_logp_sum: Tensor
    chosen_ref_logp_sum: Tensor
    rejected_ref_logp_sum: Tensor


class Scorer(Protocol):
    """What a policy is compared with: `Reference`, or `StoredReference`."""

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs of every answer, without gradients."""
        ...


class Objective(Protocol):
    """Compares the answers of pairs."""

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        ...


@dataclass(frozen=True, slots=True)
class Dpo:
    """DPO (the paper's eq. 3) on a batch."""

    beta: float = 0.1
    label_smoothing: float = 0.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return dpo(
            comparisons.chosen_logp_sum - comparisons.chosen_ref_logp_sum,
            comparisons.rejected_logp_sum - comparisons.rejected_ref_logp_sum,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )


class Outcome(NamedTuple):
    """What a batch gave: the loss of every pair (with gradient), and sums to report, each over the batch's pairs."""

    loss: Tensor  # (pairs,)
    sums: dict[str, float]
    origins: Counter[str]


@dataclass(frozen=True, slots=True)
class SftStep:
    """Supervised fine-tuning on the chosen answers; rejected ones are not looked at."""

    policy: Policy

    def __call__(self, pairs: Sequence[Pair]) -> Outcome:
        """Mean negative log-prob per token of every chosen answer."""
        scores = self.policy.score([Group(pair.prompt, (pair.chosen,)) for pair in pairs])
        loss = sft(scores.logp_sum, num_tokens=scores.num_tokens)
        sums = {"loss": _total(loss), "chosen_logp_mean": -_total(loss), "num_tokens": _total(scores.num_tokens)}
        return Outcome(loss, sums, _origins(pairs))


@dataclass(frozen=True, slots=True)
class PreferenceStep:
    """Any pairwise objective against a frozen reference. Rejected answers are averaged by the pair's weights."""

    policy: Policy
    reference: Scorer
    objective: Objective

    def __call__(self, pairs: Sequence[Pair]) -> Outcome:
        """Score both models on whole groups and compare."""
        assert all(pair.rejected for pair in pairs), "a preference needs a rejected answer"
        groups = [pair.group for pair in pairs]
        scores, reference = self.policy.score(groups), self.reference.score(groups)
        pair_of = torch.tensor([i for i, pair in enumerate(pairs) for _ in pair.rejected])
        is_chosen = torch.tensor([k == 0 for group in groups for k in range(len(group.answers))])
        rejected = (~is_chosen).nonzero()[:, 0]
        chosen = is_chosen.nonzero()[:, 0][pair_of]
        comparisons = Comparisons(
            scores.logp_sum[chosen], scores.logp_sum[rejected], reference.logp_sum[chosen], reference.logp_sum[rejected]
        )
        weights = scores.logp_sum.new_tensor([weight for pair in pairs for weight in pair.weights])
        loss = scores.logp_sum.new_zeros(len(pairs)).index_add(
            0, pair_of.to(weights.device), weights * self.objective(comparisons)
        )
        return Outcome(loss, _report(comparisons, weights, loss, scores.num_tokens, chosen, rejected), _origins(pairs))


def _report(
    comparisons: Comparisons, weights: Tensor, loss: Tensor, num_tokens: Tensor, chosen: Tensor, rejected: Tensor
) -> dict[str, float]:
    with torch.no_grad():
        chosen_ratio = comparisons.chosen_logp_sum - comparisons.chosen_ref_logp_sum
        rejected_ratio = comparisons.rejected_logp_sum - comparisons.rejected_ref_logp_sum
        margin = chosen_ratio - rejected_ratio
        return {
            "loss": _total(loss),
            "margin_mean": _total(weights * margin),
            "accuracy": _total(weights * (margin > 0)),
            "chosen_logratio_sum": _total(weights * chosen_ratio),
            "rejected_logratio_sum": _total(weights * rejected_ratio),
            "chosen_logp_mean": _total(weights * comparisons.chosen_logp_sum / num_tokens[chosen]),
            "rejected_logp_mean": _total(weights * comparisons.rejected_logp_sum / num_tokens[rejected]),
            "num_tokens": _total(num_tokens),
        }


def _origins(pairs: Sequence[Pair]) -> Counter[str]:
    return Counter(pair.origin for pair in pairs)


def _total(values: Any) -> float:
    return float(values.detach().sum())
