"""Checking annotators: figures against hand counts, killed checks, samples, agreement."""

from dataclasses import replace

import numpy as np
import pytest

from judged_world import NUM_SCENES, write_world
from tiny import pair
from verisight.data.files import read_json, read_jsonl
from verisight.data.readers import open_data
from verisight.judges.oracle import OracleAnnotator
from verisight.study.judging import agreement, check, kappa, measures, sample_pairs, write_summary
from verisight.types import Answer, Pair, UserError, Verdict

PAIRS = [pair(i) for i in range(10)]


class Says:
    """An annotator that says what a function makes of each comparison, and counts its calls."""

    def __init__(self, winner, name="says", stop_after=None):
        self.winner, self.name, self.stop_after = winner, name, stop_after
        self.asked = []

    def compare(self, comparisons):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += comparisons
        return [Verdict(self.winner(one)) for one in comparisons]


def right(one):
    return "first" if "dog" in one.first else "second"


def wrong(one):
    return "second" if "dog" in one.first else "first"


def mostly_right(one):
    """Right but in row 0, tied in row 1, unparsable in row 2, for the first place in row 3."""
    row = one.uid.removesuffix("/swapped").removeprefix("row")
    return {"0": wrong(one), "1": "tie", "2": "unparsable", "3": "first"}.get(row, right(one))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def values(found):
    return {name: entry["value"] for name, entry in found.metrics.items()}


def test_figures_by_hand(tmp_path):
    found = check(Says(mostly_right), PAIRS, folder=tmp_path, batch_size=3)
    assert values(found) == {
        "accuracy": pytest.approx((6 * 2 + 1) / (8 * 2)),  # row 3 wins once, loses once
        "accuracy_all": pytest.approx((6 * 2 + 1 + 1) / 20),
        "tie_fraction": pytest.approx(0.1),
        "unparsable_fraction": pytest.approx(0.1),
        "first_fraction": pytest.approx((7 + 2) / 16),
        "inconsistent_fraction": pytest.approx(1 / 9),
        "accuracy_agreed": pytest.approx(6 / 7),
    }
    low, high = found.metrics["accuracy"]["low"], found.metrics["accuracy"]["high"]
    assert 0.4 < low < 13 / 16 < high <= 1


def test_one_order_has_no_figures_of_two(tmp_path):
    annotator = Says(right)
    found = check(annotator, PAIRS, folder=tmp_path, both_orders=False)
    assert values(found)["accuracy"] == 1
    assert "inconsistent_fraction" not in found.metrics
    assert len(annotator.asked) == 10


@pytest.mark.parametrize("both_orders", [True, False])
def test_who_always_takes_the_first_is_found_out(tmp_path, both_orders):
    found = values(check(Says(lambda one: "first"), PAIRS, folder=tmp_path, both_orders=both_orders))
    assert found["first_fraction"] == 1
    if both_orders:
        assert found["accuracy"] == 0.5
        assert found["inconsistent_fraction"] == 1
        assert found["accuracy_agreed"] is None


def test_the_coin_puts_either_answer_first_and_belongs_to_the_seed(tmp_path):
    def first_texts(seed):
        annotator = Says(right)
        check(annotator, PAIRS * 5, folder=tmp_path / str(seed), both_orders=False, seed=seed)
        return [one.first for one in annotator.asked]

    drawn = first_texts(0)
    assert 10 < drawn.count(PAIRS[0].chosen.text) < 40
    assert drawn != first_texts(1)


