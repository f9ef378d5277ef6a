"""Reading streams: memory does not grow with rows. And rated sets give exactly the pairs their rule promises."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from verisight.data.pairing import AllPairs, BestWorst, Margin, Rule
from verisight.data.readers import open_data

_ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
_WALK = """
import sys
from pathlib import Path
from verisight.data.readers import open_data
from verisight.data.store import store

path, use = Path(sys.argv[1]), sys.argv[2]
kind = "RssAnon" if use == "store" else "VmHWM"  # pages of a mapped file are the system's to take back

def held():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024

reading = open_data(path, text_only=True)
sum(1 for _ in zip(range(1000), reading))
before = held()
if use == "store":
    rows = store(path.with_suffix(".arrow"), (pair for outcome in reading for pair in outcome.pairs))
    num = len(rows)
    assert [rows[at].prompt.text for at in (0, num - 1)]
else:
    num = sum(len(outcome.pairs) + len(outcome.bad) for outcome in reading)
print(num, held() - before)
"""


def povid(number: int) -> dict[str, Any]:
    told = [{"from": "human", "value": f"What is in {number}?"}, {"from": "gpt", "value": "A " + "cat " * 30}]
    other = [told[0], {"from": "gpt", "value": "A " + "dog " * 30}]
    return {"id": number, "conversations": told, "rejected_conversations": other}


def written(path: Path, container: str, *, num: int) -> Path:
    if container == "Parquet":
        rows = (povid(number) for number in range(num))
        with pq.ParquetWriter(path, pa.Table.from_pylist([povid(0)]).schema) as writer:
            for _ in range(num // 2000):
                writer.write_table(pa.Table.from_pylist([next(rows) for _ in range(2000)]))
        return path
    with path.open("w") as handle:
        handle.write("[" if container == "JSON list" else "")
        for number in range(num):
            end = "\n" if container == "JSON lines" else ", " if number < num - 1 else "]"
            handle.write(json.dumps(povid(number)) + end)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("container", "use"), [("JSON list", "read"), ("JSON lines", "read"), ("Parquet", "read"), ("JSON lines", "store")]
)
def test_memory_does_not_grow_with_rows(tmp_path: Path, container: str, use: str) -> None:
    """200,000 rows (a JSON list of 70 MB is one line) take no more memory than a thousand do, but for a few MiB."""
    path = written(tmp_path / "rows.data", container, num=200_000)
    done = subprocess.run(
        [sys.executable, "-c", _WALK, str(path), use], capture_output=True, text=True, check=True
    )  # fmt: skip
    num, grown = done.stdout.split()
    assert int(num) == 200_000
    assert path.stat().st_size > 20e6 or container == "Parquet"
    assert float(grown) < (45 if use == "store" else 8)  # what Arrow keeps of its buffers does not grow with them


def rated(number: int, rng: random.Random) -> tuple[dict[str, Any], list[Fraction | None]]:
    """A row of VLFeedback, and the score of each answer as a fraction (None: one rating is no number)."""
    completions, scores = [], []
    for answer in range(4):
        ratings: list[str | None] = [str(rng.randint(1, 3)) for _ in _ASPECTS]
        if rng.random() < 0.05:
            ratings[rng.randrange(3)] = rng.choice(["N/A", "", None, "nan", "4/5"])
        known = [rating for rating in ratings if rating in ("1", "2", "3")]
        scores.append(Fraction(sum(map(int, known)), 3) if len(known) == 3 else None)
        told = {aspect: {"Rating": one, "Rationale": ""} for aspect, one in zip(_ASPECTS, ratings, strict=True)}
        completions.append({"model": f"m{answer}", "response": f"answer {answer} of {number}", "annotations": told})
    return {"id": "same", "prompt": "What?", "models": [], "completions": completions}, scores


def expected(scores: list[Fraction | None], rule: Rule) -> int:
    """Pairs of a row by the rule's definition."""
    gaps = [abs(a - b) for a, b in combinations(scores, 2) if a is not None and b is not None]
    match rule:
        case AllPairs():
            return sum(gap > 0 for gap in gaps)
        case Margin(least=least):
            return sum(gap >= Fraction(least).limit_denominator(3) for gap in gaps)
        case BestWorst():
            return int(max(gaps, default=0) > 0)


@pytest.mark.parametrize("rule", [AllPairs(), BestWorst(), Margin(1.0), Margin(5 / 3)])
def test_a_rule_gives_exactly_the_pairs_it_promises(tmp_path: Path, rule: Rule) -> None:
    rng = random.Random(7)
    rows = [rated(number, rng) for number in range(2000)]
    path = tmp_path / "vlfeedback_80k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row, _ in rows))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "same.jpg")
    reading = open_data(path, images=tmp_path / "images", rule=rule)
    for outcome, (_, scores) in zip(reading, rows, strict=True):
        assert len(outcome.pairs) == expected(scores, rule)
        assert all(not bad.fault for bad in outcome.bad)
        if not isinstance(rule, BestWorst):
            assert len(outcome.pairs) + len(outcome.bad) == 6
        for pair in outcome.pairs:
            better, worse = (scores[int(answer.text.split()[1])] for answer in pair.group.answers)
            assert better is not None
            assert worse is not None
            assert better > worse
            assert pair.notes["chosen_score"] == pytest.approx(float(better))
