"""Hiding image tokens from attention: which keys stay visible, and where the remaining tokens stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Positions = Literal["original", "compact"]


def visible_tokens(ids: Sequence[int], *, image_token_id: int, keep: np.ndarray | None) -> list[bool]:
    """True for every token that may be attended to. `keep`: (image tokens,) bool, None shows all."""
    if keep is None:
        return [True] * len(ids)
    is_image = np.asarray(ids) == image_token_id
    assert is_image.sum() == len(keep), "one keep flag per image token"
    visible = ~is_image
    visible[is_image] = keep
    return visible.tolist()


def token_positions(visible: Sequence[bool], *, mode: Positions) -> list[int]:
    """Position ids. `original` leaves tokens where they stand (the paper hides vectors and nothing else);
    `compact` closes the gaps, as `generate()` and serving engines do.
    """  # noqa: D205
    if mode == "original":
        return list(range(len(visible)))
    return (np.cumsum(visible) - 1).clip(min=0).tolist()
