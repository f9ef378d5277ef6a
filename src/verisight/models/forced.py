"""Teacher-forced drawing: every token of an answer behind the true tokens of another, in one forward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from verisight.models.decode import Stop, Tree, choose, uniforms
from verisight.models.network import Network
from verisight.types import Decoding


def beginnings(ids: Sequence[int]) -> list[Sequence[int]]:
    """What stands before each token of an answer: nothing, its first token, its first two, ..."""
    return [ids[:k] for k in range(len(ids))]


@torch.inference_mode()
def draw_forced(
    network: Network, trees: Sequence[Tree], *, decoding: Decoding, seed: int, stop: Stop
) -> list[list[int]]:
    """One token for every branch of every tree, up to an end token. The branches of a tree are `beginnings`.

    The tokens are those that `decode` draws with one new token a branch, random streams included; but rows of
    [prompt | true answer] are read once, padded on the right, where `decode` reads the answer twice.
    """
    trunks = [torch.cat([tree.ids, _tensor(tree.branches[-1].ids if tree.branches else ())]) for tree in trees]
    shape = (len(trees), max(len(trunk) for trunk in trunks))
    ids = torch.zeros(shape, dtype=torch.int64)
    positions = torch.zeros(len(trees[0].positions), *shape, dtype=torch.int64)
    for row, (tree, trunk) in enumerate(zip(trees, trunks, strict=True)):
        ids[row, : len(trunk)] = trunk
        ahead = torch.arange(tree.first, tree.first + len(trunk) - len(tree.ids)).expand(len(tree.positions), -1)
        positions[:, row, : len(trunk)] = torch.cat([tree.positions, ahead], dim=1)
    hidden = network.read(
        network.embed(ids.to(network.device), [tree.features for tree in trees]), positions,
        mask=_visible(trees, num=shape[1], device=network.device), use_cache=False,
    ).last_hidden_state  # fmt: skip
    never = _tensor(stop.never).to(network.device)
    drawn = []
    for row, tree in enumerate(trees):
        last = len(tree.ids) - 1
        logits = network.logits(hidden[row, last : last + len(tree.branches)]).index_fill(-1, never, -torch.inf)
        streams = uniforms([tree], num=1, seed=seed)[:, 0] if decoding.temperature > 0 and tree.branches else None
        tokens = choose(logits, decoding, streams).tolist()
        drawn.append(list(takewhile(lambda token: token not in stop.ends, tokens)))
    return drawn


def _visible(trees: Sequence[Tree], *, num: int, device: torch.device) -> Tensor | None:
    """(rows, 1, tokens, tokens) bool: plainly causal (None if all of it is), less what is veiled from the answer."""
    if not any(tree.veiled.any() for tree in trees):
        return None
    visible = torch.ones(len(trees), num, num, dtype=torch.bool).tril()
    for row, tree in enumerate(trees):
        prompt = len(tree.ids)
        visible[row, prompt:, :prompt] &= ~tree.veiled
    return visible[:, None].to(device)


def _tensor(ids: Sequence[int]) -> Tensor:
    return torch.tensor(list(ids), dtype=torch.int64)
