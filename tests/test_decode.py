"""Sampling against Hugging Face's generate(), closed-form distributions, and plain forwards without hidden tokens."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny import CHOSEN, IMAGE_SIZE, prompt, tiny_policy
from verisight.data.images import load_image
from verisight.models.decode import Branch, Stop, Tree, batches
from verisight.models.hiding import Sight
from verisight.models.network import Network
from verisight.negatives.views import Masked
from verisight.types import Decoding, Prompt

GREEDY = Decoding(max_new_tokens=16, temperature=0.0)
WARM = Decoding(max_new_tokens=12, temperature=1.0)
PROMPTS = [
    prompt(0),
    prompt(1, "Is there a dog?"),
    prompt(2, "What color is the cow in the top left of the image?"),
    Prompt("text", (), "What color is it?"),
]


@pytest.fixture(scope="module")
def policy():
    """The tiny policy with louder image features, so that what is hidden matters."""
    policy = tiny_policy()
    with torch.no_grad():
        policy.core.model.multi_modal_projector.linear_2.weight.mul_(10)
    return policy


def tokens(drawn):
    return [[sampled.token_ids for sampled in row] for row in drawn]


def cut(ids, eos_id):
    return tuple(ids[: ids.index(eos_id)] if eos_id in ids else ids)


def test_greedy_is_generate(policy):
    processor = policy.encoder.processor
    processor.tokenizer.padding_side = "left"
    fields = processor(
        text=["<s>USER: " + "<image> " * len(p.images) + f"{p.text} ASSISTANT:" for p in PROMPTS],
        images=[load_image(ref) for p in PROMPTS for ref in p.images],
        return_tensors="pt", padding=True,
    )  # fmt: skip
    with torch.inference_mode():
        out = policy.core.generate(**fields, do_sample=False, max_new_tokens=16)
    new = out[:, fields["input_ids"].shape[1] :].tolist()
    expected = [[cut(ids, policy.encoder.eos_id)] for ids in new]
    assert tokens(policy.sample(PROMPTS, decoding=GREEDY, seed=0)) == expected
    assert len({str(row) for row in expected}) == len(PROMPTS)


@pytest.mark.parametrize("decoding", [GREEDY, WARM, replace(WARM, top_p=0.7)])
@pytest.mark.parametrize("sights", [None, [Sight(np.arange(16) % 3 == 0)] * 3 + [Sight()]])
def test_answers_do_not_depend_on_the_batch(policy, decoding, sights):
    whole = tokens(policy.sample(PROMPTS, decoding=decoding, seed=7, num=3, sights=sights))
    for size in (1, 5):
        assert tokens(policy.sample(PROMPTS, decoding=decoding, seed=7, num=3, sights=sights, batch_size=size)) == whole
    back = policy.sample(
        PROMPTS[::-1], decoding=decoding, seed=7, num=3, sights=sights[::-1] if sights else None, batch_size=4
    )
    assert tokens(back)[::-1] == whole


def test_answers_depend_on_seed_uid_and_number(policy):
    def one(uid="a", seed=0):
        [row] = tokens(policy.sample([replace(PROMPTS[0], uid=uid)], decoding=WARM, seed=seed, num=2))
        return row

    assert one() == one()
    assert len({*one(), *one(seed=1), *one(uid="b")}) == 6


def test_num_answers_are_in_their_prompts_order(policy):
    two = policy.sample(PROMPTS, decoding=WARM, seed=3, num=2, batch_size=3)
    for row, alone in zip(two, PROMPTS, strict=True):
        assert tokens([row]) == tokens(policy.sample([alone], decoding=WARM, seed=3, num=2))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (0.7, 0.6), (0.3, 0.7)])
def test_tokens_follow_the_closed_form_distribution(policy, temperature, top_p):
    num = 3000
    fields = policy.encoder.processor(text=f"<s>USER: {PROMPTS[3].text} ASSISTANT:", return_tensors="pt")
    with torch.inference_mode():
        logits = policy.core(**fields).logits[0, -1].double().numpy()
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1  # the smallest set that reaches top_p
    nucleus = {int(i): p[i] / p[order[:size]].sum() for i in order[:size]}
    decoding = Decoding(max_new_tokens=1, temperature=temperature, top_p=top_p)
    [row] = policy.sample(PROMPTS[3:], decoding=decoding, seed=0, num=num, batch_size=num)
    counts = Counter(s.token_ids[0] if s.token_ids else policy.encoder.eos_id for s in row)
    assert counts.keys() <= nucleus.keys()
    common = [i for i, share in nucleus.items() if num * share >= 5]
    rare = num * (1 - sum(nucleus[i] for i in common))
    chi_square = sum((counts[i] - num * nucleus[i]) ** 2 / (num * nucleus[i]) for i in common)
    if rare > 5:
        chi_square += (num - sum(counts[i] for i in common) - rare) ** 2 / rare
    assert len(common) > 1
    assert abs(chi_square - len(common)) < 4 * np.sqrt(2 * len(common))


def test_a_nucleus_of_one_token_is_greedy(policy):
    """The token that crosses top_p belongs to the nucleus, so it is never empty."""
    greedy = policy.sample(PROMPTS, decoding=GREEDY, seed=0)
    assert policy.sample(PROMPTS, decoding=replace(GREEDY, temperature=1.0, top_p=1e-6), seed=0) == greedy


def test_branches_stop_after_a_sentence_and_samples_do_not(policy):
    long = Decoding(max_new_tokens=60, temperature=50.0)  # hot: any token may come
    ends, eos = policy.sentence_ends, policy.encoder.eos_id
    texts = policy.encoder.tokenizer.batch_decode([[i] for i in sorted(ends)])
    assert {"."} < set(texts)
    assert all(any(mark in text for mark in ".!?") for text in texts)
    rows = [prompt(i) for i in range(8)]
    prefix = policy.encoder.text_tokens(rows[0], "There is")[0]
    branched = [s for row in policy.branch(rows, [[prefix] * 4] * 8, decoding=long, seed=1) for s in row]
    closed = [s for s in branched if s.token_ids and s.token_ids[-1] in ends]
    assert closed
    for s in branched:
        assert not ends & set(s.token_ids[:-1])
        assert s.truncated == (s.num_tokens == 60 and s not in closed)
    sampled = [s for row in policy.sample([prompt(0)], decoding=long, seed=1, num=64) for s in row]
    assert any(ends & set(s.token_ids[:-1]) for s in sampled)
    assert {s.truncated for s in sampled} == {True, False}
    assert all(s.truncated == (s.num_tokens == 60) for s in sampled)
    assert not any(eos in s.token_ids for s in (*branched, *sampled))


def test_a_branch_continues_its_own_prefix(policy):
    """The greedy answer, taken up at any of its tokens, goes on as it did."""
    rows = PROMPTS[:2]
    answers = [row[0] for row in tokens(policy.sample(rows, decoding=GREEDY, seed=0))]
    cuts = [[0, 2, 5], [1, 4]]
    prefixes = [[ids[:at] for at in row] for ids, row in zip(answers, cuts, strict=True)]
    drawn = tokens(policy.branch(rows, prefixes, decoding=replace(GREEDY, max_new_tokens=5), seed=0, batch_size=2))
    for ids, row, ats in zip(answers, drawn, cuts, strict=True):
        for at, new in zip(ats, row, strict=True):
            ends = [i for i, token in enumerate(ids[at : at + 5]) if token in policy.sentence_ends]
            assert new == ids[at : at + 5][: ends[0] + 1 if ends else 5]


def without_hidden(policy, row, keep, prefix, *, mode, steps):
    """Greedy tokens from a sequence that never held the hidden image tokens: plain forwards, no cache, no padding."""
    core, encoder = policy.core, policy.encoder
    fields = encoder.processor(
        text=f"<s>USER: <image> {row.text} ASSISTANT:", images=[load_image(row.images[0])], return_tensors="pt"
    )
    ids = torch.tensor([*fields["input_ids"][0].tolist(), *prefix])
    with torch.inference_mode():
        embeds = core.get_input_embeddings()(ids)
        embeds[ids == encoder.image_token_id] = core.model.get_image_features(fields["pixel_values"]).pooler_output[0]
        kept = torch.ones(len(ids), dtype=torch.bool)
        kept[ids == encoder.image_token_id] = torch.tensor(keep)
        positions = torch.arange(len(ids))[kept] if mode == "original" else torch.arange(int(kept.sum()))
        embeds, new = embeds[kept][None], []
        for _ in range(steps):
            hidden = core.model.language_model(
                inputs_embeds=embeds, position_ids=positions[None], attention_mask=torch.ones(1, len(positions))
            ).last_hidden_state
            logits = core.lm_head(hidden[0, -1])
            logits[sorted(encoder.special_ids - encoder.end_ids)] = -torch.inf
            new.append(int(logits.argmax()))
            embeds = torch.cat([embeds, core.get_input_embeddings()(torch.tensor([new[-1:]]))], dim=1)
            positions = torch.cat([positions, positions[-1:] + 1])
    return cut(new, encoder.eos_id)


def test_hiding_image_tokens_is_dropping_them(policy):
    rng = np.random.default_rng(0)
    rows = PROMPTS[:3]
    prefixes = [policy.encoder.text_tokens(row, text)[0] for row, text in zip(rows, ("The", CHOSEN, ""), strict=True)]
    made = {}
    for mode in ("original", "compact"):
        for rho in (0.0, 0.5, 0.9, 1.0):
            keeps = [rng.random(16) >= rho for _ in rows]
            sights = [Sight(keep, mode) for keep in keeps]
            drawn = tokens(policy.branch(rows, [[p] for p in prefixes], decoding=GREEDY, seed=0, sights=sights))
            expected = [
                without_hidden(policy, row, keep, prefix, mode=mode, steps=16)
                for row, keep, prefix in zip(rows, keeps, prefixes, strict=True)
            ]
            for [got], want in zip(drawn, expected, strict=True):
                assert len(got) > 0
                assert got == want[: len(got)]
            made[mode, rho] = [got for [got] in drawn]
    assert made["original", 1.0] != made["compact", 1.0]
    assert made["original", 0.0] == made["compact", 0.0] != made["original", 1.0]


@pytest.mark.parametrize(("rho", "low", "high"), [(0.0, 0, 0), (0.9, 0.88, 0.92), (0.99, 0.983, 0.996), (1.0, 1, 1)])
def test_the_mask_hides_the_share_rho(rho, low, high):
    many = SimpleNamespace(num_image_tokens=lambda prompts: [5000] * len(prompts))
    first, second = Masked(rho).look(many, [prompt(0)] * 2, rngs=[np.random.default_rng(0)] * 2)
    assert low <= 1 - first.sight.keep.mean() <= high
    assert 0 < rho < 1 or np.array_equal(first.sight.keep, second.sight.keep)


def test_more_or_fewer_flags_than_image_tokens_are_an_error(policy):
    for num in (15, 17):
        with pytest.raises(AssertionError, match="one keep flag per image token"):
            policy.sample([prompt(0)], decoding=GREEDY, seed=0, sights=[Sight(np.ones(num, dtype=bool))])


def test_a_stop_string_of_blanks_stops(policy):
    """An answer's text loses blanks at its ends, the search for stop strings must not."""
    encoder = policy.encoder
    stop = Stop(encoder.end_ids, strings=("\n",), text=encoder.text)
    ids = encoder.tokenizer("dog\n")["input_ids"]
    assert stop.closes(ids, Branch([], ""))
    assert not stop.closes(ids[:-1], Branch([], ""))


