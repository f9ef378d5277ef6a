"""Reading public layouts: rows a CPU second and memory of every reader, beside `datasets.load_dataset` on one file.

Each run is a process of its own with one thread, for Arrow too; rates are by its CPU time, since a shared machine's
clock tells who else was there, so writing the cache to the disk is not in them. Sides take turns; one that took less
than REPEAT_BELOW seconds runs three times, and its median run is told. `bare` finds the pictures, `decoded` decodes
each of the thousand once. `datasets` fills an empty cache (`load`) and walks over the rows (`walk`); `again` is
a second load of the file, without a walk. Memory is the most that was held less what was held after the imports, with
pages of mapped files (`peak`) and without (`own`): the system may take those pages back, and the cache of `datasets`
is mapped.
The sides do different work: a reader checks types, turns, placeholders, marks and pictures, and makes pairs (five to
six of a row of VLFeedback); `datasets` makes typed rows and checks nothing.

    python benchmarks/readers.py            # 100,000 rows a file, about half an hour, 2 GB of temporary files
    python benchmarks/readers.py --quick    # 5,000 rows
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from reader_files import LAYOUTS, Layout, write, write_pictures
from results import keep, table

REPEAT_BELOW = 6.0  # CPU seconds
SIDES = ("bare", "decoded", "datasets")
SIZES = ((160, 160), (640, 480))  # pixels


class Memory:
    """The most main memory this program holds inside a `with`, above what it held before, in MB (Linux).

    It looks every 10 ms. `peak`: resident; `own`: resident without pages of mapped files.
    """

    def __enter__(self) -> Self:
        self._before = _held()
        self.peak = self.own = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            now = _held()
            self.peak = max(self.peak, now["VmRSS"] - self._before["VmRSS"])
            self.own = max(self.own, now["RssAnon"] - self._before["RssAnon"])
            if self._done.wait(0.01):
                return


def read(kind: str, path: Path, images: Path | None, *, decode: bool) -> dict[str, Any]:
    """Walk over a reader's outcomes, keeping none."""
    from verisight.data.readers import open_data

    rows = pairs = faults = 0
    wall, cpu = time.perf_counter(), time.process_time()
    with Memory() as memory:
        for outcome in open_data(path, kind=kind, images=images, check_images=decode):
            rows += 1
            pairs += len(outcome.pairs)
            faults += sum(bad.fault for bad in outcome.bad)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert not faults, f"{faults} rows of {path} cannot be used"
    return {
        "rows": rows, "pairs": pairs, "wall_s": wall, "cpu_s": cpu, "peak_mb": memory.peak, "own_mb": memory.own
    }  # fmt: skip


def load(tool: str, path: Path) -> dict[str, Any]:
    """Load with `datasets` into an empty cache, walk over the rows, and load once more."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        wall, cpu = time.perf_counter(), time.process_time()
        with Memory() as memory:
            loaded = datasets.load_dataset(tool, data_files=str(path), split="train", cache_dir=cache)
            load_s = time.process_time() - cpu
            rows = sum(1 for _ in loaded)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        again_s = time.process_time()
        datasets.load_dataset(tool, data_files=str(path), split="train", cache_dir=cache)
        again_s = time.process_time() - again_s
    return {
        "rows": rows, "wall_s": wall, "cpu_s": cpu, "peak_mb": memory.peak, "own_mb": memory.own,
        "load_s": load_s, "walk_s": cpu - load_s, "again_s": again_s,
    }  # fmt: skip


def measure(layout: Layout, path: Path, images: Path, *, side: str) -> dict[str, Any]:
    """One side in a fresh process."""
    words = [sys.executable, __file__, "--side", side, "--kind", layout.kind, "--path", str(path)]
    words += ["--tool", layout.tool] if side == "datasets" else [] if layout.inside else ["--images", str(images)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} on {path.name}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(layout: Layout, path: Path, images: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of every side: one, or three in alternating order for those that are fast; the fastest first."""
    sides = [side for side in SIDES if layout.tool or side != "datasets"]
    found = {side: [measure(layout, path, images, side=side)] for side in sides}
    for order in (sides[::-1], sides):
        for side in order:
            if found[side][0]["cpu_s"] < REPEAT_BELOW:
                found[side].append(measure(layout, path, images, side=side))
    return {side: sorted(runs, key=lambda run: run["cpu_s"]) for side, runs in found.items()}


def compare(num: int) -> list[dict[str, Any]]:
    """A row for every layout and container, of the run of median time."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder / "pictures")
        for layout in LAYOUTS:
            path = folder / f"{layout.kind}.data"
            write(layout, path, pictures, num=num)
            found = take_turns(layout, path, folder / "pictures")
            row: dict[str, Any] = {"kind": layout.kind, "container": layout.container, "rows": num}
            row |= {"file_mb": path.stat().st_size / 1e6, "pairs": found["bare"][0]["pairs"]}
            for side in SIDES:
                runs = found.get(side, [])
                one = runs[len(runs) // 2] if runs else {}
                row[f"{side}_rows_per_s"] = one["rows"] / one["cpu_s"] if one else None
                row |= {f"{side}_{key}": one.get(key) for key in ("wall_s", "peak_mb", "own_mb")}
                row[f"{side}_runs"] = len(runs)
            row |= {f"datasets_{key}": one.get(key) for key in ("load_s", "walk_s", "again_s")}
            rows.append(row)
            path.unlink()
            print(json.dumps(row), flush=True)
    return rows


def per_picture(num: int = 300) -> list[dict[str, Any]]:
    """What a picture costs that no row has named before, in microseconds of one thread."""
    from verisight.data.pictures import Pictures

    rows = []
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            folder = Path(name) / str(size[0])
            encoded = write_pictures(folder, num=num, size=size)
            row: dict[str, Any] = {"pixels": f"{size[0]} x {size[1]}", "kb": sum(map(len, encoded)) / num / 1e3}
            for decode in (False, True):
                pictures, started = Pictures(folder, decode=decode), time.process_time()
                for file in folder.iterdir():
                    pictures.named(f"COCO_train2014_{file.name}")
                row["decoded_us" if decode else "found_us"] = (time.process_time() - started) / num * 1e6
            rows.append(row)
    return rows


def _held() -> dict[str, float]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) * 1024 / 1e6 for words in lines if words[0] in ("VmRSS:", "RssAnon:")}


def main() -> None:
    """Run all, print a table, put the figures into results.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--kind")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--tool")
    given = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if given.side == "datasets":
        print(json.dumps(load(given.tool, given.path)))
    elif given.side:
        print(json.dumps(read(given.kind, given.path, given.images, decode=given.side == "decoded")))
    else:
        rows = compare(5_000 if given.quick else 100_000)
        told = [f"{side}_{key}" for key in ("rows_per_s", "peak_mb", "own_mb") for side in SIDES]
        names = ("kind", "container", "rows", "file_mb", "pairs", *told)
        print(table("\nreaders", [{name: row[name] for name in names} for row in rows]))
        pictures = per_picture()
        print(table("\na picture that is new to the reader", pictures))
        if not given.quick:
            keep("readers", rows)
            keep("reader_pictures", pictures)


if __name__ == "__main__":
    main()
