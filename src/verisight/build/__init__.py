"""The only switchboard: recipe node -> live object. Everything below it takes plain arguments."""

from __future__ import annotations

import math

from verisight import recipe
from verisight.build.annotators import check_chats
from verisight.build.benchmarks import benchmark
from verisight.build.models import cache_folder, keep_looks, open_model, open_reward, open_trained, tune
from verisight.build.negatives import hallucinate, origin
from verisight.build.objectives import diagnose, reference, step
from verisight.build.rollouts import critic, drawing, guard, rewarder, rollout_objective, rollout_step, rollouts
from verisight.build.sources import examples, file_name, held_out, join, rows_folder, source
from verisight.train.loop import Optimization

__all__ = [
    "benchmark",
    "cache_folder",
    "check_chats",
    "critic",
    "diagnose",
    "drawing",
    "examples",
    "file_name",
    "guard",
    "hallucinate",
    "held_out",
    "join",
    "keep_looks",
    "open_model",
    "open_reward",
    "open_trained",
    "optimization",
    "origin",
    "reference",
    "rewarder",
    "rollout_objective",
    "rollout_step",
    "rollouts",
    "rows_folder",
    "source",
    "step",
    "tune",
]


def optimization(one: recipe.Recipe, *, num_pairs: int) -> Optimization:
    """Steps and learning rates; epochs are counted in steps over `num_pairs` (prompts of rollouts)."""
    train, steps = one.train, one.train.steps
    if steps is None:
        assert train.epochs is not None, "the recipe sets steps or epochs"
        replays = one.source.epochs if isinstance(one.source, recipe.Rollouts) else 1
        steps = max(1, math.ceil(round(train.epochs * num_pairs / train.batch_size, 9)) * replays)
    return Optimization(
        steps=steps,
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        lr=train.lr,
        projector_lr=train.projector_lr,
        beside_lr=one.objective.value_lr if isinstance(one.objective, recipe.Ppo) else None,
        warmup_fraction=train.warmup_fraction,
        schedule=train.schedule,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        betas=train.adam_betas,
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        trackers=train.trackers,
    )
