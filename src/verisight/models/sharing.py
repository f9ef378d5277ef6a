"""Several networks over one set of frozen weights: policy, reference, reward and value models hold their base once."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from verisight.models.loading import base_of, quiet_peft
from verisight.models.policy import Policy


def shared_copy(policy: Policy) -> Any:
    """Another model, without the policy's adapter: what does not train is the same tensors, what trains is copied.

    Both have modules of their own, so nothing is switched between them. Of a policy with an adapter all of the base is
    shared; with full tuning only what stays frozen, the vision tower, can be.
    """
    kept = {id(weight): weight for weight in policy.model.parameters() if not weight.requires_grad}
    kept |= {id(buffer): buffer for buffer in policy.model.buffers()}
    copied = deepcopy(policy.model, kept)
    return copied.unload() if policy.has_adapter else copied


def names_base(folder: Path, path: str) -> bool:
    """Whether `folder` is an adapter on the model `path`, which is no adapter itself."""
    if not (folder / "adapter_config.json").is_file() or (Path(path) / "adapter_config.json").is_file():
        return False
    base = base_of(folder)
    return base == path or (Path(base).is_dir() and Path(path).is_dir() and Path(base).samefile(path))


def open_adapter(policy: Policy, folder: Path) -> Any:
    """The adapter in `folder` on the policy's base, which is held once for both. `names_base` says whether it fits."""
    from peft import PeftModel

    with quiet_peft():
        return PeftModel.from_pretrained(shared_copy(policy), str(folder)).eval()
