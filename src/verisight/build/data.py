"""Data nodes -> pairs: files are read once into stores on disk, everything above them is a view."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, assert_never

from verisight import recipe
from verisight.data import compose, pairing
from verisight.data.files import read_json, read_jsonl, write_json, write_jsonl
from verisight.data.readers import Reading, open_data
from verisight.data.store import Stored, store
from verisight.data.views import Chain
from verisight.progress import track
from verisight.types import BadRow, Pair, UserError

_STORE_VERSION = 1


class Composed(NamedTuple):
    """Pairs, what was left out on the way, how many rows the files had, and a line for every step."""

    pairs: Sequence[Pair]
    bad: list[BadRow]
    num_rows: int
    trail: list[dict[str, Any]]


def read(data: recipe.Data, *, folder: Path, key: str = "source.data", quiet: bool = True) -> Composed:
    """The pairs of a data node. Stores of what its files hold are kept in `folder`; a finished one is not made again.

    `key` is the node's place in the recipe, for messages and the trail.

    Raises:
        UserError: a file that cannot be read, or a step that finds too few pairs.
    """
    match data:
        case recipe.Rows() | recipe.Rated():
            composed = _stored(data, folder=folder, key=key, quiet=quiet)
        case recipe.Concat(parts=parts):
            made = [read(part, folder=folder, key=f"{key}.parts.{i}", quiet=quiet) for i, part in enumerate(parts)]
            composed = _joined(made, Chain([one.pairs for one in made]), key, "concat")
        case recipe.Mix(parts=parts, num=num, seed=seed):
            made = [
                read(part.data, folder=folder, key=f"{key}.parts.{i}.data", quiet=quiet) for i, part in enumerate(parts)
            ]
            with _named(key):
                mixed = compose.mix([one.pairs for one in made], [part.share for part in parts], num=num, seed=seed)
            composed = _joined(made, mixed, key, f"mix (seed {seed})")
        case other:
            assert_never(other)
    for number, step in enumerate(data.then):
        composed = _applied(step, composed, folder=folder, key=f"{key}.then.{number}", quiet=quiet)
    return composed


def first_pairs(data: recipe.Data, *, rows: int) -> Composed:
    """Pairs of the first rows of every file below the node, `rows` in all, whatever `then` would do with them.

    Nothing is stored.
    """
    match data:
        case recipe.Rows() | recipe.Rated():
            found = _open(data).read(min(rows, data.limit or rows))
            return Composed(found.pairs, found.bad, found.num_rows, [])
        case recipe.Concat(parts=parts):
            below = parts
        case recipe.Mix(parts=shares):
            below = tuple(share.data for share in shares)
        case other:
            assert_never(other)
    made = [first_pairs(part, rows=math.ceil(rows / len(below))) for part in below]
    return _joined(made, Chain([one.pairs for one in made]), "", "")


def _open(data: recipe.Rows | recipe.Rated) -> Reading:
    rule = _rule(data.rule) if isinstance(data, recipe.Rated) else None
    return open_data(data.file, kind=data.kind, images=data.images, text_only=data.text_only, rule=rule)


def _rule(node: recipe.Rule) -> pairing.Rule:
    match node:
        case recipe.AllPairs():
            return pairing.AllPairs()
        case recipe.BestWorst():
            return pairing.BestWorst()
        case recipe.Margin(least=least):
            return pairing.Margin(least)
        case other:
            assert_never(other)


def _stored(data: recipe.Rows | recipe.Rated, *, folder: Path, key: str, quiet: bool) -> Composed:
    """The node's file as a store. The marker, written last, tells a finished one."""
    reading = _open(data)
    name = folder / _name(data, reading)
    rows, listed, marker = (name.with_name(f"{name.name}{end}") for end in (".arrow", ".bad.jsonl", ".json"))
    if not marker.exists():
        bad: list[BadRow] = []
        num_rows = 0

        def pairs() -> Iterator[Pair]:
            nonlocal num_rows
            label = f"read {data.file.name}"
            with track(label, total=data.limit, unit="rows", quiet=quiet, brief=True) as advance:
                for outcome in islice(reading, data.limit):
                    num_rows += 1
                    bad.extend(outcome.bad)
                    advance()
                    yield from outcome.pairs

        for torn in folder.glob(f".{rows.name}.*.tmp"):  # of a killed run
            torn.unlink()
        store(rows, pairs())
        write_jsonl(listed, (asdict(row) for row in bad))
        if not any(row.reason.startswith("image ") for row in bad):  # pictures may be mended before the next try
            write_json(marker, {"num_rows": num_rows})
    else:
        num_rows = read_json(marker)["num_rows"]
        bad = [BadRow(**row) for row in read_jsonl(listed)]
    opened = Stored(rows)
    if data.then and not opened:  # steps would only say that they found none
        raise UserError(f"{key}: found no pair in {num_rows} rows of {data.file}{_first(bad)}")
    line = {
        "key": key, "step": f"{reading.format.name} {data.file}", "seen": reading.seen,
        "license": reading.format.license, "rows": num_rows, "pairs": len(opened), "left_out": counted(bad),
    }  # fmt: skip
    return Composed(opened, bad, num_rows, [line])


