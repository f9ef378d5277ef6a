"""What a data set shares with another one, or with evaluation pictures: same files, same COCO numbers, look-alikes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from verisight.data.check_facts import SHOWN_ROWS, Leak, Shared
from verisight.data.check_repeats import Keys, digest, keys_of
from verisight.data.encoded import ImageError, open_archive, where_is
from verisight.data.files import read_json, read_jsonl
from verisight.data.images import COCO_NAME, fingerprint, image_hash, load_image
from verisight.data.readers import Reading, open_data
from verisight.types import ImageRef, Pair, UserError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MIN_BITS = 8  # a fingerprint with fewer bits set, or unset, is of a flat picture or a plain gradient
ACCEPTED = "accepted: a data set, a folder or zip archive of pictures, COCO instances, JSON lines with `image`"
_KINDS = ("file", "coco", "look")
_HELD = 2**16  # hashes of addresses that are remembered


class Trace(NamedTuple):
    """By what a picture is known again. Numbers are 64-bit hashes, None where unknown."""

    file: int | None  # of the encoded bytes
    coco: int | None  # its number, of 2014 and 2017 alike
    look: int | None  # its fingerprint; None for flat pictures


@dataclass(slots=True)
class Against:
    """One other side: its pictures by trace, each with a name to show, and its prompts and pairs by hash."""

    path: str
    what: str
    num_pictures: int = 0
    num_unusable: int = 0
    known: dict[str, dict[int, str]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    prompts: set[int] | None = None
    pairs: set[int] | None = None

    def add(self, trace: Trace, name: str) -> None:
        """One more picture."""
        self.num_pictures += 1
        for kind in _KINDS:
            value = getattr(trace, kind)
            if value is not None:
                self.known[kind].setdefault(value, name)


class Tracer:
    """Makes traces of pictures, each once. Without `decode` files are hashed and nothing is looked at."""

    def __init__(self, *, decode: bool, hashed: bool = True) -> None:
        self._decode, self._hashed = decode, hashed
        self._known: dict[int, Trace] = {}
        self._addresses: dict[str, int] = {}

    def key(self, ref: ImageRef) -> int:
        """A hash that equal files share; of the address where files are not hashed."""
        if ref.sha256 is not None or ref.path is None:
            return digest(image_hash(ref))
        where = where_is(ref)
        if not self._hashed:
            return digest("at", where)
        if where not in self._addresses:
            if len(self._addresses) >= _HELD:
                self._addresses.clear()
            self._addresses[where] = digest(image_hash(ref))
        return self._addresses[where]

    def trace(self, ref: ImageRef, *, group: str = "") -> Trace:
        """By what the picture is known again; raises ImageError."""
        key = self.key(ref)
        if key not in self._known:
            look = fingerprint(load_image(ref)) if self._decode else 0
            self._known[key] = Trace(key if self._hashed else None, None, look if _telling(look) else None)
        return self._known[key]._replace(coco=coco_number(ref, group))


def coco_number(ref: ImageRef, group: str = "") -> int | None:
    """The number in the picture's name, or in its split group; None where it is no name of COCO's."""
    if group.startswith("coco:"):
        return int(group.removeprefix("coco:"))
    name = (ref.member or str(ref.path or "")).replace("\\", "/").rsplit("/", 1)[-1]
    found = COCO_NAME.fullmatch(name)
    return int(found[1]) if found else None


def group_of(pair: Pair) -> str:
    """The split group where it speaks of the pair's only picture."""
    return pair.prompt.split_group if len(pair.prompt.images) == 1 else ""


def picture_key(keys: Sequence[int]) -> int:
    """One hash for all pictures of a pair, 0 without any."""
    return digest(*keys) if keys else 0


def read_against(
    path: Path, *, images: Path | None, decode: bool, advance: Callable[[int], object] = lambda amount: None
) -> Against:
    """The other side: a data set of any known layout, a folder or zip of pictures, or a file that names COCO pictures.

    `images` is where a data set's picture names count from. `advance` is told of every row or picture.

    Raises:
        UserError: it is none of these, or nothing in it can be compared.
    """
    if path.is_dir() and not any((*path.glob("*.parquet"), *path.glob("data/*.parquet"))):
        found = _pictures(Against(str(path), "folder of pictures"), _in_folder(path), decode, advance)
    elif path.is_file() and _is_zip(path):
        found = _pictures(Against(str(path), "zip archive of pictures"), _in_archive(path), decode, advance)
    else:
        try:
            reading = open_data(path, images=images, check_images=decode, text_only=True)
        except UserError as error:
            named = _names(path)
            if named is None:
                raise UserError(f"--against {error}; {ACCEPTED}") from error
            found = _named(path, *named)
        else:
            found = _data_set(Against(str(path), f"data set: {reading.format.title}"), reading, decode, advance)
    if not found.num_pictures and not found.pairs:
        problem = f"{found.num_unusable:,} rows or files, none usable" if found.num_unusable else "no picture"
        raise UserError(f"--against {path}: found {problem} ({found.what}); {ACCEPTED}")
    return found


