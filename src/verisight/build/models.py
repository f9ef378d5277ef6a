"""Model nodes -> policies, on the GPU if there is one."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import torch

from verisight import recipe
from verisight.models.fingerprint import tower_fingerprint
from verisight.models.loading import load_model
from verisight.models.policy import Policy, Scoring
from verisight.models.reward import RewardModel, new_head, read_head, with_head
from verisight.models.stores import Disk, Memory
from verisight.models.tuning import LoraSettings
from verisight.types import UserError


def open_model(model: recipe.Model, *, scoring: Scoring = "grouped") -> Policy:
    """The starting model, nothing of it training, on the GPU if there is one."""
    try:
        opened, processor = load_model(model.path, dtype=model.dtype, trust_remote_code=model.trust_remote_code)
    except OSError as error:  # Hugging Face's word for a hub id that is unknown or out of reach
        reason, accepted = str(error).strip().splitlines()[0], "a model folder, a hub id within reach or 'pocket'"
        raise UserError(f"model.path: {model.path} does not open ({reason}); accepted: {accepted}") from error
    return Policy(opened.to("cuda") if torch.cuda.is_available() else opened, processor, scoring=scoring)


def open_trained(one: recipe.Recipe) -> Policy:
    """What the recipe trains: its starting model, with a new head where that becomes a reward model."""
    policy = open_model(one.model, scoring=one.train.scoring)
    if isinstance(one.objective, recipe.Reward):
        return with_head(policy, new_head(policy, seed=one.seed))
    return policy


def open_reward(model: recipe.Model) -> RewardModel:
    """A reward model that was trained before, nothing of it training.

    Raises:
        UserError: the folder holds no reward model.
    """
    head = read_head(Path(model.path))
    return with_head(open_model(model), head)


def tune(policy: Policy, model: recipe.Model, *, seed: int = 0) -> None:
    """Make what the recipe names trainable. `seed` draws an adapter's first weights."""
    match model.tune:
        case recipe.Lora(r=r, alpha=alpha, targets=targets):
            settings = LoraSettings(r, alpha, targets)
            policy.tune(settings, train_projector=model.train_projector, base_name=model.path, seed=seed)
        case recipe.Full():
            policy.tune(None, train_projector=model.train_projector)
        case other:
            assert_never(other)


def cache_folder(one: recipe.Recipe) -> Path:
    """Where reference log-probs and image features are kept."""
    return one.train.cache or one.output / "cache"


def keep_looks(policy: Policy, one: recipe.Recipe) -> None:
    """Keep what the vision tower makes of pictures where the recipe says. After `tune`, which forgets it.

    On disk, in a folder named after the tower and the processor: what others made is never read.
    """
    match one.train.image_features:
        case "live":
            pass
        case "memory":
            policy.keep_looks(Memory())
        case "disk":
            policy.keep_looks(Disk(cache_folder(one) / "images" / tower_fingerprint(policy)))
        case other:
            assert_never(other)
