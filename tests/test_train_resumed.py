"""What must not come between a recipe and its run: the environment, changed data, rounding, a diverged model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small_runs import loaded, rows_of, write_small
from tiny import CHOSEN, pair, tiny_policy
from verisight import build
from verisight.judges.rewards import FunctionRewarder
from verisight.judges.weighted import Scale, WeightedRewarder
from verisight.negatives.bdhs import Negative
from verisight.sources.generated import generate_pairs, paired
from verisight.sources.offline import Offline
from verisight.study.run import train
from verisight.train import tracking
from verisight.train.preference import rating_gap
from verisight.types import Answer, Group, UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("resumed"))


def test_the_environment_scales_no_gradient(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, launched = (loaded(made, name, "train.steps=2") for name in ("plain", "launched"))
    train(plain, quiet=True)
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    train(launched, quiet=True)
    assert rows_of(launched.output) == rows_of(plain.output)


def test_a_run_is_not_continued_on_other_data(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = loaded(made, "changed", "train.checkpoint_every=1")
    write, count = tracking.append_jsonl, 0

    def dying(path: Path, row: dict) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(path, row)

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "append_jsonl", dying)
        with pytest.raises(KeyboardInterrupt):
            train(one, quiet=True)
    file = made / "povid.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before)[::-1][:5]))
    try:
        with pytest.raises(UserError, match="source: the data changed since this run was killed"):
            train(one, quiet=True)
    finally:
        file.write_text(before)
    train(one, quiet=True)


def test_offline_pairs_are_told_apart_by_number_and_content() -> None:
    pairs = [pair(i) for i in range(200)]
    state = Offline(pairs, seed=0).state_dict()
    Offline(list(pairs), seed=1).load_state_dict(state)
    Offline(pairs, seed=0).load_state_dict({"position": 3})
    for other in (pairs[:-1], pairs[::-1]):
        with pytest.raises(UserError, match="the data changed"):
            Offline(other, seed=0).load_state_dict(state)


def test_a_diverged_model_is_told_as_such(made: Path) -> None:
    with pytest.raises(UserError, match=r"training: the loss became .*lower train\.lr"):
        train(loaded(made, "diverged", "train.lr=1e30", "train.steps=4"), quiet=True)


@pytest.mark.parametrize(("epochs", "num", "steps"), [(0.28, 100, 4), (0.29, 100, 5), (3.0, 7, 3)])
def test_epochs_are_counted_without_rounding_errors(made: Path, epochs: float, num: int, steps: int) -> None:
    one = loaded(made, "epochs", "train.steps=null", f"train.epochs={epochs}", "train.batch_size=7")
    assert build.optimization(one, num_pairs=num).steps == steps


@pytest.mark.parametrize(
    ("chosen", "rejected", "gap"),
    [(4, 1, 3.0), ("4", "1.5", 2.5), (float("nan"), 1, None), (True, False, None), (None, 1, None), (1, 9, -8.0)],
)
def test_ratings_are_numbers(chosen: object, rejected: object, gap: float | None) -> None:
    one = pair(0)
    one.notes.update(chosen_score=chosen, rejected_score=rejected)
    assert rating_gap(one) == gap


def test_rewards_beyond_float32_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "large_rewards.py").write_text(
        "def huge(p, t):\n    return 10**400\n\n\ndef large(p, t):\n    return 1e39\n\n\n"
        "def some(p, t):\n    return 1e38\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    group = Group(pair(0).prompt, (Answer(CHOSEN),))
    for name in ("huge", "large"):
        with pytest.raises(
            UserError, match=f"large_rewards:{name}: row row0: found reward 1.*accepted: a finite number"
        ):
            FunctionRewarder(f"large_rewards:{name}").rate([group])
    with pytest.raises(UserError, match=r"row row0: found \[1e\+39\]"):
        WeightedRewarder([(10.0, FunctionRewarder("large_rewards:some"), Scale())]).rate([group])


def test_a_torn_batch_of_negatives_is_made_whole(tmp_path: Path) -> None:
    """Rounding depends on what else is in a batch, so batches begin where they would have begun."""

    class Noting:
        def __init__(self) -> None:
            self.batches: list[list[str]] = []

        def __call__(self, policy, prompts, references, *, seed):
            self.batches.append([one.uid for one in prompts])
            return [Negative(f"A horse for {one.uid}.", 1, True, None) for one in prompts]

    def run(name: str, method: Noting) -> list[str]:
        joined, _ = generate_pairs(
            tiny_policy(), [pair(i) for i in range(6)], method, join=lambda e, n: paired(e, n, origin="x"), seed=0,
            batch_size=3, journal=tmp_path / name,
        )  # fmt: skip
        return [one.rejected[0].text for one in joined]

    whole, again = Noting(), Noting()
    expected = run("journal", whole)
    lines = (tmp_path / "journal").read_text().splitlines(keepends=True)
    for kept in (1, 3, 4, 6):
        (tmp_path / "torn").write_text("".join(lines[:kept]))
        assert run("torn", again) == expected
        assert (tmp_path / "torn").read_text() == "".join(lines)
    assert again.batches == [*whole.batches, whole.batches[1], whole.batches[1]]
