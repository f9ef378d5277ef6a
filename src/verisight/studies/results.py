"""From facts to findings: every arm's numbers, what may be said of their differences, and what there is to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from verisight.data.files import write_json
from verisight.evaluate.stats import Direction, Measure
from verisight.recipe import Arm, Study
from verisight.recipe.study import BASE, CONTROL
from verisight.studies.arms import Places, Run, places_of, runs_of
from verisight.studies.effects import Numbers, Resampled, Resampler, Spread, effects, spread
from verisight.studies.facts import read_counts, read_run
from verisight.studies.findings import ArmRow, Best, Cell, Column, Effect
from verisight.studies.inputs import check_alike
from verisight.study.tables import METRICS
from verisight.types import UserError

CONTROL_LABELS = {BASE: "base", CONTROL: "SFT on chosen"}
CONTROL_MEANINGS = {
    BASE: "the starting model",
    CONTROL: "supervised on the chosen answers alone, at the same budget: what is news in them, without preferences",
}
_SHOWN = {f"{one.benchmark}/{one.name}": one for one in METRICS}
_MORE = {
    f"pope/{split}/f1": Column(f"pope/{split}/f1", f"POPE F1, {split}", f"questions about {what} objects", "higher")
    for split, what in (("random", "random"), ("popular", "common"), ("adversarial", "co-occurring"))
}
_PAIRS = {"accuracy": "right about", "image_gain": "gained by the picture on"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A run whose facts are there: what its run.json says, and its benchmarks, resampled."""

    run: Run
    folder: Path
    about: dict[str, Any]
    benchmarks: Mapping[str, Resampled]


@dataclass(frozen=True, slots=True)
class Results:
    """A study's arms with their runs by seed, and what is missing. The base stands in for every seed."""

    study: Study
    places: Places
    arms: Mapping[str, Mapping[int, Shown]]
    missing: tuple[str, ...]

    def pick(self, arm: str, key: str, seeds: Sequence[int]) -> list[tuple[float, Numbers]]:
        """One metric of an arm's runs of these seeds, each with its resamples."""
        benchmark, _, name = key.partition("/")
        return [
            (one.values[name], one.resampled[name])
            for seed in seeds
            for one in [self.arms[arm][seed].benchmarks[benchmark]]
        ]

    def has(self, arm: str, key: str) -> list[int]:
        """Seeds of an arm for which the metric is known."""
        benchmark, _, name = key.partition("/")
        found = self.arms.get(arm, {})
        return [seed for seed, one in found.items()
                if benchmark in one.benchmarks and name in one.benchmarks[benchmark].values]  # fmt: skip

    def difference(self, arm: str, than: str | float, key: str) -> Spread | None:
        """An arm's metric less another's (or less a number), over the seeds that both have; None without any."""
        if isinstance(than, float | int):
            seeds = self.has(arm, key)
            return spread(self.pick(arm, key, seeds), float(than)) if seeds else None
        seeds = [seed for seed in self.has(arm, key) if seed in self.has(than, key)]
        return spread(self.pick(arm, key, seeds), self.pick(than, key, seeds)) if seeds else None

    def column(self, key: str) -> Column:
        """What is known of a metric. Raises UserError where its benchmark was run and has no such metric."""
        benchmark, _, name = key.partition("/")
        metrics = [one.benchmarks[benchmark].values for runs in self.arms.values() for one in runs.values()
                   if benchmark in one.benchmarks]  # fmt: skip
        if metrics and not any(name in values for values in metrics):
            raise UserError(f"{self.study.name}: {key}: found no such metric; accepted: {', '.join(metrics[0])}")
        return column_of(key, self._measure(key))

    def _measure(self, key: str) -> Measure | None:
        benchmark, _, name = key.partition("/")
        for runs in self.arms.values():
            for one in runs.values():
                if benchmark in one.benchmarks and name in one.benchmarks[benchmark].measures:
                    return one.benchmarks[benchmark].measures[name]
        return None


