"""The verbs on annotators. Libraries are imported when a verb runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from verisight.cli_known import draw_sample, interval, percent
from verisight.types import UserError

if TYPE_CHECKING:
    from verisight.chat.http import HttpChat
    from verisight.study.judging import JudgeCheck
    from verisight.types import Annotator

judge_app = typer.Typer(no_args_is_help=True, help="Annotators: who says which answer is better, and are they right.")

Mode = Literal["likelihood", "averaged", "generate"]
Data = Annotated[Path, typer.Argument(metavar="PATH", help="Pairs whose better answer is known.")]
Out = Annotated[Path, typer.Option(help="Folder for verdicts and summary; a killed check continues there.")]
Images = Annotated[Path | None, typer.Option(help="Folder or zip archive of the pictures.")]
Kind = Annotated[str, typer.Option(help="Layout by name (`verisight data kinds`), or auto.")]
RuleText = Annotated[
    str | None, typer.Option("--rule", help="Scored sets: all_pairs (default), best_worst or margin:NUMBER.")
]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Share of faulty rows to accept.")]
Num = Annotated[int, typer.Option(min=1, help="Pairs to ask about, drawn by --seed.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the sample, of the order of answers, of noise.")]
OneOrder = Annotated[bool, typer.Option("--one-order", help="Ask each pair once, not in both orders.")]
Batch = Annotated[int, typer.Option(min=1, help="Pairs asked at a time.")]
Scenes = Annotated[Path | None, typer.Option(metavar="SCENES", help="The pocket oracle: a scenes.json.")]
Noise = Annotated[list[float] | None, typer.Option(min=0, max=1, help="With --oracle: its errors [0]. Repeatable.")]
Models = Annotated[list[str] | None, typer.Option(help="A model here: folder, hub id or `pocket`. Repeatable.")]
How = Annotated[
    Mode, typer.Option(help="With --model: log-probs of the verdicts, those averaged over both orders, or its words.")
]
Numbers = Annotated[Literal["float32", "bfloat16"], typer.Option(help="With --model: format of the weights.")]
TieMargin = Annotated[float, typer.Option(min=0, help="With log-probs: nats up to which it is a tie.")]
Url = Annotated[str | None, typer.Option(help="An OpenAI-compatible server, such as http://localhost:8000/v1.")]
Names = Annotated[list[str] | None, typer.Option(help="With --url: the model's name there. Repeatable.")]
KeyEnv = Annotated[str | None, typer.Option(help="With --url: environment variable that holds the key.")]
Concurrency = Annotated[int, typer.Option(min=1, help="With --url: requests in flight.")]
PerMinute = Annotated[float | None, typer.Option(help="With --url: requests a minute at most.")]
Price = Annotated[tuple[float, float] | None, typer.Option(metavar="IN OUT", help="With --url: of a million tokens.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


class _Asked(NamedTuple):
    """What the options name."""

    oracle: Path | None
    noise: list[float]
    models: list[str]
    mode: Mode
    dtype: Literal["float32", "bfloat16"]
    tie_margin: float
    url: str | None
    names: list[str]
    key_env: str | None
    concurrency: int
    per_minute: float | None
    price: tuple[float, float] | None


@judge_app.callback()
def about() -> None:
    """Annotators: who says which answer is better, and are they right."""


@judge_app.command("check")
def check_judges(
    data: Data, out: Out, images: Images = None, kind: Kind = "auto", rule: RuleText = None, max_bad: MaxBad = 0.0,
    num: Num = 500, seed: Seed = 0, one_order: OneOrder = False, batch_size: Batch = 16, oracle: Scenes = None,
    noise: Noise = None, model: Models = None, mode: How = "likelihood", dtype: Numbers = "float32",
    tie_margin: TieMargin = 0.0, url: Url = None, name: Names = None, key_env: KeyEnv = None,
    concurrency: Concurrency = 4, per_minute: PerMinute = None, price: Price = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure annotators on pairs whose better answer is known: accuracy, position bias, ties, agreement.

    Name one annotator or several (--oracle, --model, --url with --name); several are compared by Cohen's kappa.
    """
    asked = _Asked(
        oracle, noise or [], model or [], mode, dtype, tie_margin, url, name or [], key_env, concurrency, per_minute,
        price,
    )  # fmt: skip
    _check_options(asked)
    from verisight.data.pairing import read_rule
    from verisight.data.readers import open_data

    made = None if rule is None else read_rule(rule)
    reading = open_data(data, kind=kind, images=images, check_images=False, rule=made)
    chats = _chats(asked, out=out, seed=seed)
    annotators = _annotators(asked, chats, seed=seed)
    sample, facts = draw_sample(reading, log=out / "bad_rows.jsonl", num=num, seed=seed, max_bad=max_bad)
    from verisight.progress import track
    from verisight.study.judging import check, write_summary

    checks = []
    for one in annotators:
        with track(one.name, total=len(sample), unit="pairs", quiet=quiet) as advance:
            checks.append(
                check(
                    one, sample, folder=out, both_orders=not one_order, seed=seed, batch_size=batch_size,
                    advance=advance,
                )
            )  # fmt: skip
    summary = write_summary(out, checks, facts=facts, seed=seed)
    _show(f"{reading.format.name}: {len(sample)} pairs of {data.name}", checks, seed=seed)
    for chat in chats:
        _tell_totals(chat)
    typer.echo(f"verdicts and summary: {summary}")


