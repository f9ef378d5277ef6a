"""The preference step: objectives x reductions x references on real scores, and pictures that must be seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import REJECTED, pair, picture, prompt, tiny_policy
from verisight.data.segments import Segments
from verisight.models.reference import Reference
from verisight.objectives.preference import dpo
from verisight.train.preference import (
    CalibratedSlic,
    Comparisons,
    Dpo,
    Dpop,
    Gpo,
    Ipo,
    Mdpo,
    Mean,
    NoReference,
    PreferenceStep,
    Rpo,
    Segmented,
    Slic,
    Sum,
    rejected_pictures,
)
from verisight.types import Answer, Group, Pair, UserError

OBJECTIVES = [
    Dpo(0.2, 0.1), Ipo(0.3), Slic(0.2), CalibratedSlic(1.0, 0.5), Gpo(0.2, "exponential"), Dpop(0.2, 3.0),
    Rpo(0.2, 0.7),
]  # fmt: skip
REDUCTIONS = [Sum(), Mean(), Segmented(Segments()), Segmented(Segments(1.1, average=False, muffin_compat=True))]


def averaged(index, weights=(0.25, 0.75)):
    first = pair(index)
    return replace(first, rejected=(*first.rejected, Answer("A cat.")), weights=weights, origin="averaged")


def spoiled(index, other=50):
    return replace(pair(index), rejected_images=(picture(other),), origin="spoiled")


def averaged_and_spoiled(index):
    return replace(averaged(index), rejected_images=(picture(52),))


BATCH = [pair(0), averaged(1), Pair(prompt(2), Answer(REJECTED), (Answer("Yes"),), (1.0,), "online"), pair(3)]


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


def alone(policy, one, k):
    """(tokens,) log-probs of answer k of a pair, scored by itself."""
    return policy.score([Group(one.prompt, (one.group.answers[k],))]).token_logp


def by_hand(policy, start, one, weights_of):
    """Comparisons of one pair, every answer scored alone. `weights_of(k)`: weights of chosen and rejected k."""
    rows = []
    for k in range(1, len(one.group.answers)):
        chosen, rejected = (torch.tensor(side, dtype=torch.float32) for side in weights_of(k))
        rows.append([
            chosen @ alone(policy, one, 0), rejected @ alone(policy, one, k),
            chosen @ alone(start, one, 0), rejected @ alone(start, one, k), alone(policy, one, 0).mean(),
        ])  # fmt: skip
    return Comparisons(*(torch.stack(column).detach() for column in zip(*rows, strict=True)))


def ones(policy, one):
    return lambda k: (np.ones(len(alone(policy, one, 0))), np.ones(len(alone(policy, one, k))))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_the_step_is_the_objective_on_scores(moved, objective):
    policy, reference, start = moved
    expected = []
    for one in BATCH:
        values = objective(by_hand(policy, start, one, ones(policy, one)))
        expected.append(sum(w * value.item() for w, value in zip(one.weights, values, strict=True)))
    outcome = PreferenceStep(policy, reference, objective)(BATCH)
    assert outcome.loss.tolist() == pytest.approx(expected, rel=1e-4)
    assert outcome.loss.requires_grad
    assert outcome.sums["loss"] == pytest.approx(sum(expected), rel=1e-4)


@pytest.mark.parametrize("muffin", [False, True])
def test_segments_weigh_tokens_of_every_comparison(moved, muffin):
    """DDPO by hand, whole rows with the prompt's own ids; each rejected answer is compared with the chosen one."""
    policy, reference, start = moved
    segments = Segments(3.0, average=False, muffin_compat=muffin)
    one = replace(averaged(1), rejected=(Answer(REJECTED), Answer("The image. A cat.")))
    before = policy.encoder.prompt(one.prompt).ids
    encoded = [policy.encoder.answer(one.prompt, answer) for answer in one.group.answers]

    def weights_of(k, before=before):
        rows = {"chosen": encoded[0], "rejected": encoded[k]}
        ids = {f"{side}_ids": (*before, *answer.ids) for side, answer in rows.items()}
        flags = {f"{side}_answer": (*[False] * len(before), *answer.supervised) for side, answer in rows.items()}
        return segments.weights(**ids, **flags)

    assert {1.0, 3.0} == set(weights_of(1).chosen.tolist())
    assert weights_of(1).chosen.tolist() != weights_of(2).chosen.tolist()
    assert (weights_of(2).chosen.tolist() != weights_of(2, before=(0,)).chosen.tolist()) == muffin
    counts = [sum(answer.supervised) for answer in encoded]
    for k, ours in enumerate(Segmented(segments).weights(policy, one, counts), start=1):
        assert [side.tolist() for side in ours] == [side.tolist() for side in weights_of(k)]
    values = Dpo(0.2)(by_hand(policy, start, one, weights_of))
    loss = PreferenceStep(policy, reference, Dpo(0.2), Segmented(segments))([pair(0), one]).loss
    assert loss[1].item() == pytest.approx((values @ torch.tensor(one.weights)).item(), rel=1e-4)


