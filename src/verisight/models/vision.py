"""Pictures: decoded and preprocessed once, through the frozen vision tower once, then projected as often as needed.

The projector trains, so what may be kept is the tower's output in front of it. A forward with kept output runs the
model's own code; only the tower (or its blocks) answers from what was kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from verisight.models.encoding import EncodedPrompt, Encoder
from verisight.models.families import Family
from verisight.models.stores import Look, Recent, Store, chunks
from verisight.types import Prompt

TOWER_PIXELS = 1 << 24  # numbers of `pixel_values` through the tower in one call: 49 tiles of 336 x 336


class Features(NamedTuple):
    """What the language model gets of one prompt's pictures: (image tokens, width), and the same for deep layers."""

    vectors: Tensor
    deep: tuple[Tensor, ...] = ()

    def keep(self, flags: Tensor) -> Features:
        """Only the image tokens that are flagged. flags: (image tokens,) bool."""
        return Features(self.vectors[flags], tuple(layer[flags] for layer in self.deep))


@dataclass(frozen=True, slots=True)
class Vision:
    """Turns prompts into looks (ids and tower output), and looks into features. `frozen`: nothing of the tower trains.

    A policy and its reference share one: the tower is the same, the projectors are not. `store` keeps the looks, but
    for those at pictures of one use.
    """

    encoder: Encoder
    family: Family
    store: Store
    frozen: bool = True
    _passing: Store = field(default_factory=Recent)

    def look(self, core: Any, prompts: Sequence[Prompt]) -> list[Look]:
        """Encode prompts and pass their pictures through the tower, or take both from the store. No gradients."""
        keys = [self.encoder.key(prompt) for prompt in prompts]
        asked = dict(zip(keys, prompts, strict=True))
        found = {key: look for key, one in asked.items() if (look := self._kept(one).get(key)) is not None}
        missing = {key: prompt for key, prompt in asked.items() if key not in found}
        made = [_unseen(self.encoder.prompt(prompt), self.family) for prompt in missing.values()]
        if self.frozen:
            made = self._pass_tower(core, made)
        for key, look in zip(missing, made, strict=True):
            self._kept(missing[key]).put(key, look)
        found |= zip(missing, made, strict=True)
        return [found[key] for key in keys]

    def _kept(self, prompt: Prompt) -> Store:
        return self._passing if any(image.one_use for image in prompt.images) else self.store

    def project(self, core: Any, looks: Sequence[Look]) -> list[Features | None]:
        """Features of every look, None without pictures. Gradients follow the caller's mode."""
        features: list[Features | None] = [None] * len(looks)
        for members in _batches(looks):
            batch = [looks[i] for i in members]
            with _replayed(core, self.family, _joined([look.tower for look in batch])):
                output = core.model.get_image_features(**_inputs(core, batch))
            for i, one in zip(members, _split(output, [look.num_image_tokens for look in batch]), strict=True):
                features[i] = one
        return features

    def _pass_tower(self, core: Any, looks: list[Look]) -> list[Look]:
        done = list(looks)
        for members in _batches(looks):
            batch = [looks[i] for i in members]
            # no inference mode, even inside one: what is kept may be needed for a gradient later
            with torch.inference_mode(False), torch.no_grad(), _recorded(core, self.family) as outputs:
                core.model.get_image_features(**_inputs(core, batch))
            weights = [look.pixel_shape[0] for look in batch]
            shares = [output.split([len(output) * w // sum(weights) for w in weights]) for output in outputs]
            for place, i in enumerate(members):
                # cloned: a slice would keep the whole batch's output alive in the store
                kept = tuple(share[place].clone() for share in shares)
                done[i] = replace(looks[i], tower=kept, pixels=None)
        return done


def _unseen(encoded: EncodedPrompt, family: Family) -> Look:
    pixels = encoded.fields.get("pixel_values")
    fields = {name: encoded.fields[name] for name in family.fields if name in encoded.fields}
    fields |= {name: flags.bool() for name, flags in fields.items() if name.endswith("_mask")}
    shape = () if pixels is None else tuple(pixels.shape)
    return Look(encoded.ids, encoded.num_image_tokens, fields, shape, pixels)


def _batches(looks: Sequence[Look]) -> list[list[int]]:
    """Which looks with pictures go through the model together: equal shapes, no padding between pictures, no crowd."""
    batches: dict[Any, list[int]] = {}
    for i, look in enumerate(looks):
        if look.num_image_tokens:
            alone = i if len(look.pixel_shape) == 5 and look.pixel_shape[0] > 1 else None
            batches.setdefault((look.pixel_shape[1:], alone), []).append(i)
    sizes = [math.prod(look.pixel_shape) for look in looks]
    return [part for batch in batches.values() for part in chunks(batch, [sizes[i] for i in batch], TOWER_PIXELS)]


def _inputs(core: Any, looks: Sequence[Look]) -> dict[str, Tensor]:
    """Keyword arguments of `get_image_features`; without pixels, ones of their shape that take no memory."""
    names = looks[0].fields
    fields = {name: torch.cat([look.fields[name] for look in looks]).to(core.device) for name in names}
    pixels = [look.pixels for look in looks if look.pixels is not None]
    if pixels:
        return {"pixel_values": torch.cat(pixels).to(core.device, core.dtype), **fields}
    shape = (sum(look.pixel_shape[0] for look in looks), *looks[0].pixel_shape[1:])
    return {"pixel_values": torch.ones(1, dtype=core.dtype, device=core.device).expand(shape), **fields}


def _split(output: Any, num_tokens: Sequence[int]) -> list[Features]:
    layers = [output.pooler_output, *getattr(output, "deepstack_features", ())]
    flat = [torch.cat([part.reshape(-1, part.shape[-1]) for part in layer]).split(list(num_tokens)) for layer in layers]
    return [Features(vectors, tuple(deep)) for vectors, *deep in zip(*flat, strict=True)]


def _joined(towers: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*towers, strict=True))


class _Seen(Exception):
    """The tower is done: what follows in the model's code is not needed."""


@contextmanager
def _recorded(core: Any, family: Family) -> Iterator[list[Tensor]]:
    """Collects what the tower hands to the projector, and leaves the model's code there."""
    outputs: list[Tensor] = []
    tower = core.model.get_submodule(family.tower)
    blocks = _kept_blocks(tower) if family.cut == "blocks" else []

    def hook(_module: Any, _args: Any, output: Any) -> None:
        outputs.extend([output] if blocks else _selected(core, output))
        if len(outputs) >= len(blocks):
            raise _Seen

    modules = [tower.blocks[i] for i in blocks] or [tower]
    hooks = [module.register_forward_hook(hook) for module in modules]
    try:
        yield outputs
    except _Seen:
        pass
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def _replayed(core: Any, family: Family, outputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Lets the tower answer with kept outputs; with none of them it runs."""
    if not outputs:
        yield
        return
    tower = core.model.get_submodule(family.tower)
    outputs = tuple(output.to(core.device) for output in outputs)
    forwards: dict[Any, Callable[..., Any]] = {}
    if family.cut == "blocks":
        kept = dict(zip(_kept_blocks(tower), outputs, strict=True))
        forwards[tower.patch_embed] = lambda pixels: outputs[0].new_zeros(len(pixels), outputs[0].shape[-1])
        for i, block in enumerate(tower.blocks):
            forwards[block] = lambda hidden, *_, i=i, **__: kept.get(i, hidden)
    else:
        layers = dict(zip(_layers(core), outputs, strict=False))
        answer = BaseModelOutputWithPooling(last_hidden_state=outputs[0], hidden_states=layers)  # type: ignore
        forwards[tower] = lambda *_, **__: answer
    before = {module: vars(module).get("forward") for module in forwards}  # accelerate's hooks stand there too
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _kept_blocks(tower: Any) -> list[int]:
    deep = tower.config.to_dict().get("deepstack_visual_indexes", [])
    return sorted({*deep, len(tower.blocks) - 1})


def _layers(core: Any) -> tuple[int, ...]:
    """The hidden states a projector reads; none where it reads the tower's final output."""
    config = core.config.to_dict()
    layer = config.get("vision_feature_layer")
    if layer is None or (config["model_type"] == "internvl" and layer == -1):
        return ()
    return (layer,) if isinstance(layer, int) else tuple(layer)


def _selected(core: Any, output: Any) -> list[Tensor]:
    layers = _layers(core)
    return [output.hidden_states[layer] for layer in layers] if layers else [output.last_hidden_state]
