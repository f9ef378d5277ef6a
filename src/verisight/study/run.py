"""One run: pairs, training, evaluation. Each part writes facts into the run folder and can be killed and resumed."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from verisight import build
from verisight.data.files import MARKER, claim_run_folder, read_jsonl, write_atomic, write_json
from verisight.data.images import ImageChecker
from verisight.data.views import Chain, Groups
from verisight.evaluate.benchmark import Benchmark, Item
from verisight.evaluate.runner import Progress, run_benchmark
from verisight.models.families import Family
from verisight.models.loading import check_model
from verisight.models.policy import Policy
from verisight.models.ranks import join, ranks, watched
from verisight.models.reference import StoredReference, store_reference
from verisight.models.weights_hash import weights_sha256
from verisight.progress import track
from verisight.recipe import Averaged, Generated, Masked, Recipe, Rollouts, below, check_files, dump, recipe_hash
from verisight.sources.offline import Offline
from verisight.study.prepare import make_pairs, prepare, probe
from verisight.study.rollouts import open_learning
from verisight.train.checkpoint import latest_checkpoint, load_weights
from verisight.train.guard import Collapsed
from verisight.train.loop import fit
from verisight.train.spread import check_batch
from verisight.train.tracking import check_trackers
from verisight.types import Pair, Rewarder, UserError

LAST_GOOD = "last_good"  # the model before a collapse
_PACKAGES = ("verisight", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pillow")
# written before any work
_WRITTEN_FIRST = re.compile(rf"{MARKER}|recipe\.yaml|environment\.json|bad_rows(\..+)?\.jsonl|data(\..+)?\.json|rows")


def open_run(recipe: Recipe) -> Path:
    """Check everything a user wrote and claim the run folder (or continue in it). No model is loaded.

    A folder whose run was refused before it did any work may be claimed by a changed recipe. The main process claims.
    """
    join()
    with watched(), ranks().in_turn():
        return _open_run(recipe)


def _open_run(recipe: Recipe) -> Path:
    check_files(recipe)
    check_batch(recipe.train.batch_size)
    check_trackers(recipe.train.trackers)
    build.check_chats(recipe)
    _check_positions(recipe, check_model(recipe.model.path))
    _check_cache(recipe)
    folder = recipe.output
    if not ranks().main:
        return folder
    _forget_refused(folder, recipe_hash(recipe))
    claim_run_folder(folder, recipe_hash(recipe))
    write_atomic(folder / "recipe.yaml", dump(recipe))
    if not (folder / "environment.json").exists():  # what a run was begun with, whoever looks at it later
        found = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        write_json(folder / "environment.json", found | {name: version(name) for name in _PACKAGES})
    return folder


def _check_positions(recipe: Recipe, family: Family | None) -> None:
    """Refuse `compact` where positions have three axes. Of a hub id that is said when the first negative is drawn."""
    for key, node in below(recipe.source):
        view = node.negatives.view if isinstance(node, Generated | Averaged) else None
        if family is not None and isinstance(view, Masked) and view.positions == "compact" and family.axes > 1:
            raise UserError(
                f"{key}.negatives.view.positions: found compact with a {family.model_type!r} model, whose positions "
                f"have {family.axes} axes; accepted: original"
            )


def _check_cache(recipe: Recipe) -> None:
    try:
        if recipe.train.cache is not None:
            recipe.train.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"train.cache: {recipe.train.cache} cannot be made ({error.strerror}); accepted: a folder that can"
        ) from error


def _forget_refused(folder: Path, recipe_hash: str) -> None:
    names = os.listdir(folder) if folder.is_dir() else []
    if MARKER in names and all(map(_WRITTEN_FIRST.fullmatch, names)):
        if (folder / MARKER).read_text(errors="replace").strip() == recipe_hash:
            return  # the same recipe again: what it read is still good
        shutil.rmtree(folder / "rows", ignore_errors=True)
        for name in sorted({*names} - {"rows"}, key=MARKER.__eq__):  # the marker last: a kill leaves a known folder
            (folder / name).unlink()


def open_benchmarks(recipe: Recipe) -> list[Benchmark]:
    """The recipe's benchmarks. Their files are read and their pictures decoded once, before any model loads."""
    benchmarks = [build.benchmark(node) for node in recipe.evaluate]
    for one in benchmarks:
        check_pictures(one)
    return benchmarks


