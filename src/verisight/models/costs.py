"""What training a model costs, before any of its weights are read: FLOPs and memory, from its modules' sizes.

A multiply-add is two FLOPs; only matrix products and convolutions count. Backward: the gradient of a product's input
costs its forward once more, so does that of its weight if it trains. Bytes are those of the tensors training needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import nn

from verisight.models.families import Family
from verisight.models.logprobs import CHUNK_ELEMENTS
from verisight.models.stores import Recent

BYTES = {"float32": 4, "bfloat16": 2}
CONTEXT, SLACK = 3 << 28, 0.1  # bytes a device keeps for itself and its libraries; share of the rest: fragmentation


class Kernel(NamedTuple):
    """How attention is computed: the share of query-key pairs of a causal row, and what backward costs over forward."""

    causal: float = 0.5
    backward: float = 2.5  # scores once more, then the four products of the gradient


FLASH, MATH = Kernel(), Kernel(causal=1.0, backward=2.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """How the model is trained. `rank` 0 trains the language model in full; `reference` none: nothing is compared."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    rank: int = 128
    train_projector: bool = True
    checkpointing: bool = False
    reference: Literal["none", "adapter_off", "frozen_copy", "cached"] = "adapter_off"
    cached_features: bool = False
    micro_batch_size: int = 1

    @property
    def live_reference(self) -> bool:
        """Whether the reference is forwarded in every step."""
        return self.reference in ("adapter_off", "frozen_copy")


