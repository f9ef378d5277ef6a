"""From a study to its runs: what each is made of, what it needs first, and the key that what it shows is kept under."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verisight.recipe import (
    Arm,
    Averaged,
    Generated,
    Offline,
    Recipe,
    Reward,
    Sft,
    Study,
    compose,
    is_fixed,
    with_data,
)
from verisight.recipe.study import BASE, CONTROL
from verisight.types import UserError

_LENGTH = 16  # hex digits of a key


@dataclass(frozen=True, slots=True)
class Places:
    """Where a study keeps things."""

    store: Path
    facts: Path
    output: Path

    def run(self, key: str) -> Path:
        """Folder of a run."""
        return self.store / "runs" / key

    def model(self, key: str) -> Path:
        """The model that a run leaves."""
        return self.run(key) / "model"

    def pairs(self, key: str) -> Path:
        """Folder of pairs that runs share."""
        return self.store / "pairs" / key

    def lock(self, key: str) -> Path:
        """What is held while a run or pairs are made."""
        return self.store / "locks" / f"{key}.lock"

    def fact(self, key: str) -> Path:
        """Folder of what a run has shown."""
        return self.facts / key


@dataclass(frozen=True, slots=True)
class Run:
    """One arm and seed.

    `key` names what it is trained as, `fact` that and what it is measured on (None: a part, which is not measured);
    `needs` are keys of the parts whose models it reads, `pairs` the key of pairs made beforehand. An `untrained` run
    is the starting model, or an annotator.
    """

    arm: str
    seed: int
    recipe: Recipe | None
    key: str
    fact: str | None = None
    needs: tuple[str, ...] = ()
    pairs: str | None = None
    annotator: dict[str, Any] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)  # pairs it is asked about: name -> data node

    @property
    def untrained(self) -> bool:
        """Whether nothing is trained."""
        return self.arm == BASE or self.annotator is not None


def places_of(study: Study) -> Places:
    """Folders of a study; what it does not say counts from the working directory.

    Raises:
        UserError: one of them is a file.
    """
    store = study.store or Path("runs/store").absolute()
    found = Places(store, study.facts or store / "facts", study.output or Path("runs/studies").absolute())
    for key, folder in (("store", found.store), ("facts", found.facts), ("output", found.output)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{study.name}: {key}: found a file at {folder}; accepted: a folder")
    return found


def runs_of(study: Study, *, file: str) -> list[Run]:
    """Every run of a study, parts first, then seed by seed, so that a study cut off leaves whole seeds.

    Raises:
        UserError: an arm whose settings make no recipe, in the words of `file`.
    """
    places = places_of(study)
    asked = {name: _data_of(study, name, arm, file) for name, arm in study.pairs.items()}
    parts = {(name, seed): run for name, arm in study.parts.items() for seed in study.seeds
             if (run := _part(study, name, arm, seed, places, file))}  # fmt: skip
    found = list(parts.values())
    arms = ({BASE: Arm()} if BASE in study.controls else {}) | (
        {CONTROL: Arm()} if CONTROL in study.controls else {}
    ) | dict(study.arms)  # fmt: skip
    for seed in study.seeds:
        for name, arm in arms.items():
            run = _arm(study, name, arm, seed, places, file, parts=parts, asked=asked)
            if not run.untrained or seed == study.seeds[0]:
                found.append(run)
    _check_measured(found, places, file)
    return found


def _check_measured(runs: list[Run], places: Places, file: str) -> None:
    """Raises UserError where arms are measured in different ways: no study may declare that."""
    ways: dict[str, list[str]] = {}
    for run in runs:
        if run.recipe is not None and run.recipe.evaluate and run.fact is not None:
            way = content_key([node.model_dump(mode="json") for node in run.recipe.evaluate], places.store)
            ways.setdefault(way, []).append(run.arm)
    if len(ways) > 1:
        told = " | ".join(", ".join(dict.fromkeys(arms)) for arms in ways.values())
        raise UserError(f"{file}: evaluate: found arms that are measured differently ({told}); accepted: all alike")


def content_key(content: Any, store: Path) -> str:
    """A key of JSON values, paths in it counted from the store: the same in another clone."""
    text = json.dumps(portable_tree(content, store), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def portable_tree(value: Any, store: Path) -> Any:
    """JSON values with absolute paths counted from the store."""
    if isinstance(value, dict):
        return {key: portable_tree(part, store) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable_tree(part, store) for part in value]
    if isinstance(value, str) and os.path.isabs(value):
        return Path(os.path.relpath(value, store)).as_posix()
    return value


def _part(study: Study, name: str, arm: Arm, seed: int, places: Places, file: str) -> Run:
    one = composed(study, f"parts.{name}", arm, seed, file, models={})
    return _trained(Run(name, seed, one, ""), places)


def _arm(
    study: Study, name: str, arm: Arm, seed: int, places: Places, file: str, *,
    parts: Mapping[tuple[str, int], Run], asked: Mapping[str, Any],
) -> Run:  # fmt: skip
    if arm.annotator is not None:
        node = arm.annotator.model_dump(mode="json")
        key = content_key({"annotator": node, "asked": asked, "num": study.num_pairs, "seed": seed}, places.store)
        return Run(name, seed, None, key, key, annotator=node, asked=asked)
    models = {part: run.key for (part, at), run in parts.items() if at == seed}
    folders = {part: str(places.model(key)) for part, key in models.items()}
    one = composed(study, f"arms.{name}", arm, seed, file, models=folders)
    if name == CONTROL:
        one = control_of(one, file)
    used = tuple(
        models[part] for part in models if folders[part] in json.dumps(one.model_dump(mode="json"), ensure_ascii=False)
    )
    if isinstance(one.objective, Reward):
        if not asked:
            raise UserError(f"{file}: arms.{name}: found objective reward, with no `pairs` to ask it about")
        run = _trained(Run(name, seed, one, "", needs=used, asked=asked), places)
        return replace(run, fact=content_key([run.key, asked, study.num_pairs], places.store))
    if not one.evaluate:
        raise UserError(f"{file}: arms.{name}: found no benchmark in `evaluate`; accepted: at least one")
    measured = [node.model_dump(mode="json") for node in one.evaluate]
    if name == BASE:
        key = content_key({"start": one.model.model_dump(mode="json", include=_STARTING)}, places.store)
        return Run(name, seed, one, key, content_key([key, measured], places.store))
    run = _trained(Run(name, seed, one, "", needs=used), places)
    return replace(run, fact=content_key([run.key, measured], places.store))


_STARTING = {"path", "dtype", "trust_remote_code"}


def _trained(run: Run, places: Places) -> Run:
    """The run with its keys: what it is measured on is no part of what it is trained as."""
    assert run.recipe is not None
    content = run.recipe.model_dump(mode="json", exclude={"output", "evaluate"})
    beforehand = pairs_recipe(run.recipe, places)
    return replace(
        run,
        key=content_key(content, places.store),
        pairs=None if beforehand is None else beforehand.output.name,
    )


def pairs_recipe(one: Recipe, places: Places) -> Recipe | None:
    """What the pairs that a run makes before training are made by, in a folder of their own; None without such."""
    source = one.source
    if not isinstance(source, Generated | Averaged) or not is_fixed(source):
        return None
    model = one.model.model_dump(mode="json", include=_STARTING)
    tree = {
        "seed": one.seed, "model": model, "source": source.model_dump(mode="json"), "objective": {"kind": "dpo"},
        "train": {"steps": 1}, "max_bad_fraction": one.max_bad_fraction,
    }  # fmt: skip
    return Recipe.model_validate(tree | {"output": places.pairs(content_key(tree, places.store))})


def control_of(one: Recipe, file: str) -> Recipe:
    """SFT on the chosen answers of the recipe's data, everything else as it is."""
    sources = with_data(one.source)
    tree = one.model_dump(mode="json")
    data = sources[0][1].data.model_dump(mode="json")
    tree |= {"source": {"kind": "offline", "data": data}, "objective": Sft().model_dump(mode="json"), "diagnose": None}
    tree["train"] |= {"reference": "auto"}
    try:
        return Recipe.model_validate(tree)
    except ValueError as error:
        raise UserError(f"{file}: controls: no SFT control can be made of base: {error}") from error


