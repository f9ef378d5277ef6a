"""The frozen starting model that aligned answers are compared with: three ways to the same log-probs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Literal

import torch

from verisight.models.policy import Policy
from verisight.models.scoring import Scores
from verisight.types import Group


class Reference:
    """The frozen starting model, as the policy without its adapter or as a copy taken now. Only scores.

    It shares the policy's looks at pictures: image files are read and passed through the tower once for both.
    """

    def __init__(self, policy: Policy, *, mode: Literal["adapter_off", "frozen_copy"]) -> None:
        assert mode == "frozen_copy" or policy.has_adapter, "no adapter to switch off"
        self._mode = mode
        self._trained = policy
        self._policy = policy if mode == "adapter_off" else _frozen_copy(policy)

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs under the reference, without gradients."""
        self._policy.model.to(self._trained.core.device)  # the loop may have moved the policy since the copy was made
        with torch.no_grad(), self._without_adapter():
            return self._policy.score(groups)

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        if self._mode == "frozen_copy":
            yield
            return
        with self._policy.model.disable_adapter():
            yield


def _frozen_copy(policy: Policy) -> Policy:
    """A second model. A frozen vision tower stays one for both, and so do the looks that it made."""
    tower = policy.core.model.get_submodule(policy.family.tower)
    shared = {id(weight): weight for weight in tower.parameters() if not weight.requires_grad}
    copied = deepcopy(policy.model, shared).requires_grad_(False)
    return Policy(
        copied, policy.encoder.processor, scoring=policy.scoring, vision=policy.vision if policy.vision.frozen else None
    )
