"""One DPO training step of a vision-language model: Verisight against TRL's `DPOTrainer`, CPU, one thread.

    python benchmarks/dpo_step.py [--quick] [--only llava-lora]

A step is everything from encoded picture files and texts to gradients (decoding, preprocessing, collation, policy,
reference, backward; no optimizer, which is the same for all). Sides, with equal weights, batches and float32:

    trl       TRL as a user runs it on a VLM: its collator, padded rows, live reference
    unpadded  its mathematics at its best: every row alone in plain Hugging Face calls, causal attention without a mask,
              the output layer for answer tokens only; live reference
    live      Verisight, live reference (adapter off, or a frozen copy)
    stored    Verisight, log-probs of the reference stored beforehand

Every step has pictures that no side has seen before. Losses of all sides are compared before and after the same noise
is added to all trained weights. CPU seconds are of alternating steps. FLOPs are `FlopCounterMode`'s plus attention by
torch's own formula, as a full square even where it is causal. Memory is the peak of a fresh process above what it held
when model and data were ready; `saved` counts the bytes kept for the backward pass, parameters left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tiny_llava
import torch
from dpo_sides import SIDES, Case, Side, open_side
from meters import gflop, peak_mb, resident_mb, saved_bytes
from results import keep

from verisight.types import Pair

TOLERANCE = 1e-4  # of losses, in nats
NOISE = 0.02
CASES = (
    Case("llava", True), Case("llava", False), Case("llava", True, True), Case("llava_next", True),
    Case("llava_next", False),
)  # fmt: skip
COSTS = ("cpu_seconds", "gflop", "peak_mb", "saved_mb")


def add_noise(side: Side) -> None:
    """Move the policy away from its reference, by the same amounts on every side."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in sorted(side.trained):
            weight = side.trained[name]
            weight += NOISE * torch.randn(weight.shape, generator=generator)


def clear(side: Side) -> None:
    """Forget gradients."""
    side.model.zero_grad(set_to_none=True)


def measure(case: Case, *, repeats: int) -> list[dict[str, Any]]:
    """Losses, FLOPs, kept bytes and CPU seconds of all sides of a case, in this process."""
    data = _data(case, num=repeats + 3)
    sides = {name: open_side(name, case, data) for name in SIDES}
    names = {frozenset(side.trained) for side in sides.values()}
    assert len(names) == 1, "the sides train different weights"
    start = {name: side.step(0) for name, side in sides.items()}
    for side in sides.values():
        add_noise(side)
        clear(side)
    rows = {}
    for name, side in sides.items():
        with saved_bytes(side.model) as sizes:
            loss = side.step(1)
        clear(side)
        rows[name] = {
            "case": case.name, "side": name, "loss": loss, "loss_at_start": start[name],
            "saved_mb": sum(sizes.values()) / 1e6, "gflop": gflop(lambda step=side.step: step(2)),
        }  # fmt: skip
        clear(side)
    for key in ("loss", "loss_at_start"):
        found = [row[key] for row in rows.values()]
        assert max(found) - min(found) < TOLERANCE, f"{case.name}: the sides do not agree on the {key}: {found}"
    assert abs(rows["trl"]["loss"] - math.log(2)) > 0.01, "the noise moved nothing"
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for k in range(3, 3 + repeats):
        for name, side in sides.items():
            started = time.process_time()
            side.step(k)
            seconds[name].append(time.process_time() - started)
            clear(side)
    for name, row in rows.items():
        row |= {"cpu_seconds": min(seconds[name]), "cpu_seconds_median": statistics.median(seconds[name])}
    return list(rows.values())


def _data(case: Case, *, num: int) -> list[list[Pair]]:
    return tiny_llava.batches(case.family, tiny_llava.build(case.family)[1].tokenizer, num=num)


def memory(case: Case, side: str) -> dict[str, float]:
    """Peak memory of two steps, in all and above what was held when model and data were ready. Once a process."""
    opened = open_side(side, case, _data(case, num=2))
    ready = resident_mb()
    for k in range(2):
        opened.step(k)
        clear(opened)
    return {"peak_mb": peak_mb() - ready, "total_mb": peak_mb()}


def memory_of_fresh_process(case: Case, side: str) -> dict[str, float]:
    """`memory`, in a process of its own, whose allocator gives large blocks back at once: no luck with gaps counted."""
    at_once = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
    command = [sys.executable, __file__, "--memory", case.name, side]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | at_once)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each peer costs, divided by what each of ours costs; of one case."""
    by_side = {row["side"]: row for row in rows}
    return [
        {"case": rows[0]["case"], "ours": ours, "peer": peer}
        | {cost: by_side[peer][cost] / by_side[ours][cost] for cost in COSTS}
        for ours in ("stored", "live")
        for peer in ("trl", "unpadded")
    ]


def show(rows: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """The table of one case."""
    print(f"\n{rows[0]['case']}: loss {rows[0]['loss']:.5f} on all sides")
    print(f"{'':<20}{'CPU s':>8}{'(median)':>10}{'GFLOP':>9}{'peak MB':>9}{'(total)':>9}{'saved MB':>10}")
    for row in rows:
        print(
            f"{row['side']:<20}{row['cpu_seconds']:>8.2f}{row['cpu_seconds_median']:>10.2f}{row['gflop']:>9.1f}"
            f"{row['peak_mb']:>9.0f}{row['total_mb']:>9.0f}{row['saved_mb']:>10.0f}"
        )
    for one in found:
        values = f"{one['cpu_seconds']:>7.2f}x{'':>10}{one['gflop']:>8.2f}x{one['peak_mb']:>8.2f}x"
        print(f"{one['peer'] + ' / ' + one['ours']:<20}{values}{'':>9}{one['saved_mb']:>9.2f}x", flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2 timed steps a side instead of 5")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], help="repeatable")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # names that transformers and TRL are about to change
    warnings.filterwarnings("ignore", ".*base_model_name_or_path.*renamed")
    if wanted.memory:
        [case] = [case for case in CASES if case.name == wanted.memory[0]]
        print(json.dumps(memory(case, wanted.memory[1])))
        return
    rows, found = [], []
    for case in CASES:
        if wanted.only and case.name not in wanted.only:
            continue
        measured = measure(case, repeats=2 if wanted.quick else 5)
        for row in measured:
            row |= memory_of_fresh_process(case, row["side"])
        rows += measured
        found += ratios(measured)
        show(measured, ratios(measured))
        keep("dpo_step", [*rows, *found])


if __name__ == "__main__":
    main()
