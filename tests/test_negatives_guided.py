"""Sentence-guided negatives: a policy that writes the reference gives the reference back, whatever its layout."""

import numpy as np
import pytest

from tiny import prompt, tiny_policy
from verisight.models.decode import Branch, Stop
from verisight.models.hiding import Sight
from verisight.negatives.guidance import SentenceGuided, begin_sentences
from verisight.types import Decoding, Sampled

ROW = prompt(0)


class Faithful:
    """Writes the reference's own next tokens until the policy's rules say that the sentence is over."""

    def __init__(self, policy, reference):
        self.encoder, self.policy = policy.encoder, policy
        self.true, _ = policy.encoder.text_tokens(ROW, reference)

    def branch(self, prompts, prefixes, *, lines, **_):
        rows = zip(prefixes, lines, strict=True)
        return [[self._finish(*one) for one in zip(row, counts, strict=True)] for row, counts in rows]

    def _finish(self, given, lines):
        stop = Stop(
            self.encoder.end_ids, (), self.policy.sentence_ends, text=self.encoder.text, breaks=self.policy.line_breaks
        )
        assert list(given) == self.true[: len(given)]
        new = []
        for token in self.true[len(given) :]:
            new.append(token)
            if stop.closes(new, Branch(given, "", lines)):
                break
        return Sampled(self.encoder.decode(new), tuple(new), False)


def guided(policy, reference, *, seed, stop=()):
    rngs = [np.random.default_rng(seed)]
    [made] = SentenceGuided(0.0).write(
        policy, [ROW], [reference], sights=[Sight()], rngs=rngs, seed=0, decoding=Decoding(stop=stop)
    )
    return made


@pytest.mark.parametrize(
    "reference",
    [
        "There is a dog. There is a cow! Is there a bus?",
        "The image shows:\n- a dog\n- a cow\n- a cat\n- a bus",
        "1. A dog is big.\n2. A cow is big.\n3. A cat is big.",
        "1. A dog\n2. A cow\n\n3. A cat",
        "There is a dog\n\nThere is a cow\n\nThere is a cat.",
        "# The farm\nThere is a dog. There is a cow.",
        "A big\ndog is here. A cow.",
        "- a big\n  dog is\n  here\n- a cow\n- a cat",
        "The dog is 3.5 big. There is a cow.",
        "There are 3. The cow is big. There are 12. The end",
    ],
)
def test_a_policy_that_writes_the_reference_gives_it_back(reference):
    policy = Faithful(tiny_policy(), reference)
    for seed in range(60):
        made = guided(policy, reference, seed=seed)
        assert made.text == reference
        assert not made.notes["truncated"]
        assert all(left < right for left, right in made.spans)


def test_an_items_number_is_given_not_drawn():
    policy, reference = tiny_policy(), "12. A dog"
    told = {
        policy.encoder.decode(
            begin_sentences(policy, ROW, reference, yes_no_swap=0.0, rng=np.random.default_rng(seed))[0].ids
        )
        for seed in range(40)
    }
    assert all(text.startswith("12.") for text in told)
    assert {"12.", "12. A"} <= told


class Says:
    """Finishes every sentence with the same words."""

    def __init__(self, encoder, text, *, truncated=False):
        self.encoder, self.text, self.truncated = encoder, text, truncated

    def branch(self, prompts, prefixes, **_):
        ids = tuple(self.encoder.tokenizer(self.text, add_special_tokens=False)["input_ids"])
        return [[Sampled(self.text, ids, self.truncated) for _ in row] for row in prefixes]


@pytest.mark.parametrize(
    ("said", "stop", "left"),
    [
        ("horse here. A cow too.", (), "horse here."),
        ("horse\n\nA cow.", (), "horse"),
        ("horse\n- a cow", (), "horse"),
        ("horse ### here.", ("###",), "horse "),
        ("horse ### here.", (), "horse ### here."),
        ("horse is 3.5 big. A cow", (), "horse is 3.5 big."),
    ],
)
def test_what_goes_beyond_the_sentence_or_a_stop_string_is_dropped(said, stop, left):
    encoder = tiny_policy().encoder
    for seed in range(4):
        made = guided(Says(encoder, said, truncated=True), "There is a dog.", seed=seed, stop=stop)
        assert made.text.rstrip().endswith(left.rstrip())
        assert made.notes["truncated"] == (left == said)
        [(first, end)] = made.spans
        assert made.text[first:end].strip() == left.strip()


@pytest.mark.parametrize("said", ["", "\n- a cow", "\n\nA cow."])
def test_nothing_written_is_no_span(said):
    made = guided(Says(tiny_policy().encoder, said), "There is a dog.", seed=0)
    assert "There is a dog.".startswith(made.text)
    assert made.spans == ()


def test_a_letter_cut_in_two_is_written_by_the_policy():
    """Half of "é" is no text yet: the letter that the other half completes belongs to what was written."""
    encoder = tiny_policy().encoder
    reference = "é"
    ids, _ = encoder.text_tokens(ROW, reference)
    assert len(ids) > 1
    policy = Faithful(tiny_policy(), reference)
    made = [guided(policy, reference, seed=seed) for seed in range(10)]
    assert {one.text for one in made} == {reference}
    assert {one.spans for one in made} == {((0, 1),)}
