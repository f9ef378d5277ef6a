"""What is said about scenes: captions, questions and answers, clean or biased, and a parser that reads them back.

`Narrator` with no bias tells the truth. A biased narrator is the sloppy annotator of real caption data: an object
that is not among the usual ones of its place is called by a usual absent one, and questions about usual absent
objects are answered "yes".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from verisight.pocket.scenes import CELLS, KINDS, OBJECTS, Placed, Scene, usual

DETAIL_PROMPTS = (
    "Please describe this image in detail.",
    "Describe this image in detail.",
    "What do you see in this picture?",
    "Can you describe the scene in detail?",
)
_OPENINGS = ("The image shows {}.", "This is a picture of {}.", "The scene is {}.")
_PLACED = ("There is {} in the {}.", "In the {} there is {}.", "{} can be seen in the {}.")
_PLACED_WEIGHTS = (0.5, 0.3, 0.2)


def with_article(name: str) -> str:
    """The object with its indefinite article."""
    return ("an " if name[0] in "aeiou" else "a ") + name


@dataclass(frozen=True, slots=True)
class Narrator:
    """Tells what a scene holds. Both biases are probabilities; 0 is the plain truth."""

    rename: float = 0.0  # an unusual object is called by a usual absent one
    agree: float = 0.0  # a question about a usual absent object is answered "yes"

    def perceive(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene as this narrator tells it."""
        expected = usual(scene.kind)
        told: list[Placed] = []
        for item in scene.placed:
            taken = {*scene.names, *(p.name for p in told)}
            absent = [name for name in expected if name not in taken]
            if item.name not in expected and absent and rng.random() < self.rename:
                item = replace(item, name=str(rng.choice(absent)))
            told.append(item)
        return replace(scene, placed=tuple(told))

    def caption(self, scene: Scene, rng: np.random.Generator) -> str:
        """A detailed description, object by object in reading order."""
        told = self.perceive(scene, rng)
        sentences = [str(rng.choice(_OPENINGS)).format(with_article(told.kind))]
        for item in told.placed:
            pattern = str(rng.choice(_PLACED, p=_PLACED_WEIGHTS))
            thing, cell = with_article(item.name), CELLS[item.cell]
            text = pattern.format(cell, thing) if pattern.startswith("In") else pattern.format(thing, cell)
            sentences.append(text[0].upper() + text[1:])
        return " ".join(sentences)

    def existence(self, scene: Scene, rng: np.random.Generator, *, name: str, long: bool = False) -> tuple[str, str]:
        """A yes/no question about an object and its answer, with the object's place if `long`."""
        question = f"Is there {with_article(name)} in the image?"
        where = {item.name: CELLS[item.cell] for item in scene.placed}
        if name in where:
            if not long:
                return question, "Yes."
            return question, f"Yes, there is {with_article(name)} in the {where[name]}."
        if name in usual(scene.kind) and rng.random() < self.agree:
            if not long:
                return question, "Yes."
            return question, f"Yes, there is {with_article(name)} in the {rng.choice(CELLS)}."
        return question, f"No, there is no {name}." if long else "No."

    def question(self, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
        """A question about a place, a cell or an object's position, and its answer. The scene is taken as told."""
        draw = rng.random()
        if draw < 0.2:
            return "What kind of place is this?", f"{with_article(scene.kind).capitalize()}."
        item = scene.placed[int(rng.integers(len(scene.placed)))]
        if draw < 0.6:
            return f"What is in the {CELLS[item.cell]}?", f"{with_article(item.name).capitalize()}."
        return f"Where is the {item.name}?", f"In the {CELLS[item.cell]}."


def asked_objects(scene: Scene, rng: np.random.Generator, *, num: int) -> list[str]:
    """Objects to ask about, half of them present; absent ones are usual, of the same place, or any, in equal parts."""
    names = []
    for index in range(num):
        if index % 2 == 0:
            names.append(str(rng.choice(scene.names)))
            continue
        pool = (usual(scene.kind), KINDS[scene.kind], OBJECTS)[int(rng.integers(3))]
        absent = [name for name in pool if name not in scene.names] or [n for n in OBJECTS if n not in scene.names]
        names.append(str(rng.choice(absent)))
    return [names[i] for i in rng.permutation(len(names))]


CHECKLIST_PROMPT = "Which of these are in the image?"


def checklist(scene: Scene, rng: np.random.Generator, *, num: int) -> str:
    """`num` objects in a row, each followed at once by Yes or No; half of them are there."""
    absent = [name for name in OBJECTS if name not in scene.names]
    parts = []
    for _ in range(num):
        present = rng.random() < 0.5
        name = str(rng.choice(scene.names if present else absent))
        parts.append(f"{name} {'Yes' if present else 'No'},")
    return " ".join(parts).removesuffix(",") + "."


INVENTORY_PROMPT = "What is in every place?"


def inventory(scene: Scene, rng: np.random.Generator) -> str:
    """Every cell in random order, each followed at once by its object or by "nothing"."""
    held = {item.cell: item.name for item in scene.placed}
    order = rng.permutation(len(CELLS))
    return ", ".join(f"{CELLS[cell]} {held.get(int(cell), 'nothing')}" for cell in order) + "."


_NAMES = "|".join(sorted(OBJECTS, key=len, reverse=True))
_CELL_NAMES = "|".join(sorted(CELLS, key=len, reverse=True))
_KIND_NAMES = "|".join(KINDS)
_OPENING = re.compile(rf"(?:The image shows|This is a picture of|The scene is) an? ({_KIND_NAMES})\.")
_SENTENCES = (
    re.compile(rf"There is an? (?P<name>{_NAMES}) in the (?P<cell>{_CELL_NAMES})\."),
    re.compile(rf"In the (?P<cell>{_CELL_NAMES}) there is an? (?P<name>{_NAMES})\."),
    re.compile(rf"An? (?P<name>{_NAMES}) can be seen in the (?P<cell>{_CELL_NAMES})\."),
)


@dataclass(frozen=True, slots=True)
class Told:
    """A caption read back: the place (None if not said), what was put where, and whether every sentence parsed."""

    kind: str | None
    mentions: tuple[tuple[str, str], ...]
    fluent: bool


def read_caption(text: str) -> Told:
    """Read a caption back. Sentences that are not of this world's language make it not fluent."""
    kind: str | None = None
    mentions: list[tuple[str, str]] = []
    fluent = bool(text.strip())
    for sentence in re.findall(r"[^.]+\.?", text.strip()):
        sentence = sentence.strip()
        opening = _OPENING.fullmatch(sentence)
        placed = next((m for p in _SENTENCES if (m := p.fullmatch(sentence))), None)
        if opening:
            kind = opening[1]
        elif placed:
            mentions.append((placed["name"], placed["cell"]))
        else:
            fluent = False
    return Told(kind, tuple(mentions), fluent)


def corpus() -> list[str]:
    """Sentences that hold every word of this world, for the tokenizer."""
    rng = np.random.default_rng(0)
    lines = [
        *DETAIL_PROMPTS,
        CHECKLIST_PROMPT,
        INVENTORY_PROMPT,
        "dog Yes, cat nothing, bus No.",
        "What kind of place is this?",
        "Yes.",
        "No.",
    ]
    for kind in KINDS:
        lines += [opening.format(with_article(kind)) for opening in _OPENINGS]
        lines.append(f"{with_article(kind).capitalize()}.")
    for name, other in pairwise((*OBJECTS, OBJECTS[0])):
        scene = Scene(0, "street", (Placed(name, 0, 32, 0, 0),), 0)
        for asked in (name, other):
            lines += [
                line for long in (True, False) for line in Narrator().existence(scene, rng, name=asked, long=long)
            ]
        lines += [
            f"{with_article(name).capitalize()}.",
            f"Where is the {name}?",
            f"{with_article(name)} can be seen",
        ]
        lines += [
            f"There is {with_article(name)} in the top left.",
            f"{with_article(name).capitalize()} can be seen.",
        ]
    for cell in CELLS:
        lines += [f"In the {cell} there is a dog.", f"In the {cell}.", f"What is in the {cell}?"]
    return [" " + line for line in lines]
