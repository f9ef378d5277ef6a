"""Rollout nodes -> rewarders, the source of rollouts, and the step that learns from them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

from verisight import recipe
from verisight.build.annotators import annotator
from verisight.build.models import open_reward, tune
from verisight.judges.rewards import FunctionRewarder, ModelRewarder, OracleRewarder, WinsRewarder
from verisight.models.policy import Policy
from verisight.models.reward import read_head, with_head
from verisight.models.scoring import Scorer
from verisight.models.sharing import names_base, open_adapter, shared_copy
from verisight.models.value import Critic, SeparateValue, SharedValue, ValueFunction
from verisight.objectives.policy_gradient import AdaptiveKL
from verisight.sources.advantages import Estimate, Generalised, LeaveOneOut
from verisight.sources.offline import Offline
from verisight.sources.replayed import Replayed
from verisight.sources.rollouts import Drawing, Rollouts
from verisight.train.guard import Guard, Limits
from verisight.train.rollout import Ppo, Rloo, RolloutObjective, RolloutStep
from verisight.types import Decoding, Pair, Rewarder


def rewarder(
    node: recipe.Rewarder, *, folder: Path, seed: int, beside: Policy | None = None, base: str = ""
) -> Rewarder:
    """Who rates answers.

    A reward model that is an adapter on `base`, which the policy `beside` was opened from and holds frozen, shares it.
    """
    match node:
        case recipe.OracleReward(scenes=scenes, noise=noise):
            return OracleRewarder(scenes, noise=noise, seed=seed)
        case recipe.ModelReward(path=path, dtype=dtype):
            alike = beside is not None and beside.has_adapter and str(beside.core.dtype) == f"torch.{dtype}"
            if beside is not None and alike and names_base(Path(path), base):
                opened = Policy(open_adapter(beside, Path(path)), beside.encoder.processor, scoring=beside.scoring)
                return ModelRewarder(with_head(opened, read_head(Path(path))), name=path)
            return ModelRewarder(open_reward(recipe.Model(path=path, dtype=dtype)), name=path)
        case recipe.Wins(annotator=judge):
            return WinsRewarder(annotator(judge, folder=folder, seed=seed))
        case recipe.PythonReward(target=target):
            return FunctionRewarder(target)
        case other:
            assert_never(other)


def drawing(node: recipe.Rollouts) -> Drawing:
    """How answers are drawn: at temperature 1, of which log-probs speak."""
    decoding = Decoding(node.max_new_tokens, temperature=1.0)
    return Drawing(decoding, node.num_samples, node.truncated_penalty, node.batch_size)


def rollouts(
    one: recipe.Recipe, rows: Mapping[str, Sequence[Pair]], *, rated_by: Rewarder, reference: Scorer,
    critic: ValueFunction | None,
) -> Replayed:  # fmt: skip
    """The source of rollouts."""
    node = one.source
    assert isinstance(node, recipe.Rollouts)
    assert isinstance(one.objective, recipe.Rloo | recipe.Ppo)
    drawn = Rollouts(
        Offline(rows["source"], seed=one.seed), rated_by, reference, _estimate(one.objective),
        beta=_beta(one.objective), drawing=drawing(node), seed=one.seed, critic=critic, stream="source",
    )  # fmt: skip
    order = zlib.crc32(f"{one.seed}/replayed".encode())
    return Replayed(drawn, minibatches=node.minibatches, epochs=node.epochs, seed=order)


def guard(node: recipe.Rollouts) -> Guard | None:
    """What stops a run that has collapsed."""
    return None if node.guard is None else Guard(Limits(**node.guard.model_dump()))


def rollout_objective(node: recipe.Rloo | recipe.Ppo) -> RolloutObjective:
    """What is made of advantages."""
    match node:
        case recipe.Rloo(clip=clip, ratio=ratio):
            return Rloo(clip, ratio)
        case recipe.Ppo(clip=clip, value_clip=value_clip, value_weight=value, entropy_weight=entropy):
            return Ppo(clip, value_clip, value, entropy)
        case other:
            assert_never(other)


def _estimate(node: recipe.Rloo | recipe.Ppo) -> Estimate:
    match node:
        case recipe.Rloo(kl=kl, whiten=whiten):
            return LeaveOneOut(kl, whiten)
        case recipe.Ppo(kl=kl, gamma=gamma, lam=lam, whiten=whiten):
            return Generalised(kl, gamma, lam, whiten)
        case other:
            assert_never(other)


def _beta(node: recipe.Rloo | recipe.Ppo) -> AdaptiveKL:
    if isinstance(node, recipe.Ppo):
        return AdaptiveKL(node.beta, node.kl_target, node.horizon)
    return AdaptiveKL(node.beta)


def critic(one: recipe.Recipe, policy: Policy) -> Critic | None:
    """The value function of PPO: a head on the policy, or a network of its own, tuned as the policy is."""
    if not isinstance(one.objective, recipe.Ppo):
        return None
    if one.objective.value == "shared":
        return SharedValue(policy)
    network = Policy(shared_copy(policy), policy.encoder.processor, scoring=policy.scoring)
    tune(network, one.model, seed=zlib.crc32(f"{one.seed}/value".encode()))
    if one.train.gradient_checkpointing:
        network.checkpoint_gradients()
    return SeparateValue(network, policy)


def rollout_step(one: recipe.Recipe, policy: Policy, *, reference: Scorer, critic: ValueFunction | None) -> RolloutStep:
    """The step on rollouts."""
    assert isinstance(one.objective, recipe.Rloo | recipe.Ppo)
    return RolloutStep(policy, reference, rollout_objective(one.objective), critic)
