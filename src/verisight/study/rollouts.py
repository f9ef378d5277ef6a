"""A run of RLOO or PPO: rewards measured before training, then source and step around the policy."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

from torch import Tensor

from verisight import build
from verisight.data.files import read_json, write_json
from verisight.judges.weighted import Scale, WeightedRewarder, measure
from verisight.models.policy import Policy
from verisight.progress import track
from verisight.recipe import Recipe, RewardPart, Rollouts
from verisight.sources.replayed import Replayed
from verisight.train.rollout import RolloutStep
from verisight.types import Group, Pair, Rewarder, UserError

REWARDS = "rewards.json"


class Learning(NamedTuple):
    """What the loop is given besides the policy."""

    source: Replayed
    step: RolloutStep
    rated_by: Rewarder
    beside: dict[str, Tensor]


def open_learning(recipe: Recipe, policy: Policy, rows: Mapping[str, Sequence[Pair]], *, quiet: bool) -> Learning:
    """Rewarders, reference, value function, source and step, for the policy as it stands before training."""
    rated_by = _weighted(recipe, policy, rows["source"], quiet=quiet)
    reference = build.reference(recipe, policy)
    critic = build.critic(recipe, policy)
    source = build.rollouts(recipe, rows, rated_by=rated_by, reference=reference, critic=critic)
    step = build.rollout_step(recipe, policy, reference=reference, critic=critic)
    return Learning(source, step, rated_by, {} if critic is None else critic.trainable())


def _weighted(recipe: Recipe, policy: Policy, examples: Sequence[Pair], *, quiet: bool) -> WeightedRewarder:
    """The sum of the recipe's rewards, each on the scale that rewards.json holds; it is written once."""
    node, target = recipe.source, recipe.output / REWARDS
    assert isinstance(node, Rollouts)
    rewarders = [
        build.rewarder(part.rewarder, folder=recipe.output, seed=recipe.seed, beside=policy, base=recipe.model.path)
        for part in node.rewards
    ]
    if node.normalize is None:
        scales = [Scale() for _ in rewarders]
    elif target.exists():
        scales = [Scale(one["mean"], one["std"], one["num"]) for one in read_json(target)["rewards"]]
    else:
        groups = _starting_answers(recipe, policy, examples[: node.normalize], quiet=quiet)
        scales = [_measured(part, one, groups, f"source.rewards.{i}") for i, (part, one) in
                  enumerate(zip(node.rewards, rewarders, strict=True))]  # fmt: skip
    told = [
        {"name": one.name, "weight": part.weight, **asdict(scale)}
        for part, one, scale in zip(node.rewards, rewarders, scales, strict=True)
    ]
    write_json(target, {"rewards": told})
    weights = [part.weight for part in node.rewards]
    return WeightedRewarder(list(zip(weights, rewarders, scales, strict=True)))


def _measured(part: RewardPart, rewarder: Rewarder, groups: Sequence[Group], key: str) -> Scale:
    if not part.weight:
        return Scale()
    try:
        return measure(rewarder, groups)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def _starting_answers(recipe: Recipe, policy: Policy, examples: Sequence[Pair], *, quiet: bool) -> list[Group]:
    """What the starting model answers to these prompts."""
    node, groups = recipe.source, []
    assert isinstance(node, Rollouts)
    drawing, seed = build.drawing(node), zlib.crc32(f"{recipe.seed}/rewards".encode())
    with track("rewards", total=len(examples), unit="prompts", quiet=quiet) as advance:
        for start in range(0, len(examples), node.batch_size):
            some = [one.prompt for one in examples[start : start + node.batch_size]]
            drawn = policy.sample(some, decoding=drawing.decoding, seed=seed, num=drawing.num)
            groups += [Group(one, tuple(s.answer for s in row)) for one, row in zip(some, drawn, strict=True)]
            advance(len(some))
    return groups
