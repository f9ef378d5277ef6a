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
from verisight.models.ranks import ranks
from verisight.progress import track
from verisight.recipe import Recipe, Rollouts
from verisight.sources.replayed import Replayed
from verisight.train.rollout import RolloutStep
from verisight.types import Group, Pair, Rewarder, UserError

REWARDS = "rewards.json"


class Learning(NamedTuple):
    """What the loop is given besides the policy. `raters`: what is trained on, and a gold reward on the same scale."""

    source: Replayed
    step: RolloutStep
    raters: dict[str, Rewarder]
    beside: dict[str, Tensor]


def open_learning(recipe: Recipe, policy: Policy, rows: Mapping[str, Sequence[Pair]], *, quiet: bool) -> Learning:
    """Rewarders, reference, value function, source and step, for the policy as it stands before training."""
    raters = _raters(recipe, policy, rows["source"], quiet=quiet)
    reference = build.reference(recipe, policy)
    critic = build.critic(recipe, policy)
    source = build.rollouts(recipe, rows, rated_by=raters["train"], reference=reference, critic=critic)
    step = build.rollout_step(recipe, policy, reference=reference, critic=critic)
    return Learning(source, step, raters, {} if critic is None else critic.trainable())


def _raters(recipe: Recipe, policy: Policy, examples: Sequence[Pair], *, quiet: bool) -> dict[str, Rewarder]:
    """The sum of the recipe's rewards, and its gold reward, each on the scale that rewards.json holds.

    The file is written once, from answers of the policy as it is before training.
    """
    node, target = recipe.source, recipe.output / REWARDS
    assert isinstance(node, Rollouts)
    gold = [] if recipe.diagnose is None or recipe.diagnose.gold is None else [recipe.diagnose.gold]
    asked = [(f"source.rewards.{i}", part.weight, part.rewarder) for i, part in enumerate(node.rewards)]
    asked += [("diagnose.gold", 1.0, one) for one in gold]
    live = [
        build.rewarder(one, folder=recipe.output, seed=recipe.seed, beside=policy, base=recipe.model.path)
        for _, _, one in asked
    ]
    if not ranks().told(target.exists())[0]:
        scales = [Scale() for _ in live]
        if node.normalize is not None:
            groups = _starting_answers(recipe, policy, examples[: node.normalize], quiet=quiet)
            scales = [
                _measured(one, groups, key) if weight and ranks().main else Scale()
                for (key, weight, _), one in zip(asked, live, strict=True)
            ]
        told = [
            {"key": key, "name": one.name, "weight": weight, **asdict(scale)}
            for (key, weight, _), one, scale in zip(asked, live, scales, strict=True)
        ]
        if ranks().main:
            write_json(target, {"rewards": told})
        ranks().wait()
    scales = [Scale(one["mean"], one["std"], one["num"]) for one in read_json(target)["rewards"]]
    parts = [(weight, one, scale) for (_, weight, _), one, scale in zip(asked, live, scales, strict=True)]
    found: dict[str, Rewarder] = {"train": WeightedRewarder(parts[: len(node.rewards)])}
    if gold:
        found["gold"] = WeightedRewarder(parts[-1:])
    return found


def _measured(rewarder: Rewarder, groups: Sequence[Group], key: str) -> Scale:
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
            drawn = ranks().share(
                some, lambda own: policy.sample(own, decoding=drawing.decoding, seed=seed, num=drawing.num)
            )
            groups += [Group(one, tuple(s.answer for s in row)) for one, row in zip(some, drawn, strict=True)]
            advance(len(some))
    return groups
