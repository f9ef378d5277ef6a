"""Annotators: every one sees the picture, both orders cancel what belongs to a place, noise is what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tiny import CHOSEN, REJECTED, picture, prompt, tiny_policy
from verisight.chat.local import LocalChat
from verisight.data.encoded import ImageError
from verisight.judges.instruction import BRIEF, instruction
from verisight.judges.likelihood import LikelihoodAnnotator
from verisight.judges.oracle import OracleAnnotator
from verisight.judges.orders import BothOrders, combined, swapped, turned
from verisight.judges.vlm import ChatAnnotator
from verisight.pocket.datasets import png, scene, write_split
from verisight.pocket.known import KnownScenes, task_of
from verisight.pocket.language import Narrator
from verisight.pocket.oracle import Task, corrupt
from verisight.types import Answer, Comparison, Decoding, Group, ImageRef, Prompt, Reply, UserError, Verdict

NUM_SCENES = 12
TWO = [Comparison(f"u{i}", prompt(i), CHOSEN, REJECTED) for i in range(2)]


class Told:
    """A chat model that says what a function makes of each request."""

    name = "told"

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def ask(self, requests):
        self.requests += requests
        replies = [self.answer(one) for one in requests]
        return [one if isinstance(one, Reply) else Reply(one) for one in replies]


def prefers(words):
    """The verdict of one who prefers the answer with these words, wherever it stands."""

    def verdict(request):
        first, second = request.text.split("Answer B:")
        return "Verdict: A" if words in first else "Verdict: B" if words in second else "Verdict: tie"

    return verdict


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder of a few scenes with their pictures."""
    return write_split(tmp_path_factory.mktemp("world"), "preference", num=NUM_SCENES)


@pytest.fixture(scope="module")
def told_wrong(world):
    """Comparisons of a true description with a corrupted one, both orders in turn."""
    made = []
    for number in range(NUM_SCENES * 10):
        one = scene("preference", number % NUM_SCENES)
        rng = np.random.default_rng(number)
        true = Narrator().caption(one, rng)
        wrong = corrupt(Task(one, ""), true, rng)
        image = ImageRef(path=world / "images" / f"{one.uid:012d}.png")
        asked = Prompt(str(number), (image,), "Describe this image in detail.")
        made.append(Comparison(str(number), asked, *((true, wrong) if number % 2 else (wrong, true))))
    return made


def accuracy(annotator, comparisons):
    verdicts = annotator.compare(comparisons)
    right = ["first" if int(one.uid) % 2 else "second" for one in comparisons]
    return np.mean([v.winner == r for v, r in zip(verdicts, right, strict=True)])


def test_a_chat_model_is_shown_the_picture_and_both_answers():
    chat = Told(prefers("dog"))
    assert ChatAnnotator(chat).compare(TWO) == [Verdict("first", "verdict", "Verdict: A")] * 2
    assert [one.images for one in chat.requests] == [one.prompt.images for one in TWO]
    assert [one.text for one in chat.requests] == [instruction(one) for one in TWO]
    assert [one.uid for one in chat.requests] == ["u0", "u1"]


@pytest.mark.parametrize(
    ("say", "winner", "reason", "counted"),
    [
        (prefers("dog"), "first", "verdict", {"first": 1}),
        (prefers("horse"), "second", "verdict", {"second": 1}),
        (prefers("camel"), "tie", "verdict", {"tie": 1}),
        (lambda one: "Verdict: A", "tie", "order", {"tie": 1, "order": 1}),
        (lambda one: "Verdict: tie" if "swapped" in one.uid else "Verdict: A", "tie", "order", {"tie": 1, "order": 1}),
        (
            lambda one: "hm" if "swapped" in one.uid else "Verdict: A",
            "unparsable",
            "no verdict line",
            {"unparsable": 1},
        ),
        (lambda one: Reply("", "down"), "unparsable", "no reply: down", {"unparsable": 1, "no reply": 1}),
    ],
)
def test_both_orders(say, winner, reason, counted):
    chat = Told(say)
    annotator = ChatAnnotator(chat, both_orders=True)
    (verdict,) = annotator.compare(TWO[:1])
    assert (verdict.winner, verdict.reason) == (winner, reason)
    assert annotator.counts == {"comparisons": 1} | counted
    assert [one.uid for one in chat.requests] == ["u0", "u0/swapped"]
    wrapped = BothOrders(ChatAnnotator(Told(say)))
    assert [(v.winner, v.reason) for v in wrapped.compare(TWO[:1])] == [(winner, reason)]


