"""RLOO and PPO, put together from the functions, reach optima that are known: bandits, a chain, short answers."""

from itertools import product

import pytest
import torch

from verisight.objectives.policy_gradient import (
    clipped,
    gae,
    kl_per_token,
    leave_one_out,
    masked_mean,
    masked_sum,
    ppo_policy,
    ppo_value,
    reinforce,
    token_rewards,
    whiten,
)

ARMS = torch.tensor([0.1, 0.5, 0.2, 1.0, 0.8, -0.3])
REFERENCE = torch.tensor([0.3, 0.2, 0.2, 0.05, 0.05, 0.2]).log()


def distance(probabilities, others):
    """Total variation, 0..1."""
    return (probabilities - others).abs().sum().item() / 2


def descend(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bandit(*, beta, ratio=None, steps=400, prompts=64, k=4):
    """RLOO from the reference on, the KL taken off the reward; with `ratio` each draw serves two clipped updates."""
    torch.manual_seed(0)
    logits = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    mask = torch.ones(prompts * k, 1, dtype=torch.bool)
    for _ in range(steps):
        old = logits.detach().log_softmax(0)
        drawn = torch.multinomial(old.exp(), prompts * k, replacement=True)
        rewards = ARMS[drawn] - beta * kl_per_token(old[drawn], REFERENCE[drawn], kind="k1")
        advantages = leave_one_out(rewards.view(prompts, k)).flatten()
        for _ in range(1 if ratio is None else 2):
            logp = logits.log_softmax(0)[drawn]
            if ratio is None:
                loss = reinforce(logp, advantages)
            else:
                loss = clipped(logp[:, None], old[drawn][:, None], advantages, mask, clip=0.2, ratio=ratio).loss
            descend(optimizer, loss.mean())
        decay.step()
    return logits.detach().softmax(0)


@pytest.mark.parametrize("ratio", [None, "sequence", "token"])
def test_rloo_finds_the_best_arm(ratio):
    """The reference gives it one in twenty."""
    assert bandit(beta=0.0, ratio=ratio)[3] > 0.97


@pytest.mark.parametrize("ratio", [None, "sequence"])
def test_rloo_with_kl_finds_the_tilted_reference(ratio):
    """The optimum of E[r] - beta KL(pi || pi_ref) is pi_ref exp(r / beta), normalised.

    There r - beta log pi/pi_ref is the same for every arm, so advantages are 0 and the noise of drawing is gone.
    """
    optimum = (REFERENCE + ARMS / 0.4).softmax(0)
    assert distance(optimum, REFERENCE.exp()) > 0.3
    assert distance(bandit(beta=0.4, ratio=ratio), optimum) < 1e-3


GAMMA = 0.95
SLIP = 0.1
ONWARD = torch.tensor([1, 0, 1, 1, 0])
CASH = torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7])
COST, PRIZE = -0.05, 2.0
LIMIT = 14


def value_iteration():
    """(5,) optimal values of the chain: the better of taking the cash and walking on, to a fixed point."""
    values = torch.zeros(6)
    for _ in range(500):
        ahead = values[1:].clone()
        walk = COST + (1 - SLIP) * (torch.tensor([0.0, 0, 0, 0, PRIZE]) + GAMMA * ahead) + SLIP * GAMMA * values[:5]
        values[:5] = torch.maximum(walk, CASH)
    return values[:5], walk > CASH


def walks(logits, num):
    """Trajectories as answers: states, actions, log-probs, rewards and the mask, all (num, LIMIT), padded right."""
    state, alive = torch.zeros(num, dtype=torch.long), torch.ones(num, dtype=torch.bool)
    columns = []
    for _ in range(LIMIT):
        logp = logits.log_softmax(1)[state]
        action = torch.multinomial(logp.exp(), 1).squeeze(1)
        onward = action == ONWARD[state]
        moved = onward & (torch.rand(num) >= SLIP)
        won = moved & (state == 4)
        reward = torch.where(onward, COST + PRIZE * won, CASH[state])
        columns.append((state, action, logp.gather(1, action[:, None]).squeeze(1), reward, alive))
        alive = alive & onward & ~won
        state = torch.where(moved & ~won, state + 1, state)
    return [torch.stack(column, 1) for column in zip(*columns, strict=True)]


