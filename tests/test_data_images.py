"""Every way a picture can be odd or broken, and every way a name can mean one or lead astray."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verisight.data.images import FORMATS, ImageChecker, ImageError, load_image
from verisight.data.images import resolve_image as resolve
from verisight.types import ImageRef, UserError

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    return load_image(ImageRef(data=encode(image, kind, **options)))


# decoding


@pytest.mark.parametrize("kind", FORMATS)
def test_formats(kind: str) -> None:
    plain = Image.new("RGB", (20, 10), (255, 0, 0))
    decoded = load(plain, kind)
    assert (decoded.mode, decoded.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(decoded).astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(("mode", "color"), [("RGBA", (0, 0, 255, 0)), ("LA", (0, 0)), ("RGBA", (9, 9, 9, 0))])
def test_transparency_becomes_white(mode: str, color: tuple[int, ...]) -> None:
    assert load(Image.new(mode, (4, 4), color)).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_blue_on_white() -> None:
    """Alpha 51/255 = 0.2: red and green are 0.8 * 255 = 204, blue stays 255."""
    assert load(Image.new("RGBA", (2, 2), (0, 0, 255, 51))).getpixel((0, 0)) == (204, 204, 255)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = load(image, transparency=transparency)
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(10, 20, 30), (255, 255, 255)]


def test_colour_key_transparency() -> None:
    decoded = load(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)


def test_grey_bilevel_and_cmyk() -> None:
    assert load(Image.new("L", (2, 2), 77)).getpixel((0, 0)) == (77, 77, 77)
    assert load(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == (255, 255, 255)
    cyan = load(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG").getpixel((4, 4))
    assert np.abs(np.subtract(cyan, (0, 255, 255))).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_not_clipped(kind: str) -> None:
    """65535 -> 255, 32768 * 255 / 65535 = 127.502 -> 128, 256 * 255 / 65535 = 0.996 -> 1."""
    wide = Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(load(wide, kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_32_bit_pixels_are_refused() -> None:
    data = encode(Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match="32-bit pixels of mode F, 8 or 16 bits are accepted") as error:
        load_image(ImageRef(data=data))
    assert error.value.reason == "image unreadable"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    decoded = load(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert decoded.getpixel((4, 4)) == (255, 0, 0)


def test_exif_rotation_only_when_asked() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    ref = ImageRef(data=encode(Image.new("RGB", (20, 10)), "JPEG", exif=exif))
    assert load_image(ref).size == (20, 10)
    assert load_image(ref, exif_transpose=True).size == (10, 20)


# broken pictures


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated(tmp_path: Path, kind: str) -> None:
    data = encode(Image.fromarray(NOISE), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * 0.7)])
    with pytest.raises(ImageError, match=r"image truncated: .*cut\.bin") as error:
        load_image(ImageRef(path=path))
    assert error.value.reason == "image truncated"


def test_a_whole_webp_of_nonsense_is_unreadable_not_truncated() -> None:
    data = encode(Image.fromarray(NOISE), "WEBP")
    with pytest.raises(ImageError, match="image unreadable"):
        load_image(ImageRef(data=data[:16] + bytes(len(data) - 16)))


def test_missing_folder_empty_and_foreign(tmp_path: Path) -> None:
    reasons = {}
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>404</html>")
    Image.new("RGB", (2, 2)).save(tmp_path / "other.ppm")
    for name in ("none.png", ".", "empty.png", "text.png", "other.ppm"):
        with pytest.raises(ImageError) as error:
            load_image(ImageRef(path=tmp_path / name))
        reasons[name] = error.value.reason
        assert str(error.value).startswith(f"{error.value.reason}: {tmp_path}")
    assert reasons == {
        "none.png": "image missing",
        ".": "image unreadable",
        "empty.png": "image truncated",
        "text.png": "image unreadable",
        "other.ppm": "image unreadable",
    }


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 30_000], ids=["ours", "warning", "error"])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    """64, 100 and 900 million pixels: Pillow is silent, warns, raises. The last would decode to 2.7 GB."""
    with pytest.raises(ImageError, match="image too large: picture held as bytes") as error:
        load_image(ImageRef(data=png_header(side, side)))
    assert error.value.reason == "image too large"


def test_max_pixels_is_the_largest_accepted() -> None:
    ref = ImageRef(data=encode(Image.new("RGB", (10, 10))))
    assert load_image(ref, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match=r"10 x 10 pixels, at most 99 accepted"):
        load_image(ref, max_pixels=99)


def test_broken_metadata_does_not_matter() -> None:
    data = encode(Image.new("RGB", (8, 8)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    assert load_image(ImageRef(data=data)).size == (8, 8)


def test_image_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("image missing", "a.png")))
    assert (error.reason, str(error)) == ("image missing", "image missing: a.png")


def test_checker_reads_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(NOISE))[:500])
    check = ImageChecker(decode=True)
    for _ in range(2):
        with pytest.raises(ImageError, match="image truncated"):
            check(ImageRef(path=path))
        path.write_bytes(encode(Image.fromarray(NOISE)))
    ImageChecker(decode=True)(ImageRef(path=path))
    path.write_bytes(b"")
    ImageChecker(decode=False)(ImageRef(path=path))
    with pytest.raises(ImageError, match="image missing"):
        ImageChecker(decode=False)(ImageRef(path=tmp_path / "none"))


# names


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("b.jpg", "coco/train2017/b.jpg"),
        ("COCO_train2014_000000442786.jpg", "000000442786.jpg"),
        ("COCO_val2014_000000442786.jpg", "coco/train2017/000000442786.jpg"),
        ("coco/COCO_train2014_000000442786.jpg", "coco/000000442786.jpg"),
        ("000000442786.jpg", "COCO_train2014_000000442786.jpg"),
        ("COCO_val2014_000000442786.jpg", "COCO_train2014_000000442786.jpg"),
    ],
)
def test_resolve_finds(tmp_path: Path, there: str, name: str) -> None:
    path = tmp_path / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert resolve(tmp_path, name) == path
    assert resolve(tmp_path, str(path)) == path


@pytest.mark.parametrize("name", ["", ".", "none.jpg", "a\0b", "x" * 5000, "http://host/a.jpg", "00442786.jpg"])
def test_resolve_knows_when_there_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "000000442786.jpg").touch()
    assert resolve(tmp_path, name) is None


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "link.png", "folder/secret.png"]
)
def test_resolve_refuses_what_leads_out(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for secret in (tmp_path / "secret.png", tmp_path / "out" / "secret.png"):
        secret.touch()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path / "out")
    with pytest.raises(UserError, match=r"image name .* leads out of .*root; names below the image root"):
        resolve(root, name)


def test_a_link_inside_the_root_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert resolve(tmp_path, "b.png") == tmp_path / "b.png"
