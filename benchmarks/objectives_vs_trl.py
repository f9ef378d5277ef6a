"""Our objectives against the loss code of TRL's `DPOTrainer`: the same log-probs in, loss and gradient out.

TRL's trainer is a real one, made with its own configuration; its model is one that answers with given log-probs of
tokens, so that nothing but the losses is compared. In float64, one pair at a time. Ours runs through reduction and
objective as the training step does. Then the whole step: the same tiny LLaVA, pictures and pairs, in float32.

Three things of TRL 1.16 to know: its `ipo` is over the mean of an answer's tokens, ours over the sum unless told
(docs/decisions/0012); its `robust` is conservative DPO carried on to the smoothing -e/(1-2e); conservative DPO itself
is only left as `aot` of single pairs.

    python benchmarks/objectives_vs_trl.py
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from io import BytesIO
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from results import keep, table

from verisight.models.pocket import build_model, build_processor, build_tokenizer
from verisight.models.policy import Policy
from verisight.models.scoring import Scores
from verisight.pocket.language import corpus
from verisight.train.comparing import compare, layout
from verisight.train.objectives import Dpo, Ipo, Objective, Rpo, Slic
from verisight.train.preference import PreferenceStep
from verisight.train.reductions import Mean, Reduction, Sum
from verisight.types import Answer, ImageRef, Pair, Prompt

BETA, NOISE = 0.1, 0.1
NUM_PAIRS, LONGEST = 50, 40
IMAGE_SIZE, PATCH_SIZE = 32, 8
TEXTS = (
    ("The image shows a farm. There is a dog in the top left.", "The image shows a farm. There is a horse."),
    ("Yes.", "The image shows a beach. In the center there is a sheep."),
)


class Case(NamedTuple):
    """A loss of TRL's, as it is asked for there and here."""

    name: str
    settings: dict[str, Any]
    objective: Objective
    reduction: Reduction = Sum()


CASES = (
    Case("DPO", {"loss_type": ["sigmoid"]}, Dpo(BETA)),
    Case("DPO, mean", {"loss_type": ["sigmoid_norm"]}, Dpo(BETA), Mean()),
    Case("IPO, mean", {"loss_type": ["ipo"]}, Ipo(BETA), Mean()),
    Case("SLiC", {"loss_type": ["hinge"]}, Slic(BETA)),
    Case("cDPO", {"loss_type": ["aot"], "label_smoothing": NOISE}, Dpo(BETA, NOISE)),
    Case("robust", {"loss_type": ["robust"], "label_smoothing": NOISE}, Dpo(BETA, -NOISE / (1 - 2 * NOISE))),
    Case("RPO", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, Rpo(BETA, 0.5)),
)
CONTROL = Case("IPO, sum (another loss)", {"loss_type": ["ipo"]}, Ipo(BETA))


class Told(NamedTuple):
    """Log-probs of one pair's tokens, [chosen | rejected], under policy and reference."""

    counts: tuple[int, int]
    policy: torch.Tensor
    reference: torch.Tensor


def told(num: int, *, seed: int) -> list[Told]:
    """Answers of 1 to LONGEST tokens whose log-ratios spread over some nats, either way."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(num):
        counts = torch.randint(1, LONGEST + 1, (2,), generator=rng).tolist()
        reference = -3 * torch.rand(sum(counts), generator=rng, dtype=torch.float64)
        policy = reference + 0.5 * torch.randn(sum(counts), generator=rng, dtype=torch.float64)
        found.append(Told((counts[0], counts[1]), policy, reference))
    return found


def ours(case: Case, one: Told) -> tuple[float, torch.Tensor]:
    """Loss and its gradient by the policy's log-probs, through reduction and objective."""
    policy = one.policy.clone().requires_grad_()
    counts = torch.tensor(one.counts)
    scores, reference = (
        Scores(torch.stack([side.sum() for side in logps.split(one.counts)]), counts, logps)
        for logps in (policy, one.reference)
    )
    pair = Pair(Prompt("", (), ""), Answer(""), (Answer(""),), (1.0,))
    places = layout([pair], spoiled=False)
    rows = compare(None, [pair], places, scores=scores, reference=reference, reduction=case.reduction)  # type: ignore
    (loss,) = case.objective(rows)
    loss.backward()
    assert policy.grad is not None
    return loss.item(), policy.grad


