"""RLOO, GAE and PPO: arithmetic on paper, exact expectations, limits, a plain loop."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verisight.objectives.policy_gradient import (
    MAX_LOG_RATIO,
    clipped,
    gae,
    leave_one_out,
    masked_mean,
    masked_sum,
    ppo_policy,
    ppo_value,
    reinforce,
    token_rewards,
    whiten,
)

f64 = torch.float64
close = torch.testing.assert_close


def t(*values):
    return torch.tensor(values, dtype=f64)


def real(*lengths):
    """A mask of right-padded answers."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


def gradient(value, parameter):
    return torch.autograd.grad(value, parameter, retain_graph=True)[0]


def test_leave_one_out_by_hand():
    """Rewards 1, 2, 6: others' means 4, 3.5, 1.5."""
    close(
        leave_one_out(torch.stack([t(1.0, 2.0, 6.0), t(5.0, 5.0, 5.0)])), torch.stack([t(-3.0, -1.5, 4.5), t(0, 0, 0)])
    )
    rewards = noise(4, 5)
    close(leave_one_out(rewards), (rewards - rewards.mean(1, keepdim=True)) * 5 / 4)
    with pytest.raises(AssertionError, match="another answer"):
        leave_one_out(noise(3, 1))


def test_rloo_is_the_policy_gradient_in_expectation():
    """All 4 x 4 draws of two answers, weighted by their probability: the gradient is exactly that of -E[r]."""
    logits, values = noise(4).requires_grad_(), noise(4, seed=1)
    logp = logits.log_softmax(0)
    draws = torch.tensor(list(product(range(4), range(4))))
    weights = logp[draws].sum(1).exp().detach()
    advantages = leave_one_out(values[draws])
    losses = reinforce(logp[draws].flatten(), advantages.flatten()).view(-1, 2).mean(1)
    close(gradient((weights * losses).sum(), logits), gradient(-(logp.exp() * values).sum(), logits))


def test_reinforce_holds_its_advantages_constant():
    logp, advantages = noise(3).requires_grad_(), noise(3, seed=1).requires_grad_()
    loss = reinforce(logp, advantages)
    close(loss, -advantages * logp)
    loss.sum().backward()
    close(logp.grad, -advantages.detach())
    assert advantages.grad is None


def test_clipping_by_hand():
    """Ratios 1.5 and 0.5, clip 0.2: gains stop at 1.2 and losses at 0.8; the other two sides are not clipped."""
    old = torch.zeros(4, 1, dtype=f64)
    logp = t(1.5, 0.5, 1.5, 0.5).log()[:, None].requires_grad_()
    advantages = t(2.0, -2.0, -2.0, 2.0)[:, None]
    loss, flags = ppo_policy(logp, old, advantages, real(1, 1, 1, 1), clip=0.2)
    close(loss, t(-2.4, 1.6, 3.0, -1.0)[:, None])
    assert flags.squeeze(1).tolist() == [True, True, False, False]
    close(gradient(loss.sum(), logp), t(0.0, 0.0, 3.0, -1.0)[:, None])


def test_the_ratio_of_an_answer_and_of_its_tokens():
    """Tokens at 1.1 and 1.3 (clip 0.2): the answer's 1.43 is clipped as one; of the tokens only the second is."""
    logp, old = torch.stack([t(1.1, 1.3).log()]), torch.zeros(1, 2, dtype=f64)
    whole = clipped(logp, old, t(1.0), real(2), clip=0.2, ratio="sequence")
    tokens = clipped(logp, old, t(1.0), real(2), clip=0.2, ratio="token")
    close((whole.loss, whole.clipped_fraction), (t(-1.2), t(1.0)))
    close((tokens.loss, tokens.clipped_fraction), (t(-1.1 - 1.2), t(0.5)))


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_on_policy_the_clipped_loss_is_reinforce(ratio):
    logp, mask, advantages = noise(3, 4).requires_grad_(), real(4, 2, 1), noise(3, seed=1)
    loss, flags = clipped(logp, logp.detach(), advantages, mask, clip=0.1, ratio=ratio)
    plain = reinforce(masked_sum(logp, mask, -1), advantages)
    close(gradient(loss.sum(), logp), gradient(plain.sum(), logp))
    assert flags.sum() == 0


@pytest.mark.parametrize("ratio", ["sequence", "token"])
def test_policies_far_apart_keep_finite_gradients(ratio):
    logp, old = torch.full((2, 3), -1.0, requires_grad=True), torch.full((2, 3), -200.0)
    loss, _ = clipped(logp, old, torch.tensor([1.0, -1.0]), real(3, 3), clip=0.2, ratio=ratio)
    assert loss[1].item() == pytest.approx(math.exp(MAX_LOG_RATIO) * (3 if ratio == "token" else 1), rel=1e-5)
    assert gradient(loss.sum(), logp).isfinite().all()


