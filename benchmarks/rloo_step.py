"""One RLOO step, k answers from one prefill and one grouped row, against the same with a padded row for each answer.

Sampling k = 4 answers of 40 tokens to each of two prompts, log-probs of policy and reference, then the step with its
gradient; LoRA, float32, one thread, the vision tower's output at hand for both. Both sides are the package's own code:
`rows` asks for every answer by a prompt of its own (each reads picture and prompt again) and scores padded rows. The
answers of `rows` are trained on by `grouped` too: gradients of both sides must be equal.

    python benchmarks/rloo_step.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tiny_llava
import torch
from meters import gflop
from results import keep, table

from verisight.models.policy import Policy
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.objectives.policy_gradient import AdaptiveKL
from verisight.sources.advantages import LeaveOneOut
from verisight.sources.offline import Offline
from verisight.sources.rollouts import Drawing, Rollouts
from verisight.train.rollout import Rloo, RolloutStep
from verisight.types import Decoding, Group, Pair, Prompt, Rollout, Sampled

K, TOKENS = 4, 40


class Length:
    """Any reward will do: characters."""

    name = "length"

    def rate(self, groups: list[Group]) -> list[list[float]]:
        """One number per answer."""
        return [[len(one.text) / 100 for one in group.answers] for group in groups]


class Separate(Policy):
    """Draws every answer from a prompt of its own, read on its own."""

    def sample(self, prompts: list[Prompt], *, num: int = 1, **options: Any) -> list[list[Sampled]]:
        """As `Policy.sample`, a prompt an answer."""
        alone = [replace(prompt, uid=f"{prompt.uid}-{k}") for prompt in prompts for k in range(num)]
        drawn = [one for [one] in super().sample(alone, num=1, **options)]
        return [drawn[at : at + num] for at in range(0, len(drawn), num)]


def side(family: tiny_llava.Family, way: str) -> tuple[Policy, Rollouts, RolloutStep]:
    """Policy, source and step of one side, from the same weights."""
    made = Policy if way == "grouped" else Separate
    policy = made(*tiny_llava.build(family), scoring="grouped" if way == "grouped" else "padded")
    policy.tune(LoraSettings(16, 32), train_projector=False, seed=0)
    reference = Reference(policy, mode="adapter_off")
    pairs: list[Pair] = tiny_llava.batches(family, policy.encoder.tokenizer, num=1)[0]
    drawing = Drawing(Decoding(TOKENS, temperature=1.0), num=K)
    source = Rollouts(
        Offline(pairs, seed=0), Length(), reference, LeaveOneOut(), beta=AdaptiveKL(0.1), drawing=drawing, seed=0
    )
    return policy, source, RolloutStep(policy, reference, Rloo())


def update(step: RolloutStep, rollouts: list[Rollout]) -> dict[str, torch.Tensor]:
    """Gradients of a step, which are forgotten."""
    step(rollouts).loss.mean().backward()
    weights = step.policy.trainable()
    found = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
    return found


def measure(family: tiny_llava.Family, *, repeats: int) -> dict[str, Any]:
    """CPU seconds of drawing and updating, and operations, of both ways."""
    sides = {way: side(family, way) for way in ("rows", "grouped")}
    rollouts = sides["rows"][1].draw(2, sides["rows"][0])
    one, two = (update(sides[way][2], rollouts) for way in ("rows", "grouped"))
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-3)
    seconds: dict[tuple[str, str], list[float]] = {}
    flops = {}
    for way, (policy, source, step) in sides.items():
        flops[way] = gflop(lambda s=source, p=policy, f=step: update(f, s.draw(2, p)), halve_causal=True)
    for _ in range(repeats):
        for way, (policy, source, step) in sides.items():
            drawn: list[Rollout] = []
            seconds.setdefault((way, "draw"), []).append(
                _timed(lambda s=source, p=policy, d=drawn: d.extend(s.draw(2, p)))
            )
            seconds.setdefault((way, "update"), []).append(_timed(lambda f=step, d=drawn: update(f, d)))
    median = {key: statistics.median(values) for key, values in seconds.items()}
    total = {way: median[way, "draw"] + median[way, "update"] for way in sides}
    policy = sides["grouped"][0]
    num = sum(i == policy.encoder.image_token_id for i in policy.encoder.prompt(rollouts[0].prompt).ids)
    return {
        "image_tokens": num, "k": K,
        **{f"{way} {part} s": median[way, part] for way, part in median},
        "draw ratio": median["rows", "draw"] / median["grouped", "draw"],
        "update ratio": median["rows", "update"] / median["grouped", "update"],
        "time ratio": total["rows"] / total["grouped"], "FLOP ratio": flops["rows"] / flops["grouped"],
    }  # fmt: skip


def _timed(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    families: list[tiny_llava.Family] = ["llava", "llava_next"]
    rows = [measure(family, repeats=repeats) for family in families]
    print(table("An RLOO step, k answers of one prompt; CPU seconds, medians", rows))
    keep("rloo_step", rows)


if __name__ == "__main__":
    main()
