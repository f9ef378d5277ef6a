"""Views: how the image is hidden or spoiled before the policy hallucinates. The first axis of a negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from verisight.models.hiding import Positions, Scope, Sight
from verisight.models.policy import Policy
from verisight.types import Prompt


@dataclass(frozen=True, slots=True)
class Seen:
    """What the policy gets to see of a prompt: another prompt, or less of it. `notes` are JSON values of the draw."""

    prompt: Prompt
    sight: Sight = field(default_factory=Sight)
    notes: dict[str, Any] = field(default_factory=dict)


class View(Protocol):
    """Draws what the policy gets to see."""

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """A new look at every prompt. `rngs`: one random stream a prompt, whatever the batch."""
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

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """A new mask over the image vectors of every prompt."""
        seen = []
        for prompt, num, rng in zip(prompts, policy.num_image_tokens(prompts), rngs, strict=True):
            keep = rng.random(num) >= self.rho
            sight = Sight(keep, self.positions, self.scope)
            seen.append(Seen(prompt, sight, {"kind": "masked", "kept": int(keep.sum()), "of": num}))
        return seen


@dataclass(frozen=True, slots=True)
class Clean:
    """Shows everything: what the policy says by itself."""

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """The whole image."""
        return [Seen(prompt, notes={"kind": "clean"}) for prompt in prompts]
