"""Who answers in the pocket world, and what is asked: narrators, and the shipped model more or less blinded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np

from verisight.models.loading import POCKET, load_model
from verisight.models.policy import Policy
from verisight.models.stores import Memory
from verisight.negatives.views import Masked
from verisight.pocket.datasets import WORLD_SEED, scene
from verisight.pocket.language import DETAIL_PROMPTS, Narrator, asked_objects
from verisight.pocket.oracle import Task
from verisight.pocket.scenes import Scene, render
from verisight.progress import Advance, track
from verisight.types import Decoding, ImageRef, Prompt

_EXISTENCE_FRACTION = 0.3  # scenes with a yes/no question beside the description
_JPEG_QUALITY = 95
_BATCH = 64
_MAX_NEW_TOKENS = 96


class Voice(NamedTuple):
    """Who answers: a narrator, or the shipped model with a share `rho` of its image tokens hidden."""

    rho: float = 0.0
    temperature: float = 1.0
    narrator: Narrator | None = None


VOICES = {
    "narrator-truth": Voice(narrator=Narrator()),  # stands where the real sets have GPT-4V
    "narrator-biased": Voice(narrator=Narrator(rename=0.75, agree=0.85)),
    "pocket-greedy": Voice(temperature=0.0),
    "pocket": Voice(),
    "pocket-rho50": Voice(rho=0.5),
    "pocket-rho90": Voice(rho=0.9),
    "pocket-rho100": Voice(rho=1.0),
}
RANKED = "pocket"  # drawn twice: LLaVA-RLHF ranks two answers of one model
FALLIBLE = ("pocket-greedy", "pocket", "pocket-rho50")  # whose answers are corrected and criticised


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a picture (a JPEG file), the true answer, and what every voice answers."""

    task: Task
    jpeg: bytes
    reference: str
    answers: dict[str, tuple[str, ...]]

    @property
    def uid(self) -> int:
        """The picture's number."""
        return self.task.scene.uid

    def rng(self, purpose: str, seed: int) -> np.random.Generator:
        """Random numbers for one purpose, whatever else is drawn."""
        return _rng(self.task, purpose, seed)


def gather(*, num: int, seed: int = 0, quiet: bool = False) -> list[Asked]:
    """Questions about the first `num` scenes of the preference split, answered by every voice.

    The model runs on the CPU, wherever that is: its answers are part of the data.
    """
    tasks = [task for index in range(num) for task in _tasks(scene("preference", index), seed)]
    pictures = {task.scene.uid: _jpeg(task.scene) for task in tasks}
    policy = Policy(*load_model(POCKET, dtype="float32"))
    policy.keep_looks(Memory())
    answers: dict[str, list[tuple[str, ...]]] = {}
    with track("answers", total=len(VOICES) * len(tasks), unit="answers", quiet=quiet) as advance:
        for name, voice in VOICES.items():
            if voice.narrator is not None:
                answers[name] = [(tell(task, voice.narrator, _rng(task, name, seed)),) for task in tasks]
                advance(len(tasks), name)
            else:
                answers[name] = _sample(policy, name, tasks, pictures, seed, advance)
    return [
        Asked(
            task,
            pictures[task.scene.uid],
            tell(task, Narrator(), _rng(task, "reference", seed)),
            {name: answers[name][at] for name in VOICES},
        )
        for at, task in enumerate(tasks)
    ]


def existence(one: Scene, rng: np.random.Generator) -> Task:
    """Asks for one object; it is there half of the time."""
    name = asked_objects(one, rng, num=2)[0]
    return Task(one, Narrator().existence(one, rng, name=name)[0], name)


def tell(task: Task, narrator: Narrator, rng: np.random.Generator) -> str:
    """A narrator's answer."""
    if task.asked is None:
        return narrator.caption(task.scene, rng)
    return narrator.existence(narrator.perceive(task.scene, rng), rng, name=task.asked, long=True)[1]


def _tasks(one: Scene, seed: int) -> Iterator[Task]:
    rng = np.random.default_rng([WORLD_SEED, 90, seed, one.uid])
    yield Task(one, str(rng.choice(DETAIL_PROMPTS)))
    if rng.random() < _EXISTENCE_FRACTION:
        yield existence(one, rng)


def _rng(task: Task, purpose: str, seed: int) -> np.random.Generator:
    words = zlib.crc32(f"{purpose}/{task.asked}".encode())
    return np.random.default_rng([WORLD_SEED, words, seed, task.scene.uid])


def _sample(
    policy: Policy, name: str, tasks: Sequence[Task], pictures: dict[int, bytes], seed: int, advance: Advance
) -> list[tuple[str, ...]]:
    voice, told = VOICES[name], []
    for start in range(0, len(tasks), _BATCH):
        some = tasks[start : start + _BATCH]
        prompts = [
            Prompt(f"{t.scene.uid}/{t.asked}", (ImageRef(data=pictures[t.scene.uid]),), t.question) for t in some
        ]
        seen = Masked(voice.rho).look(policy, prompts, rngs=[_rng(task, name, seed) for task in some])
        drawn = policy.sample(
            prompts,
            decoding=Decoding(_MAX_NEW_TOKENS, temperature=voice.temperature),
            seed=zlib.crc32(f"{name}/{seed}".encode()),
            num=2 if name == RANKED else 1,
            sights=[look.sight for look in seen],
        )
        told += [tuple(answer.text for answer in row) for row in drawn]
        advance(len(some), name)
    return told


def _jpeg(one: Scene) -> bytes:
    buffer = BytesIO()
    render(one).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
