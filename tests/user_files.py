"""What a user brings: photographs of every kind, questions about them, ground truth, a recipe; and the command line."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import skimage
import torch
from PIL import Image
from safetensors.torch import load_file

from verisight import cli
from verisight.data.files import read_jsonl

PHOTOS = {  # name below pictures/ -> the COCO objects in it
    "astronaut.png": ["person"],
    "camera.png": ["person"],  # grey
    "coffee.png": ["cup", "spoon"],
    "chelsea.png": ["cat"],
    "horse.png": ["horse"],  # two colours
    "logo.png": [],  # with transparency
    "coins.png": [],
    "rocket.jpg": [],
    "tall.png": ["tie"],  # 1 x 400
    "deep/wide.jpg": ["train"],  # 3000 x 20, in a folder below
    "palette.png": ["cat"],
    "cmyk.jpg": ["cup", "spoon"],
}
_CATEGORIES = ["person", "cup", "spoon", "cat", "horse", "tie", "train"]

ROWS: list[tuple[int | str, str, list[str]]] = [  # id, picture, questions and answers in turn
    (
        "000017",
        "astronaut.png",
        [
            "<image>\nWho is this?",
            "An astronaut. She smiles.",
            "What does she wear?",
            "An orange suit.",
            "Is there a dog?",
            "No.",
        ],
    ),
    (18, "coffee.png", ["What is on the table?\n<image>", "A cup of coffee on a saucer, and a spoon."]),
    (19, "chelsea.png", ["<image>\n这是什么?", "图中有一只猫。它正看着镜头, 很可爱。"]),
    (20, "palette.png", ["<image>\nDescribe it.", "A 🐱 with 👀 wide open! Isn't she \u2013 naïve? 3.14 ≈ π."]),
    (21, "horse.png", ["<image> Is there a horse in the image?", "Yes, there is a horse.\nIt stands."]),
    (22, "camera.png", ["<image>\nWhat does he do?", "A man looks into a camera. Grass is under his feet."]),
    (23, "logo.png", ["<image>\nWhat is it?", "שלום: לוגו. A snake on a white ground."]),
    (24, "tall.png", ["<image>\nDescribe this image in detail.", "A tie, thin as a line."]),
    (25, "deep/wide.jpg", ["<image>\nDescribe this image in detail.", "A long train. Nothing else."]),
    (26, "cmyk.jpg", ["<image>\nWhich drink?", "e\u0301spresso \u202eoffee\u202c in a cup\u200b."]),
]
NUM_ANSWERS = sum(len(turns) // 2 for _, _, turns in ROWS)


class Files(NamedTuple):
    """Where everything is."""

    folder: Path
    pictures: Path
    rows: Path
    instances: Path
    recipe: Path  # DPO on BDHS pairs
    sft: Path  # extends it


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def verisight(*words: object) -> Outcome:
    """Run a command line in this process, as the console script does."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["verisight", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


def finished(*words: object) -> Outcome:
    """Run a command that has to succeed."""
    outcome = verisight(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def of_pairs(file: Path) -> tuple[str, ...]:
    """Overrides that train on finished pairs."""
    return ("source.kind=offline", f"source.data={{kind: pairs, file: {file}}}")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run's model folder holds."""
    files = sorted((run / "model").glob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def untimed(run: Path) -> list[dict[str, Any]]:
    """The run's metrics without the seconds."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "seconds_of")}
        for row in read_jsonl(run / "metrics.jsonl")
    ]


def write_photos(folder: Path) -> None:
    """Every picture of PHOTOS."""
    data = Path(skimage.__file__).parent / "data"
    (folder / "deep").mkdir(parents=True)
    for name in PHOTOS:
        if (data / name).exists():
            (folder / name).write_bytes((data / name).read_bytes())
    Image.linear_gradient("L").resize((1, 400)).save(folder / "tall.png")
    Image.linear_gradient("L").resize((3000, 20)).convert("RGB").save(folder / "deep" / "wide.jpg")
    Image.open(data / "chelsea.png").quantize(16).save(folder / "palette.png", transparency=3)
    Image.open(data / "coffee.png").convert("CMYK").save(folder / "cmyk.jpg")


def row(uid: int | str, picture: str, turns: list[str]) -> dict[str, Any]:
    """A LLaVA-Instruct row."""
    said = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(turns)]
    return {"id": uid, "image": picture, "conversations": said}


def truth(objects: dict[str, list[str]]) -> dict[str, Any]:
    """COCO instances of pictures and the objects in each."""
    numbered = list(enumerate(objects.items(), start=1))
    return {
        "images": [{"id": number, "file_name": name} for number, (name, _) in numbered],
        "annotations": [
            {"id": 10 * number + at, "image_id": number, "category_id": 1 + _CATEGORIES.index(name)}
            for number, (_, names) in numbered
            for at, name in enumerate(names)
        ],
        "categories": [{"id": at, "name": name} for at, name in enumerate(_CATEGORIES, start=1)],
    }


def write_files(folder: Path) -> Files:
    """All of it below `folder`."""
    names = ("pictures", "my rows.json", "instances.json", "recipe.yaml", "sft.yaml")
    files = Files(folder, *(folder / name for name in names))
    write_photos(files.pictures)
    files.rows.write_text(json.dumps([row(*one) for one in ROWS], ensure_ascii=False), encoding="utf-8")
    files.instances.write_text(json.dumps(truth(PHOTOS)))
    files.recipe.write_text(RECIPE, encoding="utf-8")
    files.sft.write_text(SFT, encoding="utf-8")
    return files


RECIPE = """
seed: 3
output: run
model: {path: pocket, tune: {kind: full}}
source:
  kind: generated
  data: {kind: llava_instruct, file: my rows.json, images: pictures}
  negatives:
    guidance: {kind: sentence_guided, max_new_tokens: 6}
    check: {kind: dissimilar, encoder: pocket, rounds: 3}
    batch_size: 5
objective: {kind: dpo, beta: 0.1}
train: {steps: 3, batch_size: 4, micro_batch_size: 2, lr: 1e-4, checkpoint_every: 1}
evaluate:
  - {kind: chair, images: pictures, instances: instances.json, max_new_tokens: 8}
  - {kind: pope, images: pictures, instances: instances.json, num_images: 4, per_image: 1}
"""
SFT = """
extends: recipe.yaml
source:
  kind: offline
  data: {kind: llava_instruct, file: my rows.json, images: pictures}
objective: {kind: sft}
"""
LORA = "model.tune={kind: lora, r: 4, alpha: 8}"
