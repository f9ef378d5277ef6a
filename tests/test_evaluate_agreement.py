"""Agreement of two judges: rank correlation, kappas and counts from small tables by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verisight.evaluate.agreement import agreement, kappa, spearman
from verisight.evaluate.stats import cluster_bootstrap
from verisight.types import UserError


@pytest.mark.parametrize(
    ("a", "b", "plain", "quadratic"),
    [
        pytest.param([1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15, 0.4, 0.4, id="two labels"),
        pytest.param([0, 1, 2, 2], [0, 2, 2, 1], 1 / 5, 7 / 11, id="three labels"),
        pytest.param([0, 1, 6, 1], [0, 6, 6, 1], 7 / 11, 34 / 59, id="labels with a gap"),
        pytest.param([0, 6], [6, 0], -1, -1, id="opposite"),
        pytest.param([3, 3], [3, 4], 0, 0, id="one constant"),
        pytest.param([1, 1], [2, 2], 0, 0, id="both constant, never the same"),
        pytest.param([-1, 5], [-1, 5], 1, 1, id="perfect"),
    ],
)
def test_kappa_by_hand(a, b, plain, quadratic):
    """Plain is (p_o - p_e)/(1 - p_e). Quadratic is 1 - sum of (a_i - b_i)^2 / (sum over all i, j of (a_i - b_j)^2 / n).

    Two labels: 35 of 50 agree, p_e = (25 * 30 + 25 * 20)/2500 = 1/2, so 0.2/0.5; a square of 1 changes nothing.
    Three: p_o = 2/4, margins 1 1 2 both, p_e = 6/16, so (2/16)/(10/16). Squares 0 1 0 1; over all pairs 9 + 3 + 5 + 5 =
    22, by 4: 1 - 2/5.5. Gap: p_o = 3/4, margins 1 2 1 and 1 1 2, p_e = (1 + 2 + 2)/16, so (7/16)/(11/16). Squares 25;
    over all pairs 73 + 51 + 61 + 51 = 236, by 4: 1 - 25/59 (with 0, 1, 6 taken as ranks it would be another number).
    Opposite: p_o = 0, p_e = 1/2. Squares 72, over all pairs 4 entries 0 36 0 36, by 2: 36. Constant ones: as by chance.
    """
    assert kappa(a, b) == pytest.approx(plain)
    assert kappa(a, b, quadratic=True) == pytest.approx(quadratic)
    assert kappa(b, a, quadratic=True) == pytest.approx(quadratic)


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        pytest.param([1, 2, 3], [10, 20, 21], 1, id="monotone"),
        pytest.param([1, 2, 3], [9, 8, -1], -1, id="reversed"),
        pytest.param([1, 2, 3, 4], [1, 3, 2, 4], 0.8, id="one swap"),
        pytest.param([1, 2, 2, 4], [1, 3, 2, 2], 0.5, id="ties in both"),
        pytest.param([5, 5, 5, 7], [1, 2, 3, 4], 3 / math.sqrt(15), id="three tied"),
        pytest.param([0.1 + 0.2, 0.5], [1, 2], 1, id="fractions"),
    ],
)
def test_spearman_by_hand(a, b, value):
    """Without ties 1 - 6 sum d^2 / (n (n^2 - 1)): one swap has d^2 = 0 1 1 0, so 1 - 12/60.

    Ties in both: ranks less 2.5 are -1.5 0 0 1.5 and -1.5 1.5 0 0, so 2.25/4.5. Three tied: ranks 2 2 2 4 less 2.5 are
    -.5 -.5 -.5 1.5 (squares 3), the others -1.5 -.5 .5 1.5 (squares 5): products .75 + .25 - .25 + 2.25 = 3, by the
    root of 15.
    """
    assert spearman(a, b) == pytest.approx(value)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [2]), ([3, 3], [3, 3])])
def test_undefined(a, b):
    assert math.isnan(spearman(a, b))
    if a == b:
        assert math.isnan(kappa(a, b))
        assert math.isnan(kappa(a, b, quadratic=True))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30), st.integers(2, 4))
def test_relations_that_hold_for_all(pairs, times):
    """Symmetric, unchanged where all items are repeated, by a shift, and (ranks) by a monotone map; 1 on itself."""
    a, b = np.array(pairs).T
    for statistic in (spearman, kappa, lambda x, y: kappa(x, y, quadratic=True)):
        value = pytest.approx(statistic(a, b), nan_ok=True)
        assert statistic(b, a) == value
        assert statistic(np.tile(a, times), np.tile(b, times)) == value
        assert statistic(a + 3, b + 3) == value
        if len(set(a.tolist())) > 1:
            assert statistic(a, a) == pytest.approx(1)
    assert spearman(a**3, b) == pytest.approx(spearman(a, b), nan_ok=True)


SCORES = [  # uid, cluster, first, second
    ("p", "one", 6, 6),
    ("q", "one", 2, 3),
    ("r", "two", 4, 4),
    ("s", "two", 5, 2),
    ("t", "three", 2.5, 3),
    ("u", "three", 5 / 3, 8 / 3),
    ("v", "four", None, 4),
    ("w", "four", 0, 0),
    ("x", "five", None, None),
    ("y", "five", 6, 6),
]
UNUSED = {"w": {"unparsed": True, "failed": False}, "y": {"failed": True, "unparsed": False}}


def lists():
    a = [
        {"uid": uid, "cluster": cluster, "score": first, "answer": f"It is {uid}."} for uid, cluster, first, _ in SCORES
    ]
    b = [{"uid": uid, "cluster": cluster, "score": second} for uid, cluster, _, second in SCORES]
    return [row | UNUSED.get(row["uid"], {}) for row in a], b


def values(found):
    return {name: entry["value"] if isinstance(entry, dict) else entry for name, entry in found.items()}


WANTED = {
    "num_both": 6, "num_one_only": 3, "num_neither": 1, "mean_difference": -1 / 12, "mean_absolute_difference": 11 / 12,
    "exact_agreement": 2 / 6, "agreement_within_one": 5 / 6, "spearman": 7 / math.sqrt(17.5 * 17), "kappa": 11 / 29,
    "quadratic_kappa": 12 / 23,
}  # fmt: skip


def test_agreement_by_hand():
    """Both judged p to u; v has one score only, w and y count as not judged by the first, x has none.

    Second less first: 0 1 0 -3 .5 1, sum -.5, sizes 5.5; within one all but s (8/3 - 5/3 is 1). Ranks less 3.5:
    2.5 -1.5 .5 1.5 -.5 -2.5 and 2.5 0 1.5 -2.5 0 -1.5: products 6.25 + .75 - 3.75 + 3.75 = 7, squares 17.5 and 17.
    Rounded, halves up: 6 2 4 5 3 2 and 6 3 4 2 3 3. Same in 3 of 6; p_e = (2 * 1 + 1 * 3 + 1 + 1)/36 for 2 3 4 6, so
    11/29. Squares 0 1 0 9 0 1 = 11; over all pairs 6 * 94 + 6 * 83 - 2 * 22 * 21 = 138, by 6: 1 - 11/23.
    Below 3: q t u and s u; same for p r u. p_e = (3 * 2 + 3 * 4)/36 = 1/2: kappa 0. One only: 2 against 1, which says
    nothing (p = 1).
    """
    found = agreement(*lists())
    assert values(found) == pytest.approx(WANTED)
    assert {found[name]["num"] for name in list(WANTED)[3:]} == {6}
    verdicts = {
        "threshold": 3,
        "verdict_difference": -1 / 6,
        "verdict_agreement": 3 / 6,
        "verdict_kappa": 0,
        "mcnemar_p": 1,
    }
    assert values(agreement(*lists(), threshold=3)) == pytest.approx(WANTED | verdicts)
    json.dumps(found, allow_nan=False)


def test_order_and_sides():
    a, b = lists()
    forward, shuffled, turned = (
        agreement(a, b, threshold=3),
        agreement(a, b[::-1], threshold=3),
        agreement(b, a, threshold=3),
    )
    assert shuffled == forward
    signed = {"mean_difference": 1 / 12, "verdict_difference": 1 / 6}
    assert values(turned) == pytest.approx(values(forward) | signed)


def test_verdicts_by_hand():
    """Five below 3 by the first alone, none by the second: p = 2/2^5. 3 is not below 3; truth values are 0 and 1."""
    a = [{"uid": str(at), "score": 2} for at in range(5)] + [{"uid": "5", "score": 3.0}, {"uid": "6", "score": 0}]
    b = [row | {"score": 3} for row in a[:6]] + [a[6]]
    found = agreement(a, b, threshold=3)
    assert found["mcnemar_p"] == pytest.approx(1 / 16)
    assert values(found)["verdict_difference"] == pytest.approx(-5 / 7)
    marked = [[row | {"right": row["score"] < 3} for row in rows] for rows in (a, b)]
    assert values(agreement(*marked, key="right", threshold=1))["verdict_difference"] == pytest.approx(5 / 7)
    assert values(agreement(*marked, key="right"))["kappa"] == values(found)["verdict_kappa"]


def noisy(num=60):
    rng = np.random.default_rng(4)
    first = rng.integers(0, 7, num)
    second = np.clip(first + rng.integers(-2, 3, num), 0, 6)
    a = [{"uid": str(at), "cluster": f"c{at // 3}", "score": int(value)} for at, value in enumerate(first)]
    return a, [row | {"score": int(value)} for row, value in zip(a, second, strict=True)]


def test_intervals_resample_whole_clusters():
    """The mean's interval is `cluster_bootstrap`'s; the others' are those of drawing clusters in a loop."""
    a, b = noisy()
    found = agreement(a, b, seed=7)
    apart = [two["score"] - one["score"] for one, two in zip(a, b, strict=True)]
    clusters = [row["cluster"] for row in a]
    assert found["mean_difference"] == cluster_bootstrap(apart, [1.0] * 60, clusters, seed=7, fraction=False)._asdict()
    scores = np.array([[one["score"], two["score"]] for one, two in zip(a, b, strict=True)]).reshape(20, 3, 2)
    rng = np.random.default_rng(0)
    drawn = [scores[rng.integers(0, 20, 20)].reshape(60, 2).T for _ in range(1500)]
    for name, statistic in (
        ("spearman", spearman),
        ("kappa", kappa),
        ("quadratic_kappa", lambda x, y: kappa(x, y, quadratic=True)),
    ):
        wanted = np.quantile([statistic(*pair) for pair in drawn], [0.025, 0.975])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(tuple(wanted), abs=0.02)
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]
    assert agreement(a, b, seed=8)["kappa"] != found["kappa"]


