"""The sides of the DPO benchmark: Verisight's step, TRL's `DPOTrainer`, and its mathematics without padding."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import tiny_llava
import torch
from torch import Tensor

from verisight.models.policy import Policy
from verisight.models.reference import Reference, StoredReference, store_reference
from verisight.models.stores import Recent
from verisight.models.tuning import LoraSettings
from verisight.models.vision import Vision
from verisight.train.preference import Dpo, PreferenceStep
from verisight.types import Pair

SIDES = ("trl", "unpadded", "live", "stored")
BETA, RANK = 0.1, 16


class Case(NamedTuple):
    """What is trained on how long a row."""

    family: tiny_llava.Family
    lora: bool
    checkpointing: bool = False

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"{self.family}-{'lora' if self.lora else 'full'}{'-checkpointing' if self.checkpointing else ''}"


class Side(NamedTuple):
    """`step(k)` runs batch k to gradients and returns the loss. `trained`: what it trains, by name."""

    step: Callable[[int], float]
    trained: dict[str, Tensor]
    model: torch.nn.Module


def stored_reference(policy: Policy, pairs: list[Pair]) -> StoredReference:
    """The package's own file of reference log-probs, written and read; what was seen of pictures is forgotten."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reference.jsonl"
        groups = [pair.group for pair in pairs]
        stored = store_reference(policy, groups, file, batch_size=tiny_llava.PAIRS, advance=lambda *_, **__: None)
    policy.vision = Vision(policy.encoder, policy.family, Recent())
    return stored


def tuned(case: Case) -> Policy:
    """A policy about to be trained: language model (or its adapter) and projector; the vision tower is frozen."""
    policy = Policy(*tiny_llava.build(case.family))
    policy.tune(LoraSettings(r=RANK, alpha=2 * RANK) if case.lora else None, train_projector=True)
    if case.checkpointing:
        policy.checkpoint_gradients()
    return policy


def verisight_side(case: Case, data: list[list[Pair]], *, stored: bool) -> Side:
    """Our step."""
    policy = tuned(case)
    if stored:
        reference = stored_reference(policy, [pair for batch in data for pair in batch])
    else:
        reference = Reference(policy, mode="adapter_off" if case.lora else "frozen_copy")
    preference = PreferenceStep(policy, reference, Dpo(beta=BETA))

    def step(k: int) -> float:
        loss = preference(data[k]).loss.mean()
        loss.backward()
        return loss.item()

    return Side(step, policy.trainable(), policy.model)


def trl_side(case: Case, data: list[list[Pair]], *, padded: bool) -> Side:
    """TRL's trainer on the same weights; or its model, every row alone."""
    trainer = _trainer(case, data)
    rows = trainer.train_dataset

    def batch(k: int) -> Any:
        return trainer.data_collator([rows[k * tiny_llava.PAIRS + i] for i in range(tiny_llava.PAIRS)])

    def step(k: int) -> float:
        return float(trainer.training_step(trainer.model, batch(k)))

    def step_alone(k: int) -> float:
        loss = _alone(trainer, batch(k))
        loss.backward()
        return loss.item()

    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    return Side(step if padded else step_alone, trained, trainer.model)


def _trainer(case: Case, data: list[list[Pair]]) -> Any:
    """`DPOTrainer` with its defaults but for precision (float32), truncation (none) and checkpointing (as the case)."""
    from datasets import Dataset, Features, Image, List, Value
    from trl import DPOConfig, DPOTrainer

    policy = tuned(case)
    model, processor = tiny_llava.build(case.family)
    if not case.lora:
        for (_, ours), theirs in zip(policy.model.named_parameters(), model.parameters(), strict=True):
            theirs.requires_grad_(ours.requires_grad)
    turns = List({"role": Value("string"), "content": Value("string")})
    features = Features(images=List(Image()), prompt=turns, chosen=turns, rejected=turns)
    rows = [
        {
            "images": [{"bytes": image.data, "path": None} for image in pair.prompt.images],
            "prompt": [{"role": "user", "content": pair.prompt.text}],
            "chosen": [{"role": "assistant", "content": pair.chosen.text}],
            "rejected": [{"role": "assistant", "content": pair.rejected[0].text}],
        }
        for batch in data
        for pair in batch
    ]
    args = DPOConfig(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=tiny_llava.PAIRS, beta=BETA, use_cpu=True,
        bf16=False, max_length=None, gradient_checkpointing=case.checkpointing, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, learning_rate=0.0,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=model, ref_model=None if case.lora else deepcopy(model).requires_grad_(False), args=args,
        train_dataset=Dataset.from_list(rows, features=features), processing_class=processor,
        peft_config=policy.model.peft_config["default"] if case.lora else None,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1  # what its training loop sets
    if case.checkpointing:  # as its training loop does, with its defaults
        trainer.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    with torch.no_grad():
        for name, weight in policy.trainable().items():
            trainer.model.get_parameter(name).copy_(weight)
    return trainer


def _alone(trainer: Any, inputs: Any) -> Tensor:
    """The DPO loss of a batch collated by TRL, without any padding: [chosen ..., rejected ...]."""
    policy = trainer.model.train()

    def logps(model: Any) -> Tensor:
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        sums = []
        for row in range(len(inputs["input_ids"])):
            real = inputs["attention_mask"][row].bool()
            ids, answer = inputs["input_ids"][row][real], inputs["completion_mask"][row][real].bool()
            pictures = {name: inputs[name][row : row + 1] for name in ("pixel_values", "image_sizes") if name in inputs}
            hidden = core.model(input_ids=ids[None], use_cache=False, **pictures).last_hidden_state[0]
            logits = core.lm_head(hidden[:-1][answer[1:]])
            sums.append(logits.log_softmax(-1).gather(-1, ids[1:][answer[1:], None]).sum())
        return torch.stack(sums)

    ours = logps(policy)
    with torch.no_grad():
        if trainer.ref_model is None:
            with policy.disable_adapter():
                reference = logps(policy)
        else:
            reference = logps(trainer.ref_model)
    chosen, rejected = (ours - reference).chunk(2)
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()


def open_side(side: str, case: Case, data: list[list[Pair]]) -> Side:
    """A side of a case, before its first step."""
    if side in ("trl", "unpadded"):
        return trl_side(case, data, padded=side == "trl")
    return verisight_side(case, data, stored=side == "stored")
