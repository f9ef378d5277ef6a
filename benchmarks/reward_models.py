"""The paper's table 7 in the pocket world: reward models by what they are trained on, checked on what none has seen.

python benchmarks/reward_models.py             # runs/reward: what is missing is trained and checked; then the tables
python benchmarks/reward_models.py --table     # the tables of what is there

Every recipe of recipes/pocket/reward is trained once a seed, on the same budget, and checked on all held-out pairs of
every set: with the picture, without, and with that of another pair. A picture that a recipe trains on and a set holds
out ends the benchmark before the first step.

Intervals are 95 % and hold two spreads (`evaluate.stats.seed_and_cluster_difference`): whole pictures are resampled,
the same for all seeds of a cell, and the seeds' own spread is added as Student t with seeds - 1 degrees of freedom,
because resampling three seeds understates it. Differences are of models of one seed on the same pairs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from arms import verisight

from verisight import recipe
from verisight.build.data import read
from verisight.data.files import read_jsonl
from verisight.data.images import image_hash
from verisight.evaluate.stats import Counts, Measure, seed_and_cluster_difference
from verisight.study.rewarding import measures

RECIPES = Path(__file__).parent.parent / "recipes" / "pocket" / "reward"
TRAINED_ON = ("povid", "rlhf_v", "povid_rlhf_v", "vlfeedback")
SETS = ("povid", "rlhf_v", "vlfeedback")
HELD_OUT = "source.data.then.0.split.part=held_out"
BLIND = {"accuracy_no_image": "no picture", "accuracy_swapped": "other picture", "image_gain": "gain"}
DATA = Path("runs/pocket-sets")
ALL = 1_000_000  # more pairs than any set has


class Checked(NamedTuple):
    """One model on one set: what every pair counts, and the picture it belongs to."""

    measures: dict[str, Measure]
    pictures: list[str]


Runs = dict[int, Checked]  # by seed


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/reward"))
    parser.add_argument("--trained-on", nargs="+", choices=TRAINED_ON, default=list(TRAINED_ON))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    if not asked.table:
        _prepare(asked.out)
        for seed in asked.seeds:
            for name in asked.trained_on:
                _train(asked.out, name, seed)
            _check(asked.out, [f"{name}-{seed}" for name in asked.trained_on])
    print("\n".join(_tables(asked.out, asked.trained_on, asked.seeds)))


def _prepare(out: Path) -> None:
    """The data and the held-out pairs of every set, once."""
    log = out / "logs" / "data.log"
    if not (DATA / "vlfeedback" / "vlfeedback_80k.jsonl").exists():
        verisight("pocket", "data", "--all", str(DATA), log=log)
    _check_split(out)
    for name in SETS:
        if not _held_out(out, name).exists():
            folder = _held_out(out, name).parent
            verisight("pairs", str(RECIPES / f"{name}.yaml"), HELD_OUT, f"output={folder}", "--quiet", log=log)


def _check_split(out: Path) -> None:
    held = {name: _pictures(out, name, HELD_OUT) for name in SETS}
    for trained_on in TRAINED_ON:
        seen = _pictures(out, trained_on)
        for name, pictures in held.items():
            assert not seen & pictures, f"{trained_on} trains on {len(seen & pictures)} held-out pictures of {name}"


def _pictures(out: Path, name: str, *changed: str) -> set[str]:
    """The pictures that a recipe's pairs show, each by what its file holds."""
    source = recipe.load(RECIPES / f"{name}.yaml", changed).source
    assert isinstance(source, recipe.Offline)
    return {image_hash(ref) for pair in read(source.data, folder=out / "rows").pairs for ref in pair.prompt.images}


def _held_out(out: Path, name: str) -> Path:
    return out / "held-out" / name / "pairs.parquet"


