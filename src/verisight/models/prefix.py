"""Grouped scoring: image and prompt stand once in the row, every answer attends to them and to itself.

A batch is one row without padding: [prompt | answer 1 | ... | answer G] of the first group, then of the second, ...
Attention takes two calls a group: prompt x prompt, plainly causal, and all answers x the group with a small mask.
Keys and values are never copied. Prior art: Wang and Hegde 2024 (arXiv 2410.20305), Liu et al. 2025 (2506.05433).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "verisight"


@dataclass(frozen=True, slots=True)
class Segment:
    """One group in the row: [start, start + num_prompt) is its prompt, then the answers up to `stop`.

    `visible`: (answer tokens, group tokens) bool, which tokens of the group an answer token attends to; None where a
    single answer follows its prompt, which is plainly causal.
    """

    start: int
    num_prompt: int
    stop: int
    visible: Tensor | None


def segments(lengths: Sequence[tuple[int, Sequence[int]]], *, device: torch.device) -> tuple[Segment, ...]:
    """The layout of a row. `lengths`: of every group, tokens of the prompt and of each answer (all at least 1)."""
    made, start = [], 0
    for num_prompt, answers in lengths:
        stop = start + num_prompt + sum(answers)
        visible = None if len(answers) == 1 else _siblings_apart(num_prompt, torch.tensor(answers, device=device))
        made.append(Segment(start, num_prompt, stop, visible))
        start = stop
    return tuple(made)


def _siblings_apart(num_prompt: int, answers: Tensor) -> Tensor:
    """(answer tokens, group tokens) bool: the prompt, and one's own answer so far."""
    owner = torch.arange(len(answers), device=answers.device).repeat_interleave(answers)
    own = (owner[:, None] == owner).tril()
    return torch.cat([own.new_ones(len(owner), num_prompt), own], dim=1)


def attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    scaling: float | None = None, segments: Sequence[Segment] | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention of a decoder layer, as transformers calls it. query: (1, heads, tokens, width of a head).

    With `segments` the grouped row, else what transformers' own "sdpa" does (a boolean mask is answered without copies
    of keys for grouped queries).
    """
    if segments is None:
        if attention_mask is None or attention_mask.dtype != torch.bool:
            return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return _masked(query, key, value, attention_mask, scaling=scaling).transpose(1, 2).contiguous(), None
    assert attention_mask is None, "a grouped row carries its own layout"
    parts = []
    for one in segments:
        whole, answers = slice(one.start, one.stop), slice(one.start + one.num_prompt, one.stop)
        causal = whole if one.visible is None else slice(one.start, answers.start)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, causal], key[:, :, causal], value[:, :, causal],
                is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1],
            )
        )  # fmt: skip
        if one.visible is not None:
            mask = one.visible[None, None]
            parts.append(_masked(query[:, :, answers], key[:, :, whole], value[:, :, whole], mask, scaling=scaling))
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scaling: float | None) -> Tensor:
    """Masked attention; heads that share a key are laid behind one another as further queries of it."""
    batch, heads, queries, width = query.shape
    repeats = heads // key.shape[1]
    if repeats > 1:
        query, mask = query.reshape(batch, key.shape[1], repeats * queries, width), mask.repeat(1, 1, repeats, 1)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(batch, heads, queries, value.shape[-1])


def install(model: Any) -> None:
    """Make a Hugging Face VLM's language model use `attention`; its vision tower keeps its own.

    It stays in place: gradient checkpointing looks the function up again in the backward pass.
    """
    model.set_attn_implementation({"text_config": ATTENTION})


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
