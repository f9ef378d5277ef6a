"""The loop: what is equal must stay equal (cut batches, killed runs), and what is broken must not reach the weights."""

import math
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from tiny import pair, tiny_policy
from verisight.data.files import read_jsonl
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always
from verisight.negatives.guidance import SentenceGuided
from verisight.negatives.views import Masked
from verisight.sources.generated import Generated, paired
from verisight.sources.offline import Offline
from verisight.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from verisight.train.loop import Optimization, fit, lr_fraction
from verisight.train.preference import Dpo, Outcome, PreferenceStep, SftStep
from verisight.types import UserError

PAIRS = [pair(i) for i in range(5)]
LORA = LoraSettings(r=4, alpha=8)
BDHS = Hallucinate(
    view=Masked(0.5), guidance=SentenceGuided(yes_no_swap=0.5, max_new_tokens=6), check=Always(), rounds=1
)
FAST = Optimization(steps=6, batch_size=4, lr=1e-3, projector_lr=3e-3, warmup_fraction=0.3, weight_decay=0.1)


def setup(kind):
    """A fresh policy, its source and its step."""
    policy = tiny_policy()
    policy.tune(LORA if "lora" in kind else None, train_projector=True)
    source = Offline(PAIRS, seed=1)
    if "online" in kind:
        source = Generated(Offline(PAIRS, seed=1), BDHS, join=partial(paired, origin="bdhs_attn"), seed=1)
    if "sft" in kind:
        return policy, source, SftStep(policy)
    reference = Reference(policy, mode="adapter_off" if policy.has_adapter else "frozen_copy")
    return policy, source, PreferenceStep(policy, reference, Dpo(0.2))


KINDS = ["dpo full", "dpo lora", "sft full", "dpo lora online"]


def weights_of(policy):
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def trained(kind, folder, optimization):
    policy, source, step = setup(kind)
    fit(policy, source, step, optimization=optimization, folder=folder, quiet=True)
    return weights_of(policy)


def rows_of(folder):
    rows = read_jsonl(folder / "metrics.jsonl")
    assert all(row.pop("seconds") > 0 for row in rows)
    return rows


@pytest.mark.parametrize(("kind", "micro"), [*((kind, 4) for kind in KINDS[:3]), ("dpo full", 3), ("sft full", 1)])
def test_a_batch_cut_in_pieces_is_the_batch(kind, micro, tmp_path):
    whole = replace(FAST, steps=2, batch_size=8, lr=1e-4)
    one = trained(kind, tmp_path / "one", whole)
    cut = trained(kind, tmp_path / "cut", replace(whole, micro_batch_size=micro))
    start = weights_of(setup(kind)[0])
    assert max((one[name] - start[name]).abs().max() for name in one) > 1e-4
    # Adam divides by the gradient's size, so weights whose gradient is noise around 0 move by rounding errors
    moved = torch.cat([(one[name] - cut[name]).abs().flatten() for name in one])
    assert (moved > 1e-6).float().mean() < 1e-3
    assert moved.max() < 1e-4
    for a, b in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "cut"), strict=True):
        assert a.pop("origin") == b.pop("origin") == {"offline": 8}
        assert a.pop("split") == b.pop("split") == "train"
        assert a.pop("by_origin")["offline"] == pytest.approx(b.pop("by_origin")["offline"], rel=1e-4, abs=1e-4)
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


class Killed(Exception):
    pass


class KilledIn:
    """A step that dies in its n-th call."""

    def __init__(self, step, call):
        self.step, self.left = step, call

    def __call__(self, pairs):
        self.left -= 1
        if self.left == 0:
            raise Killed
        return self.step(pairs)


@pytest.mark.parametrize(
    ("kind", "kill"),  # the call of the step that dies, run after run
    [*((kind, [4]) for kind in KINDS), ("sft full", [1]), ("dpo full", [6, 1])],
)
def test_killed_and_resumed_is_uninterrupted(kind, kill, tmp_path):
    whole, folder = trained(kind, tmp_path / "whole", FAST), tmp_path / "killed"
    every = replace(FAST, checkpoint_every=2)
    for call in kill:
        policy, source, step = setup(kind)
        with pytest.raises(Killed):
            fit(policy, source, KilledIn(step, call), optimization=every, folder=folder, quiet=True)
    resumed = trained(kind, folder, every)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert rows_of(folder) == rows_of(tmp_path / "whole")


