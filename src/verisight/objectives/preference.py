"""Objectives of alignment: pure functions, one value per pair. Only the training loop reduces.

Shapes: (pairs,) tensors in nats. `_sum` are summed over an answer's tokens, log-ratios are log pi - log pi_ref.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PerPair = Float[Tensor, " pairs"]


def sft(logp_sum: PerPair, *, num_tokens: Int[Tensor, " pairs"]) -> PerPair:
    """Supervised fine-tuning: -(1/T) log pi(y|x), the mean over the T supervised tokens of each answer.

    logp_sum: (pairs,), log-prob of the chosen answer in nats. num_tokens: (pairs,), at least 1.
    """
    return -logp_sum / num_tokens


def dpo(
    chosen_logratio_sum: PerPair, rejected_logratio_sum: PerPair, *, beta: float, label_smoothing: float = 0.0
) -> PerPair:
    """DPO: -(1-e) log sigmoid(beta m) - e log sigmoid(-beta m), m the log-ratio margin.

    Rafailov et al. 2023, eq. 7 (the paper's eq. 3); e, the label noise, from Mitchell 2023 (conservative DPO).
    chosen_logratio_sum, rejected_logratio_sum: (pairs,), log pi/pi_ref in nats, summed over answer tokens.
    beta > 0: strength of the pull to the reference. label_smoothing in [0, 0.5).
    """
    margin = beta * (chosen_logratio_sum - rejected_logratio_sum)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
