"""Sources: every one of them gives exactly n pairs and continues mid-stream as if nothing had happened."""

import json
from dataclasses import replace
from functools import partial
from itertools import accumulate

import pytest

from tiny import CHOSEN, pair, tiny_policy
from verisight.data.files import read_jsonl
from verisight.negatives.bdhs import Hallucinate, Negative
from verisight.negatives.checks import Always
from verisight.negatives.guidance import SentenceGuided
from verisight.negatives.views import Masked
from verisight.sources.generated import NO_ANSWER, NO_PAIR, Generated, generate_pairs, paired
from verisight.sources.offline import Offline
from verisight.types import Answer, Pair, UserError

PAIRS = [pair(i) for i in range(7)]
EXAMPLES = [Pair(p.prompt, Answer(CHOSEN)) for p in PAIRS]
BDHS = Hallucinate(
    view=Masked(0.5), guidance=SentenceGuided(yes_no_swap=0.5, max_new_tokens=6), check=Always(), rounds=1
)


class Told:
    """Negatives by rule: the prompt's uid and the seed, or the reference itself for the rows in `equal`."""

    def __init__(self, equal=()):
        self.equal, self.seeds, self.batches = equal, [], []

    def __call__(self, policy, prompts, references, *, seed):
        self.seeds.append(seed)
        self.batches.append([p.uid for p in prompts])
        texts = [
            f" {r} " if p.uid.split("@")[0] in self.equal else f"{p.uid} at {seed}"
            for p, r in zip(prompts, references, strict=True)
        ]
        return [Negative(text, 1 + i % 2, i % 2 == 0, None if i else 0.12345) for i, text in enumerate(texts)]


PAIRED = partial(paired, origin="bdhs_attn")


def generating(method, *, seed=3):
    return Generated(Offline(EXAMPLES, seed=seed), method, join=PAIRED, seed=seed)


SOURCES = {
    "offline": lambda: Offline(PAIRS, seed=3),
    "generated, by rule": lambda: generating(Told(equal=("row1", "row4"))),
    "generated, tiny policy": lambda: generating(BDHS),
}


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_exactly_n_pairs_with_one_rejected_answer_each(make, policy):
    source = make()
    for n in (1, 4, 0, 12):
        drawn = source.draw(n, policy)
        assert len(drawn) == n
        assert all(len(p.rejected) == 1 == sum(p.weights) and p.rejected[0].text != p.chosen.text for p in drawn)


@pytest.mark.parametrize("at", [0, 1, 4, 6])
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_resumed_is_uninterrupted(make, at, policy):
    sizes = [3, 2, 5, 1, 4, 3, 2]
    uninterrupted = make()
    expected = [uninterrupted.draw(n, policy) for n in sizes]
    killed, resumed = make(), make()
    for n in sizes[:at]:
        killed.draw(n, policy)
    resumed.load_state_dict(json.loads(json.dumps(killed.state_dict())))
    assert [resumed.draw(n, policy) for n in sizes[at:]] == expected[at:]
    assert resumed.state_dict() == uninterrupted.state_dict()


@pytest.mark.parametrize("sizes", [[7, 7, 7], [2] * 10 + [1], [21]])
def test_offline_takes_every_pair_once_an_epoch_in_a_new_order(sizes):
    source = Offline(PAIRS, seed=0)
    uids = [p.prompt.uid for n in sizes for p in source.draw(n)]
    epochs = [uids[start : start + 7] for start in (0, 7, 14)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(p.prompt.uid for p in PAIRS)] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [p.prompt.uid for p in Offline(PAIRS, seed=1).draw(7)] != epochs[0]


def test_offline_needs_a_pair():
    with pytest.raises(ValueError, match="at least one pair"):
        Offline([], seed=0)


def test_generated_asks_anew_at_every_draw_under_a_new_name(policy):
    told = Told()
    source = generating(told, seed=2)
    drawn = [p for _ in range(4) for p in source.draw(7, policy)]
    assert len({uid for batch in told.batches for uid in batch}) == 28
    assert len({p.rejected[0].text for p in drawn}) == 28
    first = drawn[0]
    assert (first.origin, first.chosen.text, first.weights) == ("bdhs_attn", CHOSEN, (1.0,))
    nothing = {"view": {}, "written": []}
    assert first.notes == {"round": 1, "guided": True, "similarity": 0.12345} | nothing
    assert drawn[1].notes == {"round": 2, "guided": False, "similarity": None} | nothing


def test_generated_uses_the_policy_it_is_given(policy):
    other = tiny_policy(seed=9)
    first, second = (generating(BDHS, seed=0).draw(5, p) for p in (policy, other))
    assert [p.prompt.uid for p in first] == [p.prompt.uid for p in second]
    assert first != second


def test_generated_passes_over_answers_equal_to_the_chosen_one(policy):
    told = Told(equal=("row1", "row4"))
    source = generating(told, seed=0)
    drawn = source.draw(10, policy)
    assert {p.prompt.uid for p in drawn} == {"row0", "row2", "row3", "row5", "row6"}
    assert source.counts() == {NO_PAIR: 4}
    assert sum(map(len, told.batches)) == 14