def test_a_stop_behind_a_number_and_allowed_line_breaks_do_not_end_a_sentence(policy):
    encoder = policy.encoder
    stop = Stop(encoder.end_ids, after=policy.sentence_ends, text=encoder.text, breaks=policy.line_breaks)

    def ids(text):
        return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]

    def closed(text, given="", lines=None):
        return stop.closes(ids(text), Branch(ids(given), "", lines))

    assert closed("a dog.")
    assert closed(".", given="a dog")
    assert not closed("it is 3.")
    assert not closed(".", given="it is 3")
    assert closed("it is 3.5.5 big.")
    assert closed("it is 3!")
    assert not closed("a dog\n")
    assert closed("a dog\n", lines=0)
    assert not closed("a\ndog", lines=1)
    assert closed("a\ndog\n", lines=1)
    assert closed("\n", given="a\nb\n", lines=0)


def test_batches_of_trees_are_of_like_length_and_fit(policy, monkeypatch):
    def tree(length, num):
        branches = [Branch([], str(k)) for k in range(num)]
        ids = torch.zeros(length, dtype=torch.int64)
        return Tree(ids, ids[None], length, ids > 0, None, branches)

    trees = [tree(10, 1), tree(3000, 2), tree(12, 1), tree(2000, 1), tree(11, 4)]
    together = list(batches(policy.network, trees, max_new_tokens=100))
    assert together == [[1, 3, 2, 4, 0]]
    monkeypatch.setattr("verisight.models.decode.CACHE_BYTES", 6500 * policy.network.key_bytes)
    some = list(batches(policy.network, trees, max_new_tokens=100))
    assert some == [[1, 3], [2, 4, 0]]
    monkeypatch.setattr("verisight.models.decode.CACHE_BYTES", 1)
    assert list(batches(policy.network, trees, max_new_tokens=100)) == [[1], [3], [2], [4], [0]]


