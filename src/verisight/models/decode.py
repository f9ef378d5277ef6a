"""Sampling from a VLM: every prompt is read once, and all its answers grow from there as branches of one row.

A row's keys are the trunk (prompt and shared beginning of the answers) and then whatever its branches add; a mask lets
a branch see the trunk up to its own split and itself. Nothing of the cache is copied per answer. Every branch draws
from its own random stream, so an answer depends on its seed and prompt, never on its batch.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from verisight.models.network import Network
from verisight.models.vision import Features
from verisight.types import Decoding

CACHE_BYTES = 8 << 30  # of keys and values in one batch
_TRUNK, _VEILED, _PAD = -1, -2, -3  # owners of keys that are no branch's
_NUMBER, _NUMBER_TOKENS = re.compile(r"\d\.$"), 2  # its last digit may be the last of the given tokens


@dataclass(frozen=True, slots=True)
class Branch:
    """One answer to be continued: its given ids, and the name of its random stream (together with the seed).

    `lines`: line breaks that may be drawn; one more ends it. None: as many as come.
    """

    ids: Sequence[int]
    key: str
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and the answers that grow from it.

    ids: (tokens,), those of the prompt that are read. positions: (axes, tokens). `first`: position of an answer's
    first token. `veiled`: (tokens,) bool, prompt tokens that answers must not attend to.
    """

    ids: Tensor
    positions: Tensor
    first: int
    veiled: Tensor
    features: Features | None
    branches: Sequence[Branch]

    @property
    def shared(self) -> list[int]:
        """The longest given beginning but for its last token; other branches leave it where they differ."""
        return list(max((branch.ids for branch in self.branches), key=len)[:-1])


@dataclass(frozen=True, slots=True)
class Stop:
    """When an answer ends: at one of `ends` (not part of it), after one of `after` (part of it), or at a string.

    One of `after` does not end it while the text ends with a number and a full stop: "3." may become "3.5".
    `breaks` hold a line break. `never` are ids that are not drawn. `text` turns ids into text, blanks at its ends
    included.
    """

    ends: frozenset[int]
    never: Sequence[int] = ()
    after: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    text: Callable[[Sequence[int]], str] = str
    breaks: frozenset[int] = frozenset()

    def closes(self, ids: Sequence[int], branch: Branch) -> bool:
        """Whether a branch is complete with the last of its new `ids`."""
        if ids[-1] in self.after and not _NUMBER.search(self.text([*branch.ids[-_NUMBER_TOKENS:], *ids])):
            return True
        if branch.lines is not None and sum(token in self.breaks for token in ids) > branch.lines:
            return True
        return bool(self.strings) and any(string in self.text(ids) for string in self.strings)


@dataclass(slots=True)
class _Growing:
    """A branch while it grows. `pending` are ids not read yet, `split` is how much of the trunk it sees.

    The trunk's own late part grows once in the same way, from `split` on; its `branch` is empty.
    """

    row: int
    owner: int
    branch: Branch
    split: int
    pending: list[int]
    position: int
    new: list[int]
    sighted: bool  # whether what is pending belongs to the prompt, from which nothing is veiled
    open: bool = True
    end: int | None = None


class _Keys:
    """Who owns the keys in the cache, (rows, keys) each: owner, and place in the trunk; veiled trunk keys."""

    def __init__(self, trees: Sequence[Tree], trunks: Sequence[int], *, device: torch.device) -> None:
        longest = max(trunks)
        place = torch.arange(longest, device=device).expand(len(trees), -1)
        inside = place < torch.tensor(trunks, device=device)[:, None]
        veiled = torch.zeros_like(inside)
        for row, tree in enumerate(trees):
            veiled[row, : len(tree.ids)] = tree.veiled.to(device)
        self.owner = torch.where(inside, torch.where(veiled, _VEILED, _TRUNK), _PAD)
        self.place = place

    def visible(self, owner: Tensor, split: Tensor, place: Tensor, sighted: Tensor) -> Tensor:
        """(rows, queries, keys + queries) bool for new tokens, whose keys are taken in. All arguments: (rows, queries).

        A token sees the trunk before its split (veiled keys only if sighted), its branch's earlier tokens and itself.
        """
        keys = self.owner[:, None]
        trunk = (keys == _TRUNK) | ((keys == _VEILED) & sighted[..., None])
        old = (trunk & (self.place[:, None] < split[..., None])) | (keys == owner[..., None])
        num = owner.shape[1]
        order = torch.ones(num, num, dtype=torch.bool, device=owner.device).tril()
        new = (owner[:, None] == owner[..., None]) & order
        self.owner = torch.cat([self.owner, owner], dim=1)
        self.place = torch.cat([self.place, place], dim=1)
        return torch.cat([old, new], dim=2)


