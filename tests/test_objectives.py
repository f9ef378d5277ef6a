"""Objectives against arithmetic on paper, their limits and their gradients; then the steps that feed them."""

import math
from dataclasses import replace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import CHOSEN, REJECTED, pair, prompt, tiny_policy
from verisight.models.reference import Reference
from verisight.objectives.preference import dpo, sft
from verisight.train.preference import Dpo, Mean, PreferenceStep, SftStep
from verisight.types import Answer, Group, Pair

f64 = torch.float64
ratios = st.lists(st.floats(-50, 50), min_size=2, max_size=2)


def test_dpo_by_hand():
    """With beta (c - r) = 0.5 (3 - 1) = 1: -log sigmoid(1) = log(1 + e^-1); the other way round log(1 + e)."""
    chosen, rejected = torch.tensor([3.0, 1.0, 2.0], dtype=f64), torch.tensor([1.0, 3.0, 2.0], dtype=f64)
    expected = [math.log1p(math.exp(-1)), math.log1p(math.exp(1)), math.log(2)]
    assert dpo(chosen, rejected, beta=0.5).tolist() == pytest.approx(expected, rel=1e-12)
    smooth = [0.9 * a + 0.1 * b for a, b in zip(expected, [expected[1], expected[0], expected[2]], strict=True)]
    assert dpo(chosen, rejected, beta=0.5, label_smoothing=0.1).tolist() == pytest.approx(smooth, rel=1e-12)


def test_sft_by_hand():
    loss = sft(torch.tensor([-6.0, -1.0]), num_tokens=torch.tensor([3, 4]))
    assert loss.tolist() == [2.0, 0.25]


def test_limits():
    chosen, rejected = torch.tensor([7.0]), torch.tensor([-9.0])
    assert dpo(chosen, rejected, beta=1e-9).item() == pytest.approx(math.log(2), rel=1e-6)
    assert dpo(torch.tensor([1e6]), rejected, beta=0.1).item() == 0
    wrong = dpo(torch.tensor([-1e6]), torch.tensor([0.0]), beta=0.1)
    assert wrong.item() == pytest.approx(1e5)  # linear, never infinite


@settings(deadline=None)
@given(ratios, st.floats(0.01, 2), st.floats(0, 0.5))
def test_label_smoothing_is_symmetric(values, beta, smoothing):
    a, b = (torch.tensor([v], dtype=f64) for v in values)
    ahead = dpo(a, b, beta=beta, label_smoothing=smoothing)
    torch.testing.assert_close(ahead, dpo(b, a, beta=beta, label_smoothing=1 - smoothing))
    half = dpo(a, b, beta=beta, label_smoothing=0.5)
    torch.testing.assert_close(half, dpo(b, a, beta=beta, label_smoothing=0.5))
    both = dpo(a, b, beta=beta) + dpo(b, a, beta=beta)
    torch.testing.assert_close(ahead + dpo(b, a, beta=beta, label_smoothing=smoothing), both)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_against_finite_differences(smoothing):
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = (torch.randn(6, generator=generator, dtype=f64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda c, r: dpo(c, r, beta=0.3, label_smoothing=smoothing), (chosen, rejected), eps=1e-6
    )
    counts = torch.arange(1, 7)
    assert torch.autograd.gradcheck(lambda c: sft(c, num_tokens=counts), (chosen,), eps=1e-6)


@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_gradient_at_equal_policies_is_half_beta(beta):
    chosen, rejected = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    dpo(chosen, rejected, beta=beta).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-beta / 2] * 3)
    assert rejected.grad.tolist() == pytest.approx([beta / 2] * 3)


def test_a_column_against_a_row_does_not_broadcast():
    with pytest.raises(jaxtyping.TypeCheckError):
        dpo(torch.zeros(3), torch.zeros(3, 1), beta=0.1)
    with pytest.raises(jaxtyping.TypeCheckError):
        dpo(torch.zeros(3), torch.zeros(1), beta=0.1)
    with pytest.raises(jaxtyping.TypeCheckError):
        sft(torch.zeros(3), num_tokens=torch.ones(1, dtype=torch.int64))


def averaged(index, weights=(0.25, 0.75)):
    one = pair(index)
    return replace(one, rejected=(*one.rejected, Answer("A cat.")), weights=weights, origin="averaged")


@pytest.fixture(scope="module")
def moved():
    """A policy, the reference it left, and the same reference as a policy."""
    policy, start = tiny_policy(), tiny_policy()
    policy.tune(None, train_projector=True)
    reference = Reference(policy, mode="frozen_copy")
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "vision_tower" not in name:
                parameter.mul_(1.02)
    return policy, reference, start


def test_the_preference_step_is_the_formula_on_scores(moved):
    """Eq. 3 for a single rejected answer, eq. 5 (a weighted mean) for two; metrics are sums over the batch."""
    policy, reference, start = moved
    pairs = [pair(0), averaged(1), Pair(prompt(2), Answer(REJECTED), (Answer("Yes"),), (1.0,))]
    expected, margins = [], []
    for one in pairs:
        ratio = policy.score([one.group]).logp_sum - start.score([one.group]).logp_sum
        margins.append(sum(w * (ratio[0] - r).item() for w, r in zip(one.weights, ratio[1:], strict=True)))
        losses = [dpo(ratio[:1], r[None], beta=0.2, label_smoothing=0.1).item() for r in ratio[1:]]
        expected.append(sum(w * loss for w, loss in zip(one.weights, losses, strict=True)))
    outcome = PreferenceStep(policy, reference, Dpo(0.2, 0.1))(pairs)
    assert outcome.loss.tolist() == pytest.approx(expected, rel=1e-4)
    assert outcome.loss.requires_grad
    assert outcome.origins == {"offline": 2, "averaged": 1}
    assert outcome.sums["loss"] == pytest.approx(sum(expected), rel=1e-4)
    assert outcome.sums["margin_mean"] == pytest.approx(sum(margins), rel=1e-3)
    ratios = outcome.sums["chosen_logratio_sum"] - outcome.sums["rejected_logratio_sum"]
    assert ratios == pytest.approx(sum(margins), rel=1e-3)


