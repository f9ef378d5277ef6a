"""Changed words and tokens of a correction, and the segment weights of dense DPO, against counts done by hand."""

import json
import math
import random
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verisight.data import segments
from verisight.data.segments import Segments, changed_tokens, changed_tokens_muffin, changed_words
from verisight.types import UserError

X, A, B, Y, Q, Z = range(10, 16)
TEXTS = st.text(alphabet="ab c'-.,é\u0301犬猫👍🏽\u200d🇩🇪שלאב\n", max_size=40)
TOKENS = st.lists(st.integers(0, 4), max_size=30)


def cut(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in spans]


def marked(chosen: str, rejected: str) -> tuple[list[str], list[str]]:
    changed = changed_words(chosen, rejected)
    return cut(chosen, changed.chosen), cut(rejected, changed.rejected)


def split(text: str) -> list[str]:
    return cut(text, segments._word_spans(text))


def places(masks: segments.TokenMasks) -> tuple[list[int], list[int]]:
    return np.flatnonzero(masks.chosen).tolist(), np.flatnonzero(masks.rejected).tolist()


# -- words


@pytest.mark.parametrize(
    ("chosen", "rejected", "only_chosen", "only_rejected"),
    [
        ("There are two sheep.", "There are six sheep.", ["two"], ["six"]),
        ("A man walks.", "A man walks with a dog behind him.", [], ["with a dog behind him"]),
        ("A man walks with a dog.", "A man walks.", ["with a dog"], []),
        ("x a b y", "q a b z", ["x", "y"], ["q", "z"]),
        ("Two cats", "two  cats", ["Two"], ["two"]),
        ("It is red, not blue.", "It is red not blue!", [",", "."], ["!"]),
        ("a\n  red\tcar", "a car", ["red"], []),
        ("a big\n\n red car", "a car", ["big\n\n red"], []),
        ("the well-known dog", "the well known dog", ["well-known"], ["well known"]),
        ("图中有两只狗。", "图中有六只狗。", ["两"], ["六"]),
        ("犬が二匹います", "犬がいます", ["二匹"], []),
        ("a dog 👍🏽", "a dog 👍🏿", ["👍🏽"], ["👍🏿"]),
        ("flag 🇩🇪🇫🇷", "flag 🇩🇪🇮🇹", ["🇫🇷"], ["🇮🇹"]),
        ("كلب أحمر كبير", "كلب أزرق كبير", ["أحمر"], ["أزرق"]),
        ("שני כלבים שחורים", "כלבים שחורים", ["שני"], []),
        ("same", "same", [], []),
        ("", "", [], []),
        ("  \n", "", [], []),
        ("", "A dog.", [], ["A dog."]),
    ],
)
def test_the_words_that_differ(chosen: str, rejected: str, only_chosen: list[str], only_rejected: list[str]) -> None:
    assert marked(chosen, rejected) == (only_chosen, only_rejected)
    assert marked(rejected, chosen) == (only_rejected, only_chosen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't dogs' -x rock--n", ["don't", "dogs", "'", "-", "x", "rock", "-", "-", "n"]),
        ("it’s 3.5 m", ["it’s", "3", ".", "5", "m"]),  # noqa: RUF001 - the apostrophe is the point
        ("e\u0301te\u0301 naïve", ["e\u0301te\u0301", "naïve"]),
        ("हिन्दी كِتَاب שָׁלוֹם 한국어", ["हिन्दी", "كِتَاب", "שָׁלוֹם", "한국어"]),
        ("日本のスキー、3匹", ["日", "本", "の", "ス", "キ", "ー", "、", "3", "匹"]),
        ("ดีดี", ["ดี", "ดี"]),
        ("👨\u200d👩\u200d👧👍🏽❤️\u200d🔥1️⃣", ["👨\u200d👩\u200d👧", "👍🏽", "❤️\u200d🔥", "1️⃣"]),
        ("\u200f \u200b", []),
    ],
)
def test_what_a_word_is(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_spans_count_code_points_of_the_original_text() -> None:
    changed = changed_words("👍  two  red dogs", "👍 a dogs")
    assert changed == segments.Changed(chosen=((3, 11),), rejected=((2, 3),))
    notes = changed.as_notes()
    assert notes == {"chosen": [[3, 11]], "rejected": [[2, 3]]}
    assert json.loads(json.dumps(notes)) == notes


@given(TEXTS, TEXTS)
@example("a\u200d", "\u200da")
def test_word_spans_are_sorted_and_leave_the_same_words(chosen: str, rejected: str) -> None:
    changed = changed_words(chosen, rejected)
    swapped = changed_words(rejected, chosen)
    assert (swapped.rejected, swapped.chosen) == (changed.chosen, changed.rejected)
    kept = []
    for text, spans in (chosen, changed.chosen), (rejected, changed.rejected):
        edges = [edge for span in spans for edge in span]
        assert edges == sorted(set(edges))
        assert all(0 <= edge <= len(text) for edge in edges)
        assert all(part == part.strip() for part in cut(text, spans))
        inside = [any(start <= at < end for start, end in spans) for at, _ in segments._word_spans(text)]
        kept.append([word for word, hit in zip(split(text), inside, strict=True) if not hit])
        for (_, end), (start, _) in pairwise(spans):
            assert split(text[end:start]), "spans with nothing but blanks between are one span"
    assert kept[0] == kept[1]


# -- tokens


@pytest.mark.parametrize(
    ("chosen", "rejected", "default", "muffin"),
    [
        pytest.param([1, 2, 7, 3, 4, 5], [1, 2, 8, 9, 3, 4, 5], ([2], [2, 3]), ([1, 2], [1, 2, 3]), id="substituted"),
        pytest.param([0, 1, 2, 3, 4], [0, 1, 2, 3, 7, 8, 4], ([], [4, 5]), ([4], [4, 5, 6]), id="short-end"),
        pytest.param([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 8, 4, 5, 6], ([], [4]), ([], []), id="pure-deletion"),
        pytest.param([0, 1, 2, 3, 8, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], ([4], []), ([], []), id="pure-insertion"),
        pytest.param([0, X, A, B, Y], [0, Q, A, B, Z], ([1, 4], [1, 4]), ([1, 2, 3, 4], [1, 2, 3, 4]), id="swallowed"),
        pytest.param([7, 1, 2, 3], [8, 1, 2, 3], ([0], [0]), ([], []), id="first-token"),
        pytest.param([5, 6], [5, 6], ([], []), ([1], [1]), id="equal-but-short"),
        pytest.param([], [1, 2], ([], [0, 1]), ([], []), id="empty"),
        pytest.param([], [], ([], []), ([], []), id="both-empty"),
    ],
)
def test_changed_tokens_by_hand(chosen: list, rejected: list, default: tuple, muffin: tuple) -> None:
    assert places(changed_tokens(chosen, rejected)) == default
    assert places(changed_tokens_muffin(chosen, rejected)) == muffin


def test_short_matches_between_changes_can_be_swallowed() -> None:
    chosen, rejected = [1, X, A, B, Y, 2], [1, Q, A, B, Z, 2]
    assert places(changed_tokens(chosen, rejected, min_match=2)) == ([1, 4], [1, 4])
    assert places(changed_tokens(chosen, rejected, min_match=3)) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_a_popular_token_is_junk_in_the_released_code_only() -> None:
    """Alternating tokens, one edited. In 200 and more both are junk, and no match starts behind the edit."""
    chosen = [0, *([1, 2] * 150)]
    rejected = [*chosen[:150], 9, *chosen[151:]]
    assert places(changed_tokens(chosen, rejected)) == ([150], [150])
    assert places(changed_tokens_muffin(chosen[:199], rejected[:199])) == ([150], [150])
    junked = places(changed_tokens_muffin(chosen, rejected))
    assert junked == (list(range(150, 301)), list(range(150, 301)))


def test_the_released_code_takes_the_rejected_row_first() -> None:
    """Swapping changes the marks.

    After the shift: rejected 1 0 1 1 0 2, chosen 1 1 0 1. Two stretches of three match, 1 0 1 and 1 1 0; the one
    earliest in the first sequence wins. With 1 0 1 nothing stands in front of it in the rejected row, behind it
    nothing in the chosen one: no marks. Swapped, 1 1 0 is taken: before it one side is empty, behind it 1 and 2.
    """
    chosen, rejected = [1, 1, 1, 0, 1], [1, 1, 0, 1, 1, 0, 2]
    assert places(changed_tokens_muffin(chosen, rejected)) == ([], [])
    assert places(changed_tokens_muffin(rejected, chosen)) == ([6], [4])


def test_padding_turns_a_pure_deletion_at_the_end_into_a_change_in_the_released_code() -> None:
    chosen, rejected = [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 7, 8]
    assert places(changed_tokens_muffin(chosen, rejected)) == ([], [])
    assert places(changed_tokens_muffin([*chosen, -1, -1], rejected)) == ([5, 6], [5, 6])


@given(TOKENS, TOKENS, st.integers(1, 4), st.sampled_from([0, segments.MAX_EQUAL_PLACES]))
def test_what_is_left_unchanged_is_the_same(chosen: list[int], rejected: list[int], min_match: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "MAX_EQUAL_PLACES", limit)
        masks = changed_tokens(chosen, rejected, min_match=min_match)
        swapped = changed_tokens(rejected, chosen, min_match=min_match)
    assert [mask.tolist() for mask in swapped] == [masks.rejected.tolist(), masks.chosen.tolist()]
    assert np.array(chosen)[~masks.chosen].tolist() == np.array(rejected)[~masks.rejected].tolist()
    assert (chosen == rejected) == (not masks.chosen.any() and not masks.rejected.any())


@given(TOKENS, TOKENS)
def test_the_released_code_marks_both_sides_or_none(chosen: list[int], rejected: list[int]) -> None:
    masks = changed_tokens_muffin(chosen, rejected)
    assert masks.chosen.any() == masks.rejected.any()
    assert [mask.shape for mask in masks] == [(len(chosen),), (len(rejected),)]
    assert not any(mask[:1].any() for mask in masks)


@given(TOKENS, TOKENS)
def test_the_common_subsequence_is_a_longest_one(one: list[int], two: list[int]) -> None:
    longest = np.zeros((len(one) + 1, len(two) + 1), dtype=int)
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            longest[i + 1, j + 1] = longest[i, j] + 1 if a == b else max(longest[i, j + 1], longest[i + 1, j])
    pairs = segments._common_subsequence(one, two)
    assert len(pairs) == longest[-1, -1]
    assert all(one[i] == two[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))


def test_answers_that_loop_do_not_stall() -> None:
    """A token repeated 2,000 times against the same with gaps takes difflib most of a minute."""
    loop = [1] * 2000
    gaps = [1 if i % 3 else i + 2 for i in range(2000)]
    start = time.perf_counter()
    masks = changed_tokens(loop, gaps)
    assert time.perf_counter() - start < 5
    assert masks.rejected.tolist() == [i % 3 == 0 for i in range(2000)]
    assert masks.chosen.sum() == masks.rejected.sum()


# -- weights


def test_weights_by_hand() -> None:
    """Prompt 0 1; chosen 2 7 3 4, rejected 2 8 9 3 4. Changed: 7; 8 9. N = 3 + 5 = 8 and 3 + 5 * 2 = 13."""
    chosen, rejected = [0, 1, 2, 7, 3, 4], [0, 1, 2, 8, 9, 3, 4]
    answers = {"chosen_answer": [0, 0, 1, 1, 1, 1], "rejected_answer": [0, 0, 1, 1, 1, 1, 1]}
    mean = Segments().weights(chosen, rejected, **answers)
    np.testing.assert_allclose(mean.chosen, [1 / 8, 5 / 8, 1 / 8, 1 / 8], rtol=1e-15)
    np.testing.assert_allclose(mean.rejected, [1 / 13, 5 / 13, 5 / 13, 1 / 13, 1 / 13], rtol=1e-15)
    total = Segments(gamma=1.1, average=False).weights(chosen, rejected, **answers)
    assert total.chosen.tolist() == [1, 1.1, 1, 1]
    assert total.rejected.tolist() == [1, 1.1, 1.1, 1, 1]
    # behind the shift 1 2 and 3 4 are matches of two tokens, so the released code calls every token changed
    compat = Segments(gamma=3, average=False, muffin_compat=True).weights(chosen, rejected, **answers)
    assert compat.chosen.tolist() == [3, 3, 3, 3]
    assert compat.rejected.tolist() == [3, 3, 3, 3, 3]


def test_the_dot_product_is_the_formula() -> None:
    """With log p = -1 -2 -3 -4 and 7 changed: (-1 - 3 - 4 + 5 * -2) / 8 = -18 / 8."""
    weights = Segments().weights([2, 7, 3, 4], [2, 8, 9, 3, 4], chosen_answer=[1] * 4, rejected_answer=[1] * 5)
    assert weights.chosen @ np.array([-1.0, -2.0, -3.0, -4.0]) == pytest.approx(-18 / 8, rel=1e-15)


def test_a_pure_deletion_weighs_the_side_that_has_it() -> None:
    prompt, chosen, rejected = [0, 0, 0], [1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 4, 5, 6]
    rows = {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}
    answers = {"chosen_answer": [0] * 3 + [1] * 6, "rejected_answer": [0] * 3 + [1] * 7}
    ours = Segments(average=False).weights(**rows, **answers)
    assert (ours.chosen.tolist(), ours.rejected.tolist()) == ([1] * 6, [1, 1, 1, 5, 1, 1, 1])
    released = Segments(average=False, muffin_compat=True).weights(**rows, **answers)
    assert (released.chosen.tolist(), released.rejected.tolist()) == ([1] * 6, [1] * 7)


def test_the_prompt_only_matters_to_the_released_code() -> None:
    """One answer repeats the prompt: looking at whole rows must not take its tokens for the prompt's."""
    answers = {"chosen_answer": [0, 0, 0, 1, 1], "rejected_answer": [0, 0, 0, 1, 1, 1]}
    ours = Segments().weights([1, 2, 3, 8, 9], [1, 2, 3, 2, 3, 9], **answers)
    alone = Segments().weights([8, 9], [2, 3, 9], chosen_answer=[1, 1], rejected_answer=[1, 1, 1])
    assert [side.tolist() for side in ours] == [side.tolist() for side in alone]


@given(TOKENS, TOKENS, st.floats(0.01, 100), st.data())
def test_weights_sum_to_one_or_to_n(chosen: list[int], rejected: list[int], gamma: float, data: st.DataObject) -> None:
    answers = {
        f"{side}_answer": data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        for side, ids in (("chosen", chosen), ("rejected", rejected))
    }
    ones = Segments(gamma=1, average=False).weights(chosen, rejected, **answers)
    plain = Segments(gamma=gamma, average=False).weights(chosen, rejected, **answers)
    mean = Segments(gamma=gamma).weights(chosen, rejected, **answers)
    for side, flags in enumerate(answers.values()):
        assert ones[side].tolist() == [1.0] * sum(flags)
        assert set(plain[side].tolist()) <= {1.0, gamma}
        assert mean[side].dtype == np.float64
        if any(flags):
            assert mean[side].sum() == pytest.approx(1)
            np.testing.assert_allclose(mean[side] * plain[side].sum(), plain[side], rtol=1e-12)


@pytest.mark.parametrize(
    "gamma", [0, -1.0, math.nan, math.inf, True, "5", None, 10**400], ids=lambda gamma: str(gamma)[:8]
)
def test_gamma_is_checked(gamma: object) -> None:
    with pytest.raises(UserError, match=r"gamma.*finite number > 0") as caught:
        Segments(gamma=gamma)
    assert repr(gamma) in str(caught.value)


def test_flags_must_fit_the_tokens() -> None:
    with pytest.raises(AssertionError, match="1 answer flags for 2 tokens"):
        Segments().weights([1, 2], [1], chosen_answer=[1], rejected_answer=[1])
    with pytest.raises(AssertionError, match="nothing precedes"):
        Segments(muffin_compat=True).weights([1, 2], [1], chosen_answer=[1, 1], rejected_answer=[0])


def test_a_realistic_correction_is_found_exactly() -> None:
    rng = random.Random(0)
    chosen = [rng.randrange(1000) for _ in range(600)]
    rejected = list(chosen)
    for at in (50, 300, 599):
        rejected[at] = -1
    assert places(changed_tokens(chosen, rejected)) == ([50, 300, 599], [50, 300, 599])
