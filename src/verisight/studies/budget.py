"""What every arm of a study may spend, compared before anything runs: base, prompts, pairs, steps, tokens."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verisight import build, recipe
from verisight.build.data import read
from verisight.data.images import image_hash
from verisight.recipe import Recipe, Study
from verisight.recipe.study import Factor
from verisight.studies.arms import Places, Run, places_of, runs_of
from verisight.study import plan as planning
from verisight.types import UserError

TOLERANCE = 0.2  # of answer tokens; answers of other sources are never as long to the token
_ROWS = 50  # of the data, measured
FACTORS: tuple[Factor, ...] = ("base", "prompts", "pairs", "steps", "tokens")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one arm spends. `pairs`: examples there are to draw from; `prompts`: how many, and a hash of which.

    `steps`: optimizer steps x pairs a step; `tokens`: answer tokens that are scored in all, a rejected answer that is
    still to be made counted as long as the chosen one; `flops` of all steps, making answers not counted. None where
    the data or the model is not here (`unread` says why), or the question makes no sense.
    """

    arm: str
    base: str
    pairs: int | None
    prompts: tuple[int, str] | None
    steps: tuple[int, int] | None
    tokens: int | None
    flops: float | None
    unread: str = ""
    supervised: bool = False


def budgets_of(study: Study, *, file: Path, runs: Sequence[Run] | None = None) -> list[Budget]:
    """The budget of every trained arm, of its first seed."""
    runs = runs_of(study, file=str(file)) if runs is None else runs
    first = {run.arm: run for run in reversed(runs) if run.fact is not None and not run.untrained}
    places, known = places_of(study), dict[str, Any]()
    return [_budget(run, places, known) for run in sorted(first.values(), key=lambda run: runs.index(run))]


def differences(budgets: Sequence[Budget], allowed: Sequence[Factor]) -> Iterator[str]:
    """Where arms differ that should not, in words. What could not be read is compared by what recipes say alone."""
    for factor in FACTORS:
        if factor in allowed:
            continue
        groups: dict[Any, list[str]] = {}
        for one in budgets:
            value = _value(one, factor)
            if value is not None and not (factor == "tokens" and one.supervised):
                groups.setdefault(value, []).append(one.arm)
        if factor == "tokens":
            low, high = min(groups, default=0), max(groups, default=0)
            if high > low * (1 + TOLERANCE):
                yield (
                    f"tokens: found {low:,} in {', '.join(groups[low])} and {high:,} in {', '.join(groups[high])}; "
                    f"accepted: within {TOLERANCE:.0%}, or `varies: [tokens]`"
                )
        elif len(groups) > 1:
            told = "; ".join(f"{_said(value)} in {', '.join(arms)}" for value, arms in groups.items())
            yield f"{factor}: found {told}; accepted: the same in all arms, or `varies: [{factor}]`"


def check_budgets(study: Study, budgets: Sequence[Budget], *, file: Path) -> None:
    """Raises UserError where arms differ in what the study does not declare."""
    found = list(differences(budgets, study.varies))
    if found:
        raise UserError("\n".join(f"{file}: {line}" for line in found))


def _value(one: Budget, factor: Factor) -> Any:
    return {"base": one.base, "prompts": one.prompts, "pairs": one.pairs, "steps": one.steps, "tokens": one.tokens}[
        factor
    ]


def _said(value: Any) -> str:
    match value:
        case (int(num), str(which)):
            return f"{num:,} prompts ({which[:6]})"
        case (int(steps), int(size)):
            return f"{steps} steps of {size}"
        case _:
            return f"{value:,}" if isinstance(value, int) else str(value)


def _budget(run: Run, places: Places, known: dict[str, Any]) -> Budget:
    one = run.recipe
    assert one is not None, "trained arms have a recipe"
    model = one.model
    tuned = ", ".join(f"{key} {value}" for key, value in model.tune.model_dump().items())
    base = f"{model.path}, {model.dtype}, {tuned}, projector {'trained' if model.train_projector else 'frozen'}"
    supervised = isinstance(one.objective, recipe.Sft)
    try:
        pairs, prompts = _examples(one, places, known)
    except UserError as error:
        pairs = _declared(one)
        steps = None
        if pairs is not None or one.train.steps is not None:
            steps = build.optimization(one, num_pairs=pairs or 1).steps, one.train.batch_size
        return Budget(run.arm, base, pairs, None, steps, None, None, str(error).splitlines()[0], supervised)
    steps = build.optimization(one, num_pairs=pairs).steps, one.train.batch_size
    try:
        planned = planning.make_plan(_with_base_for_parts(one, places), limit_gib=None, rows=_ROWS)
    except UserError as error:
        return Budget(run.arm, base, pairs, prompts, steps, None, None, str(error).splitlines()[0], supervised)
    answers = planned.tokens["pair, prompt once (ours)"].mean - planned.tokens["prompt, image included"].mean
    num = steps[0] * steps[1]
    return Budget(
        run.arm, base, pairs, prompts, steps, round(num * answers), num * planned.shared.total, "", supervised
    )


def _with_base_for_parts(one: Recipe, places: Places) -> Recipe:
    """The recipe with its starting model in the place of models that the study has yet to make: they are as large."""
    made = str(places.store / "runs")

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return one.model.path if isinstance(value, str) and value.startswith(made) else value

    return Recipe.model_validate(filled(one.model_dump(mode="json")))


def _examples(one: Recipe, places: Places, known: dict[str, Any]) -> tuple[int, tuple[int, str]]:
    """How many examples there are, and their prompts."""
    uids: set[str] = set()
    num = 0
    for _, node in recipe.with_data(one.source):
        key = node.data.model_dump_json()
        if key not in known:
            folder = places.store / "planned" / hashlib.sha256(key.encode()).hexdigest()[:16]
            recipe.check_files(node.data)
            found = read(node.data, folder=folder)
            known[key] = len(found.pairs), {_prompt(pair.prompt) for pair in found.pairs}
            shutil.rmtree(folder, ignore_errors=True)
        num, uids = max(num, known[key][0]), uids | known[key][1]
    return num, (len(uids), hashlib.sha256("".join(sorted(uids)).encode()).hexdigest())


def _prompt(prompt: Any) -> str:
    told = [prompt.text, *(turn.text for turn in prompt.history), *(image_hash(ref) for ref in prompt.images)]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _declared(one: Recipe) -> int | None:
    """The size that the data's last step says, where the data is not here."""
    sizes = set()
    for _, node in recipe.with_data(one.source):
        takes = [step.num for step in node.data.then if isinstance(step, recipe.Take)]
        limit = getattr(node.data, "limit", None)
        sizes.add(takes[-1] if takes else limit)
    return sizes.pop() if len(sizes) == 1 else None
