"""The collapse detector: stops a run of RLOO or PPO whose policy has gone off, before it is written anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from verisight.types import UserError


class Collapsed(UserError):
    """The policy has collapsed. Says since when, what was found and which limit it broke."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a policy counts as collapsed: one limit broken in `patience` draws in a row. None: that one is not held.

    Values are means over the answers of a step. Aligned models move by some 5 to 30 nats an answer; a policy that
    repeats itself, never ends, falls silent or says one and the same has found a hole in its reward.

    Args:
        max_kl: nats per answer from the reference.
        max_repetition: share of repeated word 4-grams; people's captions stay below 0.1.
        max_truncated_fraction: share of answers that the token limit ended.
        min_length_fraction, max_length_fraction: tokens against the first step's.
        min_distinct_fraction: share of prompts whose answers are not all the same; below it nothing is learnt either.
        patience: draws in a row; a batch of answers that is gone through several times counts once.
    """

    max_kl: float | None = 100.0
    max_repetition: float | None = 0.5
    max_truncated_fraction: float | None = 0.8
    min_length_fraction: float | None = 0.5
    max_length_fraction: float | None = 8.0
    min_distinct_fraction: float | None = 0.02
    patience: int = 5


class Guard:
    """Sees the rows of metrics.jsonl in their order; a run that is continued shows it the rows that were kept."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._first_length: float | None = None
        self._since: dict[str, int] = {}  # name of a broken limit -> the step since which it has been
        self._times: dict[str, int] = {}
        self._good_step = 0

    @property
    def healthy(self) -> bool:
        """Whether no limit is broken now."""
        return not self._since

    @property
    def good_step(self) -> int:
        """The newest step whose weights drew answers that broke no limit."""
        return self._good_step

    def see(self, row: Mapping[str, Any]) -> None:
        """Take in a row. Passed over are other splits than "train", and steps on answers that were drawn before.

        Raises:
            Collapsed: a limit has been broken for too long.
        """
        if row.get("split") != "train" or row.get("seconds_of") == {}:
            return
        broken = {name: told for name, told in self._broken(row)}
        if not broken:
            self._good_step = int(row["step"]) - 1  # a row tells of answers drawn before its update
        self._since = {name: self._since.get(name, int(row["step"])) for name in broken}
        self._times = {name: self._times.get(name, 0) + 1 for name in broken}
        for name, since in self._since.items():
            if self._times[name] >= self._limits.patience:
                raise Collapsed(
                    f"training: the policy has collapsed at step {row['step']}: {broken[name]}, beyond which "
                    f"it has been since step {since}; what may help: lower train.lr, larger objective.beta, another "
                    f"reward, or source.guard.{name}=null"
                )

    def _broken(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Limits that this row breaks, and what is said of them. NaN breaks any; a column that is not there none."""
        limits, length = self._limits, row.get("answer_tokens")
        if self._first_length is None and length is not None and math.isfinite(length):
            self._first_length = max(1.0, float(length))
        share = None if length is None or self._first_length is None else length / self._first_length
        columns = {
            "max_kl": (row.get("kl_sum"), "nats per answer from the reference"),
            "max_repetition": (row.get("repetition"), "of its 4-grams repeated"),
            "max_truncated_fraction": (row.get("truncated_fraction"), "of its answers cut off"),
            "min_length_fraction": (share, "of the first answers' length"),
            "max_length_fraction": (share, "times the first answers' length"),
            "min_distinct_fraction": (row.get("distinct_fraction"), "of prompts with answers that differ"),
        }
        for name, (found, what) in columns.items():
            limit = getattr(limits, name)
            if found is None or limit is None:
                continue
            if not math.isfinite(found) or (found > limit if name.startswith("max") else found < limit):
                side = "at most" if name.startswith("max") else "at least"
                yield name, f"{found:.3g} {what}, accepted: {side} {limit:g}"