def check_pictures(benchmark: Benchmark) -> list[Item]:
    """The benchmark's items, their pictures decoded once."""
    check, items = ImageChecker(decode=True), benchmark.items()
    for item in items:
        for image in item.prompt.images:
            check(image)
    return items


def pairs(recipe: Recipe, *, quiet: bool = False) -> Sequence[Pair]:
    """The recipe's pairs, written to pairs.parquet: hallucinations, ranked answers, or the composed data set."""
    if isinstance(recipe.source, Rollouts):
        accepted = "a source of pairs; rated answers are drawn while training"
        raise UserError(f"source.kind: found rollouts, of which no pairs are made; accepted: {accepted}")
    open_run(recipe)
    with watched():
        return make_pairs(recipe, quiet=quiet or not ranks().main)


def train(recipe: Recipe, *, quiet: bool = False) -> Path:
    """Align the model. The folder's model/ holds the result; an existing one is not trained again.

    Processes of a launcher (accelerate launch, torchrun) share the work; the main one writes.
    """
    folder = open_run(recipe)
    model, quiet = folder / "model", quiet or not ranks().main
    with watched():
        if not ranks().told(model.exists())[0]:
            _train(recipe, model, quiet=quiet)
        ranks().wait()
    _clear(folder)
    return model


def _train(recipe: Recipe, model: Path, *, quiet: bool) -> None:
    open_benchmarks(recipe)  # what is wrong with them is said before the training, not after it
    rows = prepare(recipe, quiet=quiet)
    policy = build.open_trained(recipe)
    build.tune(policy, recipe.model, seed=recipe.seed)
    build.keep_looks(policy, recipe)
    if recipe.train.gradient_checkpointing:
        policy.checkpoint_gradients()
    learn = _from_rollouts if isinstance(recipe.source, Rollouts) else _from_pairs
    learn(recipe, policy, rows, quiet=quiet)
    if ranks().main:
        _summarise(recipe.output, num_pairs=max(map(len, rows.values())))
        save_model(policy, model)


def fill_reference(recipe: Recipe, *, quiet: bool = False) -> None:
    """Compute the reference log-probs that a run with `train.reference: cached` needs and that are not on file yet."""
    open_run(recipe)
    rows = prepare(recipe, quiet=quiet)
    policy = build.open_trained(recipe)
    build.tune(policy, recipe.model, seed=recipe.seed)
    build.keep_looks(policy, recipe)
    _stored_reference(policy, recipe, Chain(list(rows.values())), quiet=quiet)


def _from_pairs(recipe: Recipe, policy: Policy, rows: Mapping[str, Sequence[Pair]], *, quiet: bool) -> None:
    source, stored = build.source(recipe, rows), None
    if recipe.train.reference == "cached":
        stored = _stored_reference(policy, recipe, Chain(list(rows.values())), quiet=quiet)
    step = build.step(recipe, policy, rows, stored=stored)
    looks = None
    if recipe.diagnose is not None:
        pairs = probe(recipe, source, policy, quiet=quiet)
        looks = build.diagnose(recipe, policy, step, pairs, raters=_gold(recipe))
    fit(
        policy, source, step, optimization=build.optimization(recipe, num_pairs=max(map(len, rows.values()))),
        folder=recipe.output, probe=looks, label=f"train ({recipe.objective.kind})", quiet=quiet,
    )  # fmt: skip


def _from_rollouts(recipe: Recipe, policy: Policy, rows: Mapping[str, Sequence[Pair]], *, quiet: bool) -> None:
    learning = open_learning(recipe, policy, rows, quiet=quiet)
    looks = None
    if recipe.diagnose is not None:
        pairs = probe(recipe, Offline(rows["source"], seed=recipe.seed), policy, quiet=quiet)
        looks = build.diagnose(recipe, policy, learning.step, pairs, raters=learning.raters)
    assert isinstance(recipe.source, Rollouts)
    guard = build.guard(recipe.source)
    try:
        fit(
            policy, learning.source, learning.step, folder=recipe.output, beside=learning.beside,
            optimization=build.optimization(recipe, num_pairs=len(rows["source"])), probe=looks,
            watch=guard, drawing=learning.source,
            label=f"train ({recipe.objective.kind})", quiet=quiet,
        )  # fmt: skip
    except Collapsed as error:
        assert guard is not None
        raise Collapsed(f"{error}; {_keep_last_good(recipe.output, policy, guard.good_step)}") from error


