"""A training step on one process or many: the policy inside of what adds the processes' gradients up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator, DistributedType
from torch import nn

from verisight.models.ranks import ranks
from verisight.train.preference import Outcome
from verisight.types import UserError

Example = TypeVar("Example")
Given = TypeVar("Given", contravariant=True)
_KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class Step(Protocol[Given]):
    """Turns pairs (or rollouts) into one loss each."""

    def __call__(self, examples: Sequence[Given], /) -> Outcome:
        """Loss with gradient, and what to report."""
        ...


class Engine(Generic[Example]):
    """A step whose gradients are added up over the processes, as DistributedDataParallel does it."""

    def __init__(self, step: Step[Example], wrapped: Any | None) -> None:
        self._step, self._wrapped = step, wrapped

    def __call__(self, examples: Sequence[Example]) -> Outcome:
        """The step, within what gathers gradients."""
        if self._wrapped is None:
            return self._step(examples)
        loss = self._wrapped(examples)
        return replace(self._wrapped.module.outcome, loss=loss)

    def gathering(self, wanted: bool) -> AbstractContextManager[Any]:
        """Whether the backward pass inside adds gradients up: the last one of a batch does."""
        return nullcontext() if wanted or self._wrapped is None else self._wrapped.no_sync()


class _Stepping(nn.Module):
    """The trained weights, and a step that reads them wherever they are, as one module."""

    def __init__(self, model: nn.Module, step: Step[Any], beside: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.model = model
        known = {id(weight) for weight in model.parameters()}
        self.beside = nn.ParameterList([weight for weight in beside if id(weight) not in known])
        self._step = step

    def forward(self, examples: Sequence[Any]) -> torch.Tensor:
        """The loss of every example; `outcome` is the rest."""
        self.outcome = self._step(examples)
        return self.outcome.loss


def spread(
    accelerator: Accelerator, model: nn.Module, step: Step[Example], *, beside: Iterable[torch.Tensor]
) -> Engine[Example]:
    """The step over all processes of the launcher; by itself, in one. `beside` trains with the model's weights."""
    if ranks().num == 1:
        return Engine(step, None)
    from torch.nn.parallel import DistributedDataParallel

    module = _Stepping(model, step, beside)
    devices = None if accelerator.device.type == "cpu" else [accelerator.device]
    # a batch without pictures leaves the projector out
    wrapped = DistributedDataParallel(module, devices, find_unused_parameters=True)
    return Engine(step, wrapped)


def check_spread(accelerator: Accelerator, batch_size: int) -> None:
    """Raises UserError where a launcher asks for what is not there, or processes cannot share a batch evenly."""
    if accelerator.distributed_type not in _KNOWN:
        accepted = "processes that each hold the model (DDP)"
        raise UserError(f"training: found {accelerator.distributed_type.value}; accepted: {accepted}")
    check_batch(batch_size)


def check_batch(batch_size: int) -> None:
    """Raises UserError where processes cannot share a batch evenly."""
    num = ranks().num
    if batch_size % num:
        raise UserError(f"train.batch_size: found {batch_size} with {num} processes; accepted: a multiple of {num}")