class LeakFinder:
    """Sees pairs one by one and notes what is on the other side too."""

    def __init__(self, other: Against) -> None:
        self.other = other
        self._shared: dict[str, dict[int, str]] = {kind: {} for kind in _KINDS}
        self._num_pairs = dict.fromkeys(_KINDS, 0)
        self._num_any = self._num_prompts = self._num_same = 0

    def add(self, keys: Keys, traces: Iterable[tuple[int, Trace]], *, place: str) -> None:
        """One pair; `traces` are of its pictures, each with its key."""
        kinds = set()
        for key, trace in traces:
            for kind in _KINDS:
                name = self.other.known[kind].get(getattr(trace, kind))
                if name is not None:
                    kinds.add(kind)
                    if key not in self._shared[kind]:
                        first = len(self._shared[kind]) < SHOWN_ROWS
                        self._shared[kind][key] = f"row {place}: {name}" if first else ""
                    break
        self._num_any += bool(kinds)
        for kind in kinds:
            self._num_pairs[kind] += 1
        self._num_prompts += keys.prompt in (self.other.prompts or ())
        self._num_same += keys.pair in (self.other.pairs or ())

    def leak(self) -> Leak:
        """What was found so far."""
        other = self.other
        told = {kind: self._told(kind) if other.known[kind] else None for kind in _KINDS}
        has_pairs = other.prompts is not None
        return Leak(
            other.path, other.what, other.num_pictures, other.num_unusable, self._num_any,
            told["file"], told["coco"], told["look"],
            self._num_prompts if has_pairs else None, self._num_same if has_pairs else None,
        )  # fmt: skip

    def _told(self, kind: str) -> Shared:
        shared = self._shared[kind]
        return Shared(len(shared), self._num_pairs[kind], tuple(shared.values())[:SHOWN_ROWS])


def _telling(look: int) -> bool:
    return MIN_BITS <= look.bit_count() <= 64 - MIN_BITS


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError as error:
        raise UserError(f"--against {path}: cannot be read: {error.strerror}") from error


def _in_folder(root: Path) -> Iterator[ImageRef]:
    for folder, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                yield ImageRef(path=Path(folder, name))


def _in_archive(path: Path) -> Iterator[ImageRef]:
    for name in sorted(open_archive(path).names):
        if os.path.splitext(name)[1].lower() in SUFFIXES:
            yield ImageRef(path=path, member=name)


def _pictures(found: Against, refs: Iterable[ImageRef], decode: bool, advance: Callable[[int], object]) -> Against:
    tracer = Tracer(decode=decode)
    for ref in refs:
        try:
            found.add(tracer.trace(ref), where_is(ref))
        except ImageError:
            found.num_unusable += 1
        advance(1)
    return found


def _data_set(found: Against, reading: Reading, decode: bool, advance: Callable[[int], object]) -> Against:
    tracer = Tracer(decode=decode)
    seen: set[int] = set()
    found.prompts, found.pairs = set(), set()
    for outcome in reading:
        found.num_unusable += any(bad.fault for bad in outcome.bad)
        for pair in outcome.pairs:
            try:
                traces = [(tracer.key(ref), tracer.trace(ref, group=group_of(pair))) for ref in pair.prompt.images]
            except ImageError:
                found.num_unusable += 1
                continue
            keys = keys_of(pair, picture_key([key for key, _ in traces]))
            found.prompts.add(keys.prompt)
            found.pairs.add(keys.pair)
            for (key, trace), ref in zip(traces, pair.prompt.images, strict=True):
                if key not in seen:
                    seen.add(key)
                    found.add(trace, f"its row {outcome.row}" if ref.path is None else where_is(ref))
        advance(1)
    return found


def _names(path: Path) -> tuple[str, list[str]] | None:
    """Names of pictures in COCO's instances or captions, or in a benchmark's JSON lines; None for anything else."""
    try:
        value = read_json(path)
        if isinstance(value, dict) and (names := _texts(value.get("images"), "file_name")):
            return "COCO pictures by number", names
    except UserError:
        pass
    try:
        names = _texts(read_jsonl(path), "image")
    except UserError:
        return None
    return ("questions, their pictures by COCO number", names) if names else None


def _texts(rows: object, key: str) -> list[str] | None:
    """That key of every row; None where a row has no such text."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get(key), str) for row in rows):
        return None
    return [row[key] for row in rows]


def _named(path: Path, what: str, names: list[str]) -> Against:
    found = Against(str(path), what)
    for name in dict.fromkeys(names):
        number = coco_number(ImageRef(path=Path(name)))
        if number is None:
            found.num_unusable += 1
        else:
            found.add(Trace(None, number, None), name)
    return found
