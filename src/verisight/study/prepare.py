"""What is known before training: rows of data files, pairs that the starting model makes once; and pairs to look at."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from verisight import build
from verisight.data.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl
from verisight.data.outcome import enforce_bad_fraction
from verisight.data.readers import open_data
from verisight.data.records import write_pairs
from verisight.data.store import Stored, store
from verisight.data.views import Chain
from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.progress import track
from verisight.recipe import Averaged, Generated, Iterated, Mixed, Offline, Recipe, Rollouts, Source, is_fixed
from verisight.sources.collect import as_json, from_json
from verisight.sources.generated import generate_pairs
from verisight.types import BadRow, Pair, UserError
from verisight.types import Source as Drawn

JOURNAL = "negatives"  # finished batches of a generation under way
PROBE = "probe.parquet"
DRAWN = "drawn.jsonl"  # pairs of an online source under way
DRAWN_STATE = "drawn.json"  # how many batches of it are whole, and the source's state behind them
EQUAL_PAIRS = "equal_pairs"  # examples whose hallucinated answer was the chosen one


def prepare(recipe: Recipe, *, quiet: bool, whole: bool = False) -> dict[str, Sequence[Pair]]:
    """By dotted key, what every source works on: pairs, or the examples and prompts of those that make them online.

    Pairs that the starting model makes beforehand are written once, to pairs.parquet (of a source below another one:
    pairs, the rest of its key, .parquet); with `whole` those of offline sources too. A file that is there is read.
    """
    rows: dict[str, Sequence[Pair]] = {}
    for key, node in _working(recipe.source, "source"):
        target = recipe.output / build.file_name("pairs", key, ".parquet")
        if not is_fixed(node):
            rows[key] = _examples(recipe, key, node, quiet=quiet)
            continue
        if not ranks().told(target.exists())[0] and (whole or not isinstance(node, Offline)):
            made = _made(recipe, key, node, quiet=quiet)
            if ranks().main:
                write_pairs(target, made)
                (recipe.output / build.file_name(JOURNAL, key, ".jsonl")).unlink(missing_ok=True)
            ranks().wait()
        if target.exists():
            rows[key] = _written_pairs(target)
        else:
            assert isinstance(node, Offline)
            rows[key] = _examples(recipe, key, node, quiet=quiet)
    return rows


def _examples(recipe: Recipe, key: str, node: Source | Rollouts, *, quiet: bool) -> Sequence[Pair]:
    """Rows of a source, read by one process after another."""
    assert not isinstance(node, Averaged | Mixed | Iterated), "those below are looked at"
    with ranks().in_turn():
        return build.examples(recipe, key, node, quiet=quiet)


def make_pairs(recipe: Recipe, *, quiet: bool) -> Sequence[Pair]:
    """All pairs, written to pairs.parquet and its kin. Of sources that make them online those of a first pass.

    The folder has to be claimed before. For online sources the starting model draws as many pairs as the source has
    rows; training draws its own.
    """
    rows = prepare(recipe, quiet=quiet, whole=True)
    target = recipe.output / "pairs.parquet"
    if not is_fixed(recipe.source) and not ranks().told(target.exists())[0]:
        drawn = _drawn(recipe, rows, quiet=quiet)
        if ranks().main:
            write_pairs(target, drawn)
        else:
            deque(drawn, maxlen=0)
        ranks().wait()
        for name in (DRAWN_STATE, DRAWN) if ranks().main else ():
            (recipe.output / name).unlink(missing_ok=True)
    if ranks().main:
        shutil.rmtree(recipe.output / "rows", ignore_errors=True)
    return Chain(list(rows.values())) if is_fixed(recipe.source) else _written_pairs(target)


def probe(recipe: Recipe, source: Drawn, policy: Policy, *, quiet: bool) -> Sequence[Pair]:
    """The pairs that are looked at while training, written to probe.parquet once: a run that resumes looks at the same.

    Held-out ones, or the first that `source` draws with the starting model. It is put back to its beginning then.
    """
    assert recipe.diagnose is not None
    target, num = recipe.output / PROBE, recipe.diagnose.num
    if not ranks().told(target.exists())[0]:
        data = recipe.diagnose.data
        if data is None:
            beginning = source.state_dict()
            sizes = [min(recipe.train.batch_size, num - at) for at in range(0, num, recipe.train.batch_size)]
            found: Sequence[Pair] = [pair for size in sizes for pair in source.draw(size, policy)]
            source.load_state_dict(beginning)
        else:
            with ranks().in_turn():
                found = build.held_out(recipe, data, num=num, quiet=quiet)
        if ranks().main:
            write_pairs(target, found)
        ranks().wait()
    return _written_pairs(target)


def _working(source: Source | Rollouts, key: str) -> Iterator[tuple[str, Source | Rollouts]]:
    """The topmost sources whose pairs are fixed, and the others that read data, with their keys."""
    match source:
        case Mixed(parts=parts):
            for number, part in enumerate(parts):
                yield from _working(part.source, f"{key}.parts.{number}.source")
        case Averaged(when="online") | Iterated():
            yield from _working(source.source, f"{key}.source")
        case _:
            yield key, source


def _made(recipe: Recipe, key: str, node: Source | Rollouts, *, quiet: bool) -> Sequence[Pair]:
    """The pairs of a source that is fixed."""
    if isinstance(node, Offline):
        return _examples(recipe, key, node, quiet=quiet)
    assert isinstance(node, Generated | Averaged)
    if isinstance(node, Averaged):
        assert isinstance(node.source, Offline)
        rows = _examples(recipe, f"{key}.source", node.source, quiet=quiet)
    else:
        rows = _examples(recipe, key, node, quiet=quiet)
    hallucinate = build.hallucinate(node.negatives, rows, folder=recipe.output, seed=recipe.seed)
    policy = build.open_model(recipe.model)
    with track("pairs", total=len(rows), unit="pairs", quiet=quiet) as advance:
        made, bad = generate_pairs(
            policy, rows, hallucinate, join=build.join(node), seed=recipe.seed, batch_size=node.negatives.batch_size,
            journal=recipe.output / build.file_name(JOURNAL, key, ".jsonl"), advance=advance,
        )  # fmt: skip
    # Short answers often come out as they went in ("Yes."): listed, and no fault.
    log = recipe.output / build.file_name(EQUAL_PAIRS, key, ".jsonl")
    written = log if ranks().main else None
    enforce_bad_fraction(bad, num_rows=len(rows), max_bad_fraction=recipe.max_bad_fraction, log=written)
    if not made:
        raise UserError(f"{key}: found no negative that makes a pair in {len(rows)} rows; see {log}")
    return made


def _drawn(recipe: Recipe, rows: dict[str, Sequence[Pair]], *, quiet: bool) -> Iterator[Pair]:
    """Pairs from a source that makes them online, as many as it has rows. A killed call continues with its journal."""
    source, policy = build.source(recipe, rows), build.open_model(recipe.model)
    journal, state, size = recipe.output / DRAWN, recipe.output / DRAWN_STATE, recipe.train.batch_size
    batches: list[dict[str, Any]] = []
    if ranks().told(state.exists())[0]:
        told = read_json(state)
        source.load_state_dict(told["source"])
        batches = read_jsonl(journal)[: told["batches"]]
    ranks().wait()
    total, num = max(map(len, rows.values())), sum(len(batch["pairs"]) for batch in batches)
    if ranks().main:
        write_jsonl(journal, batches)  # without one that was killed before its state was written
    with track("pairs", total=total, unit="pairs", done=num, quiet=quiet) as advance:
        while num < total:
            drawn = source.draw(min(size, total - num), policy)
            batches.append({"pairs": [as_json(pair) for pair in drawn]})
            if ranks().main:
                append_jsonl(journal, batches[-1])
                write_json(state, {"batches": len(batches), "source": source.state_dict()})
            num += len(drawn)
            left_out = ", ".join(f"{reason}: {count}" for reason, count in source.counts().items())
            advance(len(drawn), note=left_out)
    for batch in batches:
        yield from map(from_json, batch["pairs"])


def _written_pairs(target: Path) -> Stored:
    """The pairs of a finished file, the same for the run that wrote it and for one that resumes.

    They are read from a store that has no name any more: it goes when the process does.
    """
    bad: list[BadRow] = []

    def good() -> Iterator[Pair]:
        for outcome in open_data(target, kind="pairs", check_images=False):
            bad.extend(outcome.bad)
            yield from outcome.pairs

    folder = target.parent / ranks().own(".rows")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run
    stored = store(folder / "written.arrow", good())
    shutil.rmtree(folder, ignore_errors=True)
    enforce_bad_fraction(bad, num_rows=len(stored) + len(bad), max_bad_fraction=0.0, log=None)
    return stored
