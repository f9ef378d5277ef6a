"""Rewritten references: a language model makes the true answer wrong (the paper's section 4, VLFeedbackCorrupted)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from verisight.data.segments import changed_words
from verisight.data.unusable import Unusable
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.negatives.guidance import Written
from verisight.negatives.rewrite_prompt import (
    EXAMPLES,
    NO_REPLY,
    Example,
    Read,
    ask,
    read_reply,
    refuses,
    version,
)
from verisight.types import Chat, Decoding, Prompt, Reply, Request, UserError

_RATIO, _SLACK = 2.0, 40  # a changed answer is at most twice as long and 40 characters more; shorter likewise
_PHRASE = 8  # words in a row that are ours, not the model's
_HINT = re.compile(
    r"\b(?:original|true|correct|reference|changed|modified|altered|wrong|incorrect|false|corrupted) "
    r"(?:answer|version|response|statement)\b|\bhallucinat|\b(?:incorrect|changed|wrong|altered|fabricated)\)"
    r"|^\W*(?:question|(?:true |changed |wrong )?answer|note|explanation|changes?(?: made)?)\W*:",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A chat model changes facts of the reference into plausible wrong ones and leaves the rest as it is.

    It reads question and reference; with `show_image` it sees the picture too, without (as in the paper) the text
    alone. The policy, what it sees (`sights`) and its decoding have no part in it. The examples stand in an order
    drawn for each row, so that a row asked with another seed is another question, for models that always answer alike
    too.

    A reply that is a refusal, the reference in other case, blanks or punctuation, of another length, not between its
    marks, or repeats the instruction is asked for again, `retries` times, with the reason and under another uid. Then
    the row is given up: an empty text and `problem` in its notes. Whether other words say the same thing cannot be
    known here: `judge check` and a look at the pairs tell how often they do.

    Raises:
        UserError: `retries` below 0, or an example that `fault` objects to.
    """

    chat: Chat
    retries: int = 2
    examples: tuple[Example, ...] = EXAMPLES
    show_image: bool = False

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise UserError(f"retries: found {self.retries}; accepted: 0 or more")
        for number, one in enumerate(self.examples):
            if why := fault(one.answer, one.changed) if one.question.strip() and one.answer.strip() else "a blank text":
                raise UserError(f"examples: number {number}: found {why}; accepted: question, answer, changed answer")

    @property
    def kind(self) -> str:
        """Its name in notes."""
        return "rewrite"

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """One answer per reference, "" where the row was given up.

        Notes: `writer` (the model), `attempts`, `prompt_version`, `failed` (why earlier attempts gave nothing), and
        `problem` of a row given up. All rows of an attempt go to the chat model in one call.
        """
        orders = [rng.permutation(len(self.examples)) for rng in rngs]
        shown = [tuple(self.examples[i] for i in order) for order in orders]
        ours = _phrases(self.examples)
        found: list[Read] = [Read("")] * len(prompts)
        failed: list[list[str]] = [[] for _ in prompts]
        left = list(range(len(prompts)))
        for attempt in range(1, self.retries + 2):
            requests: dict[int, Request] = {}
            for i in left:
                why = failed[i][-1] if failed[i] else ""
                try:
                    text = ask(
                        prompts[i], references[i], examples=shown[i], shows_image=self.show_image, failed=why,
                        attempt=attempt,
                    )  # fmt: skip
                except Unusable as error:
                    found[i] = Read("", f"{error.reason}: {error.detail}")
                    continue
                images = prompts[i].images if self.show_image else ()
                requests[i] = Request(f"{prompts[i].uid}#{seed}/{attempt}", text, images)
            replies = self.chat.ask(list(requests.values())) if requests else []
            for i, reply in zip(requests, replies, strict=True):
                found[i] = _read(reply, references[i], ours=ours - _phrases_of(references[i], prompts[i].text))
                if found[i].problem:
                    failed[i].append(found[i].problem if not reply.problem else NO_REPLY)
            left = [i for i in requests if found[i].problem]
        return [self._written(*row) for row in zip(references, found, failed, strict=True)]
