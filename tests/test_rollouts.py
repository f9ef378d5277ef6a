"""Rollouts: drawn once per prompt, rated, scored as the step scores them; RLOO and PPO learn from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tiny import pair, prompt, tiny_policy
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.models.value import SharedValue
from verisight.objectives.policy_gradient import AdaptiveKL
from verisight.sources.advantages import Generalised, LeaveOneOut
from verisight.sources.offline import Offline
from verisight.sources.replayed import Replayed, from_row, to_json, weighted
from verisight.sources.rollouts import Drawing, Rollouts
from verisight.train.rollout import Ppo, Rloo, RolloutStep
from verisight.types import Answer, Decoding, Group

PAIRS = [pair(i) for i in range(5)]
LORA = LoraSettings(4, 8)
DRAWING = Drawing(Decoding(8, temperature=1.0), num=3, batch_size=2)


class Letters:
    """Rewards the letter e, so that something can be learnt without a picture."""

    name = "letters"

    def rate(self, groups):
        return [[one.text.count("e") / 4 for one in group.answers] for group in groups]


def tuned(seed=0):
    policy = tiny_policy(seed=seed)
    policy.tune(LORA, train_projector=False, seed=1)
    return policy


def drawn_from(policy, *, ppo=False, beta=0.1, drawing=DRAWING, target=None, reference=None):
    critic = SharedValue(policy) if ppo else None
    estimate = Generalised() if ppo else LeaveOneOut()
    source = Rollouts(
        Offline(PAIRS, seed=0), Letters(), reference or Reference(policy, mode="adapter_off"), estimate,
        beta=AdaptiveKL(beta, target, 1000), drawing=drawing, seed=3, critic=critic, stream="source",
    )  # fmt: skip
    return source, critic


def moved(policy):
    """The policy away from its reference."""
    with torch.no_grad():
        for index, (_, weight) in enumerate(sorted(policy.trainable().items())):
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
    return policy


def test_rollouts_hold_what_policy_and_reference_say_of_the_drawn_tokens():
    policy = moved(tuned())
    source, _ = drawn_from(policy)
    rollouts = source.draw(3, policy)
    reference = Reference(policy, mode="adapter_off")
    for rollout in rollouts:
        assert len(rollout.rated) == 3
        with torch.no_grad():
            scores, other = policy.score([rollout.group]), reference.score([rollout.group])
        ref_rows = other.token_logp.split(scores.num_tokens.tolist())
        for one, row, ref in zip(
            rollout.rated, scores.token_logp.split(scores.num_tokens.tolist()), ref_rows, strict=True
        ):
            assert one.logp == pytest.approx(row.tolist(), abs=1e-5)
            assert one.ref_logp == pytest.approx(ref.tolist(), abs=1e-5)
            assert one.reward == one.answer.text.count("e") / 4
            assert one.truncated == (one.answer.token_ids[-1] not in policy.encoder.end_ids)
            assert len(set(one.advantages)) == 1
    assert rollouts[0].rated[0].logp != rollouts[0].rated[0].ref_logp


def test_the_advantage_is_reward_less_kl_less_the_others():
    policy = moved(tuned())
    [rollout] = drawn_from(policy, beta=0.3)[0].draw(1, policy)
    worth = [one.reward - 0.3 * (sum(one.logp) - sum(one.ref_logp)) for one in rollout.rated]
    for k, one in enumerate(rollout.rated):
        others = [value for j, value in enumerate(worth) if j != k]
        assert one.advantages[0] == pytest.approx(worth[k] - sum(others) / 2, abs=1e-5)


def test_answers_that_were_cut_off_pay_the_penalty():
    policy = tuned()
    plain = drawn_from(policy)[0].draw(3, policy)
    paid = drawn_from(policy, drawing=replace(DRAWING, truncated_penalty=2.0))[0].draw(3, policy)
    rated = [(a, b) for one, two in zip(plain, paid, strict=True) for a, b in zip(one.rated, two.rated, strict=True)]
    assert any(a.truncated for a, _ in rated)
    assert all(b.reward == pytest.approx(a.reward - 2.0 * a.truncated) for a, b in rated)


def gradients(policy, step, rollouts, *, size, also=()):
    for start in range(0, len(rollouts), size):
        (step(rollouts[start : start + size]).loss.sum() / len(rollouts)).backward()
    weights = policy.trainable() | dict(also)
    found = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
    return found


@pytest.mark.parametrize("ppo", [False, True])
def test_the_gradient_does_not_depend_on_the_micro_batch(ppo):
    policy = moved(tuned())
    source, critic = drawn_from(policy, ppo=ppo)
    rollouts = weighted(source.draw(5, policy))
    objective = Ppo(entropy_weight=0.1) if ppo else Rloo()
    step = RolloutStep(policy, Reference(policy, mode="adapter_off"), objective, critic)
    also = critic.trainable() if critic else {}
    whole = gradients(policy, step, rollouts, size=5, also=also)
    assert whole
    for size in (1, 2):
        part = gradients(policy, step, rollouts, size=size, also=also)
        for name, one in whole.items():
            torch.testing.assert_close(part[name], one, atol=1e-5, rtol=1e-3)


def test_rloo_is_reinforce_where_the_policy_drew_itself():
    """On policy all ratios are 1: the gradient is that of -A log pi, mean over answers and prompts."""
    policy = moved(tuned())
    rollouts = drawn_from(policy)[0].draw(4, policy)
    reference = Reference(policy, mode="adapter_off")
    clipped, plain, token = (
        gradients(policy, RolloutStep(policy, reference, one), rollouts, size=4)
        for one in (Rloo(), Rloo(clip=None), Rloo(ratio="token"))
    )
    scores = policy.score([rollout.group for rollout in rollouts])
    advantages = torch.tensor([one.advantages[0] for rollout in rollouts for one in rollout.rated])
    (-(advantages * scores.logp_sum).sum() / len(advantages)).backward()
    for name, weight in policy.trainable().items():
        for found in (clipped, plain, token):
            torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-3)


def test_ppo_is_the_mean_over_the_tokens_of_the_minibatch():
    policy = moved(tuned())
    source, critic = drawn_from(policy, ppo=True)
    rollouts = weighted(source.draw(4, policy))
    step = RolloutStep(policy, Reference(policy, mode="adapter_off"), Ppo(), critic)
    outcome = step(rollouts)
    rated = [one for rollout in rollouts for one in rollout.rated]
    tokens = [(a, r, v) for one in rated for a, r, v in zip(one.advantages, one.returns, one.values, strict=True)]
    expected = sum(-a + 0.1 * (v - r) ** 2 / 2 for a, r, v in tokens) / len(tokens)
    assert float(outcome.loss.detach().mean()) == pytest.approx(expected, abs=1e-5)
    assert sum(a for a, _, _ in tokens) == pytest.approx(0, abs=1e-4)
    assert outcome.sums["clipped_fraction"] == 0
    assert outcome.sums["ratio_kl_sum"] == pytest.approx(0, abs=1e-5)


def test_entropy_is_that_of_the_next_token():
    policy = tuned()
    group = Group(prompt(0), (Answer("There is a dog."),))
    states = policy.read([group])
    logp = policy.network.logits(states.before).log_softmax(-1)
    torch.testing.assert_close(policy.entropy(states), -(logp.exp() * logp).sum(-1))


def test_replayed_rollouts_come_once_an_epoch_and_the_policy_draws_only_then():
    policy = tuned()
    source = Replayed(drawn_from(policy)[0], minibatches=2, epochs=3, seed=0)
    steps = [source.draw(2, policy) for _ in range(7)]
    names = [[one.prompt.uid for one in step] for step in steps]
    epochs = [sorted(names[2 * e] + names[2 * e + 1]) for e in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(set(map(tuple, names[:6]))) > 2
    texts = [{one.answer.text for rollout in step for one in rollout.rated} for step in steps]
    assert texts[0] | texts[1] == texts[4] | texts[5]
    assert texts[6] - texts[0] - texts[1]
    for step in steps:
        num_tokens = sum(len(one.logp) for rollout in step for one in rollout.rated)
        assert step[0].token_weight == len(step) / num_tokens


@pytest.mark.parametrize("ppo", [False, True])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_source_continues_mid_stream(ppo, after):
    """A new source with the state, through JSON, draws what the old one goes on to draw."""
    policy = tuned()
    first, again = (
        Replayed(drawn_from(policy, ppo=ppo, target=0.5)[0], minibatches=2, epochs=2, seed=0) for _ in range(2)
    )
    for _ in range(after):
        first.draw(2, policy)
    moved(policy)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [again.draw(2, policy) for _ in range(5)] == [first.draw(2, policy) for _ in range(5)]
    assert again.state_dict() == first.state_dict()
    assert again.facts() == first.facts()


def test_rollouts_survive_json():
    policy = tuned()
    for ppo in (False, True):
        for one in drawn_from(policy, ppo=ppo)[0].draw(2, policy):
            assert from_row(json.loads(json.dumps(to_json(one)))) == one


def test_the_kls_weight_is_steered():
    policy = moved(tuned())
    source, _ = drawn_from(policy, target=1e-3, beta=0.1)
    source.draw(3, policy)
    assert source.facts()["beta"] == 0.1
    source.draw(3, policy)
    assert source.facts()["beta"] == pytest.approx(0.1 * (1 + 0.2 * 9 / 1000), rel=1e-9), "9 answers of 3 prompts"
    assert set(source.seconds()) == {"sampling", "rewards", "scoring"}


@pytest.mark.parametrize("ppo", [False, True])
def test_rewards_go_up(ppo):
    policy = tiny_policy()
    policy.tune(None, train_projector=False)
    drawing = replace(DRAWING, num=8)
    reference = Reference(policy, mode="frozen_copy")
    source, critic = drawn_from(policy, ppo=ppo, beta=0.0, drawing=drawing, reference=reference)
    replayed = Replayed(source, minibatches=1, epochs=2 if ppo else 1, seed=0)
    step = RolloutStep(policy, reference, Ppo() if ppo else Rloo(), critic)
    weights = policy.trainable() | (critic.trainable() if critic else {})
    optimizer = torch.optim.AdamW(weights.values(), lr=5e-3)
    rewards = []
    for _ in range(40 if ppo else 20):
        outcome = step(replayed.draw(5, policy))
        outcome.loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        rewards.append(outcome.sums["reward"] / 5)
    assert sum(rewards[-3:]) / 3 > 1.5 * sum(rewards[:2]) / 2 + 0.1


def test_the_drift_is_the_kl_from_the_policy_that_drew():
    """E over old draws of new/old - 1 - log(new/old), summed over tokens: not of the policies the other way round."""
    policy = tuned()
    rollouts = drawn_from(policy)[0].draw(4, policy)
    moved(policy)
    outcome = RolloutStep(policy, Reference(policy, mode="adapter_off"), Rloo())(rollouts)
    with torch.no_grad():
        scores = policy.score([rollout.group for rollout in rollouts])
    expected, rows = 0.0, iter(scores.token_logp.split(scores.num_tokens.tolist()))
    for rollout in rollouts:
        for one in rollout.rated:
            ratio = next(rows) - torch.tensor(one.logp)
            expected += float((ratio.exp() - 1 - ratio).sum()) / len(rollout.rated)
    assert outcome.sums["ratio_kl_sum"] == pytest.approx(expected, rel=1e-3)
