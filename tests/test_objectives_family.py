"""IPO, SLiC, the general family and the anchored objectives: arithmetic on paper, limits, gradients, containment."""

import math
from functools import partial

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verisight.objectives import preference
from verisight.objectives.preference import (
    CONVEX,
    anchored,
    conditional,
    dpo,
    dpop,
    gpo,
    ipo,
    mdpo,
    rpo,
    slic,
    slic_calibrated,
)

f64 = torch.float64
E = math.e
ratios = st.lists(st.floats(-20, 20), min_size=2, max_size=2)
positive = st.floats(0.01, 2)
MARGIN_ONLY = {
    "dpo": partial(dpo, beta=0.3),
    "smoothed dpo": partial(dpo, beta=0.3, label_smoothing=0.2),
    "ipo": partial(ipo, tau=0.4),
    "slic": partial(slic, beta=0.3),
    **{f: partial(gpo, beta=0.3, f=f) for f in CONVEX},
}
ANCHORED = {
    "dpop": partial(dpop, beta=0.3, penalty=2.0),
    "rpo": lambda c, r: rpo(c, r, chosen_logp_mean=c / 7, beta=0.3, sft_weight=0.5),
    "slic_calibrated": lambda c, r: slic_calibrated(c, r, chosen_logp_mean=c / 7, delta=0.6, sft_weight=0.5),
    "mdpo": lambda c, r: mdpo(c, r, spoiled_logratio=r / 3, beta=0.3, delta=0.1, image_weight=0.7, anchor_weight=1.3),
    "conditional": partial(conditional, beta=0.3),
}


def one(*values):
    """Each value as a batch of one pair."""
    return [torch.tensor([value], dtype=f64) for value in values]


def softplus(x):
    """-log sigmoid(-x)."""
    return math.log1p(math.exp(x))


def test_ipo_by_hand():
    """With m = 3 - 1 = 2. Target 1/(2 * 0.5) = 1: (2 - 1)^2; target 1/(2 * 0.25) = 2: 0. Swapped: (-2 - 1)^2."""
    chosen, rejected = one(3.0, 1.0)
    assert ipo(chosen, rejected, tau=0.5).item() == 1
    assert ipo(chosen, rejected, tau=0.25).item() == 0
    assert ipo(rejected, chosen, tau=0.5).item() == 9


def test_slic_by_hand():
    """With m = 2: 1 - 0.25 * 2 = 0.5; with beta 1 the margin is met. Swapped: 1 + 0.5."""
    chosen, rejected = one(3.0, 1.0)
    assert slic(chosen, rejected, beta=0.25).item() == 0.5
    assert slic(chosen, rejected, beta=1.0).item() == 0
    assert slic(rejected, chosen, beta=0.25).item() == 1.5


def test_calibrated_slic_by_hand():
    """max(0, 2 + 4 - 3) + 0.1 * 0.5 = 3.05; a chosen answer that is ahead by delta leaves the SFT term alone."""
    chosen, rejected, mean = one(-4.0, -3.0, -0.5)
    loss = partial(slic_calibrated, chosen_logp_mean=mean, delta=2.0, sft_weight=0.1)
    assert loss(chosen, rejected).item() == pytest.approx(3.05, rel=1e-12)
    assert loss(chosen, rejected - 3).item() == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize(
    ("f", "ahead", "behind"),
    [
        ("logistic", softplus(-1), softplus(1)),
        ("hinge", 0, 2),
        ("squared", 0, 4),
        ("exponential", 1 / E, E),
        ("truncated_quadratic", 0, 4),
    ],
)
def test_the_family_by_hand(f, ahead, behind):
    """At beta m = 0.5 * 2 = 1, and -1 the other way round; a margin of 6 tells the two quadratics apart: (3 - 1)^2."""
    chosen, rejected = one(3.0, 1.0)
    assert gpo(chosen, rejected, beta=0.5, f=f).item() == pytest.approx(ahead, rel=1e-12)
    assert gpo(rejected, chosen, beta=0.5, f=f).item() == pytest.approx(behind, rel=1e-12)
    far = {"squared": 4, "truncated_quadratic": 0, "hinge": 0, "exponential": E**-3, "logistic": softplus(-3)}
    assert gpo(chosen + 4, rejected, beta=0.5, f=f).item() == pytest.approx(far[f], rel=1e-12)


