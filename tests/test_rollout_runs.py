"""Whole runs of RLOO and PPO: resumed bit for bit, rewards of every kind, guards, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_runs import POVID, loaded, placed, rows_of, write_small
from user_files import assert_same_weights
from verisight import build, recipe
from verisight.data.files import read_json
from verisight.study.run import pairs, train
from verisight.train import tracking
from verisight.train.guard import Collapsed
from verisight.train.rollout import Ppo, Rloo
from verisight.types import Prompt, UserError

ORACLE = "{kind: oracle, scenes: preference/scenes.json}"
JUDGE = f"{{kind: wins, annotator: {ORACLE}}}"
PYTHON = "{kind: python, target: 'test_rollout_runs:shortness'}"
SMALL = "normalize: 4, max_new_tokens: 12, num_samples: 2, guard: {max_truncated_fraction: null}"
RLOO = f"source={{kind: rollouts, data: {POVID}, rewards: [{{rewarder: {ORACLE}}}], {SMALL}}}"
RUN = (RLOO, "objective={kind: rloo}", "train.steps=6", "train.batch_size=2")
WIDE = ("source.max_new_tokens=80", "source.num_samples=4", "source.normalize=8")
REPLAY = ("source.minibatches=2", "source.epochs=2", "train.checkpoint_every=3")
PPO = "objective={kind: ppo, kl_target: 1, horizon: 500, entropy_weight: 0.01, value: %s}"


def shortness(prompt: Prompt, text: str) -> float:
    """A reward of the user's own."""
    return -float(len(text.split()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("rollouts"))


def open_recipe(made: Path, name: str, *words: str) -> recipe.Recipe:
    return loaded(made, name, *RUN, *words)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("objective.clip=null", "model.tune={kind: full}"),
        (PPO % "shared",),
        (PPO % "separate",),
        (PPO % "separate", "model.tune={kind: full}", "train.gradient_checkpointing=true"),
    ],
    ids=["rloo", "rloo-full", "ppo-shared", "ppo-separate", "ppo-separate-full"],
)
def test_a_killed_run_ends_with_the_same_model(
    made: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    whole, killed = (open_recipe(made, f"{name} {kind}", *REPLAY, *words) for kind in ("whole", "killed"))
    train(whole, quiet=True)
    write, count = tracking.append_jsonl, 0

    def dying(path: Path, row: dict) -> None:
        nonlocal count
        count += 1
        if count == 5:  # behind the checkpoint of step 3, in the middle of a batch of rollouts
            raise KeyboardInterrupt
        write(path, row)

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "append_jsonl", dying)
        with pytest.raises(KeyboardInterrupt):
            train(killed, quiet=True)
    assert (killed.output / "checkpoints" / "step-00000003").is_dir()
    train(killed, quiet=True)
    assert_same_weights(killed.output, whole.output)
    rows = rows_of(whole.output)
    assert rows_of(killed.output) == rows
    assert [row["num_rollouts"] for row in rows] == [2] * 6
    assert rows[0]["drawn"] == rows[3]["drawn"] != rows[4]["drawn"]
    expected = {"reward", "kl_sum", "entropy", "answer_tokens", "truncated_fraction", "repetition", "distinct_fraction"}
    assert expected <= rows[0].keys()
    assert ({"value_loss", "policy_loss"} <= rows[0].keys()) == ("ppo" in name)


def test_rewards_are_measured_before_training_weighed_and_kept(made: Path) -> None:
    parts = f"[{{rewarder: {ORACLE}}}, {{weight: -0.5, rewarder: {PYTHON}}}, {{weight: 2.0, rewarder: {JUDGE}}}]"
    one = open_recipe(
        made,
        "weighed",
        placed(made, f"source.rewards={parts}"),
        "train.steps=2",
        *REPLAY[:2],
        *WIDE,
    )
    train(one, quiet=True)
    oracle, own, wins = read_json(one.output / "rewards.json")["rewards"]
    assert (oracle["num"], oracle["weight"], own["weight"], wins["weight"]) == (32, 1.0, -0.5, 2.0)
    assert own["mean"] < -1
    assert own["std"] > 0
    assert wins["mean"] == pytest.approx(0, abs=1e-9)
    assert [part["name"] for part in (own, wins)] == ["test_rollout_runs:shortness", "wins by oracle, noise 0"]


def test_a_reward_that_tells_nothing_apart_is_told(made: Path) -> None:
    with pytest.raises(UserError, match=r"source.rewards.0: .*found the same reward"):
        train(
            open_recipe(made, "flat", "source.rewards=[{rewarder: {kind: python, target: 'test_rollout_runs:flat'}}]"),
            quiet=True,
        )


def flat(prompt: Prompt, text: str) -> float:
    return 1.0


