"""Pairs of the policy's own answers, an annotator saying which is better (Online-DPO)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from verisight.models.policy import Policy
from verisight.sources.collect import collect, numbered, unusable
from verisight.types import Annotator, Answer, Comparison, Decoding, Pair, Sampled, Source, Verdict

TIE = "annotator sees no difference"
UNPARSABLE = "verdict unparsable"
EQUAL_ANSWERS = "all answers alike"
CUT_OFF = "answer cut off, empty or not plain text"


class _Question(NamedTuple):
    """A prompt, the name of this draw, its different answers, and the verdict on each two of them by their numbers."""

    example: Pair
    uid: str
    answers: list[str]
    verdicts: dict[tuple[int, int], Verdict]


class Online:
    """Samples `num_samples` answers to the next prompts from the current policy and pairs the best with the worst.

    Guo et al. 2024 (online AI feedback); the paper's Online-DPO has two samples. The annotator compares every two of
    a prompt's different answers (k (k - 1) / 2 questions); best is who wins most comparisons less those it loses, and
    it has to win that with the worst.
    Answers that differ in case, blanks and punctuation only are one. Prompts are passed over, and counted by reason,
    where answers were cut off or empty, all alike, tied, or all verdicts unparsable.

    Raises:
        UserError: by `draw`, after as many examples as 10 batches have, one after another, without a pair.
    """

    def __init__(
        self, prompts: Source, annotator: Annotator, *, decoding: Decoding, num_samples: int = 2, seed: int,
        batch_size: int = 16, stream: str = "",
    ) -> None:  # fmt: skip
        assert num_samples >= 2, "a comparison needs two answers"
        self._prompts = prompts
        self._annotator = annotator
        self._decoding = decoding
        self._num_samples = num_samples
        self._seed = seed
        self._batch_size = batch_size
        self._stream = stream
        self._num_drawn = 0
        self._left_out: Counter[str] = Counter()

    def draw(self, n: int, policy: Policy) -> list[Pair]:
        """The next n pairs: answers of `policy` as it is now."""
        return collect(n, lambda num: self._attempt(num, policy), batch_size=self._batch_size, left_out=self._left_out)

    def _attempt(self, num: int, policy: Policy) -> list[Pair]:
        examples = self._prompts.draw(num, policy)
        prompts = numbered([example.prompt for example in examples], first=self._num_drawn, stream=self._stream)
        self._num_drawn += len(examples)
        rows = policy.sample(prompts, decoding=self._decoding, seed=self._seed, num=self._num_samples)
        asked = [
            _Question(example, prompt.uid, answers, {})
            for example, prompt, row in zip(examples, prompts, rows, strict=True)
            if (answers := self._usable(row))
        ]
        self._ask(asked)
        return [pair for question in asked if (pair := self._pair(question))]

    def _usable(self, row: Sequence[Sampled]) -> list[str]:
        """The different whole answers, none if there are not two."""
        whole = [one.text for one in row if one.text.strip() and not one.truncated and not unusable(one.text)]
        unlike = list({_plain(text): text for text in reversed(whole)}.values())[::-1]
        if len(unlike) >= 2:
            return unlike
        self._left_out[EQUAL_ANSWERS if len(whole) >= 2 else CUT_OFF] += 1
        return []

    def _ask(self, asked: Sequence[_Question]) -> None:
        """Every two answers of every prompt, in one call of the annotator."""
        places = [(one, a, b) for one in asked for a, b in combinations(range(len(one.answers)), 2)]
        comparisons = [
            Comparison(f"{one.uid}/{a}-{b}", one.example.prompt, one.answers[a], one.answers[b]) for one, a, b in places
        ]
        verdicts = self._annotator.compare(comparisons) if comparisons else []
        for (one, a, b), verdict in zip(places, verdicts, strict=True):
            one.verdicts[a, b] = verdict

    def _pair(self, question: _Question) -> Pair | None:
        """Best against worst, or None where they are not singled out or their own comparison does not say so."""
        score = [0] * len(question.answers)
        for (a, b), verdict in question.verdicts.items():
            won = {"first": 1, "second": -1}.get(verdict.winner, 0)
            score[a] += won
            score[b] -= won
        best, worst = (extreme(range(len(score)), key=score.__getitem__) for extreme in (max, min))
        first, second = sorted((best, worst)) if best != worst else (0, 1)
        between = question.verdicts[first, second]
        if all(verdict.winner == "unparsable" for verdict in question.verdicts.values()):
            self._left_out[UNPARSABLE] += 1
            return None
        if between.winner != ("first" if best == first else "second") or score[best] == score[worst]:
            self._left_out[TIE] += 1
            return None
        notes = {
            "annotator": self._annotator.name, "verdict": between.reason, "num_samples": self._num_samples
        }  # fmt: skip
        chosen, rejected = question.answers[best], question.answers[worst]
        return Pair(question.example.prompt, Answer(chosen), (Answer(rejected),), (1.0,), "online", notes)

    def counts(self) -> dict[str, int]:
        """What was left out so far, by reason."""
        return dict(self._left_out)

    def state_dict(self) -> dict[str, Any]:
        """Position in the prompts and in the random stream."""
        return {
            "prompts": self._prompts.state_dict(), "num_drawn": self._num_drawn, "left_out": dict(self._left_out)
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the state was taken."""
        self._prompts.load_state_dict(state["prompts"])
        self._num_drawn, self._left_out = int(state["num_drawn"]), Counter(state["left_out"])


def _plain(text: str) -> str:
    """Words only, in lower case; answers without any keep their characters."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text