def test_generated_gives_up_when_everything_is_equal(policy):
    told = Told(equal=[p.prompt.uid for p in EXAMPLES])
    with pytest.raises(UserError, match=r"160 examples in a row gave no pair .*or is empty: 160"):
        generating(told, seed=0).draw(2, policy)
    assert len(told.seeds) == 80


class Killed(Exception):
    pass


class KilledAfter:
    """A method that dies in its n-th call."""

    def __init__(self, method, calls):
        self.method, self.left = method, calls

    def __call__(self, *args, **options):
        if self.left == 0:
            raise Killed
        self.left -= 1
        return self.method(*args, **options)


def generated(policy, method, journal, **options):
    made, bad = generate_pairs(
        policy, EXAMPLES, method, journal=journal, **{"join": PAIRED, "seed": 4, "batch_size": 2} | options
    )
    return list(made), bad


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_killed_generation_continues_to_the_same_pairs(policy, tmp_path, calls):
    expected, bad = generated(policy, BDHS, tmp_path / "whole.jsonl")
    assert len(expected) == 7
    assert not bad
    journal = tmp_path / "journal.jsonl"
    with pytest.raises(Killed):
        generated(policy, KilledAfter(BDHS, calls), journal)
    again, advanced = KilledAfter(BDHS, 4 - calls), []
    assert generated(policy, again, journal, advance=lambda n=1, note="": advanced.append(n)) == (expected, [])
    assert again.left == 0
    assert list(accumulate(advanced))[-1] == 7
    assert advanced[0] == 2 * calls


def test_a_journal_of_other_rows_is_refused(policy, tmp_path):
    journal = tmp_path / "journal.jsonl"
    generated(policy, BDHS, journal)
    with pytest.raises(UserError, match="line 1 was made for another row than"):
        generate_pairs(policy, EXAMPLES[::-1], BDHS, join=PAIRED, seed=4, batch_size=2, journal=journal)


def test_a_half_written_journal_row_is_made_again(policy, tmp_path):
    expected = generated(policy, BDHS, tmp_path / "whole.jsonl")
    journal = tmp_path / "journal.jsonl"
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert generated(policy, BDHS, journal) == expected
    assert len(read_jsonl(journal)) == 7


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_what_the_policy_makes_online_does_not_depend_on_the_batch_size(policy, batch_size):
    whole = generating(BDHS).draw(9, policy)
    cut = Generated(Offline(EXAMPLES, seed=3), BDHS, join=PAIRED, seed=3, batch_size=batch_size)
    assert [one for n in (2, 7) for one in cut.draw(n, policy)] == whole


@pytest.mark.parametrize("text", ["A <image> of it.", "A dog.</s>", "[INST] A dog", "<|im_end|> A dog"])
def test_answers_with_marks_that_tokenizers_obey_are_no_pairs(policy, tmp_path, text):
    class Marked:
        def __call__(self, policy, prompts, references, *, seed):
            return [Negative(text if p.uid.startswith("row1") else "A horse.", 1, True, None) for p in prompts]

    source = generating(Marked())
    assert "row1" not in {one.prompt.uid for one in source.draw(12, policy)}
    assert sum(source.counts().values()) == 2
    pairs, [bad] = generated(policy, Marked(), tmp_path / "j.jsonl")
    assert len(pairs) == 6
    assert not bad.fault


def test_answers_that_could_not_be_made_are_faults_and_asked_for_again(policy, tmp_path):
    class Failing:
        failing = True

        def __call__(self, policy, prompts, references, *, seed):
            down = Negative("", 1, True, None, notes={"problem": "time-out"})
            made = Negative("A horse.", 1, True, None)
            return [down if self.failing and p.uid == "row2" else made for p in prompts]

    writer, journal = Failing(), tmp_path / "j.jsonl"
    pairs, [bad] = generated(policy, writer, journal)
    assert (len(pairs), bad.reason, bad.detail, bad.fault) == (6, NO_ANSWER, "time-out", True)
    writer.failing = False
    assert len(generated(policy, writer, journal)[0]) == 7


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_generated_pairs_do_not_depend_on_the_batch_size(policy, tmp_path, batch_size):
    whole = generated(policy, BDHS, tmp_path / "a.jsonl", batch_size=3)
    assert generated(policy, BDHS, tmp_path / "b.jsonl", batch_size=batch_size) == whole


def test_an_answer_equal_to_the_chosen_is_reported_and_no_pair(policy, tmp_path):
    examples = [replace(e, chosen=Answer(f"{CHOSEN}\n")) for e in EXAMPLES]
    pairs, [bad] = generate_pairs(
        policy, examples, Told(equal=("row4",)), join=PAIRED, seed=0, batch_size=3, journal=tmp_path / "j.jsonl"
    )
    assert [p.prompt.uid for p in pairs] == ["row0", "row1", "row2", "row3", "row5", "row6"]
    assert (bad.file, bad.row, bad.reason) == ("tiny#4", 4, NO_PAIR)
    assert bad.detail.strip() == CHOSEN