def test_what_a_step_writes_down(tmp_path):
    trained("dpo lora online", tmp_path, replace(FAST, steps=2))
    first, second = rows_of(tmp_path)
    assert set(first) == {
        "step", "split", "loss", "margin_mean", "accuracy", "chosen_logratio_sum", "rejected_logratio_sum",
        "chosen_logp_mean", "rejected_logp_mean", "num_tokens", "grad_norm", "num_pairs", "origin", "by_origin", "lr",
    }  # fmt: skip
    assert (first["step"], second["step"], first["split"]) == (1, 2, "train")
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert first["margin_mean"] == pytest.approx(0, abs=1e-4)
    assert first["origin"] == {"bdhs_attn": 4}
    assert second["margin_mean"] != 0


@pytest.mark.parametrize("kind", ["sft full", "dpo full", "dpo lora"])
def test_three_pairs_are_learnt(kind, tmp_path):
    policy, _, step = setup(kind)
    learn = replace(FAST, steps=30, batch_size=3, lr=5e-3, schedule="constant", weight_decay=0.0)
    fit(policy, Offline(PAIRS[:3], seed=0), step, optimization=learn, folder=tmp_path, quiet=True)
    rows = rows_of(tmp_path)
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    if "dpo" in kind:
        assert rows[-1]["margin_mean"] > 5
        assert rows[-1]["accuracy"] == 1
        assert rows[-1]["chosen_logratio_sum"] > rows[-1]["rejected_logratio_sum"]


@pytest.mark.parametrize("kind", ["sft full", "dpo lora"])
def test_the_projector_has_a_learning_rate_of_its_own(kind, tmp_path):
    before = weights_of(setup(kind)[0])
    one_step = replace(FAST, steps=1, lr=1e-4, projector_lr=1e-2, warmup_fraction=0.0, weight_decay=0.0)
    after = trained(kind, tmp_path, one_step)
    moved = {name: (after[name] - before[name]).abs().max().item() for name in before}
    projector = {name: by for name, by in moved.items() if "projector" in name and by}
    language = {name: by for name, by in moved.items() if "language_model" in name and by}
    assert len(projector) == 4  # two layers, weight and bias
    assert len(language) > 10
    # Adam's first step moves every weight by the learning rate, whatever its gradient
    assert list(projector.values()) == pytest.approx([1e-2] * 4, rel=1e-2)
    assert max(language.values()) == pytest.approx(1e-4, rel=1e-2)
    assert not [name for name, by in moved.items() if "vision_tower" in name and by]


def test_weight_decay_spares_vectors(tmp_path):
    before = weights_of(setup("sft full")[0])
    settings = replace(FAST, steps=1, warmup_fraction=0.0, weight_decay=0.0)
    plain = trained("sft full", tmp_path / "plain", settings)
    decayed = trained("sft full", tmp_path / "decayed", replace(settings, weight_decay=0.5))
    for name, start in before.items():
        lr = 3e-3 if "projector" in name else 1e-3
        frozen = "vision_tower" in name
        expected = plain[name] if start.ndim == 1 or frozen else plain[name] - lr * 0.5 * start
        torch.testing.assert_close(decayed[name], expected, rtol=0, atol=1e-6)


