"""Public preference data by name: a file in, pairs and what cannot be used out, row by row. Nothing is dropped unseen.

A data set is one small function and its row type in one of the modules beside this one, and a line in `FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from verisight.data.images import ImageError
from verisight.data.outcome import Outcome, Read, collect
from verisight.data.pairing import AllPairs, Rule
from verisight.data.pictures import Pictures, Trust
from verisight.data.readers.base import Desk, Format
from verisight.data.readers.later import BPO, MDPO, MM_RLHF, SPA_VL
from verisight.data.readers.llava import CSR, LLAVA_INSTRUCT, LLAVA_RLHF, POVID
from verisight.data.readers.nlf import NLF
from verisight.data.readers.own import PAIRS
from verisight.data.readers.rlhf_v import RLAIF_V, RLHF_V
from verisight.data.readers.tools import LLAMA_FACTORY, MS_SWIFT, TRL
from verisight.data.readers.vlfeedback import VLFEEDBACK
from verisight.data.rows import Raw, Unusable, container_of, data_files, raw_rows
from verisight.data.texts import shorten
from verisight.types import BadRow, Pair, UserError

AUTO = "auto"
# Layouts whose keys others have too come later: the first that fits is taken.
FORMATS: tuple[Format, ...] = (
    PAIRS, POVID, CSR, LLAVA_RLHF, BPO, VLFEEDBACK, NLF, RLHF_V, RLAIF_V, SPA_VL, MDPO, MM_RLHF,
    LLAMA_FACTORY, MS_SWIFT, TRL, LLAVA_INSTRUCT,
)  # fmt: skip
_SAMPLE = 50  # rows that `auto` looks at


@dataclass(frozen=True, slots=True)
class Reading:
    """An opened data set. Each walk over it reads the files anew, row by row; memory does not grow with their rows."""

    files: tuple[Path, ...]
    format: Format
    seen: str  # what the file looked like, and what it was taken for
    images: Path | None = None
    check_images: bool = True
    text_only: bool = False
    rule: Rule = field(default_factory=AllPairs)
    trust: Trust = "none"

    def __iter__(self) -> Iterator[Outcome]:
        """What every row gave, in order. Raises UserError where a file breaks off."""
        for number, file in enumerate(self.files):
            prefix = f"{number}/" if len(self.files) > 1 else ""
            pictures = Pictures(self.images, decode=self.check_images, base=file.parent, trust_paths=self.trust)
            desk = Desk(pictures, text_only=self.text_only, rule=self.rule)
            for raw in raw_rows(file):
                yield self._outcome(raw, desk, prefix=prefix)

    def read(self, limit: int | None = None) -> Read:
        """All of it (or its first rows) in memory."""
        return collect(islice(self, limit))

    def _outcome(self, raw: Raw, desk: Desk, *, prefix: str) -> Outcome:
        made: list[Pair] = []
        bad: list[BadRow] = []
        file, row = str(raw.file), raw.row
        try:
            if isinstance(raw.value, Unusable):
                raise raw.value
            for one in self.format.read(self.format.parse(raw.value), desk):
                if isinstance(one, Unusable):
                    bad.append(BadRow(file, row, one.reason, one.detail, fault=one.fault))
                else:
                    made.append(one)
        except Unusable as error:
            bad.append(BadRow(file, row, error.reason, error.detail, fault=error.fault))
        except ImageError as error:
            bad.append(BadRow(file, row, error.reason, error.detail))
        several = len(made) > 1
        pairs = (self._named(pair, raw, prefix, f".{n}" if several else "") for n, pair in enumerate(made))
        return Outcome(file, row, tuple(pairs), tuple(bad))

    def _named(self, pair: Pair, raw: Raw, prefix: str, suffix: str) -> Pair:
        """The pair with its row's place: uid, split group, provenance, origin and licence. Rows we wrote have them."""
        place = f"{prefix}{raw.row}"
        if self.format.trusted or pair.prompt.provenance:
            prompt = pair.prompt
            provenance = prompt.provenance or f"{raw.file.name}#{raw.row}"
            return replace(pair, prompt=replace(prompt, uid=prompt.uid or place, provenance=provenance))
        uid = f"{place}:{pair.prompt.uid}{suffix}" if pair.prompt.uid else f"{place}{suffix}"
        prompt = replace(
            pair.prompt,
            uid=uid,
            split_group=pair.prompt.split_group or uid,
            provenance=f"{raw.file.name}#{raw.row}{suffix}",
        )
        notes = {"dataset": self.format.name} | pair.notes
        if self.format.license:
            notes.setdefault("license", self.format.license)
        return replace(pair, prompt=prompt, origin=self.format.name, notes=notes)