def _train(out: Path, name: str, seed: int) -> None:
    """One run; one that was cut off continues, one that is whole is left as it is."""
    folder = out / f"{name}-{seed}"
    if (folder / "summary.json").exists():
        return
    started = time.monotonic()
    verisight(
        "train", str(RECIPES / f"{name}.yaml"), f"seed={seed}", f"output={folder}", "--quiet",
        log=out / "logs" / f"{folder.name}.log",
    )  # fmt: skip
    print(f"{folder.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _check(out: Path, models: list[str]) -> None:
    for name in SETS:
        missing = [model for model in models if not _rows(out, model, name).exists()]
        if missing:
            paths = [word for model in missing for word in ("--model", str(out / model / "model"))]
            verisight(
                "reward", "check", str(_held_out(out, name)), "--name", name, "--num", str(ALL), *paths,
                "--out", str(out / "check"), "--quiet", log=out / "logs" / "check.log",
            )  # fmt: skip


def _rows(out: Path, model: str, name: str) -> Path:
    return out / "check" / f"{model}-on-{name}.jsonl".replace("_", "-")


def _tables(out: Path, names: list[str], seeds: list[int]) -> Iterator[str]:
    """Markdown: accuracies, what they are without the picture, and differences between models."""
    found = {(name, held): _read(out, name, held, seeds) for name in names for held in SETS}
    heads = [f"{held} ({_size(found, held)})" for held in SETS]
    yield f"| trained on | seeds | {' | '.join(heads)} |"
    yield f"|---|---|{'---|' * len(SETS)}"
    for name in names:
        num = min(len(found[name, held]) for held in SETS)
        yield f"| {name} | {num} | {' | '.join(_cell(found[name, held], 'accuracy') for held in SETS)} |"
    yield ""
    yield f"| trained on | set | {' | '.join(BLIND.values())} |"
    yield f"|---|---|{'---|' * len(BLIND)}"
    for name in names:
        for held in SETS:
            yield f"| {name} | {held} | {' | '.join(_cell(found[name, held], metric) for metric in BLIND)} |"
    yield ""
    yield f"| difference of accuracy | {' | '.join(SETS)} |"
    yield f"|---|{'---|' * len(SETS)}"
    for two, one in combinations(sorted(names, key=len, reverse=True), 2):
        cells = [_difference(found[one, held], found[two, held]) for held in SETS]
        yield f"| {two} less {one} | {' | '.join(cells)} |"


def _read(out: Path, name: str, held: str, seeds: list[int]) -> Runs:
    paths = {seed: path for seed in seeds if (path := _rows(out, f"{name}-{seed}", held)).exists()}
    rows = {seed: read_jsonl(path) for seed, path in paths.items()}
    return {seed: Checked(measures(one), [row["cluster"] for row in one]) for seed, one in rows.items()}


def _size(found: dict[tuple[str, str], Runs], held: str) -> str:
    pictures = next((run.pictures for (_, other), runs in found.items() if other == held for run in runs.values()), [])
    return f"{len(pictures)} pairs, {len(set(pictures))} pictures"


def _cell(runs: Runs, metric: str) -> str:
    """A mean over seeds. Its interval is that of the difference to a model that is never right."""
    counts = [run.measures[metric].counts for run in runs.values()]
    never = [one * [0, 1] for one in counts]
    return _text(never, counts, list(runs.values()), lowest=-1.0 if metric == "image_gain" else 0.0, sign="")


def _difference(a: Runs, b: Runs) -> str:
    """Mean over the seeds that both have."""
    both = [seed for seed in a if seed in b]
    old, new = ([runs[seed].measures["accuracy"].counts for seed in both] for runs in (a, b))
    return _text(old, new, [runs[seed] for runs in (a, b) for seed in both], lowest=-1.0, sign="+")


def _text(a: list[Counts], b: list[Counts], runs: list[Checked], *, lowest: float, sign: str) -> str:
    """Percent. Student t knows no bounds: an interval ends where the figure does."""
    if not runs:
        return "-"
    pictures = runs[0].pictures
    assert all(run.pictures == pictures for run in runs), "checked on the same pairs"
    found = seed_and_cluster_difference(a, b, pictures, seed=0, num_resamples=10_000)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    low, high = np.clip([found.low, found.high], lowest, 1.0)
    return f"{100 * found.value:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


if __name__ == "__main__":
    main()
