"""The training loop: draw, step, update, write down. One for every objective, on accelerate."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration

from verisight.data.files import read_jsonl, write_jsonl
from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.progress import track
from verisight.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from verisight.train.preference import Outcome
from verisight.train.spread import Engine, Step, check_spread, spread
from verisight.train.tracking import FOLDER, recording
from verisight.types import Stream, UserError

Example = TypeVar("Example")  # what a step is given: pairs, rollouts


class Watch(Protocol):
    """Sees every row of metrics.jsonl, those of a run that is continued again, and may stop the training."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong now: no checkpoint is written where it is not."""
        ...

    @property
    def good_step(self) -> int:
        """The newest step whose weights were seen to be good: its checkpoint, or the newest before, is kept."""
        ...

    def see(self, row: Mapping[str, Any]) -> None:
        """Raises what ends the run."""
        ...


class Drawing(Protocol):
    """What a stream tells of its newest draw."""

    def facts(self) -> dict[str, float]:
        """What holds for all of it."""
        ...

    def seconds(self) -> dict[str, float]:
        """What it took, by part."""
        ...


class Probe(Protocol):
    """Looks at the policy without touching it."""

    @property
    def every(self) -> int:
        """Steps between two looks."""
        ...

    def __call__(self) -> dict[str, Any]:
        """JSON values, numbers by name; names may be nested."""
        ...


@dataclass(frozen=True, slots=True)
class Optimization:
    """How the weights move. Learning rates are per AdamW step; `batch_size` counts pairs per optimizer step.

    `projector_lr`, `beside_lr`: those of the projector, and of what trains beside the policy; None: `lr`.
    `trackers`: where metrics go besides metrics.jsonl, names that `train.tracking.check_trackers` accepts.
    """

    steps: int
    batch_size: int = 16
    micro_batch_size: int | None = None
    lr: float = 1e-6
    projector_lr: float | None = None
    beside_lr: float | None = None
    warmup_fraction: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    checkpoint_every: int | None = None
    keep_checkpoints: int = 1
    trackers: tuple[str, ...] = ()