class Broken:
    """A step whose loss, or only its gradient, is not finite from the second call on."""

    def __init__(self, step, what):
        self.step, self.what, self.calls = step, what, 0

    def __call__(self, pairs):
        self.calls += 1
        outcome = self.step(pairs)
        if self.calls == 1:
            return outcome
        if self.what == "loss":
            return Outcome(outcome.loss * math.nan, {"loss": math.nan}, Counter())
        loss = outcome.loss + (outcome.loss * 0).abs().sqrt()  # the root's slope at 0 is infinite
        return Outcome(loss, {"loss": float(loss.detach().sum())}, Counter())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(what, tmp_path):
    first = trained("sft full", tmp_path / "first", replace(FAST, steps=1, schedule="constant", warmup_fraction=0))
    policy, source, step = setup("sft full")
    settings = replace(FAST, schedule="constant", warmup_fraction=0, checkpoint_every=1)
    with pytest.raises(UserError, match=r"training: the loss became .*nan.*checkpoints stay"):
        fit(policy, source, Broken(step, what), optimization=settings, folder=tmp_path / "broken", quiet=True)
    after = weights_of(policy)
    assert [name for name in first if not torch.equal(first[name], after[name])] == []
    assert [row["step"] for row in rows_of(tmp_path / "broken")] == [1]
    assert latest_checkpoint(tmp_path / "broken" / "checkpoints").name == "step-00000001"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1, *(0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(8))]),
    ],
)
def test_learning_rates(schedule, expected):
    fractions = [lr_fraction(i, steps=10, warmup_fraction=0.2, schedule=schedule) for i in range(10)]
    assert fractions == pytest.approx(expected)
    assert lr_fraction(0, steps=10, warmup_fraction=0.0, schedule=schedule) == 1
    assert lr_fraction(9, steps=10, warmup_fraction=1.0, schedule=schedule) == 1


def test_the_learning_rate_is_written_down(tmp_path):
    trained("sft full", tmp_path, replace(FAST, steps=3, warmup_fraction=0.34, schedule="linear"))
    assert [row["lr"] for row in rows_of(tmp_path)] == pytest.approx([1e-3, 1e-3, 5e-4])


def checkpointed(folder, *, kind, keep=1):
    policy, source, step = setup(kind)
    settings = replace(FAST, checkpoint_every=1, keep_checkpoints=keep)
    fit(policy, source, step, optimization=settings, folder=folder, quiet=True)
    return folder / "checkpoints"


@pytest.mark.parametrize("keep", [1, 3])
def test_checkpoints_are_safetensors_and_json_and_the_newest_are_kept(keep, tmp_path):
    folder = checkpointed(tmp_path, kind="sft full", keep=keep)
    assert sorted(p.name for p in folder.iterdir()) == [f"step-{i:08d}" for i in range(6 - keep, 6)]
    for path in folder.iterdir():
        assert {p.name for p in path.iterdir()} == {"trainable.safetensors", "optimizer.safetensors", "state.json"}


def test_half_written_checkpoints_are_not_looked_at(tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "step-00000005").mkdir(parents=True)
    for name in (".step-00000009.partial", "step-9", "step-00000009.partial"):
        (folder / name).mkdir()
    assert latest_checkpoint(folder).name == "step-00000005"
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    weights = {"a": torch.ones(3, requires_grad=True)}
    optimizer = torch.optim.AdamW(weights.values())
    save = {"weights": weights, "optimizer": optimizer, "state": {}, "keep": 1}
    save_checkpoint(tmp_path, step=1, **save)

    def dies(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("verisight.train.checkpoint.write_json", dies)
        with pytest.raises(Killed):
            save_checkpoint(tmp_path, step=2, **save)
    assert latest_checkpoint(tmp_path).name == "step-00000001"
    assert save_checkpoint(tmp_path, step=2, **save) == latest_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


def test_a_checkpoint_of_other_tensors_is_refused(tmp_path):
    path = latest_checkpoint(checkpointed(tmp_path, kind="dpo lora"))
    for lora, name in ((None, "language_model"), (LoraSettings(r=2, alpha=8), "lora_A")):
        policy = tiny_policy()
        policy.tune(lora, train_projector=True)
        before, weights = weights_of(policy), policy.trainable()
        with pytest.raises(UserError, match=f"step-00000005: holds other trainable tensors .*{name}"):
            load_checkpoint(path, weights=weights, optimizer=torch.optim.AdamW(weights.values()))
        assert all(torch.equal(w, before[name]) for name, w in weights_of(policy).items())
