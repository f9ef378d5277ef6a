"""Data sets composed like an experiment: a step is a view on the pairs it is given, and stands in their provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from verisight.data.images import image_hash
from verisight.data.texts import EQUAL
from verisight.data.views import Chain, Replaced, View, split_turns
from verisight.types import BadRow, Pair, UserError

DRAWN = " > take "  # in the provenance of a pair, once a draw
Match = Literal["prompt", "question", "prompt_and_chosen"]


def take(rows: Sequence[Pair], num: int, *, seed: int) -> View:
    """`num` pairs drawn at random, in their old order.

    A pair is drawn by its own hash, so what is drawn does not depend on the order of the file, and a smaller draw of
    the same seed is part of a larger one.

    Raises:
        UserError: there are fewer.
    """
    if len(rows) < num:
        raise UserError(f"take: found {num} of {len(rows)} pairs; accepted: 1 to {len(rows)}")
    keys = [_draw(pair, seed) for pair in rows]
    chosen = sorted(range(len(keys)), key=lambda index: (keys[index], index))[:num]
    return View(rows, sorted(chosen), told=f"take {num} (seed {seed})")


def keep(rows: Sequence[Pair], test: Callable[[Pair], bool], *, told: str) -> View:
    """The pairs that pass the test."""
    return View(rows, [index for index, pair in enumerate(rows) if test(pair)], told=told)


def mix(parts: Sequence[Sequence[Pair]], shares: Sequence[float], *, num: int | None, seed: int) -> Chain:
    """Pairs of each part in proportion to its share, none of a part twice: `num` in all, or as many as the parts allow.

    Raises:
        UserError: a part has fewer than its share of `num`.
    """
    total = sum(shares)
    if num is None:
        num = int(min(len(part) * total / share for part, share in zip(parts, shares, strict=True)) + 1e-9)
    exact = [num * share / total for share in shares]
    counts = [int(one) for one in exact]
    short = sorted(range(len(parts)), key=lambda part: (counts[part] - exact[part], part))
    for part in short[: num - sum(counts)]:  # the largest remainders are rounded up
        counts[part] += 1
    drawn = []
    for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if count > len(part):
            raise UserError(
                f"mix: part {number}: found a share of {count} pairs, it has {len(part)}; accepted: a smaller num"
            )
        told = f"mix {shares[number] / total:.3g}"
        drawn.append(View(take(part, count, seed=seed), range(count), told=told))
    return Chain(drawn)


def split(rows: Sequence[Pair], part: Literal["train", "held_out"], *, share: float, seed: int) -> View:
    """The pairs whose pictures are (not) held out. Pairs that share a picture always fall on the same side.

    Pictures are the same when their files are (SHA-256), or when they carry the same COCO number, or the same name in
    one data set. `share` of the groups of pairs is held out, each by its own hash. Both sides have to be taken of the
    same pairs: what else is there can join two groups, and so move one.
    """
    groups = _components(rows)
    threshold = int(share * 2**64)
    held = {one: int.from_bytes(_digest(f"split {seed} {one}")[:8]) < threshold for one in set(groups)}
    wanted = part == "held_out"
    index = [number for number, one in enumerate(groups) if held[one] == wanted]
    return View(rows, index, told=f"split {part} ({share:g} held out, seed {seed})")


def seen(rows: Sequence[Pair], others: Sequence[Pair], *, wanted: bool, match: Match, told: str) -> View:
    """The pairs whose prompt is (`wanted`) or is not among the prompts of `others`, every turn of which counts."""
    known = {key for other in others for key in _prompt_keys(other, match)}
    return View(rows, [i for i, pair in enumerate(rows) if (_key(pair, match) in known) == wanted], told=told)


def replace_answer(
    rows: Sequence[Pair], others: Sequence[Pair], which: Literal["chosen", "rejected"], *, match: Match, told: str
) -> tuple[Replaced, list[BadRow]]:
    """Each pair with its `which` answer taken from the pair of `others` that matches, and the pairs that have none.

    Of several that match the first is taken. A pair whose answers would be equal is left out too.
    """
    partner: dict[bytes, int] = {}
    for index, other in enumerate(others):
        partner.setdefault(_key(other, match), index)
    kept, found, bad = [], [], []
    for index, pair in enumerate(rows):
        at = partner.get(_key(pair, match))
        reason = "no counterpart" if at is None else None
        if at is not None:
            other = others[at]
            taken = (other.chosen,) if which == "chosen" else other.rejected
            against = pair.rejected if which == "chosen" else (pair.chosen,)
            if not taken:
                reason = "counterpart has no such answer"
            elif {one.text.strip() for one in taken} & {one.text.strip() for one in against}:
                reason = EQUAL
        if reason is None and at is not None:
            kept.append(index)
            found.append(at)
        else:
            detail = f"{pair.prompt.provenance}: {told}"
            bad.append(BadRow(pair.prompt.provenance, index, reason or "no counterpart", detail, fault=False))
    return Replaced(View(rows, kept), others, found, which=which, told=told), bad


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _draw(pair: Pair, seed: int) -> bytes:
    """The number a pair is drawn by: of what it says and shows, whatever row of whatever file it stands in.

    Every draw that the pair went through changes it: a part that was drawn before is no likelier to be drawn again.
    """
    prompt = pair.prompt
    before = [turn.text for turn in prompt.history]
    said = [text for answer in pair.group.answers for text in (answer.text, *(turn.text for turn in answer.follow_up))]
    return _digest("\0".join((f"{seed} {prompt.provenance.count(DRAWN)}", _shown(pair), *before, prompt.text, *said)))


def _shown(pair: Pair) -> str:
    """Names the prompt's pictures: one of COCO by its number, others by content where that is known, else by group."""
    images, group = pair.prompt.images, pair.prompt.split_group
    if not images or (len(images) == 1 and group.startswith("coco:")):
        return group if images else ""
    hashes = [ref.sha256 for ref in images]
    return " ".join(map(str, hashes)) if all(hashes) else group


def _key(pair: Pair, match: Match) -> bytes:
    """What two pairs that match have in common."""
    prompt = pair.prompt
    question = " ".join(prompt.text.split()).casefold()
    if match == "question":
        return _digest(question)
    history = [turn.text for turn in prompt.history]
    parts = [_shown(pair), *history, question]
    return _digest("\0".join([*parts, pair.chosen.text.strip()] if match == "prompt_and_chosen" else parts))


def _prompt_keys(pair: Pair, match: Match) -> Iterator[bytes]:
    for single in split_turns(pair):
        yield _key(single, match)


def _components(rows: Sequence[Pair]) -> list[str]:
    """For every pair the name of its group: pairs that share a picture, directly or over others, have the same."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    firsts = []
    for pair in rows:
        keys = [image_hash(ref) for ref in pair.prompt.images]
        group = pair.prompt.split_group
        if keys:
            keys.append(group if group.startswith("coco:") else f"{pair.origin} {group}")
        else:
            keys.append(f"text {_digest(pair.prompt.text).hex()}")
        # the name that other files give the same group too: its COCO number, else a picture's hash
        roots = sorted({root(key) for key in keys}, key=lambda one: (not one.startswith("coco:"), " " in one, one))
        for other in roots[1:]:
            parent[other] = roots[0]
        firsts.append(keys[0])
    return [root(key) for key in firsts]