def _gold(recipe: Recipe) -> dict[str, Rewarder]:
    if recipe.diagnose is None or recipe.diagnose.gold is None:
        return {}
    return {"gold": build.rewarder(recipe.diagnose.gold, folder=recipe.output, seed=recipe.seed)}


def _keep_last_good(folder: Path, policy: Policy, step: int) -> str:
    """Write the model of the newest checkpoint whose answers were seen to break no limit; says where it is."""
    newest = latest_checkpoint(folder / "checkpoints", up_to=step)
    if not ranks().main:
        return "the main process keeps the last good model"
    if newest is None:
        return f"there is no checkpoint of step {step} or earlier (train.checkpoint_every)"
    load_weights(newest, policy.trainable())
    shutil.rmtree(folder / LAST_GOOD, ignore_errors=True)
    save_model(policy, folder / LAST_GOOD)
    return f"the model of {newest.name}, the last good one, is in {folder / LAST_GOOD}"


def _stored_reference(policy: Policy, recipe: Recipe, rows: Sequence[Pair], *, quiet: bool) -> StoredReference:
    """Reference log-probs of all rows: those that are not on file yet are computed now, before any training."""
    batch_size = recipe.train.micro_batch_size or recipe.train.batch_size
    file = build.cache_folder(recipe) / "reference.jsonl"
    with track("reference", total=len(rows), unit="pairs", quiet=quiet) as advance:
        return store_reference(policy, Groups(rows), file, batch_size=batch_size, advance=advance)


def _clear(folder: Path) -> None:
    """Delete what only an unfinished training needs."""
    for name in ("checkpoints", "cache", "rows") if ranks().main else ():
        shutil.rmtree(folder / name, ignore_errors=True)


def _summarise(folder: Path, *, num_pairs: int) -> None:
    """summary.json: how much was trained on, for how long, and the first and last row of metrics.jsonl."""
    rows = [row for row in read_jsonl(folder / "metrics.jsonl") if row["split"] == "train"]
    seconds = round(sum(row["seconds"] for row in rows), 3)
    found = {"num_pairs": num_pairs, "steps": len(rows), "seconds": seconds, "first": rows[0], "last": rows[-1]}
    write_json(folder / "summary.json", found)


def save_model(policy: Policy, folder: Path) -> None:
    """Write a model folder whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save(partial)
    os.replace(partial, folder)


def evaluate(
    policy: Policy, benchmarks: Sequence[Benchmark], *, folder: Path, batch_size: int = 64, model: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure a policy: answers and summary go to folder/evaluate, which belongs to this one model.

    `model` is where it lies (a folder, or `pocket`): answers of other weights found there are refused.
    """
    weights = None if model is None else weights_sha256(model)
    summaries = {}
    for one in benchmarks:
        with progress_of(one.name, folder, len(one.items()), quiet=quiet) as progress:
            summaries[one.name] = run_benchmark(
                policy, one, folder=folder, batch_size=batch_size, model=weights, progress=progress
            )
    return summaries


@contextmanager
def progress_of(name: str, folder: Path, total: int, *, quiet: bool) -> Iterator[Progress]:
    """Shows how many items of a benchmark are answered."""
    with track(f"{name} ({folder.name})", total=total, unit="items", quiet=quiet) as advance:
        done = 0

        def report(answered: int, _: int) -> None:
            nonlocal done
            advance(answered - done)
            done = answered

        yield report


def evaluate_run(recipe: Recipe, *, quiet: bool = False) -> tuple[Path, dict[str, Any]]:
    """Measure the recipe's aligned model, or its starting model while there is none, on the recipe's benchmarks.

    Returns the folder that holds evaluate/ (the run folder, or its `base` folder for the starting model).
    """
    if not recipe.evaluate:
        raise UserError("evaluate: found no benchmark, accepted: a list of at least one")
    folder = open_run(recipe)
    trained = (folder / "model").exists()
    model = recipe.model.model_copy(update={"path": str(folder / "model")}) if trained else recipe.model
    target = folder if trained else folder / "base"
    benchmarks = open_benchmarks(recipe)
    return target, evaluate(build.open_model(model), benchmarks, folder=target, model=model.path, quiet=quiet)