def test_value_clipping_by_hand():
    """Old value 1, return 3. A value of 2 counts as 1.5 within 0.5: 2.25 over 1; moving away is not eased."""
    values, old, returns = (column[None] for column in (t(2.0, 0.0, 1.2), t(1.0, 1.0, 1.0), t(3.0, 3.0, 3.0)))
    values.requires_grad_()
    loss, flags = ppo_value(values, old, returns, real(3), clip=0.5)
    close(loss, t(1.125, 4.5, 1.62)[None])
    assert flags.tolist() == [[True, False, False]]
    close(gradient(loss.sum(), values), t(0.0, -3.0, -1.8)[None])
    plain, flags = ppo_value(values, old, returns, real(3), clip=None)
    close(plain, t(0.5, 4.5, 1.62)[None])
    assert not flags.any()


def test_rewards_of_tokens_by_hand():
    estimated = torch.stack([t(1.0, 2.0, 3.0), t(4.0, 5.0, 6.0), t(7.0, 8.0, 9.0)])
    rewards = token_rewards(t(10.0, 20.0, 30.0), estimated, real(3, 1, 2), beta=0.5)
    close(rewards, torch.stack([t(-0.5, -1.0, 8.5), t(18.0, 0.0, 0.0), t(-3.5, 26.0, 0.0)]))


def loop(rewards, values, length, gamma, lam):
    """The definition, term by term, for one answer."""
    after = [*values[1:length], 0.0]
    errors = [rewards[i] + gamma * after[i] - values[i] for i in range(length)]
    return [sum((gamma * lam) ** (j - i) * errors[j] for j in range(i, length)) for i in range(length)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_gae_is_its_definition(lengths, gamma, lam, seed):
    mask = real(*lengths)
    rewards, values = noise(*mask.shape, seed=seed), noise(*mask.shape, seed=seed + 100)
    got = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        wanted = loop(rewards[row].tolist(), values[row].tolist(), length, gamma, lam)
        assert got.advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-12)
        assert got.advantages[row, length:].abs().sum() == 0
    close(got.returns, (got.advantages + values).where(mask, 0))


def test_limits_of_gae():
    """Lambda 0 is the one-step error; lambda 1 the rewards to come less the value, which returns then do not hold."""
    mask, rewards, values = real(3, 2), noise(2, 3), noise(2, 3, seed=1)
    (r, s), v = rewards.tolist(), values.tolist()
    short = gae(rewards, values, mask, gamma=0.9, lam=0.0).advantages
    close(short[0], t(r[0] + 0.9 * v[0][1] - v[0][0], r[1] + 0.9 * v[0][2] - v[0][1], r[2] - v[0][2]))
    close(short[1], t(s[0] + 0.9 * v[1][1] - v[1][0], s[1] - v[1][1], 0.0))
    long = gae(rewards, values, mask, gamma=0.9, lam=1.0)
    close(long.returns[0], t(r[0] + 0.9 * r[1] + 0.81 * r[2], r[1] + 0.9 * r[2], r[2]))
    close(long.returns[1], t(s[0] + 0.9 * s[1], s[1], 0.0))
    close(long.returns, gae(rewards, values * 0, mask, gamma=0.9, lam=1.0).advantages)


@pytest.mark.parametrize("mask", [[[False, True]], [[True, False, True]], [[False, False]]])
def test_masks_that_are_not_right_padded_are_refused(mask):
    mask = torch.tensor(mask)
    zeros = torch.zeros(mask.shape)
    with pytest.raises(AssertionError, match=r"token|right"):
        gae(zeros, zeros, mask, gamma=1.0, lam=1.0)
    with pytest.raises(AssertionError, match=r"token|right"):
        token_rewards(zeros[:, 0], zeros, mask, beta=0.1)


def test_whitening_and_means():
    mask, values = real(4, 2, 1), 5 + 3 * noise(3, 4)
    kept = values[mask]
    close(masked_mean(values, mask), kept.mean())
    close(masked_mean(values, mask, -1), t(*(row[m].mean().item() for row, m in zip(values, mask, strict=True))))
    white = whiten(values, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-12)
    assert white[mask].var(correction=0).item() == pytest.approx(1, rel=1e-6)
    close(white[mask], (kept - kept.mean()) / kept.std(correction=0))
    close(whiten(values, mask, shift_mean=False), (white + kept.mean()).where(mask, 0))
    assert whiten(torch.full((1, 3), 2.0), real(3)).tolist() == [[0, 0, 0]]
