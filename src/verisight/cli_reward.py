"""The verbs on reward models. Libraries are imported when a verb runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from verisight.cli_known import draw_sample, percent
from verisight.types import UserError

reward_app = typer.Typer(no_args_is_help=True, help="Reward models: how often are they right, and do they look.")

Data = Annotated[Path, typer.Argument(metavar="PATH", help="Pairs whose better answer is known.")]
Models = Annotated[list[Path], typer.Option("--model", help="A reward model: what training wrote. Repeatable.")]
Out = Annotated[Path, typer.Option(help="Folder for rewards and summaries; the table has all that it holds.")]
Name = Annotated[str | None, typer.Option(help="What the table calls the set; left out, its layout.")]
Images = Annotated[Path | None, typer.Option(help="Folder or zip archive of the pictures.")]
Kind = Annotated[str, typer.Option(help="Layout by name (`verisight data kinds`), or auto.")]
RuleText = Annotated[
    str | None, typer.Option("--rule", help="Scored sets: all_pairs (default), best_worst or margin:NUMBER.")
]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Share of faulty rows to accept.")]
Num = Annotated[int, typer.Option(min=1, help="Pairs, drawn by --seed.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the sample and of which pictures are swapped.")]
Batch = Annotated[int, typer.Option(min=1, help="Pairs at a time.")]
Numbers = Annotated[Literal["float32", "bfloat16"], typer.Option(help="Format of the weights.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


@reward_app.callback()
def about() -> None:
    """Reward models: how often are they right, and do they look."""


@reward_app.command("check")
def check_rewards(
    data: Data, model: Models, out: Out, name: Name = None, images: Images = None, kind: Kind = "auto",
    rule: RuleText = None, max_bad: MaxBad = 0.0, num: Num = 500, seed: Seed = 0, batch_size: Batch = 16,
    dtype: Numbers = "float32", quiet: Quiet = False,
) -> None:  # fmt: skip
    """Accuracy of reward models on a set they were not trained on, and without the picture or with another one.

    Call it once a set with the same --out: the table is the paper's table 7, models by sets.
    """
    from verisight.data.pairing import read_rule
    from verisight.data.readers import open_data

    if len(set(model)) < len(model):
        raise UserError(f"--model: found one twice in {[str(one) for one in model]}; accepted: each once")
    runs = [path.parent.name if path.name == "model" else path.name for path in model]
    if len(set(runs)) < len(runs):
        raise UserError(f"--model: found two runs of one name in {runs}; accepted: names that tell them apart")
    reading = open_data(
        data, kind=kind, images=images, check_images=False, rule=None if rule is None else read_rule(rule)
    )
    called = name or reading.format.name
    sample, facts = draw_sample(reading, log=out / f"bad_rows.{called}.jsonl", num=num, seed=seed, max_bad=max_bad)
    from verisight import build, recipe
    from verisight.progress import track
    from verisight.study.calibration import write_calibration
    from verisight.study.rewarding import check, read_checks, write_check

    for run, path in zip(runs, model, strict=True):
        opened = build.open_reward(recipe.Model(path=str(path), dtype=dtype))
        with track(run, total=len(sample), unit="pairs", quiet=quiet) as advance:
            found = check(opened, sample, seed=seed, batch_size=batch_size, advance=advance)
        write_check(out, found, model=run, data=facts | {"name": called})
    checks = read_checks(out)
    _show(checks)
    typer.echo(f"calibration plot: {write_calibration(out, checks)}")
    typer.echo(f"rewards and summaries: {out}")


def _show(checks: list[dict[str, Any]]) -> None:
    from verisight.data.check_text import Listing, show

    header = ("reward model", "set", "pairs", "accuracy", "no image", "other image", "gain", "calibration error")
    rows = [
        (
            one["model"], one["data"]["name"], f"{one['num_pairs']:,}",
            *(percent(one["metrics"][metric])
              for metric in ("accuracy", "accuracy_no_image", "accuracy_swapped", "image_gain")),
            f"{100 * one['calibration_error']:.1f}",
        )
        for one in checks
    ]  # fmt: skip
    note = "percent, with 95 % intervals by picture; gain: accuracy less that with another picture, 0 if blind"
    show(Listing("Reward models", header, tuple(rows), note=note))
