"""What training a model costs, before any of its weights are read: FLOPs, from its modules' sizes.

A multiply-add is two FLOPs; only matrix products and convolutions count. Backward: the gradient of a product's input
costs its forward once more, so does that of its weight if it trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from verisight.models.anatomy import Anatomy


class Kernel(NamedTuple):
    """How attention is computed: the share of query-key pairs of a causal row, and what backward costs over forward."""

    causal: float = 0.5
    backward: float = 2.5  # scores once more, then the four products of the gradient


FLASH, MATH = Kernel(), Kernel(causal=1.0, backward=2.0)


class Drawing(NamedTuple):
    """How answers are drawn and rated: `num` to a prompt of up to `max_new_tokens`, trained on `epochs` times.

    `rewards`: reward models with weights of their own, of the policy's size; `reward_adapters`: those on its base.
    """

    num: int
    max_new_tokens: int
    epochs: int = 1
    rewards: int = 0
    reward_adapters: int = 0
    value: Literal["none", "shared", "separate"] = "none"

    @property
    def readers(self) -> int:
        """Networks besides the reference that read a drawn answer: it is drawn, scored, rated and valued."""
        return 2 + self.rewards + self.reward_adapters + (self.value == "separate")


@dataclass(frozen=True, slots=True)
class Setup:
    """How the model is trained. `rank` 0 trains the language model in full; `reference` none: nothing is compared.

    `everywhere`: adapters on tower and projector too. `padded`: a row for every answer, all as long as the longest.
    `drawing`: answers are drawn and rated first (RLOO, PPO).
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    rank: int = 128
    train_projector: bool = True
    checkpointing: bool = False
    reference: Literal["none", "adapter_off", "frozen_copy", "cached"] = "adapter_off"
    cached_features: bool = False
    micro_batch_size: int = 1
    everywhere: bool = False
    padded: bool = False
    drawing: Drawing | None = None

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

    def num_tokens(self, setup: Setup) -> int:
        """Tokens that the language model reads."""
        if setup.padded:
            return len(self.answers) * (self.prompt + max(self.answers))
        return self.prompt + sum(self.answers)


def num_trainable(size: Anatomy, setup: Setup) -> int:
    """Weights that train."""
    projector = size.projector_weights if setup.train_projector else 0
    if setup.everywhere:
        return setup.rank * (size.per_rank + size.tower_per_rank + size.projector_per_rank)
    if setup.rank:
        return setup.rank * size.per_rank + projector
    return size.num_weights - size.tower_weights - size.projector_weights + projector


class Flops(NamedTuple):
    """FLOPs of training on one prompt and its answers, summed over policy and reference."""

    vision: float  # tower and projector, of policy and reference, backward too
    forward: float
    backward: float
    recomputed: float  # by gradient checkpointing
    reference: float
    drawing: float = 0.0  # answers are drawn, scored and rated, and read by a value function of its own

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def standard(size: Anatomy, load: Load, setup: Setup, *, kernel: Kernel = FLASH) -> Flops:
    """What peers do: a row of its own for every answer, through policy and live reference, the head everywhere.

    Pictures pass the tower once per row and model. Rows are not padded.
    """
    compared, setup = setup.reference != "none", replace(setup, cached_features=False)
    parts = []
    for answer in load.answers:
        tokens = load.prompt + answer
        row = _row(size, tokens, kernel.causal * tokens**2, tokens, setup, kernel)
        vision = _trained_vision(size, load, setup, kernel)
        vision += _tower(size, load) + _projector(size, load) if compared else 0.0
        parts.append(Flops(vision, row.forward, row.backward, row.recomputed, row.reference if compared else 0.0))
    return _with_drawing(Flops(*(sum(values) for values in zip(*parts, strict=True))), setup)


def _with_drawing(step: Flops, setup: Setup) -> Flops:
    """The step with its share of drawing: each reader reads what a forward of the step reads, once in `epochs` steps.

    So does the reference. A value function of its own is trained like the policy, its pictures' vectors aside.
    """
    if setup.drawing is None:
        return step
    drawn = setup.drawing.readers * step.forward / setup.drawing.epochs
    if setup.drawing.value == "separate":
        drawn += step.forward + step.backward + step.recomputed
    return step._replace(reference=step.reference / setup.drawing.epochs, drawing=drawn)


