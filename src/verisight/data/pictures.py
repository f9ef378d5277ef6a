"""What rows say about pictures, turned into checked references: names in a folder or zip archive, cells with bytes."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from verisight.data.encoded import ZIP, ImageError, open_archive, zip_ref
from verisight.data.images import COCO_NAME, ImageChecker, image_hash, spellings
from verisight.types import ImageRef, UserError

SUBFOLDERS: tuple[str, ...] = ("images", "merged_images", "train2014", "val2014", "train2017")
Trust = Literal["none", "known", "all"]
_MAX_NAMES = 2**16  # names whose pictures are remembered
_MAX_NAME = 4096  # characters
_MAX_TAILS = 8  # ends of a name that are looked for


class Pictures:
    """The pictures of a data set, checked; each is decoded once however many rows show it.

    `root` is a folder or a zip archive, told by content. With `decode` every picture is decoded and its reference
    holds its `sha256`; without, it only has to exist. `base`, the folder of the data file, is what paths in cells
    count from when there is no root. `trust_paths` is for files that we wrote, whose paths may lead anywhere: `all`
    of them, or those whose file has the hash that is `known` of it, which nobody writes who has not read the file.
    A data file from elsewhere must not make anybody read a file outside `root` and `base`.

    Memory is bounded: the last 65,536 names and the last 131,072 pictures are remembered.

    Raises:
        UserError: `root` is missing, or neither a folder nor a zip archive.
    """

    def __init__(
        self, root: Path | None, *, decode: bool, base: Path | None = None, trust_paths: Trust = "none"
    ) -> None:
        self._store = None if root is None else _open_store(root)
        self._base = base
        self._beside = None if base is None else _Folder(base)
        self._trust_paths = trust_paths
        self._left_out: tuple[str, ...] | None = None
        self._check = ImageChecker(decode=decode)
        self._find = lru_cache(maxsize=_MAX_NAMES)(self._search)

    def named(self, name: str) -> ImageRef:
        r"""The picture a data set means by `name`.

        The first rule that finds something decides:

        1. the name as written, below the root;
        2. the name without its first folder, without its first two, and so on, to the bare file name: the root may
           be one of the folders that the name goes through (`./data/coco/x.jpg` in `coco`). All names of a set, but
           those of COCO pictures, have to lack the same folders: else `a/1.jpg` and `b/1.jpg` would be one picture;
        3. rules 1 and 2 with the other names of COCO pictures (`x.jpg`, `COCO_train2014_x.jpg`, `COCO_val2014_x.jpg`);
        4. all of that in SUBFOLDERS of the root. Two of them holding different pictures of that name is an error.

        So of equal file names in several folders the one in the named folder wins, and a bare name never means one
        in a folder other than SUBFOLDERS. If an archive has a single top folder, names may leave it out.
        An absolute name that is not below the root is looked for by rule 2. "\" counts as "/".

        Raises:
            ImageError: "image missing" (also for an empty, overlong or undecodable name, and without a root), "image
                outside root" for names with "..", links that lead out, absolute names that rule 2 does not find,
                "image ambiguous", or what `load_image` raises.
        """
        return self._check(self._find(name))

    def cell(self, value: Any, *, known: str | None = None) -> ImageRef:
        """The picture in a cell of a table: a struct of `bytes` and `path`, bytes, or a path.

        Bytes win over a path. A path goes by the rules of `named`; without a root it is taken as written from
        `base`, and must not lead out of it.

        Raises:
            ImageError: as `named`; "image missing" for None and a struct of nothing, "image unreadable" for
                anything else that is not a picture.
        """
        if isinstance(value, dict):
            inner = value.get("bytes")
            value = value.get("path") if inner is None else inner
            if inner is not None and not isinstance(inner, (bytes, bytearray, memoryview)):
                raise ImageError("image unreadable", f"the cell's bytes are of type {type(inner).__name__}")
        match value:
            case None:
                raise ImageError("image missing", "the cell holds neither bytes nor a path")
            case bytes() | bytearray() | memoryview():
                if not len(value):
                    raise ImageError("image truncated", "picture held as bytes (0 bytes)")
                return self._check(ImageRef(data=bytes(value)))
            case str():
                return self._check(self._at(value, known))
        accepted = "bytes, a path, or both by the names bytes and path"
        raise ImageError("image unreadable", f"the cell holds a {type(value).__name__}; {accepted} are accepted")

    def _at(self, path: str, known: str | None) -> ImageRef:
        if self._trust_paths != "none":
            _check_name(path)
            direct = zip_ref(path) if path.startswith(ZIP) else ImageRef(path=Path(self._base or "", path))
            if self._trust_paths == "all" and (self._store is None or direct.path is None or direct.path.is_file()):
                return direct
            if known is not None and image_hash(direct) == known:
                return direct
        if self._store is not None or self._beside is None:
            return self._find(path)
        parts, absolute = _parts(path, root=self._beside.root)
        if absolute:
            raise _outside(path, self._beside.root)
        place = "/".join(parts)
        if not self._beside.holds(place):
            raise ImageError("image missing", f"{_shown(path)} is not in {self._beside.root}")
        return self._beside.ref(place)

    def _search(self, name: str) -> ImageRef:
        store = self._store
        if store is None:
            raise ImageError("image missing", f"{_shown(name)} (no image folder was given)")
        parts, absolute = _parts(name, root=store.root)
        for left_out, places in _rules(parts, store.subfolders):
            found = [place for place in places if store.holds(place)]
            if not all(store.same(found[0], other) for other in found[1:]):
                there = " and ".join(found)
                raise ImageError("image ambiguous", f"{_shown(name)} is {there} in {store.root}, which differ")
            if found:
                self._check_left_out(name, parts, left_out, found[0])
                return store.ref(found[0])
        if absolute:
            raise _outside(name, store.root)
        raise ImageError("image missing", f"{_shown(name)} is not in {store.root}")

    def _check_left_out(self, name: str, parts: list[str], num: int, place: str) -> None:
        """Remember the folders that names lack in the store; raises ImageError where this one lacks others."""
        if num == 0 or COCO_NAME.fullmatch(parts[-1]):
            return
        folders = tuple(parts[:num])
        if self._left_out not in (None, folders):
            known = "/".join(self._left_out or ())
            raise ImageError(
                "image ambiguous", f"{_shown(name)} is not there; {place} is what names without {known} mean"
            )
        self._left_out = folders


def group(ref: ImageRef, name: str = "") -> str:
    """The split group of a picture that a row calls `name`: rows of one group show the same picture.

    "coco:" and the 12-digit id for the names of COCO pictures, of 2014 and 2017 alike; "name:" and the file name
    for other files, whatever folder they are in; "sha256:" and the hash for bytes.
    """
    file_name = (name or ref.member or str(ref.path or "")).replace("\\", "/").rsplit("/", 1)[-1]
    if match := COCO_NAME.fullmatch(file_name):
        return f"coco:{match[1]}"
    return f"sha256:{image_hash(ref)}" if ref.data is not None else f"name:{file_name}"


class _Store(Protocol):
    """Where pictures are; a place is a relative name with "/" between its parts."""

    root: Path
    subfolders: tuple[str, ...]

    def holds(self, place: str) -> bool:
        """Whether a picture is there; raises ImageError when a link leads out."""
        ...

    def same(self, first: str, second: str) -> bool:
        """Whether two pictures that are there have the same content."""
        ...

    def ref(self, place: str) -> ImageRef:
        """The picture there."""
        ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.subfolders = tuple(name for name in SUBFOLDERS if (root / name).is_dir())
        self._inside = _real_roots(root)
        self._real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def holds(self, place: str) -> bool:
        path = os.path.join(self.root, place)
        if not os.path.isfile(path):  # False too for a name that is too long for the system
            return False
        folder, name = os.path.split(path)
        real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
        if not any(Path(real).is_relative_to(inside) for inside in self._inside):
            raise _outside(place, self.root, found=f" (a link points to {real})")
        return True

    def same(self, first: str, second: str) -> bool:
        try:
            return filecmp.cmp(self.root / first, self.root / second, shallow=False)
        except OSError:  # one cannot be read
            return False

    def ref(self, place: str) -> ImageRef:
        return ImageRef(path=self.root / place)


def _real_roots(root: Path) -> list[str]:
    """Folders that links may lead to: the root, and the files of a hub's cache, whose snapshots are links to them."""
    real = os.path.realpath(root)
    parts = Path(real).parts
    if "snapshots" not in parts:
        return [real]
    return [real, os.path.join(*parts[: parts.index("snapshots")], "blobs")]


