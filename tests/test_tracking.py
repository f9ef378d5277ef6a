"""Trackers: checked at the door, fed the rows of metrics.jsonl, never instead of it."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from accelerate.tracking import TensorBoardTracker

from tiny import pair, tiny_policy
from verisight.data.files import read_jsonl
from verisight.models.reference import Reference
from verisight.sources.offline import Offline
from verisight.train.diagnose import Diagnose
from verisight.train.loop import Optimization, fit
from verisight.train.preference import Dpo, PreferenceStep
from verisight.train.tracking import check_trackers, flatten
from verisight.types import UserError

PAIRS = [pair(i) for i in range(3)]
SETTINGS = Optimization(steps=4, batch_size=2, lr=1e-3, trackers=("tensorboard",))


class Counting(Offline):
    """A source that leaves one out per draw."""

    left_out = 0

    def draw(self, n, policy=None):
        self.left_out += 1
        return super().draw(n, policy)

    def counts(self):
        return {"tie": self.left_out}

    def state_dict(self):
        return super().state_dict() | {"left_out": self.left_out}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.left_out = state["left_out"]


def trained(folder, optimization=SETTINGS, *, die_at=None, source=Counting):
    policy = tiny_policy()
    policy.tune(None, train_projector=True)
    reference = Reference(policy, mode="frozen_copy")
    step = PreferenceStep(policy, reference, Dpo(0.2))
    calls = 0

    def dying(drawn):
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise KeyboardInterrupt
        return step(drawn)

    probe = Diagnose(policy, reference, PAIRS, every=2, seed=0, max_new_tokens=4)
    fit(policy, source(PAIRS, seed=0), dying, optimization=optimization, folder=folder, probe=probe, quiet=True)


def shown(folder):
    """Name -> (step, value) as TensorBoard shows them."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "trackers" / "verisight"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def written(folder):
    """The same of metrics.jsonl."""
    found = {}
    for row in read_jsonl(folder / "metrics.jsonl"):
        rest = {name: value for name, value in row.items() if name not in ("step", "split")}
        for name, value in flatten(rest, prefix=f"{row['split']}/").items():
            found.setdefault(name, []).append((row["step"], pytest.approx(value, rel=1e-6)))
    return found


def test_tensorboard_shows_what_is_written(tmp_path):
    pytest.importorskip("tensorboard")
    trained(tmp_path)
    found = shown(tmp_path)
    assert found == written(tmp_path)
    assert [step for step, _ in found["train/by_origin/offline/margin_mean"]] == [1, 2, 3, 4]
    assert [step for step, _ in found["probe/swapped/image_gain"]] == [0, 2, 4]
    assert found["train/source/tie"] == [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize(("every", "die_at"), [(2, 4), (None, 3)])
def test_a_resumed_run_goes_on_where_it_was(every, die_at, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    closed, finish = [], TensorBoardTracker.finish
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda self: closed.append(finish(self)))
    settings = replace(SETTINGS, checkpoint_every=every)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, settings, die_at=die_at)
    killed = shown(tmp_path)
    assert [step for step, _ in killed["train/loss"]] == list(range(1, die_at))
    trained(tmp_path, settings)
    assert shown(tmp_path) == written(tmp_path)
    assert len(closed) == 2


def test_rows_are_the_same_with_and_without(tmp_path):
    pytest.importorskip("tensorboard")
    trained(tmp_path / "with")
    trained(tmp_path / "without", replace(SETTINGS, trackers=()))
    one, two = ([row | {"seconds": 0} for row in read_jsonl(tmp_path / name / "metrics.jsonl")]
                for name in ("with", "without"))  # fmt: skip
    assert one == two
    assert sorted(path.name for path in (tmp_path / "without").iterdir()) == ["metrics.jsonl"]


def test_by_origin_and_what_the_source_left_out_are_in_the_row(tmp_path):
    trained(tmp_path, replace(SETTINGS, trackers=(), batch_size=3))
    rows = [row for row in read_jsonl(tmp_path / "metrics.jsonl") if row["split"] == "train"]
    assert [row["source"] for row in rows] == [{"tie": k} for k in (1, 2, 3, 4)]
    told = rows[-1]["by_origin"]["offline"]
    assert set(told) == {
        "num", "margin_mean", "accuracy", "chosen_logp_sum", "rejected_logp_sum", "chosen_logratio_sum",
        "rejected_logratio_sum", "chosen_tokens", "rejected_tokens",
    }  # fmt: skip
    assert told["num"] == 3
    for name in ("margin_mean", "accuracy", "chosen_logratio_sum", "rejected_logratio_sum"):
        assert told[name] == pytest.approx(rows[-1][name]), name
    trained(tmp_path / "plain", replace(SETTINGS, trackers=()), source=Offline)
    assert all("source" not in row for row in read_jsonl(tmp_path / "plain" / "metrics.jsonl"))


def test_several_origins_and_micro_batches(tmp_path):
    policy = tiny_policy()
    policy.tune(None, train_projector=True)
    mixed = [replace(one, origin=origin) for one, origin in zip(PAIRS, ("a", "b", "a"), strict=True)]
    rows = []
    for name, micro in (("whole", None), ("cut", 1)):
        step = PreferenceStep(policy, Reference(tiny_policy_like(policy), mode="frozen_copy"), Dpo(0.2))
        settings = Optimization(steps=1, batch_size=3, micro_batch_size=micro, lr=1e-12)
        fit(policy, Offline(mixed, seed=0), step, optimization=settings, folder=tmp_path / name, quiet=True)
        rows += read_jsonl(tmp_path / name / "metrics.jsonl")
    whole, cut = (row["by_origin"] for row in rows)
    assert list(whole) == list(cut) == ["a", "b"]
    assert (whole["a"]["num"], whole["b"]["num"]) == (2, 1)
    for origin in whole:
        assert whole[origin] == pytest.approx(cut[origin], rel=1e-4, abs=1e-4)
    assert whole["a"]["chosen_logp_sum"] < -10


def tiny_policy_like(policy):
    """The starting model again, tuned the same way."""
    other = tiny_policy(seed=1)
    other.tune(None, train_projector=True)
    assert other.trainable().keys() == policy.trainable().keys()
    return other


def test_names_are_checked_at_the_door(monkeypatch):
    check_trackers([])
    with pytest.raises(UserError, match=r"train\.trackers: found 'neptune', accepted: tensorboard, trackio, wandb"):
        check_trackers(["neptune"])
    monkeypatch.setattr("verisight.train.tracking.find_spec", lambda name: name if name == "tensorboardX" else None)
    check_trackers(["tensorboard"])
    with pytest.raises(UserError, match=r"train\.trackers: found wandb, which is not installed; .*pip install wandb"):
        check_trackers(["wandb"])


def test_checking_imports_neither_torch_nor_trackers():
    code = (
        "import sys; from verisight.train.tracking import check_trackers; check_trackers([]);"
        "assert not {'torch', 'accelerate', 'tensorboard', 'wandb'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tracker_that_does_not_start_is_named(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")

    def broken(*args, **kwargs):
        raise ImportError("No module named 'part_of_it'")

    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.start", broken)
    with pytest.raises(UserError, match=r"train\.trackers: .*tensorboard does not start .*part_of_it"):
        trained(tmp_path)


def test_flat_names():
    row = {"loss": 1.0, "by_origin": {"a b, c": {"num": 2, "x": math.nan}}, "name": "text", "none": None, "empty": {}}
    assert flatten(row, prefix="train/") == {"train/loss": 1.0, "train/by_origin/a b_ c/num": 2}
