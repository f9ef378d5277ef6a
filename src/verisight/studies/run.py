"""Running a study: what is missing, in an order in which everything that is shared is made once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verisight.data.files import write_json
from verisight.recipe import Study, check_files
from verisight.studies.arms import Places, Run, places_of, runs_of
from verisight.studies.launch import Launcher, Report, Task, run_tasks
from verisight.studies.work import spec_of
from verisight.types import UserError


@dataclass(frozen=True, slots=True)
class Missing:
    """What has to be done for a study: runs whose facts are there, runs that are not, and their tasks."""

    found: tuple[Run, ...]
    missing: tuple[Run, ...]
    tasks: tuple[Task, ...]


def missing_of(study: Study, *, file: Path, specs: bool = True) -> Missing:
    """Look what is there, and put the rest into tasks. Writes nothing but the tasks' files, and those with `specs`."""
    places = places_of(study)
    runs = runs_of(study, file=str(file))
    measured = [run for run in runs if run.fact is not None]
    missing = [run for run in measured if not (places.fact(run.fact or "") / "run.json").exists()]
    needed = {key for run in missing for key in run.needs}
    if not specs:
        return Missing(tuple(run for run in measured if run not in missing), tuple(missing), ())
    parts = [run for run in runs if run.fact is None and run.key in needed and not places.model(run.key).exists()]
    tasks: list[Task] = []
    done: dict[str, str] = {}  # key of pairs or parts -> the task that makes them
    for run in [*parts, *missing]:
        if run.pairs is not None and run.pairs not in done and not places.model(run.key).exists():
            done[run.pairs] = f"pairs of {run.arm}-{run.seed}"
            if not (places.pairs(run.pairs) / "pairs.parquet").exists():
                tasks.append(_task(done[run.pairs], run, places, study, needs=(), kind="pairs"))
        name = f"{run.arm}-{run.seed}" if run.fact else f"part {run.arm}-{run.seed}"
        first = [done[key] for key in (*run.needs, run.pairs, run.key) if key in done]
        names = {task.name for task in tasks}
        tasks.append(_task(name, run, places, study, needs=[one for one in first if one in names]))
        done.setdefault(run.key, name)
    return Missing(tuple(run for run in measured if run not in missing), tuple(missing), tuple(tasks))


def run_study(study: Study, launcher: Launcher, *, file: Path, report: Report) -> Missing:
    """Run what is missing; a study that was cut off goes on.

    Raises:
        UserError: files that are missing, or tasks that failed (at the end, all by name).
    """
    todo = missing_of(study, file=file)
    report(f"{study.name}: {len(todo.found)} runs are there, {len(todo.missing)} are missing")
    _check(todo.missing, places_of(study))
    run_tasks(todo.tasks, launcher, report=report)
    return todo


def write_world(study: Study, launcher: Launcher, *, report: Report) -> None:
    """Write the pocket world's files that the study names and that are not there."""
    run_tasks(_world(study, places_of(study)), launcher, report=report)


def _check(runs: Sequence[Run], places: Places) -> None:
    """Files of recipes, before any work; models of parts are made on the way."""
    lines: dict[str, None] = {}
    for run in runs:
        if run.recipe is not None:
            try:
                check_files(run.recipe)
            except UserError as error:
                lines |= {
                    f"{run.arm}: {line}": None
                    for line in str(error).splitlines() if str(places.store / "runs") not in line
                }  # fmt: skip
    if lines:
        raise UserError("\n".join(lines))


def _world(study: Study, places: Places) -> list[Task]:
    """The pocket world's files that are not there."""
    tasks = []
    world = study.world
    if world is not None and world.data is not None and not (world.data / "test" / "scenes.json").exists():
        arguments = ("pocket", "data", "--out", str(world.data))
        tasks.append(Task("world: splits", arguments, places.store / "logs" / "splits.log"))
    if world is not None and world.sets is not None:
        last = world.sets / "llava_instruct" / "preference" / "scenes.json"
        if not last.exists():
            arguments = ("pocket", "data", "--all", str(world.sets))
            tasks.append(Task("world: sets", arguments, places.store / "logs" / "sets.log"))
    return tasks


def _task(name: str, run: Run, places: Places, study: Study, *, needs: Sequence[str], kind: str = "run") -> Task:
    key = (run.pairs if kind == "pairs" else run.fact or run.key) or ""
    spec = places.store / "specs" / f"{kind}-{key}.json"
    write_json(spec, spec_of(run, places, num_pairs=study.num_pairs, kind="pairs" if kind == "pairs" else "run"))
    return Task(name, ("study", "work", str(spec)), places.store / "logs" / f"{kind}-{key}.log", tuple(needs))


def forget(study: Study, arms: Sequence[str], *, file: Path) -> list[str]:
    """Delete the facts of these arms' runs, so that they are made again; returns what was deleted.

    Raises:
        UserError: the study has no such arm.
    """
    places, runs = places_of(study), runs_of(study, file=str(file))
    known = {run.arm for run in runs if run.fact is not None}
    if not known.issuperset(arms):
        unknown = ", ".join(sorted({*arms} - known))
        raise UserError(f"{file}: found no arm {unknown}; accepted: {', '.join(sorted(known))}")
    gone = []
    for run in runs:
        if run.arm in arms and run.fact is not None and places.fact(run.fact).exists():
            for folder in (places.fact(run.fact), places.store / "measured" / run.fact, places.run(run.key)):
                shutil.rmtree(folder, ignore_errors=True)
            gone.append(f"{run.arm}-{run.seed}")
    return gone
