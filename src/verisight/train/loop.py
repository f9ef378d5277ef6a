"""The training loop: draw, step, update, write down. One for every objective, on accelerate."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from accelerate import Accelerator

from verisight.data.files import append_jsonl, read_jsonl, write_jsonl
from verisight.models.policy import Policy
from verisight.progress import track
from verisight.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from verisight.train.preference import Outcome
from verisight.types import Pair, Source, UserError


class Step(Protocol):
    """Turns pairs into one loss per pair."""

    def __call__(self, pairs: Sequence[Pair]) -> Outcome:
        """Loss with gradient, and what to report."""
        ...


@dataclass(frozen=True, slots=True)
class Optimization:
    """How the weights move. Learning rates are per AdamW step; `batch_size` counts pairs per optimizer step."""

    steps: int
    batch_size: int = 16
    micro_batch_size: int | None = None
    lr: float = 1e-6
    projector_lr: float | None = None
    warmup_fraction: float = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    checkpoint_every: int | None = None
    keep_checkpoints: int = 1


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
    policy: Policy, source: Source, step_fn: Step, *, optimization: Optimization, folder: Path, label: str = "train",
    quiet: bool = False,
) -> None:  # fmt: skip
    """Train for `optimization.steps` steps, appending to folder/metrics.jsonl.

    A checkpoint in folder/checkpoints is continued from: a killed run ends with the weights of an uninterrupted one.
    The caller deletes folder/checkpoints once it has saved the model.
    """
    settings = optimization
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise UserError(f"training: found {accelerator.num_processes} processes, accepted: 1 in this version")
    policy.model.to(accelerator.device)
    weights = policy.trainable()
    optimizer = accelerator.prepare(_optimizer(weights, settings, is_projector=policy.is_projector))
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    first = _resume(checkpoints, metrics, weights=weights, optimizer=optimizer, source=source)
    with track(label, total=settings.steps, unit="steps", done=first, quiet=quiet) as advance:
        for step in range(first, settings.steps):
            started = time.perf_counter()
            fraction = lr_fraction(
                step, steps=settings.steps, warmup_fraction=settings.warmup_fraction, schedule=settings.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * fraction
            row = _update(source.draw(settings.batch_size, policy), step_fn, settings, accelerator, optimizer, weights)
            row |= {"lr": settings.lr * fraction, "seconds": time.perf_counter() - started}
            append_jsonl(metrics, {"step": step + 1, "split": "train", **row})
            advance(note=f"loss {row['loss']:.3f}")
            every = settings.checkpoint_every
            if every and (step + 1) % every == 0 and step + 1 < settings.steps:
                save_checkpoint(
                    checkpoints, step=step + 1, weights=weights, optimizer=optimizer,
                    state={"source": source.state_dict()}, keep=settings.keep_checkpoints,
                )  # fmt: skip


def _optimizer(
    weights: dict[str, torch.Tensor], settings: Optimization, *, is_projector: Callable[[str], bool]
) -> torch.optim.Optimizer:
    """AdamW with the projector in a group of its own. No weight decay on vectors (norms, biases)."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, weight in weights.items():
        lr = settings.projector_lr if settings.projector_lr is not None and is_projector(name) else settings.lr
        decay = settings.weight_decay if weight.ndim > 1 else 0.0
        groups.setdefault((lr, decay), []).append(weight)
    return torch.optim.AdamW(
        [{"params": ps, "lr": lr, "peak_lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()],
        betas=settings.betas,
    )


def _update(
    pairs: Sequence[Pair], step_fn: Callable[[Sequence[Pair]], Outcome], settings: Optimization,
    accelerator: Accelerator, optimizer: Any, weights: dict[str, torch.Tensor],
) -> dict[str, Any]:  # fmt: skip
    """One optimizer step over all pairs, in micro batches; the mean is over the whole batch however it is cut."""
    size = settings.micro_batch_size or len(pairs)
    sums: Counter[str] = Counter()
    origins: Counter[str] = Counter()
    for start in range(0, len(pairs), size):
        outcome = step_fn(pairs[start : start + size])
        accelerator.backward(outcome.loss.sum() / len(pairs))
        sums.update(outcome.sums)
        origins.update(outcome.origins)
    means = {name: total / len(pairs) for name, total in sums.items()}
    clipped = accelerator.clip_grad_norm_(weights.values(), settings.max_grad_norm)
    assert clipped is not None, "only DeepSpeed clips by itself"
    norm = float(clipped)
    if not math.isfinite(means["loss"]) or not math.isfinite(norm):
        raise RuntimeError(
            f"the loss became {means['loss']} and its gradient's norm {norm}; the last checkpoint is kept. "
            "A lower learning rate may help"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**means, "grad_norm": norm, "num_pairs": len(pairs), "origin": dict(origins)}


def _resume(
    checkpoints: Path, metrics: Path, *, weights: dict[str, torch.Tensor], optimizer: Any, source: Source
) -> int:
    """Steps already done. Rows of metrics.jsonl written after the checkpoint are cut off."""
    newest = latest_checkpoint(checkpoints)
    if newest is None:
        metrics.unlink(missing_ok=True)
        return 0
    state = load_checkpoint(newest, weights=weights, optimizer=optimizer)
    source.load_state_dict(state["source"])
    write_jsonl(metrics, [row for row in read_jsonl(metrics) if row["step"] <= state["step"]])
    return int(state["step"])
