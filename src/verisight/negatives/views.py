"""Views: how the image is hidden or spoiled before the policy hallucinates. The first axis of a negative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from verisight.models.hiding import Positions, Scope, Sight


class View(Protocol):
    """Draws what the policy gets to see of a prompt's images."""

    def draw(self, *, num_image_tokens: int, rng: np.random.Generator) -> Sight:
        """A new look, random numbers from `rng`."""
        ...


@dataclass(frozen=True, slots=True)
class Masked:
    """Hides image vectors from attention at random: vector i stays visible if rho_i >= rho, rho_i ~ U(0,1).

    The paper's eq. 6. rho in [0, 1]: 0 hides nothing, 1 hides all, 0.99 keeps about 1 %. `positions` and `scope`: see
    `Sight`.
    """

    rho: float = 0.99
    positions: Positions = "original"
    scope: Scope = "all"

    def draw(self, *, num_image_tokens: int, rng: np.random.Generator) -> Sight:
        """A new mask over the image vectors."""
        return Sight(rng.random(num_image_tokens) >= self.rho, self.positions, self.scope)


@dataclass(frozen=True, slots=True)
class Clean:
    """Shows everything: what the policy says by itself."""

    def draw(self, *, num_image_tokens: int, rng: np.random.Generator) -> Sight:
        """The whole image."""
        return Sight()
