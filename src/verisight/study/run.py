"""One run: pairs, training, evaluation. Each part writes its facts into the run folder and can be killed and resumed."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from verisight import build
from verisight.data.files import claim_run_folder, read_json, write_atomic, write_json, write_jsonl
from verisight.data.readers import enforce_bad_fraction
from verisight.data.records import read_pairs, write_pairs
from verisight.evaluate.runner import run_benchmark
from verisight.models.loading import check_model
from verisight.models.policy import Policy
from verisight.progress import track
from verisight.recipe import Generated, Recipe, check_files, dump, recipe_hash
from verisight.sources.generated import generate_pairs
from verisight.train.loop import fit
from verisight.types import Benchmark, Pair, UserError

_PACKAGES = ("verisight", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pillow")


def open_run(recipe: Recipe) -> Path:
    """Check everything a user wrote and claim the run folder (or continue in it). No model is loaded."""
    check_files(recipe)
    check_model(recipe.model.path)
    folder = recipe.output
    claim_run_folder(folder, recipe_hash(recipe))
    write_atomic(folder / "recipe.yaml", dump(recipe))
    write_json(
        folder / "environment.json",
        {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        | {name: version(name) for name in _PACKAGES},
    )
    return folder


def pairs(recipe: Recipe, *, policy: Policy | None = None, quiet: bool = False) -> list[Pair]:
    """The pairs of a source that is generated beforehand: written once to pairs.parquet, then read.

    `policy` is the untouched starting model, opened here if absent.
    """
    if not isinstance(recipe.source, Generated):
        raise UserError(f"source.kind: found {recipe.source.kind}, whose pairs exist already; accepted: generated")
    folder, source = open_run(recipe), recipe.source
    target = folder / "pairs.parquet"
    if target.exists():
        return list(read_pairs(target, check_images=False).pairs)
    rows = build.examples(recipe, log=folder / "bad_rows.jsonl")
    policy = policy or build.open_model(recipe.model)
    journal = folder / "negatives.jsonl"
    with track("pairs", total=len(rows), unit="pairs", quiet=quiet) as advance:
        made, bad = generate_pairs(
            policy, rows, build.hallucinate(source.negatives), origin=build.origin(source.negatives),
            seed=recipe.seed, batch_size=source.negatives.batch_size, journal=journal, advance=advance,
        )  # fmt: skip
    enforce_bad_fraction(
        bad, num_rows=len(rows), max_bad_fraction=max(recipe.max_bad_fraction, 0.05), log=folder / "equal_pairs.jsonl"
    )
    write_pairs(target, made)
    journal.unlink()
    return made


def train(recipe: Recipe, *, quiet: bool = False) -> Path:
    """Align the model. The folder's model/ holds the result; an existing one is not trained again."""
    folder = open_run(recipe)
    model = folder / "model"
    if model.exists():
        return model
    policy = build.open_model(recipe.model)
    if isinstance(recipe.source, Generated) and recipe.source.when == "offline":
        rows = pairs(recipe, policy=policy, quiet=quiet)
    else:
        rows = build.examples(recipe, log=folder / "bad_rows.jsonl")
    build.tune(policy, recipe.model)
    fit(
        policy,
        build.online_source(recipe, rows),
        build.step(recipe, policy),
        optimization=build.optimization(recipe.train, num_pairs=len(rows)),
        folder=folder,
        label=f"train ({recipe.objective.kind})",
        quiet=quiet,
    )
    save_model(policy, model)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return model


def save_model(policy: Policy, folder: Path) -> None:
    """Write a model folder whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    os.replace(partial, folder)


def evaluate(
    model: str, benchmarks: Sequence[Benchmark], *, folder: Path, dtype: str = "float32", batch_size: int = 64,
    quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model folder, hub id or 'pocket'. Answers and summary go to folder/evaluate."""
    from verisight.models.loading import load_model

    check_model(model)
    policy = Policy(*load_model(model, dtype=dtype))
    return {one.name: run_benchmark(policy, one, folder=folder, batch_size=batch_size, quiet=quiet) for one in benchmarks}


def summary(folder: Path) -> dict[str, Any]:
    """What was measured of a run or model: benchmark -> its summary."""
    return read_json(folder / "evaluate" / "summary.json")


__all__ = ["evaluate", "open_run", "pairs", "save_model", "summary", "train", "write_jsonl"]
