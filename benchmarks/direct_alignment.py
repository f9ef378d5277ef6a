"""Every way to align directly, side by side in the pocket world: arms x seeds, what is missing is run, then one table.

python benchmarks/direct_alignment.py                      # runs/direct, 3 seeds, two at a time on one thread each
python benchmarks/direct_alignment.py --table              # the table of what is there
python benchmarks/direct_alignment.py --arms bdhs_attn --seeds 0

An arm is a recipe of recipes/pocket/direct, or one with settings changed. All have the same prompts, chosen answers,
steps, batch and learning rate.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verisight.data.files import read_json
from verisight.evaluate import chair, pope
from verisight.evaluate.runner import ScoredRun, read_scored
from verisight.evaluate.stats import seed_and_cluster_difference

RECIPES = Path(__file__).parent.parent / "recipes" / "pocket" / "direct"
RHOS = (0.5, 0.7, 0.9, 0.95, 1.0)
ARMS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,)
        for name in (
            *("sft_chosen", "dpo_povid", "ipo_povid", "slic_povid", "online_dpo", "mixed_dpo"),
            *("bdhs_attn", "bdhs_attn_online", "bdhs_noise", "povid_distortion"),
            *("averaged_bdhs", "averaged_distortion", "free_masking"),
        )
    },
    "ipo_povid_sum": ("ipo_povid", "objective.over=sum", "objective.tau=0.05"),
    "bdhs_eps_0.92": ("bdhs_attn", "source.negatives.check.eps=0.92"),
    **{f"bdhs_rho_{rho}": ("bdhs_attn", f"source.negatives.view.rho={rho}") for rho in RHOS},
}
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


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/direct"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    if not asked.table:
        _prepare(asked.out)
        _run_all(asked)
    print("\n".join(_table(asked.out, asked.arms, asked.seeds)))


def _verisight(*arguments: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as handle:
        subprocess.run(
            [sys.executable, "-c", "from verisight.cli import main; main()", *arguments],
            check=True, stdout=handle, stderr=handle, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def _prepare(out: Path) -> None:
    """The data, once, and the starting model's answers."""
    log = out / "logs" / "data.log"
    if not (DATA / "test" / "scenes.json").exists():
        _verisight("pocket", "data", "--out", str(DATA), log=log)
    if not (SETS / "llava_instruct" / "preference" / "scenes.json").exists():
        _verisight("pocket", "data", "--all", str(SETS), log=log)
    if not _measured(out / "base" / "base"):
        _verisight("eval", str(RECIPES / "dpo_povid.yaml"), f"output={out / 'base'}", "--quiet", log=log)


def _measured(folder: Path) -> bool:
    return (folder / "evaluate" / "summary.json").exists()


def _folder(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm}-{seed}"


def _run_all(asked: argparse.Namespace) -> None:
    """Seed by seed, so that a run cut off leaves whole seeds."""
    missing = [(arm, seed) for seed in asked.seeds for arm in asked.arms]
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda one: _run(asked.out, *one), missing))


def _run(out: Path, arm: str, seed: int) -> None:
    folder = _folder(out, arm, seed)
    if _measured(folder):
        return
    recipe, *changed = ARMS[arm]
    settings = [str(RECIPES / f"{recipe}.yaml"), *changed, f"seed={seed}", f"output={folder}", "--quiet"]
    started = time.monotonic()
    log = out / "logs" / f"{folder.name}.log"
    _verisight("train", *settings, log=log)
    _verisight("eval", *settings, log=log)
    print(f"{folder.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def _table(out: Path, arms: list[str], seeds: list[int]) -> Iterator[str]:
    """Markdown: mean over seeds, and its 95 % interval over seeds and images as a difference to the base."""
    yield f"| arm | seeds | train, s | {' | '.join(COLUMNS)} |"
    yield f"|---|---|---|{'---|' * len(COLUMNS)}"
    base = {name: read_scored(out / "base" / "base", name, measures=MEASURES[name]) for name in MEASURES}
    yield f"| base | | | {' | '.join(_value(base[name], metric) for name, metric in COLUMNS.values())} |"
    for arm in arms:
        done = [folder for seed in seeds if _measured(folder := _folder(out, arm, seed))]
        if not done:
            continue
        seconds = sum(float(read_json(folder / "summary.json")["seconds"]) for folder in done) / len(done)
        runs = {name: [read_scored(folder, name, measures=MEASURES[name]) for folder in done] for name in MEASURES}
        cells = [_change(base[name], runs[name], metric) for name, metric in COLUMNS.values()]
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


if __name__ == "__main__":
    main()
