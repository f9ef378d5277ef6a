"""What is looked at while training: closed forms, nothing disturbed, nothing twice after a kill."""

import math
from dataclasses import replace

import pytest
import torch

from tiny import CHOSEN, REJECTED, pair, picture, prompt, tiny_policy
from verisight.data.files import read_jsonl
from verisight.models.decode import Branch
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.sources.offline import Offline
from verisight.train.diagnose import Diagnose, Told, compared, means, shown, swaps
from verisight.train.loop import Optimization, fit
from verisight.train.preference import Dpo, PreferenceStep, SftStep
from verisight.train.samples import Divergence, measured, rated
from verisight.types import Answer, Group, ImageRef, Sampled


def about(index, origin):
    """Pair number `index`, its answers of its own."""
    animal = ("dog", "cat", "horse", "sheep", "cow")[index % 5]
    chosen, rejected = (Answer(text.replace("cow", animal).replace("sheep", "tree")) for text in (CHOSEN, REJECTED))
    return replace(pair(index), chosen=chosen, rejected=(rejected,), origin=origin)


PAIRS = [about(i, "online" if i % 2 else "offline") for i in range(5)]
HELD_OUT = [about(i, "held_out") for i in range(10, 14)]
SETTINGS = Optimization(steps=5, batch_size=3, lr=2e-3, warmup_fraction=0.0, schedule="constant")
VIEWS = ("no_image", "swapped")


def setup(kind="full"):
    policy = tiny_policy()
    policy.tune(LoraSettings(r=4, alpha=8) if "lora" in kind else None, train_projector=True)
    return policy, Reference(policy, mode="adapter_off" if policy.has_adapter else "frozen_copy")


def looker(policy, reference, pairs=PAIRS, **settings):
    return Diagnose(policy, reference, pairs, **{"every": 2, "seed": 3, "max_new_tokens": 8, **settings})


def trained(folder, kind="full", *, pairs=None, optimization=SETTINGS, die_at=None):
    policy, reference = setup(kind)
    step = SftStep(policy) if "sft" in kind else PreferenceStep(policy, reference, Dpo(0.2))
    calls = 0

    def dying(drawn):
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise KeyboardInterrupt
        return step(drawn)

    probe = None if pairs is None else looker(policy, reference, pairs)
    fit(policy, Offline(PAIRS, seed=1), dying, optimization=optimization, folder=folder, probe=probe, quiet=True)
    return {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}


def moved(policy, by=1.02):
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "vision_tower" not in name:
                weight.mul_(by)


def rows_of(folder, split="probe"):
    rows = read_jsonl(folder / "metrics.jsonl")
    assert all(row.pop("seconds") > 0 for row in rows)
    return [row for row in rows if split in ("", row["split"])]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_before_training_policy_and_reference_are_one(kind):
    found = looker(*setup(kind), num_samples=20, max_new_tokens=1)()
    assert (found["margin_mean"], found["accuracy"]) == (0, 0)
    assert found["chosen_logratio_sum"] == found["rejected_logratio_sum"] == 0
    for view in VIEWS:
        assert (found[view]["num"], found[view]["margin_mean"], found[view]["image_gain"]) == (5, 0, 0)
    told = found["samples"]
    assert [told[name] for name in ("kl_sum", "kl_sum_se", "kl_token_mean", "kl_token_mean_se")] == [0, 0, 0, 0]