def composed(study: Study, where: str, arm: Arm, seed: int, file: str, *, models: Mapping[str, str]) -> Recipe:
    """The recipe of an arm, a part or pairs. `models`: part -> what stands for its model."""
    path = arm.recipe or study.base
    assert path is not None, "the study was checked"
    every = (
        study.change if where.startswith(("arms.", "base.")) else {}
    )  # parts and pairs are what their own recipes say
    merged = {**every, **arm.change}
    changes = {key: _filled(value, models, f"{file}: {where}.change.{key}") for key, value in merged.items()}
    return compose(path, changes, source=f"{file}: {where}.change", output=Path("/nowhere"), seed=seed)


def _filled(value: Any, models: Mapping[str, str], where: str) -> Any:
    """The value with $NAME in the place of a path replaced by the model of that part."""
    if isinstance(value, dict):
        return {key: _filled(part, models, where) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, models, where) for part in value]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in models:
            raise UserError(f"{where}: found {value}; accepted: $ and a part: {', '.join(models) or 'there is none'}")
        return models[value[1:]]
    return value


def _data_of(study: Study, name: str, arm: Arm, file: str) -> dict[str, Any]:
    one = composed(study, f"pairs.{name}", arm, study.seeds[0], file, models={})
    if not isinstance(one.source, Offline):
        raise UserError(f"{file}: pairs.{name}: found a source of kind {one.source.kind}; accepted: offline")
    return one.source.data.model_dump(mode="json")


def shared(runs: list[Run]) -> Iterator[tuple[str, int]]:
    """Keys of pairs and parts that more than one run uses, and how many do."""
    used: dict[str, int] = {}
    for run in runs:
        for key in (*run.needs, *([run.pairs] if run.pairs else [])):
            used[key] = used.get(key, 0) + 1
    return ((key, num) for key, num in used.items() if num > 1)
