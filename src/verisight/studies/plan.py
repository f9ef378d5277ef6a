"""What a study would do and cost, in tables for people: arms, budgets, what is shared, what it could find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from verisight.recipe import Study
from verisight.studies.arms import Places, Run, places_of, runs_of, shared
from verisight.studies.budget import Budget, budgets_of, check_budgets
from verisight.studies.facts import read_run
from verisight.studies.power import Detectable, detectable
from verisight.study.plan import Listing
from verisight.types import UserError


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study before it runs: `there` and `missing` count runs; `seconds` is what like runs took, None if none has."""

    study: Study
    budgets: list[Budget]
    runs: list[Run]
    there: int
    missing: int
    shared: list[tuple[str, int]]
    seconds: float | None
    detectable: list[Detectable]


def plan_study(study: Study, *, file: Path) -> StudyPlan:
    """Read data and model sizes, no weights, and compare the arms' budgets.

    Raises:
        UserError: arms differ in what the study does not declare, a line each.
    """
    runs, places = runs_of(study, file=str(file)), places_of(study)
    budgets = budgets_of(study, file=file, runs=runs)
    check_budgets(study, budgets, file=file)
    measured = [run for run in runs if run.fact is not None]
    there = [run for run in measured if (places.fact(run.fact or "") / "run.json").exists()]
    left = [run for run in measured if run not in there]
    found = detectable(study, file=file, num_arms=len(budgets)) if there else []
    return StudyPlan(
        study, budgets, runs, len(there), len(left), list(shared(left)), _seconds(there, left, places), found
    )


def _seconds(there: Sequence[Run], left: Sequence[Run], places: Places) -> float | None:
    """What is left takes, as such runs took; pairs made beforehand count once. None where no run tells."""
    took = [read_run(places.fact(run.fact or ""))["seconds"] for run in there]
    if not took:
        return None
    each = mean(sum(value for part, value in one.items() if part != "pairs") for one in took)
    pairs = {run.pairs for run in left if run.pairs is not None}
    making = [one["pairs"] for one in took if "pairs" in one]
    return len(left) * each + (len(pairs) * mean(making) if making else 0.0)


def check_read(plan: StudyPlan, *, file: Path) -> None:
    """Raises UserError where an arm's data or model could not be read, so that its budget is not known."""
    lines = [f"{file}: arms.{one.arm}: its budget could not be compared: {one.unread}" for one in plan.budgets
             if one.unread]  # fmt: skip
    if lines:
        raise UserError("\n".join(lines))


def listings(plan: StudyPlan) -> Iterator[Listing]:
    """The plan as tables."""
    arms = [
        (
            one.arm, _number(one.pairs), _number(one.prompts and one.prompts[0]),
            "-" if one.steps is None else f"{one.steps[0]} x {one.steps[1]}", _number(one.tokens),
            "-" if one.flops is None else f"{one.flops / 1e12:,.1f}",
        )
        for one in plan.budgets
    ]  # fmt: skip
    header = ("arm", "pairs", "prompts", "steps", "answer tokens", "TFLOPs a run")
    varies = f"; may differ in: {', '.join(plan.study.varies)}" if plan.study.varies else "; all budgets equal"
    controls = f"controls: {', '.join(plan.study.controls) or 'none, as the study says'}"
    yield Listing(f"{plan.study.title}: {controls}{varies}", header, arms)
    unread: dict[str, list[str]] = {}
    for one in plan.budgets:
        if one.unread:
            unread.setdefault(one.unread, []).append(one.arm)
    if unread:
        told = [(", ".join(arms), reason) for reason, arms in unread.items()]
        yield Listing("not read here: only what recipes say was compared", ("arms", "why"), told)
    seconds = "not known before a run" if plan.seconds is None else f"{plan.seconds / 60:,.0f} minutes, one at a time"
    flops = [one.flops for one in plan.budgets if one.flops is not None]
    todo = [
        ("runs there", str(plan.there)),
        ("runs missing", str(plan.missing)),
        ("parts and pairs made once", f"{len(plan.shared)}, for {sum(num for _, num in plan.shared)} runs"),
        (
            "FLOPs of all seeds",
            f"{sum(flops) * len(plan.study.seeds):.2e}, making answers not counted" if flops else "-",
        ),
        ("time, as such runs took here", seconds),
    ]
    yield Listing("to do", ("", ""), todo)
    if plan.detectable:
        found = [
            (one.column.label, _scaled(one, one.seed_deviation), _scaled(one, one.item_error),
             _scaled(one, one.difference), str(one.num_runs))
            for one in plan.detectable
        ]  # fmt: skip
        heads = ("", "between seeds, sd", "over items, se", "found with power 0.8", "from runs")
        yield Listing("smallest difference to the base that can be found (Holm's first step)", heads, found)


def _scaled(one: Detectable, value: float) -> str:
    return f"{100 * value:.2f} points" if one.column.percent else f"{value:.2f}"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