def test_a_look_is_what_the_models_say_one_by_one():
    policy, reference = setup()
    moved(policy)
    averaged = replace(PAIRS[0], rejected=(Answer(REJECTED), Answer("A cat.")), weights=(0.25, 0.75), origin="online")
    pairs = [averaged, *PAIRS[1:3]]
    found = looker(policy, reference, pairs, batch_size=2)()
    expected = []
    with torch.no_grad():
        for one in pairs:
            ratio, logp, num = [], [], []
            for answer in one.group.answers:
                alone = [Group(one.prompt, (answer,))]
                now, then = policy.score(alone), reference.score(alone)
                logp.append(float(now.logp_sum))
                num.append(int(now.num_tokens))
                ratio.append(float(now.logp_sum - then.logp_sum))
            margins = [ratio[0] - one for one in ratio[1:]]
            expected.append({
                "chosen_logp_sum": logp[0], "chosen_logp_mean": logp[0] / num[0], "chosen_logratio_sum": ratio[0],
                "rejected_logp_sum": sum(map(float.__mul__, one.weights, logp[1:])),
                "rejected_tokens": sum(w * n for w, n in zip(one.weights, num[1:], strict=True)),
                "margin_mean": sum(map(float.__mul__, one.weights, margins)),
                "accuracy": sum(w * (m > 0) for w, m in zip(one.weights, margins, strict=True)),
            })  # fmt: skip
    assert expected[0]["margin_mean"] != 0
    for name in expected[0]:
        assert found[name] == pytest.approx(sum(row[name] for row in expected) / 3, rel=1e-4, abs=1e-4), name
        online = (expected[0][name] + expected[1][name]) / 2
        assert found["by_origin"]["online"][name] == pytest.approx(online, rel=1e-4, abs=1e-4), name
    assert {origin: row["num"] for origin, row in found["by_origin"].items()} == {"offline": 1, "online": 2}


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_picture_gains(view):
    policy, reference = setup()
    moved(policy)
    found = looker(policy, reference)()
    other = shown(PAIRS, seed=3)[view]
    assert all(one.prompt.images != PAIRS[index].prompt.images for index, one in other.items())
    again = looker(policy, reference, list(other.values()))()
    assert found[view]["margin_mean"] == pytest.approx(again["margin_mean"], abs=1e-4)
    assert found[view]["accuracy"] == again["accuracy"]
    gain = found["margin_mean"] - again["margin_mean"]
    assert found[view]["image_gain"] == pytest.approx(gain, abs=1e-4)
    assert abs(gain) > 1e-3
    gain = found["chosen_logp_sum"] - again["chosen_logp_sum"]
    assert found[view]["chosen_logp_gain"] == pytest.approx(gain, abs=1e-3)
    assert abs(gain) > 1e-2
    assert found[view]["image_gain_se"] > 0


def test_a_policy_that_does_not_see_gains_nothing():
    policy, reference = setup()
    moved(policy)
    with torch.no_grad():
        for model in (policy, reference._policy):
            for name, weight in model.model.named_parameters():
                if model.is_projector(name):
                    weight.zero_()
    found = looker(policy, reference)()
    assert found["margin_mean"] != 0
    assert found["swapped"]["image_gain"] == found["swapped"]["image_gain_se"] == 0
    assert found["swapped"]["margin_mean"] == found["margin_mean"]
    assert found["swapped"]["chosen_logp_gain"] == 0
    assert found["no_image"]["image_gain"] != 0  # how many tokens there were is still known


def test_rows_without_pictures_are_not_shown_without_them():
    plain = replace(PAIRS[0], prompt=replace(PAIRS[0].prompt, images=()))
    found = looker(*setup(), [plain, *PAIRS[1:3]])()
    assert (found["num_pairs"], found["no_image"]["num"], found["swapped"]["num"]) == (3, 2, 2)
    assert looker(*setup(), [plain])()["swapped"] == {"num": 0}


def test_swaps_show_something_else():
    images = [0, 0, 0, 1, 2, 3, 4]  # three rows of one picture
    prompts = [replace(prompt(i), images=(picture(image),)) for i, image in enumerate(images)]
    prompts += [replace(prompt(7), images=()), *(replace(prompt(i), images=(picture(i), picture(0))) for i in (8, 9))]
    found = swaps(prompts, seed=0)
    assert list(found) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert sorted(found.values()) == list(found)
    assert all(prompts[i].images != prompts[j].images for i, j in found.items())
    assert all(len(prompts[i].images) == len(prompts[j].images) for i, j in found.items())
    assert found == swaps(prompts, seed=0)
    assert len({tuple(swaps(prompts, seed=seed).items()) for seed in range(9)}) > 1


def test_swaps_that_cannot_be_are_left_out():
    same = [prompt(0)] * 3
    assert swaps(same, seed=0) == {}
    mostly = swaps([*same, prompt(1)], seed=0)  # one row has another picture
    assert [i for i, j in mostly.items() if {i, j} >= {3}] == list(mostly)
    coco = [replace(prompt(i), split_group="coco:7") for i in (1, 2)]
    assert swaps(coco, seed=0) == {}


def next_token(policy, one):
    """(ids,) log-probs of an answer's first token."""
    tree = policy._plant([(0, [Branch([], "")])], [one.prompt], None)[0]
    embedded = policy.network.embed(tree.ids[None], [tree.features])
    hidden = policy.network.read(embedded, tree.positions[:, None], use_cache=False).last_hidden_state
    return policy.network.logits(hidden[0, -1:])[0].log_softmax(0).double()


