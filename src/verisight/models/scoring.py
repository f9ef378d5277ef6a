"""Answers read behind their prompts: the grouped row, and the plain padded batch it must equal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from verisight.models.encoding import EncodedAnswer, pad
from verisight.models.network import Network
from verisight.models.prefix import segments
from verisight.models.stores import Look
from verisight.models.vision import Features
from verisight.types import Group

Answers = Sequence[Sequence[EncodedAnswer]]


class Scores(NamedTuple):
    """Log-probs of answers, flattened over groups: all answers of the first group, then the second, ... In nats."""

    logp_sum: Tensor  # (answers,) float32, summed over the answer's tokens, end token included
    num_tokens: Tensor  # (answers,) int64
    token_logp: Tensor  # (tokens of all answers,) float32; `token_logp.split(num_tokens.tolist())` is one row an answer


class Scorer(Protocol):
    """What a policy is compared with."""

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs of every answer, without gradients."""
        ...


class States(NamedTuple):
    """What the language model makes of answers, flattened over groups as in `Scores`: its last states, normed."""

    before: Tensor  # (tokens of all answers, width), in front of each token: what it is predicted from
    last: Tensor  # (answers, width), at the answer's last token, where all of it has been read
    targets: Tensor  # (tokens of all answers,) int64
    num_tokens: list[int]


def grouped(network: Network, looks: Sequence[Look], features: Sequence[Features | None], answers: Answers) -> States:
    """Every token once: one row [prompt | answer 1 | ... | answer G], group behind group, without padding."""
    ids: list[int] = []
    positions: list[Tensor] = []
    before: list[int] = []  # of every supervised token, the index of the token in front of it
    behind: list[int] = []
    num_tokens: list[int] = []
    lengths: list[tuple[int, list[int]]] = []
    for look, group in zip(looks, answers, strict=True):
        lengths.append((len(look.ids), [len(answer.ids) for answer in group]))
        prompt = network.positions(look)
        positions.append(prompt)
        ids += look.ids
        last = len(ids) - 1
        for answer in group:
            start = len(ids)
            supervised = [start + k for k, wanted in enumerate(answer.supervised) if wanted]
            before += [last if at == start else at - 1 for at in supervised]
            behind += supervised
            num_tokens.append(len(supervised))
            positions.append(_ahead(prompt, len(answer.ids)))
            ids += answer.ids
    device = network.device
    row = torch.tensor([ids], device=device)
    hidden = network.read(
        network.embed(row, features), torch.cat(positions, dim=1)[:, None],
        segments=segments(lengths, device=device), use_cache=False,
    ).last_hidden_state  # fmt: skip
    lasts = [behind[end - 1] for end in accumulate(num_tokens)]
    return States(hidden[0, before], hidden[0, lasts], row[0, behind], num_tokens)


def padded(network: Network, looks: Sequence[Look], features: Sequence[Features | None], answers: Answers) -> States:
    """One row an answer, its prompt repeated, padded on the right: the plain forward, and the oracle of `grouped`."""
    rows, positions, supervised, repeated = [], [], [], []
    for look, one, group in zip(looks, features, answers, strict=True):
        prompt = network.positions(look)
        for answer in group:
            rows.append([*look.ids, *answer.ids])
            positions.append(torch.cat([prompt, _ahead(prompt, len(answer.ids))], dim=1))
            supervised.append([0] * len(look.ids) + [int(wanted) for wanted in answer.supervised])
            repeated.append(one)
    device = network.device
    ids = pad(rows, value=0).to(device)
    places = torch.stack([torch.nn.functional.pad(p, (0, ids.shape[1] - p.shape[1])) for p in positions], dim=1)
    hidden = network.read(network.embed(ids, repeated), places, use_cache=False).last_hidden_state
    wanted = pad(supervised, value=0).to(device).bool()[:, 1:]
    lasts = [max(at for at, flag in enumerate(flags) if flag) for flags in supervised]
    last = hidden[torch.arange(len(rows), device=device), torch.tensor(lasts, device=device)]
    return States(hidden[:, :-1][wanted], last, ids[:, 1:][wanted], wanted.sum(dim=1).tolist())


def scores(network: Network, states: States) -> Scores:
    """Log-probs of the answers' tokens from the states in front of them."""
    token_logp = network.log_probs(states.before, states.targets)
    counts = torch.tensor(states.num_tokens, device=token_logp.device)
    answer_of = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return Scores(token_logp.new_zeros(len(counts)).index_add(0, answer_of, token_logp), counts, token_logp)


def _ahead(prompt: Tensor, num: int) -> Tensor:
    """Positions of an answer's tokens, (axes, num)."""
    start = int(prompt.max()) + 1
    return torch.arange(start, start + num).expand(len(prompt), -1)
