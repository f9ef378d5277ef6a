"""Online, mixed, averaged and iterated sources: contracts, and compositions that have to be one another."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tiny import CHOSEN, REJECTED, pair, tiny_policy
from verisight.models.reference import Reference
from verisight.negatives.bdhs import Hallucinate, Negative
from verisight.negatives.checks import Always
from verisight.negatives.guidance import Free
from verisight.negatives.views import Clean
from verisight.sources.collect import as_json, from_json
from verisight.sources.generated import NO_PAIR, NOT_TOLD_APART, Averaged
from verisight.sources.offline import Offline
from verisight.sources.online import CUT_OFF, EQUAL_ANSWERS, TIE, UNPARSABLE, Online
from verisight.sources.wrappers import Iterated, Mixed
from verisight.train.loop import Optimization, fit
from verisight.train.preference import Dpo, PreferenceStep
from verisight.types import Decoding, Sampled, UserError, Verdict

PAIRS = [pair(i) for i in range(7)]
DECODING = Decoding(max_new_tokens=5)


class Longer:
    """Prefers the answer with more letters; remembers what it was asked."""

    name = "longer"

    def __init__(self):
        self.asked = []

    def compare(self, comparisons):
        self.asked.append(comparisons)
        return [Verdict("first" if len(c.first) > len(c.second) else "second", "longer") for c in comparisons]


class Scripted:
    """A policy whose answers are told beforehand by uid."""

    def __init__(self, answers):
        self.answers, self.uids = answers, []

    def sample(self, prompts, *, decoding, seed, num):
        self.uids += [p.uid for p in prompts]
        return [[Sampled(*one) if isinstance(one, tuple) else Sampled(one, (), False)
                 for one in self.answers[p.uid.split("@")[0]]]
                for p in prompts]  # fmt: skip


class Ruled:
    """Negatives by rule: uid and seed."""

    def __init__(self, texts=None):
        self.texts = texts or {}

    def __call__(self, policy, prompts, references, *, seed):
        return [Negative(self.texts.get(p.uid.split("@")[0], f"{p.uid} at {seed}"), 1, True, None) for p in prompts]


@pytest.fixture(scope="module")
def policy():
    policy = tiny_policy()
    drawn = policy.sample
    policy.sample = lambda prompts, **options: [
        [replace(one, truncated=False) for one in row] for row in drawn(prompts, **options)
    ]
    return policy


def offline(seed=3):
    return Offline(PAIRS, seed=seed)


def online(seed=3, **options):
    return Online(Offline(PAIRS, seed=seed), Longer(), decoding=DECODING, seed=seed, **options)


def averaging(gamma, method=None):
    return Averaged(offline(), method or Ruled(), gamma=gamma, origin="told", seed=3)


def mixed(p, order="bernoulli", **options):
    return Mixed([(p, offline()), (1 - p, online())], seed=3, order=order, **options)


SOURCES = {
    "online": online,
    "online, four samples": lambda: online(num_samples=4),
    "averaged": lambda: averaging(0.5),
    "mixed": lambda: mixed(0.5),
    "interleaved": lambda: mixed(0.25, "interleave"),
    "nested": lambda: Mixed([(1, mixed(0.5, stream="inner")), (1, averaging(0.3))], seed=3, stream="outer"),
    "iterated": lambda: Iterated(online(), every=3),
    "iterated mixture": lambda: Iterated(mixed(0.5), every=2),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_exactly_n_pairs_with_weights_that_sum_to_one(make, policy):
    source = make()
    for n in (4, 4, 4, 4):
        drawn = source.draw(n, policy)
        assert len(drawn) == n
        for one in drawn:
            assert sum(one.weights) == pytest.approx(1)
            assert len(one.weights) == len(one.rejected) >= 1
            assert one.chosen.text not in [answer.text for answer in one.rejected]
    assert all(num > 0 for num in source.counts().values())


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_resumed_is_uninterrupted(make, at, policy):
    uninterrupted = make()
    expected = [uninterrupted.draw(3, policy) for _ in range(6)]
    killed, resumed = make(), make()
    for _ in range(at):
        killed.draw(3, policy)
    resumed.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    assert [resumed.draw(3, policy) for _ in range(at, 6)] == expected[at:]
    assert resumed.state_dict() == uninterrupted.state_dict()


@pytest.mark.parametrize("order", ["bernoulli", "interleave"])
def test_a_mixture_of_one_part_is_that_part(policy, order):
    for p, plain in ((1, offline()), (0, online())):
        assert mixed(p, order).draw(17, policy) == plain.draw(17, policy)


def test_averaged_with_gamma_one_is_offline(policy):
    assert averaging(1).draw(9, policy) == offline().draw(9, policy)


def test_iterated_every_step_is_the_source_itself(policy):
    source, plain = Iterated(online(), every=1), online()
    for _ in range(4):
        assert source.draw(3, policy) == plain.draw(3, policy)


def test_iterated_asks_for_pairs_every_so_many_draws_whatever_their_sizes(policy):
    class Counted:
        def __init__(self):
            self.asked = []

        def draw(self, n, policy):
            first = sum(self.asked)
            self.asked.append(n)
            return [replace(PAIRS[0], origin=str(first + k)) for k in range(n)]

    source = Iterated(Counted(), every=3)
    drawn = [source.draw(n, policy) for n in (4, 4, 4, 4, 0, 9, 1)]
    assert [len(some) for some in drawn] == [4, 4, 4, 4, 0, 9, 1]
    assert [one.origin for some in drawn for one in some] == [str(k) for k in range(26)], "none is left out"
    assert source._source.asked == [12, 12, 27]


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_bernoulli_shares_and_order(p, policy):
    source = Mixed([(p, offline()), (1 - p, averaging(0.5))], seed=0)
    origins = [one.origin for one in source.draw(1000, policy)]
    share = origins.count("offline") / 1000
    assert abs(share - p) < 4 * (p * (1 - p) / 1000) ** 0.5
    whole = Mixed([(p, offline()), (1 - p, averaging(0.5))], seed=0)
    assert [one.origin for _ in range(100) for one in whole.draw(10, policy)] == origins
    assert [
        one.origin for one in Mixed([(p, offline()), (1 - p, averaging(0.5))], seed=1).draw(1000, policy)
    ] != origins


def test_a_mixture_s_stream_is_not_that_of_one_inside_it(policy):
    inner = Mixed([(1, offline()), (1, averaging(0.5))], seed=0, stream="source.parts.0.source")
    outer = Mixed([(1, inner), (1, Offline([replace(one, origin="other") for one in PAIRS], seed=0))], seed=0)
    origins = Counter(one.origin for one in outer.draw(2000, policy))
    assert origins["offline"] == pytest.approx(500, abs=90)
    assert origins["offline+told"] == pytest.approx(500, abs=90)


def test_interleaved_shares_are_exact_at_every_step(policy):
    source = Mixed([(3, offline()), (1, averaging(0.5))], seed=0, order="interleave")
    origins = [one.origin for one in source.draw(400, policy)]
    for num in range(1, 401):
        assert abs(origins[:num].count("offline") - 0.75 * num) < 1


def test_averaged_adds_one_rejected_answer_of_the_policy(policy):
    [one] = averaging(0.3).draw(1, policy)
    assert [answer.text for answer in one.rejected] == [REJECTED, f"{one.prompt.uid}@0 at 3"]
    assert one.weights == pytest.approx((0.3, 0.7))
    assert one.origin == "offline+told"
    assert one.notes["added"]["round"] == 1


def test_averaged_leaves_out_answers_that_are_there_already(policy):
    texts = {"row1": REJECTED, "row2": f" {CHOSEN}", "row4": " "}
    source = averaging(0.5, Ruled(texts))
    assert {one.prompt.uid for one in source.draw(8, policy)} == {"row0", "row3", "row5", "row6"}
    assert source.counts() == {NO_PAIR: 4, NOT_TOLD_APART: 2}


def test_averaged_loss_is_the_weighted_sum_of_both(policy):
    method = Hallucinate(view=Clean(), guidance=Free(6), check=Always(), rounds=1)
    pairs = Averaged(offline(), method, gamma=0.3, origin="free", seed=0).draw(4, policy)
    step = PreferenceStep(policy, Frozen(policy), Dpo(0.5))
    both = step(pairs).loss
    parts = [step([replace(one, rejected=(one.rejected[k],), weights=(1.0,)) for one in pairs]).loss for k in range(2)]
    assert both.detach().numpy() == pytest.approx((0.3 * parts[0] + 0.7 * parts[1]).detach().numpy(), abs=1e-5)


class Frozen:
    """A reference that is a little off, so that margins are not all 0."""

    def __init__(self, policy):
        self.policy = policy

    def score(self, groups):
        scores = self.policy.score(groups)
        return scores._replace(
            logp_sum=(scores.logp_sum * 1.01).detach(), token_logp=(scores.token_logp * 1.01).detach()
        )


def test_online_pairs_the_best_with_the_worst():
    answers = {p.prompt.uid: ["aa", "aaaa", "a", "aaa"] for p in PAIRS}
    source = online(num_samples=4)
    [one] = source.draw(1, Scripted(answers))
    assert (one.chosen.text, one.rejected[0].text, one.origin) == ("aaaa", "a", "online")
    assert one.notes == {"annotator": "longer", "verdict": "longer", "num_samples": 4}
    [asked] = source._annotator.asked
    assert len(asked) == 6
    assert len({c.uid for c in asked}) == 6


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["The Dog. ", "the dog"], EQUAL_ANSWERS),
        (["A dog.", "A  dog!"], EQUAL_ANSWERS),
        (["A dog.", ""], CUT_OFF),
        ([("A dog and", (), True), "A cat."], CUT_OFF),
        (["?!", "?!"], EQUAL_ANSWERS),
    ],
)
def test_answers_that_cannot_be_compared_are_never_trained_on(answers, reason):
    told = {p.prompt.uid: ["A dog.", "A cow or two."] for p in PAIRS} | {"row2": answers, "row5": answers}
    source = online()
    drawn = source.draw(10, Scripted(told))
    assert not {"row2", "row5"} & {one.prompt.uid for one in drawn}
    assert source.counts() == {reason: 4}


@pytest.mark.parametrize(("winner", "reason"), [("tie", TIE), ("unparsable", UNPARSABLE)])
def test_undecided_verdicts_are_counted_and_the_draw_is_bounded(winner, reason):
    class Undecided:
        name = "undecided"

        def compare(self, comparisons):
            return [Verdict(winner) for _ in comparisons]

    told = {p.prompt.uid: ["A dog.", "A cow."] for p in PAIRS}
    source = Online(Offline(PAIRS, seed=0), Undecided(), decoding=DECODING, seed=0)
    with pytest.raises(UserError, match=f"160 examples in a row gave no pair .*{reason}: 160"):
        source.draw(2, Scripted(told))
    assert source.counts() == {reason: 160}


@pytest.mark.parametrize("between", ["tie", "unparsable"])
def test_best_and_worst_of_many_are_no_pair_against_their_own_comparison(between):
    """A wins all but its comparison with d, which loses all the others."""

    class Contrary:
        name = "contrary"

        def compare(self, comparisons):
            return [Verdict(between if c.first + c.second == "ad" else "first") for c in comparisons]

    told = {p.prompt.uid: ["a", "b", "c", "d"] for p in PAIRS}
    source = Online(Offline(PAIRS, seed=0), Contrary(), decoding=DECODING, seed=0, num_samples=4, batch_size=4)
    with pytest.raises(UserError):
        source.draw(1, Scripted(told))
    assert set(source.counts()) == {TIE}


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_online_answers_do_not_depend_on_the_batch_size(policy, batch_size):
    whole = online().draw(9, policy)
    cut = online(batch_size=batch_size)
    assert [one for n in (2, 7) for one in cut.draw(n, policy)] == whole


def test_a_circle_of_preferences_is_a_tie():
    class Circle:
        name = "circle"

        def compare(self, comparisons):
            wins = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
            return [Verdict("first" if (c.first, c.second) in wins else "second") for c in comparisons]

    told = {p.prompt.uid: ["rock", "paper", "scissors"] for p in PAIRS}
    source = Online(Offline(PAIRS, seed=0), Circle(), decoding=DECODING, seed=0, num_samples=3)
    with pytest.raises(UserError):
        source.draw(1, Scripted(told))
    assert set(source.counts()) == {TIE}


def test_online_asks_the_policy_it_is_given_under_a_new_name_each_time():
    told = Scripted({p.prompt.uid: ["A dog.", "A cow or two."] for p in PAIRS})
    source = online()
    for _ in range(5):
        source.draw(2, told)
    assert len(set(told.uids)) == len(told.uids) == 10


@pytest.mark.parametrize("one", [PAIRS[0], replace(PAIRS[1], rejected_images=PAIRS[2].prompt.images)])
def test_waiting_pairs_survive_json(one):
    held = from_json(json.loads(json.dumps(as_json(one))))
    assert replace(held, prompt=replace(held.prompt, images=one.prompt.images)) == one
    assert [ref.data for ref in held.prompt.images] == [ref.data for ref in one.prompt.images]


def test_training_on_a_mixture_of_one_is_training_on_that_part(tmp_path):
    """Weights after training: mixed with p = 1 and averaged with gamma = 1 are offline."""
    ends = []
    for name, make in {"offline": offline, "mixed": lambda: mixed(1), "averaged": lambda: averaging(1)}.items():
        trained = tiny_policy()
        trained.tune(None, train_projector=True)
        step = PreferenceStep(trained, Reference(trained, mode="frozen_copy"), Dpo(0.1))
        fit(trained, make(), step, optimization=Optimization(steps=3, batch_size=4, lr=1e-3),
            folder=tmp_path / name, quiet=True)  # fmt: skip
        ends.append(np.concatenate([w.detach().numpy().ravel() for w in trained.trainable().values()]))
    assert (ends[0] == ends[1]).all()
    assert (ends[0] == ends[2]).all()
