"""The demo over several seeds: each seed's change and the mean change, with intervals over seeds and images.

verisight demo --seed 0; verisight demo --seed 1; verisight demo --seed 2
python benchmarks/demo_seeds.py runs/demo-0 runs/demo-1 runs/demo-2
"""

from __future__ import annotations

import sys
from pathlib import Path

from verisight.evaluate import chair, pope
from verisight.evaluate.paired import compare, read_scored
from verisight.evaluate.stats import seed_and_cluster_difference

ARMS = ("bdhs_dpo", "sft")
METRICS = {
    "chair": ("chair_i", "chair_s", "recall", "position_accuracy", "typical_fraction", "length_words"),
    "pope": ("random/accuracy", "popular/accuracy", "adversarial/accuracy"),
}
MEASURES = {"chair": chair.measures, "pope": pope.measures}


def main(folders: list[Path]) -> None:
    """Print a Markdown table an arm: base, every seed with its own paired interval, and the mean over seeds."""
    for arm in ARMS:
        seeds = "".join(f" seed {i} |" for i in range(len(folders)))
        print(f"\n| {arm} | base |{seeds} mean change |\n|---|---|{'---|' * len(folders)}---|")
        tables = [compare(folder / "base", folder / arm) for folder in folders]
        for name, metrics in METRICS.items():
            base = [read_scored(folder / "base", name, measures=MEASURES[name]) for folder in folders]
            after = [read_scored(folder / arm, name, measures=MEASURES[name]) for folder in folders]
            for metric in metrics:
                measure = base[0].measures[metric]
                scale = 100 if measure.fraction else 1
                cells = [f"{scale * tables[0][name][metric]['a']:.1f}"]
                for table in tables:
                    row = table[name][metric]
                    cells.append(
                        f"{scale * row['b']:.1f} ({scale * row['value']:+.1f}: "
                        f"{scale * row['low']:+.1f} to {scale * row['high']:+.1f})"
                    )
                pooled = seed_and_cluster_difference(
                    [run.measures[metric].counts for run in base],
                    [run.measures[metric].counts for run in after],
                    base[0].clusters,
                    statistic=measure.statistic,
                    seed=0,
                )
                assert pooled.value is not None
                assert pooled.low is not None
                assert pooled.high is not None
                cells.append(f"{scale * pooled.value:+.1f} ({scale * pooled.low:+.1f} to {scale * pooled.high:+.1f})")
                print(f"| {metric} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
