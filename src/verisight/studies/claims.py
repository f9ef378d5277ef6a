"""Claims tested on results: every part an effect with its interval, the outcome no stronger than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from verisight.data.files import write_atomic, write_json
from verisight.evaluate.stats import Direction
from verisight.recipe import Claims, Contrast, load_study
from verisight.studies import findings
from verisight.studies.effects import Resampler, Spread
from verisight.studies.findings import Effect, Outcome, Verdict
from verisight.studies.results import Results, known_arm, read_results
from verisight.types import UserError


def read_all(claims: Claims, *, resampler: Resampler | None = None) -> dict[str, Results]:
    """The results of every study that a claim stands on, on the same resamples."""
    resampler = resampler or Resampler()
    used = {part.study for claim in claims.claims.values() for part in claim.parts}
    studies = {name: load_study(file) for name, file in claims.studies.items() if name in used}
    for name, study in studies.items():
        if study.name != name:
            raise UserError(f"studies.{name}: found the study {study.name} in {claims.studies[name]}; accepted: {name}")
    return {
        name: read_results(study, file=claims.studies[name], resampler=resampler) for name, study in studies.items()
    }


def weigh(claims: Claims, results: Mapping[str, Results], *, file: Path) -> tuple[findings.Claim, ...]:
    """Every claim's parts and outcome. Intervals are 95 % each, not corrected for the number of claims.

    Raises:
        UserError: a part names an arm that its study doesn't have, or says no_worse of what is neither good nor bad.
    """
    told = []
    for name, claim in claims.claims.items():
        parts = tuple(
            _part(part, results[part.study], f"{file}: claims.{name}.parts.{number}")
            for number, part in enumerate(claim.parts)
        )
        told.append(findings.Claim(name, claim.text, outcome_of([part.outcome for part in parts]), parts, claim.note))
    return tuple(told)


def outcome_of(parts: list[Outcome]) -> Outcome:
    """Of all parts together: one that fails fails it, one that can't be told leaves it open."""
    if not parts or all(part == "not measured" for part in parts):
        return "not measured"
    if "fails" in parts:
        return "fails"
    return "holds" if all(part == "holds" for part in parts) else "can't tell"


def outcome(expect: str, margin: float, low: float, high: float, better: Direction) -> Outcome:
    """Whether a difference, known from `low` to `high`, is as expected.

    higher, lower: holds where the interval lies on that side of 0, fails where it lies on the other. same: holds
    inside -margin..margin, fails outside. no_worse: holds where the bad end is within the margin, fails where the whole
    interval is beyond it.
    """
    if expect == "lower" or (expect == "no_worse" and better == "lower"):
        low, high = -high, -low  # now larger is what was asked for, or better
    if expect == "same":
        return (
            "holds" if -margin < low and high < margin else "fails" if low > margin or high < -margin else "can't tell"
        )
    least = -margin if expect == "no_worse" else 0.0
    return "holds" if low > least else "fails" if high < least else "can't tell"


def _part(part: Contrast, results: Results, where: str) -> findings.Part:
    known_arm(results, part.arm, f"{where}.arm")
    if isinstance(part.than, str):
        known_arm(results, part.than, f"{where}.than")
    column, found = results.column(part.metric), results.difference(part.arm, part.than, part.metric)
    told: Outcome = "not measured"
    if part.expect == "no_worse" and results.has(part.arm, part.metric) and column.better == "neutral":
        accepted = "same, higher or lower: more of it is neither better nor worse"
        raise UserError(f"{where}.expect: found no_worse of {part.metric}; accepted: {accepted}")
    if found is not None and found.low is not None and found.high is not None:
        told = outcome(part.expect, part.margin, found.low, found.high, column.better)
    text, num = part.text, len(results.study.seeds)
    if found is not None and len(found.by_seed) < num:  # nothing is decided by fewer seeds than were asked for
        text, told = f"{text} ({len(found.by_seed)} of {num} seeds)", "can't tell"
    return findings.Part(text, expected(part, column), column, _effect(found), told)


def expected(part: Contrast, column: findings.Column) -> str:
    """What the difference has to be, in words."""
    scale, unit = (100, "points") if column.percent else (1, "")
    margin = f"{scale * part.margin:g} {unit}".strip()
    match part.expect:
        case "same":
            return f"within {margin} of each other"
        case "no_worse":
            return f"no worse by more than {margin}"
        case side:
            return side


def _effect(found: Spread | None) -> Effect:
    if found is None:
        return Effect(None, None, None, None, "not measured")
    told: Verdict = "can't tell"
    if found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
        told = "higher" if (found.value or 0.0) > 0 else "lower"
    return Effect(found.value, found.low, found.high, None, told)


def claims_markdown(claims: Sequence[findings.Claim], *, title: str) -> str:
    """The claims as a table, one row a part, and each claim's outcome."""
    lines = [
        f"# {title}",
        "",
        "| claim | outcome | compared | difference (95 %) | has to be | |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        for at, part in enumerate(claim.parts):
            first = (f"**{claim.key}** {claim.text}", f"**{claim.outcome}**") if at == 0 else ("", "")
            cells = [*first, part.text, _shown(part), part.expects, part.outcome]
            lines.append(f"| {' | '.join(one.replace('|', chr(92) + '|') for one in cells)} |")
    notes = [f"- {claim.key}: {claim.note}" for claim in claims if claim.note]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def write_claims(claims: Sequence[findings.Claim], folder: Path, *, title: str) -> None:
    """claims.json and claims.md. The same facts give the same bytes."""
    write_json(folder / "claims.json", [asdict(claim) for claim in claims])
    write_atomic(folder / "claims.md", claims_markdown(claims, title=title))


def _shown(part: findings.Part) -> str:
    effect, scale = part.effect, 100 if part.column.percent else 1
    if effect.value is None or effect.low is None or effect.high is None:
        return "not measured"
    unit = " points" if part.column.percent else ""
    ends = f"{scale * effect.low:+.1f} to {scale * effect.high:+.1f}"
    return f"{part.column.label} {scale * effect.value:+.1f}{unit} ({ends})"
