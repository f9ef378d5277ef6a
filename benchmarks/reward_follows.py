"""What a reward follows in the starting model's answers: fewer false claims, more of what is there, or fewer words.

python benchmarks/reward_models.py                # the reward models, runs/reward/<name>-<seed>
python benchmarks/reward_follows.py

Four answers of the pocket model at temperature 1 to each of the first 128 prompts of POVID's, as RLOO draws them. The
correlations are within prompts (every column less its mean over the prompt's answers), for RLOO compares nothing else;
95 % intervals resample prompts. `faults`: false claims; `missed`: objects not named; `words`: length. An object that is
called by another's name is both a fault and missed: `missed beside faults` says whether leaving an object out costs
anything (below 0) by itself, `words beside both` whether length pays or costs. The last row is the oracle.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from verisight import build, recipe
from verisight.judges.rewards import ModelRewarder, OracleRewarder
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.oracle import judge
from verisight.types import Decoding, Group, Rewarder

RECIPE = Path(__file__).parent.parent / "recipes" / "pocket" / "rl" / "rloo_povid.yaml"
SCENES = Path("runs/pocket-sets/llava_instruct/preference/scenes.json")
MODELS = ("povid", "povid_rlhf_v", "rlhf_v", "vlfeedback")
PROMPTS, ANSWERS, RESAMPLES = 128, 4, 2000
COLUMNS = ("faults", "missed", "words")


def drawn() -> list[Group]:
    """The starting model's answers."""
    one = recipe.load(RECIPE, ["output=runs/rl/follows"])
    assert isinstance(one.source, recipe.Rollouts)
    pairs = build.examples(one, "source", one.source)[:PROMPTS]
    prompts, policy = [pair.prompt for pair in pairs], build.open_model(one.model)
    rows = policy.sample(prompts, decoding=Decoding(96, temperature=1.0), seed=0, num=ANSWERS)
    return [Group(prompt, tuple(one.answer for one in row)) for prompt, row in zip(prompts, rows, strict=True)]


def centred(rows: list[list[float]]) -> np.ndarray:
    """(prompts, answers) less the prompt's mean."""
    values = np.array(rows, dtype=float)
    return values - values.mean(axis=1, keepdims=True)


def correlations(rewards: np.ndarray, facts: np.ndarray) -> np.ndarray:
    """Of the reward with each fact, then of the later ones with those before them taken out. (columns, prompts, k)."""
    flat, columns = rewards.ravel(), facts.reshape(len(facts), -1)
    plain = [_correlation(flat, column) for column in columns]
    return np.array([*plain, *(_partial(flat, columns[at], columns[:at].T) for at in range(1, len(columns)))])


def _partial(one: np.ndarray, other: np.ndarray, known: np.ndarray) -> float:
    return _correlation(*(column - known @ np.linalg.lstsq(known, column, rcond=None)[0] for column in (one, other)))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def row(name: str, rewarder: Rewarder, groups: list[Group], facts: np.ndarray) -> str:
    """A line of the table."""
    rewards, rng = centred(rewarder.rate(groups)), np.random.default_rng(0)
    found = correlations(rewards, facts)
    picks = [rng.integers(0, len(groups), len(groups)) for _ in range(RESAMPLES)]
    low, high = np.percentile([correlations(rewards[pick], facts[:, pick]) for pick in picks], [2.5, 97.5], axis=0)
    cells = [f"{value:+.2f} ({a:+.2f} to {b:+.2f})" for value, a, b in zip(found, low, high, strict=True)]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Draw, rate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    groups, known = drawn(), KnownScenes(SCENES)
    judged = [[judge(task_of(group.prompt, known), one.text) for one in group.answers] for group in groups]
    words = [[float(len(one.text.split())) for one in group.answers] for group in groups]
    facts = np.stack(
        [
            centred([[float(one.num_faults) for one in some] for some in judged]),
            centred([[float(len(one.missed)) for one in some] for some in judged]),
            centred(words),
        ]
    )
    print(
        f"| reward | {' | '.join((*COLUMNS, 'missed beside faults', 'words beside both'))} |\n|---|---|---|---|---|---|"
    )
    for name in MODELS:
        for seed in seeds:
            path = Path("runs/reward") / f"{name}-{seed}" / "model"
            model = build.open_reward(recipe.Model(path=str(path.absolute())))
            print(row(f"{name}, seed {seed}", ModelRewarder(model, name=name), groups, facts), flush=True)
    print(row("oracle", OracleRewarder(known), groups, facts))


if __name__ == "__main__":
    main()
