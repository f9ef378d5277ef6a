"""What of a run is kept to look at: answers to the same pictures in every run, some pairs, thinned curves."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from verisight.data.files import write_atomic
from verisight.data.images import ImageError
from verisight.study.pairs_notes import told_of
from verisight.train.tracking import flatten
from verisight.types import ImageRef, Pair

NUM_ANSWERS = 32
NUM_PAIRS = 12
_POINTS = 40  # of a curve
_CURVES = {  # key of metrics.jsonl -> unit
    "loss": "loss", "margin_mean": "nats", "accuracy": "share", "chosen_logratio_sum": "nats",
    "rejected_logratio_sum": "nats", "reward": "reward", "kl_sum": "nats", "answer_tokens": "tokens",
    "samples/kl_sum": "nats", "samples/words": "words", "samples/gold_reward": "deviations",
    "samples/train_reward": "deviations",
}  # fmt: skip


def answer_samples(rows: Sequence[dict[str, Any]], pictures: Path) -> list[dict[str, Any]]:
    """Answers to the pictures whose ids hash lowest: the same ones in every run. Keeps their pictures."""
    drawn = sorted(rows, key=lambda row: _rank(row["uid"]))[:NUM_ANSWERS]
    return [
        {
            "uid": row["uid"], "picture": keep_picture(ImageRef(path=Path(row["image"])), pictures),
            "question": row["question"], "objects": list(row["truth"]["objects"]), "answer": row["answer"],
            "mentions": json.dumps([[m["start"], m["end"], m["hallucinated"]] for m in row["mentions"]]),
        }
        for row in drawn
    ]  # fmt: skip


def pair_samples(pairs: Iterable[Pair], pictures: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Some pairs, those whose ids hash lowest, and counts over all: origins, rounds."""
    kept: list[tuple[str, Pair]] = []
    origins, rounds = Counter[str](), Counter[str]()
    for pair in pairs:
        origins[pair.origin] += 1
        told, _ = told_of(pair)
        if 0 in told:
            rounds[str(told[0].round) if told[0].guided else "free"] += 1
        if pair.rejected and pair.prompt.images:
            kept.append((_rank(pair.prompt.uid), pair))
        if len(kept) > 4 * NUM_PAIRS:
            kept = sorted(kept, key=lambda one: one[0])[:NUM_PAIRS]
    drawn = [pair for _, pair in sorted(kept, key=lambda one: one[0])[:NUM_PAIRS]]
    counts = {"num": sum(origins.values()), "origins": dict(origins), "rounds": dict(rounds)}
    return [_pair(pair, pictures) for pair in drawn], counts


def curves(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Quantity -> unit, steps, values: at most 40 points, each the mean of neighbouring steps."""
    found = {}
    for key, unit in _CURVES.items():
        split = "probe" if key.startswith("samples/") else "train"
        known = [
            (row["step"], float(flat[key]))
            for row in rows
            if row.get("split", "train") == split and isinstance((flat := flatten(row)).get(key), int | float)
            and math.isfinite(flat[key])
        ]  # fmt: skip
        if known:
            size = math.ceil(len(known) / _POINTS)
            groups = [known[at : at + size] for at in range(0, len(known), size)]
            found[key] = {
                "unit": unit,
                "steps": [group[-1][0] for group in groups],
                "values": [float(f"{sum(value for _, value in group) / len(group):.4g}") for group in groups],
            }
    return found


def keep_picture(ref: ImageRef, pictures: Path) -> str:
    """Put a picture's bytes among the facts; returns its key, "" where it cannot be read."""
    try:
        content = ref.data or (ref.path.read_bytes() if ref.path is not None and ref.member is None else b"")
    except (OSError, ImageError):
        content = b""
    if not content:
        return ""
    key = hashlib.sha256(content).hexdigest()[:16]
    if not (pictures / key).exists():
        write_atomic(pictures / key, content)
    return key


def _pair(pair: Pair, pictures: Path) -> dict[str, Any]:
    told, _ = told_of(pair)
    made = told.get(0)
    notes = {} if made is None else {
        "round": str(made.round), "guidance": made.guidance,
        "similarity": "" if made.similarity is None else f"{made.similarity:.2f}",
    }  # fmt: skip
    return {
        "uid": pair.prompt.uid, "kind": pair.origin, "picture": keep_picture(pair.prompt.images[0], pictures),
        "question": pair.prompt.text, "chosen": pair.chosen.text, "rejected": pair.rejected[0].text,
        "written": json.dumps(list(made.written or ()) if made is not None else []), "notes": json.dumps(notes),
    }  # fmt: skip


def _rank(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()
