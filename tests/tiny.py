"""A tiny random-weight LLaVA and a few prompts, built in memory in a tenth of a second."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from verisight.models.pocket import build_model, build_processor, build_tokenizer
from verisight.models.policy import Policy
from verisight.pocket.language import corpus
from verisight.types import Answer, ImageRef, Pair, Prompt

IMAGE_SIZE, PATCH_SIZE = 32, 8


def tiny_policy(*, seed: int = 0) -> Policy:
    """A policy of about 40,000 parameters with the pocket world's tokenizer. Untrained."""
    tokenizer = build_tokenizer(corpus())
    model = build_model(
        tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, vision_width=32, vision_layers=1, width=32, layers=2,
        seed=seed,
    )  # fmt: skip
    return Policy(model, build_processor(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE))


def picture(seed: int) -> ImageRef:
    """A random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return ImageRef(data=buffer.getvalue())


def prompt(index: int, text: str = "Describe this image in detail.") -> Prompt:
    """Prompt number `index` with a picture of its own."""
    return Prompt(f"row{index}", (picture(index),), text, split_group=str(index), provenance=f"tiny#{index}")


CHOSEN = "The image shows a farm. There is a dog in the top left. In the center there is a cow."
REJECTED = "The image shows a farm. There is a horse in the top left. In the center there is a sheep."


def pair(index: int) -> Pair:
    """A preference pair about picture `index`."""
    return Pair(prompt(index), Answer(CHOSEN), (Answer(REJECTED),), (1.0,), "offline")
