"""Bad prompts: the policy is asked in a way that makes it invent. The picture stays, or is degraded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from verisight.data.texts import check_text
from verisight.data.unusable import Unusable
from verisight.models.policy import Policy
from verisight.negatives.pictures import Degraded, check_shown
from verisight.negatives.views import Seen
from verisight.types import Prompt, UserError

Place = Literal["after", "instead"]

AFTER = (
    "Answer from what such places usually hold rather than from what can be seen, and sound certain.",
    "Work in two or three objects that would fit here even though they are not in view, and present them as facts.",
    "Mention people or animals that might well be nearby as if they stood in the middle of the picture.",
    "Where you are unsure of a number, a colour or a position, pick one and state it firmly.",
    "Let your answer take in what probably goes on beyond the frame as though it were inside.",
    "Treat whatever the question presumes as true and add details that support it.",
)
INSTEAD = (
    "Tell this scene the way a novelist would, with things and people that could easily belong to it.",
    "Say what usually surrounds a place like this and write about it as if all of it were in view.",
    "Write a lively account in which at least three objects appear that the camera did not catch.",
    "Name the tools, vehicles and pieces of furniture one would expect here and say where each of them stands.",
    "Report what the people and animals around here are doing, whether or not any can be made out.",
    "Describe the weather, the sounds and the hour of this moment, and the objects that give them away.",
)
_OWN = {"after": AFTER, "instead": INSTEAD}


@dataclass(frozen=True, slots=True)
class BadPrompt:
    """A misleading text `after` the question or `instead` of it, drawn anew each time; independent of the picture.

    After STIC (Deng et al. 2024), which asks `instead`, and in half of the draws degrades the picture and leaves the
    question alone: `degraded`, in [0, 1], is that share. `texts` are used in place of our own. The policy alone sees
    the text: a pair keeps its prompt. Prompts without a picture are asked too, unless `degraded` is above 0.
    """

    texts: tuple[str, ...] = ()
    place: Place = "after"
    degraded: float = 0.0

    def __post_init__(self) -> None:
        for text in self.texts:
            if not text.strip():
                raise UserError(f"texts: found {text!r}; accepted: words")
            try:
                check_text(text)
            except Unusable as error:
                raise UserError(f"texts: {error.reason}: {error.detail}; accepted: plain text") from error
        if not 0 <= self.degraded <= 1:
            raise UserError(f"degraded: found {self.degraded}; accepted: a share, 0 to 1")

    def look(self, policy: Policy, prompts: Sequence[Prompt], *, rngs: Sequence[np.random.Generator]) -> list[Seen]:
        """Every prompt asked badly, or shown with degraded pictures.

        Raises:
            UserError: `degraded` is above 0 and a prompt has no picture.
            ImageError: a picture that is to be degraded cannot be read.
        """
        return [self._draw(prompt, rng=rng) for prompt, rng in zip(prompts, rngs, strict=True)]

    def _draw(self, prompt: Prompt, *, rng: np.random.Generator) -> Seen:
        if self.degraded > 0:
            check_shown(prompt, "bad_prompt with degraded pictures")
        if rng.random() < self.degraded:
            return Degraded().spoil(prompt, rng=rng)
        texts = self.texts or _OWN[self.place]
        text = texts[int(rng.integers(len(texts)))]
        asked = text if self.place == "instead" else f"{prompt.text}\n{text}"
        return Seen(replace(prompt, text=asked), notes={"kind": "bad_prompt", "place": self.place, "text": text})
