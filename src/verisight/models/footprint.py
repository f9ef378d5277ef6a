"""What training a model keeps on a device: bytes, from its modules' sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from verisight.models.anatomy import Anatomy
from verisight.models.costs import Drawing, Load, Setup, num_trainable, tower_tokens
from verisight.models.decode import CACHE_BYTES
from verisight.models.logprobs import CHUNK_ELEMENTS
from verisight.models.stores import RECENT_BYTES, Recent
from verisight.models.vision import TOWER_PIXELS

BYTES = {"float32": 4, "bfloat16": 2}
DRAWN_AT_ONCE = 64  # answers, `Policy.sample`
CONTEXT, SLACK = 3 << 28, 0.1  # bytes a device keeps for itself and its libraries; share of the rest: fragmentation


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
    element, num, trainable = BYTES[setup.dtype], setup.micro_batch_size, num_trainable(size, setup)
    frozen = element * (size.num_weights - (0 if setup.rank else trainable))
    held = {
        "weights that do not train": frozen,
        "weights that train, float32": 4 * trainable,
        "their gradients, float32": 4 * trainable,
        "their AdamW moments, float32": 8 * trainable,
    }
    if setup.reference == "frozen_copy":
        held["reference: a copy, tower shared"] = frozen + 4 * trainable - element * size.tower_weights
    if setup.drawing is not None:
        held |= _of_drawing(setup.drawing, element=element, size=size, trainable=trainable, lora=bool(setup.rank))
    logit = (3 * 4 + element) * size.head_linear // size.hidden  # made, in float32, log-softmax, its gradient
    most = (3 * 4 + element) * CHUNK_ELEMENTS
    rows = [(activations(size, load, setup), min(most, num * logit * sum(load.supervised))) for load in loads]
    worst, logits = max(rows, key=lambda row: num * row[0].kept + max(num * row[0].working, row[1]))
    scored = {"activations": num * worst.kept}
    if setup.everywhere:
        scored["activations of the vision tower"] = num * max(tower_activations(size, load, setup) for load in loads)
    if setup.dtype == "bfloat16":
        scored["bfloat16 copies of weights that train"] = element * trainable
    last = {"logits, or one layer's backward": max(num * worst.working, logits)}
    phases = [scored | last, {"AdamW step": 4 * trainable}]
    one, call = max(kept_of_pictures(size, load, setup) for load in loads), tower_at_work(size, loads, setup)
    if setup.everywhere and setup.live_reference and call > sum(last.values()):
        phases[0] = scored | {"vision tower of the reference": call}
    if setup.drawing is not None:
        phases.append({"keys and values while drawing": _keys(size, loads, setup, setup.drawing)})
    if not (setup.everywhere or setup.cached_features):
        phases.append({"vision tower at work": call})
    if not setup.cached_features and (not setup.everywhere or setup.reference == "frozen_copy"):
        held["last pictures, kept"] = max(num * one, min(Recent().size * one, RECENT_BYTES))
    counted = Memory(held, tuple(phases), 0)
    return counted._replace(allowance=CONTEXT + round(SLACK * counted.peak))


def _of_drawing(drawing: Drawing, *, element: int, size: Anatomy, trainable: int, lora: bool) -> dict[str, int]:
    """What reward and value models hold. A value function of its own shares the policy's base under LoRA."""
    found = {}
    if drawing.rewards:
        found["reward models, weights of their own"] = drawing.rewards * element * size.num_weights
    if drawing.reward_adapters:
        found["reward models, adapters on the base"] = drawing.reward_adapters * 4 * trainable
    if drawing.value == "separate":
        found["value function: weights that train, gradients, moments"] = 16 * trainable
    return found


def _keys(size: Anatomy, loads: Sequence[Load], setup: Setup, drawing: Drawing) -> int:
    """Bytes of the largest batch that is drawn: a prompt's keys and values are held once for all its answers."""
    prompts = max(1, DRAWN_AT_ONCE // drawing.num)
    tokens = max(load.prompt for load in loads) + drawing.num * drawing.max_new_tokens
    token = 2 * BYTES[setup.dtype] * size.num_layers * size.key
    return max(tokens * token, min(CACHE_BYTES, prompts * tokens * token))


def kept_of_pictures(size: Anatomy, load: Load, setup: Setup) -> int:
    """Bytes of what the vision tower hands to the projector."""
    return BYTES[setup.dtype] * size.tower_kept * size.tower_width * tower_tokens(size, load)


def tower_at_work(size: Anatomy, loads: Sequence[Load], setup: Setup) -> int:
    """Bytes while a frozen tower reads as many pictures as it is given at once."""
    longest = max(tower_tokens(size, load) for load in loads)
    at_once = TOWER_PIXELS * size.tower_width // size.patch_linear  # patches
    tokens = min(setup.micro_batch_size * longest, max(longest, at_once))
    layer = (size.tower_states + 4) * size.tower_width + 2 * size.tower_inner + size.patch_linear // size.tower_width
    return BYTES[setup.dtype] * tokens * layer


def tower_activations(size: Anatomy, load: Load, setup: Setup) -> int:
    """Bytes that the backward pass through a tower with adapters needs of the forward one."""
    mixed = setup.dtype == "bfloat16"  # every adapter copies its input
    widths = 7 + (size.tower_readers + 1 if mixed else 1)  # inputs of norms, q, k, v, what attention gives, MLP's input
    if size.tower_readers == 1:
        widths += 2  # q and k turned by their positions
    layer = widths * size.tower_width + size.tower_mlp + setup.rank * (size.tower_readers + 3)
    layers = size.tower_trained_fraction * size.tower_attention / size.tower_query
    return round(BYTES[setup.dtype] * tower_tokens(size, load) * layers * layer)


class Saved(NamedTuple):
    """Bytes of a backward pass: kept for it from the forward one, and those at work in it, one layer at a time."""

    kept: int
    working: int


def activations(size: Anatomy, load: Load, setup: Setup) -> Saved:
    """What the backward pass over one prompt with its answers needs, logits aside.

    With checkpointing only the input of every layer is kept, the rest made again. Under mixed precision every trained
    linear layer makes its own bfloat16 copy of its input.
    """
    tokens, element = load.num_tokens(setup), BYTES[setup.dtype]
    norms = 4 if setup.rank else 8  # float32; a norm that trains keeps its result before the scale as well
    readers = 5 if setup.dtype == "bfloat16" else 2  # q, k, v, gate and up, or one for q, k, v and one for gate, up
    attention, mlp = 3 * size.query + 2 * size.key, 4 * size.inner  # with the inputs of o_proj and down_proj
    layer = norms * size.norms + element * (readers * size.hidden + attention + mlp + 7 * setup.rank)
    stream = size.hidden * (element if setup.rank else 4)
    projected = (
        element * sum(load.tower) // size.merge * size.projector_saved
        if setup.train_projector or setup.everywhere
        else 0
    )
    kept = size.num_layers * (stream if setup.checkpointing else layer) + stream + norms * size.hidden
    working = element * (3 * size.inner + 2 * size.hidden) + (layer if setup.checkpointing else 0)
    return Saved(tokens * kept + projected, tokens * working)
