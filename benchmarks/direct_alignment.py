"""Every way to align directly, side by side in the pocket world: arms x seeds, what is missing is run, then one table.

python benchmarks/direct_alignment.py                      # runs/direct, 3 seeds, two at a time on one thread each
python benchmarks/direct_alignment.py --table              # the table of what is there
python benchmarks/direct_alignment.py --arms bdhs_attn --seeds 0

An arm is a recipe of recipes/pocket/direct, or one with settings changed. All have the same prompts, chosen answers,
steps, batch and learning rate.
"""

from __future__ import annotations

from pathlib import Path

import arms

RECIPES = Path(__file__).parent.parent / "recipes" / "pocket" / "direct"
RHOS = (0.5, 0.7, 0.9, 0.95, 1.0)
ARMS: arms.Arms = {
    **{
        name: (RECIPES / f"{name}.yaml",)
        for name in (
            *("sft_chosen", "dpo_povid", "ipo_povid", "slic_povid", "online_dpo", "mixed_dpo"),
            *("bdhs_attn", "bdhs_attn_online", "bdhs_noise", "povid_distortion"),
            *("averaged_bdhs", "averaged_distortion", "free_masking"),
        )
    },
    "ipo_povid_sum": (RECIPES / "ipo_povid.yaml", "objective.over=sum", "objective.tau=0.05"),
    "bdhs_eps_0.92": (RECIPES / "bdhs_attn.yaml", "source.negatives.check.eps=0.92"),
    **{f"bdhs_rho_{rho}": (RECIPES / "bdhs_attn.yaml", f"source.negatives.view.rho={rho}") for rho in RHOS},
}


def main() -> None:
    """Run what is missing, print the table."""
    args = arms.asked(__doc__, ARMS, out=Path("runs/direct"))
    if not args.table:
        arms.prepare(args.out, RECIPES / "dpo_povid.yaml")
        arms.run_all(ARMS, args)
    print("\n".join(arms.table(args.out, args.arms, args.seeds, base=args.out / "base" / "base")))


if __name__ == "__main__":
    main()
