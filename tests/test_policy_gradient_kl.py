"""Reward losses, KL estimators and the adaptive weight: arithmetic on paper, exact expectations on known KLs."""

import math
from itertools import product

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verisight.objectives.policy_gradient import (
    AdaptiveKL,
    centering,
    kl_per_token,
    reinforce,
    reward_preference,
    sequence_kl,
)
from verisight.types import UserError

f64 = torch.float64
close = torch.testing.assert_close


def t(*values):
    return torch.tensor(values, dtype=f64)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def gradient(value, parameter):
    return torch.autograd.grad(value, parameter, retain_graph=True)[0]


def test_reward_preference_by_hand():
    """Differences 1, 1 and -1; a margin of 1 moves the sigmoid's argument by 1, alone or one per pair."""
    chosen, rejected = t(3.0, 0.0, 1.0), t(2.0, -1.0, 2.0)
    loss = [math.log1p(math.exp(-d)) for d in (1, 1, -1)]
    close(reward_preference(chosen, rejected), t(*loss))
    close(reward_preference(chosen, rejected, margin=1.0), t(*(math.log1p(math.exp(-d)) for d in (0, 0, -2))))
    close(
        reward_preference(chosen, rejected, margin=t(1.0, 0.0, 3.0)), t(math.log(2), loss[1], math.log1p(math.exp(4)))
    )
    close(centering(chosen, rejected), t(25.0, 1.0, 9.0))


def test_preferences_leave_the_level_open_and_centering_fixes_it():
    chosen, rejected = noise(5, seed=1), noise(5, seed=2)
    close(reward_preference(chosen + 7, rejected + 7), reward_preference(chosen, rejected))
    level = torch.zeros((), dtype=f64, requires_grad=True)
    slope = gradient(centering(chosen + level, rejected + level).mean(), level)
    close(slope, 4 * (chosen + rejected).mean())


def test_reward_gradients():
    sides = [noise(4, seed=n).requires_grad_() for n in range(3)]
    assert torch.autograd.gradcheck(lambda c, r, m: reward_preference(c, r, margin=m), sides)
    assert torch.autograd.gradcheck(centering, sides[:2])
    with pytest.raises(jaxtyping.TypeCheckError):
        reward_preference(sides[0], sides[1][:, None])


POLICY = t(0.1, 0.2, 0.3, 0.4).log()
REFERENCE = t(0.15, 0.15, 0.35, 0.35).log()


def kl(p, q):
    return (p.exp() * (p - q)).sum()


def estimates(kind):
    return kl_per_token(POLICY, REFERENCE, kind=kind)


def test_kl_estimators_by_hand():
    """A policy twice as likely as the reference: l = log 2."""
    logp, ref = t(math.log(0.5)), t(math.log(0.25))
    two = math.log(2)
    for kind, value in {"k1": two, "k2": two**2 / 2, "k3": 0.5 - 1 + two}.items():
        close(kl_per_token(logp, ref, kind=kind), t(value))


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    """Expectations over all four tokens, weighted by the policy, against the KL written out."""
    true = kl(POLICY, REFERENCE)
    assert (POLICY.exp() * estimates("k1")).sum().item() == pytest.approx(true.item(), rel=1e-12)
    assert (POLICY.exp() * estimates("k3")).sum().item() == pytest.approx(true.item(), rel=1e-12)
    bias = ((POLICY.exp() * estimates("k2")).sum() - true).item()
    assert 1e-4 < abs(bias) < 0.05 * true.item()


def test_samples_agree_with_the_expectations_and_vary_less():
    torch.manual_seed(0)
    tokens = torch.multinomial(POLICY.exp(), 20_000, replacement=True)
    samples = {kind: estimates(kind)[tokens] for kind in ("k1", "k2", "k3")}
    for kind in ("k1", "k3"):
        error = samples[kind].std().item() / math.sqrt(20_000)
        assert abs(samples[kind].mean().item() - kl(POLICY, REFERENCE).item()) < 4 * error
    assert samples["k3"].var() < 0.03 * samples["k1"].var()
    assert samples["k2"].var() < 0.03 * samples["k1"].var()