def test_reductions_that_must_agree(moved):
    policy, reference, _ = moved
    mixed = [*BATCH, spoiled(4)]

    def losses(reduction, objective=Rpo(0.2, 0.5)):  # noqa: B008
        return PreferenceStep(policy, reference, objective, reduction)(mixed).loss

    for compat in (False, True):
        flat = Segments(1.0, average=False, muffin_compat=compat)
        assert torch.equal(losses(Segmented(flat)), losses(Sum()))
        torch.testing.assert_close(losses(Segmented(replace(flat, average=True))), losses(Mean()))
    assert not torch.allclose(losses(Segmented(Segments(2.0, average=False))), losses(Sum()))
    assert not torch.allclose(losses(Mean()), losses(Sum()))


def test_ipo_over_the_mean_is_over_log_probs_per_token(moved):
    policy, reference, start = moved
    (one,) = [pair(0)]
    margins = [(alone(policy, one, k) - alone(start, one, k)).mean().item() for k in range(2)]
    loss = PreferenceStep(policy, reference, Ipo(0.5), Mean())([one]).loss
    assert loss.item() == pytest.approx((margins[0] - margins[1] - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=["sum", "mean", "segments", "muffin"])
def test_policy_and_reference_take_the_same_weights(reduction):
    """Before the first step they are one model, so every log-ratio is 0 whatever the weights are."""
    policy = tiny_policy()
    outcome = PreferenceStep(policy, Reference(policy, mode="frozen_copy"), Dpo(0.5), reduction)(BATCH)
    assert outcome.loss.tolist() == pytest.approx([math.log(2)] * len(BATCH), abs=1e-5)


@pytest.mark.parametrize("objective", [Rpo(0.2, 0.7), CalibratedSlic(1.0, 0.5), Mdpo(0.2)], ids=["rpo", "slic", "mdpo"])
def test_terms_of_the_chosen_answer_count_once(moved, objective):
    """Two rejected answers that are the same one, however weighed, are one rejected answer."""
    policy, reference, _ = moved
    single = spoiled(0)
    double = replace(single, rejected=single.rejected * 2, weights=(0.25, 0.75))
    step = PreferenceStep(policy, reference, objective)
    torch.testing.assert_close(step([double]).loss, step([single]).loss)
    other = replace(double, rejected=(*single.rejected, Answer("A cat.")))
    extra = (
        step([other]).loss - PreferenceStep(policy, reference, replace(objective, **_without(objective)))([other]).loss
    )
    alone = (
        step([single]).loss
        - PreferenceStep(policy, reference, replace(objective, **_without(objective)))([single]).loss
    )
    torch.testing.assert_close(extra, alone, rtol=1e-3, atol=1e-5)
    assert alone.item() > 0.1


def _without(objective):
    """The settings that switch terms of the chosen answer off."""
    return {"image_weight": 0.0, "anchor_weight": 0.0} if isinstance(objective, Mdpo) else {"sft_weight": 0.0}


def test_mdpo_is_its_three_terms(moved):
    policy, reference, start = moved
    pairs = [spoiled(0), replace(spoiled(1, other=51), chosen=Answer("A sheep.")), averaged_and_spoiled(2)]
    losses = PreferenceStep(policy, reference, Mdpo(0.5))(pairs).loss
    zero = torch.zeros(1)
    for one, loss in zip(pairs, losses, strict=True):
        seen = replace(one, prompt=rejected_pictures(one))
        chosen, *rejected = (ratio(policy, start, one, k) for k in range(len(one.group.answers)))
        text = sum(w * dpo(chosen, r, beta=0.5) for w, r in zip(one.weights, rejected, strict=True))
        terms = text, dpo(chosen, ratio(policy, start, seen, 0), beta=0.5), dpo(chosen, zero, beta=0.5)
        assert loss.item() == pytest.approx(sum(terms).item(), rel=1e-4)


def ratio(policy, start, one, k):
    """(1,) log-ratio of answer k, scored by itself."""
    return (alone(policy, one, k) - alone(start, one, k)).sum()[None]


def test_the_picture_term_sees_the_pictures(moved):
    policy, reference, _ = moved
    step = PreferenceStep(policy, reference, Mdpo(0.5))
    one = spoiled(0)
    assert abs(step([one]).sums["loss"] - step([spoiled(0, other=51)]).sums["loss"]) > 1e-6
    same = step([replace(one, rejected_images=one.prompt.images)])
    assert same.sums["picture_margin_mean"] == pytest.approx(0, abs=1e-4)
    silent = PreferenceStep(policy, reference, Mdpo(0.5, image_weight=0.0))(
        [replace(one, rejected_images=one.prompt.images)]
    )
    assert (same.loss - silent.loss).item() == pytest.approx(math.log(2), abs=1e-4)
    policy.model.zero_grad()
    step([one]).loss.sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in policy.trainable().items() if policy.is_projector(n)
    )
    policy.model.zero_grad()


