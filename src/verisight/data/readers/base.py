"""What every reader is made of: a `Format` describes a public layout, helpers turn its texts into prompts and pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NotRequired, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from verisight.data.encoded import ImageError
from verisight.data.pairing import AllPairs, Rule
from verisight.data.pictures import Pictures, group
from verisight.data.rows import Unusable
from verisight.data.texts import EQUAL, PLACEHOLDER, answer, check_roles, check_unicode, clean, place, shorten
from verisight.types import Answer, ImageRef, Message, Pair, Prompt

_NOTES = json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a reader works with: where pictures are found, whether rows without one count, how scores become pairs."""

    pictures: Pictures
    text_only: bool = False
    rule: Rule = field(default_factory=AllPairs)


@dataclass(frozen=True)
class Format:
    """A public layout of rows.

    `shape` is the typed dict that a row has to fit; `read` turns such a row into pairs, and into `Unusable` for what
    it leaves out; it raises `Unusable` for the whole row. `where` tells layouts with the same keys apart. Every row has
    one of the keys `one_of`, if there are any. `columns` name the fields of a TSV line.
    """

    name: str
    title: str
    source: str
    license: str  # the tag its publisher gives; "" where there is none
    shape: Any
    read: Callable[[Any, Desk], Iterable[Pair | Unusable]]
    where: Callable[[dict[str, Any]], bool] = lambda row: True
    scored: bool = False  # answers have scores, of which a rule makes pairs
    trusted: bool = False  # written here: pictures may lie anywhere
    one_of: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys that every row of the layout has."""
        hints = get_type_hints(self.shape, include_extras=True)
        return frozenset(key for key, hint in hints.items() if get_origin(hint) is not NotRequired)

    @property
    def accepted(self) -> str:
        """The keys of a row, in words."""
        keys = [*sorted(self.keys), " or ".join(sorted(self.one_of))]
        columns = f", or {len(self.columns)} columns" if self.columns else ""
        return ", ".join(filter(None, keys)) + columns

    def has_keys(self, row: Any) -> bool:
        """Whether a raw row has the keys of this layout."""
        named = self._named(row)
        return (
            isinstance(named, dict)
            and self.keys <= named.keys()
            and (not self.one_of or not self.one_of.isdisjoint(named))
        )

    def fits(self, row: Any) -> bool:
        """Whether a raw row looks like one of this layout."""
        return self.has_keys(row) and self.where(self._named(row))

    def parse(self, row: Any) -> Any:
        """The row, its types checked and unknown keys left out; raises Unusable."""
        if self.columns and isinstance(row, list) and len(row) != len(self.columns):
            raise Unusable("wrong number of columns", f"found {len(row)}; accepted: {len(self.columns)}")
        return parse(self._adapter, self._named(row))

    def _named(self, row: Any) -> Any:
        fields = isinstance(row, list) and bool(self.columns) and len(row) == len(self.columns)
        return dict(zip(self.columns, row, strict=True)) if fields else row

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.shape)


def parse(adapter: TypeAdapter[Any], value: Any) -> Any:
    """A value of the adapter's type, unknown keys left out; raises Unusable that names the key, found and accepted."""
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"])) or "the row"
        if found["type"] == "missing":
            raise Unusable("missing key", key) from error
        accepted = found["msg"].removeprefix("Input should be ")
        what = f"{type(found['input']).__name__} {shorten(str(found['input']))}"
        raise Unusable("wrong type", f"{key}: found {what}; accepted: {accepted}") from error


def picture(cell: Any, desk: Desk, *, name: object = "") -> tuple[ImageRef, str]:
    """A picture in a cell (bytes, a path, or a struct of both), and the group that a split keeps together.

    `name` is what the row calls it elsewhere. Raises ImageError.
    """
    ref = desk.pictures.cell(cell)
    names = (name, cell.get("path") if isinstance(cell, dict) else cell)
    return ref, group(ref, next((one for one in names if isinstance(one, str) and one), ""))


