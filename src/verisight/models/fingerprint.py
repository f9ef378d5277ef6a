"""Fingerprints: what log-probs and tower outputs on disk depend on, one value a component: a change has a name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from verisight.models.policy import Policy

_ABOUT_THE_FILE = {"_name_or_path", "transformers_version", "architectures", "dtype"}  # of config.json, not the model


def reference_fingerprint(policy: Policy) -> dict[str, str]:
    """All that a reference log-prob depends on beside its prompt and answer, by name.

    The weights are those that `Reference` scores with before training: a freshly drawn adapter does not count, and of
    a projector that trains beside it the original does. An adapter folder the model was opened with is part of them:
    `tune` merges it. The device is not in it.
    """
    weights = starting_weights(policy)
    return {
        "weights": _digest_of_weights(weights),
        "dtype": ", ".join(sorted({_name(tensor.dtype) for tensor in weights.values()})),
        "scoring": f"{policy.scoring}, {_precision(policy)}",
    } | _surroundings(policy)


def tower_fingerprint(policy: Policy) -> str:
    """32 hex digits: all that the frozen tower's output for a picture depends on. The projector is none of it."""
    inside = f".{policy.family.tower}."
    tower = {
        name: tensor
        for name, tensor in starting_weights(policy).items()
        if inside in f".{name}" and not policy.is_projector(name)
    }
    precision = f"{_name(policy.core.dtype)}, {_precision(policy)}"
    parts = _surroundings(policy) | {"tower": _digest_of_weights(tower), "precision": precision}
    return _digest(json.dumps(parts, sort_keys=True))


def starting_weights(policy: Policy) -> dict[str, Tensor]:
    """The model's weights and buffers without what an adapter adds, by the names they have without one."""
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in policy.core.state_dict().items()
        if ".lora_" not in name and ".modules_to_save." not in name
    }


def _surroundings(policy: Policy) -> dict[str, str]:
    """What stands around the weights: how the model is built, and how text and pictures become its input."""
    processor, tokenizer = policy.encoder.processor, policy.encoder.tokenizer
    words = json.loads(tokenizer.backend_tokenizer.to_str())
    words |= {"padding": None, "truncation": None}  # left over from the last call
    return {
        "configuration": _digest(json.dumps(_about_the_model(policy.core.config.to_dict()), sort_keys=True)),
        "tokenizer": _digest(json.dumps(words, sort_keys=True)),
        "chat template": _digest(json.dumps(processor.chat_template)),
        "image processor": _digest(json.dumps(processor.to_dict(), sort_keys=True, default=str)),
    }


def _about_the_model(config: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _about_the_model(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _ABOUT_THE_FILE
    }


def _precision(policy: Policy) -> str:
    return "one number format" if policy.autocast is None else f"{_name(policy.autocast)} autocast"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _digest(text: str) -> str:
    return _joined([text.encode()])


def _digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    return _joined(part for name in sorted(weights) for part in _bytes(name, weights[name]))


def _bytes(name: str, tensor: Tensor) -> Iterable[Any]:
    yield f"{name} {_name(tensor.dtype)} {tuple(tensor.shape)}\n".encode()
    yield tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy()


def _joined(parts: Iterable[Any]) -> str:
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
