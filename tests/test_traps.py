"""What goes wrong without an error when answers share a row: each trap has a test that fails if it comes back."""

import copy

import pytest
import torch

from test_families import GROUPS, LONG, OTHER, PICTURES, SHORT
from tiny import pair, picture, prompt, tiny_policy
from verisight.models import logprobs
from verisight.models.families import SUPPORTED, check_config, family_of
from verisight.models.logprobs import token_log_probs
from verisight.models.policy import Policy
from verisight.models.tuning import LoraSettings
from verisight.types import Answer, Decoding, Group, Message, Prompt, UserError
from zoo import tiny


def logp(policy, groups=GROUPS):
    with torch.no_grad():
        return policy.score(groups).logp_sum


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_how_the_model_was_loaded_does_not_matter(attention):
    """Eager attention adds a boolean mask as 0 and 1, and knows nothing of a grouped row."""
    policy = tiny("qwen2_5_vl")
    expected = logp(policy)
    policy.core.set_attn_implementation({"text_config": attention})
    torch.testing.assert_close(logp(Policy(policy.model, policy.encoder.processor)), expected, atol=1e-5, rtol=0)


def test_an_answer_does_not_see_the_others():
    """A mask of ones over the row would show the chosen answer to the rejected one."""
    policy = tiny("llava")
    one, two = (logp(policy, [Group(GROUPS[0].prompt, (first, SHORT, OTHER))]) for first in (LONG, OTHER))
    assert one[0] != two[0]
    torch.testing.assert_close(one[1:], two[1:], atol=1e-5, rtol=0)
    assert one[2] == pytest.approx(two[0].item(), abs=1e-5)


def test_a_jump_between_positions_is_no_border_between_documents():
    """Without a mask transformers takes the second answer for a document of its own; then attention refuses the row."""
    policy = tiny("llava")
    network, [look] = policy.network, policy.vision.look(policy.core, [GROUPS[0].prompt])
    ids = torch.tensor([[*look.ids, 5, 6, 5, 6]])
    places = torch.cat([torch.arange(len(look.ids) + 2), torch.arange(2) + len(look.ids)])
    with pytest.raises(AssertionError, match="a grouped row carries its own layout"):
        policy.core.model.language_model(
            inputs_embeds=network.embed(ids, policy.vision.project(policy.core, [look])).vectors,
            position_ids=places[None], segments=(), use_cache=False,
        )  # fmt: skip


def test_positions_left_behind_by_generate_do_not_matter():
    policy = tiny("qwen3_vl")
    expected = logp(policy)
    policy.core.model.rope_deltas = torch.tensor([[1000]])
    assert torch.equal(logp(policy), expected)
    drawn = policy.sample([GROUPS[0].prompt], decoding=Decoding(4, 0.0), seed=0)
    policy.core.model.rope_deltas = None
    assert policy.sample([GROUPS[0].prompt], decoding=Decoding(4, 0.0), seed=0) == drawn


def test_pictures_of_the_same_words_are_told_apart():
    """Placeholders look the same whatever the picture: in one batch, and one after another."""
    policy = tiny("llava_next")
    groups = [Group(Prompt("same", (image,), "What is this?"), (SHORT,)) for image in (*PICTURES, picture(9))]
    together = logp(policy, groups)
    alone = torch.cat([logp(tiny("llava_next"), [group]) for group in groups])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat([logp(policy, [group]) for group in groups]), alone, atol=1e-5, rtol=0)
    assert len({round(value, 4) for value in alone.tolist()}) == len(groups)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_dropout_never_happens(checkpoint):
    """Answers of a group would share one dropout mask of their prompt; a checkpointed layer would draw a second one."""
    policy = tiny_policy()
    still = Policy(copy.deepcopy(policy.model), policy.encoder.processor)
    policy.core.config.text_config.attention_dropout = 0.5
    for module in policy.core.modules():
        if "attention_dropout" in vars(module):
            module.attention_dropout = 0.5
    results = []
    for one in (policy, still):
        one.tune(LoraSettings(2, 4), train_projector=True)
        if checkpoint:
            one.checkpoint_gradients()
        scores = one.score([pair(0).group, pair(1).group])
        scores.logp_sum.sum().backward()
        results.append((scores.logp_sum, [p.grad for p in one.trainable().values()]))
    assert torch.equal(results[0][0], results[1][0])
    for noisy, calm in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(noisy, calm)


