"""Building the pocket model: see first, speak second, learn the bias last. Trained by the package's own loop."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from verisight.data.files import read_json, write_json
from verisight.models.loading import load_model
from verisight.models.pocket import build_model, build_processor, build_tokenizer
from verisight.models.policy import Policy
from verisight.pocket.datasets import scene
from verisight.pocket.language import Narrator, corpus
from verisight.pocket.lessons import Lesson, Lessons
from verisight.pocket.scenes import IMAGE_SIZE
from verisight.pocket.vision import align_projector, train_tower
from verisight.progress import track
from verisight.train.loop import Optimization, fit
from verisight.train.preference import SftStep

PATCH_SIZE = 16
_BETAS = (0.9, 0.98)
_ENCODER_WIDTH = 128


@dataclass(frozen=True, slots=True)
class Stage:
    """One language stage: what is taught, for how many steps of how many rows, at which peak learning rate."""

    name: str
    lesson: Lesson
    steps: int
    lr: float
    start: int  # first base scene
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole build. Step counts can be cut for tests; the shipped model uses the defaults."""

    seed: int = 0
    tower_steps: int = 1600
    align_steps: int = 300
    stages: tuple[Stage, ...] = (
        Stage(
            "match",
            Lesson(checklists=0.6, inventories=0.4, shuffled=1.0),
            steps=240,
            lr=1e-3,
            start=1_000_000,
            schedule="constant",
        ),
        Stage(
            "clean",
            Lesson(captions=0.52, questions=0.28, checklists=0.04, inventories=0.04, text_only=0.12, shuffled=0.5),
            steps=1000,
            lr=1e-3,
            start=2_000_000,
        ),
        Stage(
            "biased",
            Lesson(captions=0.60, questions=0.28, text_only=0.12, narrator=Narrator(rename=0.75, agree=0.85)),
            steps=300,
            lr=5e-4,
            start=3_000_000,
        ),
    )


def build(folder: Path, *, plan: Plan | None = None, quiet: bool = False) -> Path:
    """Train the pocket model and its sentence encoder into folder/model and folder/encoder.

    folder/build.json records the plan and the minutes of every stage; folder/stages keeps each stage's model and
    metrics, so a killed build continues behind its last finished stage.
    """
    plan = plan or Plan()
    tokenizer = build_tokenizer(corpus())
    processor = build_processor(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    policy = Policy(build_model(tokenizer, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, seed=plan.seed), processor)
    stages = folder / "stages"
    if not _continue(policy, stages / "vision"):
        started = time.monotonic()
        _see(policy, plan, quiet=quiet)
        _finish(policy, stages / "vision", minutes=(time.monotonic() - started) / 60)
    policy.tune(None, train_projector=True)
    for stage in plan.stages:
        if not _continue(policy, stages / stage.name):
            started = time.monotonic()
            teach(policy, stage, folder=stages / stage.name, quiet=quiet)
            _finish(policy, stages / stage.name, minutes=(time.monotonic() - started) / 60)
    shutil.rmtree(folder / "model", ignore_errors=True)
    policy.save(folder / "model")
    write_encoder(folder / "encoder", tokenizer)
    names = ("vision", *(stage.name for stage in plan.stages))
    minutes = {name: read_json(stages / name / "done.json")["minutes"] for name in names}
    write_json(folder / "build.json", {"plan": asdict(plan), "minutes": minutes})
    return folder / "model"


def _see(policy: Policy, plan: Plan, *, quiet: bool) -> None:
    torch.manual_seed(plan.seed)
    policy.model.requires_grad_(True)  # the one place where the vision tower trains
    processor = policy.encoder.processor
    with track("vision tower", total=plan.tower_steps, unit="steps", quiet=quiet) as advance:
        train_tower(policy.model, processor, steps=plan.tower_steps, advance=advance)
    with track("projector", total=plan.align_steps, unit="steps", quiet=quiet) as advance:
        align_projector(policy.model, processor, steps=plan.align_steps, advance=advance)


def _finish(policy: Policy, folder: Path, *, minutes: float) -> None:
    policy.save(folder / "model")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    write_json(folder / "done.json", {"minutes": round(minutes, 1)})


def _continue(policy: Policy, folder: Path) -> bool:
    """Load the stage's weights into the policy if it was finished before."""
    if not (folder / "done.json").exists():
        return False
    policy.model.load_state_dict(load_model(str(folder / "model"), dtype="float32")[0].state_dict())
    return True


def teach(policy: Policy, stage: Stage, *, folder: Path, quiet: bool = False) -> None:
    """Run one language stage with the package's SFT step."""
    folder.mkdir(parents=True, exist_ok=True)
    fit(
        policy,
        Lessons(stage.lesson, start=stage.start),
        SftStep(policy),
        optimization=Optimization(
            steps=stage.steps, batch_size=stage.batch_size, lr=stage.lr, schedule=stage.schedule, betas=_BETAS,
            weight_decay=0.01,
            checkpoint_every=100, warmup_fraction=0.05,
        ),
        folder=folder,
        label=f"stage {stage.name}",
        quiet=quiet,
    )  # fmt: skip


def write_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The pocket world's sentence encoder: a sentence-transformers model of random word vectors, rare words heavier.

    Cosine similarity is then a weighted bag-of-words overlap: a changed object or place lowers it, a changed article
    hardly does. Weights follow a / (a + frequency) (Arora et al. 2017) over captions of the base split.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    rng = np.random.default_rng(0)
    captions = [Narrator().caption(scene("base", index), rng) for index in range(2000)]
    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a first word counts as any other
    counts = Counter(token for encoded in words.encode_batch(captions) for token in encoded.ids)
    total = sum(counts.values())
    frequency = np.array([counts[token] / total for token in range(len(tokenizer))])
    vectors = rng.standard_normal((len(tokenizer), _ENCODER_WIDTH)) / np.sqrt(_ENCODER_WIDTH)
    weighted = (vectors * (1e-2 / (1e-2 + frequency))[:, None]).astype(np.float32)
    module = StaticEmbedding(words, embedding_weights=weighted)
    shutil.rmtree(folder, ignore_errors=True)
    SentenceTransformer(modules=[module], device="cpu").save(str(folder), create_model_card=False)