@settings(deadline=None)
@given(st.floats(-80, 80), st.floats(-80, 80))
def test_k2_and_k3_are_never_negative(logp, ref):
    for kind in ("k2", "k3"):
        assert kl_per_token(t(logp), t(ref), kind=kind).item() >= 0
        assert kl_per_token(t(logp), t(logp), kind=kind).item() == 0


def test_expected_gradients_of_the_estimators():
    """As losses: k1 pushes nowhere, k2 down the KL, k3 down the KL the other way round."""
    logits = POLICY.clone().requires_grad_()
    logp = logits.log_softmax(-1)
    weights = logp.exp().detach()
    wanted = {
        "k1": torch.zeros(4, dtype=f64),
        "k2": gradient(kl(logp, REFERENCE), logits),
        "k3": gradient(kl(REFERENCE, logp), logits),
    }
    assert (wanted["k2"] - wanted["k3"]).abs().max() > 1e-3
    for kind, expected in wanted.items():
        close(gradient((weights * kl_per_token(logp, REFERENCE, kind=kind)).sum(), logits), expected)


def test_kl_of_sequences_adds_up_by_the_chain_rule():
    """All 3 x 3 answers of two tokens, second token conditional on the first."""
    logp, ref = ((noise(3, seed=n).log_softmax(0), noise(3, 3, seed=n + 9).log_softmax(1)) for n in (1, 2))
    pairs = list(product(range(3), range(3)))
    tokens = [torch.stack([torch.stack([one[a], two[a, b]]) for a, b in pairs]) for one, two in (logp, ref)]
    whole = [rows.sum(1) for rows in tokens]
    mask = torch.ones(9, 2, dtype=torch.bool)
    close(sequence_kl(*tokens, mask, kind="k1"), whole[0] - whole[1])
    for kind in ("k1", "k3"):
        close((whole[0].exp() * sequence_kl(*tokens, mask, kind=kind)).sum(), kl(*whole))


def test_as_a_reward_k1_has_the_gradient_of_the_kl_of_answers():
    """Exact over 3 x 3 answers. As a loss the sum of k2 lacks the part that a first token has in the second's KL."""
    logits = [noise(3, seed=1).requires_grad_(), noise(3, 3, seed=2).requires_grad_()]
    reference = [noise(3, seed=3).log_softmax(0), noise(3, 3, seed=4).log_softmax(1)]
    first, second = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    logp = torch.stack([logits[0].log_softmax(0)[first], logits[1].log_softmax(1)[first, second]], 1)
    ref = torch.stack([reference[0][first], reference[1][first, second]], 1)
    mask, weights = torch.ones(9, 2, dtype=torch.bool), logp.sum(1).exp().detach()
    wanted = [gradient(kl(logp.sum(1), ref.sum(1)), one) for one in logits]
    loss = (weights * reinforce(logp.sum(1), -sequence_kl(logp, ref, mask, kind="k1"))).sum()
    close([gradient(loss, one) for one in logits], wanted)
    partial = (weights * sequence_kl(logp, ref, mask, kind="k2")).sum()
    close(gradient(partial, logits[1]), wanted[1])
    assert (gradient(partial, logits[0]) - wanted[0]).abs().max() > 0.05


def test_adaptive_kl_by_hand():
    """10 % above the target over a fifth of the horizon: 1 + 0.1 * 0.2. Errors are cut at 20 % either way."""
    controller = AdaptiveKL(0.5, target=6.0, horizon=1000)
    assert controller.update(6.6, 200).coef == pytest.approx(0.5 * 1.02)
    assert controller.update(6.0, 200) == controller
    assert controller.update(600.0, 200).coef == pytest.approx(0.5 * 1.04)
    assert controller.update(-3.0, 200).coef == pytest.approx(0.5 * 0.96)
    assert controller.update(6.6, 200).update(6.6, 200).coef == pytest.approx(0.5 * 1.02**2)
    assert AdaptiveKL(0.5).update(99.0, 200) == AdaptiveKL(0.5)


def test_what_adaptive_kl_refuses():
    with pytest.raises(UserError, match="diverged"):
        AdaptiveKL(0.5, target=6.0).update(math.nan, 8)
    with pytest.raises(UserError, match="horizon: found 10 with 50 answers"):
        AdaptiveKL(0.5, target=6.0, horizon=10).update(6.0, 50)
