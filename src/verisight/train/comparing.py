"""From scores of groups to comparisons of answers, and what is reported of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from verisight.data.segments import TokenWeights
from verisight.models.policy import Policy
from verisight.models.scoring import Scores
from verisight.train.objectives import Comparisons, Spoiled
from verisight.train.reductions import Reduction, pick
from verisight.types import Pair

OF_ORIGIN = (
    "margin",
    "accuracy",
    "chosen_logp_sum",
    "rejected_logp_sum",
    "chosen_logratio_sum",
    "rejected_logratio_sum",
    "chosen_tokens",
    "rejected_tokens",
    "chosen_reward",
    "rejected_reward",
)

Row = dict[str, float]


class Layout(NamedTuple):
    """Which answer of the scored groups is which: indices into `Scores`, one entry per comparison."""

    pair_of: list[int]
    chosen: list[int]
    rejected: list[int]
    spoiled: list[int]  # the chosen answer with a spoiled picture; empty without a contrast
    num_answers: int  # of the pairs' own groups, which come first


def layout(pairs: Sequence[Pair], *, spoiled: bool) -> Layout:
    """Every pair's group in order, then (`spoiled`) one chosen answer per pair."""
    found = Layout([], [], [], [], sum(1 + len(pair.rejected) for pair in pairs))
    first = 0
    for number, pair in enumerate(pairs):
        for k in range(len(pair.rejected)):
            found.pair_of.append(number)
            found.chosen.append(first)
            found.rejected.append(first + 1 + k)
            found.spoiled.extend([found.num_answers + number] if spoiled else [])
        first += 1 + len(pair.rejected)
    return found


def compare(
    policy: Policy, pairs: Sequence[Pair], places: Layout, *, scores: Scores, reference: Scores, reduction: Reduction
) -> Comparisons:
    """Reduce the log-probs of both models' tokens with the same weights."""
    counts = scores.num_tokens.tolist()
    assert counts == reference.num_tokens.tolist(), "both models read the same tokens"
    weights: list[TokenWeights] = []
    first = 0
    for pair in pairs:
        behind = first + 1 + len(pair.rejected)
        weights += reduction.weights(policy, pair, counts[first:behind])
        first = behind
    of_chosen = [one.chosen for one in weights]
    chosen = pick(scores, places.chosen, of_chosen)
    rejected = pick(scores, places.rejected, [one.rejected for one in weights])
    spoiled = None
    if places.spoiled:
        again = pick(scores, places.spoiled, of_chosen)
        spoiled = Spoiled(again(scores.token_logp), again(reference.token_logp))
    return Comparisons(
        chosen_logp=chosen(scores.token_logp),
        rejected_logp=rejected(scores.token_logp),
        chosen_ref_logp=chosen(reference.token_logp),
        rejected_ref_logp=rejected(reference.token_logp),
        chosen_logp_mean=(scores.logp_sum / scores.num_tokens)[places.chosen],
        spoiled=spoiled,
    )


@torch.no_grad()
def facts(comparisons: Comparisons, places: Layout, *, scores: Scores, reference: Scores) -> dict[str, Tensor]:
    """What is reported, one value per comparison. A picture's margin: the true one against the spoiled one."""
    margin = comparisons.chosen_logratio - comparisons.rejected_logratio
    found = {"margin": margin, "accuracy": margin > 0}
    logratio_sum = scores.logp_sum - reference.logp_sum
    for side, index in (("chosen", places.chosen), ("rejected", places.rejected)):
        found[f"{side}_logp_sum"] = scores.logp_sum[index]
        found[f"{side}_logp_mean"] = (scores.logp_sum / scores.num_tokens)[index]
        found[f"{side}_logratio_sum"] = logratio_sum[index]
        found[f"{side}_tokens"] = scores.num_tokens[index]
    if comparisons.spoiled is not None:
        picture_margin = comparisons.chosen_logratio - comparisons.spoiled_logratio
        found |= {"picture_margin_mean": picture_margin, "picture_accuracy": picture_margin > 0}
    return found


@torch.no_grad()
def reward_facts(comparisons: Comparisons) -> dict[str, Tensor]:
    """What is reported of a reward model, one value per comparison."""
    chosen, rejected = comparisons.chosen_logp, comparisons.rejected_logp
    margin = chosen - rejected
    return {"margin": margin, "accuracy": margin > 0, "chosen_reward": chosen, "rejected_reward": rejected}


def averaged(values: Tensor, *, weights: Tensor, pair_of: Tensor, num: int) -> Tensor:
    """(comparisons, ...) values to (pairs, ...) means over a pair's rejected answers."""
    weights = weights.view(-1, *(1 for _ in values.shape[1:]))
    return values.new_zeros(num, *values.shape[1:]).index_add(0, pair_of, weights * values)


def rows_of(columns: dict[str, Tensor]) -> list[Row]:
    """One row per pair of (pairs,) columns. Waits for the device once."""
    table = torch.stack([column.detach().float() for column in columns.values()], dim=1).tolist()
    return [dict(zip(columns, row, strict=True)) for row in table]


def summed(rows: Iterable[Row], names: Iterable[str]) -> Row:
    """Sums over pairs."""
    rows = list(rows)
    return {name: sum(row[name] for row in rows) for name in names}


def by_origin(pairs: Sequence[Pair], rows: Sequence[Row], names: Sequence[str]) -> dict[str, Row]:
    """Sums over the pairs of every origin, of those of `names` that there are, and `num`, how many they are."""
    names = [name for name in names if name in rows[0]]
    found: dict[str, list[Row]] = {}
    for pair, row in zip(pairs, rows, strict=True):
        found.setdefault(pair.origin, []).append(row)
    return {origin: {"num": float(len(of)), **summed(of, names)} for origin, of in found.items()}
