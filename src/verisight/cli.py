"""The command line: thin verbs over `verisight.study`. Heavy libraries are imported when a verb runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from verisight.cli_benchmarks import benchmarks, build_pope
from verisight.cli_data import data_app
from verisight.cli_judge import judge_app
from verisight.cli_reward import reward_app
from verisight.cli_score import evaluate, score
from verisight.cli_study import study_app
from verisight.types import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
pocket_app = typer.Typer(no_args_is_help=True, help="The built-in world: its data, its model, and what it is worth.")
app.add_typer(pocket_app, name="pocket")
app.add_typer(data_app, name="data")
app.add_typer(judge_app, name="judge")
app.add_typer(reward_app, name="reward")
app.add_typer(study_app, name="study")
app.command("eval")(evaluate)
app.command("score")(score)
app.command("benchmarks")(benchmarks)
app.command("pope")(build_pope)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[a.b=c ...]", help="Settings to change.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@app.callback()
def about() -> None:
    """Align vision-language models with what is in the picture, and prove it."""


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder of the demo; default runs/demo-SEED.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of pairs and training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Align the built-in model on a CPU: BDHS pairs, DPO, the SFT control, before and after, an HTML report."""
    from verisight.study.demo import run_demo

    run_demo(out or Path(f"runs/demo-{seed}"), seed=seed, quiet=quiet)