def test_turning_twice_changes_nothing():
    for winner in ("first", "second", "tie", "unparsable"):
        verdict = Verdict(winner, "r", "raw")
        assert turned(turned(verdict)) == verdict
        assert combined(verdict, verdict).winner == winner
    again = swapped(swapped(TWO[0]))
    assert (again.first, again.second, again.prompt) == (TWO[0].first, TWO[0].second, TWO[0].prompt)


def test_a_local_model_that_cannot_judge_is_unparsable(policy):
    local = LocalChat(policy, name="tiny", decoding=Decoding(4, temperature=0.0))
    (verdict,) = ChatAnnotator(local, wording=BRIEF).compare(TWO[:1])
    assert verdict.winner == "unparsable"


def test_likelihood_is_the_log_prob_of_the_verdicts(policy):
    asked = replace(TWO[0].prompt, text=instruction(TWO[0], BRIEF))
    scores = policy.score([Group(asked, (Answer("Verdict: A"), Answer("Verdict: B")))])
    a, b = scores.token_logp.detach().split(scores.num_tokens.tolist())
    margins = LikelihoodAnnotator(policy, name="tiny").margins(TWO[:1])
    assert margins == [pytest.approx(float(a[:-1].sum() - b[:-1].sum()), abs=1e-6)]
    assert margins != [pytest.approx(float(a.sum() - b.sum()), abs=1e-6)], "the end token is left out"


def test_likelihood_depends_on_the_picture_and_not_on_the_batch(policy):
    judge = LikelihoodAnnotator(policy, name="tiny", batch_size=1)
    margins = judge.margins(TWO)
    assert LikelihoodAnnotator(policy, name="tiny", batch_size=2).margins(TWO) == pytest.approx(margins, abs=1e-5)
    other = [replace(one, prompt=replace(one.prompt, images=(picture(50),))) for one in TWO]
    assert np.abs(np.subtract(judge.margins(other), margins)).min() > 1e-5


def test_likelihood_in_both_orders_has_no_place(policy):
    judge = LikelihoodAnnotator(policy, name="tiny")
    straight, other = judge.compare(TWO), judge.compare([swapped(one) for one in TWO])
    assert [turned(verdict).winner for verdict in other] == [verdict.winner for verdict in straight]
    alike = replace(TWO[0], second=TWO[0].first)
    assert judge.compare([alike])[0].winner == "tie"
    (margin,) = LikelihoodAnnotator(policy, name="tiny", both_orders=False).margins([alike])
    assert margin != 0


def test_small_margins_are_ties(policy):
    plain = LikelihoodAnnotator(policy, name="tiny", both_orders=False)
    margins = plain.margins(TWO)
    assert [v.winner for v in plain.compare(TWO)] == ["first" if margin > 0 else "second" for margin in margins]
    wide = LikelihoodAnnotator(policy, name="tiny", both_orders=False, tie_margin=max(map(abs, margins)))
    assert {v.winner for v in wide.compare(TWO)} == {"tie"}
    with pytest.raises(UserError, match="tie_margin: found -1"):
        LikelihoodAnnotator(policy, name="tiny", tie_margin=-1)


def test_an_instruction_too_long_for_the_model_is_said_so(policy):
    with pytest.raises(UserError, match="row row0: found"):
        LikelihoodAnnotator(policy, name="tiny").compare([replace(TWO[0], first="word " * 2000)])


def test_the_oracle_is_right_and_errs_with_noise(world, told_wrong):
    found = [accuracy(OracleAnnotator(world / "scenes.json", noise=n), told_wrong) for n in (0.0, 0.4, 0.7, 1.0)]
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert 0.7 < found[1] < 0.95
    assert abs(found[-1] - 0.5) < 3 * 0.5 / len(told_wrong) ** 0.5


def test_the_oracle_judges_by_the_picture_that_is_shown(world, told_wrong):
    judge = OracleAnnotator(world / "scenes.json")
    one = scene("preference", 1)
    other = scene("preference", 2)
    about = [Narrator().caption(which, np.random.default_rng(0)) for which in (one, other)]
    for shown, winner in ((one, "first"), (other, "second")):
        for ref in (ImageRef(path=world / "images" / f"{shown.uid:012d}.png"), ImageRef(data=png(shown))):
            asked = Prompt("u", (ref,), "Describe this image in detail.")
            assert judge.compare([Comparison("u", asked, *about)])[0].winner == winner


def test_alike_answers_are_a_tie(world, told_wrong):
    one = told_wrong[0]
    assert OracleAnnotator(world / "scenes.json").compare([replace(one, second=one.first)])[0].winner == "tie"
    noisy = OracleAnnotator(world / "scenes.json", noise=1.0)
    many = [replace(one, uid=str(i), second=one.first) for i in range(40)]
    assert {v.winner for v in noisy.compare(many)} == {"first", "second"}


