"""How the log-probs of an answer's tokens become one number: an axis of its own, beside objective and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verisight.data.segments import Segments, TokenWeights
from verisight.models.policy import Policy
from verisight.models.scoring import Scores
from verisight.types import Pair


class Reduction(Protocol):
    """Weighs the tokens of answers. Policy, reference and spoiled picture take the same weights."""

    def weights(self, policy: Policy, pair: Pair, num_tokens: Sequence[int]) -> list[TokenWeights]:
        """Weights of chosen and rejected tokens, one entry per rejected answer of the pair.

        `num_tokens`: tokens with a log-prob of the chosen answer, then of each rejected one. The pair's prompt has
        just been scored.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sum:
    """log pi(y|x), the log-prob of the whole answer: what DPO, IPO and SLiC are written in."""

    def weights(self, policy: Policy, pair: Pair, num_tokens: Sequence[int]) -> list[TokenWeights]:
        """All ones."""
        chosen, *rejected = (np.ones(num) for num in num_tokens)
        return [TokenWeights(chosen, one) for one in rejected]


@dataclass(frozen=True, slots=True)
class Mean:
    """log pi(y|x) / T, per token: TRL's form of IPO (docs/decisions/0012), length-normalised DPO."""

    def weights(self, policy: Policy, pair: Pair, num_tokens: Sequence[int]) -> list[TokenWeights]:
        """1/T for each of T tokens."""
        chosen, *rejected = (np.full(num, 1 / num) for num in num_tokens)
        return [TokenWeights(chosen, one) for one in rejected]


@dataclass(frozen=True, slots=True)
class Segmented:
    """Changed tokens count more, each rejected answer compared with the chosen one: RLHF-V's DDPO is `Dpo` with it."""

    segments: Segments

    def weights(self, policy: Policy, pair: Pair, num_tokens: Sequence[int]) -> list[TokenWeights]:
        """What `Segments` says of the answers' token ids (`muffin_compat`: of whole rows, prompt and picture in front).

        The prompt's ids come from the look at its pictures that scoring has just left in the policy's store.
        """
        encoded = [policy.encoder.answer(pair.prompt, answer) for answer in pair.group.answers]
        before: tuple[int, ...] = ()
        if self.segments.muffin_compat:
            before = policy.vision.look(policy.core, [pair.prompt])[0].ids
        ids = [(*before, *answer.ids) for answer in encoded]
        flags = [(*(False for _ in before), *answer.supervised) for answer in encoded]
        return [
            self.segments.weights(ids[0], ids[k], chosen_answer=flags[0], rejected_answer=flags[k])
            for k in range(1, len(encoded))
        ]


class Pick(NamedTuple):
    """Which tokens of a batch's answers make up which reduced log-prob, and with what weight.

    Call it with `Scores.token_logp` of any model that scored the same groups.
    """

    num: int
    index: Tensor  # (picked tokens,) int64, into token_logp
    row_of: Tensor  # (picked tokens,) int64, below num
    weights: Tensor  # (picked tokens,) float

    def __call__(self, token_logp: Tensor) -> Tensor:
        """(num,) weighted sums, with gradient."""
        return token_logp.new_zeros(self.num).index_add(0, self.row_of, self.weights * token_logp[self.index])


def pick(scores: Scores, answers: Sequence[int], weights: Sequence[NDArray[np.float64]]) -> Pick:
    """The tokens of these answers (indices into `scores`, repeats allowed), each answer with its weights."""
    counts: list[int] = scores.num_tokens.tolist()
    starts = [0, *accumulate(counts)]
    assert [counts[answer] for answer in answers] == [len(one) for one in weights], "a weight for every token"
    device = scores.token_logp.device
    index = np.concatenate([np.arange(starts[answer], starts[answer + 1]) for answer in answers])
    row_of = np.repeat(np.arange(len(answers)), [len(one) for one in weights])
    return Pick(
        len(answers),
        torch.from_numpy(index).to(device),
        torch.from_numpy(row_of).to(device),
        torch.from_numpy(np.concatenate(weights)).to(device, scores.token_logp.dtype),
    )