def test_clusters_come_from_the_list_that_has_them():
    a, b = noisy()
    people = [{"uid": row["uid"], "score": row["score"]} for row in b]
    assert agreement(a, people) == agreement(a, b)
    assert values(agreement(people, a)) == values(agreement(b, a))
    assert agreement(people, a)["kappa"] == agreement(b, a)["kappa"]
    alone = [{"uid": row["uid"], "score": row["score"]} for row in a]
    assert agreement(alone, people)["mean_difference"] != agreement(a, b)["mean_difference"]


def test_nothing_judged_by_both():
    found = agreement([{"uid": "a", "score": None}], [{"uid": "a", "score": 1}], threshold=3)
    assert (found["num_both"], found["num_one_only"], found["num_neither"], found["mcnemar_p"]) == (0, 1, 0, None)
    for name in ("mean_difference", "spearman", "quadratic_kappa", "verdict_kappa"):
        assert found[name] == {"value": None, "low": None, "high": None, "num": 0}


def test_means_of_votes_are_not_exact():
    """4/3 and 7/3 are one apart, in floating point a little more; 1 less a hair is rounded up and not below 1."""
    found = values(agreement([{"uid": "a", "score": 4 / 3}], [{"uid": "a", "score": 7 / 3}]))
    assert found["agreement_within_one"] == 1
    hair = [[{"uid": "a", "score": score}, {"uid": "b", "score": 3}] for score in (1 - 1e-12, 1)]
    found = values(agreement(*hair, threshold=1))
    assert [found[name] for name in ("exact_agreement", "verdict_agreement")] == [1, 1]


