"""Objectives of alignment: pure functions, one value per pair. Only the training loop reduces.

Shapes: (pairs,) tensors in nats. A log-ratio is log pi(y|x) - log pi_ref(y|x) of a whole answer y; how log-probs of
tokens became that of the answer (sum, mean, weighted) is the caller's choice, and the papers mean the sum unless it
says otherwise here. m is the margin: chosen log-ratio minus rejected log-ratio. Without a reference (its log-probs
taken as 0) log-ratios are log-probs, and every objective here is its own reference-free form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PerPair = Float[Tensor, " pairs"]
Convex = Literal["logistic", "hinge", "squared", "exponential", "truncated_quadratic"]

CONVEX: dict[Convex, Callable[[Tensor], Tensor]] = {
    "logistic": lambda z: -F.logsigmoid(z),
    "hinge": lambda z: F.relu(1 - z),
    "squared": lambda z: (z - 1).square(),
    "exponential": lambda z: (-z).exp(),
    "truncated_quadratic": lambda z: F.relu(1 - z).square(),
}


def sft(logp_sum: PerPair, *, num_tokens: Int[Tensor, " pairs"]) -> PerPair:
    """Supervised fine-tuning: -(1/T) log pi(y|x), the mean over the T supervised tokens of each answer.

    logp_sum: (pairs,), log-prob of the chosen answer in nats. num_tokens: (pairs,), at least 1.
    """
    return -logp_sum / num_tokens


def dpo(chosen_logratio: PerPair, rejected_logratio: PerPair, *, beta: float, label_smoothing: float = 0.0) -> PerPair:
    """DPO: -(1-e) log sigmoid(beta m) - e log sigmoid(-beta m).

    Rafailov et al. 2023, eq. 7 (the paper's eq. 3); e, the label noise, from Mitchell 2023 (conservative DPO).
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats.
    beta > 0: strength of the pull to the reference, per nat. label_smoothing in [0, 0.5).
    """
    margin = beta * (chosen_logratio - rejected_logratio)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def ipo(chosen_logratio: PerPair, rejected_logratio: PerPair, *, tau: float) -> PerPair:
    """IPO: (m - 1/(2 tau))^2.

    Azar et al. 2023, eq. 17. Its log-ratios are of whole answers, so summed over tokens; implementations that take
    the mean over tokens aim at another margin with the same tau.
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats.
    tau > 0, per nat: the margin aimed at is 1/(2 tau) nats, less as tau grows. The value is in nats squared.
    """
    return (chosen_logratio - rejected_logratio - 1 / (2 * tau)).square()


def slic(chosen_logratio: PerPair, rejected_logratio: PerPair, *, beta: float) -> PerPair:
    """SLiC as a hinge on the margin: max(0, 1 - beta m).

    Tang et al. 2024, table 1 (the form that compares with DPO and IPO); `slic_calibrated` is the original.
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats.
    beta > 0, per nat: pairs with a margin of 1/beta nats and more have no gradient.
    """
    return F.relu(1 - beta * (chosen_logratio - rejected_logratio))


def slic_calibrated(
    chosen_logp: PerPair, rejected_logp: PerPair, *, chosen_logp_mean: PerPair, delta: float, sft_weight: float
) -> PerPair:
    """SLiC-HF: max(0, delta - log pi(y+|x) + log pi(y-|x)) - lambda (1/T) log pi(y+|x).

    Zhao et al. 2023, with the chosen answer as the regulariser's target, and that taken per token so that lambda means
    the same for short and long answers. No reference model.
    chosen_logp, rejected_logp: (pairs,), log-probs in nats. chosen_logp_mean: (pairs,), nats per token.
    delta > 0: the margin between log-probs aimed at, in nats. sft_weight (lambda) >= 0.
    """
    return F.relu(delta - chosen_logp + rejected_logp) - sft_weight * chosen_logp_mean


def gpo(chosen_logratio: PerPair, rejected_logratio: PerPair, *, beta: float, f: Convex) -> PerPair:
    """Generalised preference optimisation: f(beta m), f convex with f'(0) < 0.

    Tang et al. 2024, table 1: logistic log(1 + e^-z) is DPO, hinge max(0, 1 - z) is SLiC, squared (z - 1)^2
    with beta = 2 tau is IPO times beta^2, exponential e^-z, truncated_quadratic max(0, 1 - z)^2. The table's Savage
    loss is not convex and left out.
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats.
    beta > 0, per nat. The exponential leaves float32 where beta m < -88.
    """
    return CONVEX[f](beta * (chosen_logratio - rejected_logratio))


def dpop(chosen_logratio: PerPair, rejected_logratio: PerPair, *, beta: float, penalty: float) -> PerPair:
    """DPO-positive: -log sigmoid(beta (m - lambda max(0, -log pi/pi_ref(y+)))).

    Pal et al. 2024 (Smaug), eq. 3: the margin counts less while the chosen answer is less likely than under the
    reference.
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats.
    beta > 0, per nat. penalty (lambda) >= 0, without unit; 0 is DPO, theirs are 5 to 500.
    """
    shortfall = F.relu(-chosen_logratio)
    return -F.logsigmoid(beta * (chosen_logratio - rejected_logratio - penalty * shortfall))


def rpo(
    chosen_logratio: PerPair, rejected_logratio: PerPair, *, chosen_logp_mean: PerPair, beta: float, sft_weight: float
) -> PerPair:
    """DPO held by a likelihood term: -log sigmoid(beta m) - alpha (1/T) log pi(y+|x).

    Pang et al. 2024 (Iterative RPO, third version), eq. 1; Liu et al. 2024 (RPO) derive the same sum.
    chosen_logratio, rejected_logratio: (pairs,), log pi/pi_ref in nats. chosen_logp_mean: (pairs,), nats per token.
    beta > 0, per nat. sft_weight (alpha) >= 0; 0 is DPO.
    """
    return dpo(chosen_logratio, rejected_logratio, beta=beta) - sft_weight * chosen_logp_mean


def conditional(chosen_logratio: PerPair, spoiled_logratio: PerPair, *, beta: float) -> PerPair:
    """The picture term of mDPO (CoPO): -log sigmoid(beta (log-ratio of y+ with the picture - with a spoiled one)).

    Wang et al. 2024, "mDPO: Conditional Preference Optimization for Multimodal Large Language Models".
    chosen_logratio: (pairs,), log pi/pi_ref of the chosen answer in nats; spoiled_logratio: the same answer and
    question with a picture that it does not fit, under both models.
    beta > 0, per nat.
    """
    return -F.logsigmoid(beta * (chosen_logratio - spoiled_logratio))


def anchored(chosen_logratio: PerPair, *, beta: float, delta: float = 0.0) -> PerPair:
    """The reward anchor of mDPO (AncPO): -log sigmoid(beta log pi/pi_ref(y+) - delta).

    Wang et al. 2024 (mDPO): the chosen answer's reward is held above delta.
    chosen_logratio: (pairs,), log pi/pi_ref in nats. beta > 0, per nat. delta: a reward, without unit; theirs is 0.
    """
    return -F.logsigmoid(beta * chosen_logratio - delta)


def mdpo(
    chosen_logratio: PerPair, rejected_logratio: PerPair, *, spoiled_logratio: PerPair, beta: float,
    delta: float = 0.0, image_weight: float = 1.0, anchor_weight: float = 1.0,
) -> PerPair:  # fmt: skip
    """mDPO: `dpo` + w_i `conditional` + w_a `anchored`.

    Wang et al. 2024 (mDPO), where both weights are 1.
    chosen_logratio, rejected_logratio, spoiled_logratio: (pairs,), log pi/pi_ref in nats; the third of the chosen
    answer with a spoiled picture. beta > 0, per nat. image_weight, anchor_weight >= 0; both 0 is DPO.
    """
    return (
        dpo(chosen_logratio, rejected_logratio, beta=beta)
        + image_weight * conditional(chosen_logratio, spoiled_logratio, beta=beta)
        + anchor_weight * anchored(chosen_logratio, beta=beta, delta=delta)
    )
