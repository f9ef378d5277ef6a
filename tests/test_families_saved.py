"""Every model family through its folder: written, opened again, with and without an adapter."""

import pytest
import torch

from test_families import GROUPS
from verisight.models.loading import check_model, load_model
from verisight.models.policy import Policy
from verisight.models.tuning import LoraSettings
from zoo import FAMILIES, tiny


def logp(policy):
    with torch.no_grad():
        return policy.score(GROUPS).logp_sum


def moved(policy):
    """The policy with all its trained weights changed a little."""
    with torch.no_grad():
        for name, weight in policy.trainable().items():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    return policy


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_the_same_after_saving(family, tmp_path):
    base = tiny(family)
    base.save(tmp_path / "base")
    check_model(str(tmp_path / "base"))
    opened = Policy(*load_model(str(tmp_path / "base"), dtype="float32"))
    assert torch.equal(logp(opened), logp(base))

    for name, lora in (
        ("full", None),
        ("language", LoraSettings(2, 4)),
        ("all", LoraSettings(2, 4, targets="all")),
    ):
        policy = Policy(*load_model(str(tmp_path / "base"), dtype="float32"))
        policy.tune(lora, train_projector=name != "all", base_name=str(tmp_path / "base"))
        moved(policy).save(tmp_path / name)
        again = Policy(*load_model(str(tmp_path / name), dtype="float32"))
        torch.testing.assert_close(logp(again), logp(policy), atol=1e-4, rtol=1e-5)
        assert (logp(again) - logp(base)).abs().max() > 0.01
        again.tune(LoraSettings(2, 4), train_projector=True)  # what was opened becomes part of the weights
        torch.testing.assert_close(logp(again), logp(policy), atol=1e-3, rtol=1e-4)