def test_verdicts_belong_to_the_comparison_not_to_the_batch(world, told_wrong):
    judge = OracleAnnotator(world / "scenes.json", noise=0.6, seed=3)
    some = told_wrong[:30]
    whole = judge.compare(some)
    assert [judge.compare([one])[0] for one in reversed(some)] == whole[::-1]
    assert OracleAnnotator(world / "scenes.json", noise=0.6, seed=4).compare(some) != whole
    assert judge.compare([replace(one, uid=f"other{one.uid}") for one in some]) != whole


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("COCO_train2014_{:012d}.jpg", "Is there a dog in the image?", "dog"),
        ("{:012d}.png", "Is there an  airplane in the image?", "airplane"),
        ("pocket-{}.jpg", "is there a traffic light in this picture?", "traffic light"),
        ("{}.png", "What do you see in this picture?", None),
    ],
)
def test_what_a_prompt_asks(world, name, text, asked):
    uid = scene("preference", 4).uid
    task = task_of(Prompt("u", (ImageRef(path=world / name.format(uid)),), text), KnownScenes(world / "scenes.json"))
    assert (task.scene.uid, task.asked, task.question) == (uid, asked, text)
    assert task.scene.names == scene("preference", 4).names
    assert [item.cell for item in task.scene.placed] == [item.cell for item in scene("preference", 4).placed]


def test_yes_no_questions_are_judged_as_such(world):
    one = scene("preference", 0)
    ref = ImageRef(path=world / "images" / f"{one.uid:012d}.png")
    for name, right in ((one.names[0], "first"), ("zebra" if "zebra" not in one.names else "dog", "second")):
        asked = Prompt("u", (ref,), f"Is there a {name} in the image?")
        verdict = OracleAnnotator(world / "scenes.json").compare([Comparison("u", asked, "Yes.", "No.")])[0]
        assert verdict.winner == right


def test_what_the_oracle_does_not_know(world, tmp_path):
    known = KnownScenes(world / "scenes.json")
    ref = ImageRef(path=world / "images" / f"{scene('preference', 0).uid:012d}.png")
    with pytest.raises(UserError, match="row u: the oracle knows no answer to 'What is in the center"):
        task_of(Prompt("u", (ref,), "What is in the center?"), known)
    with pytest.raises(UserError, match="row u: found 0 pictures"):
        task_of(Prompt("u", (), "Describe this image in detail."), known)
    with pytest.raises(UserError, match=f"shows none of the {NUM_SCENES} scenes"):
        known.find(picture(0))
    with pytest.raises(UserError, match="shows none"):
        known.find(ImageRef(data=png(scene("test", 0))))
    with pytest.raises(ImageError, match="missing"):
        known.find(ImageRef(path=tmp_path / "nothing.png"))
    (tmp_path / "scenes.json").write_bytes((world / "scenes.json").read_bytes())
    with pytest.raises(UserError, match="images: holds no picture"):
        KnownScenes(tmp_path / "scenes.json").find(picture(0))
    misnamed = tmp_path / "999.png"
    misnamed.write_bytes(png(scene("preference", 3)))
    assert known.find(ImageRef(path=misnamed)).uid == scene("preference", 3).uid
    with pytest.raises(UserError, match="noise: found 2"):
        OracleAnnotator(world / "scenes.json", noise=2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entry: entry.pop("kind"), "entry 1: is incomplete"),
        (lambda entry: entry.update(kind="moon"), "the kind of place 'moon'"),
        (lambda entry: entry["objects"][0].update(cell="middle"), "in 'middle'"),
        (lambda entry: entry["objects"][0].update(name="camel"), "found 'camel'"),
        (lambda entry: entry["objects"][0].update(name=["dog"]), r"found \['dog'\]"),
        (lambda entry: entry.update(kind=["farm"]), r"the kind of place \['farm'\]"),
        (lambda entry: entry.update(image_id=float("inf")), "entry 1: found image_id inf"),
        (lambda entry: entry.update(image_id=3.7), "entry 1: found image_id 3.7; accepted: a whole number"),
        (lambda entry: entry.update(image_id=True), "entry 1: found image_id True"),
        (lambda entry: entry.update(image_id=-3), "entry 1: found image_id -3"),
        (lambda entry: entry.update(image_id=scene("preference", 0).uid), "entry 1: found image_id .* again"),
    ],
)
def test_scenes_that_are_none(world, tmp_path, change, problem):
    entries = json.loads((world / "scenes.json").read_text())
    change(entries[1])
    (tmp_path / "scenes.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=problem):
        KnownScenes(tmp_path / "scenes.json")
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(UserError, match="no list of scenes"):
        KnownScenes(tmp_path / "scenes.json")
