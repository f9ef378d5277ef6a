"""Reward modelling and policy gradients as pure functions: one value per pair, answer or token. No model in here.

Tensors of tokens are (answers, tokens), padded on the right; `mask` is bool of the same shape, true at the tokens that
were drawn (the drawn end token included), and never empty in a row. What stands in padded places, NaN included, changes
neither a result nor a gradient, and results are 0 or False there. Log-probs are in nats. Of two policies, `logp` is
that of the policy in training and carries the gradient; advantages, returns and old values and log-probs are constants
of the losses. dtypes are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from verisight.types import UserError

PerPair = Float[Tensor, " pairs"]
PerAnswer = Float[Tensor, " answers"]
PerDraw = Float[Tensor, "prompts draws"]
PerToken = Float[Tensor, "answers tokens"]
Mask = Bool[Tensor, "answers tokens"]
AnyShape = Float[Tensor, "*shape"]
Kl = Literal["k1", "k2", "k3"]
Ratio = Literal["sequence", "token"]

MAX_LOG_RATIO = 20.0
_MAX_ERROR = 0.2
_EPS = 1e-8


class Surrogate(NamedTuple):
    """A clipped loss. `clipped`: the clipped side is the one in force, so that the loss has no gradient there."""

    loss: Tensor
    clipped: Tensor


class AnswerLoss(NamedTuple):
    """A clipped loss per answer, and the fraction of the answer's ratios that are clipped. Both (answers,)."""

    loss: Tensor
    clipped_fraction: Tensor


class Gae(NamedTuple):
    """Advantages and the returns that values are fitted to. Both (answers, tokens), 0 in padded places."""

    advantages: Tensor
    returns: Tensor


def masked_sum(values: AnyShape, mask: Bool[Tensor, "*shape"], dim: int | None = None) -> Tensor:
    """Sum over the true places of a dimension, or of the whole tensor: `dim` -1 gives (answers,)."""
    return values.where(mask, 0).sum(dim)


def masked_mean(values: AnyShape, mask: Bool[Tensor, "*shape"], dim: int | None = None) -> Tensor:
    """Mean over the true places of a dimension, or of the whole tensor. NaN where there are none."""
    return masked_sum(values, mask, dim) / mask.sum(dim)


def whiten(values: PerToken, mask: Mask, *, shift_mean: bool = True) -> PerToken:
    """(v - mean) / sqrt(variance + 1e-8) over all real tokens of the batch; without shift_mean the mean is kept.

    Ziegler et al. 2019, as in their code: variance with n, not n - 1; advantages lose their mean, rewards keep it.
    values: (answers, tokens), any unit. Alike values become 0 (or stay).
    """
    mean = masked_mean(values, mask)
    centred = values.where(mask, mean) - mean
    scaled = centred * (masked_mean(centred.square(), mask) + _EPS).rsqrt()
    return (scaled if shift_mean else scaled + mean).where(mask, 0)


def reward_preference(chosen: PerPair, rejected: PerPair, *, margin: float | PerPair = 0.0) -> PerPair:
    """Reward model: -log sigmoid(r(x, y+) - r(x, y-) - margin), the negative log-likelihood of Bradley and Terry.

    Amirloo et al. 2024 (arXiv 2407.02477), eq. 1; the margin is that of Touvron et al. 2023 (Llama 2), eq. 2.
    chosen, rejected: (pairs,), rewards, without unit. margin >= 0, a reward: one for all or (pairs,), more where
    annotators saw a clearer difference.
    """
    return -F.logsigmoid(chosen - rejected - margin)


def centering(chosen: PerPair, rejected: PerPair) -> PerPair:
    """Holds rewards around 0, which preferences leave open: (r(x, y+) + r(x, y-))^2.

    Eisenstein et al. 2023 ("Helping or herding?"), added to `reward_preference` times a small weight.
    chosen, rejected: (pairs,), rewards, without unit. The value is a reward squared.
    """
    return (chosen + rejected).square()


