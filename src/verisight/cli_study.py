"""The verbs on studies. Libraries are imported when a verb runs."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from verisight.types import UserError

if TYPE_CHECKING:
    from verisight.studies.launch import Launcher

study_app = typer.Typer(no_args_is_help=True, help="Arms x seeds under one budget: plan, run, results, claims.")

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="YAML of a study.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Settings to change.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time.")]
Threads = Annotated[int, typer.Option(min=1, help="Cores of each.")]
On = Annotated[Literal["processes", "slurm", "ray"], typer.Option(help="Who runs them.")]


@study_app.command("plan")
def plan(study: StudyFile, overrides: Overrides = None) -> None:
    """Say what a study would run, what that costs and what it could find. Unequal budgets are refused."""
    from rich.console import Console
    from rich.table import Table

    from verisight import recipe as recipes
    from verisight.studies.plan import listings, plan_study

    planned = plan_study(recipes.load_study(study, overrides or ()), file=study)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for listing in listings(planned):
        console.print(f"\n{listing.title}", markup=False, soft_wrap=True)
        table = Table(*listing.header, box=None, pad_edge=False)
        for row in listing.rows:
            table.add_row(*row)
        console.print(table, markup=False)


@study_app.command("run")
def run(
    study: StudyFile,
    overrides: Overrides = None,
    jobs: Jobs = 2,
    threads: Threads = 1,
    on: On = "processes",
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each run, on Slurm and Ray.")] = 0,
    minutes: Annotated[int, typer.Option(min=1, help="Slurm's limit of a run; longer ones go on.")] = 240,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join; left out, one is started here.")] = None,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="One step of every arm, on the pocket world.")] = False,
) -> None:  # fmt: skip
    """Run what is missing. A study that was cut off goes on; what another study has run is not run again."""
    from verisight import recipe as recipes
    from verisight.studies.plan import check_read, plan_study
    from verisight.studies.rehearse import rehearsal
    from verisight.studies.run import run_study, write_world

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    loaded = recipes.load_study(study, overrides or ())
    if rehearse:
        loaded = rehearsal(loaded, file=study)
    launcher = _launcher(on, loaded, jobs=jobs, threads=threads, partition=partition, gpus=gpus, minutes=minutes,
                         address=address)  # fmt: skip

    def report(line: str) -> None:
        typer.echo(line, err=True)

    write_world(loaded, launcher, report=report)
    if not rehearse:
        check_read(plan_study(loaded, file=study), file=study)
    run_study(loaded, launcher, file=study, report=report)
    if not rehearse:
        show(study, overrides)


def _launcher(
    on: str, study: object, *, jobs: int, threads: int, partition: str | None, gpus: int, minutes: int,
    address: str | None,
) -> Launcher:  # fmt: skip
    from verisight.recipe import Study
    from verisight.studies.arms import places_of
    from verisight.studies.launch import Processes

    assert isinstance(study, Study)
    match on:
        case "slurm":
            from verisight.studies.launch_slurm import Slurm

            folder = places_of(study).store / "slurm"
            return Slurm(folder=folder, slots=jobs, partition=partition, minutes=minutes, gpus=gpus, cpus=threads)
        case "ray":
            from verisight.studies.launch_ray import Ray

            return Ray(slots=jobs, address=address, cpus=threads, gpus=gpus)
        case _:
            return Processes(jobs, threads)


@study_app.command("show")
def show(study: StudyFile, overrides: Overrides = None) -> None:
    """Print a study's table, from what its runs have shown; write results.json and table.md if nothing is changed."""
    from verisight import recipe as recipes
    from verisight.data.files import write_atomic
    from verisight.studies.arms import places_of
    from verisight.studies.collect import collect
    from verisight.studies.export import markdown
    from verisight.studies.results import write_results

    loaded = recipes.load_study(study, overrides or ())
    findings, results = collect(loaded, file=study, with_claims=False)
    folder = places_of(loaded).output / loaded.name
    if not overrides:  # a changed study is no reason to replace the results of the whole one
        write_results(results, findings.rows, findings.columns, folder / "results.json")
        write_atomic(folder / "table.md", markdown(findings))
    typer.echo(markdown(findings))
    if results.missing:
        typer.echo(f"{len(results.missing)} runs are missing: {', '.join(results.missing)}")


@study_app.command("claims")
def claims(
    file: Annotated[Path, typer.Argument(metavar="CLAIMS", help="YAML of claims.")],
    out: Annotated[Path | None, typer.Option(help="Folder for claims.json and claims.md.")] = None,
) -> None:
    """Test claims on the results of studies: effect, interval, and whether each holds, fails or can't be told."""
    from verisight import recipe as recipes
    from verisight.studies.claims import claims_markdown, read_all, weigh, write_claims

    loaded = recipes.load_claims(file)
    found = weigh(loaded, read_all(loaded), file=file)
    typer.echo(claims_markdown(found, title=loaded.title))
    if out is not None:
        write_claims(found, out, title=loaded.title)


@study_app.command("forget")
def forget_runs(study: StudyFile, arms: Annotated[list[str], typer.Argument(help="Arms to run anew.")]) -> None:
    """Delete what runs of these arms have left, so that they are run again."""
    from verisight import recipe as recipes
    from verisight.studies.run import forget

    gone = forget(recipes.load_study(study), arms, file=study)
    typer.echo(f"{len(gone)} runs forgotten{': ' if gone else ''}{', '.join(gone)}")


@study_app.command("work", hidden=True)
def work(file: Annotated[Path, typer.Argument(help="A task's file.")]) -> None:
    """Do one task of a study, as launchers start it."""
    if not file.is_file():
        raise UserError(f"{file}: not there; accepted: a task's file")
    from verisight.studies.work import work as do

    do(file)
