"""The policy: a vision-language model that scores groups of answers and samples new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from verisight.models.decode import Row, Stop, decode, image_inputs
from verisight.models.encoding import EncodedPrompt, Encoder, pad
from verisight.models.hiding import Positions, token_positions, visible_tokens
from verisight.models.loading import merged, quiet_peft
from verisight.types import Decoding, Group, Prompt, Sampled

PROJECTOR = "multi_modal_projector"
_LANGUAGE_LINEARS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Scores(NamedTuple):
    """Log-probs of answers, flattened over groups: all answers of the first group, then the second, ..."""

    logp_sum: Tensor  # (answers,) float32, nats, summed over the answer's tokens, end token included
    num_tokens: Tensor  # (answers,) int64


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """LoRA on the language model's linear layers (Hu et al. 2021). The projector trains in full beside it."""

    r: int = 128
    alpha: int = 256


@dataclass(frozen=True, slots=True)
class Sight:
    """What of its pictures a row may attend to. `keep`: (image tokens,) bool; None sees everything."""

    keep: np.ndarray | None = None
    positions: Positions = "original"


class Policy:
    """A Hugging Face VLM with its processor.

    Image and prompt belong to a group once; `score` returns one number per answer. The vision tower is frozen.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model.eval()
        self.encoder = Encoder(processor)
        self._checkpointing = False

    def checkpoint_gradients(self) -> None:
        """Keep only layer inputs for the backward pass of `score` and compute the rest again (Chen et al. 2016).

        Sampling is not touched. Hugging Face layers do it in training mode only; dropout is 0: nothing else changes.
        """
        self.core.model.language_model.activation_checkpointing_enable({"use_reentrant": False})
        self._checkpointing = True

    def tune(self, lora: LoraSettings | None, *, train_projector: bool, base_name: str = "", seed: int = 0) -> None:
        """Choose what trains, in float32: a LoRA adapter, or (None) the whole language model; the projector if wanted.

        An adapter the model was opened with becomes part of its weights first.

        `base_name` is the model an adapter folder names as its base; `seed` draws the adapter's first weights.
        """
        self.model = merged(self.model)
        if lora is not None:
            from peft import LoraConfig, get_peft_model

            config = LoraConfig(
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=0.0,
                target_modules=_LANGUAGE_LINEARS,
                modules_to_save=[PROJECTOR] if train_projector else None,
            )
            with torch.random.fork_rng(), quiet_peft():
                torch.manual_seed(seed)
                self.model = get_peft_model(self.model, config).eval()
            self.model.peft_config["default"].base_model_name_or_path = base_name
        else:
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_("vision_tower" not in name and (train_projector or PROJECTOR not in name))
        for parameter in self.trainable().values():
            parameter.data = parameter.data.float()  # small steps are lost in bfloat16

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter sits on the model, to be trained or as it was opened."""
        return hasattr(self.model, "peft_config")

    @property
    def core(self) -> Any:
        """The Hugging Face model itself, adapters (if any) sitting in its layers."""
        return self.model.get_base_model() if self.has_adapter else self.model

    def trainable(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs of every answer, images and prompts given. Gradients follow the caller's mode."""
        prompts = [self.encoder.prompt(group.prompt) for group in groups]
        rows, masks, features = [], [], []
        with self._mixed_precision():
            features_of = self._features(prompts)
        for group, prompt, feature in zip(groups, prompts, features_of, strict=True):
            for answer in group.answers:
                encoded = self.encoder.answer(group.prompt, answer)
                rows.append([*prompt.ids, *encoded.ids])
                masks.append([0] * len(prompt.ids) + [int(s) for s in encoded.supervised])
                features.append(feature)
        ids = pad(rows, value=self.encoder.pad_id, left=False).to(self.core.device)
        real = pad([[1] * len(row) for row in rows], value=0, left=False).to(ids.device)
        supervised = pad(masks, value=0, left=False).to(ids.device).bool()[:, 1:]
        with self._layers_checkpointed(), self._mixed_precision():
            hidden = self.core.model(
                input_ids=ids,
                attention_mask=real,
                position_ids=torch.arange(ids.shape[1], device=ids.device).expand_as(ids),
                use_cache=False,
                **image_inputs(features),
            ).last_hidden_state
            logits = self.core.lm_head(hidden[:, :-1][supervised]).float()
        token_logp = logits.log_softmax(dim=-1).gather(-1, ids[:, 1:][supervised].unsqueeze(-1)).squeeze(-1)
        row_of_token = supervised.nonzero()[:, 0]
        logp_sum = token_logp.new_zeros(len(rows)).index_add(0, row_of_token, token_logp)
        return Scores(logp_sum, supervised.sum(dim=1))

    def sample(
        self, prompts: Sequence[Prompt], *, decoding: Decoding, seed: int, num: int = 1,
        sights: Sequence[Sight] | None = None, batch_size: int = 64,
    ) -> list[list[Sampled]]:  # fmt: skip
        """`num` answers to every prompt."""
        prefixes: list[list[list[int]]] = [[[] for _ in range(num)] for _ in prompts]
        return self._draw(prompts, prefixes, decoding, seed, sights, batch_size, after=frozenset())

    def branch(
        self, prompts: Sequence[Prompt], prefixes: Sequence[Sequence[Sequence[int]]], *, decoding: Decoding,
        seed: int, sights: Sequence[Sight] | None = None, batch_size: int = 64,
    ) -> list[list[Sampled]]:  # fmt: skip
        """Continue given answer beginnings (token ids) of every prompt to the end of their sentence.

        A sentence ends after the first token that holds a full stop, exclamation or question mark, or at the end token.
        """
        return self._draw(prompts, prefixes, decoding, seed, sights, batch_size, after=self.sentence_ends)

    @cached_property
    def sentence_ends(self) -> frozenset[int]:
        """Vocabulary ids that close a sentence."""
        return self.encoder.ids_containing(".!?")

    def num_image_tokens(self, prompt: Prompt) -> int:
        """How many image vectors the language model sees for this prompt."""
        return self.encoder.prompt(prompt).num_image_tokens

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole model, with its processor: what Hugging Face reads, safetensors only."""
        if self.has_adapter:  # left to itself peft asks the hub whether the vocabulary grew
            self.model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        else:
            self.model.save_pretrained(folder)
        self.encoder.processor.save_pretrained(folder)

    def _mixed_precision(self) -> AbstractContextManager[Any]:
        """Autocast where frozen bfloat16 weights meet trained float32 ones; nothing where all are of one kind."""
        kinds = {p.dtype for p in self.model.parameters()}
        if kinds != {torch.bfloat16, torch.float32}:
            return nullcontext()
        return torch.autocast(self.core.device.type, dtype=torch.bfloat16)

    @contextmanager
    def _layers_checkpointed(self) -> Iterator[None]:
        if not (self._checkpointing and torch.is_grad_enabled()):
            yield
            return
        self.core.model.language_model.train()
        try:
            yield
        finally:
            self.core.model.language_model.eval()

    def _draw(
        self, prompts: Sequence[Prompt], prefixes: Sequence[Sequence[Sequence[int]]], decoding: Decoding, seed: int,
        sights: Sequence[Sight] | None, batch_size: int, after: frozenset[int],
    ) -> list[list[Sampled]]:  # fmt: skip
        rows_of: list[list[Sampled]] = [[] for _ in prompts]
        queue = [(p, k, prefix) for p, group in enumerate(prefixes) for k, prefix in enumerate(group)]
        for start in range(0, len(queue), batch_size):
            chunk = queue[start : start + batch_size]
            used = sorted({p for p, _, _ in chunk})
            encoded = {p: self.encoder.prompt(prompts[p]) for p in used}
            with torch.inference_mode(), self._mixed_precision():
                features = dict(zip(used, self._features(list(encoded.values())), strict=True))
            rows = []
            for p, k, prefix in chunk:
                ids = [*encoded[p].ids, *prefix]
                sight = sights[p] if sights is not None else Sight()
                visible = visible_tokens(ids, image_token_id=self.encoder.image_token_id, keep=sight.keep)
                positions = token_positions(visible, mode=sight.positions)
                rows.append(Row(ids, visible, positions, features[p], f"{prompts[p].uid}/{k}"))
            stop = Stop(self.encoder.eos_id, after)
            with self._mixed_precision():
                drawn = decode(self.core, rows, decoding=decoding, seed=seed, stop=stop, pad_id=self.encoder.pad_id)
            for (p, _, _), (ids, truncated) in zip(chunk, drawn, strict=True):
                rows_of[p].append(Sampled(self.encoder.decode(ids), tuple(ids), truncated))
        return rows_of

    def _features(self, prompts: Sequence[EncodedPrompt]) -> list[Tensor | None]:
        """Projected image features of every prompt, all pictures through the vision tower in one pass."""
        seen = [prompt.pixels["pixel_values"] for prompt in prompts if prompt.pixels]
        if not seen:
            return [None] * len(prompts)
        pixels = torch.cat(seen).to(self.core.device, self.core.dtype)
        features = iter(self.core.model.get_image_features(pixel_values=pixels).pooler_output)
        return [
            torch.cat([next(features) for _ in range(len(prompt.pixels["pixel_values"]))]) if prompt.pixels else None
            for prompt in prompts
        ]


class Reference:
    """The frozen starting model, as the policy without its adapter or as a copy taken now. Only scores."""

    def __init__(self, policy: Policy, *, mode: Literal["adapter_off", "frozen_copy"]) -> None:
        assert mode == "frozen_copy" or policy.has_adapter, "no adapter to switch off"
        self._mode = mode
        self._trained = policy
        self._policy = policy if mode == "adapter_off" else Policy(deepcopy(policy.model), policy.encoder.processor)

    def score(self, groups: Sequence[Group]) -> Scores:
        """Log-probs under the reference, without gradients."""
        self._policy.model.to(self._trained.core.device)  # the loop may have moved the policy since the copy was made
        with torch.no_grad(), self._without_adapter():
            return self._policy.score(groups)

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        if self._mode == "frozen_copy":
            yield
            return
        with self._policy.model.disable_adapter():
            yield