def test_checkpointed_layers_keep_their_inputs_only():
    """And do so in the backward pass too, where transformers looks the attention function up again."""
    saved = {}
    for checkpoint in (False, True):
        policy = tiny_policy()
        policy.tune(LoraSettings(2, 4), train_projector=False)
        if checkpoint:
            policy.checkpoint_gradients()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            policy.score([pair(0).group])
        saved[checkpoint] = sum(sizes)
        assert not any(module.training for module in policy.model.modules())
    assert saved[True] < 0.5 * saved[False]


def head(*, train, bias, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 8, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(101, 8, generator=generator, dtype=dtype).requires_grad_(train)
    offset = torch.randn(101, generator=generator, dtype=dtype).requires_grad_(train) if bias else None
    return hidden, torch.randint(0, 101, (37,), generator=generator), weight, offset


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_log_probs_in_chunks_are_the_same(train, bias, monkeypatch):
    whole, chunked = head(train=train, bias=bias), head(train=train, bias=bias)
    scale = torch.linspace(-1, 1, 37)
    expected = token_log_probs(*whole)
    (expected * scale).sum().backward()
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 101 * 5)
    peak = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: peak.append(t.numel()) or t, lambda t: t):
        got = token_log_probs(*chunked)
    (got * scale).sum().backward()
    assert max(peak) <= 101 * 8
    torch.testing.assert_close(got, expected)
    for a, b in zip(chunked, whole, strict=True):
        if b is not None and b.requires_grad:
            torch.testing.assert_close(a.grad, b.grad)
        elif b is not None:
            assert a.grad is None


@pytest.mark.parametrize("kind", ["mllama", "paligemma", "gemma3", "blip-2", "instructblip", "bert"])
def test_unsupported_families_are_refused_by_name(kind):
    with pytest.raises(UserError, match=f"found a '{kind}' model.*; accepted: {', '.join(SUPPORTED)}"):
        family_of(kind)


def config_with(text):
    tower = {"model_type": "clip_vision_model"}
    return {"model_type": "llava", "text_config": {"model_type": "mistral"} | text, "vision_config": tower}


@pytest.mark.parametrize("text", [{"sliding_window": 4096}, {"layer_types": ["full_attention", "sliding_attention"]}])
def test_windows_in_the_language_model_are_refused(text):
    with pytest.raises(UserError, match="accepted: full causal attention in every layer"):
        check_config(config_with(text))


@pytest.mark.parametrize(
    ("part", "kind"), [("text_config", "phi3"), ("text_config", "gemma"), ("vision_config", "pixtral")]
)
def test_untested_parts_of_a_family_are_refused(part, kind):
    """Phi-3 joins its projections under other names, so LoRA would miss them; Pixtral's tower packs its pictures."""
    config = config_with({}) | {part: {"model_type": kind}}
    with pytest.raises(UserError, match=f"found a 'llava' model with a '{kind}' .*; accepted: "):
        check_config(config)


def test_lora_stays_in_the_language_model_unless_asked():
    for name in SUPPORTED:
        policy = tiny(name)
        policy.tune(LoraSettings(2, 4), train_projector=False)
        assert policy.vision.frozen
        assert all(f".{policy.family.language}." in weight for weight in policy.trainable())
        policy.tune(LoraSettings(2, 4, targets="all"), train_projector=False)
        assert not policy.vision.frozen
        places = {
            part for part in (policy.family.tower, policy.family.language) for w in policy.trainable() if part in w
        }
        assert places == {policy.family.tower, policy.family.language}
        before = logp(policy)
        optimizer = torch.optim.SGD(policy.trainable().values(), lr=0.05)
        policy.score(GROUPS).logp_sum.mean().backward()
        assert any(float(p.grad.norm()) > 0 for n, p in policy.trainable().items() if policy.family.tower in n)
        optimizer.step()
        assert not torch.equal(logp(policy), before)


