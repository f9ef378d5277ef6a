"""Pictures that somebody broke on purpose, and files that are none: RGB or a named error, never a hang."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from verisight.data.images import FORMATS, ImageChecker, ImageError, fingerprint, image_hash, load_image
from verisight.types import ImageRef

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
REASONS = {"", "image unreadable", "image truncated", "image too large"}


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(data: bytes) -> str:
    """Why it cannot be used, or "" when it decodes to RGB."""
    try:
        image = load_image(ImageRef(data=data))
    except ImageError as error:
        return error.reason
    assert image.mode == "RGB"
    return ""


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, width: int = 2, height: int = 2, body: bytes = bytes(14)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


# bytes


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_at_every_tenth_byte(kind: str) -> None:
    data = encode(NOISE, kind)
    found = [reason(data[:at]) for at in range(0, len(data), 10)]
    assert set(found) <= {"image truncated", "image unreadable", ""}
    assert found[0] == "image truncated"
    assert reason(data) == ""
    if kind in ("PNG", "JPEG", "WEBP"):
        # the last bytes of some pictures are an end mark that no decoder needs
        assert set(found[2 : int(len(found) * 0.9)]) == {"image truncated"}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_seventh_byte_turned(kind: str) -> None:
    data = encode(NOISE, kind)
    for at in range(0, min(len(data), 3000), 7):
        assert reason(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]) in REASONS


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_cut_behind_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    for at in range(0, len(data), 10):
        assert reason(data[:at]) in REASONS
    assert np.abs(np.subtract(load_image(ImageRef(data=data)).getpixel((4, 4)), (255, 0, 0))).max() <= 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        bytes(1000),
        b"<!DOCTYPE html><html><body>404</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
        b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (w) file\n",
        b"PK\x03\x04" + bytes(100),
        b"GIF89a",
        b"RIFF\x04\0\0\0WEBP",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"BM" + bytes(60),
        b"II*\0\x08\0\0\0\0\0",
        b"II*\0\x08\0\0\0" + b"\xff" * 60,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        '{"error": "not found"}'.encode("utf-16"),
    ],
)
def test_what_is_no_picture(data: bytes) -> None:
    assert reason(data) in ("image unreadable", "image truncated")


@pytest.mark.parametrize("side", [7_072, 50_000, 2**31 - 1])
def test_bombs_by_their_header(side: int) -> None:
    assert reason(png(width=side, height=side)) == "image too large"


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 5), (5, 0), (2**31, 1), (2**32 - 1, 2**32 - 1)])
def test_sizes_that_no_picture_has(width: int, height: int) -> None:
    assert reason(png(width=width, height=height)) != ""


def test_other_bombs() -> None:
    """A GIF whose frame is larger than its screen, and a BMP and a TIFF of 60,000 x 60,000."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x4c\x01\0;"
    bitmap = bytearray(encode(NOISE, "BMP"))
    struct.pack_into("<ii", bitmap, 18, 60_000, 60_000)
    fields = [(256, 60_000), (257, 60_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 4)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(8)
    assert [reason(screen + frame), reason(bytes(bitmap)), reason(tiff)] == ["image too large"] * 3


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_to_more_than_the_picture(kind: bytes) -> None:
    """100 MiB of zeros; Pillow unpacks 1 MiB of it at most."""
    packed = zlib.compress(bytes(100 * 2**20), 1)
    head = b"k\0\1\0\0\0" if kind == b"iTXt" else b"k\0\0"
    assert reason(png(chunk(kind, head + packed))) in ("", "image unreadable")


def test_plain_text_of_any_length() -> None:
    notes = PngImagePlugin.PngInfo()
    for number in range(100):
        notes.add_text(f"key {number}", "x" * 10_000)
    assert reason(encode(NOISE, "PNG", pnginfo=notes)) == ""


# colours


@pytest.mark.parametrize("quality", [50, 95])
def test_cmyk_of_a_jpeg_is_inverted_as_adobe_writes_it(quality: int) -> None:
    """Ink 51/255 of each of C, M, Y and none of K: 255 - 51 = 204. Read uninverted it would be near black."""
    data = encode(Image.new("CMYK", (16, 16), (51, 51, 51, 0)), "JPEG", quality=quality)
    assert b"Adobe" in data
    assert np.abs(np.subtract(load_image(ImageRef(data=data)).getpixel((8, 8)), 204)).max() <= 4


@pytest.mark.parametrize("kind", FORMATS)
def test_every_mode_that_a_format_can_hold(kind: str) -> None:
    """32-bit pixels have no defined white; all else is RGB."""
    found = {}
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"):
        try:
            data = encode(Image.new(mode, (8, 8)), kind)
        except (OSError, ValueError):
            continue  # the format has no such mode
        found[mode] = reason(data)
    assert {mode for mode, why in found.items() if why} == ({"I", "F"} if kind == "TIFF" else set())
    assert len(found) >= 4


# files


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would hang, /dev/zero never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "none")
    found = {}
    for name in ("pipe.png", "zero.png", "loop.png", "dangling.png", ".", "none.png", "none/a.png", "x" * 300, "a\0b"):
        for act in (load_image, image_hash, ImageChecker(decode=True), ImageChecker(decode=False)):
            with pytest.raises(ImageError) as error:
                act(ImageRef(path=tmp_path / name))
            found[name] = error.value.reason
    missing = ["dangling.png", "none.png", "none/a.png", "a\0b"]
    assert [name for name in found if found[name] == "image missing"] == missing
    assert set(found.values()) == {"image missing", "image unreadable"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_must_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(NOISE))
    path.chmod(0)
    with pytest.raises(ImageError, match=r"image unreadable: .*a\.png \(Permission denied\)"):
        load_image(ImageRef(path=path))


# look-alikes


def gradient(*, rising: bool) -> Image.Image:
    row = np.arange(0, 180, dtype=np.uint8)
    return Image.fromarray(np.tile(row if rising else row[::-1], (160, 1)))


def test_fingerprints_by_hand() -> None:
    """Brighter to the right at every one of 8 x 8 places, at none, and in a plain picture at none."""
    assert fingerprint(gradient(rising=True).convert("RGB")) == 2**64 - 1
    assert fingerprint(gradient(rising=False).convert("RGB")) == 0
    assert fingerprint(Image.new("RGB", (5, 5), "red")) == 0
    upper = np.concatenate([np.asarray(gradient(rising=True)), np.asarray(gradient(rising=False))])
    assert fingerprint(Image.fromarray(upper).convert("RGB")) == (2**64 - 1) ^ (2**32 - 1)


def test_fingerprints_of_look_alikes() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
    own = fingerprint(image)
    alike = [image.resize((200, 150)), load_image(ImageRef(data=encode(image, "JPEG", quality=40)))]
    other = Image.fromarray(noise[::-1].copy()).resize((320, 240), Image.Resampling.BICUBIC)
    assert all((own ^ fingerprint(one)).bit_count() <= 4 for one in alike)
    assert (own ^ fingerprint(other)).bit_count() > 15
    assert own == fingerprint(image.copy())
    assert fingerprint(Image.new("RGB", (1, 1))) == 0
