"""HallusionBench: judges' replies, groups of questions and the bias tests, all derived by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verisight.evaluate.hallusion import measures, parse_corrected, parse_official, read_truths, request, score
from verisight.evaluate.stats import paired_difference, summarise
from verisight.types import ImageRef, UserError

REPLIES = [  # reply, official, corrected
    ("correct", 1, 1),
    ("Incorrect.", 0, 0),
    ("CORRECT!!!", 1, 1),
    ("**Correct**", 1, 1),
    ("_incorrect_", 0, 0),
    ("Unclear", 2, 2),
    ("The answer is unclear.", 2, 2),
    ("not correct", 1, 0),
    ("The answer isn\u2019t correct.", 1, 0),
    ("not incorrect", 0, None),
    ("Correct. Nothing in it is incorrect.", 0, 1),
    ("The answer does not contradict the reference, so it is correct.", 1, 1),
    ("I can't say if it is correct", 1, None),
    ("unclear whether it is correct", 1, None),
    ("partly correct", 1, None),
    ("The model answered correctly.", 1, 1),
    ("The answer is correct but the reason is incorrect", 0, None),
    ("It might look correct.\nVerdict: **incorrect**", 0, 0),
    ("Output: correct\nIt fits.", 1, 1),
    ("correct, incorrect or unclear: incorrect", 0, None),
    ("correct / incorrect", 0, None),
    ("\uff43\uff4f\uff52\uff52\uff45\uff43\uff54", 2, 1),
    ("", 2, None),
    ("8, 7", 2, None),
    ("1", 2, None),
    ("korrekt", 2, None),
    ("I'm sorry, I can't help with that.", 2, None),
]


@pytest.mark.parametrize(("reply", "official", "corrected"), REPLIES)
def test_replies_by_hand(reply, official, corrected):
    """Official: 0 where "incorrect" stands anywhere, else 1 where "correct" does, else 2.

    Corrected: a verdict alone in the first or last clause, else the one all clauses agree on, else none.
    """
    assert parse_official(reply) == official
    assert parse_corrected(reply) == corrected


ROWS = [  # uid, right answer, visual_input, answer, judge's reply
    ("VD_illusion_0_0_0", "yes", 1, "Yes", "Correct"),
    ("VD_illusion_0_0_1", "no", 1, "No", "correct"),
    ("VD_illusion_0_1_0", "no", 2, "Yes", "incorrect"),
    ("VD_illusion_0_1_1", "yes", 2, "Yes", "Correct."),
    ("VS_map_0_0_0", "no", 0, "I cannot tell.", "unclear"),
    ("VS_map_0_0_1", "yes", 0, "No.", "incorrect"),
    ("VS_map_0_1_0", "yes", 1, "It is unclear.", "unclear"),
    ("VS_map_0_1_1", "no", 1, "No", "correct"),
    ("VS_map_0_2_0", "no", 2, "no", "correct"),
    ("VS_map_0_2_1", "yes", 2, "No", "not correct"),
]


def rows(**replies):
    made = []
    for uid, label, visual, answer, reply in ROWS:
        category, subcategory, set_id, figure_id, question_id = uid.split("_")
        truth = {"category": category, "subcategory": subcategory, "set_id": set_id, "figure_id": figure_id}
        truth |= {"question_id": question_id, "label": label, "visual_input": visual}
        cluster = f"{category}/{subcategory}/{set_id}"
        made.append({"uid": uid, "cluster": cluster, "truth": truth, "answer": answer})
        made[-1] |= {"replies": [replies.get(uid, reply)]}
    return made


def values(scored):
    found = summarise(measures(scored), [row["cluster"] for row in scored], seed=0)
    return {name: entry["value"] for name, entry in found.items()}


def test_official_headline_by_hand():
    """Right: 1 1 0 1 | 1 (unclear, no figure) 0 0 (unclear) 1 1 1 ("not correct"): 7 of 10.

    Figures: VD 0 right, VD 1 mixed, VS 1 mixed, VS 2 right (VS 0 is none): 2/4, mixed 2/4. Pairs: VD 0 (1 0) no,
    VD 1 (1 1) yes, VS 0 (1 0 1) no, VS 1 (0 1 1) no: 1/4. Easy: 1 1 1 0 0 1 = 4/6, pairs yes yes no no; hard:
    0 1 1 1 = 3/4, pairs no yes yes yes. Yes said, as inferred from right and wrong: 1 0 1 1 0 0 0 0 0 1 = 4, true 5.
    Wrong: the 3rd, 6th and 7th; yes in the 3rd. Words: 1 1 1 1 3 1 3 1 1 1.
    """
    assert values(score(rows())) == pytest.approx(
        {
            "accuracy": 7 / 10, "figure_accuracy": 2 / 4, "pair_accuracy": 1 / 4, "inconsistent_fraction": 2 / 4,
            "easy_accuracy": 4 / 6, "easy_pair_accuracy": 2 / 4, "hard_accuracy": 3 / 4, "hard_pair_accuracy": 3 / 4,
            "VD/accuracy": 3 / 4, "VD/figure_accuracy": 1 / 2, "VD/pair_accuracy": 1 / 2,
            "VS/accuracy": 4 / 6, "VS/figure_accuracy": 1 / 2, "VS/pair_accuracy": 0,
            "yes_difference": -1 / 10, "false_positive_ratio": 1 / 3,
            "unclear_fraction": 2 / 10, "unparsed_fraction": 0, "failed_fraction": 0, "length_words": 14 / 10,
        }
    )  # fmt: skip


@pytest.mark.parametrize("protocol", ["corrected", "words"])
def test_corrected_headline_by_hand(protocol):
    """The last answer is wrong now: 6/10, VS figure 2 mixed, VS pair 1 (0 1 0) still wrong, hard 2/4.

    Yes said in the 1st, 3rd and 4th answer: 3, true 5; of the four wrong ones (3, 6, 7, 10) one says yes. The
    answers alone give the same verdicts: "I cannot tell." and "It is unclear." take no side.
    """
    found = values(score(rows(), protocol=protocol))
    wanted = {"accuracy": 6 / 10, "figure_accuracy": 1 / 4, "pair_accuracy": 1 / 4, "inconsistent_fraction": 3 / 4}
    wanted |= {"hard_accuracy": 2 / 4, "hard_pair_accuracy": 2 / 4, "easy_pair_accuracy": 2 / 4}
    wanted |= {"yes_difference": -2 / 10, "false_positive_ratio": 1 / 4, "unclear_fraction": 2 / 10}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_failed_and_unreadable_replies_are_counted_apart_and_never_scored():
    """Without the 3rd and 8th: 5 of 8 right; figures VD 0 (right) and VS 2 (mixed) are left, pairs VD 1 and VS 0."""
    spoiled = rows(VD_illusion_0_1_0=None, VS_map_0_1_1="korrekt")
    found = values(score(spoiled, protocol="corrected"))
    wanted = {"accuracy": 5 / 8, "figure_accuracy": 1 / 2, "inconsistent_fraction": 1 / 2, "pair_accuracy": 1 / 2}
    wanted |= {"failed_fraction": 1 / 10, "unparsed_fraction": 1 / 10, "unclear_fraction": 2 / 8}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    official = score(spoiled)
    assert [official[at]["correct"] for at in (2, 7)] == [None, False]
    assert values(official)["failed_fraction"] == pytest.approx(1 / 10)
    assert measures(official)["accuracy"].num_items == 9
    assert measures(official)["figure_accuracy"].num_items == 3


def test_answers_without_a_judge():
    """An answer without a Latin word is wrong even where no figure was shown; one that takes no side is right there."""
    made = {row["uid"]: row for row in rows()}
    said = {"": (0, True), "\u662f\u7684": (0, True), "8, 7": (0, True), "Purple": (2, False), "No!": (1, False)}
    for answer, (verdict, unparsed) in said.items():
        (scored,) = score([made["VS_map_0_0_0"] | {"answer": answer}], protocol="words")
        assert (scored["verdict"], scored["unparsed"]) == (verdict, unparsed)
        assert scored["correct"] is (verdict > 0)
    without_reply = [{key: value for key, value in row.items() if key != "replies"} for row in rows()]
    assert values(score(without_reply, protocol="words"))["accuracy"] == pytest.approx(0.6)
    with pytest.raises(UserError, match="row VD_illusion_0_0_0 has no `replies`; ask a judge"):
        score(without_reply)
    with pytest.raises(UserError, match="protocol is 'lmms'; accepted are official, corrected, words"):
        score(rows(), protocol="lmms")


def test_the_official_bias_tests_infer_a_yes_from_an_unclear_answer():
    unclear = next(row for row in rows() if row["uid"] == "VS_map_0_1_1") | {
        "answer": "Hard to say.",
        "replies": ["unclear"],
    }
    assert [score([unclear], protocol=protocol)[0]["said_yes"] for protocol in ("official", "corrected")] == [
        True,
        False,
    ]


def test_nothing_wrong_leaves_no_false_positive_ratio():
    found = values(score([row | {"replies": ["correct"]} for row in rows()]))
    assert found["accuracy"] == found["pair_accuracy"] == found["figure_accuracy"] == 1
    assert found["yes_difference"] == 0
    assert found["false_positive_ratio"] is None


def test_groups_survive_another_order_and_a_pairing():
    forward, backward = score(rows()), score(rows()[::-1])
    assert values(forward) == pytest.approx(values(backward))
    better = score([row | {"replies": ["correct"]} for row in rows()])
    counts = [measures(scored)["pair_accuracy"].counts for scored in (forward, better)]
    assert paired_difference(*counts, [row["cluster"] for row in forward], seed=0).value == pytest.approx(3 / 4)


TRUTH = {"question": "Is {answer} larger?", "reference": "The left one is.", "visual_input": 1, "image": "0_0.png"}


def test_request():
    asked = request("u", TRUTH, "Yes.")
    assert (asked.uid, asked.images, asked.system) == ("u", (), "")
    assert "Question: Is {answer} larger?\nWhat is true: The left one is.\nAnswer to grade: Yes." in asked.text
    picture = ImageRef(path=Path("0_0.png"))
    seen = request("u", TRUTH, " ", vision=True, images=[picture])
    assert seen.images == (picture,)
    assert "about the picture shown" in seen.text
    assert "Answer to grade: (empty)" in seen.text
    assert request("u", TRUTH, "Yes", images=[picture]).images == ()
    assert "picture" not in asked.text
    assert request("u", TRUTH | {"visual_input": 0}, "Yes", vision=True).images == ()
    assert request("u", TRUTH, "Yes", template="{answer}|{reference}|{question}").text.startswith("Yes|The left")
    with pytest.raises(UserError, match=r"the rubric lacks {reference}"):
        request("u", TRUTH, "Yes", template="{question} {answer}")
    with pytest.raises(UserError, match=r"u is about 0_0\.png, but the judge was given no picture"):
        request("u", TRUTH, "Yes", vision=True)


GOOD = {
    "category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": "0", "figure_id": "0",
    "question_id": "0", "question": "Same size?", "gt_answer_details": "They are.", "gt_answer": "1",
    "filename": "./hallusion_bench/VD/illusion/0_0.png",
}  # fmt: skip


def write(folder, value):
    path = folder / "HallusionBench.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_read_truths(tmp_path):
    bare = {key: value for key, value in GOOD.items() if key != "filename"}
    bare |= {"category": "VS", "visual_input": 0, "gt_answer": 0}
    truths = read_truths(write(tmp_path, [GOOD, GOOD | {"figure_id": "1"}, bare]))
    assert list(truths) == ["VD_illusion_0_0_0", "VD_illusion_0_1_0", "VS_illusion_0_0_0"]
    assert [entry["cluster"] for entry in truths.values()] == ["VD/illusion/0", "VD/illusion/0", "VS/illusion/0"]
    assert [entry["truth"]["label"] for entry in truths.values()] == ["yes", "yes", "no"]
    assert truths["VS_illusion_0_0_0"]["truth"]["image"] is None
    assert truths["VD_illusion_0_0_0"]["truth"]["visual_input"] == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[", "not valid JSON"),
        ({}, "HallusionBench is a list of questions"),
        ([], r"holds \[\]"),
        ([7], r"\[0\] is 7; accepted is an object"),
        ([GOOD, GOOD], r"\[1\] is question VD_illusion_0_0_0 a second time"),
        ([GOOD | {"category": "XX"}], r"\[0\]\.category is 'XX'; accepted are VD, VS"),
        ([GOOD | {"gt_answer": "yes"}], r"\[0\]\.gt_answer is 'yes'; accepted are 0, 1"),
        ([GOOD | {"visual_input": "3"}], r"visual_input is '3'; accepted are 0, 1, 2"),
        ([GOOD | {"figure_id": True}], r"figure_id is True; accepted is a text or a whole number"),
        ([GOOD | {"gt_answer_details": None}], r"gt_answer_details is missing"),
    ],
)
def test_bad_truths(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, value))
