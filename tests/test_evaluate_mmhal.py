"""MMHal-Bench: judges' ratings, votes and rates, derived by hand under both protocols."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verisight.evaluate.mmhal import (
    DECODING,
    JUDGE_DECODING,
    PROTOCOLS,
    TEMPLATE,
    TYPES,
    VISION_TEMPLATE,
    measures,
    parse_corrected,
    parse_official,
    read_truths,
    request,
    score,
)
from verisight.evaluate.stats import summarise
from verisight.types import ImageRef, UserError

REPLIES = [  # reply, official, corrected
    ("It fits.\nRating: 4", 4, 4),
    ("RATING: 4, tells something", 4, 4),
    ("Rating: 0", 0, 0),
    ("Rating: 6", 6, 6),
    ("Rating: **4**", 0, 4),
    ("**Rating:** 4", 0, 4),
    ("**Rating: 4**", 4, 4),
    ("_Rating_: `4`", 0, 4),
    ("Rating:4", 0, 4),
    ("Rating 5", 0, 5),
    ("Rating - 5", 0, 5),
    ("Rating:\n\n5", 0, 5),
    ("**Rating**:\n \n5\n\nIt fits.", 0, 5),
    ("Rating (0-6): 5", 0, 5),
    ("Rating out of 6: 5", 0, 5),
    ("Overall rating is 5.", 0, 5),
    ("I give it a rating of 5 out of 6.", 0, 5),
    ("4/6", 0, 4),
    ("All in all I'd give it 4/6.", 0, 4),
    ("Rating: 4.0/6.0", 4, 4),
    ("Nothing is made up.\n\n**3**", 0, 3),
    ("3\nNothing is made up.", 0, 3),
    ("Rating: \u201c4\u201d", 0, 4),
    ("\uff32\uff41\uff54\uff49\uff4e\uff47\uff1a\uff14", 0, 4),
    ("Rating: \u2463", 0, 4),
    ('```json\n{"rating": 2}\n```', 0, 2),
    ("<rating>2</rating>", 0, 2),
    ("Rating: $\\boxed{2}$", 0, 2),
    ("Score: 2", 0, 2),
    ("The score is 3 to 2.\nRating: 5", 5, 5),
    ("Only 4 out of 6 zebras are named.\nRating: 2", 2, 2),
    ("Rating: 4\n- 5 zebras are right", 4, 4),
    ("Rating: 4. As I said, rating: 4", 4, 4),
    ("Rating: 2? No.\nRating: 5", 0, None),
    ("Rating: 2? No.\n**Rating:** 5", 2, None),
    ("Rating: 10", 1, None),
    ("Rating: 7", 0, None),
    ("Rating: 16", 1, None),
    ("Rating: -1", 0, None),
    ("Rating: -1\n4", 0, None),
    ("Rating: \u22121", 0, None),
    ("Rating: 4.5", 4, None),
    ("Rating: 4,5", 4, None),
    ("Rating: 4-5", 4, None),
    ("Rating: 4 or 5", 4, None),
    ("Rating: 4 or 6", 4, None),
    ("Rating: 4/10", 4, None),
    ("4/10", 0, None),
    ("Rating: 4%", 4, None),
    ("Rating: 40%", 4, None),
    ("Rating: 4.5%", 4, None),
    ("Rating: four", 0, None),
    ("Rating: N/A", 0, None),
    ("8, 7", 0, None),
    ("**8 7**", 0, None),
    ("Scores: 8 7", 0, None),
    ("2\nNo, better:\n5", 0, None),
    ("Operating: 4", 4, None),
    ("Ratings:\n6: tells a lot\n5: tells less", 0, None),
    ("Bewertung: 4", 0, None),
    ("\u8bc4\u5206\uff1a4", 0, None),
    ("I'm sorry, I can't help with that.", 0, None),
    ("There are 4 dogs", 0, None),
    ("", 0, None),
    (" \n\t", 0, None),
]


@pytest.mark.parametrize(("reply", "official", "corrected"), REPLIES)
def test_replies_by_hand(reply, official, corrected):
    """Official: the only one of "rating: 0" to "rating: 6" in the lower-cased text, else 0 ("rating: 10" holds 1).

    Corrected: the number behind "rating", whatever is between, if it is whole, in 0..6 and the only one.
    """
    assert parse_official(reply) == official
    assert parse_corrected(reply) == corrected


@given(st.integers(0, 6), st.sampled_from(["{}", "{}/6", "**{}**", "{}.", "({} out of 6)"]), st.booleans())
def test_ratings_survive_decoration(rating, form, alone):
    reply = f"Rating: {rating}" if alone else f"Fine.\n**Rating**: {form.format(rating).strip('()')}"
    assert parse_corrected(reply) == rating
    assert parse_official(reply) == (rating if alone else 0)


@given(st.text(st.sampled_from("Rating: score/of6 41-0.,\n*{}"), max_size=30) | st.text())
def test_whatever_a_judge_says_is_a_whole_rating_or_none(reply):
    assert parse_corrected(reply) in (None, 0, 1, 2, 3, 4, 5, 6)
    assert parse_official(reply) in (0, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("template", [TEMPLATE, VISION_TEMPLATE])
def test_a_judge_may_repeat_our_rubric(template):
    assert parse_official(template) == 0
    assert parse_corrected(template) is None
    assert [parse(f"{template}\nRating: 4") for parse in (parse_official, parse_corrected)] == [4, 4]


ITEMS = [  # type, answer, replies, official score, corrected score
    ("attribute", "The cap is yellow.", ["Rating: 6"], 6, 6),
    ("attribute", "", ["Rating: 0"], 0, 0),
    ("attribute", "Es ist gelb.", ["Rating: 3, in another language"], 3, 3),
    ("adversarial", "A red bus.", ["**Rating:** 4"], 0, 4),
    ("adversarial", "A red bus.", ["Rating: **5**"], 0, 5),
    ("adversarial", "A red bus.", ["Rating:2"], 0, 2),
    ("comparison", "A red bus.", ["Rating: 10"], 1, None),
    ("comparison", "A red bus.", ["Rating: 2, no: Rating: 5"], 0, None),
    ("comparison", "A red bus.", ["I can\u2019t judge this."], 0, None),
    ("counting", "A red bus.", ["\uff32\uff41\uff54\uff49\uff4e\uff47\uff1a\uff15"], 0, 5),
    ("counting", "A red bus.", [None], None, None),
    ("counting", "A red bus.", ["\u201cRating: 4\u201d"], 4, 4),
    ("relation", "A red bus.", ["Rating: 2", "Rating: 3"], 2.5, 2.5),
    ("relation", "A red bus.", ["Rating: 6", None, "Rating: 3"], 4.5, 4.5),
    ("relation", "A red bus.", ["Rating: 4", "No idea."], 2, 4),
    ("environment", "A red bus.", ["4/6"], 0, 4),
    ("environment", "A red bus.", ["Rating: 4.5"], 4, None),
    ("environment", "A red bus.", ["\u8bc4\u5206\uff1a4"], 0, None),
    ("holistic", "A red bus.", ['{"rating": 5}'], 0, 5),
    ("holistic", "A red bus.", ["8, 7"], 0, None),
    ("holistic", "A red bus.", [""], 0, None),
    ("other", "A red bus.", [None, None], None, None),
    ("other", "A red bus.", [None], None, None),
    ("other", " \n", [None], None, None),
]


def rows():
    made = []
    for at, (kind, answer, replies, *_) in enumerate(ITEMS):
        made.append({"uid": f"u{at}", "cluster": f"c{at}", "truth": {"type": kind}, "answer": answer})
        made[-1] |= {"replies": replies}
    made[0]["truncated"], made[2]["truncated"] = True, False
    return made


def values(scored):
    found = summarise(measures(scored), [row["cluster"] for row in scored], seed=0)
    return {name: entry["value"] for name, entry in found.items()}


# of answers; the judge could not be asked in 4 of 24
SHARES = {"length_words": 67 / 24, "empty_fraction": 2 / 24, "truncated_fraction": 1 / 2, "failed_fraction": 4 / 24}


def test_official_by_hand():
    """Scores: 6 0 3 | 0 0 0 | 1 0 0 | 0 4 | 5/2 9/2 2 | 0 4 0 | 0 0 0: 9 + 0 + 1 + 4 + 9 + 4 + 0 = 27 of 20 answers.

    Below 3: 1 of 3, 3 of 3, 3 of 3, 1 of 2, 2 of 3, 2 of 3, 3 of 3: 15 of 20. Informativeness: 6 -> 1, 1 -> 1/3,
    4 -> 1/3 (counting), votes (2/3 + 0)/2 = 1/3, (1 + 0)/2 = 1/2, (1/3 + 0)/2 = 1/6, 4 -> 1/3, the others 0: 3 of 20.
    Unread: three of adversarial, two of comparison, one each of counting and relation, two of environment, three of
    holistic: 12 of 24. Words: 4 + 0 + 3, then 3 twenty times and 0: 67. Nobody judged "other".
    """
    scored = score(rows())
    assert [row["score"] for row in scored] == [item[3] for item in ITEMS]
    assert values(scored) == pytest.approx(
        SHARES
        | {
            "score": 27 / 20, "hallucination_rate": 15 / 20, "informativeness": 3 / 20, "unparsed_fraction": 12 / 24,
            "attribute/score": 9 / 3, "attribute/hallucination_rate": 1 / 3,
            "adversarial/score": 0, "adversarial/hallucination_rate": 1,
            "comparison/score": 1 / 3, "comparison/hallucination_rate": 1,
            "counting/score": 4 / 2, "counting/hallucination_rate": 1 / 2,
            "relation/score": 9 / 3, "relation/hallucination_rate": 2 / 3,
            "environment/score": 4 / 3, "environment/hallucination_rate": 2 / 3,
            "holistic/score": 0, "holistic/hallucination_rate": 1,
            "other/score": None, "other/hallucination_rate": None,
        }
    )  # fmt: skip


def test_corrected_by_hand():
    """Scores: 6 0 3 | 4 5 2 | none | 5 4 | 5/2 9/2 4 | 4 | 5: 9 + 11 + 9 + 11 + 4 + 5 = 49 of 13 answers.

    Below 3: the 0, the 2 and the 5/2: 3 of 13. Informativeness: 1 + 0 + 0, 1/3 + 2/3 + 2/3, 2/3 + 1/3,
    1/3 + 1/2 + 1/3, 1/3, 2/3: 1 + 5/3 + 1 + 7/6 + 1 = 35/6 of 13. Unread: three of comparison, two each of environment
    and holistic: 7 of 24; the "No idea." among two votes isn't counted.
    """
    scored = score(rows(), protocol="corrected")
    assert [row["score"] for row in scored] == [item[4] for item in ITEMS]
    assert values(scored) == pytest.approx(
        SHARES
        | {
            "score": 49 / 13, "hallucination_rate": 3 / 13, "informativeness": 35 / 78, "unparsed_fraction": 7 / 24,
            "attribute/score": 9 / 3, "attribute/hallucination_rate": 1 / 3,
            "adversarial/score": 11 / 3, "adversarial/hallucination_rate": 1 / 3,
            "comparison/score": None, "comparison/hallucination_rate": None,
            "counting/score": 9 / 2, "counting/hallucination_rate": 0,
            "relation/score": 11 / 3, "relation/hallucination_rate": 1 / 3,
            "environment/score": 4, "environment/hallucination_rate": 0,
            "holistic/score": 5, "holistic/hallucination_rate": 0,
            "other/score": None, "other/hallucination_rate": None,
        }
    )  # fmt: skip


def test_what_a_row_gets():
    given_rows = rows()
    before = copy.deepcopy(given_rows)
    official, corrected = (score(given_rows, protocol=protocol) for protocol in PROTOCOLS)
    assert given_rows == before
    assert official[14] == given_rows[14] | {
        "score": 2, "hallucinated": True, "informativeness": pytest.approx(1 / 6), "num_read": 1, "failed": False,
        "unparsed": True, "num_words": 3, "empty": False,
    }  # fmt: skip
    assert corrected[14] == given_rows[14] | {
        "score": 4, "hallucinated": False, "informativeness": pytest.approx(1 / 3), "num_read": 1, "failed": False,
        "unparsed": False, "num_words": 3, "empty": False,
    }  # fmt: skip
    for scored in (official, corrected):
        (lost,) = [row for row in scored if row["uid"] == "u21"]
        assert [lost[key] for key in ("score", "hallucinated", "informativeness")] == [None, None, None]
        assert [lost[key] for key in ("failed", "unparsed", "num_read")] == [True, False, 0]
        assert [scored[at]["num_read"] for at in (12, 13)] == [2, 2]
        assert [row["failed"] for row in scored].count(True) == 4
    assert [corrected[8][key] for key in ("score", "hallucinated", "unparsed", "failed")] == [None, None, True, False]


def test_a_score_of_three_makes_nothing_up():
    scored = score([rows()[0] | {"replies": ["Rating: 2", "Rating: 4"]}, rows()[0] | {"replies": ["Rating: 3"]}])
    assert [row["hallucinated"] for row in scored] == [False, False]
    assert [row["informativeness"] for row in scored] == pytest.approx([(2 / 3 + 1 / 3) / 2, 0])


def test_measures_know_their_items_and_directions():
    found = measures(score(rows(), protocol="corrected"))
    per_type = [f"{name}/{rate}" for name in TYPES for rate in ("score", "hallucination_rate")]
    assert [name for name in found if "/" in name] == per_type
    assert list(found)[:3] == ["score", "hallucination_rate", "informativeness"]
    assert [found[name].num_items for name in ("score", "environment/score", "other/score", "failed_fraction")] == [
        13, 1, 0, 24,
    ]  # fmt: skip
    assert [name for name, one in found.items() if not one.fraction] == [
        "score", *(f"{name}/score" for name in TYPES), "length_words",
    ]  # fmt: skip
    assert {one.better for name, one in found.items() if name.endswith("hallucination_rate")} == {"lower"}
    assert {one.better for name, one in found.items() if name.endswith(("score", "informativeness"))} == {"higher"}
    assert {one.better for name, one in found.items() if name.endswith(("fraction", "words"))} == {"neutral"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_does_not_matter(protocol):
    shuffled = rows()
    random.Random(3).shuffle(shuffled)
    assert values(score(shuffled, protocol=protocol)) == pytest.approx(values(score(rows(), protocol=protocol)))


def test_rows_that_cannot_be_scored():
    with pytest.raises(UserError, match=r"mmhal: protocol is 'lmms'; accepted are official, corrected"):
        score(rows(), protocol="lmms")
    for replies in ({}, {"replies": []}):
        row = {key: value for key, value in rows()[0].items() if key != "replies"} | replies
        with pytest.raises(UserError, match=r"mmhal: row u0 has no `replies`; ask a judge"):
            score([row])


def test_decoding_is_greedy():
    assert (DECODING.max_new_tokens, DECODING.temperature, JUDGE_DECODING.temperature) == (1024, 0, 0)


TRUTH = {
    "question": "Who holds {answer}?", "type": "adversarial", "contents": ["Door", "Ball (Object)"],
    "reference": "Nobody.", "image": "a b.jpg",
}  # fmt: skip
PICTURE = ImageRef(path=Path("a b.jpg"))


def test_request():
    asked = request("u", TRUTH, " A {reference} man. ", images=[PICTURE])
    assert (asked.uid, asked.images, asked.system) == ("u", (), "")
    assert asked.text.startswith("You rate the answer that a model gave to a question about a picture. You can't see")
    assert "): Door, Ball (Object)\nQuestion: Who holds {answer}?\nA person's answer: Nobody.\n" in asked.text
    assert "\nAnswer to rate: A {reference} man.\n\nTwo things" in asked.text
    empty = request("u", TRUTH | {"contents": []}, "\n")
    assert "): (none listed)\n" in empty.text
    assert "Answer to rate: (empty)\n" in empty.text


def test_a_judge_that_sees_gets_the_same_and_the_picture():
    blind, seeing = request("u", TRUTH, "A man."), request("u", TRUTH, "A man.", vision=True, images=[PICTURE])
    assert seeing.images == (PICTURE,)
    assert "the picture counts" in seeing.text
    assert "can't see" not in seeing.text
    assert [text[text.index("Things in") :] for text in (seeing.text, blind.text)] == [
        blind.text[blind.text.index("Things in") :]
    ] * 2
    with pytest.raises(UserError, match=r"mmhal: u is about a b\.jpg, but the judge was given no picture"):
        request("u", TRUTH, "A man.", vision=True)


def test_rubrics_of_users():
    own = "{answer}|{reference}|{question}|{contents}|{'rating': 1}"
    assert request("u", TRUTH, "No", template=own).text == (
        "No|Nobody.|Who holds {answer}?|Door, Ball (Object)|{'rating': 1}"
    )
    official = request("u", TRUTH, "No {}", template="1 {}\n2 {}\n3 {}\n4 {}", vision=True, images=[PICTURE])
    assert official.text == "1 Door, Ball (Object)\n2 Who holds {answer}?\n3 Nobody.\n4 No {}"
    seen = request("u", TRUTH, "No", template="{question} {reference} {answer}", vision=True, images=[PICTURE])
    assert seen.text == "Who holds {answer}? Nobody. No"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question} {reference} {answer}", r"mmhal: the rubric lacks {contents}; accepted are {contents}, {question}"),
        ("{contents} {reference} {answer}", r"the rubric lacks {question}"),
        ("{contents} {question} {answer}", r"the rubric lacks {reference}"),
        ("{contents} {question} {reference}", r"the rubric lacks {answer}"),
        ("{} {} {}", r"the rubric lacks {contents}; accepted are"),
        ("{contents} {question} {reference} {answer} {gt}", r"the rubric has {gt}"),
        ("{contents} {question} {reference} {answer} {}", r"the rubric has {}"),
        ("", r"the rubric lacks {contents}"),
    ],
)
def test_bad_rubrics(template, message):
    with pytest.raises(UserError, match=message):
        request("u", TRUTH, "No", template=template)


GOOD = {
    "question_type": "attribute", "question_topic": "outdoor", "image_id": "df62",
    "image_src": "https://c4.example.com/8/7211/7206_o.jpg", "image_content": ["Fire hydrant"],
    "question": "What color is the cap?", "gt_answer": "The cap is yellow.", "model_answer": "",
}  # fmt: skip


def write(folder, value, name="response_template.json"):
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", [False, True])
def test_read_truths(tmp_path, lines):
    """A list in a .json file and a row a line in a .jsonl file read the same; types go by name, not by place."""
    table = [GOOD, GOOD | {"image_id": 17, "question_type": "other", "image_content": []}]
    text = "".join(json.dumps(row) + "\n" for row in table) if lines else table
    truths = read_truths(write(tmp_path, text, "mmhal.jsonl" if lines else "mmhal.json"))
    assert truths == {
        "df62": {
            "cluster": "df62",
            "truth": {
                "question": "What color is the cap?", "type": "attribute", "contents": ["Fire hydrant"],
                "reference": "The cap is yellow.", "image": "7206_o.jpg",
            },
        },
        "17": {
            "cluster": "17",
            "truth": {
                "question": "What color is the cap?", "type": "other", "contents": [],
                "reference": "The cap is yellow.", "image": "7206_o.jpg",
            },
        },
    }  # fmt: skip


def test_several_questions_on_an_image_are_named_by_their_rows(tmp_path):
    other = [GOOD | {"image_id": "b"}, GOOD | {"question": "Is it red?"}, GOOD | {"question": "Is it {new}?"}]
    truths = read_truths(write(tmp_path, [GOOD, *other]))
    assert list(truths) == ["df62/0", "b", "df62/2", "df62/3"]
    assert [entry["cluster"] for entry in truths.values()] == ["df62", "b", "df62", "df62"]


@pytest.mark.parametrize(
    ("source", "image"),
    [
        ("https://farm2.example.com/5443/7413_06a8_o.jpg", "7413_06a8_o.jpg"),
        ("https://example.com/a%20b%C3%A9.jpg?size=o#top", "a b\u00e9.jpg"),
        ("https://example.com/..%2F..%2Fa.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("a#1?.jpg", "a#1?.jpg"),
    ],
)
def test_names_of_pictures(tmp_path, source, image):
    (entry,) = read_truths(write(tmp_path, [GOOD | {"image_src": source}])).values()
    assert entry["truth"]["image"] == image


BAD = r"response_template\.json: \[0\]"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[", r"response_template\.json: not valid JSON"),
        ({}, r"response_template\.json: holds {}; MMHal-Bench is a list of questions"),
        ([], r"holds \[\]"),
        ([7], rf"{BAD} is 7; accepted is an object"),
        ([GOOD, GOOD], r"\[1\]\.image_id is df62 a second time with one question"),
        ([GOOD | {"image_id": None}], rf"{BAD}\.image_id is missing; accepted is a text or a whole number"),
        ([GOOD | {"image_id": True}], rf"{BAD}\.image_id is True"),
        (
            [GOOD | {"question_type": "colour"}],
            rf"{BAD}\.question_type is 'colour'; accepted are attribute, adv.*other",
        ),
        ([GOOD | {"question_type": 3}], rf"{BAD}\.question_type is 3; accepted is a text"),
        ([GOOD | {"question": ""}], rf"{BAD}\.question is ''; accepted is a text"),
        ([GOOD | {"gt_answer": ["x"]}], rf"{BAD}\.gt_answer is \['x'\]; accepted is a text"),
        ([GOOD | {"image_src": None}], rf"{BAD}\.image_src is missing"),
        ([GOOD | {"image_src": "https://example.com"}], rf"{BAD}\.image_src is 'https://example\.com'; accepted is an"),
        ([GOOD | {"image_src": "https://[x/a.jpg"}], rf"{BAD}\.image_src is 'https://\[x/a\.jpg'"),
        ([GOOD | {"image_src": "a/.."}], rf"{BAD}\.image_src is 'a/\.\.'"),
        ([GOOD | {"image_content": "Door"}], rf"{BAD}\.image_content is 'Door'; accepted is a list of texts"),
        ([GOOD | {"image_content": ["Door", ""]}], rf"{BAD}\.image_content is \['Door', ''\]"),
        ([GOOD | {"image_content": [1]}], rf"{BAD}\.image_content is \[1\]"),
    ],
)
def test_bad_truths(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, value))


def test_bad_lines(tmp_path):
    with pytest.raises(UserError, match=r"mmhal\.jsonl: line 2"):
        read_truths(write(tmp_path, json.dumps(GOOD) + "\n[]\n", "mmhal.jsonl"))
    with pytest.raises(UserError, match=r"mmhal\.jsonl: holds \[\]; .* or one a line \(\.jsonl\)"):
        read_truths(write(tmp_path, "", "mmhal.jsonl"))
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        read_truths(tmp_path / "none.json")