def test_a_collapse_stops_the_run_and_leaves_the_last_good_model(made: Path) -> None:
    """A row tells of answers drawn by the weights of the step before: those of the broken step's are not good."""
    words = (
        "train.lr=3e-2",
        "train.checkpoint_every=1",
        "train.steps=8",
        "objective.beta=0.0",
        "source.rewards.0.weight=-1.0",
    )
    free = open_recipe(made, "free", *words, "source.guard=null")
    train(free, quiet=True)
    kl = [row["kl_sum"] for row in rows_of(free.output)]
    limit = max(kl[:2]) + 1e-3
    first = next(step for step, value in enumerate(kl, 1) if value > limit)
    assert kl[first] > limit, "in two steps in a row"
    one = open_recipe(
        made, "collapse", *words, f"source.guard={{max_kl: {limit}, patience: 2, max_truncated_fraction: null}}"
    )
    with pytest.raises(Collapsed, match=rf"collapsed at step {first + 1}: .* nats per answer") as caught:
        train(one, quiet=True)
    assert not (one.output / "model").exists()
    assert f"step-{first - 2:08d}, the last good one" in str(caught.value)
    good = build.open_model(recipe.Model(path=str(one.output / "last_good")))
    assert good.has_adapter
    held = {path.name for path in (one.output / "checkpoints").iterdir()}
    assert held == {f"step-{first - 2:08d}", f"step-{first - 1:08d}"}, "none of a broken step, the good one kept"
    with pytest.raises(Collapsed, match=f"collapsed at step {first + 1}"):
        train(one, quiet=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("source.num_samples=1",), "source.num_samples: found 1 with objective rloo"),
        (("objective={kind: dpo}",), "source.kind: found rollouts with objective dpo; accepted: objective rloo or ppo"),
        (("train.reference=none",), "train.reference: found none with objective rloo"),
        (("train.reference=cached",), "train.reference: found cached"),
        (("source.rewards=[]",), "source.rewards"),
        (("source.rewards.0.weight=0.0",), "source.rewards: found no weight other than 0"),
        (
            ("source.rewards=[{rewarder: {kind: python, target: 'no_colon'}}]",),
            "target",
        ),
        (("objective={kind: ppo, kl_target: 6, beta: 0.0}",), "objective.beta: found 0 with kl_target 6"),
        (
            ("objective={kind: ppo, kl_target: 6, horizon: 5}", "source.minibatches=8"),
            "objective.horizon: found 5 with 32 answers a batch; accepted: above 6",
        ),
        (("source.decoding={temperature: 2}",), "source.decoding"),
    ],
)
def test_what_does_not_go_together_is_refused(made: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_recipe(made, "refused", *words)


def test_no_pairs_are_made_of_rollouts(made: Path) -> None:
    with pytest.raises(UserError, match=r"source.kind: found rollouts, of which no pairs are made"):
        pairs(open_recipe(made, "pairs"))


def test_pairs_are_refused_with_a_policy_gradient(made: Path) -> None:
    with pytest.raises(
        UserError, match=r"source.kind: found offline with objective ppo; accepted: a source of kind rollouts"
    ):
        loaded(made, "refused", "objective={kind: ppo}")


@pytest.mark.parametrize(
    ("target", "message"),
    [("no_such_module:f", "is not there"), ("test_rollout_runs:ORACLE", "is str")],
)
def test_a_python_reward_is_looked_up_before_anything_is_loaded(made: Path, target: str, message: str) -> None:
    one = open_recipe(made, "lookup", f"source.rewards=[{{rewarder: {{kind: python, target: '{target}'}}}}]")
    with pytest.raises(UserError, match=f"source.rewards.0.rewarder: .*{message}"):
        train(one, quiet=True)


def test_settings_arrive_where_they_are_used(made: Path) -> None:
    words = (
        "objective={kind: rloo, clip: 0.3, ratio: token, whiten: true, kl: k2, beta: 0.7}",
        "source.truncated_penalty=1.5",
    )
    one = open_recipe(made, "settings", *words)
    assert build.rollout_objective(one.objective) == Rloo(0.3, "token")
    drawing = build.drawing(one.source)
    assert (drawing.decoding.max_new_tokens, drawing.decoding.temperature, drawing.num) == (12, 1.0, 2)
    assert drawing.truncated_penalty == 1.5
    text = "{kind: ppo, clip: 0.1, value_clip: null, value_weight: 0.4, entropy_weight: 0.2, value_lr: 1e-2}"
    ppo = open_recipe(made, "settings", f"objective={text}", "source.epochs=3", "train.steps=null", "train.epochs=1")
    assert build.rollout_objective(ppo.objective) == Ppo(0.1, None, 0.4, 0.2)
    settings = build.optimization(ppo, num_pairs=8)
    assert (settings.beside_lr, settings.steps) == (1e-2, 12)
