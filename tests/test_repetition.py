"""Repeated word n-grams, by hand and for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verisight.data.repetition import repetition


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("", 4, 0.0),
        ("one two three", 4, 0.0),
        ("one two three four", 4, 0.0),
        ("a b c d a b c d", 4, 1 / 5),  # abcd bcda cdab dabc abcd
        ("A dog. A dog! a DOG", 2, 3 / 5),  # a-dog dog-a a-dog dog-a a-dog
        ("no no no no no", 1, 4 / 5),
        ("猫猫猫猫猫猫", 4, 2 / 3),  # three runs of four, all alike
        ("有一只狗。有一只猫。", 3, 1 / 6),
        ("dog 猫 dog 猫 dog 猫", 2, 3 / 5),
        ("\N{THAI CHARACTER KO KAI}" * 8, 4, 4 / 5),
        ("कुत्ता बिल्ली कुत्ता बिल्ली", 2, 1 / 3),  # vowel signs part no words
    ],
)
def test_by_hand(text, n, share):
    assert repetition(text, n) == pytest.approx(share)


@given(st.text(max_size=80), st.integers(1, 5))
def test_it_is_a_share(text, n):
    assert 0 <= repetition(text, n) < 1
    assert repetition(text.upper().lower(), n) == repetition(text.lower().upper().lower(), n)


@given(st.lists(st.sampled_from("abcdefghij"), unique=True), st.integers(1, 5))
def test_different_words_repeat_nothing_and_said_twice_they_do(words, n):
    text = " ".join(words)
    assert repetition(text, n) == 0
    if len(words) >= n:
        assert repetition(f"{text} {text}", n) > 0
