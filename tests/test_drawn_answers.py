"""Answers are scored token by token as they were drawn, whatever their text would be tokenised to."""

from __future__ import annotations

import pytest
import torch

from tiny import prompt
from verisight.models.scoring import scores
from verisight.types import Answer, Decoding, Group, Message
from zoo import FAMILIES, tiny

WARM = Decoding(max_new_tokens=6, temperature=1.0)
PROMPTS = [prompt(0), prompt(1, "Is there a dog?")]


@pytest.mark.parametrize("family", FAMILIES)
def test_drawn_tokens_are_those_that_are_scored(family):
    policy = tiny(family)
    drawn = policy.sample(PROMPTS, decoding=WARM, seed=0, num=8)
    groups = [Group(one, tuple(s.answer for s in row)) for one, row in zip(PROMPTS, drawn, strict=True)]
    with torch.no_grad():
        found = policy.score(groups)
        states = policy.read(groups)
        table = policy.network.logits(states.before).log_softmax(-1)
    everything = [one for row in drawn for one in row]
    assert found.num_tokens.tolist() == [one.num_tokens + (not one.truncated) for one in everything]
    ids = [t for one in everything for t in (*one.token_ids, *([] if one.end is None else [one.end]))]
    assert states.targets.tolist() == ids
    torch.testing.assert_close(found.token_logp, table.gather(-1, states.targets[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    again = [policy.encoder.answer(PROMPTS[0], Answer(one.text)).ids for one in everything]
    assert any(one != s.answer.token_ids for one, s in zip(again, everything, strict=True)), "else nothing is tested"


def test_ends_that_were_drawn_are_told():
    policy = tiny("qwen3_vl")
    policy.encoder.end_ids = frozenset({*policy.encoder.end_ids, 400})  # some models have several
    drawn = [one for row in policy.sample(PROMPTS, decoding=Decoding(400), seed=0, num=16) for one in row]
    ends = {one.end for one in drawn if not one.truncated}
    assert ends == policy.encoder.end_ids
    assert all((one.end is None) == one.truncated for one in drawn)
    cut = policy.sample(PROMPTS[:1], decoding=Decoding(60, stop=("e",)), seed=0, num=8)[0]
    assert any(one.end is None and not one.truncated for one in cut), "a string ended it"


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_states_of_grouped_and_padded_rows_are_equal(family):
    policy = tiny(family)
    groups = [
        Group(PROMPTS[0], (Answer("A dog."), Answer("A cow in the field, and a dog."))),
        Group(PROMPTS[1], (Answer("No.", (Message("user", "Sure?"), Message("assistant", "Yes."))),)),
    ]
    with torch.no_grad():
        grouped = policy.read(groups)
        policy.scoring = "padded"
        padded = policy.read(groups)
        assert grouped.num_tokens == padded.num_tokens
        torch.testing.assert_close(grouped.targets, padded.targets)
        torch.testing.assert_close(grouped.before, padded.before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(grouped.last, padded.last, atol=1e-4, rtol=1e-4)
        whole = scores(policy.network, grouped)
    at = torch.tensor(grouped.num_tokens).cumsum(0)[:-1] - 1
    assert not torch.allclose(grouped.last[:-1], grouped.before[at]), "behind the last token, not in front of it"
    assert whole.num_tokens.tolist() == grouped.num_tokens


def test_a_drawn_answer_is_one_turn():
    with pytest.raises(AssertionError):
        Answer("a", (Message("user", "b"),), (1,))
    with pytest.raises(AssertionError):
        Answer("a", token_ids=())