def test_kl_is_that_of_the_next_token():
    """Answers of one token, or their end: what is estimated is a sum over the vocabulary."""
    policy, reference = setup()
    moved(policy, 1.3)
    kept = torch.ones(len(policy.encoder.tokenizer), dtype=torch.bool)
    kept[[word for word in policy._never_drawn if word < len(kept)]] = False
    expected = []
    with torch.no_grad():
        for one in PAIRS:
            now, then = (next_token(model, one)[: len(kept)][kept] for model in (policy, reference._policy))
            p, ratio = now.exp(), now - then
            expected.append([p.sum(), (p * ratio).sum(), (p * ((-ratio).expm1() + ratio)).sum()])
    share, k1, k3 = torch.tensor(expected).sum(dim=0).tolist()
    found = looker(policy, reference, num_samples=400, max_new_tokens=1)()["samples"]
    assert (found["num"], found["tokens"] <= 1) == (2000, True)
    assert found["kl_sum"] == pytest.approx(k1 / share, abs=4 * found["kl_sum_se"])
    assert found["kl_token_mean"] == pytest.approx(k3 / share, abs=4 * found["kl_token_mean_se"])
    assert found["kl_sum_se"] < k1 / share / 5
    assert found["kl_token_mean_se"] < k3 / share / 5


def test_sums_of_kl_in_closed_form():
    drawn = [Sampled("a dog", (1, 2), False), Sampled("cow", (3,), True)]
    found = measured(drawn, [[Divergence(1.0, 0.5, 3)], [Divergence(-0.5, 0.25, 1)]])
    assert (found["num"], found["tokens"], found["words"], found["truncated_fraction"]) == (2, 1.5, 1.5, 0.5)
    assert found["kl_sum"] == 0.25
    assert found["kl_sum_se"] == pytest.approx(math.sqrt((0.75**2 + 0.75**2) / 2))  # s / sqrt(n)
    assert found["kl_token_mean"] == 0.75 / 4
    assert found["kl_token_mean_se"] == pytest.approx(math.sqrt(2 * 2 * 0.0625**2) / 4)  # k3 - 0.1875 n = -+0.0625
    one = measured(drawn, [[Divergence(1.0, 0.5, 3), Divergence(0.0, 0.0, 1)]])
    assert (one["kl_sum"], one["kl_sum_se"], one["kl_token_mean"]) == (0.5, None, 0.125)
    assert "kl_sum" not in measured(drawn, [])


def test_one_pair_in_closed_form():
    told, reference = [Told(-4.0, 2), Told(-9.0, 3)], [Told(-5.0, 2), Told(-8.0, 3)]
    assert compared(PAIRS[0], told, reference) == {
        "chosen_logp_sum": -4, "chosen_logp_mean": -2, "chosen_logratio_sum": 1, "chosen_tokens": 2,
        "rejected_logp_sum": -9, "rejected_logp_mean": -3, "rejected_logratio_sum": -1, "rejected_tokens": 3,
        "margin": 2, "accuracy": 1,
    }  # fmt: skip
    free = compared(PAIRS[0], told, None)
    assert free["margin"] == 5
    assert not [name for name in free if "logratio" in name]
    assert means([{"margin": 1.0, "a": 2.0}, {"margin": 4.0}]) == {"margin_mean": 2.5, "a": 2.0}


@pytest.mark.parametrize("kind", ["full", "lora", "sft full"])
@pytest.mark.parametrize("pairs", [PAIRS, HELD_OUT])
def test_looking_changes_nothing(kind, pairs, tmp_path):
    torch.manual_seed(0)
    alone = trained(tmp_path / "alone", kind)
    before = torch.get_rng_state()
    watched = trained(tmp_path / "watched", kind, pairs=pairs)
    assert torch.equal(before, torch.get_rng_state())
    assert [name for name in alone if not torch.equal(alone[name], watched[name])] == []
    assert rows_of(tmp_path / "alone", "") == rows_of(tmp_path / "watched", "train")
    assert [row["step"] for row in rows_of(tmp_path / "watched")] == [0, 2, 4, 5]


def test_a_look_leaves_the_policy_as_it_was():
    policy, reference = setup("lora")
    policy.score([PAIRS[4].group])
    vision, looks = policy.vision, dict(policy.vision.store._looks)
    look = looker(policy, reference)
    first = look()
    assert first == look() == looker(policy, reference)()
    assert policy.vision is vision
    assert len(looks) == 1
    assert all(vision.store._looks[key] is one for key, one in looks.items())
    assert vision.store._looks.keys() == looks.keys()
    assert all(weight.grad is None for weight in policy.trainable().values())


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("die_at", [2, 4, 5])
def test_killed_and_resumed_rows_are_those_of_an_uninterrupted_run(kind, die_at, tmp_path):
    whole = trained(tmp_path / "whole", kind, pairs=PAIRS)
    every = replace(SETTINGS, checkpoint_every=3)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "killed", kind, pairs=PAIRS, optimization=every, die_at=die_at)
    resumed = trained(tmp_path / "killed", kind, pairs=PAIRS, optimization=every)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert rows_of(tmp_path / "killed", "") == rows_of(tmp_path / "whole", "")


