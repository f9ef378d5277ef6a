"""Drawing answers in every model family, pictures hidden or not, against Hugging Face's generate()."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from test_families import PICTURES
from verisight.data.images import load_image
from verisight.models.hiding import Sight
from verisight.types import Decoding, Prompt, UserError
from zoo import FAMILIES, tiny

GREEDY = Decoding(max_new_tokens=8, temperature=0.0)
PROMPTS = [
    Prompt("a", (PICTURES[0],), "Describe this image in detail."),
    Prompt("b", (PICTURES[2],), "Is there a dog?"),
    Prompt("c", (PICTURES[1], PICTURES[2]), "What color is it?"),
    Prompt("d", (), "What color is it?"),
]
BEGUN = "There is a dog in the top left. In the center there is a cow. There is a cup."


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request):
    return tiny(request.param)


def generated(policy, prompt, prefix, *, keep=None, new=8):
    """Greedy tokens of transformers' generate(): hidden tokens by its attention mask, original positions given."""
    encoder, core = policy.encoder, policy.core
    core.set_attn_implementation({"text_config": "sdpa"})
    text = encoder._render(prompt, (), generate=True)
    images = [load_image(ref) for ref in prompt.images] or None
    fields = encoder.processor(images=images, text=text, return_tensors="pt", add_special_tokens=False)
    [look] = policy.vision.look(core, [prompt])
    places = policy.network.positions(look)
    ahead = torch.arange(len(prefix)).expand(len(places), -1) + places.max() + 1
    places = torch.cat([places, ahead], dim=1)[:, None]
    ids = torch.cat([fields.pop("input_ids"), torch.tensor([list(prefix)], dtype=torch.int64)], dim=1)
    mask = torch.ones_like(ids)
    if keep is not None:
        mask[ids == encoder.image_token_id] = torch.from_numpy(keep).long()
    kinds = {"mm_token_type_ids": (ids == encoder.image_token_id).int()} if "mm_token_type_ids" in fields else {}
    if len(places) == 3:
        core.model.rope_deltas = places.max() + 1 - ids.shape[1]
        places = torch.cat([torch.arange(ids.shape[1])[None, None], places])
    out = core.generate(
        **{**fields, **kinds, "attention_mask": mask}, input_ids=ids,
        position_ids=places[0] if len(places) == 1 else places,
        do_sample=False, max_new_tokens=new, suppress_tokens=sorted(encoder.special_ids - encoder.end_ids),
        eos_token_id=sorted(encoder.end_ids), pad_token_id=encoder.tokenizer.pad_token_id,
    )  # fmt: skip
    core.set_attn_implementation({"text_config": "verisight"})
    tokens = out[0, ids.shape[1] :].tolist()
    ends = [i for i, token in enumerate(tokens) if token in encoder.end_ids]
    return tuple(tokens[: ends[0]] if ends else tokens)


def tokens(drawn):
    return [[sampled.token_ids for sampled in row] for row in drawn]


def test_greedy_answers_are_those_of_generate(policy):
    drawn = tokens(policy.sample(PROMPTS, decoding=GREEDY, seed=0, num=2))
    expected = [generated(policy, prompt, []) for prompt in PROMPTS]
    assert drawn == [[answer, answer] for answer in expected]
    assert len(set(expected)) > 1


def test_branches_of_hidden_pictures_are_those_of_generate(policy):
    rng = np.random.default_rng(0)
    ids = policy.encoder.text_tokens(PROMPTS[0], BEGUN)[0]
    prefixes = [ids[:at] for at in (3, 11, len(ids))] + [[*ids[:5], ids[-2], ids[2]], []]
    keeps = [rng.random(policy.num_image_tokens([prompt])[0]) >= 0.6 for prompt in PROMPTS]
    drawn = policy.branch(
        PROMPTS, [prefixes] * len(PROMPTS), decoding=GREEDY, seed=0, sights=[Sight(keep) for keep in keeps]
    )
    for prompt, keep, row in zip(PROMPTS, keeps, tokens(drawn), strict=True):
        for prefix, got in zip(prefixes, row, strict=True):
            whole = generated(policy, prompt, prefix, keep=keep)
            ends = [i for i, token in enumerate(whole) if token in policy.sentence_ends]
            assert got == whole[: ends[0] + 1 if ends else 8]


