"""pairs.parquet as it is written loads with `datasets` and trains in TRL's DPOTrainer. Neither is told anything."""

import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from trl import DPOConfig, DPOTrainer

from tiny import picture, tiny_policy
from verisight.data.records import write_pairs
from verisight.types import Answer, ImageRef, Message, Pair, Prompt

STEPS = 2
HISTORY = (Message("user", "What is there?"), Message("assistant", "There is a dog."))


def kept(held: list[ImageRef], kind: str, folder: Path) -> list[ImageRef]:
    """The same pictures in one of the ways that pairs can hold them."""
    if kind == "bytes":
        return held
    folder.mkdir(parents=True)
    if kind == "path":
        for number, ref in enumerate(held):
            (folder / f"{number}.png").write_bytes(ref.data or b"")
        return [ImageRef(path=folder / f"{number}.png") for number in range(len(held))]
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for number, ref in enumerate(held):
            archive.writestr(f"in side/{number}.png", ref.data or b"")
    return [ImageRef(path=folder / "all.zip", member=f"in side/{number}.png") for number in range(len(held))]


def pairs(images: list[ImageRef]) -> list[Pair]:
    """Rows with everything that a row can have, single- and multi-turn, with one and two pictures."""
    told = Answer("There is a cow in the center."), Answer("There is a horse in the center.")
    return [
        Pair(Prompt("0", (images[0],), "Describe this image in detail."), told[0], told[1:], notes={"rule": "x"}),
        Pair(Prompt("1", (images[1],), "What is in the center?", HISTORY, split_group="g"), told[0], told[1:]),
        Pair(Prompt("2", (images[2],), "Where is the cow?"), told[0], (told[1], Answer("No.")), (0.5, 0.5), "bdhs"),
        Pair(Prompt("3", (images[3], images[0]), "Compare.", HISTORY, provenance="p#3"), told[0], told[1:], (1.0,)),
    ]


def loaded(folder: Path, rows: list[Pair]) -> Dataset:
    write_pairs(folder / "pairs.parquet", rows, license="cc-by-4.0")
    return load_dataset("parquet", data_files=str(folder / "pairs.parquet"), cache_dir=str(folder / "cache"))["train"]


def losses(folder: Path, data: Dataset) -> list[float]:
    """The loss of every step. Policy and reference differ, so that the first step's depends on what they see."""
    policy, reference = tiny_policy(seed=0), tiny_policy(seed=1)
    settings: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}
    args = DPOConfig(
        output_dir=str(folder / "run"), max_steps=STEPS, per_device_train_batch_size=2, logging_steps=1,
        learning_rate=1e-2, save_strategy="no", **settings,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=policy.model,
        ref_model=reference.model,
        args=args,
        train_dataset=data,
        processing_class=policy.encoder.processor,
    )
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


# TRL 1.16 still uses names that transformers 5.23 calls deprecated
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_trains_unchanged_and_sees_the_pictures(tmp_path: Path) -> None:
    held = [picture(seed) for seed in range(4)]
    found = {}
    for name, kind, images in (
        ("path", "path", held),
        ("bytes", "bytes", held),
        ("member", "member", held),
        ("swapped", "path", held[::-1]),
    ):
        folder = tmp_path / name
        found[name] = losses(folder, loaded(folder, pairs(kept(images, kind, folder / "pictures"))))
        assert len(found[name]) == STEPS
        assert all(map(math.isfinite, found[name]))
    assert found["path"] == found["bytes"] == found["member"]
    assert all(abs(a - b) > 1e-3 for a, b in zip(found["path"], found["swapped"], strict=True)), found
