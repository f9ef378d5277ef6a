"""What a study can find before it runs: the smallest difference, from how far runs scattered that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from scipy.stats import t as student

from verisight.recipe import Study
from verisight.recipe.study import BASE
from verisight.studies.findings import Column
from verisight.studies.results import Results, columns_of, read_results


@dataclass(frozen=True, slots=True)
class Detectable:
    """Of one column: standard deviation of a run's difference to the base by seed and by items, and what is found.

    `difference`: the smallest true one that is found with probability 0.8 at level 0.05 divided by `num_tests`
    (what Holm asks of the first), two-sided, in the metric's unit. `num_runs`: how many runs the deviations are from.
    """

    column: Column
    seed_deviation: float
    item_error: float
    difference: float
    num_runs: int


def detectable(study: Study, *, file: Path, num_arms: int) -> list[Detectable]:
    """For every column with runs to learn from: those of the study's arms that are there, of earlier seeds or studies.

    The seeds' deviation is the median over arms with two seeds or more; it is not pooled with others, so a single
    unsteady arm needs more than this says.
    """
    results = read_results(study, file=file)
    columns = columns_of(results) if results.arms else ()
    num_seeds, num_tests = len(study.seeds), max(1, num_arms * len(columns))
    found = []
    for column in columns:
        deviations, errors, num = _scatter(results, column.key)
        if not errors or not deviations:
            continue
        by_seed, by_item = median(deviations), median(errors)
        difference = _smallest(by_seed**2 / num_seeds, by_item**2, num_seeds, num_tests)
        found.append(Detectable(column, by_seed, by_item, difference, num))
    return found


def _smallest(of_seeds: float, of_items: float, num_seeds: int, num_tests: int) -> float:
    """From the variances of the mean over seeds: t of the test and of its power, degrees as Satterthwaite's."""
    total = of_seeds + of_items
    degrees = total**2 / (of_seeds**2 / (num_seeds - 1)) if num_seeds > 1 and of_seeds > 0 else 1e6
    return float(student.ppf(1 - 0.025 / num_tests, degrees) + student.ppf(0.8, degrees)) * total**0.5


def _scatter(results: Results, key: str) -> tuple[list[float], list[float], int]:
    """Deviations between seeds, errors over items of the difference to the base, and from how many runs."""
    deviations, errors, num = [], [], 0
    base = results.pick(BASE, key, results.has(BASE, key)[:1]) if results.has(BASE, key) else []
    for arm in results.arms:
        seeds = results.has(arm, key)
        runs = results.pick(arm, key, seeds)
        if arm == BASE or not runs or any(one.run.untrained for one in results.arms[arm].values()):
            continue
        num += len(runs)
        if len(runs) > 1:
            deviations.append(float(np.std([value for value, _ in runs], ddof=1)))
        others = base[0][1] if base else 0.0
        errors.append(float(np.nanstd(np.mean([many for _, many in runs], axis=0) - others)))
    return deviations, errors, num