class Grown(NamedTuple):
    """What a branch grew: new ids without end token, whether the budget ended first, and the end token if drawn."""

    ids: list[int]
    truncated: bool
    end: int | None


@torch.inference_mode()
def decode(network: Network, trees: Sequence[Tree], *, decoding: Decoding, seed: int, stop: Stop) -> list[list[Grown]]:
    """Continue every branch, tree by tree."""
    cache, keys, growing = _plant(network, trees)
    streams = uniforms(trees, num=decoding.max_new_tokens, seed=seed) if decoding.temperature > 0 else None
    never = torch.tensor(list(stop.never), dtype=torch.int64, device=network.device)
    for step in range(decoding.max_new_tokens):
        alive = [index for index, branch in enumerate(growing) if branch.open]
        if not alive:
            break
        _drop_finished_rows(cache, keys, [growing[i] for i in alive])
        hidden = _grow(network, cache, keys, [growing[i] for i in alive])
        logits = network.logits(hidden).index_fill(-1, never, -torch.inf)
        chosen = choose(logits, decoding, None if streams is None else streams[alive, step])
        for index, token in zip(alive, chosen.tolist(), strict=True):
            branch = growing[index]
            if token in stop.ends:
                branch.open, branch.end = False, token
            else:
                branch.new.append(token)
                branch.pending = [token]
                branch.open = not stop.closes(branch.new, branch.branch)
    drawn = iter(growing)
    return [[Grown(one.new, one.open, one.end) for one in (next(drawn) for _ in tree.branches)] for tree in trees]


def _plant(network: Network, trees: Sequence[Tree]) -> tuple[Any, _Keys, list[_Growing]]:
    """Read every trunk once: prompt and shared beginning, padded on the right, plainly causal.

    Where answers are veiled from parts of the prompt, their beginning is read in a second forward, behind the veil.
    """
    late = [bool(tree.veiled.any()) for tree in trees]
    beginnings = [
        torch.tensor([] if wait else tree.shared, dtype=torch.int64) for tree, wait in zip(trees, late, strict=True)
    ]
    trunks = [torch.cat([tree.ids, begun]) for tree, begun in zip(trees, beginnings, strict=True)]
    longest = max(len(trunk) for trunk in trunks)
    ids = torch.zeros(len(trees), longest, dtype=torch.int64)
    positions = torch.zeros(len(trees[0].positions), len(trees), longest, dtype=torch.int64)
    for row, (tree, trunk) in enumerate(zip(trees, trunks, strict=True)):
        ids[row, : len(trunk)] = trunk
        ahead = torch.arange(tree.first, tree.first + len(trunk) - len(tree.ids)).expand(len(tree.positions), -1)
        positions[:, row, : len(trunk)] = torch.cat([tree.positions, ahead], dim=1)
    planted = network.embed(ids.to(network.device), [tree.features for tree in trees])
    cache = network.cache_of(network.read(planted, positions, use_cache=True))
    keys = _Keys(trees, [len(trunk) for trunk in trunks], device=network.device)
    behind = [
        _Growing(row, _TRUNK, Branch([], ""), len(tree.ids), tree.shared, tree.first, new=[], sighted=False)
        for row, tree in enumerate(trees)
        if late[row] and tree.shared
    ]
    if behind:
        _grow(network, cache, keys, behind)
    return cache, keys, [one for row, tree in enumerate(trees) for one in _shoots(row, tree)]


def _shoots(row: int, tree: Tree) -> Iterator[_Growing]:
    """A tree's branches where they leave the trunk.

    The token before the first new one is read by the branch itself: its state is where drawing starts.
    """
    for owner, branch in enumerate(tree.branches):
        if branch.ids:
            common = _common(branch.ids[:-1], tree.shared)
            start = (len(tree.ids) + common, list(branch.ids[common:]), tree.first + common)
        else:
            start = (len(tree.ids) - 1, [int(tree.ids[-1])], int(tree.positions[:, -1].max()))
        yield _Growing(row, owner, branch, *start, new=[], sighted=not branch.ids)