def test_a_kill_between_step_and_look_or_look_and_checkpoint_doubles_nothing(tmp_path, monkeypatch):
    trained(tmp_path / "whole", pairs=PAIRS)
    every = replace(SETTINGS, checkpoint_every=2)
    for number, name in enumerate(("_look", "save_checkpoint")):
        folder = tmp_path / name
        real = getattr(__import__("verisight.train.loop", fromlist=[name]), name)
        calls = []

        def dies(*args, real=real, calls=calls, at=(3, 2)[number], **kwargs):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(f"verisight.train.loop.{name}", dies)
            with pytest.raises(KeyboardInterrupt):
                trained(folder, pairs=PAIRS, optimization=every)
        trained(folder, pairs=PAIRS, optimization=every)
        assert rows_of(folder, "") == rows_of(tmp_path / "whole", "")


def test_what_is_learnt_is_seen(tmp_path):
    learn = replace(SETTINGS, steps=15, batch_size=5, lr=5e-3)
    trained(tmp_path, pairs=PAIRS, optimization=learn)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [*range(0, 15, 2), 15]
    margins = [row["margin_mean"] for row in rows]
    assert margins[0] == 0
    assert margins[-1] > margins[1] > 0
    assert margins[-1] > 5
    assert rows[-1]["accuracy"] == 1
    assert rows[-1]["samples"]["kl_token_mean"] > 0
    assert set(rows[-1]["by_origin"]) == {"offline", "online"}
    # language alone tells the two answers apart, so that is what was learnt
    assert rows[-1]["swapped"]["accuracy"] == rows[-1]["no_image"]["accuracy"] == 1
    assert abs(rows[-1]["swapped"]["image_gain"]) < margins[-1] / 4


def test_supervised_rows_have_no_margin_and_no_reference():
    policy, _ = setup()
    rows = [replace(one, rejected=(), weights=()) for one in PAIRS]
    found = looker(policy, None, rows)()
    assert {name for name in found if "margin" in name or "rejected" in name or "ratio" in name} == set()
    assert found["chosen_logp_sum"] < 0
    assert set(found["samples"]) == {"num", "tokens", "words", "truncated_fraction", "repetition"}
    assert set(found["swapped"]) == {"num", "chosen_logp_sum", "chosen_logp_gain"}
    mixed = looker(policy, None, [PAIRS[0], *rows[1:]])()
    alone = looker(policy, None, PAIRS[:1])()
    assert mixed["margin_mean"] == pytest.approx(alone["margin_mean"], abs=1e-4)


def test_a_prompt_is_sampled_from_once():
    twice = [PAIRS[0], replace(PAIRS[0], chosen=Answer(REJECTED), rejected=(Answer(CHOSEN),)), PAIRS[1]]
    assert looker(*setup(), twice, num_samples=2)()["samples"]["num"] == 4


def test_the_reference_is_asked_once(monkeypatch):
    policy, reference = setup()
    asked = []

    class Counting:
        def score(self, groups):
            asked.append([group.prompt.uid for group in groups])
            return reference.score(groups)

    look = looker(policy, Counting())
    look()
    first = len(asked)
    look()
    assert (first, len(asked)) == (4, 5)  # seen, no_image, swapped, samples; samples


def test_pictures_of_one_row_do_not_serve_another(tmp_path):
    """A picture on disk is read as it is, whatever its name."""
    (tmp_path / "a.png").write_bytes(picture(1).data)
    (tmp_path / "b.png").write_bytes(picture(1).data)
    rows = [replace(prompt(i), images=(ImageRef(path=tmp_path / name),)) for i, name in enumerate(("a.png", "b.png"))]
    assert swaps(rows, seed=0) == {}


def test_sampled_answers_are_rated_and_errors_are_of_prompts():
    class Words:
        name = "words"

        def rate(self, groups):
            return [[float(len(one.text.split())) for one in group.answers] for group in groups]

    policy, reference = setup()
    look = Diagnose(policy, reference, PAIRS, every=1, seed=0, max_new_tokens=8, num_samples=2, raters={"own": Words()})
    samples = look()["samples"]
    assert samples["own_reward"] == pytest.approx(samples["words"])
    assert samples["own_reward_se"] > 0
    groups = [Group(prompt(0), (Answer("a b"), Answer("c d"))), Group(prompt(1), (Answer("a"), Answer("a b c")))]
    assert rated({"own": Words()}, groups) == {"own_reward": 2.0, "own_reward_se": 0.0}
