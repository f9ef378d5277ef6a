"""Rewards of answers (`types.Rewarder`): by who knows the picture, by comparisons, by a reward model, by code."""

from __future__ import annotations

import importlib
import math
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verisight.models.reward import RewardModel
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.oracle import judge
from verisight.types import Annotator, Answer, Comparison, Group, Prompt, UserError

LARGEST = float(np.finfo(np.float32).max)


class OracleRewarder:
    """The pocket world's own: -(faults) - missed / (objects + 1), in (-inf, 0], 0 for an answer that says all and true.

    A true sentence more can make up for no false one: what the oracle's annotator holds for better has the larger
    reward. `noise`: standard deviation of what is added, drawn for (seed, uid, text), so the same in any batch.
    """

    def __init__(self, scenes: Path | KnownScenes, *, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise < math.inf:
            raise UserError(f"noise: found {noise}; accepted: 0 or more")
        self._scenes = scenes if isinstance(scenes, KnownScenes) else KnownScenes(scenes)
        self._noise, self._seed = noise, seed

    @property
    def name(self) -> str:
        """It, and how noisy."""
        return f"oracle, noise {self._noise:g}"

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer.

        Raises:
            UserError: a picture of no known scene, or a question that the oracle cannot judge.
        """
        return [[self._rated(group.prompt, one.text) for one in group.answers] for group in groups]

    def _rated(self, prompt: Prompt, text: str) -> float:
        task = task_of(prompt, self._scenes)
        found = judge(task, text)
        words = [zlib.crc32(one.encode(errors="replace")) for one in (prompt.uid, text)]
        drawn = np.random.default_rng([self._seed, *words]).normal(0.0, self._noise) if self._noise else 0.0
        return -found.num_faults - len(found.missed) / (len(task.scene.names) + 1) + float(drawn)


class WinsRewarder:
    """An annotator's comparisons as numbers: the share of a group's other answers it beats less those it loses to.

    In [-1, 1]. Every two answers are compared once; equal texts are not asked about, a tie and a verdict that cannot
    be read count 0. `counts` says how many of which there were.
    """

    def __init__(self, annotator: Annotator) -> None:
        self._annotator = annotator
        self._counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        """The annotator's."""
        return f"wins by {self._annotator.name}"

    def counts(self) -> dict[str, int]:
        """Verdicts so far: first, second, tie, unparsable, and how many equal answers were not asked about."""
        return dict(self._counts)

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer; 0 for an answer without another.

        Raises:
            UserError: what the annotator raises.
        """
        places, asked = [], []
        for number, group in enumerate(groups):
            for i, j in combinations(range(len(group.answers)), 2):
                first, second = group.answers[i].text, group.answers[j].text
                if first == second:
                    self._counts["equal answers"] += 1
                    continue
                places.append((number, i, j))
                asked.append(Comparison(f"{group.prompt.uid}:{i}-{j}", group.prompt, first, second))
        wins = [[0.0] * len(group.answers) for group in groups]
        for (number, i, j), verdict in zip(places, self._annotator.compare(asked) if asked else (), strict=True):
            self._counts[verdict.winner] += 1
            if verdict.winner in ("first", "second"):
                better, worse = (i, j) if verdict.winner == "first" else (j, i)
                wins[number][better] += 1 / (len(wins[number]) - 1)
                wins[number][worse] -= 1 / (len(wins[number]) - 1)
        return wins


class ModelRewarder:
    """A reward model's rewards, as they come: unbounded, of its own scale.

    It reads texts, as it did when it was trained: who drew an answer may have another tokenizer.
    """

    def __init__(self, model: RewardModel, *, name: str, batch_size: int = 8) -> None:
        self._model, self._name, self._batch_size = model, name, batch_size

    @property
    def name(self) -> str:
        """The model's."""
        return self._name

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer.

        Raises:
            UserError: a picture that cannot be used, or a reward that is no finite number.
        """
        found: list[list[float]] = []
        for start in range(0, len(groups), self._batch_size):
            batch = [
                Group(group.prompt, tuple(Answer(one.text) for one in group.answers))
                for group in groups[start : start + self._batch_size]
            ]
            with torch.inference_mode():
                rewards = iter(self._model.rewards(batch).tolist())
            found += [[_finite(next(rewards), group.prompt, self._name) for _ in group.answers] for group in batch]
        return found


class FunctionRewarder:
    """A Python function of the user's own, named `package.module:function`: called as f(prompt, text) -> float.

    Modules are looked for where Python looks, and then in the working directory.

    Raises:
        UserError: there is no such function.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._function = _imported(target)

    @property
    def name(self) -> str:
        """The function's."""
        return self._target

    def rate(self, groups: Sequence[Group]) -> list[list[float]]:
        """One number per answer.

        Raises:
            UserError: it raises, or returns what is no finite number.
        """
        return [[self._rated(group.prompt, one.text) for one in group.answers] for group in groups]

    def _rated(self, prompt: Prompt, text: str) -> float:
        try:
            found = self._function(prompt, text)
        except Exception as error:
            raise UserError(f"{self._target}: row {prompt.uid}: {type(error).__name__}: {error}") from error
        return _finite(found, prompt, self._target)


def _imported(target: str) -> Callable[[Prompt, str], Any]:
    module, colon, name = target.partition(":")
    accepted = "accepted: package.module:function, one that can be imported"
    if not (module and colon and name):
        raise UserError(f"target: found {target!r}; {accepted}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is the user's, and is run
        raise UserError(f"target: {target!r} is not there ({type(error).__name__}: {error}); {accepted}") from error
    if not callable(found):
        raise UserError(f"target: {target!r} is {type(found).__name__}; {accepted}")
    return found


def _finite(found: Any, prompt: Prompt, who: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= LARGEST:
        told = repr(found) if isinstance(found, float) or len(repr(found)) < 40 else f"{repr(found)[:40]}..."
        raise UserError(f"{who}: row {prompt.uid}: found reward {told}; accepted: a finite number of float32")
    return float(found)
