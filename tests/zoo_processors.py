"""Processors of the zoo: one byte-level tokenizer, PIL image processors, chat templates; no torchvision, no videos."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer
from transformers import (
    CLIPImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    SmolVLMImageProcessorPil,
)

from verisight.models.pocket import CHAT_TEMPLATE, build_tokenizer
from verisight.models.processors import WITHOUT_VIDEO
from verisight.pocket.language import corpus

TILE, PATCH = 16, 4  # pixels: what a vision tower takes at once, and one of its patches (4 x 4 patches a tile)
PINPOINTS = [[16, 16], [16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]  # anyres resolutions, height by width
_ROWS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
_SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<end_of_utterance>", "<video>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<fake_token_around_image>", "<global-img>", *_ROWS),
)

_PART = "{% if part['type'] == 'image' %}{{ IMAGE }}{% else %}{{ part['text'] }}{% endif %}"
_TURNS = (  # Qwen's: im_start, role, newline, content, im_end, newline
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}" + _PART + "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_QWEN = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}" + _TURNS.replace("IMAGE", "'<|vision_start|><|image_pad|><|vision_end|>'")
)
_IDEFICS = (
    "{{ START }}{% for message in messages %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}" + _PART.replace("IMAGE", "'<image>'") + "{% endfor %}"
    "{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@cache
def _tokenizer_json() -> str:
    base = build_tokenizer(corpus())
    base.add_special_tokens({"additional_special_tokens": list(_SPECIAL)}, replace_extra_special_tokens=False)
    return base.backend_tokenizer.to_str()


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """The zoo's vocabulary with a family's names for its tokens (bos, eos, pad, image)."""
    named: dict[str, str] = {"image_token": "<image>"}
    bos, eos, pad = "<s>", "</s>", "<pad>"
    if family in ("qwen2_5_vl", "qwen3_vl"):
        bos, eos, pad, named = None, "<|im_end|>", "<|endoftext|>", {"image_token": "<|image_pad|>"}
        named |= {"video_token": "<|video_pad|>", "vision_start_token": "<|vision_start|>"}
        named |= {"vision_end_token": "<|vision_end|>"}
    elif family == "internvl":
        bos, eos, pad, named = None, "<|im_end|>", "<|endoftext|>", {"context_image_token": "<IMG_CONTEXT>"}
        named |= {"start_image_token": "<img>", "end_image_token": "</img>", "video_token": "<video>"}
    elif family == "llava_onevision":
        bos, eos, pad, named = None, "<|im_end|>", "<|endoftext|>", named | {"video_token": "<video>"}
    elif family in ("idefics3", "smolvlm"):
        bos = "<|begin_of_text|>" if family == "idefics3" else "<|im_start|>"
        eos, named = "<end_of_utterance>", named | {"fake_image_token": "<fake_token_around_image>"}
        named |= {"global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()),
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        extra_special_tokens=named,
        model_max_length=4096,
    )


def processor_of(family: str) -> Any:
    """A family's own processor class, with a PIL image processor and a chat template in the family's form."""
    tokenizer, tile = tokenizer_of(family), {"height": TILE, "width": TILE}
    if family == "llava":
        crop = CLIPImageProcessorPil(size={"shortest_edge": TILE}, crop_size=tile)
        return LlavaProcessor(crop, tokenizer, PATCH, "default", CHAT_TEMPLATE, num_additional_image_tokens=1)
    if family == "llava_next":
        tiles = LlavaNextImageProcessorPil(size={"shortest_edge": TILE}, crop_size=tile, image_grid_pinpoints=PINPOINTS)
        return LlavaNextProcessor(tiles, tokenizer, PATCH, "default", CHAT_TEMPLATE, num_additional_image_tokens=1)
    if family == "llava_onevision":
        tiles = LlavaOnevisionImageProcessorPil(size=tile, image_grid_pinpoints=PINPOINTS)
        template = _TURNS.replace("IMAGE", "'<image>\n'")
        return WITHOUT_VIDEO[family](tiles, tokenizer, (TILE // PATCH) ** 2, "full", template)
    if family in ("qwen2_5_vl", "qwen3_vl"):
        grid = Qwen2VLImageProcessorPil(
            patch_size=PATCH, merge_size=2, size={"shortest_edge": (2 * PATCH) ** 2, "longest_edge": (16 * PATCH) ** 2}
        )
        return WITHOUT_VIDEO[family](grid, tokenizer, chat_template=_QWEN)
    if family == "internvl":
        tiles = GotOcr2ImageProcessorPil(size=tile, crop_to_patches=True, min_patches=1, max_patches=4)
        template = _TURNS.replace("IMAGE", "'<IMG_CONTEXT>\n'")
        return WITHOUT_VIDEO[family](tiles, tokenizer, (TILE // PATCH // 2) ** 2, template)
    edges = {"size": {"longest_edge": 3 * TILE}, "max_image_size": {"longest_edge": TILE}}
    if family == "idefics3":
        template = _IDEFICS.replace("START", "'<|begin_of_text|>'")
        return Idefics3Processor(Idefics3ImageProcessorPil(**edges), tokenizer, (TILE // PATCH // 2) ** 2, template)
    template = _IDEFICS.replace("START", "'<|im_start|>'")
    return WITHOUT_VIDEO[family](SmolVLMImageProcessorPil(**edges), tokenizer, (TILE // PATCH // 2) ** 2, template)
