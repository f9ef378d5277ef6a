"""Pairs of the policy's own answers, an annotator saying which is better (Online-DPO)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from verisight.models.policy import Policy
from verisight.models.ranks import ranks
from verisight.sources.collect import collect, numbered, unusable
from verisight.types import Annotator, Answer, Comparison, Decoding, Pair, Prompt, Sampled, Source, Verdict

TIE = "annotator sees no difference"
UNPARSABLE = "verdict unparsable"
EQUAL_ANSWERS = "all answers alike"
CUT_OFF = "answer cut off, empty or not plain text"
Verdicts = dict[tuple[int, int], Verdict]


class _Asked(NamedTuple):
    """A draw's name, its prompt, different answers, and where the verdicts on each two of them go."""

    uid: str
    prompt: Prompt
    answers: list[str]
    verdicts: Verdicts


class _Question(NamedTuple):
    """An example, different answers to its prompt, and the verdict on each two of them by their numbers."""

    example: Pair
    answers: list[str]
    verdicts: Verdicts


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
        named = list(zip(prompts, (example.prompt for example in examples), strict=True))
        told = ranks().share(named, lambda some: self._judged(some, policy))
        asked = [_Question(one, answers, verdicts) for one, (answers, verdicts) in zip(examples, told, strict=True)
                 if not isinstance(answers, str)]  # fmt: skip
        self._left_out.update(answers for answers, _ in told if isinstance(answers, str))
        return [pair for question in asked if (pair := self._pair(question))]

    def _judged(
        self, named: Sequence[tuple[Prompt, Prompt]], policy: Policy
    ) -> list[tuple[list[str] | str, Verdicts]]:  # fmt: skip
        """Of prompts, named by draw and as they are: different answers, or why there are not two, and the verdicts."""
        prompts = [prompt for prompt, _ in named]
        rows = policy.sample(prompts, decoding=self._decoding, seed=self._seed, num=self._num_samples)
        found: list[tuple[list[str] | str, Verdicts]] = [(_usable(row), {}) for row in rows]
        self._ask([
            _Asked(drawn.uid, prompt, answers, verdicts)
            for (drawn, prompt), (answers, verdicts) in zip(named, found, strict=True) if not isinstance(answers, str)
        ])  # fmt: skip
        return found

    def _ask(self, asked: Sequence[_Asked]) -> None:
        """Every two answers of every prompt, in one call of the annotator; fills the verdicts."""
        places = [(one, a, b) for one in asked for a, b in combinations(range(len(one.answers)), 2)]
        comparisons = [
            Comparison(f"{one.uid}/{a}-{b}", one.prompt, one.answers[a], one.answers[b]) for one, a, b in places
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


def _usable(row: Sequence[Sampled]) -> list[str] | str:
    """The different whole answers, or why there are not two."""
    whole = [one.text for one in row if one.text.strip() and not one.truncated and not unusable(one.text)]
    unlike = list({_plain(text): text for text in reversed(whole)}.values())[::-1]
    return unlike if len(unlike) >= 2 else EQUAL_ANSWERS if len(whole) >= 2 else CUT_OFF


def _plain(text: str) -> str:
    """Words only, in lower case; answers without any keep their characters."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text
