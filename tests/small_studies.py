"""A study so small that a run of it takes a second or two: real recipes on a few pocket scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from typer.testing import CliRunner

from verisight import recipe
from verisight.cli import app
from verisight.pocket.datasets import write_split
from verisight.recipe import Study
from verisight.studies.launch import Task

RECIPE = {
    "seed": 0,
    "output": "unused",
    "model": {"path": "pocket", "tune": {"kind": "full"}},
    "source": {
        "kind": "generated",
        "data": {"kind": "llava_instruct", "file": "world/preference/llava_instruct.json",
                 "images": "world/preference/images"},
        "negatives": {
            "guidance": {"kind": "sentence_guided", "max_new_tokens": 8},
            "check": {"kind": "dissimilar", "encoder": "pocket"},
        },
    },
    "objective": {"kind": "dpo", "beta": 0.1},
    "train": {"steps": 2, "batch_size": 2, "lr": 1e-4},
    "evaluate": [
        {"kind": "chair", "images": "world/test/images", "instances": "world/test/instances.json",
         "protocol": "corrected", "max_new_tokens": 12},
        {"kind": "pope", "images": "world/test/images", "instances": "world/test/instances.json", "num_images": 4,
         "per_image": 1},
    ],
}  # fmt: skip
STUDY = {
    "name": "small",
    "title": "A small study",
    "base": "recipe.yaml",
    "store": "store",
    "output": "results",
    "seeds": [0, 1],
    "columns": ["chair/chair_i", "chair/recall", "chair/length_words", "pope/f1"],
    "scatter": ["chair/chair_i", "chair/recall"],
    "rounds": True,
    "arms": {"bdhs": {"label": "BDHS"}, "ipo": {"label": "IPO", "change": {"objective.kind": "ipo"}}},
}


@dataclass(slots=True)
class InProcess:
    """A launcher that runs tasks at once, in this process, and notes their names."""

    slots: int = 1
    names: list[str] = field(default_factory=list)

    def submit(self, task: Task) -> Ended:
        self.names.append(task.name)
        result = CliRunner().invoke(app, list(task.arguments))
        return Ended(None if result.exit_code == 0 else repr(result.exception))


@dataclass(slots=True)
class Ended:
    """A task that is over."""

    problem: str | None

    def done(self) -> bool:
        return True

    def error(self) -> str | None:
        return self.problem

    def cancel(self) -> None:
        pass


def write_study(folder: Path, *, world: Path | None = None, **changes: object) -> Path:
    """Write recipe, scenes and study (with top-level keys changed); returns the study's file."""
    if world is None and not (folder / "world").exists():
        write_split(folder / "world", "preference", num=6)
        write_split(folder / "world", "test", num=6)
    elif world is not None:
        (folder / "world").symlink_to(world, target_is_directory=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return file


def loaded(file: Path) -> Study:
    return recipe.load_study(file)
