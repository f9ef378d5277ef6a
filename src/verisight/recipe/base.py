"""What every node of a recipe is made of: frozen, no unknown keys, constrained values, absolute paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from verisight.recipe.yaml_tree import Located


@dataclass(frozen=True)
class MustBe:
    """Mark of a field whose value has to exist, such as a file, or a model (folder, hub id or `pocket`)."""

    what: Literal["file", "folder", "model", "data", "pictures"]


def _absolute(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise ValueError("found an empty path; accepted: a path")
    folder = value.folder if isinstance(value, Located) else Path.cwd()
    return Path(os.path.abspath(folder / Path(value).expanduser()))


def _absolute_from_cwd(value: Any) -> Any:
    return _absolute(Path(value) if isinstance(value, str) and value else value)


def _name_or_folder(value: Any) -> Any:
    if not isinstance(value, str) or value in ("", "pocket"):
        return value
    folder = _absolute(value)
    return str(folder) if value[0] in "./~" or folder.is_dir() else value


def about(meaning: str) -> Any:
    """What a field is, in one line; `[...]` at the end cites where it comes from."""
    return Field(description=meaning)


Positive = Annotated[float, Field(gt=0, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Nucleus = Annotated[float, Field(gt=0, le=1, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Smoothing = Annotated[float, Field(ge=0, lt=0.5, strict=True)]
Momentum = Annotated[float, Field(ge=0, lt=1, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
File = Annotated[Path, BeforeValidator(_absolute), MustBe("file")]
OptionalFile = Annotated[Path | None, BeforeValidator(_absolute), MustBe("file")]
Folder = Annotated[Path, BeforeValidator(_absolute), MustBe("folder")]
OptionalFolder = Annotated[Path | None, BeforeValidator(_absolute)]  # made when it is missing
DataPath = Annotated[Path, BeforeValidator(_absolute), MustBe("data")]
OptionalPictures = Annotated[Path | None, BeforeValidator(_absolute), MustBe("pictures")]
Output = Annotated[Path, BeforeValidator(_absolute_from_cwd)]
Pretrained = Annotated[str, Field(min_length=1), BeforeValidator(_name_or_folder), MustBe("model")]


class Node(BaseModel):
    """A frozen node of the tree. Where a node is the default, its `kind` may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fill_default_kinds(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kinds = {name: getattr(field.default, "kind", None) for name, field in cls.model_fields.items()}
        bare = [name for name, value in data.items() if isinstance(value, dict) and kinds.get(name)]
        return data | {name: {"kind": kinds[name]} | data[name] for name in bare}

    def refuse(self, found: list[str]) -> Self:
        """The node itself, or one ValueError with a line per contradiction that was found in it."""
        if found:
            raise ValueError("\n".join(found))
        return self


def walk(node: Node, key: str = "") -> Iterator[tuple[str, Node]]:
    """The node and every node below it, each with its dotted key ("" for the root)."""
    yield key, node
    for name in type(node).model_fields:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield from walk(value, join(key, name))
        elif _holds_nodes(value):
            for index, part in enumerate(value):
                yield from walk(part, join(key, f"{name}.{index}"))


def leaves(node: Node) -> Iterator[tuple[str, FieldInfo]]:
    """Names and fields of a node's plain values: no nodes below, no `kind`."""
    for name, field in type(node).model_fields.items():
        value = getattr(node, name)
        if name != "kind" and not isinstance(value, Node) and not _holds_nodes(value):
            yield name, field


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(part, Node) for part in value)


def join(key: str, name: str) -> str:
    """A dotted key."""
    return f"{key}.{name}" if key else name
