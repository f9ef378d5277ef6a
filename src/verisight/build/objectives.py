"""Objective nodes -> the training step."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, assert_never

import numpy as np

from verisight import recipe
from verisight.build.negatives import picture_view
from verisight.data.segments import Segments
from verisight.data.views import Chain
from verisight.models.policy import Policy
from verisight.models.reference import Reference, StoredReference
from verisight.models.reward import NoReward, RewardModel
from verisight.models.scoring import Scorer
from verisight.train import preference
from verisight.train.diagnose import Diagnose
from verisight.train.loop import Step
from verisight.train.preference import Contrast, Objective, PreferenceStep, Reduction, SftStep
from verisight.train.rollout import RolloutStep
from verisight.types import Pair, Prompt, Rewarder


def step(
    one: recipe.Recipe, policy: Policy, rows: Mapping[str, Sequence[Pair]], *, stored: StoredReference | None = None
) -> Step[Pair]:
    """The step on pairs. The reference is taken from the policy as it stands now, unless it was `stored` before.

    `rows` are what the sources work on: a spoiled picture may be one of theirs.
    """
    if isinstance(one.objective, recipe.Sft):
        return SftStep(policy)
    if isinstance(policy, RewardModel):
        return PreferenceStep(policy, NoReward(policy), objective(one.objective))
    contrast = None
    if isinstance(one.objective, recipe.Mdpo):
        contrast = _contrast(one.objective, Chain(list(rows.values())), seed=one.seed)
    return PreferenceStep(
        policy, stored or reference(one, policy), objective(one.objective), _reduction(one.objective), contrast
    )


def objective(node: recipe.Objective) -> Objective:
    """How log-probs are compared."""
    match node:
        case recipe.Dpo(beta=beta, label_smoothing=smoothing):
            return preference.Dpo(beta, smoothing)
        case recipe.Ddpo(beta=beta):
            return preference.Dpo(beta)
        case recipe.Ipo(tau=tau):
            return preference.Ipo(tau)
        case recipe.Slic(beta=beta):
            return preference.Slic(beta)
        case recipe.CalibratedSlic(delta=delta, sft_weight=weight):
            return preference.CalibratedSlic(delta, weight)
        case recipe.Gpo(beta=beta, f=f):
            return preference.Gpo(beta, f)
        case recipe.Dpop(beta=beta, penalty=penalty):
            return preference.Dpop(beta, penalty)
        case recipe.Rpo(beta=beta, sft_weight=weight):
            return preference.Rpo(beta, weight)
        case recipe.Mdpo(beta=beta, delta=delta, image_weight=image, anchor_weight=anchor):
            return preference.Mdpo(beta, delta, image, anchor)
        case recipe.Reward(center=center, margin=margin):
            return preference.Reward(center, margin)
        case recipe.Sft() | recipe.Rloo() | recipe.Ppo():
            raise AssertionError(f"{node.kind} compares nothing")
        case other:
            assert_never(other)


def _reduction(node: recipe.Objective) -> Reduction:
    match node:
        case recipe.Ipo(over="mean"):
            return preference.Mean()
        case recipe.Ddpo(gamma=gamma, average=average, muffin_compat=compat):
            return preference.Segmented(Segments(gamma, average, compat))
        case _:
            return preference.Sum()


def _contrast(node: recipe.Mdpo, rows: Sequence[Pair], *, seed: int) -> Contrast:
    """The spoiled prompt of a pair: its own `rejected_images`, or the view's, the same at every step."""
    view = picture_view(node.view, rows)

    def spoiled(pair: Pair) -> Prompt:
        if pair.rejected_images:
            return preference.rejected_pictures(pair)
        rng = np.random.default_rng([seed, zlib.crc32(pair.prompt.uid.encode())])
        made = view.spoil(pair.prompt, rng=rng).prompt
        return replace(made, images=tuple(replace(image, one_use=False) for image in made.images))

    return spoiled


def diagnose(
    one: recipe.Recipe, policy: Policy, step: Step[Any], pairs: Sequence[Pair], *,
    raters: Mapping[str, Rewarder] | None = None,
) -> Diagnose:  # fmt: skip
    """What is looked at while training. `raters` rate the answers that are sampled then.

    Compared with the step's live reference; else, where there is an adapter, with the model without it. Full tuning
    without a live reference (SFT, reference-free) has nothing to compare with.
    """
    assert one.diagnose is not None
    compared: Scorer | None = step.reference if isinstance(step, PreferenceStep | RolloutStep) else None
    if not isinstance(compared, Reference):
        compared = Reference(policy, mode="adapter_off") if policy.has_adapter else None
    return Diagnose(
        policy, compared, pairs, every=one.diagnose.every, seed=one.seed, max_new_tokens=one.diagnose.max_new_tokens,
        num_samples=one.diagnose.num_samples,
        batch_size=one.train.micro_batch_size or one.train.batch_size, raters=raters or {},
    )  # fmt: skip


def reference(one: recipe.Recipe, policy: Policy) -> Scorer:
    """What the policy is compared with, as it stands now."""
    mode = one.train.reference
    assert mode != "cached", "log-probs are stored before the step is built"
    if mode == "none" or isinstance(one.objective, recipe.CalibratedSlic):
        return preference.NoReference(policy)
    if mode == "auto":
        mode = "adapter_off" if policy.has_adapter else "frozen_copy"
    return Reference(policy, mode=mode)
