"""What the studies of a folder cost: runs, how many of them several studies share, and where the time went.

python benchmarks/study_cost.py recipes/studies/pocket

From facts alone. Seconds are wall time of single runs on one thread, two at a time on two cores, other work beside
them; a run that was killed counts from its last start.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from verisight.recipe import load_study
from verisight.studies.arms import places_of, runs_of
from verisight.studies.facts import read_run
from verisight.studies.write import study_files


def main() -> None:
    """Print a row a study, and the sum."""
    seen: set[str] = set()
    pairs: set[str] = set()
    total: Counter[str] = Counter()
    print("| study | runs | of them made by an earlier row | missing | train, s | evaluate, s | pairs, s |")
    print("|---|---|---|---|---|---|---|")
    for file in study_files(Path(sys.argv[1])):
        study = load_study(file)
        places, spent, reused, missing = places_of(study), Counter[str](), 0, 0
        runs = [run for run in runs_of(study, file=str(file)) if run.fact is not None]
        for run in runs:
            folder = places.fact(run.fact or "")
            if not (folder / "run.json").exists():
                missing += 1
                continue
            reused += run.fact in seen
            if run.fact not in seen:
                seconds = dict(read_run(folder)["seconds"])
                if run.pairs in pairs:
                    seconds.pop("pairs", None)
                pairs |= {run.pairs} if run.pairs else set()
                spent.update(seconds)
            seen.add(run.fact or "")
        total.update(spent)
        cells = [
            study.name,
            len(runs),
            reused,
            missing,
            *(f"{spent[part]:,.0f}" for part in ("train", "evaluate", "pairs")),
        ]
        print(f"| {' | '.join(map(str, cells))} |")
    parts = " | ".join(f"{total[part]:,.0f}" for part in ("train", "evaluate", "pairs"))
    print(f"| all | {len(seen)} different | | | {parts} |")


if __name__ == "__main__":
    main()
