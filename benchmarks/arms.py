"""Arms x seeds of the pocket world: what is missing is run, two at a time, and one table says what came of it.

An arm is a recipe with settings changed, {seed} in them being the seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verisight.data.files import read_json
from verisight.evaluate import chair, pope
from verisight.evaluate.paired import ScoredRun, read_scored
from verisight.evaluate.stats import seed_and_cluster_difference

Arms = Mapping[str, tuple[Path | str, ...]]  # name -> recipe, settings
COLUMNS = {
    "CHAIR_i": ("chair", "chair_i"),
    "CHAIR_s": ("chair", "chair_s"),
    "recall": ("chair", "recall"),
    "positions": ("chair", "position_accuracy"),
    "words": ("chair", "length_words"),
    "POPE F1": ("pope", "f1"),
    "adversarial": ("pope", "adversarial/f1"),
}
MEASURES = {"chair": chair.measures, "pope": pope.measures}
DATA, SETS = Path("runs/pocket-data"), Path("runs/pocket-sets")


def asked(description: str | None, arms: Arms, *, out: Path) -> argparse.Namespace:
    """The command line of a study."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="run nothing")
    return parser.parse_args()


def verisight(*arguments: str, log: Path) -> None:
    """Run the command line on one thread."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as handle:
        subprocess.run(
            [sys.executable, "-c", "from verisight.cli import main; main()", *arguments],
            check=True, stdout=handle, stderr=handle, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def prepare(out: Path, recipe: Path) -> None:
    """The data, once, and the starting model's answers to the recipe's benchmarks."""
    log = out / "logs" / "data.log"
    if not (DATA / "test" / "scenes.json").exists():
        verisight("pocket", "data", "--out", str(DATA), log=log)
    if not (SETS / "llava_instruct" / "preference" / "scenes.json").exists():
        verisight("pocket", "data", "--all", str(SETS), log=log)
    if not measured(out / "base" / "base"):
        verisight("eval", str(recipe), f"output={out / 'base'}", "--quiet", log=log)


def measured(folder: Path) -> bool:
    """Whether all of its evaluation is there."""
    summary = folder / "evaluate" / "summary.json"
    return summary.exists() and read_json(summary).keys() >= MEASURES.keys()


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Where an arm's run is."""
    return out / f"{arm}-{seed}"


def run_all(arms: Arms, args: argparse.Namespace) -> None:
    """Seed by seed, so that a run cut off leaves whole seeds."""
    missing = [(arm, seed) for seed in args.seeds for arm in args.arms]
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda one: _run(args.out, arms[one[0]], *one), missing))


def _run(out: Path, settings: tuple[Path | str, ...], arm: str, seed: int) -> None:
    folder = folder_of(out, arm, seed)
    if measured(folder):
        return
    told = [str(one).format(seed=seed) for one in settings]
    told += [f"seed={seed}", f"output={folder}", "--quiet"]
    started = time.monotonic()
    log = out / "logs" / f"{folder.name}.log"
    verisight("train", *told, log=log)
    verisight("eval", *told, log=log)
    print(f"{folder.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def table(out: Path, arms: list[str], seeds: list[int], *, base: Path) -> Iterator[str]:
    """Markdown: mean over seeds, and its 95 % interval over seeds and images as a difference to the base."""
    yield f"| arm | seeds | train, s | {' | '.join(COLUMNS)} |"
    yield f"|---|---|---|{'---|' * len(COLUMNS)}"
    start = {name: read_scored(base, name, measures=MEASURES[name]) for name in MEASURES}
    yield f"| base | | | {' | '.join(_value(start[name], metric) for name, metric in COLUMNS.values())} |"
    for arm in arms:
        done = [folder for seed in seeds if measured(folder := folder_of(out, arm, seed))]
        if not done:
            continue
        seconds = sum(float(read_json(folder / "summary.json")["seconds"]) for folder in done) / len(done)
        runs = {name: [read_scored(folder, name, measures=MEASURES[name]) for folder in done] for name in MEASURES}
        cells = [_change(start[name], runs[name], metric) for name, metric in COLUMNS.values()]
        yield f"| {arm} | {len(done)} | {seconds:.0f} | {' | '.join(cells)} |"


def _value(scored: ScoredRun, metric: str) -> str:
    measure = scored.measures[metric]
    sums = measure.counts.sum(axis=0)
    return f"{(100 if measure.fraction else 1) * float(measure.statistic(sums[None])[0]):.1f}"


def _change(base: ScoredRun, runs: list[ScoredRun], metric: str) -> str:
    measure = base.measures[metric]
    scale = 100 if measure.fraction else 1
    pooled = seed_and_cluster_difference(
        [base.measures[metric].counts] * len(runs), [run.measures[metric].counts for run in runs], base.clusters,
        statistic=measure.statistic, seed=0,
    )  # fmt: skip
    mean = sum(float(run.measures[metric].statistic(run.measures[metric].counts.sum(axis=0)[None])[0]) for run in runs)
    assert pooled.low is not None
    assert pooled.high is not None
    return f"{scale * mean / len(runs):.1f} ({scale * pooled.low:+.1f} to {scale * pooled.high:+.1f})"