def test_a_killed_check_continues_and_ends_the_same(tmp_path):
    whole = check(Says(mostly_right), PAIRS, folder=tmp_path / "whole", batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        check(Says(mostly_right, stop_after=8), PAIRS, folder=tmp_path / "killed", batch_size=2)
    rest = Says(mostly_right)
    again = check(rest, PAIRS, folder=tmp_path / "killed", batch_size=2)
    assert len(rest.asked) == 20 - 8
    assert again.metrics == whole.metrics
    assert [row | {"seconds": 0} for row in again.rows] == [row | {"seconds": 0} for row in whole.rows]
    done = Says(mostly_right)
    check(done, PAIRS, folder=tmp_path / "killed", batch_size=2)
    assert not done.asked


def test_rows_of_other_questions_are_not_taken(tmp_path):
    check(Says(right), PAIRS, folder=tmp_path)
    for change in ({"seed": 1}, {"both_orders": False}):
        with pytest.raises(UserError, match=r"holds 10 verdicts on other pairs"):
            check(Says(right), PAIRS, folder=tmp_path, **change)
    with pytest.raises(UserError, match="verdicts on other pairs"):
        check(Says(right), PAIRS[1:], folder=tmp_path)


def test_pairs_that_got_no_reply_are_asked_again(tmp_path):
    class Down(Says):
        def compare(self, comparisons):
            found = super().compare(comparisons)
            lost = {"row4", "row4/swapped"}
            return [
                Verdict("unparsable", "no reply: 503") if one.uid in lost else verdict
                for one, verdict in zip(comparisons, found, strict=True)
            ]

    assert values(check(Down(right), PAIRS, folder=tmp_path))["unparsable_fraction"] == 0.1
    again = Says(right)
    assert values(check(again, PAIRS, folder=tmp_path))["unparsable_fraction"] == 0
    assert len(again.asked) == 12
    assert [row["uid"] for row in read_jsonl(next(tmp_path.glob("*.jsonl")))] == [f"row{i}" for i in range(10)]


def test_kappa_is_cohens():
    table = np.array([[20, 5, 0, 10, 15, 0, 0, 0, 0]], dtype=float)
    assert kappa(table) == pytest.approx([0.4])  # p_o 0.7, p_e 0.5: the textbook's grant proposals
    assert kappa(np.eye(3).reshape(1, 9)) == pytest.approx([1.0])
    assert np.isnan(kappa(np.array([[5, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=float))).all()
    assert kappa(np.ones((1, 9))) == pytest.approx([0.0])


def test_agreement_of_two(tmp_path):
    some = [Says(right, "a"), Says(wrong, "b"), Says(mostly_right, "c"), Says(lambda one: "unparsable", "d")]
    found = agreement([check(one, PAIRS * 4, folder=tmp_path) for one in some])
    told = {(row["a"], row["b"]): (row["kappa"]["value"], row["agreed_fraction"]["value"]) for row in found}
    assert told["a", "b"] == (pytest.approx(-1, abs=0.3), 0)
    assert told["a", "d"] == (None, None)
    assert told["a", "c"][1] == pytest.approx(6 / 9)  # row 3 contradicts itself: a tie
    assert 0.3 < told["a", "c"][0] < 0.9


def test_a_sample_is_even_repeatable_and_without_what_cannot_be_compared():
    equal = replace(PAIRS[0], rejected=(Answer(f" {PAIRS[0].chosen.text} "),))
    alone = Pair(PAIRS[1].prompt, PAIRS[1].chosen)
    whole, left_out = sample_pairs([equal, *PAIRS, alone], num=99, seed=0)
    assert (whole, left_out) == (PAIRS, 2)
    drawn = [sample_pairs(iter(PAIRS), num=3, seed=seed)[0] for seed in range(300)]
    assert drawn[0] == sample_pairs(PAIRS, num=3, seed=0)[0]
    counts = np.bincount([PAIRS.index(one) for some in drawn for one in some], minlength=10)
    assert counts.sum() == 900
    assert 60 < counts.min() <= counts.max() < 120
    assert all([PAIRS.index(one) for one in some] == sorted(PAIRS.index(one) for one in some) for some in drawn)
    with pytest.raises(UserError, match="no pair to compare: 2 have no rejected answer"):
        sample_pairs([equal, alone], num=3, seed=0)


@pytest.mark.parametrize("name", ["povid", "corrupted"])
def test_the_oracle_is_right_about_re_enacted_pairs_and_errs_with_noise(world, tmp_path, name):
    file = next((world / name).glob("*.json"))
    pairs = open_data(file, images=world / name).read().pairs
    assert len(pairs) == 2 * NUM_SCENES
    found = [
        values(check(OracleAnnotator(world / "preference" / "scenes.json", noise=noise), pairs, folder=tmp_path))
        for noise in (0.0, 0.5, 1.0)
    ]
    assert found[0]["accuracy"] == found[0]["accuracy_all"] == found[0]["accuracy_agreed"] == 1
    assert found[0]["inconsistent_fraction"] == 0
    assert found[0]["accuracy"] > found[1]["accuracy"] > found[2]["accuracy"]
    assert 0.35 < found[2]["accuracy"] < 0.65
    assert found[1]["inconsistent_fraction"] > 0.1


def test_two_files_for_two_names_that_look_alike(tmp_path):
    for name in ("a/b", "a:b"):
        check(Says(right, name), PAIRS, folder=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_the_summary_names_its_files(tmp_path):
    found = check(Says(right), PAIRS, folder=tmp_path)
    summary = read_json(write_summary(tmp_path, [found], facts={"kind": "tiny"}))
    assert summary["kind"] == "tiny"
    assert summary["agreement"] == []
    entry = summary["annotators"]["says"]
    assert entry["metrics"]["accuracy"] == {"value": 1.0, "low": pytest.approx(0.69, abs=0.01), "high": 1.0, "num": 10}
    assert len(read_jsonl(tmp_path / entry["rows"])) == entry["num_pairs"] == 10


def test_measures_of_unparsable_verdicts_only():
    row = {"cluster": "a", "chosen": "first", "asked": [{"winner": "unparsable"}] * 2}
    found = measures([row])
    assert float(found["accuracy_all"].statistic(found["accuracy_all"].counts)[0]) == 0
    assert np.isnan(found["accuracy"].statistic(found["accuracy"].counts)).all()
