"""A reward model as annotator: the answer with the larger reward is the better one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from verisight.models.reward import RewardModel
from verisight.types import Answer, Comparison, Group, UserError, Verdict


class RewardAnnotator:
    """Compares answers by their rewards (`types.Annotator`). Both are read behind the picture, neither sees the other.

    So there is no first place to prefer. Rewards at most `tie_margin` apart are a tie; equal answers always.
    """

    def __init__(self, model: RewardModel, *, name: str, tie_margin: float = 0.0, batch_size: int = 8) -> None:
        if not tie_margin >= 0:
            raise UserError(f"tie_margin: found {tie_margin}; accepted: 0 or more")
        self._model, self._name = model, name
        self._tie_margin, self._batch_size = tie_margin, batch_size

    @property
    def name(self) -> str:
        """The model, and what it does."""
        return f"{self._name}, reward"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order.

        Raises:
            UserError: a picture that cannot be used, or an answer longer than what the model was built for.
        """
        found: list[Verdict] = []
        for start in range(0, len(comparisons), self._batch_size):
            batch = comparisons[start : start + self._batch_size]
            groups = [Group(one.prompt, (Answer(one.first), Answer(one.second))) for one in batch]
            with torch.inference_mode():
                rewards = self._model.rewards(groups).view(-1, 2).tolist()
            found += [self._verdict(one, *both) for one, both in zip(batch, rewards, strict=True)]
        return found

    def _verdict(self, asked: Comparison, first: float, second: float) -> Verdict:
        reason = f"rewards {first:+.4f}, {second:+.4f}"
        if first - second != first - second:
            return Verdict("unparsable", reason)
        if asked.first == asked.second or abs(first - second) <= self._tie_margin:
            return Verdict("tie", reason)
        return Verdict("first" if first > second else "second", reason)
