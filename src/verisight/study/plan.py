"""What a recipe will cost, before any GPU time: tokens, FLOPs and memory, from config.json and the processor alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from verisight import build, recipe
from verisight.data.readers import enforce_bad_fraction, split_turns
from verisight.models import costs, loading
from verisight.models.costs import Anatomy, Flops, Load, Memory, Setup, memory
from verisight.models.encoding import Encoder
from verisight.models.families import check_config
from verisight.models.processors import load_processor
from verisight.types import Group, Pair, UserError

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
    setup = _setup(one)
    size, encoder, kind = open_skeleton(one.model.path, trust_remote_code=one.model.trust_remote_code)
    pairs = _first_pairs(one, rows=rows)
    if isinstance(one.objective, recipe.Sft):
        groups = [Group(pair.prompt, (pair.chosen,)) for pair in pairs]
    else:  # a pair that is still to be made: as if its rejected answer were the chosen one
        groups = [Group(pair.prompt, (pair.chosen, *(pair.rejected or (pair.chosen,)))) for pair in pairs]
    counted = [_count(encoder, size, group) for group in groups]
    loads = [load for load, _ in counted]
    limit = _limit(limit_gib)
    return Plan(
        model=f"{one.model.path} ({kind})",
        num_weights=size.num_weights,
        num_trainable=size.trainable(setup),
        num_rows=len(loads),
        tokens=_spreads(loads, images=[images for _, images in counted]),
        standard=_mean([costs.standard(size, load, setup) for load in loads]),
        shared=_mean([costs.shared(size, load, setup) for load in loads]),
        batch_size=one.train.batch_size,
        setup=setup,
        memory=memory(size, loads, setup),
        otherwise=memory(size, loads, replace(setup, checkpointing=not setup.checkpointing)),
        limit=limit,
        changes=() if limit is None else tuple(_changes(size, loads, setup, limit=limit)),
        assumptions=tuple(_assumptions(one)),
    )


def open_skeleton(path: str, *, trust_remote_code: bool = False) -> tuple[Anatomy, Encoder, str]:
    """Sizes, encoder and kind of a model from its config.json and processor. An adapter folder: those of its base.

    Raises:
        UserError: no such model, one that is not supported, or a processor that cannot be used.
    """
    source = str(loading.pocket_folder()) if path == loading.POCKET else path
    try:
        config = loading.config_of(source, trust_remote_code=trust_remote_code)
        family = check_config(config.to_dict())
        processor = load_processor(source, model_type=config.model_type, trust_remote_code=trust_remote_code)
    except UserError as error:
        raise UserError(f"model.path {path}: {error}") from error
    except (OSError, ValueError) as error:  # Hugging Face's words for what it cannot find or read
        reason, accepted = str(error).strip().splitlines()[0], "config.json and a processor in a folder or within reach"
        raise UserError(f"model.path: {path} does not open ({reason}); accepted: {accepted}") from error
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=trust_remote_code)
    return costs.read_anatomy(model, family), Encoder(processor), config.model_type


def _first_pairs(one: recipe.Recipe, *, rows: int) -> list[Pair]:
    limit = min(rows, one.source.data.limit or rows)
    pairs, bad, num_rows = build.read_data(one.source.data.model_copy(update={"limit": limit}))
    enforce_bad_fraction(bad, num_rows=num_rows, max_bad_fraction=1.0, log=None)
    if isinstance(one.source, recipe.Generated):
        return [single for pair in pairs for single in split_turns(pair)]
    if isinstance(one.objective, recipe.Dpo):
        pairs = [pair for pair in pairs if pair.rejected]
        if not pairs:
            raise UserError(f"{one.source.data.file}: no rejected answer in the first {num_rows} rows; accepted: pairs")
    return pairs


def _count(encoder: Encoder, size: Anatomy, group: Group) -> tuple[Load, int]:
    """Token counts of a group, and how many of them are its pictures'."""
    prompt = encoder.prompt(group.prompt)
    answers = [encoder.answer(group.prompt, answer) for answer in group.answers]
    load = Load(
        len(prompt.ids),
        tower_segments(prompt.fields, patch=size.patch),
        tuple(len(answer.ids) for answer in answers),
        tuple(sum(answer.supervised) for answer in answers),
    )
    return load, prompt.num_image_tokens


def tower_segments(fields: Mapping[str, Tensor], *, patch: tuple[int, int]) -> tuple[int, ...]:
    """Patches of every tile (or picture) that a vision tower attends within, from the processor's output."""
    if "image_grid_thw" in fields:
        return tuple(math.prod(grid) for grid in fields["image_grid_thw"].tolist())
    if "pixel_values" not in fields:
        return ()
    *tiles, _, height, width = fields["pixel_values"].shape
    return ((height // patch[0]) * (width // patch[1]),) * math.prod(tiles)


def _setup(one: recipe.Recipe) -> Setup:
    tune, train = one.model.tune, one.train
    if train.scoring != "grouped":
        raise UserError(f"train.scoring: found {train.scoring}, which is not planned for; accepted: grouped")
    if isinstance(tune, recipe.Lora) and tune.targets != "language":
        raise UserError(f"model.tune.targets: found {tune.targets}, which is not planned for; accepted: language")
    reference = train.reference
    if isinstance(one.objective, recipe.Sft):
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
    )


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


def _changes(size: Anatomy, loads: Sequence[Load], setup: Setup, *, limit: int) -> list[Change]:
    """Where it does not fit, the peak with every setting that takes less, alone and all together; the best last."""
    tried: dict[str, dict[str, Any]] = {}
    if setup.micro_batch_size > 1:
        tried["train.micro_batch_size=1"] = {"micro_batch_size": 1}
    if not setup.checkpointing:
        tried["train.gradient_checkpointing=true"] = {"checkpointing": True}
    if setup.dtype == "float32":
        tried["model.dtype=bfloat16"] = {"dtype": "bfloat16"}
    if setup.reference == "frozen_copy":
        tried["train.reference=cached"] = {"reference": "cached"}
    if not setup.rank:
        lora = recipe.Lora()
        reference = "adapter_off" if setup.reference == "frozen_copy" else setup.reference
        tried[f"model.tune={{kind: lora, r: {lora.r}, alpha: {lora.alpha}}}"] = {"rank": lora.r, "reference": reference}
    if memory(size, loads, setup).peak <= limit:
        return []
    together = {key: value for change in tried.values() for key, value in change.items()}
    if len(tried) > 1:
        tried["all of these"] = together
    peaks = {name: memory(size, loads, replace(setup, **change)).peak for name, change in tried.items()}
    order = sorted(peaks, key=peaks.__getitem__, reverse=True)
    return [Change(name, peaks[name], peaks[name] <= limit) for name in order]


def _assumptions(one: recipe.Recipe) -> list[str]:
    lines = [
        "standard: a row per answer through policy and reference, logits everywhere, pictures once per row and model.",
        "ours: the prompt once for all its answers, logits of answer tokens, pictures once. Neither is padded.",
        "FLOPs: matrix products; a causal row counts half its attention, backward 2.5 times its forward (flash).",
        "memory: all pairs of the micro batch are as long as the longest row here; attention keeps no score matrix.",
        f"allowance: {costs.CONTEXT / GIB:.2f} GiB for the device itself, and {costs.SLACK:.0%} of the rest.",
    ]
    if one.train.reference == "cached" or one.train.image_features != "live":
        lines.append("cached: what is kept exists already; making it once is not counted.")
    if isinstance(one.source, recipe.Generated):
        lines.append("rejected answers do not exist yet: taken as long as the chosen; making them is not counted.")
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
