"""What the exports share: one JSON object a line, pictures as files, and what cannot be written counted."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from verisight.data.encoded import ImageError, encoded_bytes, where_is
from verisight.data.files import replacing
from verisight.data.images import FORMATS, ImageChecker
from verisight.data.rows import Unusable
from verisight.data.texts import EQUAL, check_unicode, shorten
from verisight.types import BadRow, ImageRef, Message, Pair, UserError

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_TYPED_BYTES = 10 * 2**20  # from so much of a file both tools (by way of `datasets`) tell what a column holds
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    `num_pictures` counts files written below `images`. `num_unseen` counts rejected answers that the tool will not
    see, because it takes one a row; they are kept for reading back. `bad` are pairs left out: `row` counts pairs
    from 0.
    """

    files: tuple[Path, ...]
    num_rows: int
    num_pictures: int
    num_unseen: int
    bad: tuple[BadRow, ...]


class Layout(NamedTuple):
    """How a tool wants its rows: `row` gives the keys that hold texts, `marks` are what it takes for media in them."""

    row: Callable[[Pair], dict[str, Any]]
    preference: bool
    marks: tuple[str, ...]


def peek(pairs: Iterable[Pair]) -> tuple[Iterable[Pair], bool]:
    """All pairs again, and whether they are preferences, by the first."""
    rest = iter(pairs)
    for first in rest:
        return chain([first], rest), bool(first.rejected)
    raise UserError("no pairs: there is nothing to export")


def file_name(name: str) -> str:
    """Of a data set called `name`; raises UserError where LLaMA-Factory or a file system could not hold the name."""
    if not name.strip(".") or not _NAME_CHARACTERS.issuperset(name):
        raise UserError(f"name {name!r}: ASCII letters, digits and ._- are accepted")
    return f"{name}.jsonl"


def write_rows(path: Path, pairs: Iterable[Pair], layout: Layout, placer: Placer) -> Exported:
    """Write all pairs that can be, atomically. Raises UserError as `to_llama_factory` says."""
    bad: list[BadRow] = []
    num_rows = num_unseen = num_bytes = 0
    pictured = False
    with replacing(path) as handle:
        for index, pair in enumerate(pairs):
            _check_kind(pair, index, path, preference=layout.preference)
            try:
                line = _line(pair, layout, placer)
            except (Unusable, ImageError) as error:
                bad.append(BadRow(str(path), index, error.reason, f"{pair.prompt.uid}: {error.detail}"))
                continue
            if pair.prompt.images and not pictured and num_bytes > _TYPED_BYTES:
                raise UserError(
                    f"{path}: pair {index} ({pair.prompt.uid}) is the first with a picture, behind "
                    f"{num_bytes:,} bytes of rows without; the tool would refuse it, so put it in front of them"
                )
            handle.write(line)
            pictured, num_bytes = pictured or bool(pair.prompt.images), num_bytes + len(line)
            num_rows, num_unseen = num_rows + 1, num_unseen + len(pair.rejected[1:])
        if not num_rows:
            raise UserError(
                f"{path}: none of {len(bad)} pairs can be used, the first: {bad[0].reason}: {bad[0].detail}"
            )
    return Exported((path,), num_rows, placer.num_written, num_unseen, tuple(bad))


def _check_kind(pair: Pair, index: int, path: Path, *, preference: bool) -> None:
    if bool(pair.rejected) != preference:
        kinds = ("supervised", "a preference")
        raise UserError(
            f"{path}: pair {index} ({pair.prompt.uid}) is {kinds[not preference]}, those before are "
            f"{kinds[preference]}; a file holds one kind, export them apart"
        )


def _line(pair: Pair, layout: Layout, placer: Placer) -> bytes:
    """The row of a pair; raises Unusable or ImageError."""
    told = [*turns_before(pair), *turns_after(pair)]
    if pair.rejected:
        if pair.chosen.follow_up or any(answer.follow_up for answer in pair.rejected):
            raise Unusable("answer of several turns", "one turn is compared; accepted: the pair split by its turns")
        first = pair.rejected[0].text
        if pair.chosen.text.strip() == first.strip():
            raise Unusable(EQUAL, shorten(first))
        told.append(Message("assistant", first))
    for mark in layout.marks:
        for turn in told:
            if mark in turn.text:
                raise Unusable(f"{mark} in a text", shorten(turn.text))
    refs = [placer(ref) for ref in pair.prompt.images]
    own = _own(pair, [ref.sha256 for ref in refs])
    row = {**layout.row(pair), "images": [placer.name(ref) for ref in refs], "verisight": own}
    line = json.dumps(row, ensure_ascii=False) + "\n"
    check_unicode(line)
    return line.encode()


def _own(pair: Pair, hashes: list[str | None]) -> str:
    """What the tools have no place for."""
    prompt = pair.prompt
    value = {
        "uid": prompt.uid,
        "origin": pair.origin,
        "provenance": prompt.provenance,
        "split_group": prompt.split_group,
        "notes": pair.notes,
        "weights": list(pair.weights),
        "image_sha256": hashes,
        "extra_rejected": [answer.text for answer in pair.rejected[1:]],
        "num_history": len(prompt.history),
    }
    return json.dumps(value, ensure_ascii=False)


def turns_before(pair: Pair) -> list[Message]:
    """The turns up to the question."""
    return [*pair.prompt.history, Message("user", pair.prompt.text)]


def turns_after(pair: Pair) -> list[Message]:
    """The chosen turns."""
    return [Message("assistant", pair.chosen.text), *pair.chosen.follow_up]


class Placer:
    """Sees to it that a picture is a file, and names it."""

    def __init__(self, folder: Path, *, copy: bool, relative: bool) -> None:
        self.num_written = 0
        self._folder = folder
        self._copy = copy
        self._relative = relative
        self._check = ImageChecker(decode=False)
        self._stored = lru_cache(maxsize=1024)(self._store)

    def __call__(self, ref: ImageRef) -> ImageRef:
        """The picture as a file, with its hash where it was written; raises ImageError."""
        if ref.data is not None:
            return self._store(ref)
        return self._stored(ref) if self._copy or ref.member is not None else self._check(ref)

    def name(self, ref: ImageRef) -> str:
        """How rows name a file."""
        assert ref.path is not None
        if self._relative and ref.path.parent == self._folder / "images":
            return f"images/{ref.path.name}"
        return (ref.path.resolve() if ".." in ref.path.parts else ref.path.absolute()).as_posix()

    def _store(self, ref: ImageRef) -> ImageRef:
        encoded = encoded_bytes(ref)
        digest = hashlib.sha256(encoded).hexdigest()
        path = self._folder / "images" / f"{digest}.{_extension(encoded, ref)}"
        if not (path.exists() and path.stat().st_size == len(encoded)):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
            try:  # not synced: that took 95 % of the time, and a file of another size is written again
                temporary.write_bytes(encoded)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            self.num_written += 1
        return ImageRef(path=path, sha256=digest)


def _extension(encoded: bytes, ref: ImageRef) -> str:
    for signature, extension in _SIGNATURES:
        if encoded.startswith(signature):
            return extension
    if encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return "webp"
    raise ImageError("image unreadable", f"{where_is(ref)} ({len(encoded)} bytes, not one of {', '.join(FORMATS)})")
