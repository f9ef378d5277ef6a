"""The root of a recipe, its optimisation settings, and what must not be combined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import (
    Count,
    Fraction,
    Momentum,
    Node,
    NonNegative,
    OptionalFolder,
    Output,
    Positive,
    Seed,
    Switch,
    about,
)
from verisight.recipe.benchmarks import Benchmark, benchmark_name
from verisight.recipe.data import Data, compares
from verisight.recipe.nodes import Full, Lora, Model
from verisight.recipe.objectives import CalibratedSlic, Mdpo, Objective, Ppo, Reward, Rloo, Sft
from verisight.recipe.rollouts import Rewarder, Rollouts, Wins
from verisight.recipe.sources import Mixed, Offline, Source, below, is_fixed, with_data


class Train(Node):
    """The optimisation: AdamW [Loshchilov and Hutter 2019]."""

    steps: Annotated[Count | None, about("optimizer steps; set this or epochs")] = None
    epochs: Annotated[Positive | None, about("passes over the data; set this or steps [paper appendix A: 3, 5, 7]")] = (
        None
    )
    batch_size: Annotated[
        Count, about("pairs per optimizer step, all devices together [paper appendix A: 16, 32, 48]")
    ] = 16
    micro_batch_size: Annotated[Count | None, about("pairs forwarded at once on a device; empty: batch_size")] = None
    lr: Annotated[Positive, about("peak learning rate [paper appendix A: 1e-7 to 5e-6]")] = 5e-7
    projector_lr: Annotated[
        Positive | None, about("peak rate of the projector; empty: lr [paper appendix A: 2e-7 to 2e-5]")
    ] = None
    warmup_fraction: Annotated[Fraction, about("share of steps in which the rate rises from 0")] = 0.03
    schedule: Annotated[
        Literal["cosine", "constant", "linear"],
        about("learning rate after warm-up; cosine and linear fall to 0 [Loshchilov and Hutter 2017]"),
    ] = "cosine"
    weight_decay: Annotated[
        NonNegative, about("decay of weights per step, times the rate [Loshchilov and Hutter 2019]")
    ] = 0.0
    max_grad_norm: Annotated[Positive, about("gradients are scaled down to this 2-norm [Pascanu et al. 2013]")] = 1.0
    adam_betas: Annotated[
        tuple[Momentum, Momentum], about("decay per step of the gradient's two moments [Kingma and Ba 2015]")
    ] = (0.9, 0.999)
    checkpoint_every: Annotated[Count | None, about("steps between checkpoints; empty: none before the end")] = None
    keep_checkpoints: Annotated[Count, about("newest checkpoints kept")] = 1
    gradient_checkpointing: Annotated[Switch, about("recompute activations to save memory [Chen et al. 2016]")] = False
    reference: Annotated[
        Literal["auto", "adapter_off", "frozen_copy", "cached", "none"],
        about(
            "where reference log-probs come from; cached: from a file, computed once before training; none: they are "
            "0, which is the reference-free form; auto: adapter_off with lora, frozen_copy with full"
        ),
    ] = "auto"
    image_features: Annotated[
        Literal["live", "memory", "disk"],
        about("the frozen vision tower's output, in front of the projector: made anew every step, or kept"),
    ] = "live"
    cache: Annotated[
        OptionalFolder,
        about(
            "folder of cached reference log-probs and image features, which runs may share one after another; "
            "empty: in the run folder, deleted after training"
        ),
    ] = None
    scoring: Annotated[
        Literal["grouped", "padded"],
        about("a prompt forwarded once for all its answers, or once for each in padded rows: slower, equal numbers"),
    ] = "grouped"

    trackers: Annotated[
        tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...],
        about("where metrics go besides metrics.jsonl"),
    ] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = []
        if (self.steps is None) == (self.epochs is None):
            found.append(f"found steps {self.steps} and epochs {self.epochs}; accepted: one set, one null")
        if self.micro_batch_size and self.micro_batch_size > self.batch_size:
            most = f"batch_size ({self.batch_size})"
            found.append(f"found micro_batch_size {self.micro_batch_size}; accepted: 1 to {most}")
        if self.keep_checkpoints > 1 and self.checkpoint_every is None:
            found.append(f"found keep_checkpoints {self.keep_checkpoints}; accepted: only with checkpoint_every")
        return self.refuse(found)


class Diagnose(Node):
    """A fixed set of pairs is looked at every so many steps: margins, log-probs, KL, length, language bias."""

    every: Annotated[Count, about("steps between two looks; the first is before training, the last after it")] = 50
    num: Annotated[Count, about("pairs looked at")] = 64
    data: Annotated[
        Data | None, about("held-out pairs; empty: the first that the source gives, which are trained on too")
    ] = None
    max_new_tokens: Annotated[Count, about("longest answer that is sampled for length and KL, tokens")] = 256
    num_samples: Annotated[Count, about("answers sampled to each of their prompts")] = 1
    gold: Annotated[
        Rewarder | None,
        about("who rates the sampled answers apart from what is trained on [Gao et al. 2022, gold reward]"),
    ] = None


class Recipe(Node):
    """One run: a model, where its pairs come from, how it learns from them, and what is measured afterwards.

    Relative paths in a recipe file count from that file's folder. `output` and whatever the command line or
    Python sets count from the working directory. Once loaded, every path is absolute.
    """

    seed: Annotated[Seed, about("start of every random stream of the run")] = 0
    output: Annotated[Output, about("run folder; counts from the working directory, not part of the hash")]
    model: Annotated[Model, about("the model that is aligned")]
    source: Annotated[Source | Rollouts, Field(discriminator="kind"), about("where pairs, or rated answers, come from")]
    objective: Annotated[Objective, about("how answers are compared")]
    train: Annotated[Train, about("the optimisation")]
    diagnose: Annotated[Diagnose | None, about("what is looked at while training; empty: the batches alone")] = None
    evaluate: Annotated[tuple[Benchmark, ...], about("what is measured after training, each benchmark once")] = ()
    max_bad_fraction: Annotated[Fraction, about("share of unusable rows accepted; more stops the run")] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(list(_contradictions(self)))


def _contradictions(recipe: Recipe) -> Iterator[str]:
    objective, model, train = recipe.objective, recipe.model, recipe.train
    for key, node in with_data(recipe.source):
        if not isinstance(objective, Sft) and isinstance(node, Offline) and not compares(node.data):
            yield (
                f"{key}.data.kind: found llava_instruct, which has no rejected answers, with objective "
                f"{objective.kind}; accepted: preference data, or a source of kind generated, which makes them"
            )
    for key, node in below(recipe.source):
        if isinstance(objective, Sft) and node.kind not in ("offline", "mixed"):
            yield (
                f"{key}.kind: found {node.kind} with objective sft, which ignores rejected answers; "
                "accepted: a source of kind offline, or mixed of such"
            )
    yield from _reward_contradictions(recipe)
    yield from _rollout_contradictions(recipe)
    yield from _gold_contradictions(recipe)
    if isinstance(objective, Sft | CalibratedSlic | Reward) and train.reference != "auto":
        found = f"found {train.reference} with objective {objective.kind}, which has none"
        yield f"train.reference: {found}; accepted: auto"
    if train.projector_lr is not None and not model.train_projector:
        yield (
            f"train.projector_lr: found {train.projector_lr} with model.train_projector false; "
            "accepted: empty, or model.train_projector true"
        )
    if isinstance(model.tune, Full) and train.reference == "adapter_off":
        yield (
            "train.reference: found adapter_off with full tuning, which has no adapter; "
            "accepted: auto, frozen_copy or cached"
        )
    yield from _cache_contradictions(recipe)
    names = [benchmark_name(one) for one in recipe.evaluate]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"evaluate: found {name} {names.count(name)} times, all in one file; accepted: each once"


def _reward_contradictions(recipe: Recipe) -> Iterator[str]:
    """A reward model answers nothing and is no policy."""
    if not isinstance(recipe.objective, Reward):
        return
    for key, node in below(recipe.source):
        if not isinstance(node, Mixed) and not is_fixed(node):
            yield (
                f"{key}.kind: found {node.kind} with pairs of the model that trains and objective reward, whose model "
                "answers nothing; accepted: offline, generated or averaged with when offline, mixed of such"
            )
        elif recipe.objective.margin and not isinstance(node, Mixed | Offline):
            yield (
                f"{key}.kind: found {node.kind}, whose answers nobody rated, with objective.margin "
                f"{recipe.objective.margin}; accepted: offline, or objective.margin 0"
            )
    if recipe.evaluate:
        yield "evaluate: found benchmarks with objective reward, whose model answers nothing; accepted: empty"
    if recipe.diagnose is not None:
        yield "diagnose: found with objective reward, which has no reference and samples nothing; accepted: empty"


def _rollout_contradictions(recipe: Recipe) -> Iterator[str]:
    """Rated answers are for policy gradients, and policy gradients for rated answers."""
    source, objective = recipe.source, recipe.objective
    gradient = isinstance(objective, Rloo | Ppo)
    if gradient != isinstance(source, Rollouts):
        accepted = "a source of kind rollouts" if gradient else "objective rloo or ppo"
        yield f"source.kind: found {source.kind} with objective {objective.kind}; accepted: {accepted}"
        return
    if not isinstance(source, Rollouts):
        return
    if not any(part.weight for part in source.rewards):
        yield "source.rewards: found no weight other than 0; accepted: at least one"
    if isinstance(objective, Rloo) and source.num_samples < 2:
        yield (
            f"source.num_samples: found {source.num_samples} with objective rloo, whose baseline are the other "
            "answers; accepted: 2 or more"
        )
    if source.num_samples < 2 and any(isinstance(part.rewarder, Wins) for part in source.rewards):
        yield "source.num_samples: found 1 with a reward of kind wins, which compares; accepted: 2 or more"
    if recipe.train.reference == "none":
        yield f"train.reference: found none with objective {objective.kind}, which measures the KL; accepted: auto"
    if isinstance(objective, Ppo) and objective.kl_target is not None and not objective.beta:
        yield f"objective.beta: found 0 with kl_target {objective.kl_target:g}, which multiplies it; accepted: above 0"
    num = recipe.train.batch_size * source.minibatches * source.num_samples
    if isinstance(objective, Ppo) and objective.kl_target is not None and 5 * objective.horizon <= num:
        yield f"objective.horizon: found {objective.horizon} with {num} answers a batch; accepted: above {num // 5}"


def _gold_contradictions(recipe: Recipe) -> Iterator[str]:
    """Wins need another answer."""
    looked = recipe.diagnose
    raters: list[Rewarder | None] = [] if looked is None else [looked.gold]
    if looked is not None and isinstance(recipe.source, Rollouts):
        raters += [part.rewarder for part in recipe.source.rewards]
    if looked is not None and looked.num_samples < 2 and any(isinstance(one, Wins) for one in raters):
        yield "diagnose.num_samples: found 1 with a reward of kind wins, which compares; accepted: 2 or more"


def _cache_contradictions(recipe: Recipe) -> Iterator[str]:
    source, model, train = recipe.source, recipe.model, recipe.train
    everywhere = isinstance(model.tune, Lora) and model.tune.targets == "all"
    if everywhere and model.train_projector:
        yield (
            "model.tune.targets: found all, which puts an adapter on the projector, with model.train_projector true; "
            "accepted: language, or model.train_projector false"
        )
    if everywhere and train.image_features != "live":
        yield (
            f"train.image_features: found {train.image_features} with model.tune.targets all, which trains the vision "
            "tower; accepted: live"
        )
    if train.reference == "cached" and not is_fixed(source):
        yield (
            "train.reference: found cached with a source whose pairs are not known beforehand; "
            "accepted: auto, adapter_off or frozen_copy"
        )
    if train.reference == "cached" and isinstance(model.tune, Full) and recipe.diagnose is not None:
        yield (
            "diagnose: found with train.reference cached and full tuning, where nothing is left to score new answers "
            "with; accepted: empty, train.reference frozen_copy, or lora"
        )
    if train.reference == "cached" and isinstance(recipe.objective, Mdpo):
        yield (
            "train.reference: found cached with objective mdpo, which scores spoiled pictures too; "
            "accepted: auto, adapter_off or frozen_copy"
        )
    if train.cache is not None and train.reference != "cached" and train.image_features != "disk":
        yield (
            f"train.cache: found {train.cache} with nothing to keep there; "
            "accepted: empty, train.reference cached, or train.image_features disk"
        )