def test_what_the_preference_step_reports(moved):
    policy, reference, _ = moved
    one = pair(0)
    scores = policy.score([one.group])
    per_token = (scores.logp_sum / scores.num_tokens).tolist()
    sums = PreferenceStep(policy, reference, Dpo())([one]).sums
    assert sums["chosen_logp_mean"] == pytest.approx(per_token[0], rel=1e-5)
    assert sums["rejected_logp_mean"] == pytest.approx(per_token[1], rel=1e-5)
    assert sums["num_tokens"] == scores.num_tokens.sum().item()
    assert sums["accuracy"] == float(sums["margin_mean"] > 0)


def test_the_sft_step_looks_at_chosen_answers_only(moved):
    policy, _, _ = moved
    pairs = [pair(0), averaged(1), Pair(prompt(2), Answer("Yes"))]
    scores = policy.score([Group(p.prompt, (p.chosen,)) for p in pairs])
    outcome = SftStep(policy)(pairs)
    torch.testing.assert_close(outcome.loss, -scores.logp_sum / scores.num_tokens)
    assert outcome.sums["chosen_logp_mean"] == pytest.approx(-outcome.sums["loss"])
    assert outcome.sums["num_tokens"] == scores.num_tokens.sum().item()


MIXED = [pair(0), averaged(1), Pair(prompt(2), Answer(REJECTED), (Answer("Yes"),), (1.0,), "online"), pair(3)]


def alone(policy, one, k):
    """(tokens,) log-probs of answer k of a pair, scored by itself."""
    return policy.score([Group(one.prompt, (one.group.answers[k],))]).token_logp


def test_by_origin_is_each_origin_by_itself(moved):
    """Sums of a mixed batch are those of the batches it is mixed of, and add up to the whole."""
    policy, reference, start = moved
    step = PreferenceStep(policy, reference, Dpo(0.2))
    whole = step(MIXED)
    assert set(whole.by_origin) == {"offline", "averaged", "online"}
    for origin, found in whole.by_origin.items():
        apart = [one for one in MIXED if one.origin == origin]
        assert found["num"] == len(apart) == whole.origins[origin]
        assert found == pytest.approx(step(apart).by_origin[origin], rel=1e-3)
    total = {name: sum(sums[name] for sums in whole.by_origin.values()) for name in found}
    assert total["num"] == len(MIXED)
    assert total["margin"] == pytest.approx(whole.sums["margin_mean"], rel=1e-5)
    assert total["accuracy"] == whole.sums["accuracy"]
    for name in ("chosen_logratio_sum", "rejected_logratio_sum"):
        assert total[name] == pytest.approx(whole.sums[name], rel=1e-5)
    two = whole.by_origin["averaged"]
    lengths, logps = zip(
        *((len(t), t.sum().item()) for t in (alone(policy, MIXED[1], k) for k in range(3))), strict=True
    )
    assert two["chosen_tokens"] == lengths[0]
    assert two["rejected_tokens"] == 0.25 * lengths[1] + 0.75 * lengths[2]
    assert two["chosen_logp_sum"] == pytest.approx(logps[0], rel=1e-5)
    assert two["rejected_logp_sum"] == pytest.approx(0.25 * logps[1] + 0.75 * logps[2], rel=1e-5)
    gone = [logp - alone(start, MIXED[1], k).sum().item() for k, logp in enumerate(logps)]
    assert two["rejected_logratio_sum"] == pytest.approx(0.25 * gone[1] + 0.75 * gone[2], rel=1e-3)


def test_margins_are_reduced_and_sums_are_sums(moved):
    policy, reference, _ = moved
    total = PreferenceStep(policy, reference, Dpo(0.2))([pair(0)]).by_origin["offline"]
    mean = PreferenceStep(policy, reference, Dpo(0.2), Mean())([pair(0)]).by_origin["offline"]
    assert total["margin"] == pytest.approx(total["chosen_logratio_sum"] - total["rejected_logratio_sum"], rel=1e-3)
    per_token = [total[f"{side}_logratio_sum"] / total[f"{side}_tokens"] for side in ("chosen", "rejected")]
    assert mean["margin"] == pytest.approx(per_token[0] - per_token[1], rel=1e-3)
    assert {name: mean[name] for name in mean if name not in ("margin", "accuracy")} == {
        name: total[name] for name in total if name not in ("margin", "accuracy")
    }


def test_the_sft_step_reports_by_origin(moved):
    policy, _, _ = moved
    outcome = SftStep(policy)([pair(0), Pair(prompt(2), Answer(CHOSEN), origin="gold")])
    assert {origin: sums["num"] for origin, sums in outcome.by_origin.items()} == {"offline": 1, "gold": 1}
    scores = alone(policy, pair(0), 0)
    assert outcome.by_origin["offline"]["chosen_logp_sum"] == pytest.approx(scores.sum().item(), rel=1e-5)
    assert outcome.by_origin["offline"]["chosen_tokens"] == len(scores)
