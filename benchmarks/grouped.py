"""Scoring a group of answers: the grouped row against padded rows, and against the least that has to be computed.

One picture, G answers of 20 to 60 tokens, forward and backward of the summed log-probs, full fine-tuning, float32, one
thread, the vision tower's output at hand for both (it is frozen). `padded` is the package's own reference
implementation: G rows, answer tokens only through the output layer, causal attention without a mask, so the comparison
is of sharing alone. The floor counts every token once through the language model's linear layers, answer tokens once
through the output layer, and attention between tokens that see each other; three times the forward for linear layers,
and torch's own count of 2 products forward and 5 backward for attention. What is executed is counted by
`FlopCounterMode`, causal attention of n tokens as n^2/2.

    python benchmarks/grouped.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import tiny_llava
import torch
from meters import gflop
from results import keep, table

from verisight.models.policy import Policy
from verisight.types import Answer, Group


def groups_of(family: tiny_llava.Family, policy: Policy, *, answers: int, batch: int) -> list[Group]:
    """`batch` prompts with `answers` answers each."""
    pairs = [pair for some in tiny_llava.batches(family, policy.encoder.tokenizer, num=batch) for pair in some]
    texts = [answer for pair in pairs[: tiny_llava.PAIRS] for answer in pair.group.answers]
    texts = (texts * answers)[:answers]
    return [Group(pair.prompt, tuple(Answer(one.text) for one in texts)) for pair in pairs[:batch]]


def step(policy: Policy, groups: list[Group]) -> None:
    """Score, and forget the gradients."""
    policy.score(groups).logp_sum.sum().backward()
    policy.model.zero_grad(set_to_none=True)


def floor_gflop(policy: Policy, groups: list[Group]) -> float:
    """The least: every token once."""
    language = policy.core.model.language_model
    linear = sum(m.weight.numel() for m in language.modules() if isinstance(m, torch.nn.Linear))
    projector = sum(p.numel() for p in policy.core.model.multi_modal_projector.parameters() if p.ndim == 2)
    head, config = policy.core.lm_head.weight.numel(), policy.core.config.text_config
    total = 0
    for group, look in zip(groups, policy.vision.look(policy.core, [g.prompt for g in groups]), strict=True):
        prompt = len(look.ids)
        lengths = [len(policy.encoder.answer(group.prompt, answer).ids) for answer in group.answers]
        seen = prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in lengths)
        total += 3 * 2 * (linear * (prompt + sum(lengths)) + head * sum(lengths))
        total += 2 * 2 * projector * sum(1 for i in look.ids if i == policy.encoder.image_token_id)
        total += (2 + 5) * 2 * config.hidden_size * config.num_hidden_layers * seen
    return total / 1e9


def measure(family: tiny_llava.Family, *, answers: int, batch: int, repeats: int) -> dict[str, Any]:
    """CPU seconds and operations of both ways."""
    policy = Policy(*tiny_llava.build(family))
    policy.tune(None, train_projector=True)
    groups = groups_of(family, policy, answers=answers, batch=batch)
    seconds: dict[str, list[float]] = {"padded": [], "grouped": []}
    flops, scores = {}, {}
    for way in seconds:
        policy.scoring = way
        scores[way] = policy.score(groups).logp_sum.detach()
        flops[way] = gflop(lambda: step(policy, groups), halve_causal=True)
    assert (scores["padded"] - scores["grouped"]).abs().max() < 1e-3, "both ways must score alike"
    for _ in range(repeats):
        for way in seconds:
            policy.scoring = way
            started = time.process_time()
            step(policy, groups)
            seconds[way].append(time.process_time() - started)
    median = {way: statistics.median(values) for way, values in seconds.items()}
    num = sum(i == policy.encoder.image_token_id for i in policy.encoder.prompt(groups[0].prompt).ids)
    return {
        "image_tokens": num, "answers": answers, "batch": batch,
        "padded_s": median["padded"], "grouped_s": median["grouped"],
        "time ratio": median["padded"] / median["grouped"],
        "padded GFLOP": flops["padded"], "grouped GFLOP": flops["grouped"],
        "FLOP ratio": flops["padded"] / flops["grouped"],
        "grouped/floor": flops["grouped"] / floor_gflop(policy, groups),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    cases: list[tuple[tiny_llava.Family, int, int]] = [
        ("llava", 1, 1), ("llava", 2, 1), ("llava", 4, 1), ("llava", 8, 1), ("llava", 2, 4),
        ("llava_next", 1, 1), ("llava_next", 2, 1), ("llava_next", 4, 1), ("llava_next", 8, 1), ("llava_next", 2, 2),
    ]  # fmt: skip
    rows = [measure(family, answers=num, batch=batch, repeats=repeats) for family, num, batch in cases]
    print(table("Scoring G answers of one prompt, forward and backward; CPU seconds and operations", rows))
    keep("grouped", rows)


if __name__ == "__main__":
    main()