def test_dpop_by_hand():
    """With m = -1 + 4 = 3, short of the reference by 1: 0.5 (3 - 2 * 1) = 0.5. Above it nothing is taken off."""
    assert dpop(*one(-1.0, -4.0), beta=0.5, penalty=2.0).item() == pytest.approx(softplus(-0.5), rel=1e-12)
    assert dpop(*one(1.0, -2.0), beta=0.5, penalty=2.0).item() == pytest.approx(softplus(-1.5), rel=1e-12)


def test_anchors_by_hand():
    """DPO at beta m = 1, plus 0.3 * 2 nats per token; the picture term at 0.5 (3 - 5) = -1; the anchor at 1.5 - 0.5."""
    chosen, rejected, spoiled, mean = one(3.0, 1.0, 5.0, -2.0)
    loss = rpo(chosen, rejected, chosen_logp_mean=mean, beta=0.5, sft_weight=0.3)
    assert loss.item() == pytest.approx(softplus(-1) + 0.6, rel=1e-12)
    assert conditional(chosen, spoiled, beta=0.5).item() == pytest.approx(softplus(1), rel=1e-12)
    assert anchored(chosen, beta=0.5, delta=0.5).item() == pytest.approx(softplus(-1), rel=1e-12)
    whole = mdpo(chosen, rejected, spoiled_logratio=spoiled, beta=0.5, delta=0.5, image_weight=2.0, anchor_weight=3.0)
    assert whole.item() == pytest.approx(softplus(-1) + 2 * softplus(1) + 3 * softplus(-1), rel=1e-12)


@settings(deadline=None)
@given(ratios, positive)
def test_the_family_contains_dpo_slic_and_ipo(values, beta):
    """IPO is the squared member with beta = 2 tau, divided by beta^2: ((2 tau m - 1) / (2 tau))^2."""
    sides = one(*values)
    assert torch.equal(gpo(*sides, beta=beta, f="logistic"), dpo(*sides, beta=beta))
    assert torch.equal(gpo(*sides, beta=beta, f="hinge"), slic(*sides, beta=beta))
    torch.testing.assert_close(gpo(*sides, beta=beta, f="squared") / beta**2, ipo(*sides, tau=beta / 2))


@settings(deadline=None)
@given(st.sampled_from(sorted(CONVEX)), st.floats(-10, 10), st.floats(-10, 10))
def test_every_member_is_convex_and_falls_at_zero(f, a, b):
    low, high = CONVEX[f](torch.tensor([a], dtype=f64)), CONVEX[f](torch.tensor([b], dtype=f64))
    middle = CONVEX[f](torch.tensor([(a + b) / 2], dtype=f64))
    assert middle.item() <= ((low + high) / 2).item() * (1 + 1e-12) + 1e-12
    zero = torch.zeros(1, requires_grad=True)
    CONVEX[f](zero).sum().backward()
    assert zero.grad.item() < 0


@settings(deadline=None)
@given(ratios, positive)
def test_without_their_terms_the_anchored_ones_are_dpo(values, beta):
    sides = one(*values)
    plain = dpo(*sides, beta=beta)
    assert torch.equal(dpop(*sides, beta=beta, penalty=0.0), plain)
    assert torch.equal(rpo(*sides, chosen_logp_mean=sides[0], beta=beta, sft_weight=0.0), plain)
    bare = mdpo(*sides, spoiled_logratio=sides[1], beta=beta, image_weight=0.0, anchor_weight=0.0)
    assert torch.equal(bare, plain)
    assert torch.equal(conditional(*sides, beta=beta), plain)  # the same curve over another difference


@pytest.mark.parametrize("name", MARGIN_ONLY)
def test_what_looks_at_margins_does_not_see_a_common_shift(name):
    """Both answers losing likelihood alike goes unseen: what the anchored objectives are for."""
    chosen, rejected = one(0.5, -0.25)
    torch.testing.assert_close(MARGIN_ONLY[name](chosen, rejected), MARGIN_ONLY[name](chosen - 3, rejected - 3))


@pytest.mark.parametrize("name", ["dpop", "rpo", "mdpo", "slic_calibrated"])
def test_anchored_objectives_do(name):
    chosen, rejected = one(0.5, -0.25)
    assert ANCHORED[name](chosen - 3, rejected - 3).item() > ANCHORED[name](chosen, rejected).item() + 0.1


