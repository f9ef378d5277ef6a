"""The verbs that measure: `eval` asks a model and scores, `score` scores saved answers without a model or torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from verisight.cli_known import interval
from verisight.types import UserError

if TYPE_CHECKING:
    from verisight.chat.http import HttpChat
    from verisight.evaluate.public import Judge
    from verisight.evaluate.scorers import Scorer
    from verisight.study.scoring import Loaded

Name = Annotated[str, typer.Argument(metavar="BENCHMARK", help="Its name, such as pope; a wrong one lists them.")]
Answers = Annotated[list[Path], typer.Option(help="Saved answers: ours, LLaVA's, lmms-eval's samples. Repeatable.")]
Annotations = Annotated[list[Path] | None, typer.Option(help="The benchmark's own files, in order. Repeatable.")]
Objects = Annotated[
    Path | None, typer.Option(help="CHAIR, Object HalBench: {image_id: [object, ...]} as ground truth.")
]
Synonyms = Annotated[Path | None, typer.Option(help="CHAIR: a list of synonyms in the official format.")]
Ids = Annotated[Path | None, typer.Option(help="CHAIR: the image ids that should have answers, one a line.")]
Relabels = Annotated[list[Path] | None, typer.Option(help="POPE: RePOPE's label files. Repeatable.")]
Protocol = Annotated[str | None, typer.Option(help="Whose rules; default: official.")]
Out = Annotated[Path, typer.Option(help="Folder that gets evaluate/ with scored rows, problems and summary.")]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Share of unusable items up to which there is a headline.")]
Url = Annotated[str | None, typer.Option(help="The judge: an OpenAI-compatible server.")]
Model = Annotated[str | None, typer.Option(help="The judge's name there.")]
KeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the judge's key.")]
Votes = Annotated[int, typer.Option(min=1, help="Requests a question; more than one needs a temperature.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="The judge's; default: the benchmark's own.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Longest reply of the judge; default: the benchmark's own.")]
Vision = Annotated[bool, typer.Option("--vision", help="The judge sees the pictures (MMHal-V and its like).")]
Images = Annotated[Path | None, typer.Option(help="With --vision: folder of the pictures.")]
Rubric = Annotated[Path | None, typer.Option(help="A rubric in place of ours, as text.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests in flight.")]
PerMinute = Annotated[float | None, typer.Option(help="Requests a minute at most.")]
Price = Annotated[tuple[float, float] | None, typer.Option(metavar="IN OUT", help="Of a million tokens.")]
Dry = Annotated[bool, typer.Option("--estimate", help="Say what the judge would be asked and cost, and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary's entry as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


Target = Annotated[str, typer.Argument(metavar="RECIPE|RUN|MODEL", help="YAML recipe, run folder, model or `pocket`.")]
Wanted = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[BENCHMARK ...]",
        help="YAML files with `evaluate`, GroundedBench forms, kinds of the run; a.b=c of a recipe.",
    ),
]
EvalOut = Annotated[Path | None, typer.Option(help="Folder for the answers; default: the run's, or runs/eval/MODEL.")]
Batch = Annotated[int, typer.Option(min=1, help="Questions answered at a time.")]
Processes = Annotated[int, typer.Option(min=1, help="Local processes that share the work.")]
Numbers = Annotated[Literal["float32", "bfloat16"], typer.Option(help="With MODEL: format of the weights.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="With MODEL: run Python code that comes with it.")]


class _Judging(NamedTuple):
    """What the options say of the judge."""

    url: str | None
    model: str | None
    key_env: str | None
    votes: int
    temperature: float | None
    tokens: int | None
    vision: bool
    images: Path | None
    rubric: Path | None
    concurrency: int
    per_minute: float | None
    price: tuple[float, float] | None


def score(
    benchmark: Name, answers: Answers, annotations: Annotations = None, objects: Objects = None,
    synonyms: Synonyms = None, ids: Ids = None, relabels: Relabels = None, protocol: Protocol = None,
    out: Out = Path("runs/score"), max_bad: MaxBad = 0.02, judge_url: Url = None, judge_model: Model = None,
    judge_key_env: KeyEnv = None, votes: Votes = 1, judge_temperature: Temperature = None,
    judge_tokens: Tokens = None, vision: Vision = False, images: Images = None, rubric: Rubric = None,
    concurrency: Concurrency = 4, per_minute: PerMinute = None, price: Price = None, estimate: Dry = False,
    as_json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Score saved answers: no model is loaded. A judge's replies are kept in OUT, so nothing is paid for twice."""
    from verisight.evaluate.public import entry_name
    from verisight.evaluate.scorers import Files
    from verisight.evaluate.table import find_scorer
    from verisight.study import scoring

    asked_for = _Judging(
        judge_url, judge_model, judge_key_env, votes, judge_temperature, judge_tokens, vision, images, rubric,
        concurrency, per_minute, price,
    )  # fmt: skip
    scorer = find_scorer(benchmark)
    protocol = scorer.check_protocol(protocol)
    _check(scorer, protocol, asked_for)
    files = Files(tuple(annotations or ()), objects, synonyms, ids, tuple(relabels or ()))
    loaded = scoring.load(scorer, files, answers, protocol=protocol)
    judge = _judge(scorer, protocol, asked_for) if scorer.judged(protocol) else None
    left = 0 if judge is None else _tell_price(loaded, judge, asked_for, out)
    if estimate:
        return
    from verisight.progress import track

    with track("judge", total=left, unit="replies", quiet=quiet or not left, brief=True) as advance:
        entry = scoring.score(loaded, folder=out, judge=judge, limit=max_bad, advance=advance)
    if as_json:
        import json

        typer.echo(json.dumps(entry, indent=2))
    else:
        show_entry(entry_name(scorer, judge), entry, max_bad=max_bad)
        typer.echo(f"scored rows, problems and summary: {out / 'evaluate'}")


