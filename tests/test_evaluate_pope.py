"""POPE: its question algorithm, both parsers on the same answers, and the metrics by hand."""

from collections import Counter

import numpy as np
import pytest

from verisight.evaluate.coco import Truth
from verisight.evaluate.objects import CATEGORIES
from verisight.evaluate.pope import (
    SPLITS,
    Pope,
    build_questions,
    measures,
    parse_corrected,
    parse_official,
)
from verisight.types import UserError

PARSED = [
    ("Yes.", "yes", "yes"),
    ("No.", "no", "no"),
    ("There isn't a dog.", "yes", "no"),
    ("There isn\u2019t a dog.", "yes", "no"),
    ("NO", "yes", "no"),
    ("No\n", "yes", "no"),
    ("The image does not show a dog.", "no", "no"),
    ("Yes, the dog is not on the mat", "no", "yes"),
    ("", "yes", None),
    ("unclear", "yes", None),
    ("I cannot tell if there is a dog.", "yes", None),
    ("It is not clear.", "no", None),
    ("There is a dog. No cat though.", "yes", "yes"),
    ("I cannot see a dog", "yes", "no"),
    ("No, there is no dog.", "no", "no"),
    ("Hmm", "yes", None),
]


@pytest.mark.parametrize(("answer", "official", "corrected"), PARSED)
def test_parsers(answer, official, corrected):
    assert parse_official(answer) == official
    assert parse_corrected(answer) == corrected


def random_truth(*, num=120, seed=0):
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, 31)
    frequency /= frequency.sum()
    truths = {}
    for i in range(num):
        held = rng.choice(30, size=int(rng.integers(1, 8)), replace=False, p=frequency)
        truths[i] = Truth(i, f"{i}.png", tuple(CATEGORIES[at] for at in held))
    return truths


@pytest.mark.parametrize("split", SPLITS)
def test_pope_questions_are_balanced_true_and_never_repeated(split):
    truth = random_truth()
    questions = build_questions(truth, num_images=50, per_image=3, seed=1, split=split)
    assert len(questions) == 300
    assert [q.label for q in questions] == ["yes", "no"] * 150
    by_image = {}
    for question in questions:
        by_image.setdefault(question.image_id, []).append(question)
        assert (question.object in truth[question.image_id].objects) == (question.label == "yes")
    for image_id, asked in by_image.items():
        assert [q.object for q in asked if q.label == "yes"] == list(truth[image_id].ordered[:3])
        assert len({q.object for q in asked}) == 6
    assert questions == build_questions(truth, num_images=50, per_image=3, seed=1, split=split)
    assert questions != build_questions(truth, num_images=50, per_image=3, seed=2, split=split)


def test_popular_and_adversarial_negatives_are_the_most_frequent_and_most_co_occurring_over_the_sample():
    truth = random_truth()
    splits = {s: build_questions(truth, num_images=50, seed=1, split=s) for s in SPLITS}
    images = {s: list(dict.fromkeys(q.image_id for q in questions)) for s, questions in splits.items()}
    assert images["popular"] == images["random"] == images["adversarial"]
    sample = [truth[i] for i in images["popular"]]
    frequency = Counter(name for each in sample for name in each.ordered)
    for split in ("popular", "adversarial"):
        for at in range(0, len(splits[split]), 6):
            asked = splits[split][at : at + 6]
            barred = set(truth[asked[0].image_id].objects)
            for positive, negative in zip(asked[::2], asked[1::2], strict=True):
                counts = frequency
                if split == "adversarial":
                    beside = [each.ordered for each in sample if positive.object in each.ordered]
                    counts = Counter(name for held in beside for name in held)
                best = max((num for name, num in counts.items() if name not in barred), default=0)
                assert counts[negative.object] == best
                barred.add(negative.object)


def test_random_negatives_differ_from_popular_ones():
    truth = random_truth()
    chosen = {
        s: [q.object for q in build_questions(truth, num_images=50, seed=1, split=s) if q.label == "no"] for s in SPLITS
    }
    assert len(set(chosen["popular"])) < len(set(chosen["adversarial"])) < len(set(chosen["random"]))


def test_pope_grammar_and_limits():
    truth = {1: Truth(1, "1.png", ("apple",)), 2: Truth(2, "2.png", ("dog",))}
    questions = build_questions(truth, num_images=2, per_image=1, seed=0, split="popular")
    assert {q.text for q in questions} == {"Is there an apple in the image?", "Is there a dog in the image?"}
    with pytest.raises(UserError, match="only 0 of 2 images hold 3 or more"):
        build_questions(truth, num_images=2, seed=0, split="random")
    with pytest.raises(UserError, match="leaves fewer than per_image=1"):
        build_questions(truth, num_images=1, per_image=1, seed=0, split="random")


def test_pope_metrics_by_hand():
    """Random: said yes to 2 of 2 yes and 1 of 2 no: accuracy 3/4, precision 2/3, recall 1, f1 4/5, yes 3/4.

    Popular: always no: accuracy 1/2, precision undefined, recall 0, f1 0. Adversarial: all right.
    """
    said = {"random": "yyyn", "popular": "nnnn", "adversarial": "yynn"}
    rows = [
        {
            "cluster": str(at),
            "truth": {"split": split, "label": label},
            "answer": {"y": "Yes", "n": "No"}[word],
        }
        for split, words in said.items()
        for at, (word, label) in enumerate(zip(words, ["yes", "yes", "no", "no"], strict=True))
    ]
    pope = Pope(images=None, instances=None)
    scored = pope.score(rows)
    found = pope.summary(scored)
    values = {name: entry["value"] for name, entry in found.items() if name.startswith("random")}
    assert values == pytest.approx(
        {"random/accuracy": 3 / 4, "random/precision": 2 / 3, "random/recall": 1,
         "random/f1": 4 / 5, "random/yes_fraction": 3 / 4, "random/unparsed_fraction": 0}
    )  # fmt: skip
    assert found["popular/precision"]["value"] is None
    assert found["popular/f1"]["value"] == 0
    assert found["f1"]["value"] == pytest.approx((4 / 5 + 0 + 1) / 3)
    assert found["accuracy"]["value"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert (found["random/f1"]["num"], found["f1"]["num"]) == (4, 12)
    assert set(measures(scored)) == set(found)


def test_unparsed_answers_are_wrong_under_the_corrected_protocol():
    pope = Pope(images=None, instances=None, parser="corrected")
    rows = [
        {"cluster": label, "truth": {"split": s, "label": label}, "answer": "unclear"}
        for s in SPLITS
        for label in ("yes", "no")
    ]
    found = pope.summary(pope.score(rows))
    assert found["accuracy"]["value"] == 0
    assert found["random/unparsed_fraction"]["value"] == 1
    assert found["random/yes_fraction"]["value"] == 0
    assert pope.protocol == "corrected"
