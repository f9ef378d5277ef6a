"""The oracle against answers written by hand, and the annotators who err: what noise does, in figures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from verisight.pocket import voices
from verisight.pocket.datasets import scene
from verisight.pocket.language import DETAIL_PROMPTS, Narrator
from verisight.pocket.oracle import Task, correct, corrupt, judge, reword
from verisight.pocket.raters import prefer, rate, spoil, suspect
from verisight.pocket.scenes import Placed, Scene

OFFICE = Scene(7, "office", (Placed("laptop", 0, 30, 0, 0), Placed("dog", 4, 30, 0, 0), Placed("cup", 8, 30, 0, 0)), 1)
DETAIL = Task(OFFICE, DETAIL_PROMPTS[0])
DOG = Task(OFFICE, "Is there a dog in the image?", "dog")
CAT = Task(OFFICE, "Is there a cat in the image?", "cat")


# The oracle


@pytest.mark.parametrize(
    ("task", "text", "faults", "missed", "recall", "mended"),
    [
        (
            DETAIL,
            "The scene is an office. There is a laptop in the top left. In the center there is a dog."
            " A cup can be seen in the bottom right.",
            ["", "", "", ""],
            (),
            1.0,
            None,
        ),
        (
            DETAIL,
            "The image shows a farm. There is a keyboard in the top left. In the middle left there is a dog.",
            ["wrong place", "absent", "misplaced"],
            ("laptop", "cup"),
            1 / 3,
            "The image shows an office. There is a laptop in the top left. In the center there is a dog.",
        ),
        (  # said twice; nothing stands there: the sentence goes
            DETAIL,
            "There is a dog in the center. A dog can be seen in the top right.",
            ["", "misplaced"],
            ("laptop", "cup"),
            1 / 3,
            "There is a dog in the center.",
        ),
        (  # two wrong ones where one object stands
            DETAIL,
            "There is a cat in the center. There is a cow in the center.",
            ["absent", "absent"],
            ("laptop", "dog", "cup"),
            0,
            "There is a dog in the center.",
        ),
        (  # said twice, in another object's cell: that one is meant
            DETAIL,
            "There is a dog in the center. A dog can be seen in the bottom right.",
            ["", "misplaced"],
            ("laptop", "cup"),
            1 / 3,
            "There is a dog in the center. A cup can be seen in the bottom right.",
        ),
        (
            DETAIL,
            "A orange blob. There is a cup in the bottom right",
            ["garbled", "garbled"],
            ("laptop", "dog", "cup"),
            0,
            "?",
        ),
        (DETAIL, "", ["garbled"], ("laptop", "dog", "cup"), 0, "?"),
        (DETAIL, "Yes.", ["garbled"], ("laptop", "dog", "cup"), 0, "?"),
        (DOG, "Yes.", [""], (), 0.75, None),
        (DOG, "Yes, there is a dog in the center.", [""], (), 1.0, None),
        (
            DOG,
            "Yes, there is a dog in the top left.",
            ["misplaced"],
            (),
            1.0,
            "Yes, there is a dog in the center.",
        ),
        (DOG, "No.", ["denied"], (), 0.0, "Yes."),
        (DOG, "No, there is no dog.", ["denied"], (), 0.0, "Yes, there is a dog in the center."),
        (
            DOG,
            "Yes. There is a cat in the top left.",
            ["", "absent"],
            (),
            0.75,
            "Yes. There is a laptop in the top left.",
        ),
        (DOG, "There is a dog in the center.", ["garbled"], (), 0.0, "Yes."),
        (CAT, "No.", [""], (), 0.75, None),
        (CAT, "No, there is no cat.", [""], (), 1.0, None),
        (CAT, "No, there is no cow.", ["garbled"], (), 0.0, "No, there is no cat."),
        (CAT, "Yes, there is a cat in the center.", ["absent"], (), 0.0, "No, there is no cat."),
    ],
)  # fmt: skip
def test_verdicts_and_corrections(
    task: Task, text: str, faults: list[str], missed: tuple[str, ...], recall: float, mended: str | None
) -> None:
    """`mended`: None for the text itself, "?" for anything true that tells it all."""
    verdict = judge(task, text)
    assert (list(verdict.faults), verdict.missed) == (faults, missed)
    assert verdict.recall == pytest.approx(recall)
    assert verdict.precision == pytest.approx(faults.count("") / len(faults))
    found = correct(task, text, np.random.default_rng(0))
    if mended == "?":
        assert judge(task, found)[1:] == (("",) * 3, (), 1.0)
    else:
        assert found == (text if mended is None else mended)


def test_what_is_missing_is_added_in_reading_order() -> None:
    told = correct(DETAIL, "There is a dog in the center.", np.random.default_rng(3), add_missing=True)
    assert [claim.name for claim in judge(DETAIL, told).claims] == ["laptop", "dog", "cup"]
    assert judge(DETAIL, told).num_faults == 0
    assert correct(DOG, "Yes.", np.random.default_rng(3), add_missing=True) == "Yes."


def test_corruption_adds_errors_to_anything_and_other_words_add_none() -> None:
    """True, half-true, wrong, garbled and empty answers; corrections mend them all."""
    kinds, errors = Counter(), Counter()
    for index in range(300):
        one, rng = scene("preference", index), np.random.default_rng(index)
        detail, yes_no = Task(one, DETAIL_PROMPTS[0]), voices.existence(one, rng)
        biased = Narrator(rename=1.0, agree=1.0)
        answers = [
            (detail, Narrator().caption(one, rng)),
            (detail, biased.caption(one, rng)),
            (detail, Narrator().caption(scene("preference", index + 1), rng)),
            *((task, text) for task in (detail, yes_no) for text in ("", "Blue blue.")),
            *((yes_no, text) for text in ("Yes.", "No.", voices.tell(yes_no, Narrator(), rng))),
        ]
        for task, text in answers:
            before, spoiled, reworded = judge(task, text), corrupt(task, text, rng), reword(task, text, rng)
            after, same = judge(task, spoiled), judge(task, reworded)
            assert spoiled != text
            assert (before.num_faults if text else 0) < after.num_faults <= before.num_faults + 2
            assert reworded != text
            assert same.num_faults <= before.num_faults
            for wrong in (text, spoiled):
                assert judge(task, correct(task, wrong, rng)).num_faults == 0
        found = judge(detail, corrupt(detail, answers[0][1], rng))
        kinds.update(fault for fault in found.faults if fault)
        errors[found.num_faults] += 1
    assert kinds.keys() == {"absent", "misplaced", "wrong place"}
    assert kinds["absent"] / kinds.total() == pytest.approx(0.7, abs=0.1)
    assert errors[1] / 300 == pytest.approx(0.5, abs=0.1)


# The annotators


def test_rankings_agree_with_the_oracle_without_noise_and_are_coins_with_it() -> None:
    """A lead of 1 fault at noise 0.5 is lost in 25 % of rankings, one of 2 in 12.5 %."""
    true, one_wrong, both_wrong, short = (
        judge(DETAIL, text)
        for text in (
            "There is a dog in the center. There is a cup in the bottom right.",
            "There is a dog in the center. There is a cat in the bottom right.",
            "There is a cow in the center. There is a cat in the bottom right.",
            "There is a dog in the center.",
        )
    )
    rng = np.random.default_rng(0)
    for better, worse, decided in (
        (true, one_wrong, True),
        (one_wrong, both_wrong, True),
        (true, both_wrong, True),
        (short, one_wrong, True),
        (true, short, False),
    ):
        assert prefer(better, worse, noise=0, rng=rng) == (1, decided)
        assert prefer(worse, better, noise=0, rng=rng) == (2, decided)

    def lost(first: Any, second: Any, noise: float) -> float:
        return sum(prefer(first, second, noise=noise, rng=rng).better == 2 for _ in range(2000)) / 2000

    assert lost(true, both_wrong, 1) == pytest.approx(0.5, abs=0.04)
    assert lost(true, true, 0) == pytest.approx(0.5, abs=0.04)
    assert lost(true, one_wrong, 0.5) == pytest.approx(0.25, abs=0.04)
    assert lost(true, both_wrong, 0.5) == pytest.approx(0.125, abs=0.03)
    assert lost(true, short, 0.25) == pytest.approx(0.25, abs=0.04)  # half a fault's worth


def test_ratings_follow_recall_and_precision_without_noise_and_nothing_with_it() -> None:
    text = "The scene is an office. There is a dog in the center. There is a cat in the bottom right."
    verdict, rng = judge(DETAIL, text), np.random.default_rng(0)
    rated = rate(DETAIL, verdict, noise=0, rng=rng)
    assert {aspect: one["Rating"] for aspect, one in rated.items()} == {
        "Helpfulness": "2",  # 1 + 4 x 1/3
        "Ethical Considerations": "5",
        "Visual Faithfulness": "4",  # 1 + 4 x 2/3, rounded
    }
    assert rated["Helpfulness"]["Rationale"].endswith("It leaves out a laptop, a cup.")
    assert rated["Visual Faithfulness"]["Rationale"].endswith("There is no cat in the image.")
    blind = Counter(one["Rating"] for _ in range(500) for one in rate(DETAIL, verdict, noise=1, rng=rng).values())
    assert blind.keys() == set("12345")
    assert max(blind.values()) < 1.3 * min(blind.values())


def test_a_blind_annotator_holds_half_of_the_sentences_to_be_wrong_and_spoils_half_of_the_answers() -> None:
    text = "There is a dog in the center. There is a cat in the bottom right."
    verdict, rng = judge(DETAIL, text), np.random.default_rng(0)
    assert suspect(verdict, noise=0, rng=rng) == [False, True]
    flags = np.array([suspect(verdict, noise=1, rng=rng) for _ in range(1000)])
    assert flags.mean(axis=0) == pytest.approx(0.5, abs=0.05)

    def wrong(noise: float) -> float:
        spoiled = [spoil(DETAIL, "There is a dog in the center.", noise=noise, rng=rng) for _ in range(1000)]
        return sum(judge(DETAIL, one).num_faults > 0 for one in spoiled) / 1000

    assert wrong(0) == 1
    assert wrong(0.4) == pytest.approx(0.8, abs=0.05)
    assert wrong(1) == pytest.approx(0.5, abs=0.05)


def test_a_true_sentence_held_against_the_model_is_spoiled() -> None:
    rng = np.random.default_rng(0)
    for task, text in ((DETAIL, "The scene is an office."), (DETAIL, "There is a dog in the center."), (DOG, "Yes."),
                       (DOG, "Yes, there is a dog in the center."), (CAT, "No, there is no cat.")):  # fmt: skip
        for _ in range(10):
            assert judge(task, correct(task, text, rng, wrong=[True])).faults[0] != ""
