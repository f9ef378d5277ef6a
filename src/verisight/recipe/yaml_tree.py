"""YAML files as plain trees: `extends`, overrides, and errors in the words of the file. Knows no recipe."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from verisight.types import UserError

Keys = tuple[str, ...]

COMMAND_LINE = "command line"
_MOST = 100_000  # values of a file


class Located(str):
    """A string of a recipe that remembers the folder its relative path counts from."""

    folder: Path


class Layer(NamedTuple):
    """A place where keys are written: its name (a file or the command line) and every key path in it."""

    name: str
    tree: dict[str, Any]
    written: frozenset[Keys]


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 5e-7 as a number and refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value!r} is written twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+\Z"), list("-+0123456789")
)


def read_layers(path: Path, chain: tuple[Path, ...] = ()) -> list[Layer]:
    """A recipe file and the files it extends, the farthest ancestor first.

    Raises UserError for a file that is missing, not YAML or not a mapping, and for files in a circle.
    """
    if path.resolve() in (file.resolve() for file in chain):
        raise UserError(" -> ".join(map(str, (*chain, path))) + ": found a circle of `extends`; accepted: a line")
    tree = _parse_file(path, asked_by=chain[-1] if chain else None)
    parent = tree.pop("extends", None)
    if parent is not None and not (isinstance(parent, str) and parent):
        raise UserError(f"{path}: extends: found {parent!r}; accepted: the path of one recipe file")
    tree = _located(tree, Path(os.path.abspath(path.parent)))
    before = read_layers(Path(os.path.normpath(path.parent / parent)), (*chain, path)) if parent else []
    return [*before, Layer(str(path), tree, frozenset(_key_paths(tree)))]


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], Layer]:
    """The tree after every `a.b=c`, in order, and the layer that says which keys they wrote.

    Values are YAML; relative paths in them count from the working directory.
    Raises UserError for text that is not `key=value` and for keys that lead through a value or past a list.
    """
    written: set[Keys] = set()
    for text in overrides:
        name, equals, raw = text.partition("=")
        keys = tuple(name.strip().split("."))
        if not equals or not all(keys):
            raise UserError(f"{COMMAND_LINE}: found {text!r}; accepted: key.path=value, for example train.lr=1e-6")
        try:
            value = _located(load_yaml(raw), Path.cwd())
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(
                f"{COMMAND_LINE}: {name}: found {raw!r}; accepted: a YAML value ({_line(error)})"
            ) from error
        tree = assign(tree, keys, value)
        written |= {keys[:length] for length in range(1, len(keys))} | _key_paths(value, keys)
    return tree, Layer(COMMAND_LINE, {}, frozenset(written))


def merge(parent: Any, child: Any) -> Any:
    """The parent's keys, overlaid by the child's. Lists are replaced, and nodes whose `kind` changes."""
    if not (isinstance(parent, dict) and isinstance(child, dict)) or _changes_kind(parent, child.get("kind")):
        return child
    return parent | {key: merge(parent[key], value) if key in parent else value for key, value in child.items()}


def assign(tree: Any, keys: Keys, value: Any, parents: Keys = (), *, source: str = COMMAND_LINE) -> Any:
    """A copy of the tree with one key path set. A new `kind` drops the siblings, keys of the old variant.

    Raises UserError, in the name of `source`, for keys that lead through a value or past a list.
    """
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if isinstance(tree, list):
        if not head.isdecimal() or int(head) >= len(tree):
            accepted = f"0 to {len(tree) - 1}" if tree else "no entry, the list is empty"
            raise UserError(f"{source}: {'.'.join(parents)}: found entry {head!r}; accepted: {accepted}")
        changed = assign(tree[int(head)], rest, value, (*parents, head), source=source)
        return [changed if index == int(head) else old for index, old in enumerate(tree)]
    if not isinstance(tree, dict | None):
        problem = f"{'.'.join(parents)} is {tree!r} and has no key {head!r}"
        raise UserError(f"{source}: {'.'.join((*parents, *keys))}: {problem}; accepted: a key of the recipe")
    tree = tree or {}
    if keys == ("kind",) and _changes_kind(tree, value):
        return {"kind": value}
    return tree | {head: assign(tree.get(head), rest, value, (*parents, head), source=source)}


def problems(error: ValidationError, root: type[BaseModel], layers: Sequence[Layer], fallback: str) -> list[str]:
    """Each problem as `file: key.path: what was found; what is accepted`.

    The file is the last layer that wrote the key (of a missing key: its node), else `fallback`.
    """
    lines = []
    for detail in error.errors(include_url=False):
        keys, node = _walk(root, detail["loc"])
        if _lacks_kind(detail):
            keys = (*keys, "kind")
        for text in _describe(detail, node, keys):
            key, text = (".".join(keys), text) if keys else text.split(": ", 1)
            written = tuple(key.split("."))
            written = written[:-1] if detail["type"] in ("missing", "union_tag_not_found") else written
            lines.append(f"{_origin(written, layers) or fallback}: {key}: {text}")
    return lines


def node_types(annotation: Any) -> list[type[BaseModel]]:
    """The node classes an annotation names, through unions, lists and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in node_types(part)]


