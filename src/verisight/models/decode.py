"""Sampling from a VLM: one prefill, then token by token, with hidden image tokens and explicit positions.

Every row draws from its own random stream, so an answer depends on its seed and prompt, never on its batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verisight.models.encoding import pad
from verisight.types import Decoding


@dataclass(frozen=True, slots=True)
class Row:
    """What one answer continues: ids, which of them may be attended to, their positions, and the image's features."""

    ids: Sequence[int]
    visible: Sequence[bool]
    positions: Sequence[int]
    features: Tensor | None
    key: str  # names the random stream, together with the seed


@dataclass(frozen=True, slots=True)
class Stop:
    """When an answer ends: at `eos_id` (not part of it) or after one of `after` (part of it)."""

    eos_id: int
    after: frozenset[int] = frozenset()


@torch.inference_mode()
def decode(
    model: Any, rows: Sequence[Row], *, decoding: Decoding, seed: int, stop: Stop, pad_id: int
) -> list[tuple[list[int], bool]]:
    """Continue every row. Returns new token ids (no end token) and whether the budget ended first."""
    device = model.device
    ids = pad([row.ids for row in rows], value=pad_id, left=True).to(device)
    visible = pad([[int(v) for v in row.visible] for row in rows], value=0, left=True).to(device)
    positions = pad([row.positions for row in rows], value=0, left=True).to(device)
    uniforms = _uniforms(rows, num=decoding.max_new_tokens, seed=seed) if decoding.temperature > 0 else None
    given = image_inputs([row.features for row in rows])
    cache, new = None, [[] for _ in rows]
    open_rows = np.ones(len(rows), dtype=bool)
    for step in range(decoding.max_new_tokens):
        out = model(
            input_ids=ids, attention_mask=visible, position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1, **given,
        )  # fmt: skip
        cache, given = out.past_key_values, {}
        chosen = _choose(out.logits[:, -1].float(), decoding, None if uniforms is None else uniforms[:, step])
        for index, token in enumerate(chosen.tolist()):
            if not open_rows[index]:
                continue
            if token != stop.eos_id:
                new[index].append(token)
            open_rows[index] = token != stop.eos_id and token not in stop.after
        if not open_rows.any():
            break
        ids = chosen[:, None]
        positions = positions[:, -1:] + 1
        visible = torch.cat([visible, visible.new_ones(len(rows), 1)], dim=1)
    return [(tokens, bool(is_open)) for tokens, is_open in zip(new, open_rows, strict=True)]


def image_inputs(features: Sequence[Tensor | None]) -> dict[str, Any]:
    """Keyword arguments that hand projected image features to a Hugging Face VLM; nothing if no row has a picture."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    present = [f for f in features if f is not None]
    if not present:
        return {}
    # pyrefly: ignore[bad-argument-type]  (one tensor a picture, as get_image_features returns them)
    return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=present)}}


def _uniforms(rows: Sequence[Row], *, num: int, seed: int) -> np.ndarray:
    streams = [np.random.default_rng([seed, zlib.crc32(row.key.encode())]) for row in rows]
    return np.stack([stream.random(num) for stream in streams])


def _choose(logits: Tensor, decoding: Decoding, uniform: np.ndarray | None) -> Tensor:
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
