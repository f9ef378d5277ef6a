"""What of a model trains: a LoRA adapter or the whole language model, and the projector if wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch

from verisight.models.families import Family
from verisight.models.loading import merged, quiet_peft


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """LoRA on linear layers (Hu et al. 2021): of the language model, or of the vision tower and projector too.

    With `language`, the projector can train in full beside it.
    """

    r: int = 128
    alpha: int = 256
    targets: Literal["language", "all"] = "language"


def trainable(model: Any, family: Family, lora: LoraSettings | None, *, train_projector: bool, seed: int) -> Any:
    """The model with what trains in float32 and with gradients: an adapter, or (None) all but the vision tower.

    An adapter the model was opened with becomes part of its weights first. `seed` draws the adapter's first weights.
    """
    model = merged(model)
    if lora is not None:
        model = _adapted(model, family, lora, train_projector=train_projector, seed=seed)
    else:
        for name, parameter in model.named_parameters():
            trains = train_projector if is_projector(name, family) else f".{family.tower}." not in name
            parameter.requires_grad_(trains)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # small steps are lost in bfloat16
    return model


def is_projector(name: str, family: Family) -> bool:
    """Whether a parameter belongs to the vision-to-language projector."""
    return re.search(rf"(^|\.){family.projector}\.", name) is not None


def _adapted(model: Any, family: Family, lora: LoraSettings, *, train_projector: bool, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model

    projector = re.compile(rf"(.*\.)?{family.projector}")
    full = [name for name, _ in model.named_modules() if projector.fullmatch(name)]
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=family.language_linears if lora.targets == "language" else _linears(model),
        modules_to_save=full if train_projector and lora.targets == "language" else None,
    )
    with torch.random.fork_rng(), quiet_peft():
        torch.manual_seed(seed)
        return get_peft_model(model, config).eval()


def _linears(model: Any) -> list[str]:
    """Names of every linear layer but the language-model head."""
    head = model.get_output_embeddings()
    return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
