"""The reward model: eq. 1 in the preference step, picture in sight, one forward a group, whole runs that resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from small_runs import loaded, mixed, rows_of, write_small
from tiny import CHOSEN, REJECTED, pair, picture
from user_files import assert_same_weights
from verisight import build, recipe
from verisight.judges.rewarded import RewardAnnotator
from verisight.models.reward import HEAD, NoReward, RewardModel, new_head, read_head, with_head
from verisight.models.tuning import LoraSettings
from verisight.study.run import train
from verisight.train import tracking
from verisight.train.preference import PreferenceStep, Reward, rating_gap
from verisight.types import Answer, Comparison, Group, UserError
from zoo import FAMILIES, tiny

PAIRS = [
    replace(pair(0), rejected=(Answer(REJECTED), Answer("A bus.")), weights=(0.25, 0.75)),
    pair(1),
]
LORA = LoraSettings(4, 8)
RUN = ("objective={kind: reward}", "train.steps=4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("reward"))


def reward_model(family: str = "llava", *, tune: LoraSettings | None = LORA) -> RewardModel:
    policy = tiny(family)
    model = with_head(policy, new_head(policy, seed=0) * 20)
    model.tune(tune, train_projector=False, seed=1)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_sees_the_picture_and_reads_a_group_once(family: str) -> None:
    model = reward_model(family)
    answers = (Answer(CHOSEN), Answer(REJECTED), Answer("Yes."))
    with torch.no_grad():
        together = model.rewards([Group(PAIRS[0].prompt, answers)])
        alone = torch.cat([model.rewards([Group(PAIRS[0].prompt, (one,))]) for one in answers])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
        other = replace(PAIRS[0].prompt, images=(picture(7),))
        assert (model.rewards([Group(other, answers)]) - together).abs().min() > 1e-4
        model.scoring = "padded"
        torch.testing.assert_close(model.rewards([Group(PAIRS[0].prompt, answers)]), together, atol=1e-4, rtol=1e-4)


def test_the_step_is_eq_1() -> None:
    model = reward_model()
    outcome = PreferenceStep(model, NoReward(model), Reward(center=0.5))(PAIRS)
    r = [model.rewards([one.group]).detach() for one in PAIRS]

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return -torch.log(torch.sigmoid(chosen - rejected)) + 0.5 * (chosen + rejected) ** 2

    expected = [0.25 * loss(r[0][0], r[0][1]) + 0.75 * loss(r[0][0], r[0][2]), loss(r[1][0], r[1][1])]
    torch.testing.assert_close(outcome.loss, torch.stack(expected))
    assert outcome.sums["chosen_reward"] == pytest.approx(float(r[0][0] + r[1][0]))
    assert outcome.sums["accuracy"] == pytest.approx(
        0.25 * float(r[0][0] > r[0][1]) + 0.75 * float(r[0][0] > r[0][2]) + float(r[1][0] > r[1][1])
    )
    assert not any("logp" in name or "logratio" in name for name in outcome.sums)
    outcome.loss.sum().backward()
    assert model.head.grad is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.trainable().items() if "lora_B" in n)


@pytest.mark.parametrize("tune", [LORA, None], ids=["lora", "full"])
def test_what_is_saved_gives_the_same_rewards(tune: LoraSettings | None, tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny("llava").save(base)
    policy = build.open_model(recipe.Model(path=str(base)))
    model = with_head(policy, new_head(policy, seed=3))
    model.tune(tune, train_projector=True, base_name=str(base), seed=1)
    with torch.no_grad():
        for weight in model.trainable().values():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        expected = model.rewards([one.group for one in PAIRS])
        model.save(tmp_path / "model")
        opened = build.open_reward(recipe.Model(path=str(tmp_path / "model")))
        torch.testing.assert_close(opened.rewards([one.group for one in PAIRS]), expected, atol=1e-5, rtol=1e-5)
    assert opened.trainable() == {}


def test_ratings_set_the_margin() -> None:
    model = reward_model()
    rated = [replace(pair(i), notes={"chosen_score": 4.5, "rejected_score": 4.5 - i}) for i in range(3)]
    step = PreferenceStep(model, NoReward(model), Reward(margin=0.5))
    gaps = torch.stack([r[0] - r[1] for r in (model.rewards([one.group]).detach() for one in rated)])
    torch.testing.assert_close(step(rated).loss, -torch.nn.functional.logsigmoid(gaps - torch.tensor([0, 0.5, 1.0])))
    assert [rating_gap(one) for one in (*rated, pair(1))] == [0.0, 1.0, 2.0, None]


def test_margins_need_ratings(made: Path) -> None:
    words = ("objective={kind: reward, margin: 0.1}", "train.steps=1")
    with pytest.raises(UserError, match=r"no ratings"):
        train(loaded(made, "unrated", *words), quiet=True)
    generated = "source={kind: generated, data: {kind: povid, file: povid.json, images: povid/images}}"
    with pytest.raises(UserError, match=r"source.kind: found generated, whose answers nobody rated, with objective"):
        loaded(made, "unrated", *words, generated)


def test_as_annotator_the_larger_reward_wins_with_the_picture_in_sight() -> None:
    model = reward_model()
    judge = RewardAnnotator(model, name="rm", batch_size=3)
    asked = [Comparison(str(i), pair(i).prompt, CHOSEN, REJECTED) for i in range(4)]
    with torch.no_grad():
        rewards = [model.rewards([Group(one.prompt, (Answer(CHOSEN), Answer(REJECTED)))]).tolist() for one in asked]
    assert [one.winner for one in judge.compare(asked)] == ["first" if a > b else "second" for a, b in rewards]
    turned = [replace(one, first=one.second, second=one.first) for one in asked]
    opposite = {"first": "second", "second": "first"}
    assert [opposite[one.winner] for one in judge.compare(turned)] == [one.winner for one in judge.compare(asked)]
    assert [one.winner for one in judge.compare([replace(asked[0], second=CHOSEN)])] == ["tie"]
    wide = RewardAnnotator(model, name="rm", tie_margin=1e9).compare(asked)
    assert {one.winner for one in wide} == {"tie"}
    other = replace(asked[0], prompt=replace(asked[0].prompt, images=(picture(9),)))
    assert judge.compare([other])[0].reason != judge.compare(asked[:1])[0].reason
    with pytest.raises(UserError, match="tie_margin: found -1; accepted: 0 or more"):
        RewardAnnotator(model, name="rm", tie_margin=-1)


def test_online_pairs_may_be_judged_by_a_reward_model(made: Path) -> None:
    train(loaded(made, "annotator", *RUN, "train.steps=1"), quiet=True)
    path = made / "annotator" / "model"
    source = "{kind: online, data: {kind: povid, file: povid.json, images: povid/images}, max_new_tokens: 24, "
    judged = loaded(made, "online", f"source={source}annotator: {{kind: reward, path: {path}}}}}", "train.steps=1")
    train(judged, quiet=True)
    assert rows_of(judged.output)[0]["origin"] == {"online": 3}
    broken = loaded(made, "headless", f"source={source}annotator: {{kind: reward, path: {made}}}}}")
    with pytest.raises(UserError, match=r"source\.annotator: .*holds no reward_head\.safetensors"):
        train(broken, quiet=True)


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no reward_head\.safetensors; accepted: what training with objective"):
        build.open_reward(recipe.Model(path=str(tmp_path)))
    (tmp_path / HEAD).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"reward_head\.safetensors: not readable"):
        read_head(tmp_path)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_killed_run_ends_with_the_same_reward_model(
    made: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = (*RUN, f"model.tune={{kind: {kind}}}", "train.checkpoint_every=2")
    whole, killed = (loaded(made, f"reward {name} {kind}", *words) for name in ("whole", "killed"))
    train(whole, quiet=True)
    write, count = tracking.append_jsonl, 0

    def dying(path: Path, row: dict) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        write(path, row)

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "append_jsonl", dying)
        with pytest.raises(KeyboardInterrupt):
            train(killed, quiet=True)
    train(killed, quiet=True)
    assert_same_weights(killed.output, whole.output)
    assert rows_of(killed.output) == rows_of(whole.output)
    assert torch.equal(read_head(killed.output / "model"), read_head(whole.output / "model"))
    start = new_head(build.open_model(whole.model), seed=0)
    assert not torch.allclose(read_head(whole.output / "model"), start, atol=1e-5), "the head trains too"
    assert {"margin_mean", "chosen_reward", "rejected_reward"} <= rows_of(whole.output)[-1]["by_origin"]["povid"].keys()


def test_it_learns_what_it_is_shown(made: Path) -> None:
    one = loaded(made, "reward learns", *RUN, "train.steps=25", "train.lr=3e-3", "model.tune={kind: full}")
    train(one, quiet=True)
    rows = rows_of(one.output)
    assert sum(row["accuracy"] for row in rows[-5:]) / 5 > 0.9
    assert sum(row["loss"] for row in rows[-5:]) < sum(row["loss"] for row in rows[:5]) / 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate=[{kind: chair, images: x, instances: y}]",), "evaluate: found benchmarks with objective reward"),
        (("diagnose={num: 4}",), "diagnose: found with objective reward"),
        (("train.reference=frozen_copy",), "train.reference: found frozen_copy with objective reward, which has none"),
    ],
)
def test_what_a_reward_model_cannot_do_is_refused(made: Path, words: tuple[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(made, "refused", *RUN, *words)


def test_pairs_of_the_model_itself_are_refused(made: Path) -> None:
    online = "{kind: generated, when: online, data: {kind: povid, file: povid.json, images: povid/images}}"
    with pytest.raises(UserError, match=r"parts.1.source.kind: found generated with pairs of the model that trains"):
        loaded(made, "refused", *RUN, mixed(0.5, online))
