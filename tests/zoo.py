"""Tiny random-weight models of every supported family, with working processors, built in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from verisight.models.policy import Policy
from zoo_processors import PATCH, PINPOINTS, TILE, processor_of

_SPREAD = 0.2  # initializer range: wide enough that logits are not flat and pictures matter
_TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": TILE,
    "patch_size": PATCH,
    "initializer_range": _SPREAD,
}


def _text(tokenizer: Any, *, layers: int = 2) -> dict[str, Any]:
    """Settings that all text models share: two query heads to each key/value head."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": _SPREAD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _llava(processor: Any) -> Any:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_TOWER),
        text_config=LlamaConfig(**_text(processor.tokenizer)),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        image_seq_length=(TILE // PATCH) ** 2,
    )
    return LlavaForConditionalGeneration(config)


def _llava_next(processor: Any) -> Any:
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_TOWER),
        text_config=LlamaConfig(**_text(processor.tokenizer)),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-2,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=(TILE // PATCH) ** 2,
    )
    return LlavaNextForConditionalGeneration(config)


def _llava_onevision(processor: Any) -> Any:
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**_TOWER, vision_use_head=False),
        text_config=Qwen2Config(**_text(processor.tokenizer)),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=PINPOINTS,
        tie_word_embeddings=True,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _qwen_vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "initializer_range": _SPREAD,
        **more,
    }


def _qwen_tokens(processor: Any) -> dict[str, Any]:
    vocabulary = processor.tokenizer.get_vocab()
    return {
        "image_token_id": processor.image_token_id,
        "video_token_id": processor.video_token_id,
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
    }


def _qwen2_5_vl(processor: Any) -> Any:
    config = Qwen2_5_VLConfig(
        vision_config=_qwen_vision(depth=2, window_size=4 * PATCH, fullatt_block_indexes=[1]),
        text_config=_text(processor.tokenizer)
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
        **_qwen_tokens(processor),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(processor: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        vision_config=_qwen_vision(depth=3, num_position_embeddings=64, deepstack_visual_indexes=[0, 1]),
        text_config=_text(processor.tokenizer, layers=3) | {"head_dim": 8, "rope_parameters": rope},
        **_qwen_tokens(processor),
        tie_word_embeddings=True,
    )
    return Qwen3VLForConditionalGeneration(config)


def _idefics(processor: Any, config_class: Any, model_class: Any, *, tied: bool) -> Any:
    config = config_class(
        vision_config=_TOWER,
        text_config=LlamaConfig(**_text(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        scale_factor=2,
        tie_word_embeddings=tied,
    )
    return model_class(config)


def _idefics3(processor: Any) -> Any:
    return _idefics(processor, Idefics3Config, Idefics3ForConditionalGeneration, tied=False)


def _smolvlm(processor: Any) -> Any:
    return _idefics(processor, SmolVLMConfig, SmolVLMForConditionalGeneration, tied=True)


def _internvl(processor: Any) -> Any:
    config = InternVLConfig(
        vision_config=_TOWER | {"image_size": [TILE, TILE], "patch_size": [PATCH, PATCH]},
        text_config=Qwen2Config(**_text(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        image_seq_length=processor.image_seq_length,
    )
    return InternVLForConditionalGeneration(config)


_BUILDERS: dict[str, Callable[[Any], Any]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
}
FAMILIES: tuple[str, ...] = tuple(_BUILDERS)


def tiny(family: str, *, seed: int = 0) -> Policy:
    """A random-weight policy of the family, float32, eval mode. One seed, one set of weights."""
    processor = processor_of(family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Policy(_BUILDERS[family](processor).eval(), processor)
