"""Spoiled pictures: noise, one plain colour, a small part, lowered quality. The prompt's words stay as they are.

Pictures are spoiled at their full resolution, before any preprocessing, and keep their size; the result is held as
PNG bytes. Every picture of a prompt is spoiled, each by a draw of its own.
"""

from __future__ import annotations

import hashlib
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image, ImageEnhance

from verisight.data.images import load_image
from verisight.models.policy import Policy
from verisight.negatives.views import Seen
from verisight.types import ImageRef, Prompt, UserError

MAX_STEPS = 999
Overflow = Literal["clamp", "wrap"]
Colour = Literal["mean", "grey", "black"]
Change = Callable[[Image.Image], tuple[Image.Image, Any]]

_BETAS = (0.5e-2 - 1e-5) / (1 + np.exp(-np.linspace(-6, 6, 1000))) + 1e-5
_ALPHA_BARS = np.cumprod(1 - _BETAS)
_PLAIN = {"grey": (128, 128, 128), "black": (0, 0, 0)}
_BAND = 128  # rows of pixels that get their noise at once: large pictures take no more memory than small ones


class Spoils(Protocol):
    """Shows a prompt with other pictures. No policy needed, so objectives that compare pictures use it too."""

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """The prompt (same uid, text and history) with as many other pictures, by a new draw from `rng` alone.

        Raises:
            UserError: the prompt has no picture.
            ImageError: one of its pictures cannot be read.
        """
        ...


