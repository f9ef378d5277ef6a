"""A vision-language model as annotator by what it would say next: log-probs of two verdicts instead of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from verisight.judges.instruction import BRIEF, Wording, instruction
from verisight.judges.orders import swapped
from verisight.models.policy import Policy
from verisight.types import Answer, Comparison, Group, UserError, Verdict

_VERDICTS = (Answer("Verdict: A"), Answer("Verdict: B"))


class LikelihoodAnnotator:
    """A policy as annotator (`types.Annotator`): the verdict it gives the higher log-prob.

    The margin of a comparison is log p("Verdict: A") - log p("Verdict: B") in nats, given pictures and instruction,
    end tokens left out. With `both_orders` it is half the difference of the margins in both orders, which removes
    what the model gives to the letter or the place. A margin of at most `tie_margin` is a tie; so is 0 always. The
    model need not be able to write a verdict, so tiny and untuned ones can be asked too.
    """

    def __init__(
        self, policy: Policy, *, name: str, both_orders: bool = True, tie_margin: float = 0.0,
        wording: Wording = BRIEF, batch_size: int = 8,
    ) -> None:  # fmt: skip
        if not tie_margin >= 0:
            raise UserError(f"tie_margin: found {tie_margin}; accepted: 0 or more nats")
        self._policy, self._name = policy, name
        self._both_orders, self._tie_margin = both_orders, tie_margin
        self._wording, self._batch_size = wording, batch_size

    @property
    def name(self) -> str:
        """The model, and how it is asked."""
        return f"{self._name}, likelihood{', both orders' if self._both_orders else ''}"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order; `raw` holds the margins in nats.

        Raises:
            UserError: a picture that cannot be used, or an instruction longer than what the model was built for.
        """
        margins = self.margins(comparisons)
        if not self._both_orders:
            return [self._verdict(margin, f"{margin:+.4f}") for margin in margins]
        others = self.margins([swapped(one) for one in comparisons])
        return [
            self._verdict((straight - other) / 2, f"{straight:+.4f}, swapped {other:+.4f}")
            for straight, other in zip(margins, others, strict=True)
        ]

    def margins(self, comparisons: Sequence[Comparison]) -> list[float]:
        """The margin of every comparison as it stands, in nats."""
        found: list[float] = []
        for start in range(0, len(comparisons), self._batch_size):
            groups = [self._group(one) for one in comparisons[start : start + self._batch_size]]
            with torch.inference_mode():
                scores = self._policy.score(groups)
            rows = scores.token_logp.float().split(scores.num_tokens.tolist())
            sums = [float(row[:-1].sum()) for row in rows]  # the last token ends the answer
            found += [a - b for a, b in zip(sums[::2], sums[1::2], strict=True)]
        return found

    def _group(self, one: Comparison) -> Group:
        return Group(replace(one.prompt, text=instruction(one, self._wording), history=()), _VERDICTS)

    def _verdict(self, margin: float, raw: str) -> Verdict:
        reason = f"margin {margin:+.4f} nats"
        if margin != margin:
            return Verdict("unparsable", reason, raw)
        if abs(margin) <= self._tie_margin:
            return Verdict("tie", reason, raw)
        return Verdict("first" if margin > 0 else "second", reason, raw)
