"""What a run has shown, kept small enough to commit: every item's counts, curves, a few answers, pairs and pictures.

A folder a run: run.json (what it was made by, its summary), counts/<benchmark>.parquet (all that metrics are counted
from), answers.parquet, pairs.parquet, curves.json. Pictures are shared, by content, in pictures/.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from verisight.build.data import read
from verisight.data.files import read_json, read_jsonl, write_atomic, write_json
from verisight.data.readers import open_data
from verisight.evaluate.paired import MEASURES, ScoredRun
from verisight.evaluate.stats import Measure
from verisight.recipe import Offline, Recipe
from verisight.studies.arms import Places, portable_tree
from verisight.studies.inputs import inputs_of
from verisight.studies.samples import answer_samples, curves, pair_samples
from verisight.studies.work import Spec, nodes_of, seconds_of
from verisight.types import Pair, UserError

if TYPE_CHECKING:
    from verisight.evaluate.paired import Measures

_TEXTS = frozenset({"answer", "question", "image", "mentions", "claims", "raw", "reply"})
_PACKAGES = ("verisight", "torch", "transformers", "numpy")


def measures_of(kind: str) -> Measures:
    """The measures of rows: a benchmark's, or those of pairs that a reward model or an annotator was asked about."""
    from verisight.study import judging, rewarding

    return {"reward": rewarding.measures, "judge": judging.measures}.get(kind) or MEASURES[kind]


def pack(spec: Spec, places: Places, *, run: Path, measured: Path, benchmarks: Mapping[str, str]) -> Path:
    """Write a run's facts, whole or not at all; returns their folder."""
    assert spec["fact"] is not None
    target = places.fact(spec["fact"])
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pictures = places.facts / "pictures"
    for name, kind in benchmarks.items():
        rows = read_jsonl(measured / "evaluate" / f"{name}.jsonl")
        _write_counts(partial / "counts" / f"{name}.parquet", rows, measures_of(kind))
        if name == "chair":
            _write(partial / "answers.parquet", answer_samples(rows, pictures))
    about: dict[str, Any] = {}
    if (run / "metrics.jsonl").exists():
        write_json(partial / "curves.json", curves(read_jsonl(run / "metrics.jsonl")))
        about = read_json(run / "summary.json")
    samples, told = pair_samples(_pairs(spec, run, measured), pictures)
    _write(partial / "pairs.parquet", samples)
    summary = measured / "evaluate" / "summary.json"
    folders = {"measured": measured, "run": run}
    if spec["pairs"] is not None:
        folders["pairs"] = places.pairs(spec["pairs"])
    facts = {
        "arm": spec["arm"], "seed": spec["seed"], "key": spec["key"], "fact": spec["fact"],
        "recipe": _relative(spec["recipe"], places.store), "annotator": _relative(spec["annotator"], places.store),
        "benchmarks": dict(benchmarks), "summary": read_json(summary) if summary.exists() else {},
        "training": about, "pairs": told, "seconds": seconds_of(folders),
        "versions": {name: version(name) for name in _PACKAGES}, "inputs": inputs_of(nodes_of(spec), places.store),
    }  # fmt: skip
    write_json(partial / "run.json", facts)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    return target


def _pairs(spec: Spec, run: Path, measured: Path) -> Iterator[Pair]:
    """The pairs that a run was trained on, where they were known beforehand."""
    if (run / "pairs.parquet").exists():
        for outcome in open_data(run / "pairs.parquet", kind="pairs", check_images=False):
            yield from outcome.pairs
        return
    one = None if spec["recipe"] is None or spec.get("untrained") else Recipe.model_validate(
        spec["recipe"] | {"output": str(run)}
    )  # fmt: skip
    if one is not None and isinstance(one.source, Offline):
        yield from read(one.source.data, folder=measured / "rows").pairs
        shutil.rmtree(measured / "rows", ignore_errors=True)


def read_run(folder: Path) -> dict[str, Any]:
    """What run.json says."""
    found = read_json(folder / "run.json")
    if not isinstance(found, dict) or not found.keys() >= {"arm", "seed", "benchmarks"}:
        raise UserError(f"{folder / 'run.json'}: is no run's; accepted: what a study has written")
    return found


def read_counts(folder: Path, name: str, kind: str) -> ScoredRun:
    """One benchmark of a run, ready for statistics."""
    rows = _read(folder / "counts" / f"{name}.parquet")
    return ScoredRun([row["uid"] for row in rows], [row["cluster"] for row in rows], measures_of(kind)(rows))


def read_samples(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of answers.parquet or pairs.parquet; none where there is no such file."""
    path = folder / f"{name}.parquet"
    return _read(path) if path.exists() else []


def _write_counts(path: Path, rows: Sequence[dict[str, Any]], measures: Measures) -> None:
    """The rows without their texts; the metrics that are counted from them are the same, or all is kept."""
    kept = [_without_texts(row) for row in rows]
    _write(path, kept)
    if not _same(measures(_read(path)), measures(rows)):
        _write(path, rows)
        assert _same(measures(_read(path)), measures(rows)), f"{path}: rows count as they did"


def _without_texts(row: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in row.items() if key not in _TEXTS}
    if isinstance(row.get("truth"), dict):
        found["truth"] = {key: value for key, value in row["truth"].items() if not isinstance(value, list | dict)}
        if not found["truth"]:
            del found["truth"]
    return found


def _same(a: dict[str, Measure], b: dict[str, Measure]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name].counts, b[name].counts) for name in a)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(rows)), sink, compression="zstd", compression_level=19)
        write_atomic(path, sink.getvalue().to_pybytes())


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return [_without_holes(row) for row in pq.read_table(path).to_pylist()]
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the study again") from error


def _without_holes(row: dict[str, Any]) -> dict[str, Any]:
    """Keys that only other rows have come back as None: dictionaries of nothing go, values stay."""
    return {
        key: value for key, value in row.items()
        if not (isinstance(value, dict) and value and all(part is None for part in value.values()))
        and not (value is None and key in ("no_image", "swapped"))
    }  # fmt: skip


def _relative(value: Any, store: Path) -> Any:
    return None if value is None else portable_tree({k: v for k, v in value.items() if k != "output"}, store)