def theirs(trainer: Any, one: Told) -> tuple[float, torch.Tensor]:
    """The same from TRL: rows [prompt token | answer | padding] that a model of given log-probs answers."""
    policy = one.policy.clone().requires_grad_()
    mask = torch.zeros(2, 1 + max(one.counts), dtype=torch.long)
    for row, count in enumerate(one.counts):
        mask[row, 1 : 1 + count] = 1
    trainer.ref_model = _answering(one.reference, mask)
    inputs = {"input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask}
    loss = trainer.compute_loss(_answering(policy, mask), inputs)
    loss.backward()
    assert policy.grad is not None
    return loss.item(), policy.grad


def _answering(logps: torch.Tensor, mask: torch.Tensor) -> Any:
    """A model whose output holds these log-probs where the mask says."""
    wanted = mask[:, 1:].bool()
    full = torch.zeros(wanted.shape, dtype=logps.dtype).masked_scatter(wanted, logps)
    nothing = torch.zeros(wanted.shape)
    output = SimpleNamespace(log_probs=full, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    return lambda **_: output


def tiny(*, seed: int) -> Policy:
    """A LLaVA of 40,000 parameters."""
    tokenizer = build_tokenizer(corpus())
    model = build_model(
        tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, vision_width=32, vision_layers=1, width=32, layers=2,
        seed=seed,
    )  # fmt: skip
    return Policy(model, build_processor(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE))


def drawn() -> list[Pair]:
    """A pair about each of some random pictures."""
    found = []
    for number, (chosen, rejected) in enumerate(TEXTS):
        pixels = np.random.default_rng(number).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        prompt = Prompt(str(number), (ImageRef(data=buffer.getvalue()),), "Describe this image in detail.")
        found.append(Pair(prompt, Answer(chosen), (Answer(rejected),), (1.0,)))
    return found


def trainer_of(case: Case, pairs: Sequence[Pair], *, folder: str) -> Any:
    """`DPOTrainer` for the case's loss, on the tiny LLaVA; its reference is another one."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Picture
    from trl import DPOConfig, DPOTrainer

    turns = List({"role": Value("string"), "content": Value("string")})
    rows = [
        {
            "images": [{"bytes": image.data, "path": None} for image in pair.prompt.images],
            "prompt": [{"role": "user", "content": pair.prompt.text}],
            "chosen": [{"role": "assistant", "content": pair.chosen.text}],
            "rejected": [{"role": "assistant", "content": pair.rejected[0].text}],
        }
        for pair in pairs
    ]
    args = DPOConfig(
        output_dir=folder, beta=BETA, use_cpu=True, bf16=False, max_length=None, gradient_checkpointing=False,
        report_to="none", save_strategy="no", disable_tqdm=True, **case.settings,
    )  # fmt: skip
    policy = tiny(seed=0)
    return DPOTrainer(
        model=policy.model, ref_model=tiny(seed=1).model, args=args, processing_class=policy.encoder.processor,
        train_dataset=Dataset.from_list(
            rows, features=Features(images=List(Picture()), prompt=turns, chosen=turns, rejected=turns)
        ),
    )  # fmt: skip


def whole_step(case: Case, trainer: Any, pairs: Sequence[Pair]) -> tuple[float, float]:
    """Mean loss over the pairs, one at a time, of our step and of TRL's."""
    step = PreferenceStep(tiny(seed=0), tiny(seed=1), case.objective, case.reduction)
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    theirs_mean = sum(trainer.compute_loss(trainer.model, batch).item() for batch in batches) / len(pairs)
    return sum(step([pair]).loss.item() for pair in pairs) / len(pairs), theirs_mean


def measure(case: Case, *, num: int = NUM_PAIRS) -> dict[str, Any]:
    """Largest differences of loss and gradient over pairs of given log-probs, and of the whole step's mean loss."""
    pairs = drawn()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case, pairs, folder=folder)
        step = whole_step(case, trainer, pairs)
        found = [(ours(case, one), theirs(trainer, one)) for one in told(num, seed=0)]
    return {
        "objective": case.name,
        "TRL": "+".join(case.settings["loss_type"]),
        "largest loss": max(abs(loss) for _, (loss, _) in found),
        "loss difference": max(abs(a - b) for (a, _), (b, _) in found),
        "gradient difference": max((a - b).abs().max().item() for (_, a), (_, b) in found),
        "step": step[1],
        "step difference": abs(step[0] - step[1]),
    }


def main() -> None:
    """Print the table and keep it."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    rows = [measure(case) for case in (*CASES, CONTROL)]
    print(table(f"ours against TRL, {NUM_PAIRS} pairs in float64 and a tiny LLaVA's step in float32", rows))
    keep("objectives_vs_trl", rows)


if __name__ == "__main__":
    main()
