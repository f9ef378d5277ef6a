"""GroundedBench against itself: two parallel forms, the same form twice, split halves, and what it can tell apart.

    python benchmarks/grounded_reliability.py runs/grounded    # about an hour on one core; goes on where it was killed

Models: the pocket world's base, and supervised training (SFT) and BDHS-DPO of the recipes in recipes/pocket stopped
after different numbers of steps, so that they differ by little and by much. Each answers form A and form B (seeds 0
and 1, 208 scenes each) greedily, and form A twice more by sampling (temperature 1).
"""

from __future__ import annotations

import sys
from pathlib import Path

from verisight import build, recipe
from verisight.data.files import read_jsonl
from verisight.evaluate.grounded import Grounded, measures
from verisight.evaluate.reliability import consistency, needed, retest, split_half
from verisight.evaluate.runner import run_benchmark
from verisight.pocket.datasets import write_split
from verisight.pocket.grounded import write_form
from verisight.study.run import train

RECIPES = Path(__file__).parents[1] / "recipes" / "pocket"
ARMS = {
    "base": (None, 0),
    "SFT, 10 steps": ("sft", 10),
    "SFT, 40 steps": ("sft", 40),
    "SFT, 120 steps": ("sft", 120),
    "BDHS-DPO, 10 steps": ("bdhs_dpo", 10),
    "BDHS-DPO, 40 steps": ("bdhs_dpo", 40),
    "BDHS-DPO, 120 steps": ("bdhs_dpo", 120),
}
METRICS = (
    "f05", "precision", "recall", "hallucination_rate", "easy/f05", "object/typical_accuracy", "object/random_accuracy",
    "pair_accuracy", "seeing",
)  # fmt: skip
NUM = 208
DIFFERENCES = (0.01, 0.02, 0.05)


def main(folder: Path) -> None:
    """Answer what isn't answered yet, then print the tables."""
    forms = {name: folder / f"form-{name}" for name in "AB"}
    for seed, path in enumerate(forms.values()):
        if not path.exists():
            write_form(path, seed=seed, num=NUM)
    data = folder / "data"
    if not (data / "preference").exists():
        write_split(data, "preference", num=600)
    runs = {}
    for name in ARMS:
        runs[name] = measured(name, folder, forms)
        print(f"{name}: answered", file=sys.stderr, flush=True)
    values = {name: {key: _values(rows) for key, rows in found.items()} for name, found in runs.items()}
    print(f"| {NUM} scenes, form A | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for name, found in values.items():
        print(f"| {name} | {' | '.join(_number(found['A'][metric]) for metric in METRICS)} |")
    _print_consistency(runs, values)
    _print_needed(runs)


def measured(name: str, folder: Path, forms: dict[str, Path]) -> dict[str, list[dict]]:
    """A model's scored rows: A, B, and A sampled twice."""
    model = _model(name, folder)
    policy = None
    found = {}
    for key, form, temperature, seed in (
        ("A", "A", 0.0, 0),
        ("B", "B", 0.0, 0),
        ("A1", "A", 1.0, 1),
        ("A2", "A", 1.0, 2),
    ):
        target = folder / "answers" / name / key
        if not (target / "evaluate" / "summary.json").exists():
            policy = policy or build.open_model(model)
            benchmark = Grounded(folder=forms[form], temperature=temperature)
            run_benchmark(policy, benchmark, folder=target, batch_size=64, seed=seed * 1_000_000)
        found[key] = list(read_jsonl(target / "evaluate" / "grounded.jsonl"))
    return found


def _model(name: str, folder: Path) -> recipe.Model:
    kind, steps = ARMS[name]
    if kind is None:
        return recipe.Model(path="pocket")
    data = folder / "data" / "preference"
    loaded = recipe.load(
        RECIPES / f"{kind}.yaml",
        [
            f"output={folder / 'runs' / name.replace(', ', '-').replace(' ', '-')}", f"train.steps={steps}",
            f"source.data.file={data / 'llava_instruct.json'}", f"source.data.images={data / 'images'}", "evaluate=[]",
        ],
    )  # fmt: skip
    return loaded.model.model_copy(update={"path": str(train(loaded, quiet=True))})


def _print_consistency(runs: dict, values: dict) -> None:
    print("\n| metric | forms A, B: r [95 %] | rank r | mean difference | sampled twice: r | split halves |")
    print("|---|---|---|---|---|---|")
    for metric in METRICS:
        a, b, one, two = ([found[key][metric] for found in values.values()] for key in ("A", "B", "A1", "A2"))
        forms, again = consistency(a, b), consistency(one, two)
        half = split_half([found["A"] for found in runs.values()], measures=measures, metric=metric)
        interval = "" if forms.low is None else f" [{forms.low:.2f}, {forms.high:.2f}]"
        cells = [
            f"{_number(forms.pearson)}{interval}",
            _number(forms.spearman),
            f"{forms.mean_absolute_difference:.3f}",
        ]
        print(f"| {metric} | {' | '.join(cells)} | {_number(again.pearson)} | {_number(half)} |")
    print("\n| sampled twice | items | same verdict | kappa |\n|---|---|---|---|")
    for name, found in runs.items():
        told = retest(found["A1"], found["A2"])
        print(f"| {name} | {told['num_items']} | {_number(told['agreed_fraction'])} | {_number(told['kappa'])} |")


def _print_needed(runs: dict) -> None:
    a, b = runs["BDHS-DPO, 40 steps"]["A"], runs["BDHS-DPO, 120 steps"]["A"]
    head = " | ".join(f"scenes for {difference}" for difference in DIFFERENCES)
    print(f"\n| 40 against 120 steps of BDHS-DPO | {NUM} scenes find | {head} |\n|---|---|{'---|' * len(DIFFERENCES)}")
    for metric in METRICS:
        found = needed(a, b, measures=measures, metric=metric, differences=DIFFERENCES)
        cells = " | ".join(f"{found['needed'][difference]:,}" for difference in DIFFERENCES)
        print(f"| {metric} | {found['detectable']:.3f} | {cells} |")


def _values(rows: list[dict]) -> dict[str, float]:
    return {
        name: float(one.statistic(one.counts.sum(0, keepdims=True))[0])
        for name, one in measures(rows).items()
        if name in METRICS
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
