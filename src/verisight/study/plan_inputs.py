"""What a recipe's model and data measure: sizes from config.json, tokens from the processor and the first rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from verisight import recipe
from verisight.build.data import first_pairs
from verisight.data.outcome import enforce_bad_fraction
from verisight.data.views import Singles
from verisight.models import loading
from verisight.models.anatomy import Anatomy, read_anatomy
from verisight.models.costs import Load
from verisight.models.encoding import Encoder
from verisight.models.families import check_config
from verisight.models.processors import load_processor
from verisight.types import Group, Pair, UserError


def open_skeleton(path: str, *, trust_remote_code: bool = False) -> tuple[Anatomy, Encoder, str]:
    """Sizes, encoder and kind of a model from its config.json and processor. An adapter folder: those of its base.

    Raises:
        UserError: no such model, one that is not supported, or a processor that cannot be used.
    """
    source = str(loading.pocket_folder()) if path == loading.POCKET else path
    try:
        config = loading.config_of(source, trust_remote_code=trust_remote_code)
        family = check_config(config.to_dict())
        processor = load_processor(source, model_type=config.model_type, trust_remote_code=trust_remote_code)
    except UserError as error:
        raise UserError(f"model.path {path}: {error}") from error
    except (OSError, ValueError) as error:  # Hugging Face's words for what it cannot find or read
        reason, accepted = str(error).strip().splitlines()[0], "config.json and a processor in a folder or within reach"
        raise UserError(f"model.path: {path} does not open ({reason}); accepted: {accepted}") from error
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=trust_remote_code)
    return read_anatomy(model, family), Encoder(processor), config.model_type


def first_loads(one: recipe.Recipe, encoder: Encoder, size: Anatomy, *, rows: int) -> list[tuple[Load, int]]:
    """Token counts of the first rows' groups, and how many of a group's are its pictures'.

    A rejected answer that is still to be made counts as long as the chosen one.
    """
    groups = [_group(one, *found) for found in _first_pairs(one, rows=rows)]
    return [_count(encoder, size, group) for group in groups]


def _group(one: recipe.Recipe, key: str, pair: Pair) -> Group:
    """What is scored of a pair of the source at `key`."""
    if isinstance(one.objective, recipe.Sft):
        return Group(pair.prompt, (pair.chosen,))
    if isinstance(one.source, recipe.Rollouts):
        return Group(pair.prompt, (pair.chosen,) * one.source.num_samples)
    above = [node for place, node in recipe.below(one.source) if key.startswith(f"{place}.")]
    added = (pair.chosen,) * sum(isinstance(node, recipe.Averaged) for node in above)
    return Group(pair.prompt, (pair.chosen, *(pair.rejected or (pair.chosen,)), *added))


def tower_segments(fields: Mapping[str, Tensor], *, patch: tuple[int, int]) -> tuple[int, ...]:
    """Patches of every tile (or picture) that a vision tower attends within, from the processor's output."""
    if "image_grid_thw" in fields:
        return tuple(math.prod(grid) for grid in fields["image_grid_thw"].tolist())
    if "pixel_values" not in fields:
        return ()
    *tiles, _, height, width = fields["pixel_values"].shape
    return ((height // patch[0]) * (width // patch[1]),) * math.prod(tiles)


def _first_pairs(one: recipe.Recipe, *, rows: int) -> list[tuple[str, Pair]]:
    """Pairs of the first rows of every source that reads data, each with its source's key."""
    sources = recipe.with_data(one.source)
    pairs: list[tuple[str, Pair]] = []
    for key, node in sources:
        found = first_pairs(node.data, rows=math.ceil(rows / len(sources)))
        enforce_bad_fraction(found.bad, num_rows=found.num_rows, max_bad_fraction=1.0, log=None)
        if not isinstance(node, recipe.Offline):
            pairs += [(key, replace(pair, rejected=())) for pair in Singles(found.pairs)]
        elif not isinstance(one.objective, recipe.Sft) and not recipe.replaces_rejected(node.data):
            comparable = [pair for pair in found.pairs if pair.rejected]
            if not comparable:
                found_none = f"no rejected answer in the first {found.num_rows} rows"
                raise UserError(f"{key}.data: {found_none}; accepted: pairs")
            pairs += [(key, pair) for pair in comparable]
        else:
            pairs += [(key, pair) for pair in found.pairs]
    return pairs


def _count(encoder: Encoder, size: Anatomy, group: Group) -> tuple[Load, int]:
    """Token counts of a group, and how many of them are its pictures'."""
    prompt = encoder.prompt(group.prompt)
    answers = [encoder.answer(group.prompt, answer) for answer in group.answers]
    load = Load(
        len(prompt.ids),
        tower_segments(prompt.fields, patch=size.patch),
        tuple(len(answer.ids) for answer in answers),
        tuple(sum(answer.supervised) for answer in answers),
    )
    return load, prompt.num_image_tokens
