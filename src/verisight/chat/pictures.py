"""Pictures as they go over the wire: checked, decoded once, and as data URLs."""

from __future__ import annotations

import base64
import hashlib
from io import BytesIO

from verisight.data.encoded import encoded_bytes
from verisight.data.images import load_image
from verisight.types import ImageRef


def content_hash(ref: ImageRef) -> str:
    """Hex SHA-256 of the encoded bytes as they are now, whatever the reference says of them."""
    return hashlib.sha256(encoded_bytes(ref)).hexdigest()


def data_url(ref: ImageRef) -> str:
    """The picture as a data URL. PNG, JPEG, WebP and GIF go as they are; other formats are sent as PNG.

    Raises:
        ImageError: what `load_image` raises: nothing goes out that could not be decoded here.
    """
    encoded = encoded_bytes(ref)
    decoded = load_image(ImageRef(data=encoded))
    mime = _mime(encoded)
    if mime is None:
        buffer = BytesIO()
        decoded.save(buffer, format="PNG")
        encoded, mime = buffer.getvalue(), "image/png"
    return f"data:{mime};base64,{base64.b64encode(encoded).decode()}"


def _mime(encoded: bytes) -> str | None:
    if encoded.startswith(b"\x89PNG"):
        return "image/png"
    if encoded.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "image/webp"
    return "image/gif" if encoded.startswith(b"GIF8") else None
