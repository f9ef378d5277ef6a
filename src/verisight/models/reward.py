"""The reward model: a vision-language model that says how good an answer is, in one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from verisight.models.policy import Policy, Scoring
from verisight.models.scoring import Scores
from verisight.types import Group, UserError

HEAD = "reward_head.safetensors"
_NAME = "reward_head.weight"


class RewardModel(Policy):
    """A policy whose `score` is a reward: a linear head on the state behind the answer's last token (Stiennon 2020).

    By then picture, prompt and answer have been read; they are forwarded once per group. Where log-probs are asked
    for, an answer is one token whose log-prob is its reward, so that the preference step compares rewards:
    -log sigmoid(r(x,y+) - r(x,y-)), the paper's eq. 1.
    """

    def __init__(self, model: Any, processor: Any, *, head: Tensor, scoring: Scoring = "grouped") -> None:
        super().__init__(model, processor, scoring=scoring)
        width = self.core.config.get_text_config().hidden_size
        assert head.shape == (width,), f"a head of {tuple(head.shape)} on states of {width}"
        self.head = torch.nn.Parameter(head.float().clone(), requires_grad=False)

    def tune(self, *settings: Any, **named: Any) -> None:
        """As of a policy; the head trains too."""
        super().tune(*settings, **named)
        self.head.requires_grad_()

    def trainable(self) -> dict[str, Tensor]:
        """The backbone's trainable parameters and the head."""
        return super().trainable() | ({_NAME: self.head} if self.head.requires_grad else {})

    def to(self, device: torch.device) -> None:
        """Move backbone and head."""
        super().to(device)
        self.head.data = self.head.data.to(device)

    def rewards(self, groups: Sequence[Group]) -> Tensor:
        """(answers,) float32, unbounded; only differences between answers mean something."""
        last = self.read(groups).last.float()
        return last @ self.head.to(last.device)

    def score(self, groups: Sequence[Group]) -> Scores:
        """Rewards in the place of log-probs, one token an answer."""
        found = self.rewards(groups)
        return Scores(found, torch.ones(len(found), dtype=torch.int64, device=found.device), found)

    def save(self, folder: Path) -> None:
        """As of a policy, and the head beside it."""
        super().save(folder)
        save_file({_NAME: self.head.detach().cpu().contiguous()}, folder / HEAD)


class NoReward:
    """What rewards are compared with in the preference step: nothing, 0 for every answer."""

    def __init__(self, model: RewardModel) -> None:
        self._model = model

    def score(self, groups: Sequence[Group]) -> Scores:
        """Zeros. No model runs."""
        num = sum(len(group.answers) for group in groups)
        zeros = torch.zeros(num, device=self._model.core.device)
        return Scores(zeros, torch.ones(num, dtype=torch.int64, device=zeros.device), zeros)


def new_head(policy: Policy, *, seed: int) -> Tensor:
    """(width,) float32 from N(0, 1 / (width + 1)), as Stiennon et al. 2020 draw it."""
    width = policy.core.config.get_text_config().hidden_size
    return torch.randn(width, generator=torch.Generator().manual_seed(seed)) / math.sqrt(width + 1)


def with_head(policy: Policy, head: Tensor) -> RewardModel:
    """The policy's model, read by a head."""
    return RewardModel(policy.model, policy.encoder.processor, head=head, scoring=policy.scoring)


def read_head(folder: Path) -> Tensor:
    """The head of a reward model's folder.

    Raises:
        UserError: there is none, or its file is broken.
    """
    path = folder / HEAD
    if not path.is_file():
        raise UserError(f"{folder}: holds no {HEAD}; accepted: what training with objective reward wrote")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not readable ({error}); accepted: what training with objective reward wrote"
        ) from error
    if found.keys() != {_NAME} or found[_NAME].ndim != 1:
        raise UserError(f"{path}: holds {sorted(found)}; accepted: {_NAME} of one axis")
    return found[_NAME]
