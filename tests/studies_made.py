"""Findings of a study that was never run, like those of one that was: for tests of what shows them."""

from __future__ import annotations

import io
import math
import random
from dataclasses import fields, is_dataclass, replace
from typing import Any

from PIL import Image, ImageDraw

from verisight.studies.findings import (
    AnswerSample,
    ArmRow,
    Cell,
    Claim,
    Column,
    Curve,
    Effect,
    Fact,
    Findings,
    Mention,
    PairSample,
    Part,
    Rounds,
    Said,
    Sweep,
    SweepPoint,
)

COLUMNS = (
    Column("chair/chair_i", "CHAIR_i", "object mentions that are made up", "lower"),
    Column("chair/chair_s", "CHAIR_s", "answers with a made-up object", "lower"),
    Column("chair/recall", "Recall", "objects in the picture that are named", "higher"),
    Column("chair/position_accuracy", "Positions right", "placed objects put where they are", "higher"),
    Column("chair/length_words", "Length", "words an answer", "neutral", percent=False),
    Column("pope/f1", "POPE F1", "mean of the three splits", "higher"),
)
_ARMS = (
    ("base", "start", "the model before training"),
    ("control", "SFT control", "SFT on the chosen answers, same budget"),
    ("dpo_povid", "DPO, POVID", "DPO on corrupted answers of a stronger model"),
    ("bdhs_attn", "BDHS", "bias-driven hallucination sampling, attention masked"),
    ("bdhs_noise", "BDHS, noise", "the same with a noisy picture"),
    ("online_dpo", "Online-DPO", "two own answers, judged by an oracle with noise 0.1"),
    ("mixed", "Mixed-DPO", "half offline pairs, half online ones"),
    ("ipo_povid", "IPO", "IPO on the pairs of DPO, POVID"),
    ("slic_povid", "SLiC", "SLiC on the pairs of DPO, POVID"),
    ("terse", "Terse", "rewarded for short answers"),
)
_MEANS = (0.184, 0.42, 0.71, 0.66, 28.1, 0.842)
_SHIFTS = (0.0, -0.012, -0.05, -0.088, -0.071, -0.083, -0.102, -0.041, -0.046, -0.14)
_PAPER = ("POPE", "MMHAL", "MMHAL-V", "LLaVAW", "VQA-T", "GQA", "MMVet", "Recall")
_THINGS = ("dog", "kite", "bench", "car", "tree", "cat", "ball", "bus")


def findings(*, num_arms: int = 10, num_seeds: int = 3, num_samples: int = 24, num_pairs: int = 5) -> Findings:
    """A whole study: the first `num_arms` of ten arms, `num_pairs` training pairs of every trained one."""
    rng = random.Random(7)
    arms = _ARMS[:num_arms]
    rows = tuple(_row(rng, at, num_seeds) for at in range(num_arms))
    keys = [key for key, *_ in arms]
    pictures = {f"p{at}": scene(at) for at in range(num_samples)}
    return Findings(
        name="table2_main",
        title="What makes pairs good",
        about="DPO and its kin on pairs from three sources, all under one budget.\nEach arm has three seeds.",
        columns=COLUMNS,
        rows=rows,
        base="base",
        control="control",
        budget=(("steps", "600"), ("batch size", "16 pairs"), ("learning rate", "1e-4"), ("prompts", "779")),
        varies=("where the rejected answers come from", "objective"),
        claims=_claims(rows),
        curves=tuple(_curves(rng, keys[1:])),
        sweeps=_sweeps(rng),
        rounds=(Rounds("rho 0.5", (0.31, 0.47, 0.55, 0.61)), Rounds("rho 0.99", (0.72, 0.9, 0.97, 1.0))),
        answers=tuple(_answers(rng, at, keys) for at in range(num_samples)),
        pairs=tuple(_pair(rng, key, at) for key in keys[2:] for at in range(num_pairs)),
        pictures=pictures,
        facts=tuple(
            Fact(key, seed, f"facts/{key}-{seed}", (("training", 312.4), ("evaluation", 48.0)), (("torch", "2.13.0"),))
            for key in keys for seed in range(num_seeds if key != "base" else 1)
        ),
        notes=("Decoding is greedy; answers are cut at 64 tokens.",),
        missing=("mixed, seed 2: ran out of memory",),
        scatter=("chair/chair_i", "chair/recall"),
    )  # fmt: skip


def with_text(found: Any, change: Any) -> Any:
    """The same values with `change` done to every text that isn't empty; keys, verdicts and bytes stay."""
    kept = {"key", "base", "control", "arm", "picture", "better", "verdict", "outcome", "best", "scatter", "pictures"}
    if isinstance(found, str):
        return change(found) if found else found
    if isinstance(found, tuple):
        return tuple(with_text(one, change) for one in found)
    if not is_dataclass(found) or isinstance(found, Mention | type):
        return found
    if isinstance(found, Said):
        return replace(found, text=change(found.text))
    return replace(found, **{
        field.name: with_text(getattr(found, field.name), change) for field in fields(found) if field.name not in kept
    })  # fmt: skip