def open_data(
    path: Path,
    *,
    kind: str = AUTO,
    images: Path | None = None,
    check_images: bool = True,
    text_only: bool = False,
    rule: Rule | None = None,
) -> Reading:
    """Open a file, a pattern of files or a folder of Parquet shards in one of the layouts of `FORMATS`.

    Args:
        path: the data. Its container (JSON list, JSON lines, Parquet, TSV) is told by its content.
        kind: the layout's name, or "auto" to tell it by the first rows' keys. Paths in a file of kind "pairs" are
            trusted when it is named; told by its keys, only those whose file has the hash that the row gives.
        images: folder or zip archive that picture names count from; None where pictures are in the data.
        check_images: decode every picture once; else their files only have to exist.
        text_only: accept rows without a picture.
        rule: how scores become pairs, for sets that have scores (None there: every two answers of different score).

    Raises:
        UserError: no such data or layout, `images` is neither, or no row of the first ones fits.
    """
    files = data_files(path)
    if images is not None and not os.path.exists(images):
        raise UserError(f"{path}: images: {images} is not there; accepted: a folder or a zip archive")
    container = container_of(files[0])
    rows = _first_rows(files[0])
    if kind == AUTO:
        format = recognise(rows, file=files[0])
    else:
        format = _by_name(kind)
        _check_fits(format, rows, file=files[0])
    if rule is not None and not format.scored:
        rated = ", ".join(one.name for one in FORMATS if one.scored)
        raise UserError(f"{path}: rule: found {rule} with kind {format.name}, which has no scores; accepted: {rated}")
    seen = f"{container}{_keys(rows)}: {format.title}"
    trust: Trust = "none" if not format.trusted else "known" if kind == AUTO else "all"
    return Reading(files, format, seen, images, check_images, text_only, rule or AllPairs(), trust)


def recognise(rows: list[Any], *, file: Path) -> Format:
    """The first layout that most of the rows fit. Raises UserError, naming the keys, where none does."""
    whole = [row for row in rows if not isinstance(row, Unusable)]
    for format in FORMATS:
        if whole and sum(format.fits(row) for row in whole) * 2 > len(whole):
            return format
    if not rows:
        raise UserError(f"{file}: no rows, so its layout cannot be told; accepted: a kind by name")
    problem = f": {rows[0].reason} ({rows[0].detail})" if isinstance(rows[0], Unusable) else _keys(whole)
    known = "".join(f"\n  {one.name}: {one.accepted}" for one in FORMATS)
    raise UserError(f"{file}: no known layout{problem}; accepted:{known}")


def _by_name(kind: str) -> Format:
    for format in FORMATS:
        if format.name == kind:
            return format
    raise UserError(f"kind: found {kind!r}; accepted: {AUTO}, {', '.join(one.name for one in FORMATS)}")


def _check_fits(format: Format, rows: list[Any], *, file: Path) -> None:
    whole = [row for row in rows if not isinstance(row, Unusable)]
    if whole and not any(isinstance(row, dict | list) for row in whole):
        raise UserError(f"{file}: found rows of type {type(whole[0]).__name__}; accepted: objects")
    if whole and not any(format.has_keys(row) for row in whole):
        raise UserError(
            f"{file}: kind {format.name}: found rows with{_keys(whole)}; accepted: rows with {format.accepted}"
        )


def _first_rows(file: Path) -> list[Any]:
    return [raw.value for raw in islice(raw_rows(file), _SAMPLE)]


def _keys(rows: list[Any]) -> str:
    if not rows:
        return ""
    if isinstance(rows[0], dict):
        names = [shorten(str(key))[1:-1] for key in rows[0]]
        return f" keys {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"
    if isinstance(rows[0], list):
        return f" {len(rows[0])} columns"
    return f" rows of type {type(rows[0]).__name__}"
