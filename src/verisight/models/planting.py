"""From a prompt and what may be seen of it to a tree that answers grow from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from verisight.models.decode import Branch, Tree
from verisight.models.hiding import Sight
from verisight.models.network import Network
from verisight.models.stores import Look
from verisight.models.vision import Features


def plant(network: Network, look: Look, features: Features | None, *, sight: Sight, branches: Sequence[Branch]) -> Tree:
    """What is hidden from all tokens is left out, what is hidden from answers is veiled."""
    ids = torch.tensor(look.ids)
    is_image = ids == network.core.config.image_token_id
    flags = sight.flags(is_image)
    positions, first = sight.place(network.positions(look), flags)
    if sight.drops:
        features = None if features is None else features.keep(flags[is_image].to(network.device))
        ids, positions, flags = ids[flags], positions[:, flags], flags[flags]
    return Tree(ids, positions, first, ~flags, features, branches)