def kl_per_token(logp: AnyShape, ref_logp: AnyShape, *, kind: Kl) -> AnyShape:
    """Estimates KL(pi || pi_ref) from a token drawn from pi, with l = log pi - log pi_ref of that token.

    Schulman 2020, "Approximating KL divergence": k1 = l (unbiased, of either sign), k2 = l^2 / 2 (biased, low
    variance near pi_ref), k3 = e^-l - 1 + l (unbiased, never negative). As losses they differ once more (Tang and
    Munos 2025, arXiv 2506.09477), on their expected gradients: k1 has none, k2 that of KL(pi || pi_ref), k3 that of
    KL(pi_ref || pi). As a part of the reward (`token_rewards`, no gradient) k1 gives the gradient of the KL.
    logp, ref_logp: one shape, nats. Values: nats. k3 leaves float32 where l < -88. Padding is passed through.
    """
    logratio = logp - ref_logp
    match kind:
        case "k1":
            return logratio
        case "k2":
            return logratio.square() / 2
        case "k3":
            return torch.expm1(-logratio) + logratio


def sequence_kl(logp: PerToken, ref_logp: PerToken, mask: Mask, *, kind: Kl) -> PerAnswer:
    """Sum of `kl_per_token` over an answer's tokens: estimates KL(pi || pi_ref) of whole answers, in nats.

    By the chain rule of KL the tokens' estimates add up; the sum of k1 is log pi/pi_ref of the answer. As a loss the
    sum lacks what a token does to the KL of later ones (Tang and Munos 2025); as a part of the reward it does not.
    logp, ref_logp: (answers, tokens), nats.
    """
    return masked_sum(kl_per_token(logp.where(mask, 0), ref_logp.where(mask, 0), kind=kind), mask, -1)


def leave_one_out(rewards: PerDraw) -> PerDraw:
    """RLOO's advantage: r_i - 1/(k-1) sum of r_j over j != i, of k independent answers to one prompt.

    Kool et al. 2019; Ahmadian et al. 2024. The baseline does not know the answer it is taken from, so the gradient
    stays unbiased. Advantages of a prompt sum to 0.
    rewards: (prompts, k), k at least 2, any unit.
    """
    num = rewards.shape[1]
    assert num >= 2, "leave-one-out needs another answer"
    return rewards - (rewards.sum(1, keepdim=True) - rewards) / (num - 1)


def reinforce(logp_sum: PerAnswer, advantages: PerAnswer) -> PerAnswer:
    """REINFORCE on whole answers: -A log pi(y|x), whose gradient estimates that of -E[r].

    Williams 1992; Ahmadian et al. 2024 for language models, with `leave_one_out` advantages.
    logp_sum: (answers,), summed over the answer's tokens, nats. advantages: (answers,).
    """
    return -advantages.detach() * logp_sum


def clipped(
    logp: PerToken, old_logp: PerToken, advantages: PerAnswer, mask: Mask, *, clip: float, ratio: Ratio
) -> AnswerLoss:
    """`reinforce` for answers that an older policy drew: clipped as in PPO, by the ratio of answers or of tokens.

    Schulman et al. 2017, eq. 7, with one advantage per answer. sequence: -min(r A, clip(r, 1-e, 1+e) A),
    r = pi/pi_old of the whole answer. token: the sum over tokens of that with their own ratios r_t. At pi = pi_old the
    gradient of both is that of `reinforce`.
    logp, old_logp: (answers, tokens), nats. advantages: (answers,). clip (e) in (0, 1).
    """
    if ratio == "sequence":
        whole = _surrogate(_logratio(logp, old_logp, mask).sum(-1), advantages, clip)
        return AnswerLoss(whole.loss, whole.clipped.to(logp.dtype))
    each = ppo_policy(logp, old_logp, advantages[:, None].expand_as(logp), mask, clip=clip)
    return AnswerLoss(each.loss.sum(-1), masked_mean(each.clipped.to(logp.dtype), mask, -1))


def token_rewards(rewards: PerAnswer, kl: PerToken, mask: Mask, *, beta: float) -> PerToken:
    """Rewards of tokens: -beta kl_t, and the answer's reward at its last real token.

    Ziegler et al. 2019, eq. 2, split over tokens (the paper's eq. 2 for one answer).
    rewards: (answers,). kl: (answers, tokens), estimates from `kl_per_token`, nats. beta >= 0, per nat.
    """
    last = mask & ~F.pad(_right_padded(mask)[:, 1:], (0, 1))
    return torch.where(last, rewards[:, None], 0) - beta * kl.where(mask, 0)


