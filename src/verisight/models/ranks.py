"""Several processes that train one model: which part of a batch each works on, and how all come to know the whole.

Every process draws the same batch by the same names; what is expensive (sampling, judging, scoring) is done for a part
of it and told to the others. So sources stand at the same place everywhere, their state is one, and goes on with any
number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from verisight.types import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_PATIENCE = timedelta(hours=12)  # one process may work alone for long: reading data, a probe


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of `num` processes this one is, from 0."""

    index: int = 0
    num: int = 1

    @property
    def main(self) -> bool:
        """Whether it is the one that writes."""
        return self.index == 0

    def own(self, name: str) -> str:
        """A name of a file or folder for this process alone."""
        return name if self.main else f"{name}-rank-{self.index}"

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's stretch of a list; lengths differ by one at most."""
        first, last = (at * len(items) // self.num for at in (self.index, self.index + 1))
        return items[first:last]

    def share(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
        """One result an item, in order: each process works on its part, all get all. Called by all with the same items.

        Raises:
            UserError: `work` raised one in any process; then it does in all.
        """
        if self.num == 1:
            return list(work(items))
        part, problem, mine = self.part(items), "", list[Result]()
        try:
            mine = list(work(part)) if len(part) else mine
        except UserError as error:
            problem = str(error)
        told = self.told((problem, mine))
        for at, (found, _) in enumerate(told):
            if found:
                raise UserError(found if at == self.index else f"process {at}: {found}")
        return [one for _, some in told for one in some]

    def told(self, value: Item) -> list[Item]:
        """What every process has here, in their order."""
        if self.num == 1:
            return [value]
        found: list[Any] = [None] * self.num
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.num > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """One process after another, the main one first: what it wrote, the others find."""
        for turn in range(self.num):
            if turn == self.index:
                yield
            self.wait()


@contextmanager
def watched() -> Iterator[None]:
    """Turns what a lost process makes of the others into words.

    Raises:
        UserError: another process of the launch is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks().num == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        told = str(error).strip().splitlines()[0]
        raise UserError(
            f"another process of this launch has ended, its own words say why ({told}); start the same "
            "again, with as many processes or others, to go on from the last checkpoint"
        ) from error


def ranks() -> Ranks:
    """This process among those that `join` brought together."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


def join() -> Ranks:
    """Bring the processes of a launcher together (accelerate launch, torchrun: WORLD_SIZE is set); one is by itself.

    Raises:
        UserError: WORLD_SIZE is no number, or what else a launcher sets is missing.
    """
    num = os.environ.get("WORLD_SIZE", "1")
    if not num.isdecimal():
        raise UserError(f"WORLD_SIZE: found {num!r}; accepted: a number of processes, as a launcher sets it")
    if int(num) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            accepted = "what accelerate launch and torchrun set"
            raise UserError(f"{missing[0]}: found nothing beside WORLD_SIZE {num}; accepted: {accepted}")
        PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    return ranks()
