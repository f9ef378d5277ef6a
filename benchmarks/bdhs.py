"""BDHS sentences (algorithm 1, step 4) side by side: `Policy.branch` against `generate()` once per sentence.

Four sentences of a reference answer are cut after a few tokens; each is to be finished by 16 tokens with 99 % of the
image hidden, for one picture, and for eight at once. `plain` is Hugging Face's `generate()` with the hidden tokens
masked (2D attention mask, original positions), one sentence at a time, the picture preprocessed once for all of them.
`dropped` is the same with the hidden tokens left out of the input: what a careful user can do without this package.
`again` is ours in the next round of the algorithm: a new mask, the same picture, which `plain` has to read again.
Tokens are identical, or the benchmark fails. CPU seconds of one thread a picture, alternating runs on a new picture
each, median; operations are counted for one picture. All times hold the preprocessing on PIL; the ratio without it
stands beside.

    python benchmarks/bdhs.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tiny_llava
import torch
from meters import gflop
from results import keep, table

from verisight.data.images import load_image
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.types import Decoding, Prompt

SENTENCES, GIVEN, NEW, TRUE = 4, 3, 16, 20  # sentences, tokens kept and written of each, tokens of a true one
RHO = 0.99
Tokens = list[tuple[int, ...]]


def beginnings(policy: Policy) -> list[list[int]]:
    """Ids in front of every sentence and of its first words: sentences of random words, as long as asked for."""
    words = [i for i in range(300, 500) if i not in policy.sentence_ends | policy.encoder.special_ids]
    true = np.random.default_rng(0).choice(words, SENTENCES * TRUE).tolist()
    return [true[: k * TRUE + GIVEN] for k in range(SENTENCES)]


def plain(policy: Policy, prompt: Prompt, prefixes: list[list[int]], keep_flags: np.ndarray, *, drop: bool) -> Tokens:
    """One `generate()` a sentence, hidden image tokens masked or left out."""
    encoder, core = policy.encoder, policy.core
    text = encoder.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.text}]}],
        add_generation_prompt=True, tokenize=False,
    )  # fmt: skip
    images = [load_image(ref) for ref in prompt.images]
    fields = encoder.processor(images=images, text=text, add_special_tokens=False, return_tensors="pt")
    prompt_ids = fields.pop("input_ids")[0].tolist()
    del fields["attention_mask"]  # it lacks the tokens to come
    made = []
    for prefix in prefixes:
        ids = torch.tensor([*prompt_ids, *prefix])
        visible = torch.ones(len(ids), dtype=torch.bool)
        visible[ids == encoder.image_token_id] = torch.from_numpy(keep_flags)
        places = torch.arange(len(ids))
        inputs: dict[str, Any] = {**fields, "input_ids": ids[None], "attention_mask": visible.long()[None]}
        if drop:
            features = torch.cat(core.get_image_features(**fields).pooler_output)
            embeds = core.get_input_embeddings()(ids)
            embeds[ids == encoder.image_token_id] = features
            inputs = {"inputs_embeds": embeds[visible][None], "attention_mask": torch.ones(1, int(visible.sum()))}
            places = places[visible]
        out = core.generate(
            **inputs, position_ids=places[None], do_sample=False, max_new_tokens=NEW,
            suppress_tokens=sorted(encoder.special_ids - encoder.end_ids),
            eos_token_id=sorted(encoder.end_ids | policy.sentence_ends), pad_token_id=encoder.tokenizer.pad_token_id,
        )  # fmt: skip
        new = out[0].tolist() if drop else out[0, len(ids) :].tolist()
        made.append(tuple(token for token in new if token not in encoder.end_ids))
    return made


def ours(policy: Policy, prompts: list[Prompt], prefixes: list[list[int]], flags: list[np.ndarray]) -> list[Tokens]:
    """All sentences of all pictures from one prefill of what is visible."""
    decoding = Decoding(max_new_tokens=NEW, temperature=0.0)
    sights = [Sight(keep_flags) for keep_flags in flags]
    rows = policy.branch(prompts, [prefixes] * len(prompts), decoding=decoding, seed=0, sights=sights)
    return [[drawn.token_ids for drawn in row] for row in rows]


def measure(family: tiny_llava.Family, *, at_once: int, repeats: int) -> dict[str, Any]:
    """Median CPU seconds a picture of each way, and the ratios."""
    policy, sdpa = (Policy(*tiny_llava.build(family)) for _ in range(2))
    sdpa.core.set_attn_implementation({"text_config": "sdpa"})  # as a user of generate() has it
    prefixes = beginnings(policy)
    num_batches = -(-(repeats + 1) * at_once // tiny_llava.PAIRS)
    batches = tiny_llava.batches(family, policy.encoder.tokenizer, num=num_batches)
    prompts = [pair.prompt for batch in batches for pair in batch]
    num = sum(i == policy.encoder.image_token_id for i in policy.encoder.prompt(prompts[0]).ids)
    seconds: dict[str, list[float]] = {"preprocess": [], "plain": [], "dropped": [], "ours": [], "again": []}
    for repeat in range(repeats + 1):
        some = prompts[repeat * at_once : (repeat + 1) * at_once]
        flags = [np.random.default_rng([repeat, k]).random(num) >= RHO for k in range(at_once)]
        next_flags = [np.random.default_rng([repeat, k, 1]).random(num) >= RHO for k in range(at_once)]
        each = list(zip(some, flags, strict=True))
        ways: dict[str, Callable[[], Any]] = {
            "preprocess": lambda some=some: [policy.encoder.prompt(prompt) for prompt in some],
            "plain": lambda each=each: [plain(sdpa, p, prefixes, kept, drop=False) for p, kept in each],
            "dropped": lambda each=each: [plain(sdpa, p, prefixes, kept, drop=True) for p, kept in each],
            "ours": lambda some=some, flags=flags: ours(policy, some, prefixes, flags),
            "again": lambda some=some, flags=next_flags: ours(policy, some, prefixes, flags),
        }
        answers = {}
        for name, way in ways.items():
            started = time.process_time()
            with torch.inference_mode():
                answers[name] = way()
            seconds[name].append((time.process_time() - started) / at_once)
        assert answers["plain"] == answers["dropped"] == answers["ours"], "all ways must write the same tokens"
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    fresh = Policy(*tiny_llava.build(family))  # has seen no picture yet
    one, kept = prompts[0], np.random.default_rng(0).random(num) >= RHO
    operations = [
        gflop(lambda: plain(sdpa, one, prefixes, kept, drop=False)),
        gflop(lambda: ours(fresh, [one], prefixes, [kept])),
    ]
    plain_s, ours_s, shared = median["plain"], median["ours"], median["preprocess"]
    return {
        "image_tokens": num, "pictures": at_once, **{f"{name}_s": value for name, value in median.items()},
        "plain/ours": plain_s / ours_s, "without preprocessing": (plain_s - shared) / (ours_s - shared),
        "plain/again": plain_s / median["again"], "dropped/ours": median["dropped"] / ours_s,
        "FLOPs plain/ours": operations[0] / operations[1],
    }  # fmt: skip


def main() -> None:
    """Measure, print, write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="after one that is not counted")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    families: tuple[tiny_llava.Family, ...] = ("llava", "llava_next")
    rows = [measure(family, at_once=num, repeats=repeats if num == 1 else 2) for family in families for num in (1, 8)]
    print(
        table(f"BDHS, {SENTENCES} sentences x {NEW} tokens, {RHO:.0%} of the image hidden; CPU seconds a picture", rows)
    )
    keep("bdhs", rows)


if __name__ == "__main__":
    main()
