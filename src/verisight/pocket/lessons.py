"""Training rows of the pocket model, drawn scene by scene: a `Source` of supervised conversations."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from verisight.pocket.datasets import WORLD_SEED, scene
from verisight.pocket.language import (
    CHECKLIST_PROMPT,
    DETAIL_PROMPTS,
    INVENTORY_PROMPT,
    Narrator,
    asked_objects,
    checklist,
    inventory,
)
from verisight.pocket.scenes import Scene, render
from verisight.pocket.vision import shuffled
from verisight.types import Answer, ImageRef, Message, Pair, Prompt

_KINDS = ("captions", "questions", "checklists", "inventories", "text_only")
_CHECKLIST_ITEMS = 20
_EXISTENCE_QUESTIONS = 6
_OTHER_QUESTIONS = 3


@dataclass(frozen=True, slots=True)
class Lesson:
    """A stage's mixture. Shares sum to 1; `text_only` rows describe a scene that is not shown."""

    captions: float = 0.0
    questions: float = 0.0
    checklists: float = 0.0
    inventories: float = 0.0
    text_only: float = 0.0
    shuffled: float = 0.0  # share of shown scenes whose objects are drawn from the whole world
    narrator: Narrator = Narrator()


class Lessons:
    """Draws rows of a lesson from the base split. `start` is the first scene, so stages share none."""

    def __init__(self, lesson: Lesson, *, start: int) -> None:
        self._lesson = lesson
        self._start = start
        self._drawn = 0

    def draw(self, n: int, policy: Any = None) -> list[Pair]:
        """The next n rows. `policy` is ignored."""
        rows = [self._row(scene("base", self._start + self._drawn + index)) for index in range(n)]
        self._drawn += n
        return rows

    def counts(self) -> dict[str, int]:
        """Nothing is left out here."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """How many rows were drawn."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many."""
        self._drawn = int(state["drawn"])

    def _row(self, one: Scene) -> Pair:
        lesson, rng = self._lesson, np.random.default_rng([WORLD_SEED, 80, one.uid])
        shares = (lesson.captions, lesson.questions, lesson.checklists, lesson.inventories, lesson.text_only)
        kind = _KINDS[int(rng.choice(len(_KINDS), p=shares))]
        if kind != "text_only" and rng.random() < lesson.shuffled:
            one = shuffled(one)
        match kind:
            case "questions":
                turns = _questions(one, lesson.narrator, rng)
            case "checklists":
                turns = [(CHECKLIST_PROMPT, checklist(one, rng, num=_CHECKLIST_ITEMS))]
            case "inventories":
                turns = [(INVENTORY_PROMPT, inventory(one, rng))]
            case _:
                turns = [(str(rng.choice(DETAIL_PROMPTS)), lesson.narrator.caption(one, rng))]
        return conversation(one, turns, shown=kind != "text_only")


def conversation(one: Scene, turns: list[tuple[str, str]], *, shown: bool = True) -> Pair:
    """Questions and answers about one scene as one supervised multi-turn row."""
    (question, answer), rest = turns[0], turns[1:]
    follow_up: list[Message] = []
    for asked, told in rest:
        follow_up += [Message("user", asked), Message("assistant", told)]
    images = (ImageRef(data=_bitmap(one)),) if shown else ()
    prompt = Prompt(str(one.uid), images, question, split_group=str(one.uid), provenance=f"pocket scene {one.uid}")
    return Pair(prompt, Answer(answer, tuple(follow_up)), origin="pocket")


def _questions(one: Scene, narrator: Narrator, rng: np.random.Generator) -> list[tuple[str, str]]:
    told = narrator.perceive(one, rng)
    turns = [
        narrator.existence(told, rng, name=name, long=bool(rng.random() < 0.15))
        for name in asked_objects(told, rng, num=_EXISTENCE_QUESTIONS)
    ]
    turns += [narrator.question(told, rng) for _ in range(_OTHER_QUESTIONS)]
    return [turns[i] for i in rng.permutation(len(turns))]


def _bitmap(one: Scene) -> bytes:
    buffer = BytesIO()
    render(one).save(buffer, format="BMP")  # nothing to compress: it is decoded at once
    return buffer.getvalue()