def _name(data: recipe.Rows | recipe.Rated, reading: Reading) -> str:
    """Names a store by everything that decides what is in it: the node, and the files' sizes and dates."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in reading.files]
    if data.images is not None:
        stats.append((str(data.images), data.images.stat().st_size, data.images.stat().st_mtime_ns))
    told = json.dumps([_STORE_VERSION, data.model_dump(mode="json", exclude={"then"}), stats])
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def _applied(step: recipe.Step, old: Composed, *, folder: Path, key: str, quiet: bool) -> Composed:
    """What a step makes of the pairs. Rows that it reads count with those that were read before."""
    bad: list[BadRow] = []
    others = Composed([], [], 0, [])
    with _named(key):
        match step:
            case recipe.Take(num=num, seed=seed):
                pairs: Sequence[Pair] = compose.take(old.pairs, num, seed=seed)
                told = f"take {num} (seed {seed})"
            case recipe.Filter():
                told = f"filter {_conditions(step)}"
                pairs = compose.keep(old.pairs, _test(step), told=told)
                if not pairs:
                    raise UserError(f"found no pair with {_conditions(step)}; the data has {_values(step, old.pairs)}")
            case recipe.Split(part=part, held_out=share, seed=seed):
                told = f"split {part} ({share:g} held out, seed {seed})"
                pairs = compose.split(old.pairs, part, share=share, seed=seed)
            case recipe.Prompts(which=which, of=data, match=match):
                others = read(data, folder=folder, key=f"{key}.of", quiet=quiet)
                told = f"{which} prompts"
                pairs = compose.seen(old.pairs, others.pairs, wanted=which == "seen", match=match, told=told)
            case recipe.Replace(answer=answer, by=data, match=match):
                others = read(data, folder=folder, key=f"{key}.by", quiet=quiet)
                told = f"{answer} from"
                pairs, bad = compose.replace_answer(old.pairs, others.pairs, answer, match=match, told=told)
            case other:
                assert_never(other)
        if not pairs:
            raise UserError(f"{told}: found no pair among {len(old.pairs)}; accepted: a step that leaves some")
    line = {"key": key, "step": told, "pairs": len(pairs), "left_out": len(old.pairs) - len(pairs)}
    return Composed(
        pairs,
        [*old.bad, *others.bad, *bad],
        old.num_rows + others.num_rows,
        [*old.trail, *others.trail, line | ({"why": counted(bad)} if bad else {})],
    )


def _joined(made: Sequence[Composed], pairs: Sequence[Pair], key: str, told: str) -> Composed:
    line = {"key": key, "step": told, "pairs": len(pairs)}
    return Composed(
        pairs,
        [row for one in made for row in one.bad],
        sum(one.num_rows for one in made),
        [*(entry for one in made for entry in one.trail), line],
    )


def _test(node: recipe.Filter) -> Callable[[Pair], bool]:
    accepted: dict[str, Sequence[Any]] = dict(node.notes or {})
    for name in ("chosen_model", "rejected_model"):
        if getattr(node, name):
            accepted[name] = getattr(node, name)

    def passes(pair: Pair) -> bool:
        if any(pair.notes.get(name) not in values for name, values in accepted.items()):
            return False
        if node.max_words and any(len(answer.text.split()) > node.max_words for answer in pair.group.answers):
            return False
        if node.min_score_gap is None:
            return True
        better, worse = (pairing.number(pair.notes.get(name)) for name in ("chosen_score", "rejected_score"))
        return better is not None and worse is not None and better - worse >= node.min_score_gap - pairing.ROUNDING

    return passes


def _conditions(node: recipe.Filter) -> str:
    found = {key: value for key, value in node.model_dump(exclude={"kind"}).items() if value}
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in found.items())


def _values(node: recipe.Filter, pairs: Sequence[Pair]) -> str:
    """The commonest values of the notes a filter asks for."""
    names = [name for name in ("chosen_model", "rejected_model") if getattr(node, name)] + list(node.notes or ())
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    for pair in pairs:
        for name in names:
            counts[name][str(pair.notes.get(name))] += 1
    told = (f"{name} " + ", ".join(f"{value} ({num})" for value, num in counts[name].most_common(8)) for name in names)
    return "; ".join(told) or f"{len(pairs)} pairs"


def _first(bad: Sequence[BadRow]) -> str:
    if not bad:
        return ""
    first = f"row {bad[0].row}: {bad[0].reason}: {bad[0].detail}"
    return f"; left out: {', '.join(f'{reason}: {num}' for reason, num in counted(bad).items())}. First: {first}"


def counted(bad: Sequence[BadRow]) -> dict[str, int]:
    """How often each reason was given."""
    return dict(Counter(row.reason for row in bad).most_common())


class _named:
    """Puts the node's key in front of a UserError."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, UserError) and not str(error).startswith("source."):
            raise UserError(f"{self._key}: {error}") from error
