"""What stands in padded places changes no result and no gradient; dtypes are kept; gradients are those of the value."""

from functools import partial

import pytest
import torch

from verisight.objectives.policy_gradient import (
    clipped,
    gae,
    masked_mean,
    masked_sum,
    ppo_policy,
    ppo_value,
    sequence_kl,
    token_rewards,
    whiten,
)

MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
PER_ANSWER = torch.tensor([1.0, -2.0, 0.5])

# name -> (function of token tensors, how many, how many of them the gradient flows into)
CASES = {
    "sum": (lambda a: masked_sum(a, MASK, -1), 1, 1),
    "mean": (lambda a: masked_mean(a, MASK, -1), 1, 1),
    "whiten": (lambda a: whiten(a, MASK), 1, 1),
    "whiten, mean kept": (lambda a: whiten(a, MASK, shift_mean=False), 1, 1),
    **{f"kl {kind}": (partial(lambda kind, a, b: sequence_kl(a, b, MASK, kind=kind), kind), 2, 2)
       for kind in ("k1", "k2", "k3")},
    **{f"clipped {ratio}": (partial(lambda ratio, a, b: clipped(
        a, b, PER_ANSWER.to(a.dtype), MASK, clip=0.2, ratio=ratio), ratio), 2, 1) for ratio in ("sequence", "token")},
    "token rewards": (lambda a: token_rewards(PER_ANSWER.to(a.dtype), a, MASK, beta=0.3), 1, 1),
    "gae": (lambda a, b: gae(a, b, MASK, gamma=0.9, lam=0.8), 2, 2),
    "policy": (lambda a, b, c: ppo_policy(a, b, c, MASK, clip=0.2), 3, 1),
    "value": (lambda a, b, c: ppo_value(a, b, c, MASK, clip=0.2), 3, 1),
    "value, plain": (lambda a, b, c: ppo_value(a, b, c, MASK, clip=None), 3, 1),
}  # fmt: skip


def tokens(num, *, dtype=torch.float64, padding=0.0):
    torch.manual_seed(0)
    return [torch.randn(3, 3, dtype=torch.float64).to(dtype).where(MASK, padding).requires_grad_() for _ in range(num)]


def results(name, inputs):
    """Every tensor of the result, and the gradients of a weighted sum of the first."""
    function, _, num_moved = CASES[name]
    got = function(*inputs)
    got = [got] if isinstance(got, torch.Tensor) else list(got)
    weighted = (got[0] * torch.arange(1, got[0].numel() + 1).view(got[0].shape)).sum()
    return got, torch.autograd.grad(weighted, inputs[:num_moved])


@pytest.mark.parametrize("padding", [3.0, -1e30, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", CASES)
def test_padding_never_matters(name, padding):
    num = CASES[name][1]
    plain, plain_gradients = results(name, tokens(num))
    padded, gradients = results(name, tokens(num, padding=padding))
    for one, other in zip([*plain, *plain_gradients], [*padded, *gradients], strict=True):
        assert torch.equal(one, other)
    for gradient in gradients:
        assert gradient[~MASK].tolist() == [0] * 3
        assert gradient[MASK].abs().max() > 0
    for one in padded:
        if one.shape == MASK.shape:
            assert one[~MASK].tolist() == [0] * 3


@pytest.mark.parametrize("name", CASES)
def test_more_padding_never_matters(name, monkeypatch):
    """Two more columns of padding: the same values, the new places 0."""
    function, num, _ = CASES[name]
    plain, _ = results(name, tokens(num))
    wide = [torch.nn.functional.pad(one, (0, 2), value=7.0) for one in tokens(num)]
    monkeypatch.setitem(globals(), "MASK", torch.nn.functional.pad(MASK, (0, 2)))
    got = function(*wide)
    for one, other in zip(plain, [got] if isinstance(got, torch.Tensor) else got, strict=True):
        other = other[:, :3] if other.dim() == 2 else other
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_dtypes_are_kept(name, dtype):
    got, gradients = results(name, tokens(CASES[name][1], dtype=dtype))
    assert {one.dtype for one in (*got, *gradients)} <= {dtype, torch.bool}
    assert got[0].dtype == dtype


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_value(name):
    function, num, num_moved = CASES[name]
    inputs = tokens(num)
    held = [one.detach() for one in inputs[num_moved:]]

    def first(*moved):
        got = function(*moved, *held)
        return got if isinstance(got, torch.Tensor) else got[0]

    assert torch.autograd.gradcheck(first, inputs[:num_moved])


@pytest.mark.parametrize("name", ["clipped sequence", "clipped token", "policy", "value", "value, plain"])
def test_what_the_older_policy_said_is_constant(name):
    """Ratios, and values within the clip: old log-probs, advantages and returns get no gradient."""
    inputs = tokens(CASES[name][1])
    loss = CASES[name][0](*inputs).loss.sum()
    assert torch.autograd.grad(loss, inputs[1:], allow_unused=True) == (None,) * (len(inputs) - 1)
