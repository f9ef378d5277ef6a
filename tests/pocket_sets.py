"""Re-enacted sets for tests: written once more, read back as plain rows, held against their scenes."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from verisight.pocket.oracle import Task
from verisight.pocket.reenact import WRITERS
from verisight.pocket.scenes import IMAGE_SIZE
from verisight.pocket.voices import Asked, gather

NUM = 16


@cache
def everything() -> list[Asked]:
    """All that the voices answer, sampled once a process."""
    return gather(num=NUM, quiet=True)


def write_sets(folder: Path, asked: list[Asked], *, noise: float = 0.0, seed: int = 0) -> Path:
    """Every set but LLaVA-Instruct, which has its own tests."""
    for name, write in WRITERS.items():
        write(folder / name.partition("/")[0], asked, noise=noise, seed=seed)
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """What json or pyarrow make of a set's data file."""
    path = {
        "povid": folder / "povid" / "POVID_preference_data_for_VLLMs_version_1.json",
        "rlhf_v": folder / "rlhf_v" / "RLHF-V-Dataset.parquet",
        "llava_rlhf": folder / "llava_rlhf" / "llava_7b_v1_preference.json",
        "vlfeedback": folder / "vlfeedback" / "vlfeedback_80k.jsonl",
        "vlfeedback/data": folder / "vlfeedback" / "data" / "train-00000-of-00001.parquet",
        "vlfeedback_corrupted": folder / "vlfeedback_corrupted" / "vlfeedback_corrupted.json",
        "nlf": folder / "nlf" / "LVLM_NLF" / "hallucination_nlf.jsonl",
    }[name]
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def is_the_picture(encoded: bytes, asked: list[Asked], uid: int) -> None:
    """A real JPEG file, of that scene."""
    assert encoded in {one.jpeg for one in asked if one.uid == uid}
    with Image.open(io.BytesIO(encoded)) as picture:
        picture.load()
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (IMAGE_SIZE, IMAGE_SIZE), "RGB")


def task_of(asked: list[Asked], uid: int, question: str) -> Task:
    (task,) = {id(one): one.task for one in asked if (one.uid, one.task.question) == (uid, question)}.values()
    return task