class _Zip:
    subfolders = SUBFOLDERS

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive = open_archive(root)
        tops = {name.split("/", 1)[0] if "/" in name else "" for name in self._archive.names}
        self._top = f"{tops.pop()}/" if len(tops) == 1 else ""

    def holds(self, place: str) -> bool:
        return self._full(place) in self._archive.names

    def same(self, first: str, second: str) -> bool:
        one, other = (self._archive.find(self._full(place)) for place in (first, second))
        return (one.CRC, one.file_size) == (other.CRC, other.file_size)

    def ref(self, place: str) -> ImageRef:
        return ImageRef(path=self.root, member=self._full(place))

    def _full(self, place: str) -> str:
        return place if place in self._archive.names else self._top + place


def _open_store(root: Path) -> _Store:
    if root.is_dir():
        return _Folder(root)
    accepted = "accepted: an existing folder of pictures, or a zip archive of them"
    if not os.path.lexists(root):
        raise UserError(f"{root}: found nothing; {accepted}")
    try:
        return _Zip(root)
    except ImageError as error:
        raise UserError(f"{root}: found no folder and no readable zip archive ({error.detail}); {accepted}") from error


def _rules(parts: list[str], subfolders: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """How many first folders are left out, and places to look at; first rule first, those of one list of equal rank."""
    starts = [0, *range(max(1, len(parts) - _MAX_TAILS), len(parts))]
    tails = [(start, "/".join([*parts[start:-1], name])) for name in spellings(parts[-1]) for start in starts]
    yield from ((start, [tail]) for start, tail in tails)
    if subfolders:
        yield from ((start, [f"{folder}/{tail}" for folder in subfolders]) for start, tail in tails)


def _parts(name: str, *, root: Path) -> tuple[list[str], bool]:
    """The parts of a name, those below `root` where it goes there, and whether it is absolute and leads elsewhere."""
    _check_name(name)
    given = PurePosixPath(name.replace("\\", "/"))
    top = PurePosixPath(root.absolute().as_posix())
    if given.is_relative_to(top):
        given = given.relative_to(top)
    absolute = given.is_absolute() or bool(re.match("[A-Za-z]:", name))
    parts = [part for part in given.parts if part.strip("/")]
    if ".." in parts:
        raise _outside(name, root)
    if absolute and len(parts) > 1 and parts[0].endswith(":"):
        parts = parts[1:]
    if not parts:
        raise ImageError("image missing", f"{_shown(name)} (names no file)")
    return parts, absolute


def _check_name(name: str) -> None:
    problem = ""
    if not name.strip():
        problem = "the name is empty"
    elif len(name) > _MAX_NAME:
        problem = f"a name of {len(name):,} characters, at most {_MAX_NAME:,} are accepted"
    elif "\0" in name:
        problem = "the name holds a NUL character"
    elif any("\ud800" <= letter <= "\udfff" for letter in name):
        problem = "the name is not UTF-8"
    if problem:
        raise ImageError("image missing", f"{_shown(name)} ({problem})")


def _outside(name: str, root: Path, *, found: str = "") -> ImageError:
    accepted = f"names below {root} are accepted"
    return ImageError("image outside root", f"{_shown(name)} leads out of it; {accepted}{found}")


def _shown(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:200]}...")
