"""Drawing until there are enough pairs, and pairs as JSON."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from verisight.data.records import image_ref, to_pair, to_row
from verisight.data.texts import PLACEHOLDER, check_text
from verisight.data.unusable import Unusable
from verisight.types import Pair, Prompt, UserError

PATIENCE = 10  # batches


def collect(n: int, attempt: Callable[[int], list[Pair]], *, batch_size: int, left_out: Counter[str]) -> list[Pair]:
    """Exactly n pairs from attempts that may give fewer than they are asked for, at most `batch_size` at a time.

    Raises:
        UserError: as many examples as 10 batches have gave none, one after another; `left_out` says why.
    """
    drawn: list[Pair] = []
    failures = 0
    while len(drawn) < n:
        size = min(n - len(drawn), batch_size)
        made = attempt(size)
        failures = 0 if made else failures + size
        if failures >= PATIENCE * batch_size:
            why = ", ".join(f"{reason}: {num}" for reason, num in left_out.most_common())
            raise UserError(
                f"source: {failures} examples in a row gave no pair to train on (left out so far: {why}); "
                "accepted: data, sampling and annotator that give two different answers, one of them better"
            )
        drawn += made
    return drawn


def numbered(prompts: Sequence[Prompt], *, first: int, stream: str) -> list[Prompt]:
    """Prompts under the names that their draws have: the same question asked again, or elsewhere, is another draw.

    What is drawn depends on this name and the seed, so it does not depend on how draws are cut into batches.
    """
    return [replace(prompt, uid=f"{prompt.uid}@{stream}{first + k}") for k, prompt in enumerate(prompts)]


def unusable(text: str) -> str:
    """Why an answer that a model wrote cannot be kept: it holds marks that tokenizers or files obey. "" if it can."""
    if PLACEHOLDER in text:
        return "made answer holds <image>"
    try:
        check_text(text)
    except Unusable as error:
        return f"made answer: {error.reason}"
    return ""


def as_json(pair: Pair) -> dict[str, Any]:
    """The pair as JSON values, pictures held as bytes in base64."""
    row = to_row(pair)
    for image in (*row["images"], *row["rejected_images"]):
        image["bytes"] = None if image["bytes"] is None else base64.b64encode(image["bytes"]).decode()
    return row


def from_json(row: dict[str, Any]) -> Pair:
    """The pair that `as_json` wrote."""
    row = dict(row)
    for name in ("images", "rejected_images"):
        row[name] = [
            image | {"bytes": None if image["bytes"] is None else base64.b64decode(image["bytes"])}
            for image in row[name]
        ]
    return to_pair(row, find=image_ref)
