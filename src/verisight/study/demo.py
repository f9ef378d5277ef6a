"""The demo: the whole job on the built-in world. BDHS pairs, DPO, the SFT control, before and after, a report."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from verisight import build
from verisight.pocket.budget import Budget
from verisight.pocket.datasets import write_split
from verisight.recipe import Recipe
from verisight.study.report import Arm, comparison, terminal_table, write_report
from verisight.study.run import evaluate, open_run, train


@dataclass(frozen=True, slots=True)
class Size:
    """How much the demo does. The defaults take under five minutes on two cores."""

    budget: Budget = Budget()
    test: int = 1000  # test scenes described
    pope_images: int = 150  # test scenes asked about, 18 questions each


BETA = 0.1


def run_demo(out: Path, *, seed: int = 0, size: Size | None = None, model: str = "pocket", quiet: bool = False) -> Path:
    """Run the demo in `out` (a killed one continues) and return the path of report.html.

    The three models (base, BDHS-DPO, SFT on the chosen answers with the same rows, steps, batch and learning rate)
    are measured on the same untouched test scenes.
    """
    size = size or Size()
    started = time.monotonic()
    data = _write_data(out / "data", size)
    arms = {
        "BDHS-DPO": _recipe(out / "bdhs_dpo", _bdhs(data), {"kind": "dpo", "beta": BETA}, data, seed, size, model),
        "SFT on chosen": _recipe(out / "sft", _chosen(data), {"kind": "sft"}, data, seed, size, model),
    }
    for recipe in arms.values():
        open_run(recipe)  # a folder that holds another run is refused before any work
    benchmarks = [build.benchmark(node) for node in arms["BDHS-DPO"].evaluate]
    starting = build.open_model(arms["BDHS-DPO"].model)
    evaluate(starting, benchmarks, folder=out / "base", quiet=quiet)
    for recipe in arms.values():
        aligned = recipe.model.model_copy(update={"path": str(train(recipe, quiet=quiet))})
        evaluate(build.open_model(aligned), benchmarks, folder=recipe.output, quiet=quiet)
    shown = [Arm("base", out / "base"), *(Arm(label, out / recipe.output.name) for label, recipe in arms.items())]
    title = f"Verisight demo, seed {seed}: the pocket model before and after alignment"
    report = write_report(shown, target=out / "report.html", title=title, images=data / "test" / "images")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(terminal_table(comparison(shown)))
    console.print(f"{time.monotonic() - started:.0f} s. Report: {report}", soft_wrap=True, highlight=False)
    return report


def _write_data(folder: Path, size: Size) -> Path:
    """The demo's splits, written once."""
    if not (folder / "test" / "scenes.json").exists():
        write_split(folder, "preference", num=size.budget.scenes)
        write_split(folder, "test", num=size.test)
    return folder.resolve()


def _recipe(
    output: Path,
    source: dict[str, Any],
    objective: dict[str, Any],
    data: Path,
    seed: int,
    size: Size,
    model: str,
) -> Recipe:
    truth = {
        "images": data / "test" / "images",
        "instances": data / "test" / "instances.json",
        "captions": data / "test" / "captions.json",
    }
    tree = {
        "seed": seed,
        "output": output,
        "model": {"path": model, "tune": {"kind": "full"}},
        "source": source,
        "objective": objective,
        "train": {
            "steps": size.budget.steps,
            "batch_size": size.budget.batch_size,
            "lr": size.budget.lr,
            "checkpoint_every": 40,
        },
        "evaluate": [
            {
                "kind": "chair",
                **truth,
                "scenes": data / "test" / "scenes.json",
                "protocol": "corrected",
                "max_new_tokens": 96,
            },
            {"kind": "pope", **truth, "num_images": size.pope_images, "seed": 0},
        ],
    }
    return Recipe.model_validate(tree)


def _chosen(data: Path) -> dict[str, Any]:
    split = data / "preference"
    rows = {"kind": "llava_instruct", "file": split / "llava_instruct.json", "images": split / "images"}
    return {"kind": "offline", "data": rows}


def _bdhs(data: Path) -> dict[str, Any]:
    """Algorithm 1 with the paper's settings; all 36 image tokens are hidden in most masks at rho 0.99."""
    return {
        "kind": "generated",
        "data": _chosen(data)["data"],
        "negatives": {
            "guidance": {"kind": "sentence_guided", "max_new_tokens": 32},
            "check": {"kind": "dissimilar", "encoder": "pocket"},
            "batch_size": 64,
        },
        "when": "offline",
    }