@app.command()
def pairs(recipe: RecipeFile, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Make preference pairs: the model's own hallucinations as rejected answers."""
    from verisight import recipe as recipes

    loaded = recipes.load(recipe, overrides or ())
    from verisight.data.files import read_jsonl
    from verisight.models.ranks import ranks
    from verisight.study.prepare import EQUAL_PAIRS
    from verisight.study.run import pairs as make_pairs

    made, folder = make_pairs(loaded, quiet=quiet), loaded.output
    if not ranks().main:
        return
    typer.echo(f"{len(made)} pairs in {', '.join(str(file) for file in sorted(folder.glob('pairs*.parquet')))}")
    for equal in sorted(folder.glob(f"{EQUAL_PAIRS}*.jsonl")):
        typer.echo(f"{len(read_jsonl(equal))} examples gave no pair, the two answers being equal: {equal}")
    from verisight.study.pairs_facts import collect_facts, pair_files, summary_lines
    from verisight.study.pairs_page import write_pairs_page

    found = [collect_facts(file) for file in pair_files(folder)]
    for line in (line for facts in found for line in summary_lines(facts)):
        typer.echo(f"  {line}")
    typer.echo(f"to look at: {write_pairs_page(folder, found=found)}")
    for pair in made[:3]:
        typer.echo(f"\n  {pair.prompt.text}\n  chosen:   {pair.chosen.text}\n  rejected: {pair.rejected[0].text}")


@app.command()
def train(recipe: RecipeFile, overrides: Overrides = None, quiet: Quiet = False) -> None:
    """Align a model: one run, which resumes where it was killed."""
    from verisight import recipe as recipes

    loaded = recipes.load(recipe, overrides or ())
    from verisight.models.ranks import ranks
    from verisight.study.run import train as run_training

    model = run_training(loaded, quiet=quiet)
    if ranks().main:
        typer.echo(f"model: {model}")


@app.command()
def report(
    base: Annotated[Path, typer.Argument(metavar="BASE|STUDY", help="Folder of the base's evaluation; or a study.")],
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders to set beside it.")] = None,
    out: Annotated[Path | None, typer.Option(help="The HTML file (default report.html); of a study, a folder.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the test pictures, if they moved.")] = None,
) -> None:
    """Write one self-contained HTML page: runs beside the base model, or a whole study (also as Markdown, LaTeX, CSV).

    Of a study: its YAML file, or a folder of such files, each of which gets its report.
    """
    if base.suffix in (".yaml", ".yml") or (base.is_dir() and not (base / "evaluate").is_dir()):
        if runs or images:
            raise UserError(f"{'RUN' if runs else '--images'}: found with a study; accepted: the study alone")
        from verisight.studies.write import write_reports

        for path in write_reports(base, out=out):
            typer.echo(str(path))
        return
    if not runs:
        raise UserError(f"{base}: found no run beside it; accepted: at least one, or a study's YAML file")
    from verisight.study.report import Arm, write_report

    folders = [base, *runs]
    unique = len({folder.name for folder in folders}) == len(folders)
    arms = [Arm(folder.name if unique else str(folder), folder) for folder in folders]
    target = out or Path("report.html")
    typer.echo(str(write_report(arms, target=target, title="Verisight report", images=images)))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run folder, or its base folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, measured on the same questions.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say of every metric whether B is better or worse than A, or that it can't be told."""
    from verisight.study.comparing import compared, comparison_table

    found = compared(first, second)
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for table in comparison_table(found):
        console.print(table)


@app.command()
def explain(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Show the resolved recipe: every value, what it means, and the source of each method."""
    from rich.console import Console
    from rich.table import Column, Table

    from verisight import recipe as recipes

    table = Table(Column("key", overflow="fold"), "value", "meaning", "source", box=None, pad_edge=False)
    for row in recipes.explain(recipes.load(recipe, overrides or ())):
        table.add_row(row.key, str(row.value), row.meaning, row.source)
    Console().print(table)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    memory: Annotated[float | None, typer.Option(min=0, help="GiB of a device; default: the GPU's, if any.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the data to measure.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run will cost before any GPU time: tokens, FLOPs, memory, and what would not fit."""
    from verisight import recipe as recipes

    loaded = recipes.load(recipe, overrides or ())
    import json

    from rich.console import Console
    from rich.table import Table

    from verisight.study import plan as planning

    planned = planning.make_plan(loaded, limit_gib=memory, rows=rows)
    if as_json:
        typer.echo(json.dumps(planning.as_json(planned), indent=2))
        return
    console = Console(highlight=False)
    for listing in planning.tables(planned):
        console.print(f"\n{listing.title}", markup=False, soft_wrap=True)
        table = Table(*listing.header, box=None, pad_edge=False)
        for row in listing.rows:
            table.add_row(*row)
        console.print(table)
    console.print("", *planned.assumptions, sep="\n", markup=False, soft_wrap=True)


@app.command()
def schema(
    of: Annotated[Literal["recipe", "study", "claims"], typer.Option(help="Kind of file.")] = "recipe",
) -> None:
    """Print the JSON schema of recipes, studies or claims, for completion in editors."""
    import json

    from verisight import recipe as recipes

    root = {"recipe": recipes.Recipe, "study": recipes.Study, "claims": recipes.Claims}[of]
    typer.echo(json.dumps(recipes.json_schema(root), indent=2))


@pocket_app.command("data")
def pocket_data(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write the splits into.")] = Path("runs/pocket-data"),
    preference: Annotated[int, typer.Option(help="Scenes of the preference split.")] = 600,
    validation: Annotated[int, typer.Option(help="Scenes of the validation split.")] = 300,
    test: Annotated[int, typer.Option(help="Scenes of the test split.")] = 1000,
    every: Annotated[Path | None, typer.Option("--all", metavar="DIR", help="Write re-enacted public sets.")] = None,
    num: Annotated[int, typer.Option(min=1, help="With --all: scenes.")] = 600,
    noise: Annotated[float, typer.Option(min=0, max=1, help="With --all: annotators' errors.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="With --all: seed of questions, answers, verdicts.")] = 0,
) -> None:
    """Write the world's splits in real formats: LLaVA-Instruct JSON, COCO instances and captions, image folders.

    --all DIR writes public sets instead, re-enacted in this world, each in its own file format: POVID, RLHF-V,
    LLaVA-RLHF, VLFeedback, VLFeedbackCorrupted, NLF and LLaVA-Instruct. An oracle that knows the scenes takes the
    annotators' part: with --noise 0 it is always right, with 1 its verdicts are random.
    """
    unused = ("num", "noise", "seed") if every is None else ("out", "preference", "validation", "test")
    for name in unused:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UserError(f"--{name}: belongs to a run {'with' if every is None else 'without'} --all")
    if every is not None:
        from verisight.pocket.reenact import write_all

        for path in write_all(every, num=num, noise=noise, seed=seed):
            typer.echo(str(path))
        return
    from verisight.pocket.datasets import Split, write_split

    sizes: list[tuple[Split, int]] = [("preference", preference), ("validation", validation), ("test", test)]
    for split, size in sizes:
        typer.echo(str(write_split(out, split, num=size)))


@pocket_app.command("grounded")
def pocket_grounded(
    out: Annotated[Path, typer.Argument(help="Folder of the form; an older one is replaced.")],
    num: Annotated[int, typer.Option(min=1, help="Scenes; a multiple of 16 crosses all levels evenly.")] = 400,
    seed: Annotated[int, typer.Option(min=0, max=999, help="Another seed is a parallel form.")] = 0,
    scale: Annotated[int, typer.Option(min=1, max=16, help="96 pixels a side times this; 4 for real models.")] = 1,
) -> None:
    """Write a form of GroundedBench: descriptions, yes/no questions and edited pairs about known pictures."""
    from verisight.data.files import read_json
    from verisight.pocket.grounded import write_form

    about = read_json(write_form(out, seed=seed, num=num, scale=scale) / "form.json")
    typer.echo(f"{about['num_items']} items about {num} scenes in {out}, items {about['items_sha256'][:12]}")


@pocket_app.command("build")
def pocket_build(
    out: Annotated[Path, typer.Option(help="Folder for the model and its stages.")] = Path("runs/pocket-build"),
    quiet: Quiet = False,
) -> None:
    """Train the built-in model from nothing (about half an hour on two cores). A killed build continues."""
    from verisight.pocket.build import build

    typer.echo(str(build(out, quiet=quiet)))


@pocket_app.command("check")
def pocket_check(
    model: Annotated[str, typer.Option(help="Model folder, or 'pocket' for the shipped one.")] = "pocket",
    num: Annotated[int, typer.Option(help="Test scenes.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for the answers.")] = Path("runs/pocket-check"),
    quiet: Quiet = False,
) -> None:
    """Measure the instrument: does it see, does it hallucinate by its prior, is it fluent when blind."""
    from verisight.pocket.check import check

    if not check(model, num=num, folder=out, quiet=quiet):
        raise typer.Exit(1)


def main() -> Literal[0]:
    """Entry point. What a user got wrong ends with one message and exit code 2, without a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if os.environ.get("WORLD_SIZE", "1") != "1":  # threads of a broken group would abort an orderly end
            sys.stdout.flush()
            os._exit(2)
        sys.exit(2)
    return 0
