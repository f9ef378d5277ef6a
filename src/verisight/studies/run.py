"""Running a study: what is missing, in an order in which everything that is shared is made once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from verisight.data.files import write_json
from verisight.recipe import Study, check_files
from verisight.studies.arms import Places, Run, places_of, runs_of
from verisight.studies.facts import read_run
from verisight.studies.inputs import changed
from verisight.studies.launch import Launcher, Report, Task, run_tasks
from verisight.studies.work import nodes_of, shared_cache, spec_of
from verisight.types import UserError


@dataclass(frozen=True, slots=True)
class Missing:
    """What is to do for a study: runs whose facts are there, runs that are not, parts these need, and the tasks."""

    found: tuple[Run, ...]
    missing: tuple[Run, ...]
    parts: tuple[Run, ...] = ()
    tasks: tuple[Task, ...] = ()


def missing_of(study: Study, *, file: Path, specs: bool = True) -> Missing:
    """Look what is there, and put the rest into tasks. Writes nothing but the tasks' files, and those with `specs`."""
    places = places_of(study)
    runs = runs_of(study, file=str(file))
    measured = [run for run in runs if run.fact is not None]
    missing = [run for run in measured if not (places.fact(run.fact or "") / "run.json").exists()]
    needed = {key for run in missing for key in run.needs}
    if not specs:
        return Missing(tuple(run for run in measured if run not in missing), tuple(missing))
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
    return Missing(tuple(run for run in measured if run not in missing), tuple(missing), tuple(parts), tuple(tasks))


def run_study(study: Study, launcher: Launcher, *, file: Path, report: Report) -> Missing:
    """Run what is missing; a study that was cut off goes on.

    Raises:
        UserError: files that are missing, or tasks that failed (at the end, all by name).
    """
    todo = missing_of(study, file=file)
    report(f"{study.name}: {len(todo.found)} runs are there, {len(todo.missing)} are missing")
    _check(todo, places_of(study), num_pairs=study.num_pairs)
    run_tasks(todo.tasks, launcher, report=report)
    return todo


def write_world(study: Study, launcher: Launcher, *, report: Report) -> None:
    """Write the pocket world's files that the study names and that are not there."""
    run_tasks(_world(study, places_of(study)), launcher, report=report)


def _check(todo: Missing, places: Places, *, num_pairs: int) -> None:
    """Files of what is missing, before any work, and that those which the others were made from are as they were."""
    lines: dict[str, None] = {}
    for run in (*todo.parts, *todo.missing):
        for node in nodes_of(spec_of(run, places, num_pairs=num_pairs)):
            try:
                check_files(node)
            except UserError as error:  # models of parts are made on the way
                found = (line for line in str(error).splitlines() if str(places.store / "runs") not in line)
                lines |= {f"{run.arm}: {line}": None for line in found}
    for run in todo.found if todo.missing else ():
        about = read_run(places.fact(run.fact or ""))
        lines |= {
            f"{name}: found contents {here}, {run.arm} was made from {noted}; accepted: those, or its runs anew "
            f"(`verisight study forget`)": None for name, noted, here in changed(about.get("inputs", {}), places.store)
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


def forget(study: Study, names: Sequence[str], *, file: Path) -> list[str]:
    """Delete what runs of these arms and parts have left, so that they are made again; returns what was deleted.

    That is facts, answers, half-made and trained models, pairs made beforehand and stored reference log-probs; pairs
    and log-probs that other arms share are made again when one of those is.

    Raises:
        UserError: the study has no such arm or part, or one is being made.
    """
    places, runs = places_of(study), runs_of(study, file=str(file))
    known = {run.arm for run in runs}
    if not known.issuperset(names):
        unknown = ", ".join(sorted({*names} - known))
        raise UserError(f"{file}: found no arm {unknown}; accepted: {', '.join(sorted(known))}")
    gone = []
    with ExitStack() as held:
        left = [(run, *_left(run, places)) for run in runs if run.arm in names]
        for lock in sorted({lock for _, _, locks in left for lock in locks}):
            _hold(held, lock)
        for run, folders, _ in left:
            if any(folder.exists() for folder in folders[:3]):
                gone.append(f"{run.arm}-{run.seed}")
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    return gone


def _left(run: Run, places: Places) -> tuple[list[Path], list[Path]]:
    """Folders that a run leaves, its own first, and the locks that are held while they are made."""
    fact = run.fact or run.key
    folders = [places.fact(fact), places.store / "measured" / fact, places.run(run.key)]
    locks = [places.lock(run.key)]
    if run.pairs is not None:
        folders.append(places.pairs(run.pairs))
        locks.append(places.lock(run.pairs))
    cache = None if run.recipe is None or run.untrained else shared_cache(run.recipe, places).train.cache
    if cache is not None and cache.is_relative_to(places.store):
        folders.append(cache)
        locks.append(cache.with_suffix(".lock"))
    return folders, locks


def _hold(held: ExitStack, lock: Path) -> None:
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(FileLock(lock, timeout=0))
    except Timeout as error:
        raise UserError(f"{lock}: is held, the run is being made; accepted: once that has ended") from error
