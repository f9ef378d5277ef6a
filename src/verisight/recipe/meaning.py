"""What the settings of a recipe mean: for editors (JSON schema) and for people."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from verisight.recipe.base import Node, join, leaves, walk
from verisight.recipe.tree import Recipe

PAPER = "Amirloo et al. 2024 (arXiv 2407.02477)"


class Row(NamedTuple):
    """One line of an explanation: dotted key, JSON value, what it means, its publication (or "")."""

    key: str
    value: Any
    meaning: str
    source: str


def json_schema(root: type[Node] = Recipe) -> dict[str, Any]:
    """JSON schema of a recipe, a study or claims, for editors. With `extends` no top-level key is required."""
    schema = root.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "recipe file whose keys this one overlays, relative to this file",
    }
    return schema | {"anyOf": [{"required": schema.pop("required")}, {"required": ["extends"]}]}


def explain(recipe: Recipe) -> list[Row]:
    """Every setting of the recipe with its meaning and source; the row of a `kind` explains the method."""
    rows = []
    for key, node in walk(recipe):
        values = node.model_dump(mode="json")
        if key:
            name = join(key, "kind") if "kind" in values else key
            rows.append(Row(name, values.get("kind", ""), *_meaning_and_source(type(node).__doc__ or "")))
        for name, field in leaves(node):
            rows.append(Row(join(key, name), values[name], *_meaning_and_source(field.description or "")))
    return rows


def _meaning_and_source(text: str) -> tuple[str, str]:
    meaning, _, source = text.rstrip(".]").partition(" [")
    return meaning, re.sub(r"\bpaper\b", PAPER, source)
