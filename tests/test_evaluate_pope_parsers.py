"""Four harnesses' readings of one answer, derived from their rules, and what a reading does to the figures."""

from __future__ import annotations

import pytest

from verisight.evaluate.pope import measures, score
from verisight.evaluate.pope_parsers import PARSERS, parse_lmms_eval, parse_opera, parse_vlmevalkit
from verisight.evaluate.stats import summarise

# answer -> official, lmms-eval, VLMEvalKit, OPERA. None: neither, which counts as wrong
TABLE: dict[str, tuple[str | None, ...]] = {
    "Yes.": ("yes", None, "yes", "yes"),
    "There isn't a dog.": ("yes", None, None, "no"),
    "NO": ("yes", "no", "no", "no"),
    "No\n": ("yes", "no", "no", "yes"),
    "The image does not show a dog.": ("no", None, None, "no"),
    "Yes, the dog is not on the mat": ("no", None, "yes", "no"),
    "": ("yes", None, None, "yes"),
    "yes, no": ("no", None, None, "no"),
    "Yes. No dog, though.": ("yes", None, None, "no"),
    "no.": ("no", None, "no", "no"),
    "nO": ("yes", "no", "no", "yes"),
    "\tYES\n": ("yes", "yes", "yes", "yes"),
    "No dog": ("no", None, "no", "no"),
    "Not at all": ("yes", None, None, "yes"),
    "A dog isn't, is there?": ("yes", None, None, "no"),
    "I don't know": ("yes", None, None, "no"),
    "It isn\u2019t there": ("yes", None, None, "yes"),
    "No!": ("yes", None, "no", "yes"),
    "(no)": ("yes", None, "no", "yes"),
    "Notable: yes": ("yes", None, "yes", "yes"),
    "Answer: no": ("no", None, "no", "no"),
    "是": ("yes", None, None, "yes"),
    "\uff4e\uff4f": ("yes", None, None, "yes"),
    "I'm sorry, I cannot see the image.": ("yes", None, None, "yes"),
    "no no no": ("no", None, "no", "no"),
    "Nothing": ("yes", None, None, "yes"),
    "No, yes": ("no", None, None, "no"),
    " ": ("yes", None, None, "yes"),
}


@pytest.mark.parametrize("answer", TABLE)
def test_answers_by_hand(answer: str) -> None:
    """Each harness's rule on each answer.

    official: No, no or not among the words before the first stop, commas taken out, parted at single blanks: so "Not",
    "NO", "nO", "No!", "(no)" and a line break behind No hide it. lmms-eval: nothing but the word itself, in any case.
    VLMEvalKit: one of yes and no among the words in lower case without marks, not both; not and n't say nothing.
    OPERA: like the official rule over all sentences, with NO and words in n't (the straight mark alone).
    """
    names = ("official", "lmms-eval", "vlmevalkit", "opera")
    assert tuple(PARSERS[name](answer) for name in names) == TABLE[answer]


@pytest.mark.parametrize("answer", TABLE)
def test_blanks_around_an_answer_change_no_reading_of_whole_words(answer: str) -> None:
    for parse in (parse_lmms_eval, parse_vlmevalkit, parse_opera):
        assert parse(f" {answer} ") == parse(answer)


@pytest.mark.parametrize(
    ("name", "accuracy", "precision", "recall", "unparsed"),
    [
        ("official", 2 / 4, 1 / 2, 1 / 2, 0.0),
        ("lmms-eval", 1 / 4, None, 0.0, 2 / 4),
        ("vlmevalkit", 2 / 4, 1.0, 1 / 2, 1 / 4),
        ("opera", 3 / 4, 1.0, 1 / 2, 0.0),
    ],
)
def test_the_same_answers_score_differently(
    name: str, accuracy: float, precision: float | None, recall: float, unparsed: float
) -> None:
    """Gold yes, yes, no, no; the answers "Yes.", "No", "NO", "not one".

    official reads yes, no, yes, no: 2 right; 1 of 2 said yes rightly. lmms-eval: None, no, no, None: 1 right, never
    yes. VLMEvalKit: yes, no, no, None: 2 right, its one yes rightly. OPERA: yes, no, no, no: 3 right.
    """
    asked = zip(("yes", "yes", "no", "no"), ("Yes.", "No", "NO", "not one"), strict=True)
    rows = [
        {"uid": str(at), "cluster": str(at), "truth": {"split": "random", "label": label}, "answer": said}
        for at, (label, said) in enumerate(asked)
    ]
    found = summarise(measures(score(rows, parse=PARSERS[name])), [row["cluster"] for row in rows], seed=0)
    values = [found[f"random/{key}"]["value"] for key in ("accuracy", "precision", "recall", "unparsed_fraction")]
    assert values == [accuracy, precision, recall, unparsed]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes,there is one", "yes"),
        ("Yes-there", "yes"),
        ("yes/no", None),
        ("**No**", None),
        ("Answer:No", None),
        ("Yes:", None),
        ("'No'", None),
        ('"No"', "no"),
        ("no-one, no", "no"),
        ("No/yes, 1,000 of them", None),
        ("Yes.No", None),
        ("No.1", None),
        ("No/maybe 1,000", None),
        ("no-one -", None),
        ("." * 32 + "no.", None),
        ("." * 31 + "no.", "no"),
        ("_no_", "no"),
    ],
)
def test_marks_that_vlmevalkit_takes_away(answer: str, said: str | None) -> None:
    """Of 21 marks each becomes a blank, or goes if it stands beside a blank anywhere or the answer holds "1,000".

    So "Yes,there" is two words and "yes/no" both; "No/yes" with 1,000 is "noyes". Stars, colons and single quotes stay
    on their words. A stop goes unless a digit follows ("yesno", "no.1"), but 32 at most.
    """
    assert parse_vlmevalkit(answer) == said
