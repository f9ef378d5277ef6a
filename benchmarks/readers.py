"""Reading public layouts: rows a second and peak memory of every reader, beside `datasets.load_dataset` on one file.

Each run is a process of its own, one thread; memory is its peak less what it held after its imports. `bare` finds the
pictures, `decoded` decodes each of the thousand once. `datasets` builds its cache from nothing and walks over the rows.
The sides do different work: a reader checks types, turns, placeholders, marks and pictures, and makes pairs (six of a
row of VLFeedback); `datasets` makes typed rows and checks nothing, and a second load of the same file is free.

    python benchmarks/readers.py            # 100,000 rows a file, about a quarter of an hour, 1 GB of temporary files
    python benchmarks/readers.py --quick    # 5,000 rows
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reader_files import LAYOUTS, Layout, write, write_pictures
from results import keep, table


def read(kind: str, path: Path, images: Path | None, *, decode: bool) -> dict[str, Any]:
    """Walk over a reader's outcomes, keeping none."""
    from verisight.data.readers import open_data

    before, started = _peak_mb(), time.perf_counter()
    reading = open_data(path, kind=kind, images=images, check_images=decode)
    rows = pairs = faults = 0
    for outcome in reading:
        rows += 1
        pairs += len(outcome.pairs)
        faults += sum(bad.fault for bad in outcome.bad)
    assert not faults, f"{faults} rows of {path} cannot be used"
    seconds = time.perf_counter() - started
    return {"rows": rows, "pairs": pairs, "seconds": seconds, "peak_mb": _peak_mb() - before}


def load(tool: str, path: Path) -> dict[str, Any]:
    """Load with `datasets` into an empty cache, and walk over the rows."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        before, started = _peak_mb(), time.perf_counter()
        rows = sum(1 for _ in datasets.load_dataset(tool, data_files=str(path), split="train", cache_dir=cache))
        seconds = time.perf_counter() - started
    return {"rows": rows, "seconds": seconds, "peak_mb": _peak_mb() - before}


def measure(layout: Layout, path: Path, images: Path, *, side: str) -> dict[str, Any]:
    """One side in a fresh process."""
    words = [sys.executable, __file__, "--side", side, "--kind", layout.kind, "--path", str(path)]
    words += ["--tool", layout.tool] if side == "datasets" else [] if layout.inside else ["--images", str(images)]
    one_thread = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=os.environ | one_thread, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} on {path.name}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(num: int) -> list[dict[str, Any]]:
    """A row for every layout and container: three sides, one after another."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder / "pictures")
        for layout in LAYOUTS:
            path = folder / f"{layout.kind}.data"
            write(layout, path, pictures, num=num)
            sides = ["bare", "decoded", *(["datasets"] if layout.tool else [])]
            found = {side: measure(layout, path, folder / "pictures", side=side) for side in sides}
            row: dict[str, Any] = {"kind": layout.kind, "container": layout.container, "rows": num}
            row |= {"file_mb": path.stat().st_size / 1e6, "pairs": found["bare"]["pairs"]}
            for side in ("bare", "decoded", "datasets"):
                one = found.get(side)
                row[f"{side}_rows_per_s"] = one["rows"] / one["seconds"] if one else None
                row[f"{side}_peak_mb"] = one["peak_mb"] if one else None
            rows.append(row)
            path.unlink()
            print(table("", [row]).splitlines()[-1], flush=True)
    return rows


def _peak_mb() -> float:
    """Most memory this program held so far (Linux; unlike getrusage it knows nothing of the parent's)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Run all, print a table, put the figures into results.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=("bare", "decoded", "datasets"))
    parser.add_argument("--kind")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--tool")
    given = parser.parse_args()
    if given.side == "datasets":
        print(json.dumps(load(given.tool, given.path)))
    elif given.side:
        print(json.dumps(read(given.kind, given.path, given.images, decode=given.side == "decoded")))
    else:
        rows = compare(5_000 if given.quick else 100_000)
        print(table("\nreaders", rows))
        if not given.quick:
            keep("readers", rows)


if __name__ == "__main__":
    main()
