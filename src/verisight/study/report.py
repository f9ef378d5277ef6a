"""The report: facts read from run folders, and one HTML page that shows them. Nothing is computed on a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from verisight.data.files import read_json, read_jsonl, write_atomic
from verisight.study import hacking, svg, tables
from verisight.study.curves import Chart, training_charts
from verisight.study.gallery import AnswerGallery, PairGallery, collect_answers, collect_pairs
from verisight.study.tables import Arm, Change, Metric, Row, comparison, headlines, markdown_table, terminal_table
from verisight.train.tracking import flatten
from verisight.types import UserError

__all__ = ["Arm", "Report", "collect", "comparison", "markdown_table", "terminal_table", "write_report"]

SHOWN_FIRST = 6  # cards shown before the rest is folded away
_SHORTER = 0.5  # words an answer; less is not worth a warning
_CUT_OFF = 0.01  # share of answers cut off by the token limit from which on the report says so
_UNPARSED = 0.01  # share of yes/no answers that say neither, likewise


@dataclass(frozen=True, slots=True)
class Training:
    """One arm's training: charts over the step, its length, and how many pairs of which origin it used."""

    arm: str
    file: str
    num_steps: int
    seconds: float
    origins: tuple[tuple[str, int], ...]
    charts: tuple[Chart, ...]
    paths: tuple[hacking.Path, ...] = ()
    caution: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """How one benchmark was run on one arm."""

    arm: str
    benchmark: str
    num_items: int
    protocol: str
    decoding: tuple[tuple[str, str], ...]
    file: str


@dataclass(frozen=True, slots=True)
class Making:
    """What an arm's folder holds: the resolved recipe and the environment if it was trained, files with their bytes."""

    arm: str
    folder: str
    recipe: str
    environment: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report shows. Galleries and trainings exist where an arm's folder holds their files."""

    arms: tuple[str, ...]
    headlines: tuple[str, ...]
    cautions: tuple[str, ...]
    rows: tuple[Row, ...]
    trainings: tuple[Training, ...]
    pairs: tuple[PairGallery, ...]
    answers: AnswerGallery | None
    measured: tuple[Measured, ...]
    makings: tuple[Making, ...]


def collect(
    arms: Sequence[Arm], *, images: Path | None, num_pairs: int = 24, num_answers: int = 24, seed: int = 0
) -> Report:
    """Read the facts of all arms, the base first. `seed` chooses the pairs and answers to look at.

    Raises:
        UserError: see `comparison`; or a file of a run is malformed.
    """
    rows = comparison(arms)
    trainings = tuple(found for arm in arms if (found := _training(arm)))
    summaries = {arm.label: tables.read_summary(arm) for arm in arms}
    return Report(
        arms=tuple(arm.label for arm in arms),
        headlines=tuple(headlines(rows)),
        cautions=(*_cautions(rows, summaries), *(f"{one.arm}: {one.caution}" for one in trainings if one.caution)),
        rows=tuple(rows),
        trainings=trainings,
        pairs=tuple(found for arm in arms if (found := collect_pairs(arm, num=num_pairs, seed=seed))),
        answers=collect_answers(arms, images=images, num=num_answers, seed=seed),
        measured=tuple(found for arm in arms for found in _measured(arm, summaries[arm.label])),
        makings=tuple(map(_making, arms)),
    )


def write_report(
    arms: Sequence[Arm],
    *,
    target: Path,
    title: str,
    images: Path | None = None,
    num_pairs: int = 24,
    num_answers: int = 24,
    seed: int = 0,
) -> Path:
    """Write one HTML page that needs no other file and no network, and return `target`. Errors as in `collect`."""
    report = collect(arms, images=images, num_pairs=num_pairs, num_answers=num_answers, seed=seed)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    limits = {percent: _limit(report.rows, percent=percent) for percent in (True, False)}
    page = environment.get_template("report.html.j2").render(
        report=report, title=title, seed=seed, version=version("verisight"), svg=svg, tables=tables, limits=limits,
        shown_first=SHOWN_FIRST, hacking=hacking,
    )  # fmt: skip
    write_atomic(target, page)
    return target