def test_all_the_same_proves_only_so_much():
    """Nine of nine clusters agree: a share of at least 0.025^(1/9) (Clopper-Pearson); means and kappa have no such."""
    rows = [{"uid": str(at), "score": at} for at in range(9)]
    found = agreement(rows, rows)
    for name in ("exact_agreement", "agreement_within_one"):
        assert found[name] == {"value": 1, "low": pytest.approx(0.025 ** (1 / 9)), "high": 1, "num": 9}
    for name, value in (("mean_difference", 0), ("mean_absolute_difference", 0), ("kappa", 1), ("spearman", 1)):
        assert [found[name][key] for key in ("value", "low", "high")] == pytest.approx([value] * 3)


def test_one_item_has_no_interval_and_all_the_same_no_kappa():
    found = agreement([{"uid": "a", "score": 2}], [{"uid": "a", "score": 2}])
    assert found["exact_agreement"] == {"value": 1, "low": None, "high": None, "num": 1}
    assert found["kappa"]["value"] is None
    assert found["spearman"]["value"] is None


ROW = {"uid": "a", "score": 1, "answer": "Yes"}


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [ROW], r"agreement: the first list is empty"),
        ([ROW], [], r"agreement: the second list is empty"),
        ([ROW, ROW], [ROW], r"agreement: a is twice in the first list"),
        ([ROW], [ROW, ROW], r"agreement: a is twice in the second list"),
        ([ROW, ROW | {"uid": "b"}], [ROW], r"1 items are only in the first, not the second list, such as b"),
        ([ROW], [ROW | {"uid": "b"}, ROW], r"1 items are only in the second, not the first list, such as b"),
        ([ROW], [ROW | {"answer": "No"}], r"a has different answers in the two lists"),
        ([{"uid": "a"}], [ROW], r"a has no `score` in the first list; score its rows first"),
        ([ROW], [{"uid": "a"}], r"a has no `score` in the second list"),
        ([ROW], [ROW | {"score": "4"}], r"a\.score is '4' in the second list; accepted is a number"),
        ([ROW | {"score": math.nan}], [ROW], r"a\.score is nan in the first list"),
        ([{"score": 1}], [ROW], r"row 0 of the first list has uid missing; accepted is a text"),
        ([ROW], [ROW | {"uid": 3}], r"row 0 of the second list has uid 3"),
    ],
)
def test_lists_that_do_not_fit(a, b, message):
    with pytest.raises(UserError, match=message):
        agreement(a, b)
