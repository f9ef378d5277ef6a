"""The preference step: pairs -> log-probs under policy and reference -> one loss per pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from verisight.data.pairing import number
from verisight.models.policy import Policy
from verisight.models.scoring import Scorer, Scores
from verisight.objectives.preference import sft
from verisight.train.comparing import (
    OF_ORIGIN,
    averaged,
    by_origin,
    compare,
    facts,
    layout,
    reward_facts,
    rows_of,
    summed,
)
from verisight.train.objectives import (
    CalibratedSlic,
    Comparisons,
    Dpo,
    Dpop,
    Gpo,
    Ipo,
    Mdpo,
    Objective,
    Reward,
    Rpo,
    Slic,
)
from verisight.train.reductions import Mean, Reduction, Segmented, Sum
from verisight.types import Group, Pair, Prompt, UserError

__all__ = [
    "CalibratedSlic",
    "Comparisons",
    "Contrast",
    "Dpo",
    "Dpop",
    "Gpo",
    "Ipo",
    "Mdpo",
    "Mean",
    "NoReference",
    "Objective",
    "Outcome",
    "PreferenceStep",
    "Reduction",
    "Reward",
    "Rpo",
    "Scorer",
    "Segmented",
    "SftStep",
    "Slic",
    "Sum",
    "rejected_pictures",
]

Contrast = Callable[[Pair], Prompt]

_SUM = Sum()


@dataclass(frozen=True, slots=True)
class NoReference:
    """Reference-free: log-probs of the reference are 0, so that log-ratios are the policy's own log-probs."""

    policy: Policy

    def score(self, groups: Sequence[Group]) -> Scores:
        """Zeros, one per token that the policy would score. No model runs."""
        encoder, device = self.policy.encoder, self.policy.core.device
        counts = [sum(encoder.answer(group.prompt, one).supervised) for group in groups for one in group.answers]
        zeros = torch.zeros(sum(counts), device=device)
        return Scores(zeros.new_zeros(len(counts)), torch.tensor(counts, device=device), zeros)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch gave: the loss of every pair (with gradient), and sums to report, each over the batch's pairs.

    A pair's value is the mean over its rejected answers, by their weights. `_logp_sum` and `_logratio_sum` are summed
    over an answer's tokens; a margin is between log-ratios reduced as the step was told. In nats.

    Args:
        loss: (pairs,), or one value per what else a step is given.
        sums: name -> sum.
        origins: how many pairs of which origin.
        by_origin: origin -> {num, margin, accuracy, chosen_logp_sum, rejected_logp_sum, chosen_logratio_sum,
            rejected_logratio_sum, chosen_tokens, rejected_tokens}; after supervised fine-tuning {num,
            chosen_logp_sum, chosen_tokens}.
    """

    loss: Tensor
    sums: dict[str, float]
    origins: Counter[str]
    by_origin: dict[str, dict[str, float]] = field(default_factory=dict)
    unit: Literal["pairs", "rollouts"] = "pairs"


@dataclass(frozen=True, slots=True)
class SftStep:
    """Supervised fine-tuning on the chosen answers; rejected ones are not looked at."""

    policy: Policy

    def __call__(self, pairs: Sequence[Pair]) -> Outcome:
        """Mean negative log-prob per token of every chosen answer."""
        scores = self.policy.score([Group(pair.prompt, (pair.chosen,)) for pair in pairs])
        loss = sft(scores.logp_sum, num_tokens=scores.num_tokens)
        rows = rows_of({"loss": loss, "chosen_logp_sum": scores.logp_sum, "chosen_tokens": scores.num_tokens})
        total = summed(rows, rows[0])
        sums = {"loss": total["loss"], "chosen_logp_mean": -total["loss"], "num_tokens": total["chosen_tokens"]}
        return Outcome(loss, sums, _origins(pairs), by_origin(pairs, rows, ("chosen_logp_sum", "chosen_tokens")))


def rejected_pictures(pair: Pair) -> Prompt:
    """The pair's prompt with its `rejected_images` in place of the pictures.

    Raises:
        UserError: there are none, or not as many as the prompt has.
    """
    if not pair.rejected_images or len(pair.rejected_images) != len(pair.prompt.images):
        raise UserError(
            f"row {pair.prompt.uid}: found {len(pair.rejected_images)} rejected pictures beside "
            f"{len(pair.prompt.images)}, accepted: as many, at least one (an objective that compares pictures)"
        )
    return replace(pair.prompt, images=pair.rejected_images)


def rating_gap(pair: Pair) -> float | None:
    """Points that the chosen answer was rated above the rejected one, as readers of rated data note; None: unrated."""
    chosen, rejected = (number(pair.notes.get(f"{side}_score")) for side in ("chosen", "rejected"))
    return None if chosen is None or rejected is None else chosen - rejected


@dataclass(frozen=True, slots=True)
class PreferenceStep:
    """Any objective against any reference, log-probs of tokens reduced in any way.

    Args:
        policy: what is trained; with objective `Reward` a reward model, whose rewards stand for log-probs.
        reference: what it is compared with.
        objective: compares chosen and rejected answers; several rejected ones are averaged by the pair's weights.
        reduction: from the log-probs of tokens to that of an answer.
        contrast: the prompt, its pictures spoiled, that the chosen answer is scored with as well. Left out, `Mdpo`
            takes `rejected_pictures`, other objectives none.
    """

    policy: Policy
    reference: Scorer
    objective: Objective
    reduction: Reduction = _SUM
    contrast: Contrast | None = None

    def groups(self, pairs: Sequence[Pair]) -> list[Group]:
        """What both models score: every pair's group, then (with a contrast) one of every chosen answer."""
        contrast = self._contrast
        spoiled = [Group(contrast(pair), (pair.chosen,)) for pair in pairs] if contrast else []
        return [*(pair.group for pair in pairs), *spoiled]

    def __call__(self, pairs: Sequence[Pair]) -> Outcome:
        """Score both models on whole groups and compare."""
        for pair in pairs:
            assert pair.rejected, "a preference needs a rejected answer"
            assert len(pair.weights) == len(pair.rejected), "a weight for every rejected answer"
            assert abs(sum(pair.weights) - 1) < 1e-5, "weights sum to 1, so that the chosen answer counts once"
        groups = self.groups(pairs)
        scores, reference = self.policy.score(groups), self.reference.score(groups)
        places = layout(pairs, spoiled=self._contrast is not None)
        comparisons = compare(self.policy, pairs, places, scores=scores, reference=reference, reduction=self.reduction)
        if isinstance(self.objective, Reward) and self.objective.margin:
            gaps = [rating_gap(pair) for pair in pairs for _ in pair.rejected]
            assert None not in gaps, "pairs without ratings are left out before"
            comparisons = comparisons._replace(rating_gap=comparisons.chosen_logp.new_tensor(gaps))
        values = self.objective(comparisons)
        pair_of = torch.tensor(places.pair_of, device=values.device)
        weights = values.new_tensor([weight for pair in pairs for weight in pair.weights])
        columns = {"loss": values}
        if isinstance(self.objective, Reward):
            columns |= reward_facts(comparisons)
        else:
            columns |= facts(comparisons, places, scores=scores, reference=reference)
        means = {
            name: averaged(column.to(values.dtype), weights=weights, pair_of=pair_of, num=len(pairs))
            for name, column in columns.items()
        }
        rows = rows_of(means)
        flat = ("loss", *(name for name in means if name.endswith(("_mean", "accuracy", "_logratio_sum", "_reward"))))
        sums = {**summed(rows, flat), "margin_mean": sum(row["margin"] for row in rows)}
        if not isinstance(self.objective, Reward):
            sums["num_tokens"] = float(scores.num_tokens[: places.num_answers].sum())
        return Outcome(means["loss"], sums, _origins(pairs), by_origin(pairs, rows, OF_ORIGIN))

    @property
    def _contrast(self) -> Contrast | None:
        return self.contrast or (rejected_pictures if isinstance(self.objective, Mdpo) else None)


def _origins(pairs: Sequence[Pair]) -> Counter[str]:
    return Counter(pair.origin for pair in pairs)