@judge_app.command("agree")
def agree(
    first: Annotated[Path, typer.Argument(metavar="A", help="Scored rows, such as evaluate/mmhal.jsonl.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same answers by another judge or rubric.")],
    key: Annotated[str, typer.Option(help="The field with the score.")] = "score",
    threshold: Annotated[float | None, typer.Option(help="Compare the verdicts `below it` too; 3 for MMHal.")] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far two judges agree on the same answers: text and vision rubric, two models, a model and people."""
    from verisight.data.files import read_jsonl
    from verisight.evaluate.agreement import agreement

    found = agreement(read_jsonl(first), read_jsonl(second), key=key, threshold=threshold, seed=seed)
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        told = (
            interval(value, scale=1.0, digits=3) if isinstance(value, dict) else "-" if value is None else f"{value:g}"
        )
        typer.echo(f"{name.replace('_', ' '):<26} {told}")


def _check_options(asked: _Asked) -> None:
    if asked.oracle is None and not asked.models and asked.url is None:
        raise UserError("annotators: found none; accepted: --oracle SCENES, --model PATH, --url URL with --name MODEL")
    if (asked.url is None) != (not asked.names):
        raise UserError("--url, --name: found one without the other; accepted: both")
    if asked.noise and asked.oracle is None:
        raise UserError("--noise: found without --oracle, whose errors it is about; accepted: both")
    if asked.url is None and (asked.key_env is not None or asked.per_minute is not None or asked.price is not None):
        raise UserError("--key-env, --per-minute, --price: found without --url; accepted: together with it")
    if asked.mode != "likelihood" and not asked.models:
        raise UserError(f"--mode: found {asked.mode} without --model; accepted: both")
    if asked.tie_margin and (not asked.models or asked.mode == "generate"):
        raise UserError("--tie-margin: found without --model and log-probs; accepted: together with them")
    for option, given in (("noise", asked.noise), ("model", asked.models), ("name", asked.names)):
        if len(set(given)) < len(given):
            raise UserError(f"--{option}: found one twice in {given}; accepted: each once")


def _chats(asked: _Asked, *, out: Path, seed: int) -> list[HttpChat]:
    if asked.url is None:
        return []
    from urllib.parse import quote

    from verisight.chat.endpoint import Endpoint, Limits, Prices
    from verisight.chat.http import HttpChat

    limits = Limits(concurrency=asked.concurrency, requests_per_minute=asked.per_minute)
    prices = None if asked.price is None else Prices(*asked.price)
    return [
        HttpChat(
            Endpoint(asked.url, one, asked.key_env), folder=out / "http" / f"m-{quote(one, safe='')}",
            limits=limits, prices=prices, seed=seed,
        )
        for one in asked.names
    ]  # fmt: skip


def _annotators(asked: _Asked, chats: Sequence[HttpChat], *, seed: int) -> list[Annotator]:
    from verisight.judges.vlm import ChatAnnotator

    found: list[Annotator] = []
    if asked.oracle is not None:
        from verisight.judges.oracle import OracleAnnotator
        from verisight.pocket.known import KnownScenes

        scenes = KnownScenes(asked.oracle)
        found += [OracleAnnotator(scenes, noise=noise, seed=seed) for noise in asked.noise or [0.0]]
    found += [ChatAnnotator(chat) for chat in chats]
    for path in asked.models:
        found.append(_local(path, asked, seed=seed))
    return found


def _local(path: str, asked: _Asked, *, seed: int) -> Annotator:
    from verisight import recipe
    from verisight.build.models import open_model
    from verisight.chat.local import LocalChat
    from verisight.judges.likelihood import LikelihoodAnnotator
    from verisight.judges.vlm import ChatAnnotator

    policy = open_model(recipe.Model(path=path, dtype=asked.dtype))
    if asked.mode == "generate":
        return ChatAnnotator(LocalChat(policy, name=path, seed=seed))
    return LikelihoodAnnotator(policy, name=path, both_orders=asked.mode == "averaged", tie_margin=asked.tie_margin)


def _show(title: str, checks: Sequence[JudgeCheck], *, seed: int) -> None:
    from verisight.data.check_text import Listing, show
    from verisight.study.judging import agreement

    metrics = list(checks[0].metrics)
    header = ("annotator", *(metric.replace("_", " ") for metric in metrics), "s a question")
    rows = [
        (one.name, *(percent(one.metrics[metric]) for metric in metrics), f"{one.seconds_per_question:.3f}")
        for one in checks
    ]
    note = "percent, with 95 % intervals by picture; accuracy and first: of questions with a winner"
    show(Listing(title, header, tuple(rows), note=note))
    if len(checks) > 1:
        agreed = tuple(
            (row["a"], row["b"], interval(row["kappa"], scale=1.0, digits=2), percent(row["agreed_fraction"]))
            for row in agreement(checks, seed=seed)
        )
        show(Listing("Agreement", ("annotator", "annotator", "kappa", "agreed"), agreed))


def _tell_totals(chat: HttpChat) -> None:
    totals = chat.totals
    told = [
        f"{totals.num_requests:,} requests in all runs here", f"{totals.num_cached:,} from the cache",
        f"{totals.num_limited:,} times told to slow down", f"{totals.num_failed:,} without an answer",
        f"{totals.prompt_tokens:,} tokens in, {totals.completion_tokens:,} out", f"cost {totals.cost:.4f}",
    ]  # fmt: skip
    typer.echo(f"{chat.name}: {', '.join(told)}")