def spoil_each(spoils: Spoils, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
    """Every prompt spoiled from its own random stream."""
    return [spoils.spoil(prompt, rng=rng) for prompt, rng in zip(prompts, rngs, strict=True)]


def check_shown(prompt: Prompt, kind: str) -> None:
    """Refuse a prompt without pictures: what is said of it would pass for a hallucination and be none."""
    if not prompt.images:
        raise UserError(
            f"{prompt.provenance or 'row'}: row {prompt.uid!r} has no picture, view {kind} has nothing to spoil; "
            "accepted: rows with pictures, or a view that leaves them alone"
        )


def alpha_bar(steps: int) -> float:
    """The share of a picture's variance that is left after `steps` diffusion steps, steps in 0..999.

    alpha_bar(N) is the product of 1 - beta_k for k from 0 to N, beta_k = sigmoid(x_k) (0.5e-2 - 1e-5) + 1e-5, x_k the
    k-th of 1,000 points from -6 to 6 (the paper's eq. 8): `alphas_bar[N]` of the code of VCD (Leng et al. 2023) and
    POVID (Zhou et al. 2024), N + 1 factors. At N = 500 the square roots of it and of 1 minus it are 0.8630 and 0.5052.
    N factors would give 0.8641 and 0.5033; eq. 8 as printed, with -6 + 12k/1000 and k from 1, 0.8634 and 0.5044.
    """
    return float(_ALPHA_BARS[steps])


def diffuse(pixels: np.ndarray, *, noise: np.ndarray, steps: int, overflow: Overflow) -> np.ndarray:
    """sqrt(abar) x + sqrt(1 - abar) e, all steps at once (the paper's eq. 9). Pixels count as 0..1.

    pixels: (height, width, 3) uint8; noise: the same shape, float32 from N(0, 1). Returns uint8. `clamp` cuts off at
    black and white and rounds; `wrap` cuts fractions off and goes on modulo 256, as POVID's released code does by
    converting 255 x to unsigned bytes: pixels a little too dark turn bright.
    """
    left = alpha_bar(steps)
    mixed = pixels.astype(np.float32) / 255
    mixed *= math.sqrt(left)
    mixed += noise * math.sqrt(1 - left)
    mixed *= 255
    if overflow == "wrap":
        return mixed.astype(np.int32).astype(np.uint8)  # over int32, or what comes out depends on the processor
    return np.rint(mixed.clip(0, 255)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Noised:
    """The noise of `steps` diffusion steps at once, steps in 1..999 (BDHS_noise; the paper's eqs. 8-9, steps 500).

    See `alpha_bar` for the schedule and `diffuse` for `overflow`.
    """

    steps: int = 500
    overflow: Overflow = "clamp"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise UserError(f"steps: found {self.steps}; accepted: 1 to {MAX_STEPS} (without noise: view clean)")

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """New noise over every picture."""

        def change(image: Image.Image) -> tuple[Image.Image, None]:
            pixels = np.asarray(image)
            noised = np.empty_like(pixels)
            for top in range(0, len(pixels), _BAND):
                band = pixels[top : top + _BAND]
                noise = rng.standard_normal(band.shape, dtype=np.float32)
                noised[top : top + _BAND] = diffuse(band, noise=noise, steps=self.steps, overflow=self.overflow)
            return Image.fromarray(noised), None

        spoiled, _ = _changed(prompt, change, kind="noised")
        return Seen(spoiled, notes={"kind": "noised", "steps": self.steps, "overflow": self.overflow})

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """New noise over the pictures of every prompt."""
        return spoil_each(self, prompts, rngs=rngs)


@dataclass(frozen=True, slots=True)
class Blank:
    """One plain colour: `grey` (128) and `black` leave only the picture's size, `mean` its average colour too.

    Nothing is drawn: it is the same in every round.
    """

    colour: Colour = "grey"

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """Plain pictures of the same sizes."""

        def change(image: Image.Image) -> tuple[Image.Image, list[int]]:
            mean = np.rint(np.asarray(image).mean(axis=(0, 1), dtype=np.float64)).astype(int).tolist()
            red, green, blue = mean if self.colour == "mean" else _PLAIN[self.colour]
            return Image.new("RGB", image.size, (red, green, blue)), [red, green, blue]

        spoiled, colours = _changed(prompt, change, kind="blank")
        return Seen(spoiled, notes={"kind": "blank", "colour": self.colour, "rgb": colours})

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """Plain pictures for every prompt."""
        return spoil_each(self, prompts, rngs=rngs)


@dataclass(frozen=True, slots=True)
class Cropped:
    """A random part of the picture, of its shape, enlarged to its size. Its share of the area is U(low, high).

    0 <= low <= high <= 1; at least one pixel stays. mDPO (Wang et al. 2024) keeps 0 to 20 %, in its released code
    0.01 to 0.2 (there the part's sides may also differ from the picture's shape by a third).
    """

    low: float = 0.01
    high: float = 0.2

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.high <= 1 and self.low < 1):
            raise UserError(
                f"low, high: found {self.low}, {self.high}; accepted: shares 0 <= low <= high <= 1, low below 1"
            )

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """A new part of every picture. Notes: `boxes`, [left, top, right, bottom] in pixels, and `sizes`."""

        def change(image: Image.Image) -> tuple[Image.Image, list[int]]:
            box = _draw_box(image.size, share=rng.uniform(self.low, self.high), rng=rng)
            return image.crop(box).resize(image.size, Image.Resampling.BILINEAR), [*box, *image.size]

        spoiled, cuts = _changed(prompt, change, kind="cropped")
        boxes, sizes = [cut[:4] for cut in cuts], [cut[4:] for cut in cuts]
        return Seen(spoiled, notes={"kind": "cropped", "boxes": boxes, "sizes": sizes})

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """A new part of the pictures of every prompt."""
        return spoil_each(self, prompts, rngs=rngs)


@dataclass(frozen=True, slots=True)
class Degraded:
    """Lowered quality, as STIC corrupts pictures (Deng et al. 2024): one of two ways, drawn with equal chances.

    Detail is lost (to 1/24 of the size and back: 20 of 480 pixels), or brightness is multiplied by U(0.5, 1.5) and
    hue turned by U(-0.3, 0.3) of the colour circle.
    """

    def spoil(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        """Every picture degraded in its own way. Notes: `ways`, one a picture, with its numbers."""

        def change(image: Image.Image) -> tuple[Image.Image, dict[str, float]]:
            if rng.random() < 0.5:
                return _shrunk(image, times=24), {"shrunk": 24}
            brightness, hue = float(rng.uniform(0.5, 1.5)), float(rng.uniform(-0.3, 0.3))
            return _jittered(image, brightness=brightness, hue=hue), {"brightness": brightness, "hue": hue}

        spoiled, ways = _changed(prompt, change, kind="degraded")
        return Seen(spoiled, notes={"kind": "degraded", "ways": ways})

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """The pictures of every prompt degraded anew."""
        return spoil_each(self, prompts, rngs=rngs)


def _changed(prompt: Prompt, change: Change, *, kind: str) -> tuple[Prompt, list[Any]]:
    """The prompt with every picture changed, and what `change` tells of each."""
    check_shown(prompt, kind)
    changed = [change(load_image(ref)) for ref in prompt.images]
    return replace(prompt, images=tuple(_held(image) for image, _ in changed)), [told for _, told in changed]


def _held(image: Image.Image) -> ImageRef:
    """The picture as PNG bytes, packed for speed: noise does not get smaller however long one tries."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    encoded = buffer.getvalue()
    return ImageRef(data=encoded, sha256=hashlib.sha256(encoded).hexdigest(), one_use=True)


def _draw_box(size: tuple[int, int], *, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of `share` of the area and the picture's shape, as near as whole pixels come; longer where one side is 1.

    Returns left, top, right, bottom.
    """
    width, height = size
    short = max(1, round(min(size) * math.sqrt(share)))
    long = min(max(size), max(1, round(share * width * height / short)))
    across, down = (long, short) if width >= height else (short, long)
    left, top = int(rng.integers(width - across + 1)), int(rng.integers(height - down + 1))
    return left, top, left + across, top + down


def _shrunk(image: Image.Image, *, times: int) -> Image.Image:
    width, height = image.size
    small = image.resize((max(1, round(width / times)), max(1, round(height / times))), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _jittered(image: Image.Image, *, brightness: float, hue: float) -> Image.Image:
    tint, saturation, value = ImageEnhance.Brightness(image).enhance(brightness).convert("HSV").split()
    turned = (np.asarray(tint).astype(int) + round(hue * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