def test_small_batches_give_the_same_answers(policy, monkeypatch):
    whole = tokens(policy.sample(PROMPTS, decoding=WARM, seed=7, num=3))
    monkeypatch.setattr("verisight.models.decode.CACHE_BYTES", 1)
    monkeypatch.setattr("verisight.models.vision.TOWER_PIXELS", 1)
    assert tokens(policy.sample([replace(p, uid=p.uid) for p in PROMPTS], decoding=WARM, seed=7, num=3)) == whole


def test_the_tower_is_not_given_more_than_it_can_take(monkeypatch):
    policy, sizes = tiny_policy(), []
    policy.core.model.vision_tower.register_forward_pre_hook(lambda _, args: sizes.append(args[0].numel()))
    limit = 3 * 3 * IMAGE_SIZE**2
    monkeypatch.setattr("verisight.models.vision.TOWER_PIXELS", limit)
    policy.num_image_tokens([prompt(i) for i in range(8)])
    assert sizes == [limit, limit, 2 * limit // 3]


def test_answers_of_rows_that_outlive_others(policy, monkeypatch):
    """Rows whose answers are all finished leave the batch; the others go on as if alone."""
    hot = Decoding(max_new_tokens=200, temperature=50.0)
    rows = [prompt(i) for i in range(6)]
    begun = [[policy.encoder.text_tokens(row, "There is")[0]] for row in rows]
    sizes = []
    read = Network.read

    def counted(self, row, *args, **kwargs):
        sizes.append(len(row.vectors))
        return read(self, row, *args, **kwargs)

    monkeypatch.setattr(Network, "read", counted)
    together = tokens(policy.branch(rows, begun, decoding=hot, seed=1))
    assert sizes[0] == 6 > min(sizes)
    assert len({len(answer) for [answer] in together}) > 2
    assert together == [
        tokens(policy.branch([row], [one], decoding=hot, seed=1))[0] for row, one in zip(rows, begun, strict=True)
    ]


def test_rows_of_the_head_beyond_the_vocabulary_are_never_drawn():
    """Published models pad their output layer; such rows have no text."""
    policy = tiny_policy()
    num = len(policy.encoder.tokenizer)
    policy.core.resize_token_embeddings(num + 200, mean_resizing=False)
    hot = Decoding(max_new_tokens=40, temperature=100.0)
    drawn = tokens(policy.sample([prompt(0)], decoding=hot, seed=0, num=8))
    assert max(token for answer in drawn[0] for token in answer) < num
