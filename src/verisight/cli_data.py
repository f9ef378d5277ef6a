"""The verbs on data sets: check, convert, export, kinds. Libraries are imported when a verb runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from verisight.types import UserError

if TYPE_CHECKING:
    from verisight.data.check_leaks import Against
    from verisight.data.readers import Reading
    from verisight.types import Pair

data_app = typer.Typer(no_args_is_help=True, help="Public preference data: checked, converted, exported.")

Data = Annotated[Path, typer.Argument(metavar="PATH", help="Data file, pattern of files, or folder of Parquet shards.")]
Images = Annotated[Path | None, typer.Option(help="Folder or zip archive of the pictures.")]
Kind = Annotated[str, typer.Option(help="Layout by name (`verisight data kinds`), or auto.")]
RuleText = Annotated[
    str | None, typer.Option("--rule", help="Scored sets: all_pairs (default), best_worst or margin:NUMBER.")
]
TextOnly = Annotated[bool, typer.Option("--text-only", help="Accept rows without a picture.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Rows to read.")]
MaxBad = Annotated[float, typer.Option(min=0, max=1, help="Share of faulty rows to accept.")]


@data_app.command("check")
def check_data(
    path: Data,
    images: Images = None,
    kind: Kind = "auto",
    rule: RuleText = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Other split or evaluation pictures: data set, folder, zip, COCO instances. Repeatable."),
    ] = None,
    against_images: Annotated[Path | None, typer.Option(help="Pictures of --against; default: --images.")] = None,
    text_only: TextOnly = False,
    no_decode: Annotated[bool, typer.Option("--no-decode", help="Find pictures, do not decode them.")] = False,
    limit: Limit = None,
    max_bad: MaxBad = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page with sample pairs.")] = None,
    samples: Annotated[int | None, typer.Option(min=0, max=500, help="Sample pairs on the page [50].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sample [0].")] = None,
) -> None:
    """Say what is in a data set and what is wrong with it, without a model. Exit code 1 past --max-bad."""
    if against_images is not None and not against:
        raise UserError("--against-images: found without --against; accepted: both")
    for option, value in (("--samples", samples), ("--seed", seed)):
        if value is not None and html is None:
            raise UserError(f"{option}: found {value} without --html, whose sample it is about; accepted: both")
    reading = _open(path, images=images, kind=kind, rule=rule, text_only=text_only, decode=not no_decode)
    if html is not None:
        _check_out(reading, html, *(against or ()), against_images)
    from verisight.data.check import check
    from verisight.data.check_facts import as_json as to_json

    others = _others(against or (), images=against_images or images, decode=not no_decode)
    num_samples = 0 if html is None else 50 if samples is None else samples
    with _progress("check") as advance:
        checked = check(
            reading, against=others, limit=limit, max_bad=max_bad, num_samples=num_samples, seed=seed or 0,
            advance=advance,
        )  # fmt: skip
    if html is not None:
        from verisight.data.check_page import write_page

        with _writing("--html", html):
            write_page(checked, target=html, seed=seed or 0)
    if as_json:
        import json

        typer.echo(json.dumps(to_json(checked.facts), indent=2))
    else:
        from verisight.data.check_text import cautions, listings, printable, show, verdict

        for listing in listings(checked.facts):
            show(listing)
        told = [verdict(checked.facts), *(f"Mind: {one}" for one in cautions(checked.facts))]
        typer.echo("\n" + "\n".join(map(printable, told)))
        if html is not None:
            typer.echo(f"{html}")
    if not checked.facts.rows.passed:
        raise typer.Exit(1)


@data_app.command("convert")
def convert_data(
    path: Data,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    images: Images = None,
    kind: Kind = "auto",
    rule: RuleText = None,
    text_only: TextOnly = False,
    embed: Annotated[bool, typer.Option("--embed", help="Put the pictures' bytes into the file.")] = False,
    max_bad: MaxBad = 0.0,
    limit: Limit = None,
) -> None:
    """Write any readable set as pairs.parquet. Past --max-bad nothing is written, and the exit code is 1."""
    reading = _open(path, images=images, kind=kind, rule=rule, text_only=text_only)
    from verisight.data.records import embedded, write_pairs

    _check_out(reading, out)
    flow = _Flow(reading, out.with_name(f"{out.name}.bad_rows.jsonl"), limit=limit, max_bad=max_bad)
    with _writing("--out", out), flow.logged():
        num = write_pairs(out, (embedded(pair) if embed else pair for pair in flow.pairs()))
    flow.tell()
    typer.echo(f"{num:,} pairs of {flow.num_rows:,} rows in {out}")


@data_app.command("export")
def export_data(
    path: Data,
    to: Annotated[Literal["llama_factory", "ms_swift"], typer.Option(help="The tool that will read it.")],
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
    name: Annotated[str, typer.Option(help="Name of the data set there.")] = "verisight",
    copy_images: Annotated[bool, typer.Option("--copy-images", help="Copy the pictures into the folder too.")] = False,
    images: Images = None,
    kind: Kind = "auto",
    rule: RuleText = None,
    text_only: TextOnly = False,
    max_bad: MaxBad = 0.0,
    limit: Limit = None,
) -> None:
    """Write any readable set for another training tool. Past --max-bad nothing is written, and the exit code is 1.

    Pairs that the tool cannot take are left out and listed; the exit code tells of them too.
    """
    reading = _open(path, images=images, kind=kind, rule=rule, text_only=text_only)
    from verisight.data.export import to_llama_factory, to_ms_swift

    _check_out(reading, out / f"{name}.jsonl")
    write = to_llama_factory if to == "llama_factory" else to_ms_swift
    flow = _Flow(reading, out / f"{name}.bad_rows.jsonl", limit=limit, max_bad=max_bad)
    with _writing("--out", out), flow.logged():
        exported = write(out, flow.pairs(), name=name, copy_images=copy_images)
        flow.add(exported.bad)
    flow.tell()
    typer.echo(f"{exported.num_rows:,} pairs of {flow.num_rows:,} rows in {', '.join(map(str, exported.files))}")
    if exported.num_pictures:
        typer.echo(f"{exported.num_pictures:,} pictures in {out / 'images'}")
    if exported.num_unseen:
        typer.echo(f"{exported.num_unseen:,} further rejected answers are kept, but {to} takes one a row")
    if len(exported.bad) > max_bad * flow.num_rows:
        typer.echo(f"{len(exported.bad):,} pairs that {to} cannot take were left out", err=True)
        raise typer.Exit(1)


@data_app.command("kinds")
def list_kinds() -> None:
    """List the layouts that can be read."""
    from verisight.data.check_text import Listing, show
    from verisight.data.readers import FORMATS

    rows = tuple(
        (one.name, one.title, one.source, one.license or ("told by each row" if one.trusted else "none given"))
        for one in FORMATS
    )
    show(Listing("Layouts", ("kind", "data", "from", "licence"), rows))


def _others(paths: Sequence[Path], *, images: Path | None, decode: bool) -> list[Against]:
    from verisight.data.check_leaks import read_against

    found = []
    for path in paths:
        with _progress(f"against {path.name}") as advance:
            found.append(read_against(path, images=images, decode=decode, advance=advance))
    return found


class _TooMany(Exception):
    """More faulty rows than accepted: what was begun is not kept."""


class _Flow:
    """The pairs of a data set on their way into a file; what cannot be used is listed in `log` and counted."""

    def __init__(self, reading: Reading, log: Path, *, limit: int | None, max_bad: float) -> None:
        self.num_rows = 0
        self._reading, self._log, self._limit, self._max_bad = reading, log, limit, max_bad
        self._num_faulty, self._num_pairs, self._stopped = 0, 0, False
        self._counts: dict[tuple[str, bool], int] = {}
        self._write: Callable[[dict[str, Any]], object] | None = None

    @contextmanager
    def logged(self) -> Generator[None]:
        """Keeps the list of what cannot be used, also when there is too much of it; an old list goes."""
        import json

        from verisight.data.files import replacing

        with replacing(self._log) as handle:
            self._write = lambda row: handle.write(json.dumps(row).encode() + b"\n")
            try:
                yield
            except _TooMany:
                self._stopped = True
        if not self._counts:
            self._log.unlink()
        if self._stopped:
            self.tell()
            share = f"{self._num_faulty:,} of {self.num_rows:,} rows are faulty, --max-bad accepts {self._max_bad:.1%}"
            typer.echo(f"nothing written: {share if self._num_pairs else 'no row gives a pair'}", err=True)
            raise typer.Exit(1)

    def pairs(self) -> Iterator[Pair]:
        """Every pair; at the end raises _TooMany where there is none, or too many rows are faulty."""
        from itertools import islice

        with _progress("read") as advance:
            for outcome in islice(self._reading, self._limit):
                self.num_rows += 1
                self._num_faulty += any(bad.fault for bad in outcome.bad)
                self._num_pairs += len(outcome.pairs)
                self.add(outcome.bad)
                yield from outcome.pairs
                advance(1)
        if not self._num_pairs or self._num_faulty > self._max_bad * self.num_rows:
            raise _TooMany

    def add(self, bad: tuple[Any, ...]) -> None:
        """List and count what cannot be used."""
        from dataclasses import asdict

        assert self._write is not None, "the list is open"
        for row in bad:
            key = (row.reason, row.fault)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._write(asdict(row))

    def tell(self) -> None:
        """Print what could not be used, by reason."""
        for (reason, fault), num in sorted(self._counts.items(), key=lambda entry: (not entry[0][1], -entry[1])):
            typer.echo(f"{num:,} times {'' if fault else 'left out by rule: '}{reason}", err=True)
        if self._counts:
            typer.echo(f"listed in {self._log}", err=True)


def _open(
    path: Path, *, images: Path | None, kind: str, rule: str | None, text_only: bool, decode: bool = True
) -> Reading:
    from verisight.data.pairing import read_rule
    from verisight.data.readers import open_data

    made = None if rule is None else read_rule(rule)
    return open_data(path, kind=kind, images=images, check_images=decode, text_only=text_only, rule=made)


def _check_out(reading: Reading, out: Path, *others: Path | None) -> None:
    if out.is_dir():
        raise UserError(f"{out}: found a folder; accepted: a file to write")
    read = (*reading.files, reading.images, *others)
    if any(file is not None and out.resolve() == file.resolve() for file in read):
        raise UserError(f"{out}: is data that is read; accepted: another file")


@contextmanager
def _writing(option: str, target: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {target}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _progress(label: str) -> Generator[Callable[[int], object]]:
    """A progress line on a terminal; told in hundreds, for a bar is slower than a row."""
    from verisight.progress import track

    with track(label, total=None, unit="rows", quiet=not sys.stderr.isatty()) as advance:
        done = 0

        def count(amount: int) -> None:
            nonlocal done
            done += amount
            if done >= 100:
                advance(done)
                done = 0

        yield count
        advance(done)
