"""Object HalBench: extractors' replies, objects per answer and rates, all derived by hand under three protocols."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verisight.evaluate.coco import Truth
from verisight.evaluate.object_hal import (
    extract_plain,
    is_short,
    map_phrases,
    measures,
    parse_corrected,
    parse_official,
    read_truths,
    request,
    score,
)
from verisight.evaluate.stats import summarise
from verisight.types import ImageRef, UserError

FENCED = '```json\n["dog", "tv"]\n```'
REPLIES = [  # reply, official, corrected
    ('["dog", "tv"]', ["dog", "tv"], ["dog", "tv"]),
    ('\n [ "dog" ,\n"tv" ]\n', ["dog", "tv"], ["dog", "tv"]),
    ('Objects:\n["dog"]', ["dog"], ["dog"]),
    ('Objects:\n["dog"]\n', ["dog"], ["dog"]),
    ('Objects: ["dog"]', None, ["dog"]),
    ('["sign []", "dog"]', ["sign []", "dog"], ["sign []", "dog"]),
    ('["dog"]\nThat is all.', None, ["dog"]),
    ('First ["cat"], no:\n["dog"]', ["dog"], None),
    (FENCED, None, ["dog", "tv"]),
    ('```\n["dog"]```', None, ["dog"]),
    ('**["dog"]**', None, ["dog"]),
    ('["dog"]\n["dog"]', ["dog"], ["dog"]),
    ('["dog"] or ["cat"]', None, None),
    ("[]", [], []),
    ("()", None, []),
    ("The list is []", None, []),
    ("None:\n[]", None, []),
    ("```\n()\n```", None, []),
    ('{"objects": ["dog"]}', ["objects"], ["dog"]),
    ('"dog"', ["d", "o", "g"], None),
    ('["dog", 3]', ["dog", "3"], None),
    ("[3]", ["3"], None),
    ('As in [1]: ["dog"]', None, ["dog"]),
    ('[["dog"]]', ["['dog']"], ["dog"]),
    ("['dog', 'cat']", None, None),
    ("[\u201cdog\u201d, \u201etree\u201c]", None, ["dog", "tree"]),
    ('["dog\u2019s bowl", "\u72ac"]', ["dog\u2019s bowl", "\u72ac"], ["dog\u2019s bowl", "\u72ac"]),
    ('["a \u201cstop\u201d sign"]', ["a \u201cstop\u201d sign"], ["a \u201cstop\u201d sign"]),
    ("7", None, None),
    ("null", None, None),
    ("\uff18, \uff17", None, None),
    ("", None, None),
    ("- dog\n- cat", None, None),
    ("I'm sorry, I can't help with that.", None, None),
    ('["dog", "cat', None, None),
    ("[" * 5000, None, None),
]


@pytest.mark.parametrize(("reply", "official", "corrected"), REPLIES, ids=[f"{at}" for at in range(len(REPLIES))])
def test_replies_by_hand(reply, official, corrected):
    """Official: all of it as JSON, or its last line if '["' stands anywhere. Corrected: the one list of strings."""
    assert parse_official(reply) == official
    assert parse_corrected(reply) == corrected


ITEMS = [  # objects, answer, replies, then the words found (! made up) under official, corrected and plain
    ("dog couch", "A dog lies on a sofa near a cat and a fork.", ['["dog", "sofa", "cat", "fork"]'],
     "dog sofa !cat !fork", "dog sofa !cat !fork", "dog sofa !cat !fork"),
    ("person bench", "A man and a woman sit on the park bench.", ['```json\n["man", "woman", "park bench"]\n```'],
     "unparsed", "man woman park_bench", "man woman park_bench"),
    ("person", "Two men, a man and a bus stop.", ['Here you go:\n["men", "man", "bus"]'],
     "man !bus", "man !bus", "man"),
    ("dog", "A hot dog.", None, "", "", "!hot_dog"),
    ("cat", "", None, "", "", ""),
    ("bus", "Ein Bus faehrt durch die Stadt.", ["[]"], "", "", "bus"),
    ("tie person", "A man wears a bow tie and a tie.", ['["man with a bow tie", "tie"]'], "tie", "man tie", "man tie"),
    ("", "There is nothing to see here.", ["()"], "unparsed", "", ""),
    ("car", "A car stands in the street.", [None], "failed", "failed", "car"),
    ("car", "A car stands in the street.", ["I'm sorry, I can't help with that."], "unparsed", "unparsed", "car"),
    ("cup", "There is a cup and a fork.", ['["cup"] or ["cup", "fork"]'], "unparsed", "unparsed", "cup !fork"),
    ("cup", "There is a mug next to a laptop.", ["[\u201cmug\u201d, \u201claptop\u201d]"],
     "unparsed", "mug !laptop", "mug !laptop"),
    ("apple", "I see a ripe apple on a plate.", ['{"objects": ["apple"]}'], "", "apple", "apple"),
    ("bird", "A toy bird [1] and its cage are shown.", ['The text [1] names:\n["bird cage", "bird"]'],
     "bird", "bird", "bird"),
    ("dog", "Assistant: a dog", None, "", "", "dog"),
    ("dog", "A dog and a cat and a kite.", ['["dog", "cat"]', '["dog"]', None], "dog", "dog", "dog !cat !kite"),
    ("kite", "A kite flies over the beach.", ["nothing", '["kite", "person"]'], "kite !person", "kite !person", "kite"),
    ("cat", "The cat and another cat play.", ["8, 7"], "unparsed", "unparsed", "cat"),
    ("cat", "The cat is on the mat.", ["7"], "unparsed", "unparsed", "cat"),
    ("elephant", "A baby elephant and an elephant walk along.", ['["baby elephant", "elephants"]'],
     "elephant", "elephant", "elephant"),
    ("cat person", "A man, a woman and a girl pet a kitten.", ['["man","woman","girl","kitten"]'],
     "man woman girl kitten", "man woman girl kitten", "man woman girl kitten"),
    ("dog", "Un perro y un gato en casa.", ['["perro", "gato"]'], "", "", ""),
    ("dog", "A dog runs in the park.", ['"dog"'], "", "unparsed", "dog"),
]  # fmt: skip
COLUMN = {"official": 3, "corrected": 4, "plain": 5}


def row(objects, answer, replies=None, uid="1"):
    truth = {"question": "Describe the image.", "objects": objects.split()}
    made = {"uid": uid, "cluster": uid, "truth": truth, "answer": answer}
    return made | ({} if replies is None else {"replies": replies})


def rows():
    made = [row(*item[:3], uid=str(at)) for at, item in enumerate(ITEMS)]
    for at, cut in enumerate((True, False, False)):
        made[at] |= {"truncated": cut}
    return made


def values(scored):
    found = summarise(measures(scored), [each["cluster"] for each in scored], seed=0)
    return {name: entry["value"] for name, entry in found.items()}


@pytest.mark.parametrize("protocol", COLUMN)
@pytest.mark.parametrize("item", ITEMS, ids=[f"{at}" for at in range(len(ITEMS))])
def test_an_answer_by_hand(item, protocol):
    """A word counts once an answer ("men" and "man"), and not by its category (man, woman, girl are three words).

    Three words or fewer name nothing unless "plain"; "man with a bow tie" is officially a tie alone. Of two readable
    replies one names the cat: not more than half. A bird cage and a bus stop are no objects.
    """
    (scored,) = score([row(*item[:3])], protocol=protocol)
    wanted = item[COLUMN[protocol]]
    assert scored["failed"] is (wanted == "failed")
    assert scored["unparsed"] is (wanted == "unparsed")
    if wanted in ("failed", "unparsed"):
        assert scored["objects"] is None
        return
    found = [("!" if one["hallucinated"] else "") + one["word"].replace(" ", "_") for one in scored["objects"]]
    assert found == wanted.split()
    assert scored["num_objects"] == len(found)
    assert scored["num_hallucinated"] == wanted.count("!")


@pytest.mark.parametrize(
    ("protocol", "rates"),
    [
        ("official", (3 / 8, 3 / 15, 4 / 16, 10 / 18, 16 / 15, 1 / 23, 7 / 23)),
        ("corrected", (4 / 11, 4 / 17, 5 / 23, 15 / 20, 23 / 17, 1 / 23, 5 / 23)),
        ("plain", (5 / 20, 5 / 23, 7 / 33, 23 / 26, 33 / 23, 0, 0)),
    ],
)
def test_headline_by_hand(protocol, rates):
    """23 answers with 12+10+8+3+0+6+9+6+6+6+7+8+8+9+2+8+6+6+6+8+10+7+6 = 157 words.

    Official knows 15: words 4+2+1+1+1+2+1+4 = 16 in 8 of them, made up 2+1+1 = 4 in 3; their categories
    2+1+1+1+1+2+1+1+1+1+1+1+2+1+1 = 18, found 2+1+1+1+1+1+1+2 = 10. Corrected knows 17: words 4+3+2+2+2+1+1+1+2+1+4 = 23
    in 11, made up 2+1+1+1 = 5 in 4; categories 20, found 2+2+1+2+1+1+1+1+1+1+2 = 15. Plain knows all: 33 words in 20,
    made up 2+1+1+1+2 = 7 in 5; categories 26, all found but the hot dog's dog, the cat of "", and the perro.
    """
    names = ("response_hallucination", "chair_s", "object_hallucination", "object_recall", "num_objects")
    wanted = dict(zip((*names, "failed_fraction", "unparsed_fraction"), rates, strict=True))
    wanted |= {"length_words": 157 / 23, "empty_fraction": 1 / 23, "truncated_fraction": 1 / 3}
    assert values(score(rows(), protocol=protocol)) == pytest.approx(wanted)


def test_directions_and_items():
    found = measures(score(rows()))
    better = {name: one.better for name, one in found.items() if one.better != "neutral"}
    lower = {"response_hallucination": "lower", "chair_s": "lower", "object_hallucination": "lower"}
    assert better == lower | {"object_recall": "higher"}
    nums = {"response_hallucination": 8, "chair_s": 15, "object_recall": 15, "length_words": 23, "failed_fraction": 23}
    assert {name: found[name].num_items for name in nums} == nums
    assert found["truncated_fraction"].num_items == 3
    assert not any(found[name].fraction for name in ("num_objects", "length_words"))


def test_nothing_named_and_nothing_known_are_undefined():
    silent = values(score([row("dog", "A lovely sunny summer day.", ["[]"])]))
    assert (silent["response_hallucination"], silent["object_hallucination"]) == (None, None)
    assert (silent["chair_s"], silent["object_recall"], silent["num_objects"]) == (0, 0, 0)
    failed = values(score([row("dog", "A dog is in the park.", [None])]))
    rates = ("response_hallucination", "chair_s", "object_hallucination", "object_recall", "num_objects")
    assert {failed[name] for name in rates} == {None}
    assert (failed["failed_fraction"], failed["length_words"]) == (1, 6)
    assert values(score([row("", "A dog is in the park.", ["[]"])]))["object_recall"] is None


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        (['["dog"]', '["cat"]'], []),
        (['["dog"]', '["dog", "cat"]', '["cat"]'], ["dog", "cat"]),
        (['["cat"]', '["dog"]', '["dog"]'], ["dog"]),
        ([None, "?", '["cat"]'], ["cat"]),
    ],
)
def test_votes_are_counted_word_by_word(replies, words):
    (scored,) = score([row("dog", "A dog and a cat.", replies)])
    assert [one["word"] for one in scored["objects"]] == words
    assert not scored["failed"]
    assert not scored["unparsed"]


def test_some_failed_and_the_rest_unreadable_is_unparsed():
    (scored,) = score([row("dog", "A dog and a cat.", [None, "?"])], protocol="corrected")
    assert (scored["objects"], scored["failed"], scored["unparsed"]) == (None, False, True)


def test_phrases():
    phrases = ["dogs", "The Dog", "wine glasses", "dog on a park bench", "toilet seat", "toilets", "elephant statue"]
    official = [("dog", "dog"), ("wine glass", "wine glass"), ("park bench", "bench"), ("toilet", "toilet")]
    assert map_phrases(phrases, double_only=True) == [*official, ("elephant", "elephant")]
    assert map_phrases(["dog on a park bench"], double_only=False) == [("dog", "dog"), ("park bench", "bench")]
    assert map_phrases(["adult cat", "cat", "a passenger train", "trains", ""], double_only=True) == [
        ("cat", "cat"),
        ("train", "train"),
    ]
    assert extract_plain("Assistant: Dogs, a dog and a puppy") == [("dog", "dog"), ("puppy", "dog")]


def test_short_answers_need_no_judge():
    assert [is_short(text) for text in ("", "a hot dog", " Assistant: a hot dog", "a very hot dog")] == [1, 1, 1, 0]
    assert score([row("dog", "A hot dog", ["?"])])[0]["objects"] == []


def test_score_leaves_its_rows_alone_and_refuses():
    given_rows = rows()
    before = json.dumps(given_rows)
    score(given_rows)
    assert json.dumps(given_rows) == before
    with pytest.raises(UserError, match=r"object_hal: protocol is 'words'; accepted are official, corrected, plain"):
        score([], protocol="words")
    for bare in (row("dog", "A dog in a park."), row("dog", "A dog in a park.", [])):
        with pytest.raises(UserError, match=r"row 1 has no `replies`; ask a judge, or use protocol \"plain\""):
            score([bare])


@given(st.integers(0, 10**6))
def test_the_order_of_rows_does_not_matter(seed):
    shuffled = rows()
    random.Random(seed).shuffle(shuffled)
    for protocol in COLUMN:
        sums = [
            {name: one.statistic(one.counts.sum(0, keepdims=True))[0] for name, one in measures(scored).items()}
            for scored in (score(each, protocol=protocol) for each in (rows(), shuffled))
        ]
        assert sums[0] == pytest.approx(sums[1], nan_ok=True)


@given(st.text(alphabet='[]"dog, ()`\n{}:\\', max_size=40))
def test_any_reply_is_read_or_not(reply):
    for parse in (parse_official, parse_corrected):
        found = parse(reply)
        assert found is None or all(isinstance(one, str) for one in found)


@given(st.lists(st.text(max_size=8).filter(lambda text: "```" not in text), max_size=4))
def test_every_list_is_read_by_both(phrases):
    reply = json.dumps(phrases)
    assert parse_official(reply) == phrases
    assert parse_corrected(reply) == phrases
    assert parse_corrected(f"Sure:\n```json\n{reply}\n```\nDone.") == phrases


TRUTH = {"question": "What is in {answer}?", "objects": ["dog"]}


def test_request():
    asked = request("u", TRUTH, "Assistant: A dog. ")
    assert (asked.uid, asked.images, asked.system) == ("u", (), "")
    assert "Question: What is in {answer}?\nText: A dog.\n" in asked.text
    assert "reply with []." in asked.text
    assert "Text: (empty)\n" in request("u", TRUTH, " ").text
    assert request("u", TRUTH, "Yes", template="{answer}|{question}").text == "Yes|What is in {answer}?"
    with pytest.raises(UserError, match=r"object_hal: the rubric lacks {answer}; accepted are {question}, {answer}"):
        request("u", TRUTH, "Yes", template="{question}")
    with pytest.raises(UserError, match=r"object_hal: the rubric has {x}; accepted are {question}, {answer}"):
        request("u", TRUTH, "Yes", template="{answer}|{question}|{x}")
    for seen in ({"vision": True}, {"images": [ImageRef(path=Path("a.jpg"))]}):
        with pytest.raises(UserError, match=r"object_hal: its judge lists what a text says"):
            request("u", TRUTH, "Yes", **seen)


GOOD = {"org_idx": 3, "image_id": 391895, "question": "Describe it.", "image": "aGk="}


def write(folder, name, *lines):
    path = folder / name
    told = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{line}\n" for line in told), encoding="utf-8")
    return path


def test_read_truths(tmp_path):
    questions = write(tmp_path, "q.jsonl", GOOD, GOOD | {"image_id": "000000000007", "file_name": "x.png"})
    truths = read_truths(questions, write(tmp_path, "gt.json", {"391895": ["dog", "person", "dog"], "7": []}))
    known = {"question": "Describe it.", "image": "COCO_val2014_000000391895.jpg", "objects": ["dog", "person"]}
    assert truths == {
        "391895": {"cluster": "391895", "truth": known},
        "7": {"cluster": "7", "truth": {"question": "Describe it.", "image": "x.png", "objects": []}},
    }
    coco = {391895: Truth(391895, "391895.jpg", ("cat",)), 7: Truth(7, "7.jpg", ())}
    truths = read_truths(questions, coco)
    assert [truths[uid]["truth"]["image"] for uid in ("391895", "7")] == ["391895.jpg", "x.png"]
    assert truths["391895"]["truth"]["objects"] == ["cat"]


@pytest.mark.parametrize(
    ("lines", "truth", "message"),
    [
        ([], {"7": []}, r"q\.jsonl: holds no questions"),
        (["[1]"], {"7": []}, r"q\.jsonl: line 1: .*each line is one JSON object"),
        ([GOOD | {"image_id": None}], {"7": []}, r"q\.jsonl: row 0\.image_id is missing"),
        ([GOOD | {"image_id": "\u0667"}], {"7": []}, r"row 0\.image_id is '.'; accepted is a whole number"),
        ([GOOD | {"image_id": -7}], {"7": []}, r"row 0\.image_id is '-7'; accepted is a whole number"),
        ([GOOD | {"question": ""}], {"391895": []}, r"row 0\.question is ''; accepted is a text"),
        ([GOOD, GOOD], {"391895": []}, r"row 1\.image_id is 391895 a second time"),
        ([GOOD], {"7": []}, r"row 0\.image_id is 391895, of which the ground truth knows nothing"),
        ([GOOD | {"file_name": 3}], {"391895": []}, r"row 0\.file_name is 3; accepted is a text"),
        ([GOOD], [], r"gt\.json: holds \[\]; accepted is an object of image_id"),
        ([GOOD], {"x": []}, r"gt\.json: image_id is 'x'; accepted is a whole number"),
        ([GOOD], {"7": "dog"}, r"gt\.json: 7 is 'dog'; accepted is a list of COCO's 80 category names"),
        ([GOOD], {"7": ["sofa"]}, r"gt\.json: 7 is \['sofa'\]; accepted is a list of COCO's 80 category names"),
        ([GOOD], {"7": [], "07": []}, r"gt\.json: 07 is image 7 a second time"),
        ([GOOD], '{"7": [], "7": []}', r"gt\.json: '7' is there twice"),
    ],
)
def test_bad_truths(tmp_path, lines, truth, message):
    with pytest.raises(UserError, match=message):
        read_truths(write(tmp_path, "q.jsonl", *lines), write(tmp_path, "gt.json", truth))
