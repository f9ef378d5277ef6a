"""One piece of a study's work, in a process of its own: pairs, or a run from training to its facts. It resumes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from filelock import FileLock

from verisight import recipe as recipes
from verisight.data.files import MARKER, read_json, write_atomic, write_json
from verisight.recipe.base import Node
from verisight.studies.arms import Places, Run, content_key, pairs_recipe
from verisight.types import UserError


class Spec(TypedDict):
    """What a task's file says. Paths are absolute."""

    kind: Literal["pairs", "run"]
    arm: str
    seed: int
    key: str
    fact: str | None
    store: str
    facts: str
    recipe: dict[str, Any] | None
    pairs: str | None
    annotator: dict[str, Any] | None
    asked: dict[str, Any]
    num_pairs: int
    untrained: NotRequired[bool]


def spec_of(run: Run, places: Places, *, num_pairs: int, kind: Literal["pairs", "run"] = "run") -> Spec:
    """A task's file."""
    one = run.recipe if kind == "run" or run.recipe is None else pairs_recipe(run.recipe, places)
    return {
        "kind": kind, "arm": run.arm, "seed": run.seed, "key": run.key, "fact": run.fact,
        "store": str(places.store), "facts": str(places.facts),
        "recipe": None if one is None else one.model_dump(mode="json"), "pairs": run.pairs,
        "annotator": run.annotator, "asked": dict(run.asked), "num_pairs": num_pairs, "untrained": run.untrained,
    }  # fmt: skip


def nodes_of(spec: Spec) -> list[Node]:
    """What a task's file describes: recipe, annotator, pairs that are asked about."""
    from pydantic import TypeAdapter

    found: list[Node] = []
    if spec["recipe"] is not None:
        one = recipes.Recipe.model_validate(spec["recipe"])
        found += [one.model, *one.evaluate] if spec.get("untrained") else [one]
    if spec["annotator"] is not None:
        found.append(TypeAdapter(recipes.Annotator).validate_python(spec["annotator"]))
    return [*found, *(TypeAdapter(recipes.Data).validate_python(tree) for tree in spec["asked"].values())]


def work(file: Path) -> None:
    """Do what a task's file says, or what is missing of it."""
    spec: Spec = read_json(file)
    places = Places(Path(spec["store"]), Path(spec["facts"]), Path(spec["store"]))
    name = spec["pairs"] if spec["kind"] == "pairs" else spec["key"]
    lock = places.lock(name or "")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if spec["kind"] == "pairs":
            _make_pairs(spec)
        else:
            _run(spec, places)


def _make_pairs(spec: Spec) -> None:
    from verisight.study.run import pairs

    one = recipes.Recipe.model_validate(spec["recipe"])
    with _timed(one.output, "pairs"):
        pairs(one, quiet=True)


def _run(spec: Spec, places: Places) -> None:
    from verisight.studies.facts import pack

    if spec["fact"] is not None and (places.fact(spec["fact"]) / "run.json").exists():
        return
    folder = places.run(spec["key"])
    if not spec.get("untrained"):
        _train(spec, places, folder)
    if spec["fact"] is None:
        return
    measured = places.store / "measured" / spec["fact"]
    with _timed(measured, "evaluate"):
        benchmarks = _measure(spec, folder, measured)
    pack(spec, places, run=folder, measured=measured, benchmarks=benchmarks)


def _train(spec: Spec, places: Places, folder: Path) -> None:
    from verisight.study.run import fill_reference, open_run, train

    if (folder / "model").exists():
        return
    one = recipes.Recipe.model_validate((spec["recipe"] or {}) | {"output": str(folder), "evaluate": []})
    one = shared_cache(one, places)
    if (folder / MARKER).exists():  # its name says which run it is, wherever the store was when it was begun
        write_atomic(folder / MARKER, recipes.recipe_hash(one) + "\n")
    open_run(one)
    if spec["pairs"] is not None:
        for path in sorted(places.pairs(spec["pairs"]).glob("*pairs*.*")):
            if path.suffix in (".parquet", ".jsonl"):
                _link(path, folder / path.name)
    with _timed(folder, "train"):
        if one.train.reference == "cached" and one.train.cache is not None:
            with FileLock(one.train.cache.with_suffix(".lock")):
                fill_reference(one, quiet=True)
        train(one, quiet=True)


