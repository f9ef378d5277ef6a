"""Rewards: consistent with who compares, the picture in sight, nothing that is no number."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from small_runs import write_small
from tiny import picture, prompt
from verisight.data.readers import open_data
from verisight.judges.oracle import OracleAnnotator
from verisight.judges.rewards import FunctionRewarder, ModelRewarder, OracleRewarder, WinsRewarder
from verisight.models.reward import new_head, with_head
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.oracle import corrupt
from verisight.types import Answer, Comparison, Group, UserError, Verdict
from zoo import tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownScenes, list[Group]]:
    """Scenes, and true, corrupted, empty and shortened answers about each."""
    folder = write_small(tmp_path_factory.mktemp("rewards"))
    scenes, groups = KnownScenes(folder / "preference" / "scenes.json"), []
    rng = np.random.default_rng(0)
    for outcome in open_data(folder / "povid.json", images=folder / "povid" / "images"):
        for pair in outcome.pairs:
            task, true = task_of(pair.prompt, scenes), pair.chosen.text
            texts = [true, pair.rejected[0].text, "", f"{true.split('.')[0]}.", corrupt(task, true, rng)]
            groups.append(Group(pair.prompt, tuple(map(Answer, texts))))
    return scenes, groups


def test_what_the_oracle_prefers_has_the_larger_reward(world: tuple[KnownScenes, list[Group]]) -> None:
    scenes, groups = world
    rewarder, annotator = OracleRewarder(scenes), OracleAnnotator(scenes)
    decided = 0
    for group, rewards in zip(groups, rewarder.rate(groups), strict=True):
        assert len(rewards) == 5
        assert max(rewards) <= 0
        for i in range(5):
            for j in range(i):
                asked = Comparison("a", group.prompt, group.answers[i].text, group.answers[j].text)
                [verdict] = annotator.compare([asked])
                expected = "tie" if rewards[i] == rewards[j] else "first" if rewards[i] > rewards[j] else "second"
                assert verdict.winner == expected
                decided += verdict.winner != "tie"
    assert decided > 50


def test_the_oracle_sees_the_picture_and_errs_alike_in_any_batch(world: tuple[KnownScenes, list[Group]]) -> None:
    scenes, groups = world
    shifted = [replace(g, prompt=replace(g.prompt, images=h.prompt.images)) for g, h in zip(groups, groups[2:])]  # noqa: B905
    assert OracleRewarder(scenes).rate(shifted) != OracleRewarder(scenes).rate(groups[:-2])
    noisy = OracleRewarder(scenes, noise=0.5, seed=1)
    together = noisy.rate(groups)
    assert [noisy.rate([group])[0] for group in groups] == together
    exact = OracleRewarder(scenes).rate(groups)
    errors = np.array(together) - np.array(exact)
    assert abs(errors.mean()) < 0.2
    assert 0.35 < errors.std() < 0.65
    assert OracleRewarder(scenes, noise=0.5, seed=2).rate(groups) != together
    with pytest.raises(UserError, match="noise: found -1"):
        OracleRewarder(scenes, noise=-1)


class Longer:
    """Prefers the longer text; can't read about "?", and ties where lengths are equal."""

    name = "longer"

    def __init__(self) -> None:
        self.asked: list[Comparison] = []

    def compare(self, comparisons):
        self.asked += comparisons
        return [self._one(one) for one in comparisons]

    def _one(self, one):
        if "?" in one.first + one.second:
            return Verdict("unparsable")
        a, b = len(one.first), len(one.second)
        return Verdict("tie" if a == b else "first" if a > b else "second")


def test_wins_by_hand() -> None:
    annotator = Longer()
    rewarder = WinsRewarder(annotator)
    groups = [
        Group(prompt(0), tuple(map(Answer, ("aaa", "b", "cc", "dd")))),  # beats 3; loses 3; 1 win 1 loss 1 tie, twice
        Group(prompt(1), tuple(map(Answer, ("same", "same", "?")))),
        Group(prompt(2), (Answer("alone"),)),
    ]
    assert rewarder.rate(groups) == [[1, -1, 0, 0], [0, 0, 0], [0]]
    assert rewarder.counts() == {"first": 3, "second": 2, "tie": 1, "unparsable": 2, "equal answers": 1}
    assert len({one.uid for one in annotator.asked}) == len(annotator.asked) == 8
    assert rewarder.name == "wins by longer"
    assert WinsRewarder(annotator).rate([]) == []


def test_a_reward_model_rates_what_it_rewards() -> None:
    policy = tiny("llava")
    model = with_head(policy, new_head(policy, seed=0) * 20)
    groups = [Group(prompt(i), (Answer("A dog."), Answer("A cow in the field."))) for i in range(5)]
    found = ModelRewarder(model, name="rm", batch_size=2).rate(groups)
    for group, rewards in zip(groups, found, strict=True):
        assert rewards == pytest.approx(model.rewards([group]).detach().tolist(), abs=1e-4)
    other = [replace(group, prompt=replace(group.prompt, images=(picture(50),))) for group in groups]
    assert ModelRewarder(model, name="rm").rate(other) != found
    model.head.data[0] = float("nan")
    with pytest.raises(UserError, match="rm: row row0: found reward nan; accepted: a finite number"):
        ModelRewarder(model, name="rm").rate(groups)


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def words(prompt, text):\n    return len(text.split())\n\n\n"
        "def bad(prompt, text):\n    return 'good'\n\n\n"
        "def fails(prompt, text):\n    return 1 / 0\n\n\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    group = Group(prompt(0), (Answer("one two"), Answer("")))
    assert FunctionRewarder("my_rewards:words").rate([group]) == [[2.0, 0.0]]
    with pytest.raises(UserError, match="my_rewards:bad: row row0: found reward 'good'; accepted: a finite number"):
        FunctionRewarder("my_rewards:bad").rate([group])
    with pytest.raises(UserError, match="my_rewards:fails: row row0: ZeroDivisionError"):
        FunctionRewarder("my_rewards:fails").rate([group])
    for target in ("my_rewards", "my_rewards:", "my_rewards:gone", "no_such_module_here:f", "my_rewards:number"):
        with pytest.raises(UserError, match=r"target: .*accepted: package\.module:function"):
            FunctionRewarder(target)


def test_a_function_beside_the_recipe_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_mine.py").write_text("def shout(prompt, text):\n    return float(text.isupper())\n")
    (tmp_path / "broken_rewards.py").write_text("def shout(:\n")
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    group = Group(prompt(0), (Answer("A DOG"), Answer("a dog")))
    assert FunctionRewarder("rewards_of_mine:shout").rate([group]) == [[1.0, 0.0]]
    with pytest.raises(UserError, match=r"target: 'broken_rewards:shout' is not there \(SyntaxError"):
        FunctionRewarder("broken_rewards:shout")


def test_a_reward_model_reads_the_text_whoever_drew_it() -> None:
    """The ids of another tokenizer are other words."""
    policy = tiny("llava")
    rewarder = ModelRewarder(with_head(policy, new_head(policy, seed=0)), name="rm")
    plain = Group(prompt(0), (Answer("There is a dog."), Answer("A cow.")))
    foreign = Group(prompt(0), tuple(replace(one, token_ids=(7, 8, 9)) for one in plain.answers))
    assert rewarder.rate([foreign]) == rewarder.rate([plain])
    assert rewarder.rate([Group(prompt(0), (Answer("", token_ids=(2,)),))])[0][0] is not None