def read_results(study: Study, *, file: Path, resampler: Resampler | None = None) -> Results:
    """Read the facts of every run that has them.

    Raises:
        UserError: runs of one benchmark answered different items, runs were made from other contents of a file than
            others, or facts cannot be read.
    """
    places, resampler = places_of(study), resampler or Resampler()
    arms: dict[str, dict[int, Shown]] = {}
    missing, items = [], dict[str, str]()
    for run in runs_of(study, file=str(file)):
        if run.fact is None:
            continue
        folder = places.fact(run.fact)
        if not (folder / "run.json").exists():
            missing.append(f"{run.arm}-{run.seed}")
            continue
        about = read_run(folder)
        if run.fact not in resampler.known:
            resampler.known[run.fact] = {
                name: resampler(name, read_counts(folder, name, kind)) for name, kind in about["benchmarks"].items()
            }
        for name, one in resampler.known[run.fact].items():
            if items.setdefault(name, one.items) != one.items:
                raise UserError(f"{folder}: {run.arm}-{run.seed} has other items of {name} than the study's other runs")
        seeds = study.seeds if run.untrained else (run.seed,)
        for seed in seeds:
            arms.setdefault(run.arm, {})[seed] = Shown(run, folder, about, resampler.known[run.fact])
    shown = {f"{one.run.arm}-{one.run.seed}": one.about for runs in arms.values() for one in runs.values()}
    check_alike(shown.items())
    return Results(study, places, arms, tuple(missing))


def columns_of(results: Results) -> tuple[Column, ...]:
    """The table's columns: the study's own, or all of METRICS that its runs have."""
    keys = results.study.columns or tuple(
        key for key in _SHOWN if any(results.has(arm, key) for arm in results.arms)
    )  # fmt: skip
    return tuple(results.column(key) for key in keys)


def column_of(key: str, measure: Measure | None) -> Column:
    """A metric as it is shown; `measure` says what METRICS does not."""
    benchmark, _, name = key.partition("/")
    if key in _SHOWN:
        one = _SHOWN[key]
        label = {"pope": f"POPE {one.label}"}.get(benchmark, one.label)
        return Column(key, label, one.meaning, one.better, one.percent)
    if key in _MORE:
        return _MORE[key]
    better: Direction = "neutral" if measure is None else measure.better
    percent = measure is None or measure.fraction or name == "image_gain"
    if benchmark.startswith("pairs."):
        label = f"{benchmark.removeprefix('pairs.')}{'' if name == 'accuracy' else f', {name}'.replace('_', ' ')}"
        return Column(key, label, f"{_PAIRS.get(name, name)} held-out pairs", better, percent)
    return Column(key, f"{benchmark} {name}".replace("_", " "), name, better, percent)


def rows_of(results: Results, columns: Sequence[Column]) -> tuple[ArmRow, ...]:
    """Every arm that has runs: the controls first, then in the study's order."""
    known = {name: Arm(label=CONTROL_LABELS[name], meaning=CONTROL_MEANINGS[name]) for name in CONTROL_LABELS}
    arms = {name: arm for name, arm in (known | dict(results.study.arms)).items() if name in results.arms}
    plain = {name: [_cell(results, name, column) for column in columns] for name in arms}
    for reference in (one for one in (BASE, CONTROL) if one in arms):
        found = _against(results, [name for name in arms if name not in (BASE, reference)], reference, columns)
        for (name, at), effect in found.items():
            cell = plain[name][at]
            to_base = reference == BASE
            plain[name][at] = replace(cell, to_base=effect) if to_base else replace(cell, to_control=effect)
    for at, column in enumerate(columns):
        for name, best in _best(results, list(arms), column).items():
            plain[name][at] = replace(plain[name][at], best=best)
    return tuple(
        ArmRow(
            name, arm.label or name, arm.meaning, name in CONTROL_LABELS, _seeds(results, name),
            tuple(plain[name]), tuple(arm.paper.items()), tuple(_cautions(plain[name], columns)),
        )
        for name, arm in arms.items()
    )  # fmt: skip