def test_the_sight_changes_what_is_said(policy):
    def said(**sight):
        num = policy.num_image_tokens([PROMPTS[0]])[0]
        keep = np.random.default_rng(1).random(num) >= 0.9
        return tokens(policy.sample(PROMPTS[:1], decoding=GREEDY, seed=0, sights=[Sight(keep, **sight)]))

    clean = tokens(policy.sample(PROMPTS[:1], decoding=GREEDY, seed=0))
    assert clean != said()
    assert said() != said(scope="answer")
    if policy.family.axes == 1:
        assert said() != said(positions="compact")


def step_by_step(policy, prompt, keep, prefix, *, steps=8):
    """Greedy tokens where only the answer is blind: the whole row again for every token, dense mask, no cache."""
    network, encoder = policy.network, policy.encoder
    [look] = policy.vision.look(policy.core, [prompt])
    [features] = policy.vision.project(policy.core, [look])
    places, ids = network.positions(look), [*look.ids, *prefix]
    hidden = torch.zeros(len(look.ids), dtype=torch.bool)
    hidden[torch.tensor(look.ids) == encoder.image_token_id] = torch.from_numpy(~keep)
    for _ in range(steps):
        num = len(ids) - len(look.ids)
        ahead = torch.arange(num).expand(len(places), -1) + places.max() + 1
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        mask[len(look.ids) :, : len(look.ids)] &= ~hidden
        row = network.embed(torch.tensor([ids]), [features])
        out = network.read(row, torch.cat([places, ahead], dim=1)[:, None], mask=mask[None, None], use_cache=False)
        logits = network.logits(out.last_hidden_state[0, -1])
        logits[sorted(encoder.special_ids - encoder.end_ids)] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] in encoder.end_ids:
            return tuple(ids[len(look.ids) + len(prefix) : -1])
    return tuple(ids[len(look.ids) + len(prefix) :])


@torch.inference_mode()
def test_the_answer_alone_can_be_blind(policy):
    prompts = PROMPTS[:3]
    keeps = [np.random.default_rng(2).random(policy.num_image_tokens([prompt])[0]) >= 0.7 for prompt in prompts]
    ids = policy.encoder.text_tokens(prompts[0], BEGUN)[0]
    prefixes = [ids[:7], []]
    drawn = policy.branch(
        prompts, [prefixes] * 3, decoding=GREEDY, seed=0, sights=[Sight(keep, scope="answer") for keep in keeps]
    )
    for prompt, keep, row in zip(prompts, keeps, tokens(drawn), strict=True):
        for prefix, got in zip(prefixes, row, strict=True):
            whole = step_by_step(policy, prompt, keep, prefix)
            ends = [i for i, token in enumerate(whole) if token in policy.sentence_ends]
            assert got == whole[: ends[0] + 1 if ends else 8]


def test_hot_answers_hold_no_special_token(policy):
    hot = Decoding(max_new_tokens=40, temperature=100.0)
    drawn = tokens(policy.sample(PROMPTS[:2], decoding=hot, seed=0, num=8))
    said = {token for row in drawn for answer in row for token in answer}
    assert len(said) > 100
    assert not said & policy.encoder.special_ids


def test_compact_positions_are_refused_where_positions_have_three_axes(policy):
    if policy.family.axes == 1:
        pytest.skip("plain positions")
    sight = Sight(np.zeros(policy.num_image_tokens([PROMPTS[0]])[0], dtype=bool), "compact")
    with pytest.raises(UserError, match="found compact for a model whose positions have 3 axes; accepted: original"):
        policy.sample(PROMPTS[:1], decoding=GREEDY, seed=0, sights=[sight])


def test_compact_positions_are_refused_where_nothing_is_left_out(policy):
    sight = Sight(np.zeros(policy.num_image_tokens(PROMPTS[:1])[0], dtype=bool), "compact", "answer")
    with pytest.raises(UserError, match="positions: found compact with scope answer"):
        policy.sample(PROMPTS[:1], decoding=GREEDY, seed=0, sights=[sight])


def test_answers_end_where_a_stop_string_comes_up(policy):
    long = replace(GREEDY, max_new_tokens=24)
    [[whole]] = policy.sample(PROMPTS[:1], decoding=long, seed=0)
    strings = re.findall(r"[a-z]{2}", whole.text)
    string = strings[len(strings) // 2]
    [[cut]] = policy.sample(PROMPTS[:1], decoding=replace(long, stop=("never said", string)), seed=0)
    assert cut.text == whole.text[: whole.text.index(string)].strip()
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert len(cut.token_ids) < len(whole.token_ids) or cut.text in whole.text[:-1]
    assert not cut.truncated
