"""Rewritten references: a language model makes the true answer wrong (the paper's section 4, VLFeedbackCorrupted)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from verisight.data.segments import changed_words
from verisight.data.unusable import Unusable
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.negatives.guidance import Written
from verisight.negatives.rewrite_prompt import EXAMPLES, Example, ask, check, our_texts, read_reply, refuses, version
from verisight.types import Chat, Decoding, Prompt, Reply, Request, UserError

_RATIO, _SLACK = 2.0, 40  # a changed answer is at most twice as long and 40 characters more; shorter likewise
_TELLING = re.compile(r"%|(?<=\w)#|[-#/.,:](?=\d)")  # 50%, C#, -5, 1/2, 3.5: no mere punctuation
_PHRASE = 8  # so many words in a row are no accident
_HINT = re.compile(
    r"\b(?:original|true|correct|reference|changed|modified|altered|wrong|incorrect|false|corrupted) "
    r"(?:answer|version|response|statement)\b|\bhallucinat|\((?:incorrect|changed|wrong|altered|false)\b"
    r"|^\W*(?:question|(?:true |changed |wrong )?answer|note|explanation|changes?(?: made)?)\W*:",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(slots=True)
class _Row:
    """A reference on its way: what came of it so far. `tries`: why each attempt gave nothing."""

    prompt: Prompt
    reference: str
    examples: tuple[Example, ...]
    text: str = ""
    problem: str = ""
    num_attempts: int = 0
    tries: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A chat model makes facts of the reference wrong, plausibly, and leaves the rest as it is.

    It reads question and reference; only with `show_image` does it see the picture (the paper's does not). The policy,
    what it sees (`sights`) and its decoding have no part in it. The examples stand in an order drawn for each row, so
    that with another seed a model that always answers alike is asked something else.

    A reply without an answer between its marks, a refusal, and an answer that `fault` objects to are asked for again
    under another uid, with the reason, `retries` times. Then the row is given up: an empty text, and `problem` in its
    notes. Whether other words say the same thing cannot be known here: look at the pairs.

    Raises:
        UserError: `retries` below 0, a blank text in an example, or one whose changed answer `fault` objects to.
    """

    chat: Chat
    retries: int = 2
    examples: tuple[Example, ...] = EXAMPLES
    show_image: bool = False

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise UserError(f"retries: found {self.retries}; accepted: 0 or more")
        for number, one in enumerate(self.examples):
            found = fault(one.changed, one.answer) if all(map(str.strip, one)) else "a blank text"
            if found:
                accepted = "a question, its true answer, that answer made wrong"
                raise UserError(f"examples: found {found} in number {number}; accepted: {accepted}")

    @property
    def kind(self) -> str:
        """Its name in notes."""
        return "rewrite"

    def write(
        self, policy: Policy, prompts: Sequence[Prompt], references: Sequence[str], *, sights: Sequence[Sight],
        rngs: Sequence[np.random.Generator], seed: int, decoding: Decoding,
    ) -> list[Written]:  # fmt: skip
        """One answer per reference; "" where the row was given up. An attempt asks for all rows at once.

        Notes: `writer` (the model), `attempts`, `tries` (why each of them gave nothing), `prompt_version`, and
        `problem` of a row given up. `spans` are the words that differ from the reference.
        """
        rows = [self._row(*one) for one in zip(prompts, references, rngs, strict=True)]
        for attempt in range(1, self.retries + 2):
            left = [row for row in rows if not row.text and not row.problem]
            requests = [self._request(row, f"{row.prompt.uid}#{seed}.{attempt}") for row in left]
            for row, reply in zip(left, self.chat.ask(requests) if left else (), strict=True):
                self._take(row, reply)
        return [self._written(row) for row in rows]

    def _row(self, prompt: Prompt, reference: str, rng: np.random.Generator) -> _Row:
        row = _Row(prompt, reference, tuple(self.examples[i] for i in rng.permutation(len(self.examples))))
        try:
            check(prompt, reference)
        except Unusable as error:
            row.problem = f"{error.reason}: {error.detail}"
        return row

    def _request(self, row: _Row, uid: str) -> Request:
        text = ask(row.prompt, row.reference, examples=row.examples, shows_image=self.show_image, tries=row.tries)
        return Request(uid, text, row.prompt.images if self.show_image else ())

    def _take(self, row: _Row, reply: Reply) -> None:
        """Note what came of an attempt."""
        row.num_attempts += 1
        told = "no reply" if reply.problem else ""
        if not told:
            text, told = read_reply(reply.text, row.reference)
            told = told or fault(text, row.reference) or self._leak(text, row)
            row.text = "" if told else text
        if told:
            row.tries.append(told)
        if told and row.num_attempts > self.retries:
            row.problem = f"{told}: {reply.problem}" if reply.problem else told

    def _leak(self, text: str, row: _Row) -> str:
        own = _phrases(row.reference, row.prompt.text, *(turn.text for turn in row.prompt.history))
        ours = _phrases(*our_texts(self.examples, shows_image=self.show_image))
        return "words of the instruction" if (_phrases(text) - own) & ours else ""

    def _written(self, row: _Row) -> Written:
        told = version(self.examples, shows_image=self.show_image)
        notes = {"writer": self.chat.name, "attempts": row.num_attempts, "tries": row.tries, "prompt_version": told}
        if row.problem:
            return Written("", (), notes | {"problem": row.problem})
        return Written(row.text, changed_words(row.reference, row.text).rejected, notes)


def fault(text: str, reference: str) -> str:
    """Why a text cannot stand beside its reference as a wrong answer, "" if nothing speaks against it.

    Found are: nothing changed but case, blanks and punctuation (that of numbers counts); a length of more than twice
    the reference's and 40 characters more, or less than half of it and 40 fewer; a refusal, and words that tell of a
    change ("the original answer", "Note:"), where the reference has none.
    """
    if refuses(text) and not refuses(reference):
        return "a refusal"
    if _words(text) == _words(reference):
        return "nothing is changed"
    if len(text) > _RATIO * len(reference) + _SLACK:
        return "too long"
    if len(text) < len(reference) / _RATIO - _SLACK:
        return "too short"
    return "a hint at the change" if _HINT.search(text) and not _HINT.search(reference) else ""


def _words(text: str) -> list[str]:
    """Letters, numbers with their signs, and symbols of a text, split where anything else stands, in one case."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    telling = {found.start() for found in _TELLING.finditer(plain)}
    return "".join(
        char if at in telling or unicodedata.category(char)[0] in "LMNS" else " " for at, char in enumerate(plain)
    ).split()


def _phrases(*texts: str) -> set[tuple[str, ...]]:
    told = [_words(text) for text in texts]
    return {tuple(words[at : at + _PHRASE]) for words in told for at in range(len(words) - _PHRASE + 1)}
