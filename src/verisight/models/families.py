"""Model families: where their parts are, and why a model cannot be used. Facts only, one entry a family.

Everything else in the package is the same for all of them: pictures become vectors, the vectors stand where the image
placeholders are, and a causal language model reads the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verisight.types import UserError


@dataclass(frozen=True, slots=True)
class Family:
    """Names inside a Hugging Face model (below its `.model`) and what its pictures need.

    `fields` are the processor outputs that `get_image_features` takes beside the pixels. `cut` is where the frozen
    vision tower ends: behind the module `tower`, or behind its `blocks` where the projector sits inside the tower.
    """

    model_type: str
    tower: str = "vision_tower"
    language: str = "language_model"
    projector: str = r"multi_modal_projector"  # regex of the modules that train at the projector's rate
    fields: tuple[str, ...] = ()
    cut: str = "tower"  # or "blocks"
    axes: int = 1  # of a position: 1, or 3 (time, height, width)
    texts: tuple[str, ...] = ("llama", "mistral", "qwen2", "qwen3")  # language models whose layers are known
    towers: tuple[str, ...] = ("clip_vision_model", "siglip_vision_model")

    @property
    def language_linears(self) -> str:
        """Regex of the language model's linear layers, as peft matches names."""
        return rf".*\b{self.language}\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


_QWEN_PROJECTOR = r"visual\.(merger|deepstack_merger_list\.\d+)"
_FAMILIES = {
    family.model_type: family
    for family in (
        Family("llava"),
        Family("llava_next", fields=("image_sizes",)),
        Family("llava_onevision", fields=("image_sizes", "batch_num_images")),
        Family("internvl", towers=("internvl_vision",)),
        Family(
            "idefics3", tower="vision_model", language="text_model", projector="connector",
            fields=("pixel_attention_mask",), towers=("idefics3_vision",),
        ),
        Family(
            "smolvlm", tower="vision_model", language="text_model", projector="connector",
            fields=("pixel_attention_mask",), towers=("smolvlm_vision",),
        ),
        Family(
            "qwen2_5_vl", tower="visual", projector=_QWEN_PROJECTOR, fields=("image_grid_thw",), cut="blocks", axes=3,
            texts=("qwen2_5_vl_text",), towers=("qwen2_5_vl_vision",),
        ),
        Family(
            "qwen3_vl", tower="visual", projector=_QWEN_PROJECTOR, fields=("image_grid_thw",), cut="blocks", axes=3,
            texts=("qwen3_vl_text",), towers=("qwen3_vl_vision",),
        ),
    )
}  # fmt: skip
SUPPORTED = tuple(_FAMILIES)
_CROSS_ATTENTION = "its language model reads pictures through cross-attention, they are no tokens of its row"
_PREFIX_LM = "its prompt tokens attend to later ones (prefix-LM), so an answer's prompt is no causal prefix"
_REFUSED = {
    "mllama": _CROSS_ATTENTION,
    "idefics": _CROSS_ATTENTION,
    "paligemma": _PREFIX_LM,
    "gemma3": "its image tokens attend in both directions and most of its layers see a sliding window",
    "gemma3n": "its image tokens attend in both directions and most of its layers see a sliding window",
    "blip-2": "its pictures pass through a Q-Former, on which this package is not tested",
    "instructblip": "its pictures are read with the question at hand, so they cannot be shared between prompts",
}


def family_of(model_type: str) -> Family:
    """The family of a configuration's `model_type`.

    Raises:
        UserError: it is not supported; says why where that is known.
    """
    if model_type in _FAMILIES:
        return _FAMILIES[model_type]
    if not model_type:
        raise UserError(f"found no model type; accepted: {', '.join(SUPPORTED)}")
    why = f" ({_REFUSED[model_type]})" if model_type in _REFUSED else ""
    raise UserError(f"found a {model_type!r} model{why}; accepted: {', '.join(SUPPORTED)}")


def check_config(config: Mapping[str, Any]) -> Family:
    """The family of a whole configuration, as transformers resolves it, its parts looked at too.

    Raises:
        UserError: an unsupported family, one with a language model or vision tower of an unknown kind, or layers that
            see only a window.
    """
    family = family_of(config.get("model_type") or "")
    text, tower = config["text_config"], config["vision_config"]
    parts = (("language model", text, family.texts), ("vision tower", tower, family.towers))
    for what, part, known in parts:
        if part.get("model_type") not in known:
            raise UserError(
                f"found a {family.model_type!r} model with a {part.get('model_type')!r} {what}; "
                f"accepted: {', '.join(known)}"
            )
    kinds = set(text.get("layer_types") or ()) - {"full_attention"}
    windowed = text.get("sliding_window") is not None and text.get("use_sliding_window") is not False
    if kinds or windowed:
        found = ", ".join(sorted(kinds)) or f"sliding_window {text['sliding_window']}"
        raise UserError(
            f"found a {family.model_type!r} model whose language model has {found}; "
            "accepted: full causal attention in every layer"
        )
    return family
