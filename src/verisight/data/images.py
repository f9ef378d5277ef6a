"""Decoding pictures from anywhere into RGB, without trusting them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from verisight.types import ImageRef, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
COCO_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})(\.\w+)")
COCO_PREFIXES = ("", "COCO_train2014_", "COCO_val2014_")


class ImageError(UserError):
    """A picture cannot be used.

    `reason` is one of "image missing", "image unreadable", "image truncated", "image too large"; `detail`
    says which picture and what was found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def load_image(ref: ImageRef, *, max_pixels: int = 50_000_000, exif_transpose: bool = False) -> Image.Image:
    """Decode a picture to RGB; of an animation the first frame.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits by 255/65535. EXIF rotation is applied only
    when asked for: the reference implementations of LLaVA and its kin do not. `max_pixels`, width x height,
    is compared with the header before anything is decoded; above 178 million Pillow refuses by itself.

    Raises:
        ImageError: missing, not one of FORMATS, truncated, too large, or of 32-bit pixels (no defined white).
    """
    encoded = _encoded(ref)
    try:
        with warnings.catch_warnings():
            # `max_pixels` decides about size, and broken metadata is no reason: nothing here reads it
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                _check_size(image.size, max_pixels=max_pixels, where=_where(ref))
                image.load()
                upright = ImageOps.exif_transpose(image) if exif_transpose else image
                return _to_rgb(upright)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"{_where(ref)} ({error})") from error
    except Image.UnidentifiedImageError as error:
        accepted = ", ".join(FORMATS)
        reason = "image truncated" if _is_cut(encoded) else "image unreadable"
        raise ImageError(reason, f"{_where(ref)} ({len(encoded)} bytes, not one of {accepted})") from error
    except Exception as error:  # on broken bytes the decoders raise anything from zlib.error to IndexError
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _is_cut(encoded)
        reason = "image truncated" if cut else "image unreadable"
        raise ImageError(reason, f"{_where(ref)} ({type(error).__name__}: {error})") from error


def check_image(ref: ImageRef) -> None:
    """Decode the whole picture and forget it; raises what `load_image` raises."""
    load_image(ref)


def image_hash(ref: ImageRef) -> str:
    """Hex SHA-256 of the encoded bytes, taken from the reference when it knows it.

    Raises:
        ImageError: the file is missing or cannot be opened.
    """
    return ref.sha256 or hashlib.sha256(_encoded(ref)).hexdigest()


class ImageChecker:
    """Checks pictures, each file once however many rows show it; without `decode` only that they exist."""

    def __init__(self, *, decode: bool) -> None:
        self._decode = decode
        self._known: dict[Path, ImageError | None] = {}

    def __call__(self, ref: ImageRef) -> None:
        """Return when the picture can be used; raises ImageError as `load_image` does."""
        if ref.path is None:
            error = self._check(ref)
        else:
            if ref.path not in self._known:
                self._known[ref.path] = self._check(ref)
            error = self._known[ref.path]
        if error is not None:
            raise ImageError(error.reason, error.detail)

    def _check(self, ref: ImageRef) -> ImageError | None:
        if ref.path is not None and not os.path.exists(ref.path):
            return ImageError("image missing", str(ref.path))
        if self._decode:
            try:
                check_image(ref)
            except ImageError as error:
                return ImageError(error.reason, error.detail)  # without frames that hold the bytes
        return None


def resolve_image(root: Path, name: str) -> Path | None:
    """The file a data set means by `name`, or None when there is none.

    Tried in turn: below `root` as written, its last part directly in `root`, then both with the names COCO
    gave the same picture in 2014 and 2017 (`COCO_train2014_`, `COCO_val2014_` added or removed).

    Raises:
        UserError: `name` leads out of `root`, by "..", as an absolute path, or through a symbolic link.
    """
    refused = f"image name {name!r} leads out of {root}; names below the image root are accepted"
    given = Path(name)
    if given.is_absolute():
        if not given.is_relative_to(root.absolute()):
            raise UserError(refused)
        given = given.relative_to(root.absolute())
    if ".." in given.parts:
        raise UserError(refused)
    names = [given.name]
    if match := COCO_NAME.fullmatch(given.name):
        names += [prefix + match[1] + match[2] for prefix in COCO_PREFIXES]
    for candidate in (folder / one for one in names for folder in (root / given.parent, root)):
        if os.path.isfile(candidate):  # unlike Path.is_file this takes a name too long for the system
            if not candidate.resolve().is_relative_to(root.resolve()):
                raise UserError(f"{refused} (a link points to {candidate.resolve()})")
            return candidate
    return None


def _where(ref: ImageRef) -> str:
    return str(ref.path) if ref.path is not None else "picture held as bytes"


def _encoded(ref: ImageRef) -> bytes:
    if ref.path is None:
        assert ref.data is not None
        return ref.data
    try:
        return ref.path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("image missing", str(ref.path)) from error
    except OSError as error:
        raise ImageError("image unreadable", f"{ref.path} ({error.strerror})") from error


def _is_cut(encoded: bytes) -> bool:
    """Whether nothing is there, or a WebP (whose decoder does not tell) is shorter than its header says."""
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    return not encoded or (is_webp and int.from_bytes(encoded[4:8], "little") + 8 > len(encoded))


def _check_size(size: tuple[int, int], *, max_pixels: int, where: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError("image too large", f"{where} ({width} x {height} pixels, at most {max_pixels:,} accepted)")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels of mode {image.mode}, 8 or 16 bits are accepted")
    if image.has_transparency_data:
        front = image.convert("RGBA")
        back = Image.new("RGBA", front.size, "white")
        return Image.alpha_composite(back, front).convert("RGB")
    return image.convert("RGB")
