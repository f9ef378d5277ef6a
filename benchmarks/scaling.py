"""Training on two processes against one: the same work, alternating in one run, one thread a process.

python benchmarks/scaling.py recipes/pocket/direct/dpo_povid.yaml recipes/pocket/direct/online_dpo.yaml

Needs the files that the recipes read (`verisight pocket data --out runs/pocket-data`, `--all runs/pocket-sets`) and as
many free cores as processes. A step is what metrics.jsonl notes: drawing, scoring, backward, gradients, update. Of each
run the first steps are left out. Lost: the share of the processes' time that one process would not have needed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from verisight.data.files import read_jsonl

ROUNDS, STEPS, WARM = 3, 8, 2


def main() -> None:
    """Print a row a recipe."""
    print(f"{ROUNDS} alternating runs of {STEPS} steps of 16, {os.cpu_count()} cores")
    print("| recipe | 1 process, s/step | 2 processes, s/step | speed-up | lost |")
    print("|---|---|---|---|---|")
    for recipe in sys.argv[1:]:
        took: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(ROUNDS):
            for num in took:
                took[num].append(_seconds(recipe, num))
        one, two = (median(took[num]) for num in (1, 2))
        print(
            f"| {Path(recipe).stem} | {one:.2f} | {two:.2f} | {one / two:.2f} | {1 - one / (2 * two):.0%} |", flush=True
        )


def _seconds(recipe: str, num: int) -> float:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        words = [recipe, f"output={folder}/run", f"train.steps={STEPS}", "diagnose=null", "evaluate=[]", "--quiet"]
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num), "OMP_NUM_THREADS": "1"}
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "verisight", "train", *words], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, env=os.environ | place | {"RANK": str(at), "LOCAL_RANK": str(at)},
            )
            for at in range(num)
        ]  # fmt: skip
        told = [process.communicate()[1] for process in running]
        assert not any(process.returncode for process in running), told
        return median(row["seconds"] for row in read_jsonl(Path(folder) / "run" / "metrics.jsonl")[WARM:])


if __name__ == "__main__":
    main()
