"""Bad prompts: the policy is asked badly, the pair keeps its prompt."""

from dataclasses import replace

import numpy as np
import pytest

from tiny import CHOSEN, pair, prompt, tiny_policy
from verisight.negatives.bad_prompt import AFTER, INSTEAD, BadPrompt
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always
from verisight.negatives.guidance import Free, SentenceGuided
from verisight.sources.generated import paired
from verisight.types import Answer, Group, Message, Sampled, UserError


def draws(view, num, one=None):
    return [view.look(None, [one or prompt(0)], rngs=[np.random.default_rng(i)])[0] for i in range(num)]


@pytest.mark.parametrize(("place", "texts"), [("after", AFTER), ("instead", INSTEAD)])
def test_each_of_our_texts_is_drawn_and_nothing_else_changes(place, texts):
    one = replace(prompt(0, "Is there a dog?"), history=(Message("user", "Hi."), Message("assistant", "Hi.")))
    drawn = draws(BadPrompt(place=place), 120, one)
    assert {seen.notes["text"] for seen in drawn} == set(texts)
    for seen in drawn:
        text = seen.notes["text"]
        assert seen.prompt.text == (text if place == "instead" else f"Is there a dog?\n{text}")
        assert replace(seen.prompt, text=one.text) == one
        assert seen.notes == {"kind": "bad_prompt", "place": place, "text": text}
        assert seen.sight.keep is None


def test_our_texts_are_all_different_words_without_a_picture_mark():
    texts = (*AFTER, *INSTEAD)
    assert len(set(texts)) == len(texts)
    assert all("<" not in text and text[0].isupper() and text.endswith(".") for text in texts)
    assert BadPrompt(texts).texts == texts


def test_own_texts():
    drawn = draws(BadPrompt(("Lie.", "Invent.")), 40)
    assert {seen.notes["text"] for seen in drawn} == {"Lie.", "Invent."}


@pytest.mark.parametrize("text", ["", "  ", "<image> Lie.", "Lie.</s>"])
def test_texts_that_cannot_be_asked_are_refused(text):
    with pytest.raises(UserError, match=r"^texts: .*; accepted: "):
        BadPrompt(("Lie.", text))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(UserError, match="degraded: found"):
        BadPrompt(degraded=share)


def test_a_share_of_the_draws_degrades_the_picture_and_asks_the_question():
    drawn = draws(BadPrompt(degraded=0.5), 200)
    degraded = [seen for seen in drawn if seen.notes["kind"] == "degraded"]
    assert 70 <= len(degraded) <= 130
    for seen in degraded:
        assert seen.prompt.images != prompt(0).images
        assert replace(seen.prompt, images=prompt(0).images) == prompt(0)
    assert {seen.notes["kind"] for seen in draws(BadPrompt(degraded=1), 20)} == {"degraded"}


def test_prompts_without_pictures_are_asked_but_not_degraded():
    blind = replace(prompt(3), images=())
    assert draws(BadPrompt(), 1, blind)[0].prompt.text.startswith(blind.text)
    for seed in range(10):
        with pytest.raises(UserError, match="tiny#3: row 'row3' has no picture"):
            BadPrompt(degraded=0.1).look(None, [blind], rngs=[np.random.default_rng(seed)])


class Writes:
    """A policy that remembers what it is asked."""

    def __init__(self):
        self.asked = []

    def sample(self, prompts, **options):
        self.asked.append([p.text for p in prompts])
        return [[Sampled("A horse.", (), False)] for _ in prompts]


class Never(Always):
    def keep(self, references, candidates):
        return np.zeros(len(references), dtype=bool), np.full(len(references), 0.99)


def test_every_round_asks_anew_and_the_pair_keeps_its_prompt():
    policy = Writes()
    method = Hallucinate(view=BadPrompt(), guidance=Free(9), check=Never(), rounds=6)
    examples = [pair(0), pair(1)]
    made = method(policy, [e.prompt for e in examples], [CHOSEN, CHOSEN], seed=0)
    assert len(policy.asked) == 6
    assert len({asked[0] for asked in policy.asked}) > 1
    assert [negative.view["text"] for negative in made] == [text.split("\n")[1] for text in policy.asked[-1]]
    for example, negative in zip(examples, made, strict=True):
        assert paired(example, negative, origin="x").prompt == example.prompt
    assert method(Writes(), [examples[1].prompt], [CHOSEN], seed=0) == made[1:]


def test_the_tiny_policy_answers_otherwise():
    policy = tiny_policy()
    [look] = BadPrompt().look(policy, [prompt(0)], rngs=[np.random.default_rng(0)])
    clean, asked = (
        float(policy.score([Group(one, (Answer(CHOSEN),))]).logp_sum[0]) for one in (prompt(0), look.prompt)
    )
    assert clean != pytest.approx(asked, abs=1e-3)
    method = Hallucinate(view=BadPrompt(), guidance=SentenceGuided(max_new_tokens=4), check=Always(), rounds=1)
    rows = [prompt(0), prompt(1)]
    whole = method(policy, rows, [CHOSEN, CHOSEN], seed=0)
    assert whole[1:] == method(policy, rows[1:], [CHOSEN], seed=0)
