"""Pictures in zip archives, most of them hostile: names that lead out, sizes that lie, broken bytes."""

import io
import os
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from verisight.data.encoded import MAX_ENCODED, Archive, ImageError, open_archive
from verisight.data.images import ImageChecker, image_hash, load_image
from verisight.data.pictures import Pictures
from verisight.types import ImageRef, UserError


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def shade(ref: ImageRef) -> int:
    return load_image(ref).getpixel((0, 0))[0]


def pack(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info


def refused(path: Path | Pictures, name: str) -> str:
    """The reason why the picture of that name cannot be used."""
    pictures = path if isinstance(path, Pictures) else Pictures(path, decode=True)
    with pytest.raises(ImageError) as error:
        pictures.named(name)
    assert len(str(error.value)) < 1000
    return error.value.reason


@pytest.mark.parametrize(
    "there", ["../x.png", "a/../x.png", "..\\x.png", "/x.png", "\\x.png", "C:/x.png", "C:x.png", "//host/x.png"]
)
def test_entries_that_lead_out_are_never_used(tmp_path: Path, there: str) -> None:
    path = pack(tmp_path / "a.zip", (there, png(1)), ("top/y.png", png(2)))
    assert Archive(path).names == {"top/y.png"}
    assert refused(path, "x.png") == "image missing"
    assert refused(path, there) in ("image outside root", "image missing")
    with pytest.raises(ImageError, match="image outside root"):
        load_image(ImageRef(path=path, member=there))


def test_links_in_archives(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", (linked("x.png"), b"/etc/passwd"), (linked("images/y.png"), b"../z.png"))
    for name in ("x.png", "y.png", "images/y.png"):
        assert refused(path, name) == "image outside root"
        assert refused(Pictures(path, decode=False), name) == "image outside root"


def test_encrypted_entries(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("x.png", png()), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"image unreadable: .*a\.zip/x\.png \(encrypted\)"):
        Pictures(path, decode=False).named("x.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound(tmp_path: Path, method: int) -> None:
    path = pack(tmp_path / "a.zip", ("x.png", png()), method=method)
    with pytest.raises(ImageError, match=rf"image unreadable: .*compression method {method}; stored and deflated"):
        Pictures(path, decode=True).named("x.png")


def set_sizes(path: Path, size: int) -> None:
    """Say in the headers of the only entry that it unpacks to `size` bytes."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, size)
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0, 10, 100_000, 2**31])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_that_lie(tmp_path: Path, size: int, method: int) -> None:
    path = pack(tmp_path / "a.zip", ("x.png", png() + bytes(1000)), method=method)
    set_sizes(path, size)
    assert refused(path, "x.png") == ("image too large" if size > MAX_ENCODED else "image unreadable")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 MiB of zeros in 300 kB: refused by its header, and when the header lies, not unpacked past what it says."""
    path, zeros = tmp_path / "a.zip", bytes(2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("x.png", "w") as x:
        for _ in range(300):
            x.write(zeros)
    longest = 0
    unpack = zipfile.ZipExtFile._read1

    def watch(entry: zipfile.ZipExtFile, n: int) -> bytes:
        nonlocal longest
        piece = unpack(entry, n)
        longest += len(piece)
        return piece

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", watch)
    assert refused(path, "x.png") == "image too large"
    assert longest == 0
    set_sizes(path, 5000)
    assert refused(path, "x.png") == "image unreadable"
    assert longest <= 5000


def test_files_and_bytes_past_the_limit(tmp_path: Path) -> None:
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(MAX_ENCODED + 1)  # takes no room on the disk
    assert refused(tmp_path, "x.png") == "image too large"
    with pytest.raises(ImageError, match=r"image too large: picture held as bytes \(268,435,457 bytes, at most"):
        load_image(ImageRef(data=bytes(MAX_ENCODED + 1)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("x.png", png(1)), ("x.png", png(2)), ("y.png", png(3)), ("y.png", png(3)))
    assert refused(path, "x.png") == "image ambiguous"
    assert shade(Pictures(path, decode=True).named("y.png")) == 3
    mixed = pack(tmp_path / "b.zip", ("a/x.png", png(1)), ("a\\x.png", png(2)))
    assert refused(mixed, "a/x.png") == "image ambiguous"


def test_many_entries_each_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    contents = [png(number) for number in range(256)]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"top/{number % 7}/{number}.png", contents[number % 256])
    pictures = Pictures(path, decode=False)
    for number in range(0, 10_000, 97):
        assert shade(pictures.named(f"{number % 7}/{number}.png")) == number % 256
    assert refused(pictures, "1/7.png") == "image missing"
    assert open_archive(path) is open_archive(path)


def test_broken_entries(tmp_path: Path) -> None:
    """Every tenth byte of an archive turned, and the archive cut there: a picture of the right shade or an error."""
    whole = pack(tmp_path / "whole.zip", ("a/x.png", png(5)), ("a/y.png", png(6))).read_bytes()
    for at in range(0, len(whole), 10):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]):
            path = tmp_path / "broken.zip"
            path.write_bytes(content)
            try:
                assert shade(Pictures(path, decode=True).named("x.png")) == 5
            except UserError:
                continue


def test_a_changed_archive_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    for number in (1, 2):
        pack(path, ("x.png", png(number)))
        os.utime(path, ns=(number, number))
        assert shade(ImageRef(path=path, member="x.png")) == number


def shades(path: Path, numbers: range) -> list[int]:
    return [shade(ImageRef(path=path, member=f"{number}.png")) for number in numbers]


def test_threads_share_an_archive(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", *((f"{number}.png", png(number)) for number in range(100)))
    with ThreadPoolExecutor(8) as pool:
        for numbers in pool.map(shades, [path] * 16, [range(100)] * 16):
            assert numbers == list(range(100))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_open_an_archive_anew(tmp_path: Path) -> None:
    """They would share the position in the file: one would read what another looked for."""
    path = pack(tmp_path / "a.zip", *((f"{number}.png", png(number)) for number in range(200)))
    assert shades(path, range(3)) == [0, 1, 2]
    with get_context("fork").Pool(4) as pool:
        for numbers in pool.starmap(shades, [(path, range(200))] * 12, chunksize=1):
            assert numbers == list(range(200))


def test_missing_archives_and_entries(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("x.png", png()))
    for ref in (ImageRef(path=path, member="y.png"), ImageRef(path=tmp_path / "none.zip", member="x.png")):
        for act in (load_image, image_hash, ImageChecker(decode=True), ImageChecker(decode=False)):
            with pytest.raises(ImageError, match="image missing"):
                act(ref)