def test_one_prompt_is_read_once_however_many_answers():
    """Rows of the language model's input: prompt once, every answer once."""
    policy, lengths = tiny_policy(), []
    policy.core.model.language_model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    group = Group(prompt(0), (LONG, SHORT, OTHER, LONG))
    logp(policy, [group])
    encoder = policy.encoder
    answers = sum(len(encoder.answer(group.prompt, answer).ids) for answer in group.answers)
    assert [tuple(shape) for shape in lengths] == [(1, len(encoder.prompt(group.prompt).ids) + answers)]


def test_a_template_with_another_blank_in_finished_turns_is_scored_behind_its_generation_prompt():
    r"""LLaVA-OneVision's template closes turns as 'assistant \n...' and asks for them with 'assistant\n'."""
    plain, published = tiny("llava_onevision"), tiny("llava_onevision")
    published.encoder.processor.chat_template = plain.encoder.processor.chat_template.replace(
        "message['role'] + '\n'", "message['role'] + (' \n' if message['role'] == 'assistant' else '\n')"
    )
    assert published.encoder.processor.chat_template != plain.encoder.processor.chat_template
    talk = Answer("Yes.", (Message("user", "Where?"), Message("assistant", "In the middle.")))
    for answer in (SHORT, LONG, talk):
        wanted = plain.encoder.answer(GROUPS[0].prompt, answer)
        assert published.encoder.answer(GROUPS[0].prompt, answer) == wanted
    begun = [one.encoder.text_tokens(GROUPS[0].prompt, LONG.text) for one in (plain, published)]
    assert begun[0] == begun[1]


@pytest.mark.parametrize("text", ["e", "end", "im", "|", ""])
def test_an_answer_may_read_like_its_closing_mark(text):
    policy = tiny("llava_onevision")
    processor = policy.encoder.processor
    processor.chat_template = processor.chat_template.replace("message['role'] + '\n'", "message['role'] + ' \n'", 1)
    encoded = policy.encoder.answer(GROUPS[0].prompt, Answer(text))
    assert policy.encoder.tokenizer.decode(encoded.ids) == f"{text}<|im_end|>"


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl"])
def test_in_double_precision_both_ways_are_one(family):
    policy = tiny(family)
    policy.model.double()
    policy.tune(None, train_projector=True)
    policy.model.double()
    found = []
    for policy.scoring in ("grouped", "padded"):
        scores = policy.score(GROUPS)
        scores.logp_sum.sum().backward()
        found.append((scores.token_logp, {name: p.grad.clone() for name, p in policy.trainable().items()}))
        policy.model.zero_grad()
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-6, rtol=0)
    for name, grad in found[0][1].items():
        assert (grad - found[1][1][name]).norm() <= 1e-6 * grad.norm() + 1e-9, name


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_eight_answers_in_bfloat16(family):
    """Rounding apart, what float32 gives."""
    texts = [" ".join(LONG.text.split()[:num]) for num in (1, 2, 4, 6, 9, 12, 16, 21)]
    groups = [Group(one.prompt, tuple(Answer(text) for text in texts)) for one in GROUPS[::3]]
    exact = logp(tiny(family), groups)
    policy = tiny(family)
    policy.model.to(torch.bfloat16)
    policy.tune(LoraSettings(2, 4), train_projector=True)
    scores = policy.score(groups)
    scores.logp_sum.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in policy.trainable().values())
    torch.testing.assert_close(scores.logp_sum.detach(), exact, rtol=0.03, atol=1.5)
    assert scores.token_logp.dtype == torch.float32