def shared_cache(one: recipes.Recipe, places: Places) -> recipes.Recipe:
    """The recipe with stored reference log-probs in a folder of all runs that have its model, pairs and seed."""
    if one.train.reference != "cached" or one.train.cache is not None:
        return one
    of = one.model_dump(mode="json", include={"model", "source", "seed"})
    folder = places.store / "cache" / content_key(of, places.store)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return one.model_copy(update={"train": one.train.model_copy(update={"cache": folder})})


def _link(path: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be; one that is there stays."""
    if target.exists():
        return
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target.with_name(f".{target.name}.tmp"))
        os.replace(target.with_name(f".{target.name}.tmp"), target)


def _measure(spec: Spec, folder: Path, measured: Path) -> dict[str, str]:
    """Measure the run; returns benchmark -> whose rows they are (a benchmark, `reward` or `judge`)."""
    from verisight import build
    from verisight.study.run import evaluate, open_benchmarks

    if spec["annotator"] is not None:
        return _ask(spec, measured)
    one = recipes.Recipe.model_validate((spec["recipe"] or {}) | {"output": str(folder)})
    path = one.model.path if spec.get("untrained") else str(folder / "model")
    model = one.model.model_copy(update={"path": path})
    if isinstance(one.objective, recipes.Reward):
        return _rate(spec, model, measured)
    benchmarks = open_benchmarks(one)
    evaluate(build.open_model(model), benchmarks, folder=measured, model=path, quiet=True)
    return {benchmark.name: benchmark.name for benchmark in benchmarks}


def _rate(spec: Spec, model: recipes.Model, measured: Path) -> dict[str, str]:
    from verisight import build
    from verisight.data.files import write_jsonl
    from verisight.study.rewarding import check

    opened = build.open_reward(model)
    for name, pairs in _asked(spec, measured):
        rows = measured / "evaluate" / f"pairs.{name}.jsonl"
        if not rows.exists():
            write_jsonl(rows, check(opened, pairs, seed=0).rows)
    return {f"pairs.{name}": "reward" for name in spec["asked"]}


def _ask(spec: Spec, measured: Path) -> dict[str, str]:
    from pydantic import TypeAdapter

    from verisight.build.annotators import annotator
    from verisight.data.files import write_jsonl
    from verisight.study.judging import check

    node: recipes.Annotator = TypeAdapter(recipes.Annotator).validate_python(spec["annotator"])
    asked = annotator(node, folder=measured, seed=spec["seed"])
    for name, pairs in _asked(spec, measured):
        rows = measured / "evaluate" / f"pairs.{name}.jsonl"
        if not rows.exists():
            write_jsonl(rows, check(asked, pairs, folder=measured / "asked" / name, seed=0).rows)
    return {f"pairs.{name}": "judge" for name in spec["asked"]}


def _asked(spec: Spec, measured: Path) -> Iterator[tuple[str, Any]]:
    """The held-out pairs by name, at most `num_pairs` of each."""
    from pydantic import TypeAdapter

    from verisight.build.data import read
    from verisight.data.outcome import enforce_bad_fraction
    from verisight.study.judging import sample_pairs

    for name, tree in spec["asked"].items():
        node: recipes.Data = TypeAdapter(recipes.Data).validate_python(tree)
        found = read(node, folder=measured / "rows")
        try:
            enforce_bad_fraction(found.bad, num_rows=found.num_rows, max_bad_fraction=0.0, log=None)
        except UserError as error:
            raise UserError(f"pairs.{name}: {error}") from error
        yield name, sample_pairs(found.pairs, num=spec["num_pairs"], seed=0)[0]
    shutil.rmtree(measured / "rows", ignore_errors=True)


@contextmanager
def _timed(folder: Path, part: str) -> Iterator[None]:
    """Adds to seconds.json what a part took; of a process that was killed nothing is known."""
    began = time.monotonic()
    yield
    file = folder / "seconds.json"
    known = read_json(file) if file.exists() else {}
    write_json(file, known | {part: round(known.get(part, 0.0) + time.monotonic() - began, 1)})


def seconds_of(folders: Mapping[str, Path]) -> dict[str, float]:
    """Seconds by part, of the folders that noted them."""
    found: dict[str, float] = {}
    for folder in folders.values():
        file = folder / "seconds.json"
        found |= read_json(file) if file.exists() else {}
    return found