def _seeds(results: Results, arm: str) -> tuple[int, ...]:
    """Seeds that an arm was run with: one, where nothing is trained."""
    runs = results.arms[arm]
    return tuple(seed for seed, one in runs.items() if seed == one.run.seed)


def _cell(results: Results, arm: str, column: Column) -> Cell:
    seeds = results.has(arm, column.key)
    if not seeds:
        return Cell(None, None, None, ())
    found = spread(results.pick(arm, column.key, seeds[:1] if results.arms[arm][seeds[0]].run.untrained else seeds))
    low, high = found.low, found.high
    if column.key.rpartition("/")[2] != "image_gain":  # t knows no bounds; shares and lengths do
        low = None if low is None else max(0.0, low)
        high = min(1.0, high) if column.percent and high is not None else high
    known = dict(zip(seeds, found.by_seed, strict=False))
    return Cell(found.value, low, high, tuple(known.get(seed) for seed in _seeds(results, arm)))


def _against(
    results: Results, arms: Sequence[str], reference: str, columns: Sequence[Column]
) -> dict[tuple[str, int], Effect]:
    """Effects of all arms and columns, one family."""
    found: dict[tuple[str, int], tuple[Spread, Direction]] = {}
    for name in arms:
        for at, column in enumerate(columns):
            one = results.difference(name, reference, column.key)
            if one is not None:
                if len(one.by_seed) < len(results.study.seeds):  # nothing is said of an arm that is not whole
                    one = one._replace(p_value=None)
                found[name, at] = one, column.better
    return dict(zip(found, effects(list(found.values())), strict=True))


def _best(results: Results, arms: Sequence[str], column: Column) -> dict[str, Best]:
    """The best arm and the second, where each is told from the next by its interval."""
    if column.better == "neutral":
        return {}
    values = {arm: float(np.mean([value for value, _ in results.pick(arm, column.key, seeds)]))
              for arm in arms if len(seeds := results.has(arm, column.key)) == len(results.study.seeds)}  # fmt: skip
    order = sorted((arm for arm in values if not np.isnan(values[arm])), key=values.__getitem__,
                   reverse=column.better == "higher")  # fmt: skip
    marks: dict[str, Best] = {}
    for name, (one, two) in zip(("best", "second"), pairwise(order), strict=False):
        found = results.difference(one, two, column.key)
        if found is None or found.low is None or found.high is None:
            break
        if not (found.low > 0 if column.better == "higher" else found.high < 0):
            break
        marks[one] = "best" if name == "best" else "second"
    return marks


def _cautions(cells: Sequence[Cell], columns: Sequence[Column]) -> list[str]:
    by_name = {column.key: cell.to_base for column, cell in zip(columns, cells, strict=True)}
    made_up, recall = by_name.get("chair/chair_i"), by_name.get("chair/recall")
    told = []
    if made_up is not None and made_up.verdict == "better":
        if recall is not None and recall.verdict == "worse":
            told.append("makes up less, and names fewer of the objects that are there")
        words = by_name.get("chair/length_words")
        if words is not None and words.verdict == "lower" and (words.value or 0.0) <= -1:
            told.append(f"makes up less, in {-(words.value or 0.0):.1f} words less an answer")
    return told


def write_results(results: Results, rows: Sequence[ArmRow], columns: Sequence[Column], target: Path) -> Path:
    """results.json: the table as values, and the facts each arm comes from. The same facts give the same bytes."""
    told = {
        "study": results.study.name,
        "seeds": list(results.study.seeds),
        "missing": list(results.missing),
        "facts": {name: {str(seed): one.run.fact for seed, one in runs.items()} for name, runs in results.arms.items()},
        "columns": [asdict(column) for column in columns],
        "arms": json.loads(json.dumps([asdict(row) for row in rows])),
    }
    write_json(target, told)
    return target


def known_arm(results: Results, name: str, where: str) -> None:
    """Raises UserError where a study has no arm of that name."""
    if name not in {*results.study.arms, *results.study.controls}:
        accepted = ", ".join([*results.study.controls, *results.study.arms])
        raise UserError(f"{where}: found {name!r}; accepted: {accepted}")
