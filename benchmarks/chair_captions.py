"""CHAIR on many captions: captions a second and memory, official and corrected pipeline, and what the intervals cost.

    python benchmarks/chair_captions.py            # 100,000 captions, about three minutes on one core

Captions are drawn from a seeded word list: 12 to 17 sentences' worth of words, every eighth a word for an object, as
long as the answers that vision-language models give to "Please describe this image in detail."
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from verisight.evaluate import chair
from verisight.evaluate.chair_words import finder
from verisight.evaluate.objects import CATEGORIES, words_for
from verisight.evaluate.scorers import Files
from verisight.evaluate.stats import summarise
from verisight.evaluate.table import find_scorer
from verisight.study import scoring

_PLAIN = (
    "the a an of in on with and is are there at near next to left right side background large small white black green "
    "several few scene image shows wooden standing sitting placed around some other close view street room light sky "
    "grass wall floor window door red blue"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=100_000)
    num = parser.parse_args().num
    captions, truths, words = draw(num)
    print(f"{num:,} captions of {words:.0f} words\n")
    print("| step | seconds | captions/s | against corrected |\n|---|---|---|---|")
    seconds = {}
    rows = [
        {"uid": str(at), "cluster": str(at), "truth": {"objects": truth}, "answer": text}
        for at, (text, truth) in enumerate(zip(captions, truths, strict=True))
    ]
    for name in ("corrected", "official"):
        find = finder(name)
        find(captions[0])  # libraries are imported here
        seconds[name], scored = timed(partial(chair.score, rows, find=find))
        print(_line(f"{name}: find and count", seconds[name], num, seconds["corrected"]))
    clusters = [row["cluster"] for row in scored]
    took, _ = timed(partial(summarise, chair.measures(scored), clusters, seed=0))
    print(_line("intervals (2,000 resamples)", took, num, seconds["corrected"]))
    del rows, scored
    with tempfile.TemporaryDirectory() as folder:
        took = whole(Path(folder), captions, truths)
    print(_line("verisight score, official, files in and out", took, num, seconds["corrected"]))
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def draw(num: int) -> tuple[list[str], list[list[str]], float]:
    """Captions, the objects that are there, and how many words a caption has."""
    rng = np.random.default_rng(0)
    plain = _PLAIN.split()
    objects = [word for name in CATEGORIES for word in (name, *words_for(name))]
    captions, truths, total = [], [], 0
    for _ in range(num):
        length = int(rng.integers(60, 110))
        picked = rng.integers(0, len(plain), length)
        named = rng.integers(0, len(objects), length)
        words = [objects[n] if at % 8 == 7 else plain[p] for at, (p, n) in enumerate(zip(picked, named, strict=True))]
        for at in range(11, length, 12):
            words[at] += "."
        captions.append(" ".join(words))
        truths.append([str(name) for name in rng.choice(CATEGORIES, size=4, replace=False)])
        total += len(captions[-1].split())
    return captions, truths, total / num


def whole(folder: Path, captions: list[str], truths: list[list[str]]) -> float:
    """Seconds of the whole verb, from files to files."""
    (folder / "objects.json").write_text(json.dumps(dict(enumerate(truths))))
    with (folder / "captions.jsonl").open("w") as handle:
        handle.writelines(json.dumps({"image_id": at, "caption": text}) + "\n" for at, text in enumerate(captions))

    def run() -> None:
        files = Files(objects=folder / "objects.json")
        loaded = scoring.load(find_scorer("chair"), files, [folder / "captions.jsonl"])
        entry = scoring.score(loaded, folder=folder / "out")
        assert entry["num_items"] == len(captions), "every caption is scored"

    return timed(run)[0]


def timed(run):
    """Seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def _line(name: str, seconds: float, num: int, corrected: float) -> str:
    return f"| {name} | {seconds:.1f} | {num / seconds:,.0f} | {seconds / corrected:.2f} |"


if __name__ == "__main__":
    main()
