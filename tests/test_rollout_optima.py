"""RLOO and PPO, sampled and trained end to end, reach the optimum of reward less KL, which is known in closed form."""

from __future__ import annotations

import pytest
import torch

from tiny import pair, prompt, tiny_policy
from verisight.models.policy import Policy
from verisight.models.reference import Reference
from verisight.models.sharing import shared_copy
from verisight.models.value import SeparateValue, SharedValue
from verisight.objectives.policy_gradient import AdaptiveKL
from verisight.sources.advantages import Generalised, LeaveOneOut
from verisight.sources.offline import Offline
from verisight.sources.replayed import Replayed
from verisight.sources.rollouts import Drawing, Rollouts
from verisight.train.rollout import Ppo, Rloo, RolloutStep
from verisight.types import Answer, Decoding, Group

BETA = 0.5


class FirstLetters:
    """1 for an answer that begins with a letter of the first half of the alphabet, whatever it goes on with."""

    name = "letters"

    def rate(self, groups):
        return [[_worth(one.text) for one in group.answers] for group in groups]


def _worth(text):
    return float(text[:1].lower() in "abcdefghijklm" and bool(text))


def next_token(policy):
    """(vocabulary,) log-probs of an answer's first token."""
    with torch.no_grad():
        states = policy.read([Group(prompt(0), (Answer("A"),))])
        return policy.network.logits(states.before[:1]).log_softmax(-1)[0]


@pytest.mark.parametrize("kind", ["rloo", "rloo-token", "ppo-shared", "ppo-separate"])
def test_the_known_optimum_of_one_token_is_reached(kind):
    """Max of E[r] - beta KL(pi, ref) is beta log E_ref[exp(r / beta)], at pi = ref exp(r / beta) / Z."""
    policy = tiny_policy()
    policy.tune(None, train_projector=False)
    reference = Reference(policy, mode="frozen_copy")
    critic, objective, estimate = None, Rloo(ratio="token" if kind == "rloo-token" else "sequence"), LeaveOneOut()
    if kind.startswith("ppo"):
        critic, objective, estimate = SharedValue(policy), Ppo(value_weight=0.5), Generalised(whitened=False)
    if kind == "ppo-separate":
        network = Policy(shared_copy(policy), policy.encoder.processor)
        network.tune(None, train_projector=False)
        critic = SeparateValue(network, policy)
    drawing = Drawing(Decoding(1, temperature=1.0), num=256)
    source = Rollouts(
        Offline([pair(0)], seed=0), FirstLetters(), reference, estimate, beta=AdaptiveKL(BETA), drawing=drawing, seed=0,
        critic=critic,
    )  # fmt: skip
    replayed = Replayed(source, minibatches=1, epochs=2 if critic else 1, seed=0)
    step = RolloutStep(policy, reference, objective, critic)
    weights = policy.trainable() | (critic.trainable() if critic else {})
    optimizer = torch.optim.Adam(weights.values(), lr=3e-3)
    start = next_token(policy)
    reward = torch.tensor([_worth(policy.encoder.decode([i])) for i in range(len(start))])
    best = BETA * float(torch.logsumexp(start + reward / BETA, 0))

    def worth(logp):
        return float((logp.exp() * (reward - BETA * (logp - start))).sum())

    first = worth(start)
    for _ in range(60):
        step(replayed.draw(1, policy)).loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    found = worth(next_token(policy))
    assert first < best - 0.1
    assert best - 0.15 * (best - first) < found <= best + 1e-6