def _parse_file(path: Path, asked_by: Path | None) -> dict[str, Any]:
    whose = f"{asked_by}: extends: {path}" if asked_by else str(path)
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{whose}: {error.strerror}; accepted: a YAML recipe file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{whose}: found text that is not YAML ({_line(error)}); accepted: a YAML mapping") from error
    if not isinstance(tree, dict):
        found = "an empty file" if tree is None else f"a {type(tree).__name__}"
        raise UserError(f"{whose}: found {found}; accepted: a YAML mapping of recipe keys")
    return tree


def load_yaml(text: str) -> Any:
    """A YAML text's value, in safe types. Raises yaml.YAMLError or ValueError for text that is not YAML, or no tree."""
    try:
        tree = yaml.load(text, _Loader)
        _count(tree, (), 0)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return tree


def _count(value: Any, above: tuple[int, ...], num: int) -> int:
    """How many values there are, aliases unfolded. Raises ValueError where one holds itself, and of too many."""
    if id(value) in above:
        raise ValueError("an alias stands within what it names")
    if num > _MOST:
        raise ValueError(f"aliases unfold to more than {_MOST:,} values")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return reduce(lambda total, part: _count(part, (*above, id(value)), total), parts, num + 1)


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {getattr(error, 'problem', None)}" if mark else str(error).splitlines()[0]


def _located(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _located(part, folder) for key, part in value.items()}
    if isinstance(value, list):
        return [_located(part, folder) for part in value]
    if isinstance(value, str):
        value = Located(value)
        value.folder = folder
    return value


def _key_paths(value: Any, prefix: Keys = ()) -> set[Keys]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below: set[Keys] = {prefix} if prefix else set()
    return below.union(*(_key_paths(part, (*prefix, str(key))) for key, part in parts))


def _changes_kind(node: dict[str, Any], kind: Any) -> bool:
    return kind is not None and node.get("kind", kind) != kind


def _origin(keys: Keys, layers: Sequence[Layer]) -> str | None:
    for length in range(len(keys), 0, -1):
        for layer in reversed(layers):
            if keys[:length] in layer.written:
                return layer.name
    return None


def _walk(root: type[BaseModel], loc: Sequence[int | str]) -> tuple[Keys, type[BaseModel]]:
    """A pydantic location without its union tags, and the node class that owns its last key."""
    keys: list[str] = []
    owner, options = root, [root]
    for part in loc:
        chosen = [node for node in options if len(options) > 1 and part in _kinds(node)]
        if chosen:
            options = chosen
            continue
        keys.append(str(part))
        if len(options) == 1:
            owner = options[0]
        if isinstance(part, str):
            field = owner.model_fields.get(part)
            options = node_types(field.annotation) if field else []
    return tuple(keys), owner


def _kinds(node: type[BaseModel]) -> tuple[str, ...]:
    """The values of `kind` that stand for the node."""
    return get_args(node.model_fields["kind"].annotation)


def _lacks_kind(detail: Any) -> bool:
    return detail["type"].startswith("union_tag") and isinstance(detail["input"], dict)


def _describe(detail: Any, node: type[BaseModel], keys: Keys) -> list[str]:
    context, last = detail.get("ctx", {}), keys[-1] if keys else ""
    field = node.model_fields.get(last)
    found = "nothing" if detail["type"] == "missing" else _short(detail["input"])
    meaning = f" ({field.description})" if field and field.description else ""
    match detail["type"]:
        case "value_error":
            return str(context["error"]).splitlines()
        case "extra_forbidden" | "invalid_key":
            known = list(node.model_fields)
            return [f"found an unknown key{_nearest(last, known)}; accepted: {', '.join(known)}"]
        case _ if _lacks_kind(detail):
            kind = detail["input"].get("kind")
            kinds = [kind for option in _options_at(node, keys) for kind in _kinds(option)]
            found = "nothing" if kind is None else _short(kind) + _nearest(str(kind), kinds)
            return [f"found {found}; accepted: {', '.join(kinds)}"]
        case "missing":
            accepted = "a value"
        case "model_type" | "model_attributes_type" | "union_tag_not_found":
            accepted = "a mapping of keys"
        case "tuple_type":
            accepted = "a list"
        case _:
            accepted = re.sub(r"^\w+ should (be|have) ", "", detail["msg"])
    return [f"found {found}; accepted: {accepted}{meaning}"]


def _options_at(node: type[BaseModel], keys: Keys) -> list[type[BaseModel]]:
    name = next(key for key in reversed(keys[:-1]) if not key.isdecimal())
    return node_types(node.model_fields[name].annotation)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