@pytest.mark.parametrize("name", [*MARGIN_ONLY, *ANCHORED])
def test_gradients_against_finite_differences(name):
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(6, generator=generator, dtype=f64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck((MARGIN_ONLY | ANCHORED)[name], (chosen, rejected), eps=1e-6)


def slopes(loss, chosen, rejected):
    """Derivatives by chosen and rejected."""
    sides = [value.requires_grad_() for value in one(chosen, rejected)]
    loss(*sides).sum().backward()
    return [side.grad.item() for side in sides]


def test_gradients_on_paper():
    """With m = 2 and beta = 0.3; s is sigmoid(-beta m). Beyond 1/beta = 3.33 nats a hinge is flat."""
    s = 1 / (1 + math.exp(0.6))
    expected = {
        "logistic": -0.3 * s, "hinge": -0.3, "squared": 2 * 0.3 * (0.6 - 1), "exponential": -0.3 * math.exp(-0.6),
        "truncated_quadratic": -2 * 0.3 * (1 - 0.6),
    }  # fmt: skip
    for f, slope in expected.items():
        found = slopes(partial(gpo, beta=0.3, f=f), 3.0, 1.0)
        assert found == pytest.approx([slope, -slope], rel=1e-12)
    assert slopes(partial(ipo, tau=0.4), 3.0, 1.0) == pytest.approx([2 * (2 - 1.25), -2 * (2 - 1.25)], rel=1e-12)
    assert slopes(partial(ipo, tau=0.25), 3.0, 1.0) == [0, 0]
    assert slopes(partial(slic, beta=0.3), 4.5, 1.0) == [0, 0]
    assert slopes(partial(gpo, beta=0.3, f="truncated_quadratic"), 4.5, 1.0) == [0, 0]


def test_gradients_of_the_anchors_on_paper():
    """DPOP short of the reference pulls the chosen answer up 1 + lambda times as hard as the rejected one down."""
    s = 1 / (1 + math.exp(0.5))
    found = slopes(partial(dpop, beta=0.5, penalty=2.0), -1.0, -4.0)
    assert found == pytest.approx([-0.5 * 3 * s, 0.5 * s], rel=1e-12)
    chosen, rejected, mean, spoiled = (value.requires_grad_() for value in one(3.0, 1.0, -2.0, 5.0))
    rpo(chosen, rejected, chosen_logp_mean=mean, beta=0.5, sft_weight=0.3).sum().backward()
    assert mean.grad.item() == pytest.approx(-0.3, rel=1e-12)
    chosen.grad = None
    mdpo(chosen, rejected, spoiled_logratio=spoiled, beta=0.5, delta=0.5).sum().backward()
    parts = [1 / (1 + math.exp(z)) for z in (1, -1, 1)]
    assert chosen.grad.item() == pytest.approx(-0.5 * sum(parts), rel=1e-12)
    assert spoiled.grad.item() == pytest.approx(0.5 * parts[1], rel=1e-12)


def test_limits():
    chosen, rejected = one(7.0, -9.0)
    assert ipo(chosen, rejected, tau=1e9).item() == pytest.approx(16**2)  # tau forbids any margin at all
    assert slic(chosen, rejected, beta=1e-12).item() == pytest.approx(1)
    for f in ("logistic", "exponential", "hinge", "truncated_quadratic"):
        assert gpo(chosen + 1e4, rejected, beta=0.5, f=f).item() == 0
    worst = dpop(*one(-1e6, 0.0), beta=0.1, penalty=500.0).item()
    assert worst == pytest.approx(0.1 * 501 * 1e6)  # linear, never infinite


@pytest.mark.parametrize("name", [*MARGIN_ONLY, *ANCHORED])
def test_a_column_against_a_row_does_not_broadcast(name):
    loss = (MARGIN_ONLY | ANCHORED)[name]
    with pytest.raises(jaxtyping.TypeCheckError):
        loss(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(jaxtyping.TypeCheckError):
        loss(torch.zeros(3), torch.zeros(1))


def test_every_objective_is_tested_here():
    functions = [value for value in vars(preference).values() if callable(value)]
    public = {one.__name__ for one in functions if one.__module__ == preference.__name__}
    margins = {"dpo", "ipo", "slic", "gpo", "conditional"}
    assert public == margins | {"sft", "slic_calibrated", "dpop", "rpo", "anchored", "mdpo"}