def _limit(rows: Sequence[Row], *, percent: bool) -> float:
    """Half the width of the axis that all differences of this unit share: at least a point, or a word."""
    changes = [cell.change for row in rows if row.metric.percent == percent for cell in row.cells if cell.change]
    ends = [abs(end) for change in changes for end in (change.low, change.high) if end is not None]
    return 1.05 * max(*ends, 0.01 if percent else 1.0, 0.0)


def _cautions(rows: Sequence[Row], summaries: dict[str, dict[str, Any]]) -> Iterator[str]:
    by_name: dict[str, tuple[Metric, dict[str, Change]]] = {
        row.metric.name: (row.metric, {cell.label: cell.change for cell in row.cells if cell.change}) for row in rows
    }
    for label, entry in summaries.items():
        verdicts = {name: changes[label].verdict for name, (_, changes) in by_name.items() if label in changes}
        if verdicts.get("chair_i") == "better":
            if verdicts.get("recall") == "worse":
                yield f"{label} makes up less, but also names fewer of the objects that are there."
            if verdicts.get("length_words") == "lower":
                words = -(by_name["length_words"][1][label].value or 0.0)
                if words >= _SHORTER:
                    yield f"{label} makes up less, but its answers also became shorter (by {words:.1f} words)."
        cut_off = entry.get("chair", {}).get("metrics", {}).get("truncated_fraction", {}).get("value") or 0.0
        if cut_off >= _CUT_OFF:
            yield f"{label}: {cut_off:.1%} of the descriptions were cut off by the token limit."
        for name, found in entry.get("pope", {}).get("metrics", {}).items():
            if name.endswith("unparsed_fraction") and (found["value"] or 0.0) >= _UNPARSED:
                yield f"{label}: {found['value']:.1%} of POPE's {name.split('/')[0]} answers say neither yes nor no."


def _training(arm: Arm) -> Training | None:
    path = arm.folder / "metrics.jsonl"
    written = read_jsonl(path) if path.exists() else []
    rows = [row for row in written if row.get("split", "train") == "train"]
    if not rows:
        return None
    if not all(isinstance(row.get("step"), int) for row in rows):
        raise UserError(f"{path}: a row has no whole number `step`; every row needs one")
    origins: Counter[str] = Counter()
    for row in rows:
        origins.update(row.get("origin", {}))
    charts = training_charts(written)
    looks = [flatten(row) for row in written if row.get("split") == "probe"]
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    return Training(
        arm.label, str(path), rows[-1]["step"], seconds, tuple(origins.items()), charts,
        hacking.paths(looks), hacking.caution(looks),
    )  # fmt: skip


def _measured(arm: Arm, summary: dict[str, Any]) -> Iterator[Measured]:
    for name, entry in summary.items():
        decoding = tuple((key, str(value)) for key, value in entry["decoding"].items())
        file = str(tables.summary_file(arm))
        yield Measured(arm.label, name, entry["num_items"], entry["protocol"], decoding, file)


def _making(arm: Arm) -> Making:
    recipe, environment = arm.folder / "recipe.yaml", arm.folder / "environment.json"
    found = read_json(environment) if environment.exists() else {}
    candidates = [*arm.folder.iterdir(), *(arm.folder / "evaluate").iterdir()]
    files = sorted(path for path in candidates if path.is_file() and not path.name.startswith("."))
    return Making(
        arm.label,
        str(arm.folder),
        recipe.read_text(encoding="utf-8") if recipe.exists() else "",
        tuple((str(key), str(value)) for key, value in found.items()),
        tuple((path.relative_to(arm.folder).as_posix(), path.stat().st_size) for path in files),
    )
