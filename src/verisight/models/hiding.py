"""Hiding image tokens from attention: what of its pictures a row may attend to, and where the rest stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from verisight.types import UserError

Positions = Literal["original", "compact"]
Scope = Literal["all", "answer"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What of its pictures a row may attend to. `keep`: (image tokens,) bool; None sees everything.

    `scope`: hidden from `all` tokens (a 2D attention mask: they might as well not be there), or from the `answer`'s
    alone (prompt and image tokens still see them). `positions`: `original` leaves tokens where they stand (the paper
    hides vectors and nothing else); `compact` closes the gaps, as `generate()` and serving engines do.
    """

    keep: np.ndarray | None = None
    positions: Positions = "original"
    scope: Scope = "all"

    @property
    def drops(self) -> bool:
        """Whether hidden tokens are left out before the prompt is read."""
        return self.keep is not None and self.scope == "all"

    def flags(self, is_image: Tensor) -> Tensor:
        """(tokens,) bool, true where a prompt's token may be attended to. is_image: (tokens,) bool."""
        flags = torch.ones(len(is_image), dtype=torch.bool)
        if self.keep is not None:
            assert int(is_image.sum()) == len(self.keep), "one keep flag per image token"
            flags[is_image] = torch.from_numpy(self.keep)
        return flags

    def place(self, positions: Tensor, flags: Tensor) -> tuple[Tensor, int]:
        """The prompt's positions, (axes, tokens), and the position of the answer's first token.

        Raises:
            UserError: `compact` was asked for where nothing is left out (scope `answer`), or on three-axis positions,
                where no order of the rest is without gaps.
        """
        if self.positions == "original" or self.keep is None:
            return positions, int(positions.max()) + 1
        if not self.drops:
            raise UserError(
                f"positions: found compact with scope {self.scope}, where nothing is left out; accepted: all"
            )
        if len(positions) > 1:
            raise UserError("positions: found compact for a model whose positions have 3 axes; accepted: original")
        compact = (flags.cumsum(0) - 1).clamp(min=0)
        return compact.expand(1, -1), int(flags.sum())
