"""Value functions: what reward is to be expected in front of every token of an answer, for PPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from verisight.models.policy import Policy
from verisight.models.scoring import States
from verisight.types import Group


class ValueFunction(Protocol):
    """Says in front of every token of drawn answers what reward is to be expected."""

    def values(self, groups: Sequence[Group], states: States) -> Tensor:
        """(tokens of all answers,) float32, in units of the reward. `states`: what the policy made of the groups."""
        ...


class Critic(ValueFunction, Protocol):
    """A value function that trains."""

    def trainable(self) -> dict[str, Tensor]:
        """Its weights by names that no policy has."""
        ...


class SharedValue:
    """A linear head on the policy's own states: its loss trains the policy's network too (Schulman et al. 2017, c1).

    It starts at 0: the first advantages are the rewards to come.
    """

    def __init__(self, policy: Policy) -> None:
        width = policy.core.config.get_text_config().hidden_size
        self.weight = torch.nn.Parameter(torch.zeros(width, device=policy.core.device))
        self.bias = torch.nn.Parameter(torch.zeros(1, device=policy.core.device))

    def values(self, groups: Sequence[Group], states: States) -> Tensor:
        """From the policy's states; the groups are not read again."""
        return states.before.float() @ self.weight.to(states.before.device) + self.bias.to(states.before.device)

    def trainable(self) -> dict[str, Tensor]:
        """The head's."""
        return {"value_head.weight": self.weight, "value_head.bias": self.bias}


class SeparateValue:
    """A network of its own, tuned as it was given, with a head: the policy is not touched (Ouyang et al. 2022)."""

    def __init__(self, network: Policy, policy: Policy) -> None:
        self.network, self._policy = network, policy
        self._head = SharedValue(network)

    def values(self, groups: Sequence[Group], states: States) -> Tensor:
        """From its own states; looks at pictures are the policy's where its tower is frozen."""
        self.network.to(self._policy.core.device)
        if self._policy.vision.frozen and self.network.vision.frozen:
            self.network.vision = self._policy.vision
        return self._head.values(groups, self.network.read(groups))

    def trainable(self) -> dict[str, Tensor]:
        """The network's and the head's."""
        return {f"value.{name}": weight for name, weight in self.network.trainable().items()} | self._head.trainable()
