"""What a study is: arms that change one recipe, seeds, what may differ between arms, and claims about the results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from verisight.recipe.base import Count, File, Node, NonNegative, OptionalFile, OptionalFolder, Seed, Switch, about
from verisight.recipe.chats import Annotator

BASE, CONTROL = "base", "sft_chosen"
Factor = Literal["base", "prompts", "pairs", "steps", "tokens"]
Changes = Annotated[
    dict[str, Any],
    about("dotted key of the recipe -> its value; $NAME is the model of that part, of the same seed"),
]
_EMPTY: Any = Field(default_factory=dict)
_WORDS = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Arm(Node):
    """A recipe with settings changed; or an annotator, which is asked and not trained."""

    recipe: Annotated[OptionalFile, about("recipe file; empty: the study's base")] = None
    change: Changes = _EMPTY
    label: Annotated[str, about("its name in tables; empty: its key")] = ""
    meaning: Annotated[str, about("what it is, in a line")] = ""
    annotator: Annotated[
        Annotator | None, about("who is asked about the study's pairs; nothing is trained then [paper table 10]")
    ] = None
    paper: Annotated[
        dict[str, float], about("the paper's figures for it, LLaVA-1.6-7B: column -> figure [paper section 7]")
    ] = _EMPTY

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.annotator is not None and (self.recipe is not None or self.change):
            return self.refuse(
                ["annotator: found with recipe or change, of which nothing is run; accepted: one of them"]
            )
        return self


class World(Node):
    """The pocket world's files that the recipes read: written when they are missing."""

    data: Annotated[OptionalFolder, about("test and preference splits, as `verisight pocket data --out` writes them")]
    sets: Annotated[OptionalFolder, about("re-enacted public sets, as `verisight pocket data --all` writes them")] = (
        None
    )


class Sweep(Node):
    """Arms along an axis: a figure instead of a list [paper figure 7]."""

    title: Annotated[str, about("what is drawn")]
    x_label: Annotated[str, about("name of the axis")]
    log_x: Annotated[Switch, about("the axis is logarithmic")] = False
    metric: Annotated[str, about("benchmark/metric that is drawn")]
    series: Annotated[dict[str, dict[str, float]], about("line -> arm -> where it stands on the axis")]


class Contrast(Node):
    """One comparison of a claim: an arm's metric less another arm's."""

    text: Annotated[str, about("what is compared, in words")]
    study: Annotated[_WORDS, about("study that has both arms")]
    arm: Annotated[str, about("the arm")]
    than: Annotated[str | float, about("the arm it is compared with, or a number, such as 0.5 for chance")]
    metric: Annotated[str, about("benchmark/metric")]
    expect: Annotated[
        Literal["higher", "lower", "no_worse", "same"],
        about("what the claim says of the difference; no_worse: at most `margin` on the bad side; same: on either"),
    ]
    margin: Annotated[NonNegative, about("difference that counts as none, in the metric's unit")] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.expect in ("no_worse", "same")) != (self.margin > 0):
            return self.refuse(
                [f"found expect {self.expect} with margin {self.margin}; accepted: a margin with no_worse or same"]
            )
        return self


class Claim(Node):
    """A claim about results. It holds where all its parts hold, and fails where one does."""

    text: Annotated[str, about("the claim")]
    parts: Annotated[tuple[Contrast, ...], Field(min_length=1), about("comparisons it stands on")]
    note: Annotated[str, about("what to know when reading the outcome")] = ""


class Claims(Node):
    """Claims as data: what has to be true of the results of studies."""

    title: Annotated[str, about("its heading")]
    studies: Annotated[dict[_WORDS, File], Field(min_length=1), about("name -> file of a study")]
    claims: Annotated[dict[str, Claim], Field(min_length=1), about("name -> claim, in order")]

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(
            [
                f"claims.{name}.parts.{number}.study: found {part.study}; accepted: {', '.join(self.studies)}"
                for name, claim in self.claims.items()
                for number, part in enumerate(claim.parts)
                if part.study not in self.studies
            ]
        )


