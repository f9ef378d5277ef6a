"""Scoring a batch of pairs: `Policy.score` against the plain padded Hugging Face forward, in one run.

`Policy.score` passes every image through the vision tower once per group and only answer positions through the
language-model head; the plain way does both for every row. Prints FLOPs (exact) and CPU seconds (alternating runs,
best of several), forward and backward. Image and prompt are not shared between answers in either.

    python benchmarks/scoring.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from verisight.models.encoding import pad
from verisight.models.loading import load_model
from verisight.models.policy import Policy
from verisight.pocket.datasets import png, scene
from verisight.pocket.language import DETAIL_PROMPTS, Narrator
from verisight.types import Answer, Group, ImageRef, Prompt

NUM_GROUPS, REPEATS = 16, 5


def groups() -> list[Group]:
    """Pairs about preference scenes: a true description, and one by a narrator who names the usual things."""
    import numpy as np

    made = []
    for index in range(NUM_GROUPS):
        one, rng = scene("preference", index), np.random.default_rng(index)
        answers = (Narrator().caption(one, rng), Narrator(rename=1.0).caption(one, rng))
        prompt = Prompt(str(one.uid), (ImageRef(data=png(one)),), DETAIL_PROMPTS[0])
        made.append(Group(prompt, tuple(Answer(text) for text in answers)))
    return made


def plain(policy: Policy, batch: list[Group]) -> Tensor:
    """Summed log-probs by the model's own forward: pixels repeated for every answer, logits at every position."""
    rows, masks, pixels = [], [], []
    for group in batch:
        prompt = policy.encoder.prompt(group.prompt)
        for answer in group.answers:
            encoded = policy.encoder.answer(group.prompt, answer)
            rows.append([*prompt.ids, *encoded.ids])
            masks.append([0] * len(prompt.ids) + [int(s) for s in encoded.supervised])
            pixels.append(prompt.pixels["pixel_values"])
    ids = pad(rows, value=policy.encoder.pad_id, left=False)
    real = pad([[1] * len(row) for row in rows], value=0, left=False)
    logits = policy.model(input_ids=ids, attention_mask=real, pixel_values=torch.cat(pixels), use_cache=False).logits
    token_logp = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return (token_logp * pad(masks, value=0, left=False)[:, 1:]).sum(1)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    policy = Policy(*load_model("pocket", dtype="float32"))
    policy.tune(None, train_projector=True)
    batch = groups()
    ways: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(policy, batch),
        "Policy.score": lambda: policy.score(batch).logp_sum,
    }
    results = {name: way().detach() for name, way in ways.items()}
    difference = (results["plain"] - results["Policy.score"]).abs().max().item()
    flops, seconds = {}, {name: float("inf") for name in ways}
    for name, way in ways.items():
        with FlopCounterMode(display=False) as counter:
            way().sum().backward()
        flops[name] = counter.get_total_flops()
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.process_time()
            way().sum().backward()
            seconds[name] = min(seconds[name], time.process_time() - started)
    print(f"{NUM_GROUPS} pairs, pocket model, one thread; largest difference {difference:.1e} nats")
    for name in ways:
        print(f"{name:<14}{flops[name] / 1e9:8.2f} GFLOP{seconds[name]:8.3f} CPU s")
    ratios = [values["plain"] / values["Policy.score"] for values in (flops, seconds)]
    print(f"ratio         {ratios[0]:8.2f}      {ratios[1]:8.2f}")


if __name__ == "__main__":
    main()
