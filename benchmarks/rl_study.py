"""The paper's table 8 in the pocket world: RLOO and PPO with each reward model and with the oracle, DPO beside them.

python benchmarks/reward_models.py                     # the reward models, runs/reward/<name>-<seed>
python benchmarks/direct_alignment.py --arms dpo_povid sft_chosen
python benchmarks/rl_study.py                          # runs/rl, 3 seeds, two at a time on one thread each
python benchmarks/rl_study.py --table                  # the tables of what is there

All arms have the same prompts, starting model, optimizer steps and learning rate. An arm of seed s is rated by the
reward model of seed s. The second table says what came of the reward: of the answers to 64 prompts of the training at
the first and the last look, by the reward that is trained on and by the oracle (gold), both in standard deviations of
the starting model's answers; KL and length at both; the most repetitive step; and where the time went.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import arms

from verisight.data.files import read_jsonl

RECIPES = Path(__file__).parent.parent / "recipes" / "pocket" / "rl"
MODELS = ("povid", "povid_rlhf_v", "rlhf_v", "vlfeedback")
DIRECT = Path("runs/direct")


def _rated_by(name: str) -> str:
    return f"source.rewards.0.rewarder.path=runs/reward/{name}-{{seed}}/model"


ARMS: arms.Arms = {
    **{f"rloo_{name}": (RECIPES / f"rloo_{name}.yaml", _rated_by(name)) for name in MODELS},
    **{f"ppo_{name}": (RECIPES / "ppo_povid.yaml", _rated_by(name)) for name in MODELS},
    "rloo_oracle": (RECIPES / "rloo_oracle.yaml",),
}


def main() -> None:
    """Run what is missing, print the tables."""
    args = arms.asked(__doc__, ARMS, out=Path("runs/rl"))
    if not args.table:
        arms.prepare(DIRECT, RECIPES / "rloo_oracle.yaml")
        arms.run_all(ARMS, args)
    base = DIRECT / "base" / "base"
    header, line, start, *beside = arms.table(DIRECT, ["dpo_povid", "sft_chosen"], args.seeds, base=base)
    rows = list(arms.table(args.out, args.arms, args.seeds, base=base))[3:]
    print("\n".join([header, line, start, *beside, *rows]), "\n")
    print("\n".join(_rewards(args.out, args.arms, args.seeds)))


def _rewards(out: Path, names: list[str], seeds: list[int]) -> Iterator[str]:
    """Reward, gold, KL, length over the run, and the time's split, means over seeds (reward and gold: each seed)."""
    columns = "arm | reward, sd | gold, sd | KL, nats | tokens, first to last | most repetition | "
    columns += "explained variance | sampling, rewards, scoring, update, s"
    yield f"| {columns} |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        folders = [folder for seed in seeds if arms.measured(folder := arms.folder_of(out, name, seed))]
        if not folders:
            continue
        written = [read_jsonl(folder / "metrics.jsonl") for folder in folders]
        looks = [[row["samples"] for row in rows if row["split"] == "probe"] for rows in written]
        steps = [[row for row in rows if row["split"] == "train"] for rows in written]
        cells = [name, *(_ends(looks, f"{one}_reward", each=True) for one in ("train", "gold"))]
        cells += [_ends(looks, "kl_sum"), _ends(looks, "tokens")]
        cells.append(f"{max(row['repetition'] for rows in steps for row in rows):.2f}")
        explained = [rows[-1]["drawn"].get("explained_variance") for rows in steps]
        cells.append("" if explained[0] is None else f"{mean(explained):.2f}")
        cells.append(", ".join(_times(steps)))
        yield f"| {' | '.join(cells)} |"


def _ends(looks: list[list[dict[str, float]]], name: str, *, each: bool = False) -> str:
    first, last = ([rows[at][name] for rows in looks] for at in (0, -1))
    told = f" ({', '.join(f'{one:+.2f}' for one in last)})" if each else ""
    return f"{mean(first):.2f} to {mean(last):.2f}{told}"


def _times(steps: list[list[dict[str, dict[str, float]]]]) -> Iterator[str]:
    """Seconds of a run by part; updating is what is left."""
    parts = ("sampling", "rewards", "scoring")
    of_run = [{part: sum(row["seconds_of"].get(part, 0.0) for row in rows) for part in parts} for rows in steps]
    for part in parts:
        yield f"{mean(one[part] for one in of_run):.0f}"
    total = mean(sum(float(row["seconds"]) for row in rows) for rows in steps)
    yield f"{total - mean(sum(one.values()) for one in of_run):.0f}"


if __name__ == "__main__":
    main()
