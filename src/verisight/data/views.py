"""Sequences of pairs that lie elsewhere. A view holds a few bytes a row and makes a pair when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, overload

import numpy as np

from verisight.types import Answer, Group, Message, Pair


class Rows(Sequence[Pair]):
    """Pairs by number. A slice is a view."""

    @abstractmethod
    def at(self, number: int) -> Pair:
        """Pair `number`, 0 to len - 1."""

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> View: ...
    def __getitem__(self, index: int | slice) -> Pair | View:
        """One pair, or a view on several."""
        if isinstance(index, slice):
            return View(self, range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self.at(int(number))


class View(Rows):
    """Some of the pairs of `rows`, in the order of `index`; `told` goes into their provenance."""

    def __init__(self, rows: Sequence[Pair], index: Sequence[int] | np.ndarray, *, told: str = "") -> None:
        self._rows = rows
        self._index = np.asarray(index, dtype=np.int64)
        self._told = told

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._index)

    def at(self, number: int) -> Pair:
        """Pair `number` of the view."""
        return told(self._rows[int(self._index[number])], self._told)


class Chain(Rows):
    """The pairs of several parts, one part behind the other."""

    def __init__(self, parts: Sequence[Sequence[Pair]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """How many pairs there are."""
        return int(self._ends[-1])

    def at(self, number: int) -> Pair:
        """Pair `number`, the parts counted through."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        return self._parts[part][number - int(self._ends[part]) + len(self._parts[part])]


class Replaced(Rows):
    """The pairs of `rows`, an answer of each taken from the pair of `others` that `partner` names."""

    def __init__(
        self,
        rows: Sequence[Pair],
        others: Sequence[Pair],
        partner: Sequence[int],
        *,
        which: Literal["chosen", "rejected"],
        told: str,
    ) -> None:
        self._rows, self._others, self._partner = rows, others, np.asarray(partner, dtype=np.int64)
        self._which, self._told = which, told

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self._rows)

    def at(self, number: int) -> Pair:
        """Pair `number`, with the notes that belong to the answer it was given."""
        mine, other = self._rows[number], self._others[int(self._partner[number])]
        notes = {key: value for key, value in mine.notes.items() if not key.startswith(f"{self._which}_")}
        notes |= {key: value for key, value in other.notes.items() if key.startswith(f"{self._which}_")}
        notes.pop("changed", None)  # spans of the answers as they were
        licences = [str(pair.notes["license"]) for pair in (mine, other) if pair.notes.get("license")]
        if licences:
            notes["license"] = " and ".join(dict.fromkeys(licences))
        if self._which == "chosen":
            swapped = replace(mine, chosen=other.chosen, notes=notes)
        else:
            swapped = replace(mine, rejected=other.rejected, weights=other.weights, notes=notes)
        return told(swapped, f"{self._told} {other.prompt.provenance}")


class Groups(Sequence[Group]):
    """The groups of pairs, made when they are asked for."""

    def __init__(self, rows: Sequence[Pair]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> Groups: ...
    def __getitem__(self, index: int | slice) -> Group | Groups:
        """One group, or a view on several."""
        return Groups(self._rows[index]) if isinstance(index, slice) else self._rows[index].group


class Singles(Rows):
    """Rows of several turns as one supervised pair per answer, the turns before it as history; rejected answers go.

    A row of one turn keeps its uid; else `/0`, `/1`, ... is added.
    """

    def __init__(self, rows: Sequence[Pair]) -> None:
        places = [(row, turn) for row, pair in enumerate(rows) for turn in range(1 + len(pair.chosen.follow_up) // 2)]
        self._rows, self._places = rows, np.asarray(places, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """How many answers there are."""
        return len(self._places)

    def at(self, number: int) -> Pair:
        """Answer `number`, all rows' answers counted through."""
        row, turn = self._places[number]
        return split_turns(self._rows[int(row)])[turn]


def split_turns(pair: Pair) -> list[Pair]:
    """One row as `Singles` gives it, without what its notes said of rejected answers."""
    notes = {key: note for key, note in pair.notes.items() if key != "changed" and not key.startswith("rejected_")}
    pair = replace(pair, rejected=(), weights=(), notes=notes)
    if not pair.chosen.follow_up:
        return [pair]
    prompt = pair.prompt
    turns = (Message("user", prompt.text), Message("assistant", pair.chosen.text), *pair.chosen.follow_up)
    return [
        replace(
            pair,
            prompt=replace(
                prompt,
                uid=f"{prompt.uid}/{number}",
                text=turns[start].text,
                history=(*prompt.history, *turns[:start]),
            ),
            chosen=Answer(turns[start + 1].text),
        )
        for number, start in enumerate(range(0, len(turns), 2))
    ]


def told(pair: Pair, step: str) -> Pair:
    """The pair with a step behind its provenance ("": none)."""
    if not step:
        return pair
    return replace(pair, prompt=replace(pair.prompt, provenance=f"{pair.prompt.provenance} > {step}"))