def evaluate(
    target: Target, benchmarks: Wanted = None, out: EvalOut = None, batch_size: Batch = 64, processes: Processes = 1,
    dtype: Numbers = "float32", trust_remote_code: Trust = False, max_bad: MaxBad = 0.02, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Answer benchmarks with a model and score them: a recipe's on its model, or any on a run or model.

    A killed evaluation goes on where it was. Under `accelerate launch`, `torchrun` or `srun` the processes share the
    questions; the last one that is done scores.
    """
    import os

    from verisight.study import measuring

    if measuring.is_recipe(target):
        _evaluate_recipe(Path(target), benchmarks or [], max_bad=max_bad, quiet=quiet)
        return
    found = measuring.find_target(target, benchmarks or [], out=out, dtype=dtype, trust_remote_code=trust_remote_code)
    if processes > 1:
        measuring.spawn(processes)
    shard = measuring.shard_of(os.environ)
    measured = measuring.measure(found, shard=shard, batch_size=batch_size, quiet=quiet)
    for name, entry in measured.entries.items():
        show_entry(name, entry, max_bad=max_bad)
    if measured.waiting:
        typer.echo(f"not all answered yet: {', '.join(measured.waiting)}; the last process that is done scores")
    typer.echo(f"answers and summary: {measured.folder / 'evaluate'}")


def _evaluate_recipe(file: Path, overrides: list[str], *, max_bad: float, quiet: bool) -> None:
    from verisight import recipe as recipes

    loaded = recipes.load(file, overrides)
    from verisight.study.run import evaluate_run

    folder, summaries = evaluate_run(loaded, quiet=quiet)
    typer.echo(f"measured: {'the aligned model' if folder == loaded.output else 'the starting model'}")
    for name, entry in summaries.items():
        show_entry(name, entry, max_bad=max_bad)
    typer.echo(f"answers and summary: {folder / 'evaluate'}")


def show_entry(name: str, entry: dict[str, Any], *, max_bad: float) -> None:
    """Print a benchmark's figures, or why there are none."""
    from verisight.evaluate.health import refusal

    version = f", {entry['version']}" if entry.get("version") else ""
    typer.echo(f"{name} ({entry['protocol']}{version}, {entry['num_items']} items)")
    counts = {key: num for key, num in entry["counts"].items() if num and key != "num_items"}
    if counts:
        typer.echo("  " + ", ".join(f"{num} {key.replace('_', ' ')}" for key, num in counts.items()))
    if refused := refusal(entry["counts"], limit=max_bad):
        typer.echo(f"  no figures: {refused}; --max-bad takes more")
        return
    headline = entry.get("headline") or []
    names = [*headline, *(metric for metric in entry["metrics"] if metric not in headline)]
    for metric in names:
        found = entry["metrics"][metric]
        mark = "*" if metric in headline else " "
        typer.echo(f" {mark}{metric:<34} {interval(found, scale=1.0, digits=4)}")


def _check(scorer: Scorer, protocol: str, asked: _Judging) -> None:
    given = [name for name, value in zip(asked._fields, asked, strict=True) if value and name != "concurrency"]
    given = [name for name in given if (name, getattr(asked, name)) != ("votes", 1)]
    if given and not scorer.judged(protocol):
        raise UserError(f"--{given[0].replace('_', '-')}: {scorer.name} with protocol {protocol} asks no judge")
    if (asked.url is None) != (asked.model is None):
        raise UserError("--judge-url, --judge-model: found one without the other; accepted: both")
    scorer.check_vision(asked.vision)
    if asked.vision and asked.images is None:
        raise UserError("--vision: found without --images; accepted: with the folder of the pictures")
    temperature = asked.temperature
    if temperature is None and scorer.judging is not None:
        temperature = scorer.judging.decoding.temperature
    if asked.votes > 1 and temperature == 0:
        raise UserError(f"--votes: found {asked.votes} at temperature 0, which gives one vote {asked.votes} times; "
                        "accepted: with --judge-temperature above 0")  # fmt: skip


def _decoding(scorer: Scorer, asked: _Judging) -> Any:
    from dataclasses import replace

    assert scorer.judging is not None
    found = scorer.judging.decoding
    if asked.temperature is not None:
        found = replace(found, temperature=asked.temperature)
    return found if asked.tokens is None else replace(found, max_new_tokens=asked.tokens)


def _judge(scorer: Scorer, protocol: str, asked: _Judging) -> Judge:
    from urllib.parse import quote

    from verisight.chat.endpoint import Endpoint, Limits, Prices
    from verisight.evaluate.public import Judge

    url, model, decoding = asked.url, asked.model, _decoding(scorer, asked)
    if url is None or model is None:
        without = scorer.judging.without if scorer.judging is not None else ()
        instead = f", or --protocol {' or '.join(without)}" if without else ""
        raise UserError(f"{scorer.name}: needs a judge; accepted: --judge-url with --judge-model{instead}")
    endpoint = Endpoint(url, model, asked.key_env)
    endpoint.key()
    limits = Limits(concurrency=asked.concurrency, requests_per_minute=asked.per_minute)
    prices = None if asked.price is None else Prices(*asked.price)

    def open_chat(folder: Path) -> HttpChat:
        from verisight.chat.http import HttpChat

        kept = folder / "http" / f"m-{quote(model, safe='')}"
        return HttpChat(endpoint, folder=kept, decoding=decoding, prices=prices, limits=limits)

    name = f"{model} at {url}, temperature {decoding.temperature:g}, {decoding.max_new_tokens} tokens"
    return Judge(name, open_chat, asked.votes, asked.vision, asked.images, _rubric(asked.rubric), protocol)


def _rubric(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--rubric: {file} can't be read ({error}); accepted: a text file") from error


def _tell_price(loaded: Loaded, judge: Judge, options: _Judging, out: Path) -> int:
    """Says what is left to ask and about what it will take; returns how many replies."""
    from verisight.chat.endpoint import Prices
    from verisight.evaluate.judged import estimate, waiting
    from verisight.evaluate.public import entry_name, replies_path

    asked = judge.questions(loaded.scorer, loaded.joined.rows)
    prices = None if options.price is None else Prices(*options.price)
    left = waiting(asked, replies_path(out, entry_name(loaded.scorer, judge)))
    found = estimate(left, _decoding(loaded.scorer, options), prices)
    cost = "" if found.cost is None else f", at most {found.cost:.2f}"
    typer.echo(
        f"judge: {found.num_requests:,} of {len(asked):,} replies to ask for, about {found.prompt_tokens:,} tokens in, "
        f"at most {found.completion_tokens:,} out{cost}",
        err=True,
    )
    return found.num_requests
