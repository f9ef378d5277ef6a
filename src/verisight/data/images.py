"""Decoding pictures from anywhere into RGB, without trusting them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from verisight.data.encoded import ImageError, encoded_bytes, file_status, open_archive, where_is
from verisight.types import ImageRef, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 50_000_000  # width x height
COCO_NAME = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})(\.\w+)")
COCO_PREFIXES = ("", "COCO_train2014_", "COCO_val2014_")
_MAX_KNOWN = 2**17  # pictures that a checker remembers


def load_image(ref: ImageRef, *, max_pixels: int = MAX_PIXELS, exif_transpose: bool = False) -> Image.Image:
    """Decode a picture to RGB; of an animation the first frame.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits by 255/65535. EXIF rotation is applied only
    when asked for: the reference implementations of LLaVA and its kin do not. `max_pixels`, width x height,
    is compared with the header before anything is decoded; above 178 million Pillow refuses by itself.

    Raises:
        ImageError: missing, not one of FORMATS, truncated, too large, or of 32-bit pixels (no defined white).
    """
    return _decode(encoded_bytes(ref), where=where_is(ref), max_pixels=max_pixels, exif_transpose=exif_transpose)


def image_hash(ref: ImageRef) -> str:
    """Hex SHA-256 of the encoded bytes, taken from the reference when it knows it.

    Raises:
        ImageError: the file is missing or cannot be opened.
    """
    return ref.sha256 or hashlib.sha256(encoded_bytes(ref)).hexdigest()


def fingerprint(image: Image.Image) -> int:
    """64 bits by which look-alikes are found: pictures that differ in few bits look alike.

    The difference hash: the picture as 9 x 8 grey pixels, and for each the bit whether its right neighbour is
    brighter, row by row from the highest bit. A plain picture gives 0. http://www.hackerfactor.com/blog/?/archives/529
    """
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")


class ImageChecker:
    """Checks pictures, each once however many rows show it; without `decode` only that they exist.

    It remembers the last 131,072 pictures by path and entry, or by the hash of their bytes.
    """

    def __init__(self, *, decode: bool) -> None:
        self._decode = decode
        self._known: OrderedDict[str, str | tuple[str, str]] = OrderedDict()

    def __call__(self, ref: ImageRef) -> ImageRef:
        """The picture, with its hash when it was decoded; raises ImageError as `load_image` does."""
        if ref.data is None:
            key = f"{ref.path}\0{ref.member or ''}"
        elif self._decode:
            key = hashlib.sha256(ref.data).hexdigest()
        else:
            return ref
        if key not in self._known:
            self._known[key] = self._check(ref)
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        found = self._known[key]
        if isinstance(found, tuple):
            raise ImageError(*found)
        return replace(ref, sha256=found) if found else ref

    def _check(self, ref: ImageRef) -> str | tuple[str, str]:
        """The hash (empty without `decode`), or reason and detail of why the picture cannot be used."""
        try:
            if self._decode:
                encoded = encoded_bytes(ref)
                _decode(encoded, where=where_is(ref))
                return hashlib.sha256(encoded).hexdigest()
            if ref.path is not None and ref.member is not None:
                open_archive(ref.path).find(ref.member)
            elif ref.path is not None:
                file_status(ref.path)
        except ImageError as error:
            return error.reason, error.detail
        return ""


def spellings(name: str) -> list[str]:
    """`name`, then the other names that COCO gave the same picture in 2014 and 2017."""
    match = COCO_NAME.fullmatch(name)
    others = [prefix + match[1] + match[2] for prefix in COCO_PREFIXES] if match else []
    return list(dict.fromkeys([name, *others]))


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
    for candidate in (folder / one for one in spellings(given.name) for folder in (root / given.parent, root)):
        if os.path.isfile(candidate):  # unlike Path.is_file this takes a name too long for the system
            if not candidate.resolve().is_relative_to(root.resolve()):
                raise UserError(f"{refused} (a link points to {candidate.resolve()})")
            return candidate
    return None


def _decode(encoded: bytes, *, where: str, max_pixels: int = MAX_PIXELS, exif_transpose: bool = False) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # `max_pixels` decides about size, and broken metadata is no reason: nothing here reads it
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                _check_size(image.size, max_pixels=max_pixels, where=where)
                image.load()
                upright = ImageOps.exif_transpose(image) if exif_transpose else image
                return _to_rgb(upright)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("image too large", f"{where} ({error})") from error
    except Image.UnidentifiedImageError as error:
        accepted = ", ".join(FORMATS)
        reason = "image truncated" if _is_cut(encoded) else "image unreadable"
        raise ImageError(reason, f"{where} ({len(encoded)} bytes, not one of {accepted})") from error
    except Exception as error:  # on broken bytes the decoders raise anything from zlib.error to IndexError
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or _is_cut(encoded)
        reason = "image truncated" if cut else "image unreadable"
        raise ImageError(reason, f"{where} ({type(error).__name__}: {error})") from error


def _is_cut(encoded: bytes) -> bool:
    """Whether nothing is there, a PNG or JPEG has no end mark, or a WebP is shorter than its header says.

    Their decoders do not always tell. Asked only of pictures that cannot be decoded.
    """
    if encoded.startswith(b"\x89PNG"):
        return b"IEND" not in encoded
    if encoded.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in encoded
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
