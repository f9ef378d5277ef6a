"""Checks: when a negative differs enough from the reference to be kept. The third axis of a negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Check(Protocol):
    """Decides which candidates differ enough from their references."""

    @property
    def notes(self) -> dict[str, Any]:
        """JSON values that tell how it decides."""
        ...

    def keep(self, references: Sequence[str], candidates: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(n,) bool kept, and (n,) float similarity in [-1, 1] (NaN where none was measured)."""
        ...


@dataclass(frozen=True, slots=True)
class Dissimilar:
    """Keeps a candidate whose cosine similarity with the reference is below `eps` (algorithm 1, step 5; paper: 0.97).

    `encoder` is a sentence-transformers model, or anything with its `encode(texts, normalize_embeddings=True)`; `name`
    is what notes call it: a threshold means something with its encoder only.
    """

    encoder: Any
    eps: float = 0.97
    name: str = ""

    @property
    def notes(self) -> dict[str, Any]:
        """Encoder and threshold."""
        return {"encoder": self.name, "eps": self.eps}

    def keep(self, references: Sequence[str], candidates: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Compare row by row."""
        texts = [*references, *candidates]
        vectors = np.asarray(self.encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False))
        similarity = (vectors[: len(references)] * vectors[len(references) :]).sum(axis=1).round(6)  # not the batch's
        return similarity < self.eps, similarity


@dataclass(frozen=True, slots=True)
class Always:
    """Keeps everything."""

    @property
    def notes(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def keep(self, references: Sequence[str], candidates: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All true, nothing measured."""
        return np.ones(len(references), dtype=bool), np.full(len(references), np.nan)
