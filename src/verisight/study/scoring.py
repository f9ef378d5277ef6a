"""Scores saved answers: no model, no torch. A judge is asked only for the replies that are not on file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verisight.data.files import write_json, write_jsonl
from verisight.evaluate.answers import Joined, join, read_answers
from verisight.evaluate.folders import add_entry
from verisight.evaluate.health import MAX_BAD_FRACTION, count, refusal
from verisight.evaluate.public import Judge, entry_name
from verisight.evaluate.scorers import Files, Opened, Row, Scorer
from verisight.evaluate.stats import summarise
from verisight.types import UserError


class Loaded(NamedTuple):
    """A benchmark and the answers to it."""

    scorer: Scorer
    protocol: str
    opened: Opened
    joined: Joined
    answers: tuple[Path, ...]


def load(scorer: Scorer, files: Files, answers: Sequence[Path], *, protocol: str | None = None) -> Loaded:
    """Read a benchmark's files and the answers.

    Raises:
        UserError: a file that can't be used, or not one answer belongs to a question.
    """
    protocol = scorer.check_protocol(protocol)
    given = [row for file in answers for row in read_answers(file)]
    if scorer.open_ended is not None:
        files = files._replace(among=frozenset(filter(None, map(scorer.open_ended, given))))
    opened = scorer.open(files, protocol)
    joined = join(opened.truths, given, opened.find_uid)
    if not joined.rows:
        found = next((one["uid"] for one in joined.problems if one["problem"] == "extra"), "no id")
        raise UserError(
            f"--answers: none of {len(given)} rows can be used for {scorer.name}: the first has id {found!r}, the "
            f"questions have ids like {next(iter(opened.truths), 'none at all')!r}"
        )
    return Loaded(scorer, protocol, opened, joined, tuple(answers))


def score(
    loaded: Loaded, *, folder: Path, judge: Judge | None = None, limit: float = MAX_BAD_FRACTION, seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Scores the answers; writes rows, problems and the summary's entry to `folder`/evaluate; returns the entry.

    The entry: metrics, num_items, protocol, version, counts (see `health.count`), refused ("" or why no headline is
    given), judge. `limit`: share of unusable items up to which there is a headline.

    Raises:
        UserError: the protocol needs a judge, and none is there.
    """
    scorer, rows = loaded.scorer, loaded.joined.rows
    if scorer.judged(loaded.protocol):
        if judge is None:
            without = scorer.judging.without if scorer.judging is not None else ()
            instead = f", or take --protocol {' or '.join(without)}" if without else ""
            raise UserError(f"{scorer.name}: protocol {loaded.protocol} needs a judge; name one{instead}")
        rows = judge.replies(scorer, rows, folder, advance)
    scored = loaded.opened.score(rows)
    counts = count(scored, joined=loaded.joined.counts)
    entry = {
        "metrics": summarise(scorer.measures(scored), [row["cluster"] for row in scored], seed=seed),
        "num_items": len(scored),
        "decoding": None,
        "protocol": loaded.protocol,
        "version": loaded.opened.version,
        "headline": list(scorer.headline),
        "counts": counts,
        "refused": refusal(counts, limit=limit),
        "judge": None if judge is None or not scorer.judged(loaded.protocol) else judge.facts,
        "answers": [str(file) for file in loaded.answers],
    }
    _write(folder, entry_name(scorer, judge), loaded, scored, entry)
    return entry


def _write(folder: Path, name: str, loaded: Loaded, scored: Sequence[Row], entry: Mapping[str, Any]) -> None:
    target = folder / "evaluate"
    target.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for uid, one in loaded.opened.truths.items():
        digest.update(json.dumps([uid, one["cluster"], one["truth"]], sort_keys=True).encode())
    write_jsonl(target / f"{name}.jsonl", scored)
    write_jsonl(target / f"{name}.problems.jsonl", loaded.joined.problems)
    write_json(target / f"{name}.json", {"fingerprint": digest.hexdigest(), "num_items": len(scored)})
    add_entry(folder, name, entry)
