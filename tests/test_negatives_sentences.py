"""Where sentences begin and end: tricky texts, and what holds for any text."""

# ruff: noqa: RUF001 (other scripts are what this is about)

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import prompt, tiny_policy
from verisight.negatives.guidance import SentenceGuided, begin_sentences, split_sentences
from verisight.types import Decoding, Sampled, UserError

WHOLE = [  # one sentence each
    "Mr. Smith and Dr. Lee met Prof. J. R. R. Tolkien vs. St. John at 3.5 m.",
    "It is 10:30 a.m. and sunny.",
    "There are animals, e.g. a dog, i.e. this one.",
    "He lives in the U.S. with a dog.",
    "See Fig. 3 and www.example.com for more.",
    "No. 5 costs $3.50.",
    "Wait... what",
    "He said “Stop!” and left.",
    '"Is it?" she asked.',
    "A dog (see Fig. 3.) is here.",
    "A tall\ntree.",
    "这是3.5米高的树。",
    "猫も（小さい。）います。",
    "No stop",
    "😀",
]
SPLIT = [
    ("The U.S. It is big. We met at 5 p.m. The dog.", ["The U.S.", "It is big.", "We met at 5 p.m.", "The dog."]),
    ("Cats, dogs, etc. The farm is old!", ["Cats, dogs, etc.", "The farm is old!"]),
    ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
    ("“Go!” They went. ‘No.’ Yes.", ["“Go!”", "They went.", "‘No.’", "Yes."]),
    ("Hmm... Yes. Really?! 2 cats. 3 cows.", ["Hmm...", "Yes.", "Really?!", "2 cats.", "3 cows."]),
    ("Yes 😀. Great! 😀 The dog.", ["Yes 😀.", "Great!", "😀 The dog."]),
    ("The dog runs.The cat sits.", ["The dog runs.", "The cat sits."]),
    ("**Bold.** Then _more._ End", ["**Bold.**", "Then _more._", "End"]),
    ("1. A dog. 2. A cat. (3) A cow.", ["1. A dog.", "2. A cat.", "(3) A cow."]),
    ("Seen:\n- a dog\n- a cat. It is.\n* a cow\nAll.", ["Seen:", "- a dog", "- a cat.", "It is.", "* a cow", "All."]),
    ("1. **Dog:** It runs. Yes.\r\n2. Cat", ["1. **Dog:** It runs.", "Yes.", "2. Cat"]),
    ("- a dog\n  that runs\n\n• a cat", ["- a dog\n  that runs", "• a cat"]),
    ("# A farm\nThere is\na dog\n\n\n  Next one", ["# A farm", "There is\na dog", "Next one"]),
    ("A dog\n \nA cat\n\u3000\nA cow", ["A dog", "A cat", "A cow"]),
    ("a) dog\nb) cat\niv. cow", ["a) dog", "b) cat", "iv. cow"]),
    ("图中有狗。“你好。”他说。狗在跑！猫呢？是", ["图中有狗。", "“你好。”", "他说。", "狗在跑！", "猫呢？", "是"]),
    ("这里有3只狗。2只猫在跑。", ["这里有3只狗。", "2只猫在跑。"]),
    ("「はい。」3匹いる。犬も、猫も。", ["「はい。」", "3匹いる。", "犬も、猫も。"]),
    ("图中：\n1、狗\n2、猫。很大。\n一、牛", ["图中：", "1、狗", "2、猫。", "很大。", "一、牛"]),
    ("안녕하세요. 개가 있습니다. यह कुत्ता है। वह बड़ा है।", ["안녕하세요.", "개가 있습니다.", "यह कुत्ता है।", "वह बड़ा है।"]),
    ("-\n1.", ["-", "1."]),
]  # fmt: skip
WORDS = [
    "Dog",
    "cats",
    "Mr.",
    "3.5",
    "U.S.",
    "猫",
    "です",
    "😀",
    "e.g.",
    "1.",
    "-",
    "。",
    "！",
    ".",
    "?!",
    "...",
    "…",
    "**",
]
QUOTES = ["“", "”", '"', "'", "「", "」", "(", ")", "[", "]"]
BLANKS = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u3000", "\u2028", "\xa0", ""]
PIECES = st.lists(st.sampled_from(WORDS + QUOTES + BLANKS), max_size=14).map("".join)


