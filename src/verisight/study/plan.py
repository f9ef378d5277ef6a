"""What a recipe will cost, before any GPU time: tokens, FLOPs and memory, from config.json and the processor alone."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError

from verisight import recipe
from verisight.models import costs, footprint
from verisight.models.anatomy import Anatomy
from verisight.models.costs import Flops, Load, Setup
from verisight.models.footprint import Memory, memory
from verisight.models.sharing import names_base
from verisight.recipe.yaml_tree import apply_overrides
from verisight.study.plan_inputs import first_loads, open_skeleton

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something is over the rows, in tokens."""

    mean: float
    percentile_95: float
    longest: int


@dataclass(frozen=True, slots=True)
class Change:
    """Settings that bring the memory down, as overrides, the peak with them in bytes, and whether that fits."""

    settings: str
    peak: int
    fits: bool


class Listing(NamedTuple):
    """A table for people."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything `verisight plan` says. FLOPs are those of a mean pair; memory is that of the longest pairs."""

    model: str
    num_weights: int
    num_trainable: int
    num_rows: int
    tokens: dict[str, Spread]
    standard: Flops
    shared: Flops
    batch_size: int
    setup: Setup
    memory: Memory
    otherwise: Memory  # with gradient checkpointing if the recipe has none, without it if it has
    limit: int | None  # bytes; None: no device and none given
    changes: tuple[Change, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        """Whether the device holds it; None: not known."""
        return None if self.limit is None else self.memory.peak <= self.limit


def make_plan(one: recipe.Recipe, *, limit_gib: float | None = None, rows: int = 100) -> Plan:
    """Plan a recipe from the first `rows` rows of its data. No weights are read, none need to exist.

    `limit_gib` is the memory of a device; without it that of the first GPU counts, if there is one.

    Raises:
        UserError: a missing file, an unsupported model, a processor or data that cannot be used.
    """
    recipe.check_files(one)
    setup = setup_of(one)
    size, encoder, kind = open_skeleton(one.model.path, trust_remote_code=one.model.trust_remote_code)
    counted = first_loads(one, encoder, size, rows=rows)
    loads, limit = [load for load, _ in counted], _limit(limit_gib)
    return Plan(
        model=f"{one.model.path} ({kind})",
        num_weights=size.num_weights,
        num_trainable=costs.num_trainable(size, setup),
        num_rows=len(loads),
        tokens=_spreads(loads, images=[images for _, images in counted]),
        standard=_mean([costs.standard(size, load, setup) for load in loads]),
        shared=_mean([costs.shared(size, load, setup) for load in loads]),
        batch_size=one.train.batch_size,
        setup=setup,
        memory=memory(size, loads, setup),
        otherwise=memory(size, loads, replace(setup, checkpointing=not setup.checkpointing)),
        limit=limit,
        changes=() if limit is None else tuple(_changes(one, size, loads, limit=limit)),
        assumptions=tuple(_assumptions(one)),
    )


def setup_of(one: recipe.Recipe) -> Setup:
    """What a recipe's settings mean for its costs."""
    tune, train = one.model.tune, one.train
    reference = train.reference
    if isinstance(one.objective, recipe.Sft | recipe.CalibratedSlic | recipe.Reward):
        reference = "none"
    elif reference == "auto":
        reference = "adapter_off" if isinstance(tune, recipe.Lora) else "frozen_copy"
    return Setup(
        dtype=one.model.dtype,
        rank=tune.r if isinstance(tune, recipe.Lora) else 0,
        train_projector=one.model.train_projector,
        checkpointing=train.gradient_checkpointing,
        reference=reference,
        cached_features=train.image_features != "live",
        micro_batch_size=train.micro_batch_size or train.batch_size,
        everywhere=isinstance(tune, recipe.Lora) and tune.targets == "all",
        padded=train.scoring == "padded",
        drawing=_drawing(one),
    )


def _drawing(one: recipe.Recipe) -> costs.Drawing | None:
    """What RLOO and PPO do before a step."""
    node = one.source
    if not isinstance(node, recipe.Rollouts):
        return None
    models = [part.rewarder for part in node.rewards if isinstance(part.rewarder, recipe.ModelReward)]
    lora = isinstance(one.model.tune, recipe.Lora)
    alike = [
        lora and model.dtype == one.model.dtype and names_base(Path(model.path), one.model.path) for model in models
    ]
    value = one.objective.value if isinstance(one.objective, recipe.Ppo) else "none"
    return costs.Drawing(node.num_samples, node.max_new_tokens, node.epochs, len(alike) - sum(alike), sum(alike), value)


def _limit(gib: float | None) -> int | None:
    if gib is not None:
        return round(gib * GIB)
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def _spreads(loads: Sequence[Load], *, images: Sequence[int]) -> dict[str, Spread]:
    lengths = {
        "image": list(images),
        "prompt, image included": [load.prompt for load in loads],
        "answer": [answer for load in loads for answer in load.answers],
        "pair, prompt once (ours)": [load.prompt + sum(load.answers) for load in loads],
        "pair, prompt per answer (standard)": [sum(load.prompt + a for a in load.answers) for load in loads],
    }
    return {
        name: Spread(float(np.mean(many)), float(np.percentile(many, 95)), max(many)) for name, many in lengths.items()
    }


def _mean(flops: Sequence[Flops]) -> Flops:
    return Flops(*(sum(part) / len(flops) for part in zip(*flops, strict=True)))


def _changes(one: recipe.Recipe, size: Anatomy, loads: Sequence[Load], *, limit: int) -> list[Change]:
    """Where it does not fit, the peak with every setting that takes less, alone and together; the best last."""

    def peak_with(changes: Iterable[tuple[str, ...]]) -> float:
        changed = _changed(one, [text for change in changes for text in change])
        return math.inf if changed is None else memory(size, loads, setup_of(changed)).peak

    now = peak_with([])
    if now <= limit:
        return []
    usable = [change for change in _proposals(one) if peak_with([change]) <= now]
    together = list(usable)
    for change in usable:  # what takes nothing more away beside the others is left out
        others = [other for other in together if other != change]
        if peak_with(others) <= peak_with(together):
            together = others
    peaks = {change: peak for change in usable if (peak := peak_with([change])) < now}
    if len(together) > 1:
        settings = {text.partition("=")[0]: text for change in together for text in change}
        peaks[tuple(settings.values())] = peak_with(together)
    order = sorted(peaks, key=peaks.__getitem__, reverse=True)
    return [Change(shlex.join(change), round(peaks[change]), peaks[change] <= limit) for change in order]


def _proposals(one: recipe.Recipe) -> Iterator[tuple[str, ...]]:
    """Overrides that take less memory, whether the recipe accepts them or not. Of two for one key the later stands."""
    yield ("train.micro_batch_size=1",)
    yield ("train.scoring=grouped",)
    yield ("train.gradient_checkpointing=true",)
    yield ("model.dtype=bfloat16",)
    if setup_of(one).reference == "frozen_copy":
        yield ("train.reference=cached",)
    own = ("train.reference=auto",) if one.train.reference == "frozen_copy" else ()
    if isinstance(one.model.tune, recipe.Full):
        lora = recipe.Lora()
        yield (f"model.tune={{kind: lora, r: {lora.r}, alpha: {lora.alpha}}}", *own)
    elif own:
        yield own


def _changed(one: recipe.Recipe, overrides: Sequence[str]) -> recipe.Recipe | None:
    """The recipe with overrides, of one key the last; None where they are refused."""
    tree, _ = apply_overrides(one.model_dump(mode="json"), overrides)
    try:
        return recipe.Recipe.model_validate(tree)
    except ValidationError:
        return None


def _assumptions(one: recipe.Recipe) -> list[str]:
    ours = "the prompt once for all its answers, logits of answer tokens, pictures once. Neither is padded."
    if one.train.scoring == "padded":
        ours = "a row per answer, as long as the pair's longest (or more: its micro batch's); logits of answer tokens."
    lines = [
        "standard: a row per answer through policy and reference, logits everywhere, pictures once per row and model.",
        f"ours: {ours}",
        "FLOPs: matrix products; a causal row counts half its attention, backward 2.5 times its forward (flash).",
        "memory: all pairs of the micro batch are as long as the longest row here; attention keeps no score matrix.",
        f"allowance: {footprint.CONTEXT / GIB:.2f} GiB for the device itself, and {footprint.SLACK:.0%} of the rest.",
    ]
    if one.train.reference == "cached" or one.train.image_features != "live":
        lines.append("cached: what is kept exists already; making it once is not counted.")
    if any(not isinstance(node, recipe.Offline | recipe.Mixed) for _, node in recipe.below(one.source)):
        lines.append(
            "answers that do not exist yet: taken as long as the chosen; making and comparing them, not counted."
        )
    if isinstance(one.source, recipe.Rollouts):
        lines[-1] = (
            "drawn answers: taken as long as the chosen (memory: the limit); reward models: of the policy's size."
        )
    if isinstance(one.objective, recipe.Mdpo):
        lines.append("mdpo scores the chosen answer with a spoiled picture too: that is not counted.")
    return lines


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values: tokens, FLOPs of a mean pair, bytes."""
    return asdict(plan) | {
        "standard": plan.standard._asdict() | {"total": plan.standard.total},
        "shared": plan.shared._asdict() | {"total": plan.shared.total},
        "ratio": plan.standard.total / plan.shared.total,
        "otherwise": plan.otherwise._asdict() | {"peak": plan.otherwise.peak},
        "memory": plan.memory._asdict() | {"peak": plan.memory.peak},
        "fits": plan.fits,
    }


def tables(plan: Plan) -> list[Listing]:
    """The plan for people: tokens, FLOPs, memory and, where it does not fit, what helps."""
    scale, unit = (1e12, "TFLOPs") if plan.shared.total > 1e11 else (1e9, "GFLOPs")
    tokens = [(name, f"{s.mean:,.1f}", f"{s.percentile_95:,.0f}", f"{s.longest:,}") for name, s in plan.tokens.items()]
    flops = [
        (name, *(f"{part / scale:,.2f}" for part in (*one, one.total, one.total * plan.batch_size)))
        for name, one in (("standard", plan.standard), ("ours", plan.shared))
    ]
    needed, most = plan.memory, max(sum(phase.values()) for phase in plan.memory.phases)
    verdict = {None: "no device to compare with: give --memory", True: "fits", False: "does not fit"}[plan.fits]
    verdict += "" if plan.limit is None else f" {_gib(plan.limit)}"
    items = [(name, _gib(n), "") for name, n in needed.held.items()]
    for phase in needed.phases:
        note = "" if sum(phase.values()) == most else "at another time"
        items += [(name, _gib(n), note) for name, n in phase.items()]
    items += [("allowance", _gib(needed.allowance), ""), ("peak", _gib(needed.peak), verdict)]
    switched = f"peak {'without' if plan.setup.checkpointing else 'with'} gradient checkpointing"
    items.append((switched, _gib(plan.otherwise.peak), ""))
    helps = [(one.settings, _gib(one.peak), "fits" if one.fits else "") for one in plan.changes]
    weights = f"{plan.num_weights / 1e6:,.1f} million weights, {plan.num_trainable / 1e6:,.1f} million train"
    of_flops = ("", *Flops._fields, "a pair", f"a step of {plan.batch_size}")
    return [
        Listing(f"{plan.model}: {weights}\n\ntokens, {plan.num_rows} rows", ("", "mean", "95 %", "longest"), tokens),
        Listing(f"{unit}: standard / ours = {plan.standard.total / plan.shared.total:.2f}", of_flops, flops),
        Listing(f"memory of a device, micro batch of {plan.setup.micro_batch_size}", ("", "GiB", ""), items),
        *([Listing("what brings it down", ("settings", "GiB", ""), helps)] if helps else []),
    ]


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f}"
