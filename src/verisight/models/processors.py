"""Processors without torchvision: image processors on PIL, and no video processor.

Transformers wants a video processor of every processor whose constructor names one, and has none without torchvision.
The constructor's signature decides: the subclasses here name none, and keep their parents' names in folders.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoProcessor,
    InternVLProcessor,
    LlavaOnevisionProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)


class _Qwen25(Qwen2_5_VLProcessor):
    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


class _Qwen3(Qwen3VLProcessor):
    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


class _InternVL(InternVLProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, image_seq_length: int = 256, chat_template: Any = None
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)


class _Onevision(LlavaOnevisionProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, num_image_tokens: int | None = None,
        vision_feature_select_strategy: str | None = None, chat_template: Any = None, image_token: str = "<image>",
        video_token: str = "<video>", vision_aspect_ratio: str = "anyres_max_9",
    ) -> None:  # fmt: skip
        super().__init__(
            image_processor, tokenizer, None, num_image_tokens, vision_feature_select_strategy, chat_template,
            image_token, video_token, vision_aspect_ratio,
        )  # fmt: skip


class _SmolVLM(SmolVLMProcessor):
    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, image_seq_len: int = 169, chat_template: Any = None
    ) -> None:
        self.fake_image_token, self.global_image_token = "<fake_token_around_image>", "<global-img>"
        self.image_token, self.video_token = tokenizer.image_token, "<video>"
        self.image_token_id = tokenizer.image_token_id
        self.end_of_utterance_token = tokenizer.eos_token
        self.image_seq_len = image_seq_len
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)  # no num2words needed

    apply_chat_template = ProcessorMixin.apply_chat_template  # SmolVLM's reads settings of a video processor


WITHOUT_VIDEO = {
    "qwen2_5_vl": _Qwen25,
    "qwen3_vl": _Qwen3,
    "internvl": _InternVL,
    "llava_onevision": _Onevision,
    "smolvlm": _SmolVLM,
}
for _class in WITHOUT_VIDEO.values():
    _class.__name__ = _class.__bases__[0].__name__  # what a saved folder names as its processor class


def load_processor(source: str, *, model_type: str, trust_remote_code: bool = False) -> Any:
    """The processor of a model folder or hub id, for text and pictures."""
    if model_type in WITHOUT_VIDEO:
        return WITHOUT_VIDEO[model_type].from_pretrained(source, backend="pil")
    return AutoProcessor.from_pretrained(source, backend="pil", trust_remote_code=trust_remote_code)