class Study(Node):
    """Arms x seeds under one budget.

    Paths count from the file that names them, `output` too. Runs are kept in `store` by what made them; a run whose
    facts are in `facts` is not run again.
    """

    name: Annotated[_WORDS, about("what it is called in files and in other studies' claims")]
    title: Annotated[str, about("its heading")]
    meaning: Annotated[str, about("what it asks")] = ""
    base: Annotated[OptionalFile, about("the recipe that arms change")] = None
    output: Annotated[
        OptionalFolder, about("folder of results and reports, each study's in one of its name; empty: runs/studies")
    ] = None
    store: Annotated[OptionalFolder, about("folder of runs, shared by studies; empty: runs/store")] = None
    facts: Annotated[OptionalFolder, about("folder of what runs have shown; empty: `store`/facts")] = None
    world: Annotated[World | None, about("pocket world: files that are made if they are missing")] = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), about("seeds of every arm")] = (0, 1, 2)
    change: Changes = _EMPTY
    arms: Annotated[dict[_WORDS, Arm], Field(min_length=1), about("name -> arm")]
    parts: Annotated[dict[_WORDS, Arm], about("models that arms are made with: reward models, annotators")] = _EMPTY
    pairs: Annotated[
        dict[_WORDS, Arm], about("held-out pairs that reward models and annotators are asked about: name -> their data")
    ] = _EMPTY
    num_pairs: Annotated[Count, about("most pairs of each of them")] = 1000
    controls: Annotated[
        tuple[Literal["base", "sft_chosen"], ...],
        about("arms that are added: the starting model, and SFT on the chosen answers at equal budget"),
    ] = ("base", "sft_chosen")
    varies: Annotated[
        tuple[Factor, ...], about("what arms may differ in besides method; anything else is refused")
    ] = ()
    columns: Annotated[tuple[str, ...], about("benchmark/metric of the table; empty: what is known")] = ()
    scatter: Annotated[tuple[str, str] | None, about("benchmark/metric of a figure: made up, found")] = None
    sweeps: Annotated[tuple[Sweep, ...], about("figures over a setting")] = ()
    rounds: Annotated[Switch, about("draw the share of negatives resolved by round [paper figure 10]")] = False
    claims: Annotated[OptionalFile, about("file of claims; a report shows those that stand on this study")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        return self.refuse(list(_contradictions(self)))


def _changes(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "change", study.change
    for where, several in (("arms", study.arms), ("parts", study.parts), ("pairs", study.pairs)):
        yield from ((f"{where}.{name}.change", arm.change) for name, arm in several.items())


def _contradictions(study: Study) -> Iterator[str]:
    if len(set(study.seeds)) < len(study.seeds):
        yield f"seeds: found {list(study.seeds)}; accepted: each once"
    for name in {*study.arms, *study.parts} & {BASE, CONTROL}:
        yield f"arms.{name}: found the name of a control; accepted: another one"
    for where, changes in _changes(study):
        for key in ("seed", "output"):
            if key in changes:
                yield f"{where}.{key}: found in a study, which sets it; accepted: `seeds`, `store`"
    for where, several in (("arms", study.arms), ("parts", study.parts), ("pairs", study.pairs)):
        for name, arm in several.items():
            if arm.recipe is None and study.base is None and arm.annotator is None:
                yield f"{where}.{name}.recipe: found nothing, and the study has no base; accepted: one of them"
            if arm.annotator is not None and where != "arms":
                yield f"{where}.{name}.annotator: found one; accepted: in arms"
    if study.controls and study.base is None:
        yield f"controls: found {list(study.controls)} without base; accepted: empty, or a base recipe"
    if any(arm.annotator for arm in study.arms.values()) and not study.pairs:
        yield "pairs: found none with an annotator among the arms; accepted: pairs to ask about"
    known = {*study.arms, *study.controls}
    for number, sweep in enumerate(study.sweeps):
        for arm in (arm for points in sweep.series.values() for arm in points if arm not in known):
            yield f"sweeps.{number}.series: found the arm {arm}; accepted: {', '.join(sorted(known))}"
