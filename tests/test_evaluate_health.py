"""What makes an answer unusable, when that is too much, and what several votes come to."""

from __future__ import annotations

import pytest

from verisight.evaluate.health import count, not_english, refusal
from verisight.evaluate.votes import majority_vote, mean_vote


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("图中有一只猫。", True),
        ("هناك كلب في الصورة", True),
        ("Das Bild zeigt einen Hund auf einer Wiese neben einem Baum.", True),
        ("La imagen muestra un perro en el parque junto a una pelota roja.", True),
        ("L'image montre un chien dans un parc avec une balle rouge.", True),
        ("Het beeld toont een hond in het park naast een rode bal.", True),
        ("The image shows a dog in a park.", False),
        ("A dog sits on grass next to a red ball and a bench.", False),
        ("Oui", False),  # a word for the scorers
        ("cat, dog, horse", False),
        ("42", False),
        ("", False),
        ("The sign reads 停车, which means parking.", False),
        ("café", False),
        ("\uff39\uff25\uff33", False),  # full-width letters
    ],
)
def test_other_languages_are_told_by_letters_and_small_words(text: str, expected: bool) -> None:
    assert not_english(text) is expected


def test_each_row_is_unusable_once() -> None:
    """An empty row, an empty one that failed too, an unparsed one; two questions have no answer: 5 of 7."""
    rows = [
        {"answer": ""},
        {"answer": " ", "failed": True},
        {"answer": "hm", "said": None},
        {"answer": "Yes.", "said": "yes"},
        {"answer": "No.", "unparsed": False, "failed": False},
    ]
    counts = count(rows, joined={"missing": 2, "extra": 9})
    assert counts == {
        "num_items": 7, "missing": 2, "extra": 9, "empty": 2, "not_english": 0, "failed": 1, "unparsed": 1,
        "unusable": 5,
    }  # fmt: skip
    assert refusal(counts) == (
        "5 of 7 items (71.4%) are unusable (2 missing, 2 empty, 1 failed, 1 unparsed); accepted: at most 2.0%"
    )
    assert refusal(counts, limit=5 / 7) == ""


def number(reply: str) -> float | None:
    return float(reply) if reply.isdecimal() else None


@pytest.mark.parametrize(
    ("replies", "mean", "majority", "failed", "unparsed"),
    [
        (["4"], 4.0, 4.0, False, (False, False)),
        (["4", "5", "5"], 14 / 3, 5.0, False, (False, False)),
        (["4", "5"], 4.5, None, False, (False, True)),  # a draw
        ([None, "3"], 3.0, 3.0, False, (False, False)),
        (["?", "3", None], 3.0, 3.0, False, (False, False)),
        (["?", None], None, None, False, (True, True)),
        ([None, None], None, None, True, (False, False)),
    ],
)
def test_votes(
    replies: list[str | None], mean: float, majority: float, failed: bool, unparsed: tuple[bool, bool]
) -> None:
    for vote, value, lost in ((mean_vote, mean, unparsed[0]), (majority_vote, majority, unparsed[1])):
        found = vote(replies, number)
        assert (found.value, found.failed, found.unparsed) == (value, failed, lost)
    assert mean_vote(["4", "6", "x", None], number)[3:] == (2, 2.0)
