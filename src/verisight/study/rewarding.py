"""How far a reward model can be trusted: pairs whose better answer is known, seen and blindly (the paper's table 7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from verisight.data.files import read_json, write_json, write_jsonl
from verisight.evaluate.stats import Measure, ratio_measure, summarise
from verisight.models.reward import RewardModel
from verisight.progress import Advance
from verisight.study.calibration import Bin, calibration, calibration_error, right
from verisight.train.diagnose import shown
from verisight.types import Pair

VIEWS = ("seen", "no_image", "swapped")


class RewardCheck(NamedTuple):
    """What a check found: metrics with intervals (see `measures`), calibration, one row a pair."""

    metrics: dict[str, dict[str, Any]]
    calibration: list[Bin]
    rows: list[dict[str, Any]]


def check(
    model: RewardModel, pairs: Sequence[Pair], *, seed: int = 0, batch_size: int = 16,
    advance: Advance = lambda amount=1, note="": None,
) -> RewardCheck:  # fmt: skip
    """Rewards of both answers of every pair, the picture seen, taken away, and that of another pair.

    Of several rejected answers the first is compared. Pairs without pictures are seen only; `advance` gets pairs.
    """
    found: list[dict[str, Any]] = [{"uid": pair.prompt.uid, "cluster": _cluster(pair)} for pair in pairs]
    for view, some in shown(pairs, seed=seed).items():
        indices = list(some)
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            groups = [replace_rejected(some[index]).group for index in batch]
            with torch.inference_mode():
                rewards = model.rewards(groups).view(-1, 2).tolist()
            for index, (chosen, rejected) in zip(batch, rewards, strict=True):
                found[index][view] = {"chosen": chosen, "rejected": rejected}
            if view == VIEWS[0]:
                advance(len(batch))
    clusters = [row["cluster"] for row in found]
    bins = calibration([margin(row, VIEWS[0]) for row in found], clusters, seed=seed)
    return RewardCheck(summarise(measures(found), clusters, seed=seed), bins, found)


def replace_rejected(pair: Pair) -> Pair:
    """The pair with its first rejected answer alone."""
    return Pair(pair.prompt, pair.chosen, pair.rejected[:1], (1.0,), pair.origin, pair.notes)


def margin(row: dict[str, Any], view: str) -> float:
    """Reward of the chosen answer less that of the rejected one."""
    return float(row[view]["chosen"] - row[view]["rejected"])


def measures(rows: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """accuracy: pairs whose chosen answer has the larger reward, equal ones counting half.

    accuracy_no_image, accuracy_swapped: the same with the picture taken away, or that of another pair in its place,
    over the pairs that can be shown so; image_gain: accuracy less accuracy_swapped on those, 0 for a blind model.
    """

    def counts(view: str) -> list[float]:
        return [right(margin(row, view)) if view in row else 0.0 for row in rows]

    there = {view: [float(view in row) for row in rows] for view in VIEWS}
    gain = [(s - o) * t for s, o, t in zip(counts("seen"), counts("swapped"), there["swapped"], strict=True)]
    return {
        "accuracy": ratio_measure(counts("seen"), there["seen"], better="higher"),
        "accuracy_no_image": ratio_measure(counts("no_image"), there["no_image"], better="neutral"),
        "accuracy_swapped": ratio_measure(counts("swapped"), there["swapped"], better="neutral"),
        "image_gain": ratio_measure(gain, there["swapped"], better="higher", fraction=False),
    }


def write_check(folder: Path, found: RewardCheck, *, model: str, data: dict[str, Any]) -> Path:
    """Write rows and summary of one model on one set; returns the summary's path."""
    stem = re.sub(r"[^A-Za-z0-9._]+", "-", f"{model} on {data['name']}").strip("-.")
    write_jsonl(folder / f"{stem}.jsonl", found.rows)
    told = {
        "model": model, "data": data, "num_pairs": len(found.rows), "metrics": found.metrics,
        "calibration": [one._asdict() for one in found.calibration],
        "calibration_error": calibration_error(found.calibration), "rows": f"{stem}.jsonl",
    }  # fmt: skip
    write_json(folder / f"{stem}.json", told)
    return folder / f"{stem}.json"


def read_checks(folder: Path) -> list[dict[str, Any]]:
    """Every summary of a folder, by model and set; files of other kinds are passed over."""
    found = [one for path in sorted(folder.glob("*.json")) if _is_summary(one := read_json(path))]
    return sorted(found, key=lambda one: (one["model"], one["data"]["name"]))


def _is_summary(told: Any) -> bool:
    return isinstance(told, dict) and told.keys() >= {"model", "data", "num_pairs", "metrics", "calibration"}


def _cluster(pair: Pair) -> str:
    return pair.prompt.split_group or pair.prompt.uid