def sentences(text):
    return [text[first:end] for first, end in split_sentences(text)]


@pytest.mark.parametrize("text", WHOLE)
def test_one_sentence(text):
    assert sentences(f"  {text}\n") == [text]


@pytest.mark.parametrize(("text", "expected"), SPLIT)
def test_many_sentences(text, expected):
    assert sentences(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.one_of(PIECES, st.text(max_size=40)))
def test_nothing_but_blanks_is_left_out(text):
    end = 0
    for first, last in split_sentences(text):
        assert end <= first < last
        assert not text[end:first].strip()
        assert text[first:last] == text[first:last].strip()
        end = last
    assert not text[end:].strip()


SENTENCE = st.tuples(
    st.lists(st.sampled_from(["Dogs", "run", "3.5", "Mr. Lee", "e.g. cats", "“Yes”", "(big)"]), min_size=2, max_size=5),
    st.sampled_from([".", "!", "?!", "..."]),
).map(lambda made: "The " + " ".join(made[0]) + made[1])


@settings(max_examples=100, deadline=None)
@given(st.lists(SENTENCE, max_size=4), st.sampled_from([" ", "  ", "\n", "\n\n", "\n- "]))
def test_sentences_come_back_and_stay_whole(texts, between):
    found = sentences(between.join(texts))
    assert [re.sub("^- ", "", one) for one in found] == texts
    assert all(sentences(one) == [one] for one in found)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["狗在跑", "3匹の犬がいる", "图中有2只猫", "“好”"]), max_size=5), st.sampled_from("。！？")
)
def test_sentences_without_blanks_come_back(texts, stop):
    assert sentences("".join(text + stop for text in texts)) == [text + stop for text in texts]


def test_cjk_stops_close_generated_sentences():
    policy = tiny_policy()
    policy.encoder.tokenizer.add_tokens(["猫。", "狗！", "羊？", "牛、"])
    ends = policy.encoder.tokenizer.convert_ids_to_tokens(sorted(policy.sentence_ends))
    assert {".", "猫。", "狗！", "羊？"} <= set(ends)
    assert "牛、" not in ends


class Silent:
    """Adds nothing to what it is given."""

    def __init__(self, encoder):
        self.encoder = encoder

    def branch(self, prompts, prefixes, **_):
        return [[Sampled("", (), False) for _ in row] for row in prefixes]


def test_a_token_of_two_sentences_is_written_once():
    policy = Silent(tiny_policy().encoder)
    policy.encoder.tokenizer.add_tokens(["。狗"])
    [written] = SentenceGuided(0.0).write(
        policy, [prompt(0)], ["猫。狗 runs."], sights=[], rngs=[np.random.default_rng(0)], seed=0, decoding=Decoding()
    )
    assert re.fullmatch("猫�?狗( runs?)?", written.text)
    [_, second] = begin_sentences(policy, prompt(0), "猫。狗 runs.", yes_no_swap=0.0, rng=np.random.default_rng(0))
    assert second.num_before == 1
    assert policy.encoder.decode(second.ids).startswith("猫。狗")


def test_a_sentence_without_tokens_is_told():
    class Deaf:
        encoder = SimpleNamespace(text_tokens=lambda prompt, text: ([1], [(0, 3)]))

    with pytest.raises(UserError, match=r"row row0: '☃' has no tokens .* accepted: text that has"):
        begin_sentences(Deaf(), prompt(0), "Hi. ☃", yes_no_swap=0.0, rng=np.random.default_rng(0))