def first_picture(cells: Iterable[Any], desk: Desk, *, name: object = "") -> tuple[ImageRef, str]:
    """The first of several cells that holds a picture, as `picture` gives it.

    Raises ImageError: that of the first cell where none does, or at once for one that holds a broken picture.
    """
    missing: ImageError | None = None
    for cell in cells:
        try:
            return picture(cell, desk, name=name)
        except ImageError as error:
            if error.reason not in ("image missing", "image outside root"):
                raise
            missing = missing or error
    raise missing or ImageError("image missing", "the row names none")


def prompt(
    turns: Sequence[Message], images: Sequence[ImageRef], desk: Desk, *, uid: str | int = "", group: str = ""
) -> tuple[Prompt, dict[str, Any]]:
    """The prompt that `turns` (user first and last) make, its placeholders taken out, and what notes say of them.

    A placeholder may stand anywhere in the user's turns, once for every picture, or not at all. Raises Unusable.
    """
    check_roles([*(turn.role for turn in turns), "assistant"])
    if not images and not desk.text_only:
        raise Unusable("no image", f"the row names none: {shorten(turns[-1].text)}")
    places = [place(turn.text) for turn in turns if turn.role == "user"]
    num = sum(turn.text.count(PLACEHOLDER) for turn in turns if turn.role == "user")
    if num not in (0, len(images)):
        raise Unusable("placeholders do not fit", f"{num} {PLACEHOLDER} for {len(images)} pictures")
    told = tuple(clean(turn) for turn in turns)
    check_unicode(str(uid), group)
    made = Prompt(str(uid), tuple(images), told[-1].text, told[:-1], split_group=group)
    return made, {"placeholder": next((one for one in places if one != "none"), "none")}


def pair(made: Prompt, chosen: str | None, rejected: str | None, notes: dict[str, Any]) -> Pair:
    """One chosen and one rejected answer; raises Unusable where they are empty or equal. Notes of None are dropped."""
    first, second = answer(chosen, "chosen"), answer(rejected, "rejected")
    if first.strip() == second.strip():
        raise Unusable(EQUAL, shorten(first))
    return Pair(made, Answer(first), (Answer(second),), (1.0,), notes=noted(notes))


def noted(notes: dict[str, Any]) -> dict[str, Any]:
    """The notes that are not None; raises Unusable where they cannot be written as JSON in UTF-8."""
    kept = {key: value for key, value in notes.items() if value is not None}
    try:
        _NOTES.encode(kept).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable("notes unreadable", f"{shorten(ascii(kept))}: {error}") from error
    return kept


def compare(made: Prompt, chosen: Sequence[Message], rejected: Sequence[Message], notes: dict[str, Any]) -> Pair:
    """Two answers with the turns behind them, assistant first and last; raises Unusable as `pair`."""
    if len(chosen) == len(rejected) == 1:
        return pair(made, chosen[0].text, rejected[0].text, notes)
    sides = [continued(turns) for turns in (chosen, rejected)]
    said = [[answer.text.strip(), *(turn.text.strip() for turn in answer.follow_up)] for answer in sides]
    if said[0] == said[1]:
        raise Unusable(EQUAL, shorten(sides[0].text))
    return Pair(made, sides[0], (sides[1],), (1.0,), notes=noted(notes))


def continued(turns: Sequence[Message]) -> Answer:
    """An answer and the turns behind it; raises Unusable for turns out of order, and a placeholder in them."""
    check_roles(["user", *(turn.role for turn in turns)])
    for turn in turns:
        if turn.role == "user" and PLACEHOLDER in turn.text:
            raise Unusable("placeholders do not fit", f"{PLACEHOLDER} behind the first answer: {shorten(turn.text)}")
    first, *rest = (clean(turn) for turn in turns)
    return Answer(first.text, tuple(rest))


def ruled(made: Prompt, chosen: str | None, rejected: str | None, notes: dict[str, Any]) -> Pair | Unusable:
    """The pair a rule made, or why it is none. That equal answers were rated apart is no fault of the row."""
    try:
        return pair(made, chosen, rejected, notes)
    except Unusable as error:
        return Unusable(error.reason, error.detail, fault=error.reason != EQUAL)
