"""Small LLaVA models with as many image tokens as the large ones, their processors, and pairs of answers to score.

Nothing is downloaded. Proportions follow Vicuna-7B with CLIP-L/336 where the cost depends on them: patches of 14 pixels
in tiles of 336, an MLP 2.7 times as wide as the model, a vision tower and an output layer of a few per cent each.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

from verisight.models.pocket import CHAT_TEMPLATE, IMAGE_TOKEN, build_tokenizer
from verisight.pocket.datasets import scene
from verisight.pocket.language import DETAIL_PROMPTS, Narrator, corpus
from verisight.pocket.scenes import render
from verisight.types import Answer, ImageRef, Pair, Prompt

Family = Literal["llava", "llava_next"]
TILE, PATCH = 336, 14
SIDE = {"llava": 336, "llava_next": 672}  # pixels of a picture: 576 and 2928 image tokens
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
WIDTH, LAYERS, HEADS = 256, 6, 8
PAIRS = 2  # a batch
_TEXTS = 40  # scenes from which answers are chosen
SHORT, LONG = 20, 60  # tokens of an answer


def build(family: Family, *, seed: int = 0) -> tuple[Any, Any]:
    """A model in float32 and its processor, dropout 0. One seed, one set of weights."""
    tokenizer = build_tokenizer(corpus())
    tokenizer.model_max_length = 1 << 20
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "patch_size": PATCH,
        "vision_feature_select_strategy": "default",
        "chat_template": CHAT_TEMPLATE,
        "num_additional_image_tokens": 1,
    }
    size = {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
    config: dict[str, Any] = {
        "vision_config": CLIPVisionConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=2,
            image_size=TILE, patch_size=PATCH,
        ),
        "text_config": LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=688, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=4096,
            initializer_range=0.05, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        "image_token_index": tokenizer.vocab[IMAGE_TOKEN],
        "vision_feature_layer": -2,
        "image_seq_length": (TILE // PATCH) ** 2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "llava":
            processor = LlavaProcessor(image_processor=CLIPImageProcessorPil(**size), **parts)
            return LlavaForConditionalGeneration(LlavaConfig(**config)).eval(), processor
        tiles = LlavaNextImageProcessorPil(**size, image_grid_pinpoints=PINPOINTS)
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(**config, image_grid_pinpoints=PINPOINTS))
        return model.eval(), LlavaNextProcessor(image_processor=tiles, **parts)


def batches(family: Family, tokenizer: Any, *, num: int) -> list[list[Pair]]:
    """Batches of the same questions and answers about ever new pictures: equal cost, and nothing to remember.

    The answers of a pair differ in length, as those of different pairs do.
    """
    texts = _answers(tokenizer)
    return [
        [
            Pair(
                Prompt(f"{step}-{i}", (ImageRef(data=_picture(step * PAIRS + i, SIDE[family])),), DETAIL_PROMPTS[i]),
                Answer(chosen), (Answer(rejected),), (1.0,),
            )
            for i, (chosen, rejected) in enumerate(texts)
        ]
        for step in range(num)
    ]  # fmt: skip


def _answers(tokenizer: Any) -> list[tuple[str, str]]:
    """(chosen, rejected) of every pair: narrators' descriptions, at a quarter of the way up in length and at others."""
    told = [Narrator().caption(scene("preference", i), np.random.default_rng(i)) for i in range(_TEXTS)]
    told += [Narrator(rename=1.0).caption(scene("preference", i), np.random.default_rng(i)) for i in range(_TEXTS)]
    num = {text: len(tokenizer(text)["input_ids"]) for text in told}
    told = sorted((text for text in num if SHORT <= num[text] <= LONG), key=lambda text: (num[text], text))
    at = [told[int(len(told) * share)] for share in (0.25, 0.75, 0.95, 0.5)]
    return [(at[0], at[1]), (at[2], at[3])]


def _picture(index: int, side: int) -> bytes:
    buffer = BytesIO()
    render(scene("test", index)).resize((side, side), Image.Resampling.BICUBIC).save(buffer, format="PNG")
    return buffer.getvalue()
