"""One forward through a Hugging Face VLM, the same for every family: embed, put the pictures in, read the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verisight.models.families import Family
from verisight.models.logprobs import token_entropy, token_log_probs
from verisight.models.stores import Look
from verisight.models.vision import Features


class Embedded(NamedTuple):
    """Rows ready for the language model: (rows, tokens, width), and what its deep layers get besides."""

    vectors: Tensor
    deep: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """The Hugging Face model (adapters in its layers) and where its parts are.

    Calls the language model itself, positions always given: nothing is left to state that `generate` keeps.
    """

    core: Any
    family: Family

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.core.device

    @property
    def key_bytes(self) -> int:
        """Of the keys and values of one token."""
        text = self.core.config.get_text_config().to_dict()
        width = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        return 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * width * self.core.dtype.itemsize

    def embed(self, ids: Tensor, features: Sequence[Features | None]) -> Embedded:
        """Token embeddings with the pictures' vectors on the image placeholders, in order.

        ids: (rows, tokens); features: of every picture-bearing stretch, in reading order over all rows.
        """
        vectors = self.core.get_input_embeddings()(ids)
        present = [one for one in features if one is not None and len(one.vectors)]
        if not present:
            return Embedded(vectors, {})
        is_image = ids == self.core.config.image_token_id
        pictures = torch.cat([one.vectors for one in present])
        vectors = vectors.masked_scatter(is_image.unsqueeze(-1), pictures.to(vectors.dtype))
        if not present[0].deep:
            return Embedded(vectors, {})
        layers = [torch.cat(parts) for parts in zip(*(one.deep for one in present), strict=True)]
        return Embedded(vectors, {"visual_pos_masks": is_image, "deepstack_visual_embeds": layers})

    def positions(self, look: Look) -> Tensor:
        """Where the prompt's tokens stand: (axes, tokens). An answer goes on at the largest one plus 1, on all axes."""
        if self.family.axes == 1 or not look.num_image_tokens:
            return torch.arange(len(look.ids)).expand(self.family.axes, -1)
        ids = torch.tensor([look.ids])
        kinds = (ids == self.core.config.image_token_id).int()
        grid = look.fields["image_grid_thw"].cpu()
        return self.core.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)[0][:, 0]

    def read(
        self, row: Embedded, positions: Tensor, *, mask: Tensor | None = None, cache: Any = None, **layout: Any
    ) -> Any:  # fmt: skip
        """The language model's output. positions: (axes, rows, tokens).

        mask: (rows, 1, tokens, keys) bool, or None for plain causal attention (padding may stand on the right only).
        cache: keys and values that stand before, of an earlier output (`cache_of`).
        """
        if cache is not None:
            layout[self._cache_name] = cache
        if mask is None:  # spelt out: left out, jumps between positions are taken for borders of packed documents
            mask = torch.ones(row.vectors.shape[:2], dtype=torch.bool, device=self.device)
        positions = positions.to(self.device)
        return self._language(
            inputs_embeds=row.vectors,
            attention_mask=mask,
            position_ids=positions[0] if self.family.axes == 1 else positions,
            **row.deep,
            **layout,
        )

    def cache_of(self, output: Any) -> Any:
        """Keys and values of an output that was read with `use_cache`."""
        return output[self._cache_name]

    @property
    def _language(self) -> Any:
        return self.core.model.get_submodule(self.family.language)

    @property
    def _cache_name(self) -> str:
        """What the language model calls it: `past_key_values` before transformers 5.24."""
        return "cache" if "cache" in _parameters(type(self._language)) else "past_key_values"

    def log_probs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log p of every target token given the state before it. hidden: (tokens, width); targets: (tokens,)."""
        head = self.core.get_output_embeddings()
        return token_log_probs(hidden, targets, head.weight, head.bias)

    def entropy(self, hidden: Tensor) -> Tensor:
        """Entropy of the next token at every state, nats. hidden: (tokens, width)."""
        head = self.core.get_output_embeddings()
        return token_entropy(hidden, head.weight, head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, vocabulary), float32."""
        return self.core.get_output_embeddings()(hidden).float()


@lru_cache
def _parameters(model: Any) -> frozenset[str]:
    return frozenset(signature(model.forward).parameters)