def gae(rewards: PerToken, values: PerToken, mask: Mask, *, gamma: float, lam: float) -> Gae:
    """Generalised advantages: A_t = sum over l of (gamma lam)^l d_(t+l), d_t = r_t + gamma V_(t+1) - V_t; R = A + V.

    Schulman et al. 2016, eq. 16. Behind the last real token the value is 0: an answer that is over earns no more.
    lam 0 is the one-step error d_t, lam 1 the discounted rewards to come less V_t.
    rewards, values: (answers, tokens), V_t before token t is drawn. gamma, lam in [0, 1].
    """
    real = _right_padded(mask)
    values = values.where(real, 0)
    errors = rewards.where(real, 0) + gamma * F.pad(values[:, 1:], (0, 1)) - values
    running = torch.zeros_like(errors[:, 0])
    columns = []
    for error in reversed(errors.unbind(1)):
        running = error + gamma * lam * running
        columns.append(running)
    advantages = torch.stack(columns[::-1], 1)
    return Gae(advantages, advantages + values)


def ppo_policy(logp: PerToken, old_logp: PerToken, advantages: PerToken, mask: Mask, *, clip: float) -> Surrogate:
    """PPO's clipped surrogate per token: -min(r A, clip(r, 1-e, 1+e) A), r = pi/pi_old of the token.

    Schulman et al. 2017, eq. 7. Log-ratios above 20 count as 20 and have no gradient, or it would not be finite.
    logp, old_logp: (answers, tokens), nats. advantages: (answers, tokens). clip (e) in (0, 1), theirs 0.2.
    Both results are (answers, tokens).
    """
    return _surrogate(_logratio(logp, old_logp, mask), advantages.where(mask, 0), clip)


def ppo_value(
    values: PerToken, old_values: PerToken, returns: PerToken, mask: Mask, *, clip: float | None
) -> Surrogate:
    """PPO's value loss per token: max((V - R)^2, (V_old + clip(V - V_old, -e, e) - R)^2) / 2.

    The clipping is that of the code of Schulman et al. 2017 (OpenAI baselines). clip None: (V - R)^2 / 2.
    values, old_values, returns: (answers, tokens), in units of the reward; so is clip (e) > 0.
    Both results are (answers, tokens).
    """
    values, returns = values.where(mask, 0), returns.detach().where(mask, 0)
    free = (values - returns).square() / 2
    if clip is None:
        return Surrogate(free, torch.zeros_like(mask))
    old_values = old_values.detach().where(mask, 0)
    held = (old_values + (values - old_values).clamp(-clip, clip) - returns).square() / 2
    return Surrogate(torch.maximum(free, held), held > free)


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """The weight of the KL, steered to a target: coef <- coef (1 + clip(kl/target - 1, -0.2, 0.2) num/horizon).

    Ziegler et al. 2019, section 2.2, as in their code (there K = num/horizon).

    Args:
        coef: the weight (beta) now, per nat, >= 0.
        target: the KL aimed at, > 0, nats per answer. None: the weight stays.
        horizon: over how many answers the weight changes by up to 20 %; theirs is 10,000.
    """

    coef: float
    target: float | None = None
    horizon: int = 10_000

    def update(self, kl: float, num: int) -> AdaptiveKL:
        """The weight after `num` answers whose KL was `kl` on average (nats per answer).

        Raises:
            UserError: the KL is not a number, or the horizon so short that the weight could reach 0 in one update.
        """
        if self.target is None:
            return self
        if math.isnan(kl):
            raise UserError(f"adaptive KL: found a KL of {kl}, accepted: a number (the policy has diverged)")
        if _MAX_ERROR * num >= self.horizon:
            raise UserError(
                f"horizon: found {self.horizon} with {num} answers per update, "
                f"accepted: more than {_MAX_ERROR * num:g}, usually many times the answers of one update"
            )
        error = min(max(kl / self.target - 1, -_MAX_ERROR), _MAX_ERROR)
        return replace(self, coef=self.coef * (1 + error * num / self.horizon))


def _logratio(logp: PerToken, old_logp: PerToken, mask: Mask) -> PerToken:
    return logp.where(mask, 0) - old_logp.detach().where(mask, 0)


def _surrogate(logratio: AnyShape, advantages: AnyShape, clip: float) -> Surrogate:
    advantages = advantages.detach()
    ratio = logratio.clamp(max=MAX_LOG_RATIO).exp()
    free, held = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return Surrogate(torch.maximum(free, held), held > free)


def _right_padded(mask: Mask) -> Mask:
    """The mask, which must be true first and false behind, with at least one true place in a row."""
    assert bool(mask[:, 0].all()), "an answer has a token"
    assert not bool((mask[:, 1:] & ~mask[:, :-1]).any()), "padding is on the right"
    return mask
