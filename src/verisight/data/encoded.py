"""The encoded bytes of a picture, wherever it is: in a file, in a zip archive, in memory."""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Set
from functools import lru_cache
from pathlib import Path
from threading import Lock

from verisight.types import ImageRef, UserError

ZIP = "zip://"
MAX_ENCODED = 256 * 2**20  # bytes of an encoded picture


class ImageError(UserError):
    """A picture cannot be used.

    `reason` is one of "image missing", "image unreadable", "image truncated", "image too large", "image outside
    root", "image ambiguous"; `detail` says which picture and what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def where_is(ref: ImageRef) -> str:
    """The picture in words, for messages."""
    if ref.path is None:
        return "picture held as bytes"
    return str(ref.path) if ref.member is None else f"{ref.path}/{ref.member}"


def encoded_bytes(ref: ImageRef) -> bytes:
    """The encoded picture, at most MAX_ENCODED bytes.

    Raises:
        ImageError: missing, no regular file, unreadable, larger, or what `Archive.read` finds.
    """
    if ref.path is None:
        assert ref.data is not None
        encoded = ref.data
    elif ref.member is not None:
        encoded = open_archive(ref.path).read(ref.member)
    else:
        size = file_status(ref.path).st_size
        _check_encoded(size, where=where_is(ref))
        try:
            with open(ref.path, "rb") as file:
                encoded = file.read(size + 1)
        except OSError as error:
            raise ImageError("image unreadable", f"{ref.path} ({error.strerror})") from error
    _check_encoded(len(encoded), where=where_is(ref))
    return encoded


def file_status(path: Path) -> os.stat_result:
    """The status of a regular file: opening a pipe would hang, and a device may never end.

    Raises:
        ImageError: missing, or anything but a regular file.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("image missing", str(path)) from error
    except OSError as error:
        raise ImageError("image unreadable", f"{path} ({error.strerror})") from error
    except ValueError as error:  # a NUL, or what no file system can encode
        raise ImageError("image missing", f"{str(path)!r} ({error})") from error
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise ImageError("image unreadable", f"{path} ({found}; files are read)")
    return status


def zip_address(ref: ImageRef) -> str:
    """How `datasets` and our own files write an entry of an archive: zip://entry::archive."""
    return f"{ZIP}{ref.member}::{ref.path}"


def zip_ref(address: str) -> ImageRef:
    """The entry that `zip_address` wrote."""
    member, _, archive = address.removeprefix(ZIP).rpartition("::")
    return ImageRef(path=Path(archive), member=member)


class Archive:
    """The pictures in a zip archive, by name: "/" between folders, no "." in between. Threads may share it.

    Nothing is ever unpacked. Entries whose names lead out of the archive, folders and the copies of file
    attributes that macOS adds are no names of it.

    Raises:
        ImageError: not a zip archive, or one whose directory is broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._ambiguous: set[str] = set()
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # on a broken directory anything from BadZipFile to UnicodeDecodeError
            raise ImageError("image unreadable", f"{path} (no readable zip archive: {error})") from error
        for info in self._zip.infolist():
            name = inner_name(info.filename)
            if not name or info.is_dir() or name.startswith("__MACOSX/"):
                continue
            first = self._entries.setdefault(name, info)
            if (first.CRC, first.file_size) != (info.CRC, info.file_size):
                self._ambiguous.add(name)

    @property
    def names(self) -> Set[str]:
        """All names, readable or not."""
        return self._entries.keys()

    def find(self, name: str) -> zipfile.ZipInfo:
        """The entry of that name.

        Raises:
            ImageError: missing, twice there with different content, a link, encrypted, neither stored nor
                deflated, or said to be larger than MAX_ENCODED.
        """
        where, inner = f"{self._path}/{name}", inner_name(name)
        if inner is None:
            raise ImageError("image outside root", f"{where} (the name leads out of the archive)")
        info = self._entries.get(inner)
        if info is None:
            raise ImageError("image missing", where)
        if inner in self._ambiguous:
            raise ImageError("image ambiguous", f"{where} (twice in the archive, with different content)")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ImageError("image outside root", f"{where} (a symbolic link; links in archives are not followed)")
        if info.flag_bits & 1:
            raise ImageError("image unreadable", f"{where} (encrypted)")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            found = f"compression method {info.compress_type}; stored and deflated entries are accepted"
            raise ImageError("image unreadable", f"{where} ({found})")
        _check_encoded(info.file_size, where=where)
        return info

    def read(self, name: str) -> bytes:
        """The content of that name; unpacks no more than the archive says that it is.

        Raises:
            ImageError: what `find` raises, or content that is broken or not as long as the archive says.
        """
        info = self.find(name)
        try:
            with self._lock, self._zip.open(info) as entry:
                content = entry.read(info.file_size + 1)
            if len(content) != info.file_size:
                raise ValueError(f"{len(content)} bytes, the archive says {info.file_size}")
            return content
        except Exception as error:  # broken entries raise anything from BadZipFile to zlib.error
            found = f"{type(error).__name__}: {error}"
            raise ImageError("image unreadable", f"{self._path}/{name} ({found})") from error


def open_archive(path: Path) -> Archive:
    """The archive at `path`, kept open for the next call; a changed file, or a forked process, opens it anew.

    Raises:
        ImageError: missing, no regular file, not a zip archive.
    """
    status = file_status(path)
    return _opened(path, (status.st_ino, status.st_mtime_ns, status.st_size, os.getpid()))


@lru_cache(maxsize=8)
def _opened(path: Path, state: tuple[int, ...]) -> Archive:
    return Archive(path)


def inner_name(name: str) -> str | None:
    """A relative name with "/" between its parts, none of them "."; None when it leads out or is absolute."""
    parts = name.replace("\\", "/").split("/")
    if (not parts[0] and len(parts) > 1) or re.match("[A-Za-z]:", name) or ".." in parts:
        return None
    return "/".join(part for part in parts if part not in ("", "."))


def _check_encoded(size: int, *, where: str) -> None:
    if size > MAX_ENCODED:
        raise ImageError("image too large", f"{where} ({size:,} bytes, at most {MAX_ENCODED:,} accepted)")