def scene(seed: int, size: int = 64) -> bytes:
    """A small picture as PNG."""
    rng = random.Random(seed)
    image = Image.new("RGB", (size, size), (180 + rng.randrange(60), 200, 215))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 2 // 3, size, size), fill=(120, 160, 100))
    for _ in range(3):
        a, b, wide = rng.randrange(size - 16), rng.randrange(size - 16), rng.randrange(8, 18)
        colour = tuple(rng.randrange(40, 230) for _ in range(3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((a, b, a + wide, b + wide), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _effect(value: float, half: float, column: Column) -> Effect:
    decided = abs(value) > half
    words = {"lower": ("better", "worse"), "higher": ("worse", "better"), "neutral": ("lower", "higher")}[column.better]
    verdict = words[value > 0] if decided else "can't tell"
    return Effect(value, value - half, value + half, 0.001 if decided else 0.4, verdict)


def _row(rng: random.Random, at: int, num_seeds: int) -> ArmRow:
    key, label, about = _ARMS[at]
    cells = []
    for place, (column, mean) in enumerate(zip(COLUMNS, _MEANS, strict=True)):
        scale = 1.0 if column.percent else 60.0
        shift = _SHIFTS[at] * (1, 1.7, 0.12, -0.3, 0.1, -0.2)[place] * scale + rng.gauss(0, 0.006) * scale * (at > 0)
        if key == "terse" and place in (2, 4):
            shift = (-0.19, -11.3)[place == 4]
        half = (0.013 + rng.random() * 0.012) * scale
        value = mean + shift
        seeds = tuple(value + (seed - 1) * 0.004 * scale for seed in range(num_seeds if at else 1))
        to_base = _effect(shift, half * 0.9, column) if at else None
        to_control = _effect(shift - _SHIFTS[1] * 0.5, half, column) if at > 1 else None
        best = {"terse": "best", "mixed": "second"}.get(key, "") if place == 0 else ""
        cells.append(Cell(value, value - half, value + half, seeds, to_base, to_control, best))
    paper = tuple((name, round(40 + rng.random() * 50, 2)) for name in _PAPER) if at > 1 and at % 2 == 0 else ()
    cautions = ("its answers are much shorter than the base's",) if key == "terse" else ()
    seeds = tuple(range(num_seeds)) if at else (0,)
    return ArmRow(key, label, about, at == 1, seeds, tuple(cells), paper, cautions)


def _claims(rows: tuple[ArmRow, ...]) -> tuple[Claim, ...]:
    def part(row: ArmRow, outcome: str) -> Part:
        effect = row.cells[0].to_base or Effect(None, None, None, None, "not measured")
        return Part(f"{row.label} less start", "below 0", COLUMNS[0], effect, outcome)

    last = rows[-1]
    return (
        Claim("C1", "Pairs that the model wrote itself are as good as those of a stronger model.", "holds",
              tuple(part(row, "holds") for row in rows[2:4]) or (part(last, "holds"),)),
        Claim("C2", "Online data helps beyond offline data.", "can't tell", (part(last, "can't tell"),), "3 seeds."),
        Claim("C3", "IPO finds less than DPO.", "fails", (part(last, "fails"),)),
        Claim("C4", "A reward model ranks answers of other models.", "not measured", ()),
    )  # fmt: skip


def _curves(rng: random.Random, keys: list[str]) -> list[Curve]:
    made = []
    for quantity, unit, sign in (("margin_mean", "nats", 1), ("loss", "loss", -1), ("samples/words", "words", 2)):
        for key in keys:
            steps = tuple(range(15, 601, 15))
            rate, top = 80 + rng.random() * 200, 2 + rng.random() * 4
            values = tuple(sign * top * (1 - math.exp(-step / rate)) + rng.gauss(0, 0.05) for step in steps)
            low, high = (tuple(value + side * (0.2 + rng.random() * 0.1) for value in values) for side in (-1, 1))
            made.append(Curve(key, quantity, unit, steps, values, low, high))
    return made


def _sweeps(rng: random.Random) -> tuple[Sweep, ...]:
    made = []
    for column, start in ((COLUMNS[0], 0.18), (COLUMNS[2], 0.7)):
        series = []
        for name, gain in (("DPO", 0.012), ("BDHS", 0.02)):
            values = [(x, start - gain * math.log2(x / 40) + rng.gauss(0, 0.004)) for x in (50, 100, 200, 400, 779)]
            points = tuple(SweepPoint(x, f"{name}_{x}", v, v - 0.015, v + 0.015) for x, v in values)
            series.append((name, points))
        made.append(Sweep(f"{column.label} by number of prompts", "prompts", True, column, tuple(series)))
    return tuple(made)


def _answers(rng: random.Random, at: int, keys: list[str]) -> AnswerSample:
    held = rng.sample(_THINGS, 3)
    said = []
    for place, key in enumerate(keys):
        made = [thing for thing in _THINGS if thing not in held][: rng.choice((0, 1, 2) if place < 2 else (0, 0, 1))]
        text, mentions = "The picture shows", []
        for thing in [*held[: rng.choice((2, 3))], *made]:
            text += " a " if not mentions else " and a "
            mentions.append(Mention(len(text), len(text) + len(thing), thing in made))
            text += thing
        said.append(Said(key, text + ".", tuple(mentions)))
    return AnswerSample(f"chair/{at:03}", f"p{at}", "Describe the picture.", tuple(held), tuple(said))


def _pair(rng: random.Random, key: str, at: int) -> PairSample:
    one, two = rng.sample(_THINGS, 2)
    chosen = f"A {one} stands beside the bench. The sky is clear."
    rejected = f"A {two} stands beside the bench. The sky is full of clouds."
    start = rejected.index("The sky")
    kind = "bdhs" if key.startswith("bdhs") else "online" if key == "online_dpo" else "offline"
    written = ((start, len(rejected)),) if kind == "bdhs" else ()
    notes = (("round", str(rng.randint(1, 4))), ("similarity", "0.83")) if kind == "bdhs" else ()
    return PairSample(key, f"{key}/{at}", kind, f"p{at}", "What do you see?", chosen, rejected, written, notes)