def shared(size: Anatomy, load: Load, setup: Setup, *, kernel: Kernel = FLASH) -> Flops:
    """What this package does: the prompt once for all its answers, the head on answer tokens, pictures once.

    With `padded` the prompt once for each answer, every row as long as the longest of this load.
    """
    tokens, tail = load.num_tokens(setup), sum(load.answers)
    pairs = kernel.causal * load.prompt**2 + tail * (load.prompt + tail)
    if setup.padded:
        pairs = kernel.causal * tokens**2 / len(load.answers)
    row = _row(size, tokens, pairs, sum(load.supervised), setup, kernel)
    vision = _trained_vision(size, load, setup, kernel)
    if setup.live_reference:
        vision += _projector(size, load)
        if setup.everywhere:
            copied = setup.reference == "frozen_copy"
            vision += _tower(size, load) + (_vision_adapters(size, load, setup) if copied else 0.0)
    reference = row.reference if setup.live_reference else 0.0
    return _with_drawing(Flops(vision, row.forward, row.backward, row.recomputed, reference), setup)


def _row(size: Anatomy, tokens: int, pairs: float, head_tokens: int, setup: Setup, kernel: Kernel) -> Flops:
    """The language model on one row. `pairs`: query-key pairs that are computed; `head_tokens` meet the head."""
    base, adapters = 2.0 * tokens * size.layers_linear, 2.0 * tokens * setup.rank * size.per_rank
    attention = 4.0 * pairs * size.num_layers * size.query
    head = 2.0 * head_tokens * size.head_linear
    plain = base + attention + head
    if setup.rank:
        backward = base + 2 * adapters + kernel.backward * attention + head
        if not (setup.train_projector or setup.everywhere):  # nobody needs the gradient of the row's embeddings
            backward -= 2.0 * tokens * size.hidden * (size.query + 2 * size.key + 3 * setup.rank)
    else:
        backward = 2 * base + kernel.backward * attention + 2 * head
    recomputed = base + adapters + attention if setup.checkpointing else 0.0
    copied = setup.reference == "frozen_copy"  # with its adapter, which adds nothing
    return Flops(0.0, plain + adapters, backward, recomputed, plain + (adapters if copied else 0.0))


def _tower(size: Anatomy, load: Load) -> float:
    """One pass of a prompt's pictures through the vision tower, without adapters."""
    tokens = tower_tokens(size, load)
    return 2.0 * (sum(load.tower) * size.patch_linear + tokens * size.tower_linear) + _tower_attention(size, load)


def tower_tokens(size: Anatomy, load: Load) -> int:
    """Patches and class tokens."""
    return sum(load.tower) + len(load.tower) * size.num_class_tokens


def _tower_attention(size: Anatomy, load: Load) -> float:
    flops, full = 0.0, size.tower_full_fraction
    for patches in load.tower:
        tokens = patches + size.num_class_tokens
        seen = full * tokens + (1 - full) * min(tokens, size.tower_window)
        flops += 4.0 * tokens * seen * size.tower_attention
    return flops


def _projector(size: Anatomy, load: Load) -> float:
    """One pass through the projector, without adapters."""
    return 2.0 * sum(load.tower) / size.merge * size.projector_linear


def _vision_adapters(size: Anatomy, load: Load, setup: Setup) -> float:
    """Forward through the adapters of tower and projector."""
    vectors = sum(load.tower) / size.merge
    return 2.0 * setup.rank * (tower_tokens(size, load) * size.tower_per_rank + vectors * size.projector_per_rank)


def _trained_vision(size: Anatomy, load: Load, setup: Setup, kernel: Kernel) -> float:
    """The policy's tower and projector, forward and backward."""
    projector = _projector(size, load)
    if not setup.everywhere:
        tower = 0.0 if setup.cached_features else _tower(size, load)
        return tower + projector * (3 if setup.train_projector else 1)
    tokens, trained = tower_tokens(size, load), size.tower_trained_fraction
    adapters = 2.0 * setup.rank * tokens * size.tower_per_rank
    backward = 2.0 * tokens * size.tower_linear + 2 * adapters + kernel.backward * _tower_attention(size, load)
    first = 2.0 * tokens * size.tower_width * (3 * size.tower_query + setup.rank * size.tower_readers)
    ahead = _tower(size, load) + projector + _vision_adapters(size, load, setup)
    return ahead + trained * backward - first + projector + 2 * (_vision_adapters(size, load, setup) - adapters)
