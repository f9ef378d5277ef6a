"""Curves of the RL study as one SVG: reward, gold reward, KL and length over the steps, mean of the seeds.

python benchmarks/rl_study.py
python benchmarks/rl_curves.py docs/rl_curves.svg

Of the answers to 64 prompts of the training at every look (diagnose). Rewards are in standard deviations of the
starting model's answers; solid lines are RLOO, dashed ones PPO; a thin line is a seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from rl_study import ARMS, MODELS

from verisight.data.files import read_jsonl, write_atomic
from verisight.study.svg import ticks

PANELS = (
    ("reward that is trained on, sd", "train_reward"),
    ("gold reward (oracle), sd", "gold_reward"),
    ("KL to the start, nats an answer", "kl_sum"),
    ("length, tokens", "tokens"),
)
COLOURS = dict(zip((*MODELS, "oracle"), ("#0072b2", "#e69f00", "#d55e00", "#009e73", "#555"), strict=True))
WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 200, 44, 28, 34
STYLE = (
    "text{font:11px sans-serif;fill:#333}.title{font-weight:bold}.grid{stroke:#ddd}.axis{stroke:#888}"
    "polyline{fill:none}.seed{stroke-width:.7;opacity:.35}.mean{stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}.grid{stroke:#444}}"
)


def looks(out: Path, arm: str, seeds: list[int], name: str) -> tuple[list[int], np.ndarray] | None:
    """Steps, and (seeds, looks) of one number."""
    rows = [
        [row for row in read_jsonl(path) if row["split"] == "probe"]
        for seed in seeds
        if (path := out / f"{arm}-{seed}" / "metrics.jsonl").exists()
    ]
    if not rows:
        return None
    num = min(map(len, rows))
    return [row["step"] for row in rows[0][:num]], np.array([[r["samples"][name] for r in some[:num]] for some in rows])


def panel(root: Element, title: str, found: dict[str, tuple[list[int], np.ndarray]]) -> None:
    """One chart of all arms."""
    low = min(float(values.min()) for _, values in found.values())
    high = max(float(values.max()) for _, values in found.values())
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    last = max(max(steps) for steps, _ in found.values())

    def place(step: float, value: float) -> tuple[float, float]:
        x, y = LEFT + (WIDTH - LEFT - 10) * step / last, TOP + (HEIGHT - TOP - 22) * (high - value) / (high - low)
        return round(x, 1), round(y, 1)

    SubElement(root, "text", {"class": "title", "x": str(LEFT), "y": "16"}).text = title
    for value in ticks(low, high, 5):
        (x1, y), (x2, _) = place(0, value), place(last, value)
        SubElement(root, "line", {"class": "grid", "x1": f"{x1}", "x2": f"{x2}", "y1": f"{y}", "y2": f"{y}"})
        SubElement(root, "text", {"x": f"{x1 - 5}", "y": f"{y + 4}", "text-anchor": "end"}).text = f"{value:g}"
    for step in ticks(0, last, 6):
        x, y = place(step, low)
        SubElement(root, "text", {"x": f"{x}", "y": f"{y + 14}", "text-anchor": "middle"}).text = f"{step:g}"
    for arm, (steps, values) in found.items():
        method, _, rated_by = arm.partition("_")
        line = {"stroke": COLOURS[rated_by]} | ({"stroke-dasharray": "5 3"} if method == "ppo" else {})
        for style, column in (*(("seed", row) for row in values), ("mean", values.mean(axis=0))):
            points = " ".join("{},{}".format(*place(step, one)) for step, one in zip(steps, column, strict=True))
            SubElement(root, "polyline", {"class": style, "points": points} | line)


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/rl"), help="folder of the study")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    size = (2 * WIDTH + GAP, 2 * HEIGHT + 2 * GAP)
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 {} {}".format(*size), "role": "img"})
    root.set("aria-label", "Reward, gold reward, KL and length over the steps of RLOO and PPO")
    SubElement(root, "style").text = STYLE
    for number, (title, name) in enumerate(PANELS):
        at = f"translate({(number % 2) * (WIDTH + GAP)} {(number // 2) * (HEIGHT + GAP / 2)})"
        all_looks = {arm: looks(args.out, arm, args.seeds, name) for arm in ARMS}
        panel(SubElement(root, "g", {"transform": at}), title, {a: one for a, one in all_looks.items() if one})
    for number, (name, colour) in enumerate(COLOURS.items()):
        x, y = 20 + number * 130, size[1] - 12
        ends = {"x1": str(x), "x2": str(x + 22), "y1": str(y - 4), "y2": str(y - 4)}
        SubElement(root, "line", ends | {"stroke": colour, "stroke-width": "3"})
        SubElement(root, "text", {"x": str(x + 28), "y": str(y)}).text = name
    write_atomic(args.target, tostring(root, encoding="unicode") + "\n")
    print(args.target)


if __name__ == "__main__":
    main()
