"""The oracle: knows a scene, so it can judge what is said about it, mend it, and spoil it plausibly.

It works sentence by sentence. Noise is not its business: who errs when asking it is in `verisight.pocket.raters`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from verisight.pocket.language import Narrator, read_caption, with_article
from verisight.pocket.scenes import CELL_SIZE, CELLS, KINDS, OBJECTS, Placed, Scene, usual

Fault = Literal["", "absent", "misplaced", "wrong place", "denied", "garbled"]

_TRUTH = Narrator()
_TWO_ERRORS = 0.5  # share of corrupted descriptions that get two
_WAYS = {"swap": 0.45, "add": 0.25, "move": 0.2, "place": 0.1}
_YES_NO = re.compile(r"(?P<word>Yes|No)(?:, there is (?P<rest>.+))?\.")
_SHORT = 0.75  # helpfulness of a right "Yes." that does not say where


@dataclass(frozen=True, slots=True)
class Task:
    """A question about a scene. `asked` is the object of a yes/no question, None when a description is wanted."""

    scene: Scene
    question: str
    asked: str | None = None

    @property
    def where(self) -> dict[str, str]:
        """Object -> the cell it is in."""
        return {item.name: CELLS[item.cell] for item in self.scene.placed}


class Claim(NamedTuple):
    """One sentence of an answer. `name`: the object, or the kind of place; `cell`: where, "" if not said."""

    sentence: str
    kind: Literal["place", "object", "yes", "no", "other"]
    name: str = ""
    cell: str = ""


class Verdict(NamedTuple):
    """An answer against the scene.

    `faults` holds one word per claim, "" where it is true. `missed`: objects a description does not name. `recall`
    in [0, 1]: objects named; of a yes/no answer 1 if right, 0.75 if right in one word, 0 if wrong.
    """

    claims: tuple[Claim, ...]
    faults: tuple[Fault, ...]
    missed: tuple[str, ...]
    recall: float

    @property
    def num_faults(self) -> int:
        """Sentences that are not true. An empty answer counts as one."""
        return sum(fault != "" for fault in self.faults)

    @property
    def precision(self) -> float:
        """True sentences over sentences."""
        return 1 - self.num_faults / len(self.faults)


def judge(task: Task, text: str) -> Verdict:
    """What is wrong with an answer, and what it leaves out."""
    claims = tuple(_read(sentence, task.asked) for sentence in _sentences(text)) or (Claim("", "other"),)
    faults = tuple(_fault(task, claim, first=index == 0) for index, claim in enumerate(claims))
    if task.asked is not None:
        right = 0.0 if faults[0] in ("absent", "denied", "garbled") else 1.0 if "," in claims[0].sentence else _SHORT
        return Verdict(claims, faults, (), right)
    named = {claim.name for claim in claims if claim.kind == "object"}
    missed = tuple(name for name in task.scene.names if name not in named)
    return Verdict(claims, faults, missed, 1 - len(missed) / len(task.scene.names))


def correct(
    task: Task, text: str, rng: np.random.Generator, *, wrong: Sequence[bool] | None = None, add_missing: bool = False
) -> str:
    """Mend the sentences held to be wrong with as little change as can be, and leave the rest word for word.

    Args:
        task: the question.
        text: the answer.
        rng: draws the wording of what is added.
        wrong: one flag per claim of `judge`; None flags exactly the faults. A true sentence that is flagged gets
            "corrected" into an untrue one.
        add_missing: name the objects of a description that are left out.
    """
    verdict = judge(task, text)
    flags = [fault != "" for fault in verdict.faults] if wrong is None else wrong
    told = {c.name for c, fault in zip(verdict.claims, verdict.faults, strict=True) if not fault and c.kind == "object"}
    kept = []
    for index, (claim, fault, flagged) in enumerate(zip(verdict.claims, verdict.faults, flags, strict=True)):
        if not flagged:
            kept.append(claim.sentence)
        elif fault:
            kept.append(_mend(task, claim, fault, told, first=index == 0))
        else:
            kept.append(_spoil(task, claim, rng))
    mended = " ".join(filter(None, kept))
    if add_missing or not mended:
        for name in judge(task, mended).missed:
            mended = _insert(task, mended, name, task.where[name], rng)
    return mended


def corrupt(task: Task, text: str, rng: np.random.Generator) -> str:
    """The answer with one or two plausible errors more, in its own style. Only what was true is made untrue.

    An object is swapped for a usual absent one of that place, moved to a free cell, or a usual absent one is added;
    or the kind of place changes. A yes/no answer is turned round, or the object moved.
    """
    twice = task.asked is None and rng.random() < _TWO_ERRORS
    for _ in range(2 if twice else 1):
        text = _plant(task, text, rng)
    return text


def reword(task: Task, text: str, rng: np.random.Generator) -> str:
    """Other words, same content: what a corruption comes to that hits nothing."""
    claims, told = judge(task, text).claims, task.where
    able = [index for index, claim in enumerate(claims) if claim.kind != "other"]
    if not able:
        name = str(rng.choice(task.scene.names))
        return f"{text} {_say(task.scene, name, told[name], rng)}".strip()
    index = int(rng.choice(able))
    claim = claims[index]
    said = claim.sentence
    if claim.kind in ("yes", "no"):
        cell = told.get(claim.name) or _free_cell(task, rng)
        said = _yes_no(claim.kind == "yes", claim.name, cell, long="," not in said)
    while said == claim.sentence:
        place = claim.kind == "place"
        said = _say_place(task.scene, claim.name, rng) if place else _say(task.scene, claim.name, claim.cell, rng)
    return " ".join(said if at == index else other.sentence for at, other in enumerate(claims))


def _sentences(text: str) -> list[str]:
    return [stripped for found in re.findall(r"[^.]+\.?", text) if (stripped := found.strip())]


def _read(sentence: str, asked: str | None) -> Claim:
    if asked is not None and (found := _YES_NO.fullmatch(sentence)):
        rest = found["rest"]
        if rest is None:
            return Claim(sentence, "yes" if found["word"] == "Yes" else "no", asked)
        if found["word"] == "No" and rest == f"no {asked}":
            return Claim(sentence, "no", asked)
        inner = read_caption(f"There is {rest}.").mentions
        if found["word"] == "Yes" and inner and inner[0][0] == asked:
            return Claim(sentence, "yes", *inner[0])
        return Claim(sentence, "other")
    told = read_caption(sentence)
    if told.kind is not None:
        return Claim(sentence, "place", told.kind)
    return Claim(sentence, "object", *told.mentions[0]) if told.mentions else Claim(sentence, "other")


def _fault(task: Task, claim: Claim, *, first: bool) -> Fault:
    where = task.where
    if claim.kind == "other" or (task.asked is not None and first != (claim.kind in ("yes", "no"))):
        return "garbled"
    if claim.kind == "place":
        return "" if claim.name == task.scene.kind else "wrong place"
    if claim.kind == "no":
        return "denied" if claim.name in where else ""
    if claim.name not in where:
        return "absent"
    return "" if claim.cell in ("", where[claim.name]) else "misplaced"


def _mend(task: Task, claim: Claim, fault: Fault, told: set[str], *, first: bool) -> str:
    """The sentence made true, or "" to leave it out. `told`: objects said rightly elsewhere; grows."""
    where = task.where
    if task.asked is not None and first:
        if fault == "misplaced":
            return _restate(claim, cell=where[claim.name])
        return _yes_no(task.asked in where, task.asked, where.get(task.asked, ""), long="," in claim.sentence)
    if claim.kind == "place":
        return _restate(claim, name=task.scene.kind)
    if claim.kind != "object":
        return ""
    if fault == "misplaced" and claim.name not in told:
        told.add(claim.name)
        return _restate(claim, cell=where[claim.name])
    there = next((name for name, cell in where.items() if cell == claim.cell and name not in told), None)
    if there is None:
        return ""
    told.add(there)
    return _restate(claim, name=there)


def _spoil(task: Task, claim: Claim, rng: np.random.Generator) -> str:
    """A true sentence made untrue."""
    if claim.kind == "place":
        return _restate(claim, name=_other(KINDS, {claim.name}, rng))
    if claim.kind == "object":
        return _swap(task, claim, set(), rng) if rng.random() < 0.5 else _move(task, claim, rng)
    if claim.cell and rng.random() < 0.5:
        return _move(task, claim, rng)
    return _yes_no(claim.kind == "no", claim.name, _free_cell(task, rng), long="," in claim.sentence)


def _plant(task: Task, text: str, rng: np.random.Generator) -> str:
    """One error more. A sentence that is untrue already stays as it is."""
    verdict = judge(task, text)
    claims = verdict.claims
    if task.asked is not None and not verdict.faults[0]:
        return " ".join([_spoil(task, claims[0], rng), *(claim.sentence for claim in claims[1:])])
    true = [index for index, fault in enumerate(verdict.faults) if not fault]
    places = [index for index in true if claims[index].kind == "place"]
    objects = [index for index in true if claims[index].kind == "object"]
    able = {"swap": objects, "move": objects, "place": places, "add": [0]}
    ways = [way for way in _WAYS if able[way]]
    weights = np.array([_WAYS[way] for way in ways])
    way = str(rng.choice(ways, p=weights / weights.sum()))
    named = {claim.name for claim in claims}
    if way == "add":
        return _insert(task, text, _absent(task, named, rng), _free_cell(task, rng), rng)
    index = int(rng.choice(able[way]))
    if way == "place":
        changed = _spoil(task, claims[index], rng)
    else:
        changed = _swap(task, claims[index], named, rng) if way == "swap" else _move(task, claims[index], rng)
    return " ".join(changed if at == index else claim.sentence for at, claim in enumerate(claims))


def _swap(task: Task, claim: Claim, named: set[str], rng: np.random.Generator) -> str:
    return _restate(claim, name=_absent(task, named, rng))


def _move(task: Task, claim: Claim, rng: np.random.Generator) -> str:
    return _restate(claim, cell=_free_cell(task, rng))


def _absent(task: Task, named: set[str], rng: np.random.Generator) -> str:
    """An object the scene does not hold and the answer does not name, as usual for the place as possible."""
    held = {*task.scene.names, *named}
    pools = (usual(task.scene.kind), KINDS[task.scene.kind], OBJECTS)
    return _other(next(pool for pool in pools if not held.issuperset(pool)), held, rng)


def _free_cell(task: Task, rng: np.random.Generator) -> str:
    return _other(CELLS, set(task.where.values()), rng)


def _other(pool: Iterable[str], used: set[str], rng: np.random.Generator) -> str:
    return str(rng.choice([one for one in pool if one not in used]))


def _insert(task: Task, text: str, name: str, cell: str, rng: np.random.Generator) -> str:
    """The text with one more object, in reading order."""
    claims = [_read(sentence, task.asked) for sentence in _sentences(text)]
    later = (i for i, c in enumerate(claims) if c.kind == "object" and CELLS.index(c.cell) > CELLS.index(cell))
    at = next(later, len(claims))
    told = [claim.sentence for claim in claims]
    return " ".join([*told[:at], _say(task.scene, name, cell, rng), *told[at:]])


def _say(scene: Scene, name: str, cell: str, rng: np.random.Generator) -> str:
    one = replace(scene, placed=(Placed(name, CELLS.index(cell), CELL_SIZE, 0, 0),))
    return _sentences(_TRUTH.caption(one, rng))[1]


def _say_place(scene: Scene, kind: str, rng: np.random.Generator) -> str:
    return _sentences(_TRUTH.caption(replace(scene, kind=kind), rng))[0]


def _yes_no(present: bool, name: str, cell: str, *, long: bool) -> str:
    if not long:
        return "Yes." if present else "No."
    return f"Yes, there is {with_article(name)} in the {cell}." if present else f"No, there is no {name}."


def _restate(claim: Claim, *, name: str = "", cell: str = "") -> str:
    """The sentence with another object (or kind of place), or another cell, every other word kept."""
    if cell:
        return claim.sentence.replace(f"the {claim.cell}", f"the {cell}")
    old = re.search(rf"\b[Aa]n? {claim.name}\b", claim.sentence)
    assert old is not None, "a claim's name stands in its sentence"
    new = with_article(name)
    new = new.capitalize() if old[0][0] == "A" else new
    return claim.sentence[: old.start()] + new + claim.sentence[old.end() :]
