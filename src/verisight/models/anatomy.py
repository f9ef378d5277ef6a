"""Sizes of a Hugging Face VLM, before any of its weights are read: what its costs are worked out from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from verisight.models.families import Family


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Sizes of a model. `_linear` counts weights of matrix products, each met once by every token (tile, patch)."""

    num_weights: int
    tower_weights: int
    projector_weights: int
    patch: tuple[int, int]  # pixels, height by width
    patch_linear: int
    tower_linear: int
    tower_width: int
    tower_inner: int
    tower_mlp: int  # elements per token that a layer's MLP keeps for the backward pass
    tower_attention: int  # widths of all layers' queries together
    tower_window: int  # patches a windowed layer attends within, 0: no such layers
    tower_full_fraction: float  # share of layers that attend to everything
    tower_states: int  # hidden states alive at the end of the tower
    tower_kept: int  # hidden states that the projector reads
    tower_trained_fraction: float  # share of layers in front of the last state that the projector reads
    tower_per_rank: int  # adapter weights per unit of rank
    tower_query: int  # outputs of a layer's q
    tower_readers: int  # linears that read a layer's input: one for q, k and v together, or three
    num_class_tokens: int
    projector_linear: int
    projector_per_rank: int
    projector_saved: int  # elements per projected vector
    merge: int  # patches per projected vector
    num_layers: int
    layers_linear: int
    per_rank: int  # adapter weights per unit of rank, all layers
    hidden: int
    query: int  # outputs of a layer's q_proj; below of its k_proj (or v_proj), of its gate_proj
    key: int
    inner: int
    norms: int  # elements per token that a layer's norms read
    head_linear: int


def read_anatomy(model: Any, family: Family) -> Anatomy:
    """Sizes of a Hugging Face VLM, on any device, without adapters."""
    tower, language = model.model.get_submodule(family.tower), model.model.get_submodule(family.language)
    is_projector = re.compile(rf"(^|\.){family.projector}\.")
    weights = {name: w.numel() for name, w in model.named_parameters()}
    in_projector = {name for name in weights if is_projector.search(name)}
    in_tower = {name for name in weights if f".{family.tower}." in name} - in_projector
    inner = [m for name, m in _linears(tower) if not is_projector.search(f".{family.tower}.{name}.")]
    bridges = [m for name, m in _linears(model) if is_projector.search(f"{name}.")]
    [conv] = [m for m in tower.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    width, patch = conv.out_channels, conv.kernel_size[-2:]
    queries = [m.out_features for name, m in _linears(tower) if name.endswith("q_proj")]
    queries = queries or [m.out_features // 3 for name, m in _linears(tower) if name.endswith("qkv")]
    gated = any(name.endswith("gate_proj") for name, _ in _linears(tower))
    in_mlp = 4 if gated else 3 if tower.config.hidden_act == "quick_gelu" else 2
    full = tower.config.to_dict().get("fullatt_block_indexes")
    kept = _kept_layers(model.config.to_dict(), num_layers=len(queries), blocks=family.cut == "blocks")
    together = 1 if family.cut == "blocks" else len(kept)  # several layers are read side by side, or one by one
    return Anatomy(
        num_weights=sum(weights.values()),
        tower_weights=sum(weights[name] for name in in_tower),
        projector_weights=sum(weights[name] for name in in_projector),
        patch=(patch[0], patch[1]),
        patch_linear=conv.weight.numel(),
        tower_linear=sum(m.weight.numel() for m in inner),
        tower_width=width,
        tower_inner=max(m.out_features for m in inner),
        tower_mlp=in_mlp * max(m.out_features for m in inner),
        tower_attention=sum(queries),
        tower_window=0 if full is None else (tower.config.window_size // patch[0]) ** 2,
        tower_full_fraction=1.0 if full is None else len(full) / len(queries),
        tower_states=len(queries) + 1 if family.cut == "tower" else 1,
        tower_kept=len(kept),
        tower_trained_fraction=max(kept) / len(queries),
        tower_per_rank=_per_rank(inner),
        tower_query=queries[0],
        tower_readers=3 if any(name.endswith("q_proj") for name, _ in _linears(tower)) else 1,
        num_class_tokens=sum(name.endswith(("class_embedding", "cls_token")) for name in in_tower),
        projector_linear=sum(m.weight.numel() for m in bridges),
        projector_per_rank=_per_rank(bridges),
        projector_saved=sum(m.in_features + m.out_features for m in bridges) - bridges[-1].out_features,
        merge=bridges[0].in_features // (width * together),
        hidden=language.config.hidden_size,
        head_linear=model.get_output_embeddings().weight.numel(),
        **_layers(language),
    )


def _linears(module: Any) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear))


def _per_rank(linears: Iterable[nn.Linear]) -> int:
    return sum(m.in_features + m.out_features for m in linears)


def _kept_layers(config: Mapping[str, Any], *, num_layers: int, blocks: bool) -> list[int]:
    """The hidden states a projector reads, 0 in front of the first layer."""
    if blocks:
        deep = config["vision_config"].get("deepstack_visual_indexes", ())
        return sorted({*(layer + 1 for layer in deep), num_layers})
    named = config.get("vision_feature_layer")
    if named is None:
        return [num_layers]
    return [layer % (num_layers + 1) for layer in ([named] if isinstance(named, int) else named)]


def _layers(language: Any) -> dict[str, int]:
    """Sizes of the decoder layers, which are all alike."""
    one = {name.rpartition(".")[2]: m.out_features for name, m in _linears(language.layers[0])}
    linears = [m for _, m in _linears(language.layers)]
    widths = {"q_norm": one["q_proj"], "k_norm": one["k_proj"]}
    norms = [name.rpartition(".")[2] for name, m in language.layers[0].named_modules() if "Norm" in type(m).__name__]
    return {
        "num_layers": len(language.layers),
        "layers_linear": sum(m.weight.numel() for m in linears),
        "per_rank": _per_rank(linears),
        "query": one["q_proj"],
        "key": one["k_proj"],
        "inner": one["gate_proj"],
        "norms": sum(widths.get(name, language.config.hidden_size) for name in norms),
    }