def _drop_finished_rows(cache: Any, keys: _Keys, growing: Sequence[_Growing]) -> None:
    """Leave rows without an open branch behind, once they are half of all: one copy of the cache then."""
    rows = sorted({branch.row for branch in growing})
    if 2 * len(rows) > len(keys.owner):
        return
    index = torch.tensor(rows, device=keys.owner.device)
    cache.batch_select_indices(index)
    keys.owner, keys.place = keys.owner[index], keys.place[index]
    for branch in growing:
        branch.row = rows.index(branch.row)


def _grow(network: Network, cache: Any, keys: _Keys, growing: Sequence[_Growing]) -> Tensor:
    """Read what is pending, in one forward. Returns the state behind each branch's last token, (branches, width)."""
    filled = [0] * len(keys.owner)
    ends = []
    for branch in growing:
        filled[branch.row] += len(branch.pending)
        ends.append((branch.row, filled[branch.row] - 1))
    shape = (len(filled), max(filled))
    ids, positions, split, place = (np.zeros(shape, dtype=np.int64) for _ in range(4))
    owner, sighted = np.full(shape, _PAD, dtype=np.int64), np.zeros(shape, dtype=bool)
    for branch, (row, last) in zip(growing, ends, strict=True):
        at = slice(last + 1 - len(branch.pending), last + 1)
        ids[row, at] = branch.pending
        ahead = np.arange(len(branch.pending))
        positions[row, at], place[row, at] = branch.position + ahead, branch.split + ahead
        owner[row, at], split[row, at], sighted[row, at] = branch.owner, branch.split, branch.sighted
        branch.position += len(branch.pending)
        branch.sighted = False
    device = network.device
    visible = keys.visible(*(torch.from_numpy(array).to(device) for array in (owner, split, place, sighted)))
    axes = network.family.axes
    out = network.read(
        network.embed(torch.from_numpy(ids).to(device), []), torch.from_numpy(positions).expand(axes, *shape),
        mask=visible[:, None], cache=cache, use_cache=True,
    )  # fmt: skip
    rows, lasts = zip(*ends, strict=True)
    return out.last_hidden_state[list(rows), list(lasts)]


def batches(network: Network, trees: Sequence[Tree], *, max_new_tokens: int) -> Iterator[list[int]]:
    """Which trees are decoded together: such of like length, their keys within CACHE_BYTES if all answers are long."""
    trunks = [len(tree.ids) + len(tree.shared) for tree in trees]
    room = CACHE_BYTES // network.key_bytes
    batch: list[int] = []
    for index in sorted(range(len(trees)), key=lambda i: -trunks[i]):
        longer = [*batch, index]
        widest = max(len(trees[i].branches) for i in longer)
        if batch and len(longer) * (trunks[longer[0]] + widest * max_new_tokens) > room:
            yield batch
            longer = [index]
        batch = longer
    if batch:
        yield batch


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    num = 0
    while num < min(len(a), len(b)) and a[num] == b[num]:
        num += 1
    return num


def uniforms(trees: Sequence[Tree], *, num: int, seed: int) -> np.ndarray:
    """(branches, num) float64 in [0, 1): every branch's own random stream, named by seed and key."""
    names = [branch.key for tree in trees for branch in tree.branches]
    return np.stack([np.random.default_rng([seed, zlib.crc32(name.encode())]).random(num) for name in names])


def choose(logits: Tensor, decoding: Decoding, uniform: np.ndarray | None) -> Tensor:
    """Greedy, or inverse-CDF sampling from the nucleus. logits: (rows, vocabulary); uniform: (rows,) in [0, 1)."""
    if uniform is None:
        return logits.argmax(dim=-1)
    ordered, order = (logits / decoding.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= decoding.top_p, 0.0)
    cumulative = ordered.double().cumsum(dim=-1)
    target = torch.as_tensor(uniform, device=logits.device).unsqueeze(-1) * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[-1] - 1)
    return order.gather(-1, picked).squeeze(-1)