def test_a_contrast_of_ones_own(moved):
    """Another way to spoil a picture; any objective then reports how much the picture matters."""
    policy, reference, _ = moved

    def swapped(one):
        return replace(one.prompt, images=(picture(50),))

    named = PreferenceStep(policy, reference, Mdpo(0.5))([spoiled(0)])
    ours = PreferenceStep(policy, reference, Mdpo(0.5), contrast=swapped)([replace(pair(0), origin="spoiled")])
    assert torch.equal(named.loss, ours.loss)
    assert named.sums == ours.sums
    plain = PreferenceStep(policy, reference, Dpo(0.5))([pair(0)])
    watched = PreferenceStep(policy, reference, Dpo(0.5), contrast=swapped)([pair(0)])
    torch.testing.assert_close(plain.loss, watched.loss)
    assert watched.sums["picture_margin_mean"] == pytest.approx(named.sums["picture_margin_mean"], rel=1e-4)
    assert plain.sums.keys() == watched.sums.keys() - {"picture_margin_mean", "picture_accuracy"}
    assert plain.sums["num_tokens"] == watched.sums["num_tokens"]


@pytest.mark.parametrize("images", [(), (picture(1), picture(2))])
def test_mdpo_wants_as_many_rejected_pictures(moved, images):
    policy, reference, _ = moved
    with pytest.raises(
        UserError, match=rf"row row0: found {len(images)} rejected pictures beside 1, accepted: as many"
    ):
        PreferenceStep(policy, reference, Mdpo())([replace(pair(0), rejected_images=images)])


def test_a_group_is_one_row_whatever_is_asked_of_it(moved):
    policy, reference, _ = moved
    assert len(PreferenceStep(policy, reference, Dpo()).groups([averaged(0)])) == 1
    own, extra = PreferenceStep(policy, reference, Mdpo()).groups([replace(averaged(0), rejected_images=(picture(9),))])
    assert len(own.answers) == 3
    assert (len(extra.answers), extra.prompt.images) == (1, (picture(9),))


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=["sum", "mean", "segments", "muffin"])
def test_reference_free_is_a_reference_of_zeros(moved, reduction):
    policy, _, _ = moved
    zeros = NoReference(policy).score([one.group for one in BATCH])
    scores = policy.score([one.group for one in BATCH])
    assert [tensor.shape for tensor in zeros] == [tensor.shape for tensor in scores]
    assert zeros.num_tokens.tolist() == scores.num_tokens.tolist()
    assert not zeros.token_logp.any()
    outcome = PreferenceStep(policy, NoReference(policy), Dpo(0.2), reduction)(BATCH)
    free = PreferenceStep(policy, NoReference(policy), CalibratedSlic(1.0, 0.0), reduction)(BATCH)
    anything = PreferenceStep(policy, Reference(policy, mode="frozen_copy"), CalibratedSlic(1.0, 0.0), reduction)(BATCH)
    assert torch.equal(free.loss, anything.loss)  # the calibrated form looks at no reference
    assert outcome.sums["chosen_logratio_sum"] == pytest.approx(
        sum(alone(policy, one, 0).sum().item() for one in BATCH), rel=1e-4
    )


@pytest.mark.parametrize("weights", [(), (0.5,), (1.0, 1.0)])
def test_weights_must_fit(moved, weights):
    policy, reference, _ = moved
    with pytest.raises(AssertionError, match="weight"):
        PreferenceStep(policy, reference, Dpo())([replace(pair(0), weights=weights)])
