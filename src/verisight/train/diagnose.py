"""A fixed set of pairs that is looked at while a model trains: what the loss alone does not show."""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from verisight.data.images import image_hash
from verisight.models.policy import Policy
from verisight.models.scoring import Scorer
from verisight.models.stores import Recent, chunks
from verisight.train.samples import Divergence, measured, rated, ratio
from verisight.types import Decoding, Group, Pair, Prompt, Rewarder, Sampled

Row = dict[str, float]
T = TypeVar("T")

_SEEN, _REMOVED, _SWAPPED = "seen", "no_image", "swapped"  # how a pair is shown
_OF_VIEW = ("margin", "accuracy", "chosen_logp_sum", "rejected_logp_sum", "image_gain", "chosen_logp_gain")


class Told(NamedTuple):
    """One answer under one model: log-prob in nats, summed over its tokens, and how many they are."""

    logp_sum: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Diagnose:
    """Looks at the policy as it is now: margins, log-probs, what a picture changes, lengths, KL to the reference.

    What a call returns (means over pairs, log-probs and margins in nats and summed over tokens unless `_mean`):

    - margin_mean, accuracy: of the log-ratios to the reference, chosen against rejected, whatever the objective
      makes of them. Without a reference, of the log-probs themselves.
    - chosen_ and rejected_ `logp_sum`, `logp_mean` (per token), `logratio_sum`, `tokens`: both falling is likelihood
      displacement (Razin et al. 2024).
    - by_origin: the same, per origin.
    - no_image, swapped: how pairs fare without pictures and with those of another pair, policy and reference alike.
      `image_gain`, the margin with the true picture less this one, is what was learnt of pictures: 0 if all that was
      learnt is which words are preferred. `chosen_logp_gain` is the same of the policy's log-prob of the chosen
      answer. Pairs without pictures, or with no other picture to swap with, are left out; `num` says how many stay.
    - samples: answers to the pairs' prompts at temperature 1: tokens, words, truncated_fraction, repetition;
      `<name>_reward` by each of `raters`;
      kl_sum, the mean of log pi(y|x) - log ref(y|x) over answers (Schulman's k1), and kl_token_mean, the mean of
      r - 1 - log r with r = ref/pi over tokens (his k3, of less variance while the two are close). Both estimate
      KL(pi || ref), with standard errors clustered by prompt. http://joschu.net/blog/kl-approx.html .

    Nothing of the training is touched: no gradient, no random stream, no kept picture. Results do not depend on what
    was called before. A column that no pair has (margins of supervised rows) is not there.

    Args:
        policy: the model that trains.
        reference: what it is compared with; any answer can be scored. None: no log-ratios, no KL.
        pairs: at least one. Same prompts are sampled from once.
        every: steps between two looks.
        seed: draws the samples (the same uniforms at every look) and which pictures are swapped.
        max_new_tokens: longest sampled answer.
        num_samples: answers per prompt.
        batch_size: pairs scored, or answers sampled, at once.
        raters: who rates the sampled answers, by name.
    """

    policy: Policy
    reference: Scorer | None
    pairs: Sequence[Pair]
    _: KW_ONLY
    every: int
    seed: int
    max_new_tokens: int = 256
    num_samples: int = 1
    batch_size: int = 16
    raters: Mapping[str, Rewarder] = field(default_factory=dict)
    _shown: dict[str, dict[int, Pair]] = field(default_factory=dict, init=False, repr=False)
    _reference: dict[str, list[list[Told]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        assert self.pairs, "nothing to look at"

    def __call__(self) -> dict[str, Any]:
        """One row of JSON values."""
        if not self._shown:
            self._shown.update(shown(self.pairs, seed=self.seed))
        with torch.no_grad(), self._apart():
            facts = {view: self._facts(view) for view in self._shown}
            groups, drawn, diverged = self._draw()
            samples = measured(drawn, diverged) | rated(self.raters, groups)
        seen = facts.pop(_SEEN)
        origins: dict[str, list[Row]] = {}
        for index, row in seen.items():
            origins.setdefault(self.pairs[index].origin, []).append(row)
        return {
            "num_pairs": len(self.pairs),
            **means(seen.values()),
            "by_origin": {origin: {"num": len(rows), **means(rows)} for origin, rows in sorted(origins.items())},
            **{view: _compared(seen, rows) for view, rows in facts.items()},
            "samples": samples,
        }

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Looks at pictures are kept apart from those of the training, and are forgotten afterwards."""
        before = self.policy.vision
        self.policy.vision = replace(before, store=Recent())
        try:
            yield
        finally:
            self.policy.vision = before

    def _facts(self, view: str) -> dict[int, Row]:
        """One row per pair that can be shown so. The reference is asked once in a process: it does not change."""
        pairs = list(self._shown[view].values())
        if view not in self._reference and self.reference is not None:
            self._reference[view] = self._told(self.reference, pairs)
        told = self._told(self.policy, pairs)
        reference: Sequence[list[Told] | None] = self._reference.get(view, [None] * len(pairs))
        rows = map(compared, pairs, told, reference)
        return dict(zip(self._shown[view], rows, strict=True))

    def _told(self, scorer: Scorer, pairs: Sequence[Pair]) -> list[list[Told]]:
        """Every pair's answers."""
        found = []
        for some in self._batches(pairs):
            scores = scorer.score([pair.group for pair in some])
            told = map(Told, scores.logp_sum.tolist(), scores.num_tokens.tolist())
            found += [[next(told) for _ in pair.group.answers] for pair in some]
        return found

    def _draw(self) -> tuple[list[Group], list[Sampled], list[list[Divergence]]]:
        """Answers to every different prompt, and how far they are from the reference, prompt by prompt."""
        key = self.policy.encoder.key
        prompts = list({key(pair.prompt): pair.prompt for pair in self.pairs}.values())
        decoding = Decoding(max_new_tokens=self.max_new_tokens, temperature=1.0)
        [seed] = np.random.SeedSequence([self.seed, zlib.crc32(b"samples")]).generate_state(1).tolist()
        groups: list[Group] = []
        drawn: list[Sampled] = []
        diverged: list[list[Divergence]] = []
        for some in self._batches(prompts):
            answers = self.policy.sample(
                some, decoding=decoding, seed=seed, num=self.num_samples, batch_size=self.batch_size
            )
            drawn += [one for row in answers for one in row]
            new = [Group(prompt, tuple(one.answer for one in row)) for prompt, row in zip(some, answers, strict=True)]
            groups += new
            if self.reference is not None:
                diverged += self._diverged(new, self.reference)
        return groups, drawn, diverged

    def _diverged(self, groups: Sequence[Group], reference: Scorer) -> Iterator[list[Divergence]]:
        """Over the tokens that were drawn."""
        scores = self.policy.score(groups)
        difference = (scores.token_logp - reference.score(groups).token_logp).double().cpu()
        rows = iter(difference.split(scores.num_tokens.tolist()))
        for group in groups:
            some = [next(rows) for _ in group.answers]
            yield [Divergence(float(t.sum()), float((torch.expm1(-t) + t).sum()), len(t)) for t in some]

    def _batches(self, items: Sequence[T]) -> Iterator[list[T]]:
        return chunks(items, [1] * len(items), self.batch_size)


def shown(pairs: Sequence[Pair], *, seed: int) -> dict[str, dict[int, Pair]]:
    """Pairs by their index as they are, without pictures, and with those of another pair, where that can be."""
    prompts = [pair.prompt for pair in pairs]
    return {
        _SEEN: dict(enumerate(pairs)),
        _REMOVED: {
            index: replace(pair, prompt=replace(pair.prompt, images=()))
            for index, pair in enumerate(pairs)
            if pair.prompt.images
        },
        _SWAPPED: {
            index: replace(pairs[index], prompt=replace(prompts[index], images=prompts[other].images))
            for index, other in swaps(prompts, seed=seed).items()
        },
    }


def swaps(prompts: Sequence[Prompt], *, seed: int) -> dict[int, int]:
    """For every prompt another that shows as many, other pictures; each is taken once at most.

    Prompts without pictures are left out, and some of those that share a picture with more than half of the others.
    Pictures are the same when their bytes are, or when both prompts name one picture of COCO as their split group.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"swaps")])
    found: dict[int, int] = {}
    for num in sorted({len(prompt.images) for prompt in prompts} - {0}):
        same: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            if len(prompt.images) == num:
                same.setdefault(_what_is_seen(prompt), []).append(index)
        names = list(same)
        order = [(place, index) for place in rng.permutation(len(names)) for index in same[names[place]]]
        shift = max(map(len, same.values()))  # a row that far behind shows something else, if any can
        for at, (place, index) in enumerate(order):
            other_place, other = order[(at + shift) % len(order)]
            if other_place != place:
                found[index] = other
    return dict(sorted(found.items()))


def compared(pair: Pair, told: Sequence[Told], reference: Sequence[Told] | None) -> Row:
    """Facts of one pair; rejected answers are averaged by their weights. Without a reference its log-probs are 0."""
    ratios = [one.logp_sum - (reference[k].logp_sum if reference else 0.0) for k, one in enumerate(told)]
    columns: dict[str, list[float]] = {
        "logp_sum": [one.logp_sum for one in told],
        "logp_mean": [one.logp_sum / one.num_tokens for one in told],
        **({"logratio_sum": ratios} if reference else {}),
        "tokens": [float(one.num_tokens) for one in told],
    }
    row = {f"chosen_{name}": values[0] for name, values in columns.items()}
    if not pair.rejected:
        return row
    margins = [ratios[0] - one for one in ratios[1:]]
    averaged = {f"rejected_{name}": values[1:] for name, values in columns.items()}
    averaged |= {"margin": margins, "accuracy": [float(one > 0) for one in margins]}
    return row | {name: math.fsum(map(operator.mul, pair.weights, values)) for name, values in averaged.items()}


def means(rows: Iterable[Row]) -> Row:
    """Mean of every column over the rows that have it; `margin` becomes `margin_mean`."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {"margin_mean" if name == "margin" else name: math.fsum(v) / len(v) for name, v in columns.items()}


def _compared(seen: Mapping[int, Row], rows: Mapping[int, Row]) -> dict[str, Any]:
    """Means over the pairs that could be shown otherwise, and what the true picture gained them."""
    found = []
    for index, row in rows.items():
        true = seen[index]
        gains = {"image_gain": true["margin"] - row["margin"]} if "margin" in row else {}
        gains["chosen_logp_gain"] = true["chosen_logp_sum"] - row["chosen_logp_sum"]
        found.append({name: value for name, value in (row | gains).items() if name in _OF_VIEW})
    result: dict[str, Any] = {"num": len(found), **means(found)}
    gained = np.array([row["image_gain"] for row in found if "image_gain" in row])
    if len(gained):
        result["image_gain_se"] = ratio(gained, np.ones(len(gained)))[1]
    return result


def _what_is_seen(prompt: Prompt) -> str:
    if prompt.split_group.startswith("coco:"):
        return prompt.split_group
    return " ".join(image_hash(ref) for ref in prompt.images)