class Load(NamedTuple):
    """Token counts of one prompt and its answers."""

    prompt: int
    tower: tuple[int, ...]  # patches of every tile or picture that the tower attends within
    answers: tuple[int, ...]
    supervised: tuple[int, ...]  # of every answer, the tokens whose log-probs are wanted


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
    tower_attention: int  # widths of all layers' queries together
    tower_window: int  # patches a windowed layer attends within, 0: no such layers
    tower_full_fraction: float  # share of layers that attend to everything
    tower_states: int  # hidden states alive at the end of the tower
    num_class_tokens: int
    projector_linear: int
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

    def trainable(self, setup: Setup) -> int:
        """Weights that train."""
        projector = self.projector_weights if setup.train_projector else 0
        if setup.rank:
            return setup.rank * self.per_rank + projector
        return self.num_weights - self.tower_weights - self.projector_weights + projector


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
    full = tower.config.to_dict().get("fullatt_block_indexes")
    return Anatomy(
        num_weights=sum(weights.values()),
        tower_weights=sum(weights[name] for name in in_tower),
        projector_weights=sum(weights[name] for name in in_projector),
        patch=(patch[0], patch[1]),
        patch_linear=conv.weight.numel(),
        tower_linear=sum(m.weight.numel() for m in inner),
        tower_width=width,
        tower_inner=max(m.out_features for m in inner),
        tower_attention=sum(queries),
        tower_window=0 if full is None else (tower.config.window_size // patch[0]) ** 2,
        tower_full_fraction=1.0 if full is None else len(full) / len(queries),
        tower_states=len(queries) + 1 if family.cut == "tower" else 1,
        num_class_tokens=sum(name.endswith(("class_embedding", "cls_token")) for name in in_tower),
        projector_linear=sum(m.weight.numel() for m in bridges),
        projector_saved=sum(m.in_features + m.out_features for m in bridges) - bridges[-1].out_features,
        merge=bridges[0].in_features // width,
        hidden=language.config.hidden_size,
        head_linear=model.get_output_embeddings().weight.numel(),
        **_layers(language),
    )


def _linears(module: Any) -> Iterator[tuple[str, nn.Linear]]:
    return ((name, m) for name, m in module.named_modules() if isinstance(m, nn.Linear))


def _layers(language: Any) -> dict[str, int]:
    """Sizes of the decoder layers, which are all alike."""
    one = {name.rpartition(".")[2]: m.out_features for name, m in _linears(language.layers[0])}
    linears = [m for _, m in _linears(language.layers)]
    widths = {"q_norm": one["q_proj"], "k_norm": one["k_proj"]}
    norms = [name.rpartition(".")[2] for name, m in language.layers[0].named_modules() if "Norm" in type(m).__name__]
    return {
        "num_layers": len(language.layers),
        "layers_linear": sum(m.weight.numel() for m in linears),
        "per_rank": sum(m.in_features + m.out_features for m in linears),
        "query": one["q_proj"],
        "key": one["k_proj"],
        "inner": one["gate_proj"],
        "norms": sum(widths.get(name, language.config.hidden_size) for name in norms),
    }


class Flops(NamedTuple):
    """FLOPs of training on one prompt and its answers, summed over policy and reference."""

    vision: float  # tower and projector, of policy and reference, backward too
    forward: float
    backward: float
    recomputed: float  # by gradient checkpointing
    reference: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def standard(size: Anatomy, load: Load, setup: Setup, *, kernel: Kernel = FLASH) -> Flops:
    """What peers do: a row of its own for every answer, through policy and live reference, the head everywhere.

    Pictures pass the tower once per row and model. Rows are not padded.
    """
    parts = []
    for answer in load.answers:
        tokens = load.prompt + answer
        row = _row(size, tokens, kernel.causal * tokens**2, tokens, setup, kernel)
        models = 1 if setup.reference == "none" else 2
        vision = models * _tower(size, load) + _projector(size, load, setup, models=models)
        parts.append(Flops(vision, row.forward, row.backward, row.recomputed, row.reference if models == 2 else 0.0))
    return Flops(*(sum(values) for values in zip(*parts, strict=True)))


def shared(size: Anatomy, load: Load, setup: Setup, *, kernel: Kernel = FLASH) -> Flops:
    """What this package does: the prompt once for all its answers, the head on answer tokens, pictures once."""
    tail = sum(load.answers)
    tokens = load.prompt + tail
    pairs = kernel.causal * load.prompt**2 + tail * tokens
    row = _row(size, tokens, pairs, sum(load.supervised), setup, kernel)
    tower = 0.0 if setup.cached_features else _tower(size, load)
    vision = tower + _projector(size, load, setup, models=1 + setup.live_reference)
    return Flops(vision, row.forward, row.backward, row.recomputed, row.reference if setup.live_reference else 0.0)


def _row(size: Anatomy, tokens: int, pairs: float, head_tokens: int, setup: Setup, kernel: Kernel) -> Flops:
    """The language model on one row. `pairs`: query-key pairs that are computed; `head_tokens` meet the head."""
    base, adapters = 2.0 * tokens * size.layers_linear, 2.0 * tokens * setup.rank * size.per_rank
    attention = 4.0 * pairs * size.num_layers * size.query
    head = 2.0 * head_tokens * size.head_linear
    plain = base + attention + head
    if setup.rank:
        backward = base + 2 * adapters + kernel.backward * attention + head
        if not setup.train_projector:  # nobody needs the gradient of the row's embeddings
            backward -= 2.0 * tokens * size.hidden * (size.query + 2 * size.key + 3 * setup.rank)
    else:
        backward = 2 * base + kernel.backward * attention + 2 * head
    recomputed = base + adapters + attention if setup.checkpointing else 0.0
    return Flops(0.0, plain + adapters, backward, recomputed, plain)


def _tower(size: Anatomy, load: Load) -> float:
    """One pass of a prompt's pictures through the vision tower."""
    flops, full = 0.0, size.tower_full_fraction
    for patches in load.tower:
        tokens = patches + size.num_class_tokens
        seen = full * tokens + (1 - full) * min(tokens, size.tower_window)
        flops += 2.0 * (patches * size.patch_linear + tokens * size.tower_linear)
        flops += 4.0 * tokens * seen * size.tower_attention
    return flops


def _projector(size: Anatomy, load: Load, setup: Setup, *, models: int) -> float:
    forward = 2.0 * sum(load.tower) / size.merge * size.projector_linear
    return forward * (models + (2 if setup.train_projector else 0))


class Memory(NamedTuple):
    """Bytes on one device when they are most: all of `held`, the largest of `phases`, and an allowance."""

    held: dict[str, int]
    phases: tuple[dict[str, int], ...]  # one after the other
    allowance: int  # for what no formula here counts: CONTEXT, and SLACK of all the rest

    @property
    def peak(self) -> int:
        """All of it."""
        return sum(self.held.values()) + max(sum(phase.values()) for phase in self.phases) + self.allowance


def memory(size: Anatomy, loads: Sequence[Load], setup: Setup) -> Memory:
    """Memory of a micro batch in which every pair is the largest of `loads`."""
    element, num, trainable = BYTES[setup.dtype], setup.micro_batch_size, size.trainable(setup)
    frozen = element * (size.num_weights - (0 if setup.rank else trainable))
    held = {
        "weights that do not train": frozen,
        "weights that train, float32": 4 * trainable,
        "their gradients, float32": 4 * trainable,
        "their AdamW moments, float32": 8 * trainable,
    }
    if setup.reference == "frozen_copy":
        held["reference: a copy, tower shared"] = frozen + 4 * trainable - element * size.tower_weights
    logit = (3 * 4 + element) * size.head_linear // size.hidden  # made, in float32, log-softmax, its gradient
    most = (3 * 4 + element) * CHUNK_ELEMENTS
    rows = [(activations(size, load, setup), min(most, num * logit * sum(load.supervised))) for load in loads]
    worst, logits = max(rows, key=lambda row: num * row[0].kept + max(num * row[0].working, row[1]))
    scored = {"activations": num * worst.kept, "logits, or one layer's backward": max(num * worst.working, logits)}
    if setup.dtype == "bfloat16":
        scored["bfloat16 copies of weights that train"] = element * trainable
    phases = [scored, {"AdamW step": 4 * trainable}]
    if not setup.cached_features:
        tokens = max(sum(load.tower) + len(load.tower) * size.num_class_tokens for load in loads)
        layer = (size.tower_states + 4) * size.tower_width + 2 * size.tower_inner
        held["last pictures, kept"] = (
            element * size.tower_width * Recent().size * max(sum(load.tower) for load in loads)
        )
        phases.append({"vision tower at work": element * num * tokens * layer})
    counted = Memory(held, tuple(phases), 0)
    return counted._replace(allowance=CONTEXT + round(SLACK * counted.peak))


class Saved(NamedTuple):
    """Bytes of a backward pass: kept for it from the forward one, and those at work in it, one layer at a time."""

    kept: int
    working: int


def activations(size: Anatomy, load: Load, setup: Setup) -> Saved:
    """What the backward pass over one prompt with its answers needs, logits aside.

    With checkpointing only the input of every layer is kept, the rest made again. Under mixed precision every trained
    linear layer makes its own bfloat16 copy of its input.
    """
    tokens, element = load.prompt + sum(load.answers), BYTES[setup.dtype]
    norms = 4 if setup.rank else 8  # float32; a norm that trains keeps its result before the scale as well
    readers = 5 if setup.dtype == "bfloat16" else 2  # q, k, v, gate and up, or one for q, k, v and one for gate, up
    attention, mlp = 3 * size.query + 2 * size.key, 4 * size.inner  # with the inputs of o_proj and down_proj
    layer = norms * size.norms + element * (readers * size.hidden + attention + mlp + 7 * setup.rank)
    stream = size.hidden * (element if setup.rank else 4)
    projected = element * sum(load.tower) // size.merge * size.projector_saved if setup.train_projector else 0
    kept = size.num_layers * (stream if setup.checkpointing else layer) + stream + norms * size.hidden
    working = element * (3 * size.inner + 2 * size.hidden) + (layer if setup.checkpointing else 0)
    return Saved(tokens * kept + projected, tokens * working)