def ppo(*, gamma, rounds=60, num=128, epochs=3, minibatch=64):
    """PPO with a table of logits and a table of values. Returns the policy, the values and the share clipped."""
    torch.manual_seed(0)
    logits, table = torch.zeros(5, 2, requires_grad=True), torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.05}, {"params": [table], "lr": 0.05}])
    shares = []
    for _ in range(rounds):
        states, actions, old_logp, rewards, mask = walks(logits.detach(), num)
        old_values = table.detach()[states]
        advantages, returns = gae(rewards, old_values, mask, gamma=gamma, lam=0.95)
        advantages = whiten(advantages, mask)
        for rows in (rows for _ in range(epochs) for rows in torch.randperm(num).split(minibatch)):
            logp = logits.log_softmax(1)[states[rows]].gather(2, actions[rows][..., None]).squeeze(2)
            policy = ppo_policy(logp, old_logp[rows], advantages[rows], mask[rows], clip=0.2)
            value = ppo_value(table[states[rows]], old_values[rows], returns[rows], mask[rows], clip=0.2)
            descend(optimizer, masked_mean(policy.loss + 0.5 * value.loss, mask[rows]))
            shares.append(masked_mean(policy.clipped.float(), mask[rows]).item())
    return logits.detach().softmax(1), table.detach(), shares


def test_ppo_walks_the_chain_to_its_end():
    """Walking on costs at every step but the last, so the greedy policy takes the first cash, 0.3 against 1.34."""
    values, walk = value_iteration()
    assert walk.all()
    assert values[0] > 3 * CASH[0]
    policy, table, shares = ppo(gamma=GAMMA)
    assert policy.gather(1, ONWARD[:, None]).min() > 0.95
    assert (table - values).abs().max() < 0.1
    assert 0 < sum(shares) / len(shares) < 0.3


def test_ppo_without_foresight_takes_the_cash():
    policy, table, _ = ppo(gamma=0.0)
    assert policy[0, ONWARD[0]] < 0.05
    assert table[0].item() == pytest.approx(CASH[0].item(), abs=0.05)


ANSWERS = [(0, None), *product((1, 2), range(3))]
WORTH = torch.tensor([0.2, 0.0, 1.0, -0.5, 0.6, -1.0, 0.3])


def answer_logp(tables):
    """(7,) log-probs of all answers: token 0 ends an answer, any other is followed by one more token."""
    logp = tables.log_softmax(1)
    return torch.stack([logp[0, a] if b is None else logp[0, a] + logp[a, b] for a, b in ANSWERS])


def ppo_on_answers(reference, *, beta, rounds=200, num=256, epochs=2):
    """PPO on answers of one or two tokens, the KL in the rewards of tokens. Returns the tables of logits."""
    torch.manual_seed(0)
    tables, values = reference.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [tables], "lr": 0.05}, {"params": [values], "lr": 0.1}])
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=rounds)
    number = {answer: i for i, answer in enumerate(ANSWERS)}
    for _ in range(rounds):
        old = tables.detach().log_softmax(1)
        first = torch.multinomial(old[0].exp(), num, replacement=True)
        second = torch.multinomial(old.exp()[first], 1).squeeze(1)
        mask = torch.stack([torch.ones_like(first, dtype=torch.bool), first > 0], 1)
        states = torch.stack([torch.zeros_like(first), first], 1)
        actions = torch.stack([first, second], 1)
        pairs = zip(first.tolist(), second.tolist(), strict=True)
        worth = WORTH[torch.tensor([number[a, b if a else None] for a, b in pairs])]
        kl = kl_per_token(old[states, actions], reference.log_softmax(1)[states, actions], kind="k1")
        rewards = token_rewards(worth, kl, mask, beta=beta)
        old_values = values.detach()[states]
        advantages, returns = gae(rewards, old_values, mask, gamma=1.0, lam=0.95)
        for rows in (rows for _ in range(epochs) for rows in torch.randperm(num).split(num // 2)):
            logp = tables.log_softmax(1)[states[rows], actions[rows]]
            policy = ppo_policy(logp, old[states, actions][rows], advantages[rows], mask[rows], clip=0.2)
            value = ppo_value(values[states[rows]], old_values[rows], returns[rows], mask[rows], clip=None)
            descend(optimizer, masked_sum(policy.loss + value.loss, mask[rows], -1).mean())
        decay.step()
    return tables.detach()


def test_ppo_with_kl_finds_the_tilted_reference_over_answers():
    """pi_ref(y) exp(r(y) / beta), normalised over the seven answers, of one and of two tokens."""
    reference = torch.tensor([[0.5, 0.0, -0.5], [0.0, -1.0, 1.0], [0.3, 0.0, -0.3]])
    optimum = (answer_logp(reference) + WORTH / 0.5).softmax(0)
    assert distance(optimum, answer_logp(reference).exp()) > 0.2
    assert distance(answer_logp(ppo_on_answers(reference, beta=0.5)).exp(), optimum) < 1e-3
