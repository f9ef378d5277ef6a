"""Values of annotation files, checked where they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verisight.types import UserError


def text_field(row: Mapping[str, Any], key: str, where: str, *, numbers: bool = False) -> str:
    """A text that is not empty; with `numbers` a whole number too, as text.

    Raises:
        UserError: anything else. `where` names file and row.
    """
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int if numbers else str) or value == "":
        accepted = "a text or a whole number" if numbers else "a text"
        raise UserError(f"{where}.{key} is {short(value)}; accepted is {accepted}")
    return str(value)


def short(value: object) -> str:
    """What was found, for messages."""
    return "missing" if value is None else repr(value)[:80]
