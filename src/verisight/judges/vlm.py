"""A vision-language model as annotator, asked in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from verisight.judges.instruction import FULL, Wording, instruction, parse
from verisight.judges.orders import ask_both
from verisight.types import Chat, Comparison, Request, Verdict

NO_REPLY = "no reply: "  # how the reason of such a verdict begins


class ChatAnnotator:
    """Any chat model, over HTTP or on this machine, as annotator (`types.Annotator`).

    With `both_orders` each comparison is asked both ways, and a disagreement is a tie (reason "order"). `counts`
    counts what was asked and what came: "comparisons", "first", "second", "tie", "order", "unparsable", and
    "no reply" (unparsable because the model could not be asked).
    """

    def __init__(self, chat: Chat, *, both_orders: bool = False, wording: Wording = FULL) -> None:
        self._chat, self._both_orders, self._wording = chat, both_orders, wording
        self.counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The chat model."""
        return f"{self._chat.name}, both orders" if self._both_orders else self._chat.name

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict each, in order. The answers are shown as A and B with the pictures of their prompt."""
        verdicts = ask_both(self._ask, comparisons) if self._both_orders else self._ask(comparisons)
        for verdict in verdicts:
            self.counts.update(["comparisons", verdict.winner])
            if verdict.winner == "tie" and verdict.reason == "order":
                self.counts["order"] += 1
            if verdict.winner == "unparsable" and verdict.reason.startswith(NO_REPLY):
                self.counts["no reply"] += 1
        return verdicts

    def _ask(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        replies = self._chat.ask(
            [Request(one.uid, instruction(one, self._wording), one.prompt.images) for one in comparisons]
        )
        verdicts = []
        for reply in replies:
            if reply.problem:
                verdicts.append(Verdict("unparsable", f"{NO_REPLY}{reply.problem}"))
                continue
            choice, why = parse(reply.text)
            match choice:
                case "A":
                    verdicts.append(Verdict("first", "verdict", reply.text))
                case "B":
                    verdicts.append(Verdict("second", "verdict", reply.text))
                case "tie":
                    verdicts.append(Verdict("tie", "verdict", reply.text))
                case None:
                    verdicts.append(Verdict("unparsable", why, reply.text))
        return verdicts
