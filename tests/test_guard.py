"""The collapse detector: each limit, patience, and a run that is continued."""

import pytest

from verisight.train.guard import Collapsed, Guard, Limits

GOOD = {
    "split": "train", "kl_sum": 5.0, "repetition": 0.01, "truncated_fraction": 0.0, "answer_tokens": 40.0,
    "distinct_fraction": 0.9,
}  # fmt: skip


def rows(*changes, first=1):
    return [GOOD | {"step": first + k} | change for k, change in enumerate(changes)]


def stopped_at(guard, some):
    for row in some:
        try:
            guard.see(row)
        except Collapsed as error:
            return row["step"], str(error)
    return None, ""


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"kl_sum": 101.0}, "101 nats per answer from the reference, accepted: at most 100"),
        ({"kl_sum": float("nan")}, "nan nats"),
        ({"kl_sum": float("-inf")}, "-inf nats"),
        ({"repetition": 0.6}, "0.6 of its 4-grams repeated"),
        ({"truncated_fraction": 0.9}, "0.9 of its answers cut off"),
        ({"answer_tokens": 4.0}, "0.1 of the first answers' length, accepted: at least 0.5"),
        ({"answer_tokens": 400.0}, "10 times the first answers' length"),
        ({"distinct_fraction": 0.0}, "0 of prompts with answers that differ"),
    ],
)
def test_each_limit_stops_after_patience_and_not_before(bad, told):
    guard = Guard(Limits(patience=3))
    for row in rows({}, {}, bad, bad, {}, bad, bad):
        guard.see(row)
    assert not guard.healthy
    with pytest.raises(Collapsed, match="collapsed at step 8") as caught:
        guard.see(rows(bad, first=8)[0])
    assert told in str(caught.value)
    assert "since step 6" in str(caught.value)


def test_a_batch_that_is_gone_through_again_counts_once():
    guard = Guard(Limits(patience=2))
    bad = {"kl_sum": 500.0}
    for row in rows({}, bad | {"seconds_of": {"sampling": 1.0}}, *[bad | {"seconds_of": {}}] * 8):
        guard.see(row)
    assert not guard.healthy
    with pytest.raises(Collapsed, match="since step 2"):
        guard.see(rows(bad | {"seconds_of": {"sampling": 1.0}}, first=11)[0])


def test_the_first_length_is_a_number():
    guard = Guard(Limits(patience=2))
    for row in rows({"answer_tokens": float("nan")}, {}, {}, {}):
        guard.see(row)
    assert guard.healthy


def test_limits_can_be_taken_off_and_missing_columns_break_none():
    guard = Guard(Limits(max_kl=None, patience=1))
    guard.see(rows({"kl_sum": 1e9})[0])
    guard.see({"split": "train", "step": 2, "loss": 1.0})
    guard.see({"split": "probe", "step": 2, "kl_sum": float("nan"), "repetition": 1.0})
    assert guard.healthy


def test_different_limits_do_not_add_up():
    guard = Guard(Limits(patience=2))
    for row in rows({"kl_sum": 200.0}, {"repetition": 1.0}, {"kl_sum": 200.0}, {"repetition": 1.0}):
        guard.see(row)
        assert not guard.healthy


def test_a_run_that_is_continued_stops_where_the_whole_one_does():
    some = rows({}, {}, {}, *[{"repetition": 0.9}] * 6)
    whole = stopped_at(Guard(Limits(patience=4)), some)
    assert whole[0] == 7
    for kept in range(1, 6):
        guard = Guard(Limits(patience=4))
        assert stopped_at(guard, some[:kept])[0] is None
        assert stopped_at(guard, some[kept:]) == whole
