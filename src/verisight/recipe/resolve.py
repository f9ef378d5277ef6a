"""From a recipe file to a checked recipe, and back to text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from verisight.recipe.base import MustBe, Node, join, leaves, walk
from verisight.recipe.benchmarks import Benchmark
from verisight.recipe.study import Claims, Study
from verisight.recipe.tree import Recipe
from verisight.recipe.yaml_tree import Layer, apply_overrides, assign, merge, problems, read_layers
from verisight.types import UserError

_ACCEPTED = {
    "file": "an existing file",
    "folder": "an existing folder",
    "data": "an existing file, a folder of *.parquet, or a pattern such as data/train-*.parquet that fits one",
    "pictures": "an existing folder or zip archive",
    "model": "an existing model folder, a hub id (owner/name) or `pocket`",
}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file: what it extends, then the file, then `a.b=c` overrides, each over the last.

    Relative paths count from the folder of the file that wrote them, `output` and overrides from the working
    directory. A new `kind`, in a file or an override, drops the other keys of its node.
    Raises one UserError with a line per problem: file, key, what was found, what is accepted.
    """
    layers = read_layers(Path(path))
    tree, typed = apply_overrides(reduce(merge, (layer.tree for layer in layers)), overrides)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(problems(error, Recipe, [*layers, typed], str(path)))) from error


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a YAML file; as `load`, but `output` and its kin count from the file's folder too."""
    layers = read_layers(Path(path))
    tree, typed = apply_overrides(reduce(merge, (layer.tree for layer in layers)), overrides)
    try:
        return Study.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(problems(error, Study, [*layers, typed], str(path)))) from error


def load_claims(path: str | Path) -> Claims:
    """The claims of a YAML file. Raises UserError as `load` does."""
    layers = read_layers(Path(path))
    try:
        found = Claims.model_validate(reduce(merge, (layer.tree for layer in layers)))
    except ValidationError as error:
        raise UserError("\n".join(problems(error, Claims, layers, str(path)))) from error
    check_files(found)
    return found


def compose(path: Path, changes: Mapping[str, Any], *, source: str, output: Path, seed: int) -> Recipe:
    """A recipe file with settings changed: dotted keys -> values, in order. `source` is who changes them, for errors.

    Raises:
        UserError: as `load` does.
    """
    layers = read_layers(path)
    tree: Any = reduce(merge, (layer.tree for layer in layers))
    written: set[tuple[str, ...]] = set()
    for key, value in ({"output": str(output), "seed": seed} | dict(changes)).items():
        keys = tuple(key.split("."))
        tree = assign(tree, keys, value, source=source)
        written |= {keys[:length] for length in range(1, len(keys) + 1)}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = problems(error, Recipe, [*layers, Layer(source, {}, frozenset(written))], str(path))
        raise UserError("\n".join(lines)) from error


class _Benchmarks(Node):
    evaluate: tuple[Benchmark, ...]


def load_benchmarks(path: Path) -> tuple[Benchmark, ...]:
    """The benchmarks of a YAML file that holds `evaluate`, a list of them, and nothing else.

    Relative paths count from the file's folder. Raises UserError as `load` does, for files that are missing too.
    """
    layers = read_layers(path)
    try:
        found = _Benchmarks.model_validate(reduce(merge, (layer.tree for layer in layers)))
    except ValidationError as error:
        raise UserError("\n".join(problems(error, _Benchmarks, layers, str(path)))) from error
    check_files(found)
    return found.evaluate


def check_files(recipe: Node) -> None:
    """Raise one UserError with a line for every file, folder and model that the recipe names in vain."""
    lines = [f"{key}: found nothing at {value}; accepted: {_ACCEPTED[what]}" for key, value, what in named_files(recipe)
             if not _exists(value, what)]  # fmt: skip
    if lines:
        raise UserError("\n".join(lines))


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults written out, paths absolute. It loads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 (64 hex digits) of everything but `output`, whatever the order of the keys."""
    content = recipe.model_dump(mode="json", exclude={"output"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def named_files(recipe: Node) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value and what it has to be (`_ACCEPTED`) of every file, folder and model that a recipe names."""
    for key, node in walk(recipe):
        for name, field in leaves(node):
            value = getattr(node, name)
            if isinstance(value, tuple):  # of files
                yield from ((join(key, f"{name}.{at}"), str(one), "file")
                            for at, one in enumerate(value) if isinstance(one, Path))  # fmt: skip
            for mark in field.metadata:
                if isinstance(mark, MustBe) and value is not None:
                    yield join(key, name), str(value), mark.what


def _exists(value: Path | str, what: str) -> bool:
    path = Path(value)
    if what == "file":
        return path.is_file()
    if what in ("data", "pictures"):
        return path.exists() or (what == "data" and "*" in path.name and any(path.parent.glob(path.name)))
    if what == "folder" or path.is_absolute():
        return path.is_dir()
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(value)) is not None
