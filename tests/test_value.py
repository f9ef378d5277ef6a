"""Value functions and shared bases: the picture reaches every model, the base is held once, nothing leaks across."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tiny import CHOSEN, REJECTED, picture, prompt, tiny_policy
from verisight.models.policy import Policy
from verisight.models.reference import Reference
from verisight.models.reward import new_head, with_head
from verisight.models.sharing import names_base, open_adapter, shared_copy
from verisight.models.tuning import LoraSettings
from verisight.models.value import SeparateValue, SharedValue
from verisight.types import Answer, Decoding, Group
from zoo import FAMILIES, tiny

LORA = LoraSettings(4, 8)
ANSWERS = (Answer(CHOSEN), Answer(REJECTED))
GROUPS = [Group(prompt(i), ANSWERS) for i in range(2)]


def critic_of(kind, policy, tune=LORA):
    if kind == "shared":
        return SharedValue(policy)
    network = Policy(shared_copy(policy), policy.encoder.processor)
    network.tune(tune, train_projector=True, seed=7)
    return SeparateValue(network, policy)


def tuned(tune=LORA):
    policy = tiny_policy()
    policy.tune(tune, train_projector=True, seed=1)
    return policy


def spoken(critic, policy, groups=GROUPS):
    with torch.no_grad():
        return critic.values(groups, policy.read(groups))


def loud(critic):
    with torch.no_grad():
        for name, weight in critic.trainable().items():
            if name.startswith("value_head"):
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    return critic


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_values_start_at_0_and_are_one_a_token(kind):
    policy = tuned()
    critic = critic_of(kind, policy)
    values = spoken(critic, policy)
    assert values.tolist() == [0.0] * sum(policy.read(GROUPS).num_tokens)
    assert values.dtype == torch.float32
    assert not critic.trainable().keys() & policy.trainable().keys()


@pytest.mark.parametrize("kind", ["shared", "separate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_depend_on_the_picture(kind, family):
    policy = tiny(family)
    policy.tune(LORA, train_projector=False, seed=1)
    critic = loud(critic_of(kind, policy))
    seen = spoken(critic, policy)
    other = [Group(replace(one.prompt, images=(picture(9),)), one.answers) for one in GROUPS]
    removed = [Group(replace(one.prompt, images=()), one.answers) for one in GROUPS]
    assert (spoken(critic, policy, other) - seen).abs().min() > 1e-6
    assert (spoken(critic, policy, removed) - seen).abs().min() > 1e-6
    alone = torch.cat([spoken(critic, policy, [Group(one.prompt, (a,))]) for one in GROUPS for a in one.answers])
    torch.testing.assert_close(seen, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("who", ["policy", "reference", "copied reference", "reward", "shared value", "separate value"])
def test_the_image_guard(who):
    """Another picture, and none, change what every model of RLOO and PPO says of the same tokens."""
    policy = tuned()
    drawn = policy.sample([prompt(0)], decoding=Decoding(6, temperature=1.0), seed=0, num=2)[0]
    seen = Group(prompt(0), tuple(one.answer for one in drawn))
    speaks = {
        "policy": lambda group: policy.score([group]).token_logp,
        "reference": lambda group: Reference(policy, mode="adapter_off").score([group]).token_logp,
        "copied reference": lambda group: Reference(policy, mode="frozen_copy").score([group]).token_logp,
        "reward": lambda group: with_head(policy, new_head(policy, seed=0)).rewards([group]),
        "shared value": lambda group: loud(critic_of("shared", policy)).values([group], policy.read([group])),
        "separate value": lambda group: loud(critic_of("separate", policy)).values([group], policy.read([group])),
    }[who]
    with torch.no_grad():
        told = speaks(seen)
        for images in ((picture(9),), ()):
            assert (speaks(Group(replace(seen.prompt, images=images), seen.answers)) - told).abs().min() > 1e-6
        assert torch.equal(speaks(seen), told)


def test_a_separate_value_function_leaves_the_policy_alone_and_a_shared_one_does_not():
    for kind, reaches in (("shared", True), ("separate", False)):
        policy = tuned()
        critic = loud(critic_of(kind, policy))
        before = policy.score(GROUPS).logp_sum.detach()
        critic.values(GROUPS, policy.read(GROUPS)).square().mean().backward()
        assert any(weight.grad is not None for weight in policy.trainable().values()) == reaches
        optimizer = torch.optim.AdamW(critic.trainable().values(), lr=1e-2)
        optimizer.step()
        assert torch.equal(policy.score(GROUPS).logp_sum.detach(), before)


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_it_learns_what_is_to_come(kind):
    """The number of tokens left, from states: the loss falls to a fraction."""
    policy = tuned()
    critic = critic_of(kind, policy)
    left = torch.cat([torch.arange(num, 0, -1).float() / 10 for num in policy.read(GROUPS).num_tokens])
    optimizer = torch.optim.AdamW(critic.trainable().values(), lr=5e-2)
    losses = []
    for _ in range(30):
        loss = (critic.values(GROUPS, policy.read(GROUPS)) - left).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4


def storages(*models):
    """Bytes of every different storage that parameters of the models live in."""
    found = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in models for p in m.parameters()}
    return sum(found.values())


def test_the_base_is_held_once(tmp_path):
    """Policy, reference, reward and value model: the base once, and their adapters."""
    base, policy = tiny_policy(), tiny_policy()
    size = storages(base.model)
    other = tiny_policy()
    other.tune(LORA, train_projector=False, base_name="x", seed=5)
    policy.tune(LORA, train_projector=False, seed=1)
    adapter = storages(policy.model) - size
    assert 0 < adapter < size
    reference = Reference(policy, mode="adapter_off")
    critic = critic_of("separate", policy)
    other.save(tmp_path)
    reward = with_head(Policy(open_adapter(policy, tmp_path), policy.encoder.processor), new_head(policy, seed=0))
    held = storages(policy.model, reference._policy.model, critic.network.model, reward.model)
    with_projector = sum(p.numel() * 4 for n, p in critic.network.trainable().items() if "multi_modal" in n)
    assert held == size + 3 * adapter + with_projector
    alone = with_head(other, new_head(policy, seed=0))
    with torch.no_grad():
        assert torch.equal(reward.rewards(GROUPS), alone.rewards(GROUPS))


def test_a_copy_of_a_fully_tuned_policy_shares_the_tower_alone():
    policy = tuned(None)
    copied = shared_copy(policy)
    tower = storages(policy.core.model.get_submodule(policy.family.tower))
    assert storages(policy.model, copied) == 2 * storages(policy.model) - tower
    before = {name: weight.clone() for name, weight in copied.named_parameters()}
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(1)
    assert all(torch.equal(weight, before[name]) for name, weight in copied.named_parameters())


def test_a_copy_has_no_adapter_and_says_what_the_base_says():
    policy = tuned()
    copied = Policy(shared_copy(policy), policy.encoder.processor)
    assert not copied.has_adapter
    with torch.no_grad():
        expected = tiny_policy().score(GROUPS).logp_sum
        for weight in policy.trainable().values():
            weight.add_(0.1)
        assert torch.equal(copied.score(GROUPS).logp_sum, expected)
        assert not torch.equal(policy.score(GROUPS).logp_sum, expected)


def test_an_adapter_fits_the_base_it_names(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny_policy().save(base)
    policy = tiny_policy()
    policy.tune(LORA, train_projector=False, base_name=str(base), seed=1)
    policy.save(adapter)
    assert names_base(adapter, str(base))
    assert names_base(adapter, str(tmp_path / "adapter" / ".." / "base"))
    assert not names_base(adapter, "pocket")
    assert not names_base(base, str(base))
    assert not names_base(adapter, str(adapter))
