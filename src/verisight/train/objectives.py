"""Objectives with their settings, and what they are given: one row per chosen and rejected answer compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from verisight.objectives.policy_gradient import centering, reward_preference
from verisight.objectives.preference import Convex, dpo, dpop, gpo, ipo, mdpo, rpo, slic, slic_calibrated


class Spoiled(NamedTuple):
    """Log-probs of the chosen answers with a picture that they do not fit, reduced as the others. Nats."""

    chosen_logp: Tensor
    chosen_ref_logp: Tensor


class Comparisons(NamedTuple):
    """Log-probs of chosen against rejected answers, (comparisons,): one row per (pair, rejected answer).

    In nats, reduced over an answer's tokens as the step was told; `chosen_logp_mean` always in nats per token.
    `rating_gap`: points that the chosen answer was rated above the rejected one, where an objective asks for it.
    """

    chosen_logp: Tensor
    rejected_logp: Tensor
    chosen_ref_logp: Tensor
    rejected_ref_logp: Tensor
    chosen_logp_mean: Tensor
    spoiled: Spoiled | None = None
    rating_gap: Tensor | None = None

    @property
    def chosen_logratio(self) -> Tensor:
        """(comparisons,) log pi/pi_ref of the chosen answers."""
        return self.chosen_logp - self.chosen_ref_logp

    @property
    def rejected_logratio(self) -> Tensor:
        """(comparisons,) log pi/pi_ref of the rejected answers."""
        return self.rejected_logp - self.rejected_ref_logp

    @property
    def spoiled_logratio(self) -> Tensor:
        """(comparisons,) log pi/pi_ref of the chosen answers with the spoiled picture."""
        assert self.spoiled is not None, "the step was given no contrast"
        return self.spoiled.chosen_logp - self.spoiled.chosen_ref_logp


class Objective(Protocol):
    """Compares the answers of pairs."""

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        ...


@dataclass(frozen=True, slots=True)
class Dpo:
    """DPO (the paper's eq. 3): `objectives.preference.dpo`."""

    beta: float = 0.1
    label_smoothing: float = 0.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return dpo(
            comparisons.chosen_logratio,
            comparisons.rejected_logratio,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )


@dataclass(frozen=True, slots=True)
class Reward:
    """The paper's eq. 1, on rewards in the place of log-probs: `objectives.policy_gradient.reward_preference`.

    `center` weighs (r+ + r-)^2, which keeps rewards around 0: `objectives.policy_gradient.centering`. `margin` is what
    the difference of rewards has to be per point that the answers were rated apart (Touvron et al. 2023).
    """

    center: float = 0.0
    margin: float = 0.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        chosen, rejected = comparisons.chosen_logp, comparisons.rejected_logp
        margin: Tensor | float = 0.0
        if self.margin:
            assert comparisons.rating_gap is not None, "the step reads ratings for this objective"
            margin = self.margin * comparisons.rating_gap
        return reward_preference(chosen, rejected, margin=margin) + self.center * centering(chosen, rejected)


@dataclass(frozen=True, slots=True)
class Ipo:
    """IPO: `objectives.preference.ipo`. With `Sum` tau is that of Azar et al., with `Mean` that of TRL."""

    tau: float = 0.1

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison, in nats squared."""
        return ipo(comparisons.chosen_logratio, comparisons.rejected_logratio, tau=self.tau)


@dataclass(frozen=True, slots=True)
class Slic:
    """SLiC as a hinge on the margin: `objectives.preference.slic`."""

    beta: float = 0.1

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return slic(comparisons.chosen_logratio, comparisons.rejected_logratio, beta=self.beta)


@dataclass(frozen=True, slots=True)
class CalibratedSlic:
    """SLiC-HF with its SFT term: `objectives.preference.slic_calibrated`. Looks at no reference."""

    delta: float = 1.0
    sft_weight: float = 0.5

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return slic_calibrated(
            comparisons.chosen_logp,
            comparisons.rejected_logp,
            chosen_logp_mean=comparisons.chosen_logp_mean,
            delta=self.delta,
            sft_weight=self.sft_weight,
        )


@dataclass(frozen=True, slots=True)
class Gpo:
    """Any member of the general family: `objectives.preference.gpo`."""

    beta: float = 0.1
    f: Convex = "logistic"

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return gpo(comparisons.chosen_logratio, comparisons.rejected_logratio, beta=self.beta, f=self.f)


@dataclass(frozen=True, slots=True)
class Dpop:
    """DPO-positive: `objectives.preference.dpop`."""

    beta: float = 0.1
    penalty: float = 5.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return dpop(comparisons.chosen_logratio, comparisons.rejected_logratio, beta=self.beta, penalty=self.penalty)


@dataclass(frozen=True, slots=True)
class Rpo:
    """DPO with a likelihood term on the chosen answer: `objectives.preference.rpo`."""

    beta: float = 0.1
    sft_weight: float = 1.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return rpo(
            comparisons.chosen_logratio,
            comparisons.rejected_logratio,
            chosen_logp_mean=comparisons.chosen_logp_mean,
            beta=self.beta,
            sft_weight=self.sft_weight,
        )


@dataclass(frozen=True, slots=True)
class Mdpo:
    """DPO, the same answer with a spoiled picture, and an anchor: `objectives.preference.mdpo`."""

    beta: float = 0.1
    delta: float = 0.0
    image_weight: float = 1.0
    anchor_weight: float = 1.0

    def __call__(self, comparisons: Comparisons) -> Tensor:
        """One value per comparison."""
        return mdpo(
            comparisons.chosen_logratio,
            comparisons.rejected_logratio,
            spoiled_logratio=comparisons.spoiled_logratio,
            beta=self.beta,
            delta=self.delta,
            image_weight=self.image_weight,
            anchor_weight=self.anchor_weight,
        )
