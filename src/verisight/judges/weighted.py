"""Several rewards as one: each brought to mean 0 and variance 1, weighed and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verisight.judges.rewards import LARGEST
from verisight.types import Group, Rewarder, UserError


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of a reward over the answers it was measured on, `num` of them."""

    mean: float = 0.0
    std: float = 1.0
    num: int = 0


def measure(rewarder: Rewarder, groups: Sequence[Group]) -> Scale:
    """The reward's statistics on these answers: what the paper normalises rewards with, taken before training.

    Raises:
        UserError: all answers have the same reward, so that there is nothing to learn from it.
    """
    found = np.array([value for row in rewarder.rate(groups) for value in row])
    std = float(found.std())
    if not std > 1e-8 * max(1.0, float(np.abs(found).max())):
        raise UserError(
            f"{rewarder.name}: found the same reward {float(found[0])!r} for all {len(found)} answers of the starting "
            "model; accepted: a reward that tells some of them apart, or no normalisation"
        )
    return Scale(float(found.mean()), std, len(found))


class WeightedRewarder:
    """The sum over parts of weight x (reward - mean) / std.

    `parts`: (weight, rewarder, its scale); weights of any sign, not all 0.
    """

    def __init__(self, parts: Sequence[tuple[float, Rewarder, Scale]]) -> None:
        assert any(weight for weight, _, _ in parts), "a weight other than 0"
        self._parts = [part for part in parts if part[0]]

    @property
    def name(self) -> str:
        """The parts and their weights."""
        return " + ".join(f"{weight:g} {rewarder.name}" for weight, rewarder, _ in self._parts)

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer.

        Raises:
            UserError: what a part raises.
        """
        total = [[0.0] * len(group.answers) for group in groups]
        for weight, rewarder, scale in self._parts:
            for sums, values in zip(total, rewarder.rate(groups), strict=True):
                for index, value in enumerate(values):
                    sums[index] += weight * (value - scale.mean) / scale.std
        for group, row in zip(groups, total, strict=True):
            if not all(abs(value) <= LARGEST for value in row):
                raise UserError(
                    f"{self.name}: row {group.prompt.uid}: found {row}; accepted: finite numbers of float32"
                )
        return total
