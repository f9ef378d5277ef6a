"""Teaching the pocket model to see: patch labels for the vision tower, then words for the projector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verisight.pocket.datasets import WORLD_SEED, scene
from verisight.pocket.scenes import CELLS, GRID, OBJECTS, Scene, render

BATCH = 64
_GROUND_WEIGHT = 0.2  # most patches show the ground
_CELL_WEIGHT = 0.3
_SHARPNESS = 20.0  # inverse temperature of cosine similarities


def shuffled(one: Scene) -> Scene:
    """The scene with objects drawn uniformly from the whole world: nothing to guess from the place."""
    rng = np.random.default_rng([WORLD_SEED, 79, one.uid])
    names = rng.choice(OBJECTS, size=len(one.placed), replace=False)
    return replace(one, placed=tuple(replace(p, name=str(name)) for p, name in zip(one.placed, names, strict=True)))


def train_tower(model: Any, processor: Any, *, steps: int, advance: Callable[..., None], lr: float = 1.5e-3) -> None:
    """Train the vision tower to name the object (0 is ground) and the cell of every patch.

    Cells are known from the position embedding alone; naming them keeps that knowledge in the last layer.
    """
    tower = model.model.vision_tower
    side = tower.config.image_size // tower.config.patch_size
    head = nn.Linear(tower.config.hidden_size, len(OBJECTS) + 1 + len(CELLS))
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], betas=(0.9, 0.98), weight_decay=0.01)
    cells = patch_cells(side=side).repeat(BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    weight = torch.ones(len(OBJECTS) + 1)
    weight[0] = _GROUND_WEIGHT
    for scenes in _batches(steps):
        logits = head(patch_features(model, pixels(processor, scenes))).flatten(0, 1)
        named, placed = logits.split([len(OBJECTS) + 1, len(CELLS)], dim=1)
        loss = F.cross_entropy(named, patch_labels(scenes, side=side).flatten(), weight=weight)
        loss = loss + _CELL_WEIGHT * F.cross_entropy(placed, cells)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        advance(note=f"loss {loss.item():.3f}")


def align_projector(model: Any, processor: Any, *, steps: int, advance: Callable[..., None], lr: float = 2e-3) -> None:
    """Pull projected patches onto the embeddings of their object's and their cell's names.

    Words and patches can then match by direction from the first step of language training.
    """
    projector, table = model.model.multi_modal_projector, model.get_input_embeddings().weight.detach()
    tokenizer = processor.tokenizer

    def directions(names: Sequence[str]) -> Tensor:
        ids = [tokenizer(f" {name}", add_special_tokens=False).input_ids for name in names]
        means = torch.stack([table[torch.tensor(one)].mean(0) for one in ids])
        return F.normalize(means - means.mean(0), dim=1)

    objects, places = directions(OBJECTS), directions(CELLS)
    norm = table.norm(dim=1).mean()
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    optimizer = torch.optim.AdamW(projector.parameters(), lr=lr)
    cells = patch_cells(side=side).repeat(BATCH)
    for scenes in _batches(steps):
        with torch.no_grad():
            features = patch_features(model, pixels(processor, scenes))
        projected, label = projector(features).flatten(0, 1), patch_labels(scenes, side=side).flatten()
        shown = label > 0
        unit = F.normalize(projected, dim=1)
        loss = F.cross_entropy(_SHARPNESS * unit[shown] @ objects.T, label[shown] - 1)
        loss = loss + F.cross_entropy(_SHARPNESS * unit @ places.T, cells)
        loss = loss + ((projected.norm(dim=1) / norm - 1) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        advance(note=f"loss {loss.item():.3f}")


def patch_features(model: Any, images: Tensor) -> Tensor:
    """(images, patches, width) features that the projector gets to see."""
    hidden = model.model.vision_tower(images, output_hidden_states=True).hidden_states
    return hidden[model.config.vision_feature_layer][:, 1:]


def patch_cells(*, side: int) -> Tensor:
    """(side * side,) index of the grid cell that each patch lies in."""
    line = torch.arange(side) * GRID // side
    return (GRID * line[:, None] + line[None, :]).flatten()


def patch_labels(scenes: Sequence[Scene], *, side: int) -> Tensor:
    """(scenes, side * side) index of the object in each patch's cell plus 1, or 0 for ground."""
    per_cell = side // GRID
    labels = torch.zeros(len(scenes), side, side, dtype=torch.long)
    for index, one in enumerate(scenes):
        for item in one.placed:
            row, column = (per_cell * n for n in divmod(item.cell, GRID))
            labels[index, row : row + per_cell, column : column + per_cell] = OBJECTS.index(item.name) + 1
    return labels.flatten(1)


def pixels(processor: Any, scenes: Sequence[Scene]) -> Tensor:
    """(scenes, 3, size, size) pictures as the processor hands them to the model."""
    return processor.image_processor([render(one) for one in scenes], return_tensors="pt")["pixel_values"]


def _batches(steps: int) -> Iterator[list[Scene]]:
    """Batches of base scenes; every other one has its objects shuffled."""
    for step in range(steps):
        natural = [scene("base", step * BATCH + index) for index in range(BATCH)]
        yield [shuffled(one) if index % 2 else one for index, one in enumerate(natural)]