def lr_fraction(step: int, *, steps: int, warmup_fraction: float, schedule: str) -> float:
    """Share of the peak learning rate at a step (0-based): linear warm-up, then the schedule down to 0."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    match schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case _:
            return 1.0


def fit(
    policy: Policy, source: Stream[Example], step_fn: Step[Example], *, optimization: Optimization, folder: Path,
    beside: Mapping[str, torch.Tensor] | None = None, probe: Probe | None = None, watch: Watch | None = None,
    drawing: Drawing | None = None, label: str = "train", quiet: bool = False,
) -> None:  # fmt: skip
    """Train for `optimization.steps` steps, appending to folder/metrics.jsonl (and to the trackers).

    A row of split "train" per step: means over the batch, `by_origin` the same per origin, `source` what it left out
    so far. A row of split "probe" before the first step (step 0), every `probe.every` steps, and after the last one.

    A checkpoint in folder/checkpoints is continued from: a killed run ends with the weights and rows of an
    uninterrupted one. The caller deletes folder/checkpoints once it has saved the model.

    `beside` trains with the policy's weights (a value function). `drawing` tells of the source's draws: `drawn` and
    `seconds_of` in the rows.

    Raises:
        UserError: a batch that processes cannot share evenly; a tracker that does not start; what source, step, probe
            or watch refuse.
    """
    settings = optimization
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    accelerator = _accelerator(settings, folder)
    policy.to(accelerator.device)
    weights, main = policy.trainable(), ranks().main
    optimizer = accelerator.prepare(_optimizer(_rated(weights, beside or {}, settings, policy), settings))
    weights |= dict(beside or {})
    engine = spread(accelerator, policy.model, step_fn, beside=weights.values())
    first = _resume(checkpoints, metrics, weights=weights, optimizer=optimizer, source=source)
    if watch is not None and first:
        for row in read_jsonl(metrics):
            watch.see(row)
    with (
        recording(metrics, accelerator, names=settings.trackers, first=first) as write,
        track(label, total=settings.steps, unit="steps", done=first, quiet=quiet) as advance,
    ):
        if probe is not None and first == 0 and main:
            write(_look(probe, step=0))
        due = False
        for step in range(first, settings.steps):
            started = time.perf_counter()
            fraction = _set_lr(optimizer, settings, step)
            row = _update(source.draw(settings.batch_size, policy), engine, settings, accelerator, optimizer, weights)
            row |= _told(source, drawing) | {"lr": settings.lr * fraction, "seconds": time.perf_counter() - started}
            done = step + 1
            row = {"step": done, "split": "train", **row}
            write(row)
            if watch is not None:
                watch.see(row)
            advance(note=f"loss {row['loss']:.3f}")
            if probe is not None and main and (done % probe.every == 0 or done == settings.steps):
                write(_look(probe, step=done))
            every = settings.checkpoint_every
            due = due or bool(every and done % every == 0)
            if due and done < settings.steps and (watch is None or watch.healthy):
                due = False
                if main:
                    save_checkpoint(
                        checkpoints, step=done, weights=weights, optimizer=optimizer,
                        state={"source": source.state_dict()}, keep=settings.keep_checkpoints,
                        good_step=None if watch is None else watch.good_step,
                    )  # fmt: skip
                ranks().wait()


def _accelerator(settings: Optimization, folder: Path) -> Accelerator:
    """The recipe says how gradients add up and in which precision, a launcher how many processes there are."""
    accelerator = Accelerator(
        cpu=ranks().num > 1 and not torch.accelerator.is_available(),
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1), mixed_precision="no",
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / FOLDER)),
    )  # fmt: skip
    check_spread(accelerator, settings.batch_size)
    return accelerator


def _told(source: Stream[Any], drawing: Drawing | None) -> dict[str, Any]:
    """What a row says of the source."""
    counts = source.counts()
    found: dict[str, Any] = {"source": counts} if counts else {}
    return found | ({} if drawing is None else {"drawn": drawing.facts(), "seconds_of": drawing.seconds()})


def _look(probe: Probe, *, step: int) -> dict[str, Any]:
    started = time.perf_counter()
    found = probe()
    return {"step": step, "split": "probe", **found, "seconds": time.perf_counter() - started}


def _set_lr(optimizer: Any, settings: Optimization, step: int) -> float:
    """Set the learning rates of a step (0-based); returns their share of the peak."""
    fraction = lr_fraction(
        step, steps=settings.steps, warmup_fraction=settings.warmup_fraction, schedule=settings.schedule
    )
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * fraction
    return fraction


def _rated(
    weights: Mapping[str, torch.Tensor], beside: Mapping[str, torch.Tensor], settings: Optimization, policy: Policy
) -> list[tuple[torch.Tensor, float]]:
    """Every weight with its learning rate."""
    projector, other = settings.projector_lr or settings.lr, settings.beside_lr or settings.lr
    rated = [(weight, projector if policy.is_projector(name) else settings.lr) for name, weight in weights.items()]
    return rated + [(weight, other) for weight in beside.values()]


def _optimizer(rated: Sequence[tuple[torch.Tensor, float]], settings: Optimization) -> torch.optim.Optimizer:
    """AdamW with a group for each learning rate. No weight decay on vectors (norms, biases)."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for weight, lr in rated:
        decay = settings.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(weight)
    return torch.optim.AdamW(
        [{"params": ps, "lr": lr, "peak_lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()],
        betas=settings.betas,
    )


def _update(
    examples: Sequence[Example], engine: Engine[Example], settings: Optimization,
    accelerator: Accelerator, optimizer: Any, weights: dict[str, torch.Tensor],
) -> dict[str, Any]:  # fmt: skip
    """One optimizer step over all examples, in micro batches; the mean is over the whole batch however it is cut.

    Every process steps over its part of them; gradients are added up with the last micro batch.
    """
    mine = ranks().part(examples)
    size, outcomes = settings.micro_batch_size or len(mine), list[Outcome]()
    for start in range(0, len(mine), size):
        with engine.gathering(start + size >= len(mine)):
            outcome = engine(mine[start : start + size])
            accelerator.backward(outcome.loss.sum() * ranks().num / len(examples))  # processes' gradients are averaged
        outcomes.append(replace(outcome, loss=outcome.loss.detach()[:0].cpu()))
    counted, sums, origins = "", Counter[str](), Counter[str]()
    by_origin: dict[str, Counter[str]] = {}
    for outcome in (one for some in ranks().told(outcomes) for one in some):
        counted = f"num_{outcome.unit}"
        sums.update(outcome.sums)
        origins.update(outcome.origins)
        for origin, some in outcome.by_origin.items():
            by_origin.setdefault(origin, Counter()).update(some)
    means = {name: total / len(examples) for name, total in sums.items()}
    clipped = accelerator.clip_grad_norm_(weights.values(), settings.max_grad_norm)
    assert clipped is not None, "only DeepSpeed clips by itself"
    norm = float(clipped)
    if not math.isfinite(means["loss"]) or not math.isfinite(norm):
        raise UserError(
            f"training: the loss became {means['loss']} and its gradient's norm {norm}; checkpoints stay as they are; "
            "what may help: a lower train.lr"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    told = {origin: _means(some) for origin, some in sorted(by_origin.items())}
    return {**means, "grad_norm": norm, counted: len(examples), "origin": dict(origins), "by_origin": told}


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    """Means of one origin's sums over its `num` pairs; `margin` becomes `margin_mean`."""
    num = sums["num"]
    found = {name: total / num for name, total in sums.items() if name != "num"}
    return {"num": int(num)} | {"margin_mean" if name == "margin" else name: one for name, one in found.items()}


def _resume(
    checkpoints: Path, metrics: Path, *, weights: dict[str, torch.Tensor], optimizer: Any, source: Stream[Any]
) -> int:
    """Steps already done. Rows of metrics.jsonl written after the checkpoint are cut off."""
    newest = latest_checkpoint(checkpoints)
    if newest is None:
        if ranks().main:
            metrics.unlink(missing_ok=True)
        return 0
    state = load_checkpoint(newest, weights=weights, optimizer=optimizer)
    source.load_state_dict(state["source"])
    if ranks().main:
        write_jsonl(metrics, [row for row in read_jsonl(metrics) if row["step"] <= state["step"]])
    ranks().wait()
    return int(state["step"])
