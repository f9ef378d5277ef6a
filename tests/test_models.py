"""The policy: what it scores, what it sees, what trains, and what the reference is."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import CHOSEN, REJECTED, pair, picture, prompt, tiny_policy
from verisight.data.images import load_image
from verisight.models.encoding import Encoder
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.types import Answer, Decoding, Group, ImageRef, Message, Prompt, UserError

SHORT = Answer("No, there is not a dog.")
HISTORY = (Message("user", "Is there a dog?"), Message("assistant", "Yes, there is a dog."))
TEXT_ONLY = Prompt("text", (), "What color is it?")
TALK = Prompt("talk", (picture(3),), "Is there a cow in the image?", HISTORY)
ROWS = [
    # group, and every answer's prompt and completion as plain text
    (Group(prompt(0), (Answer(CHOSEN), SHORT)), "USER: <image> Describe this image in detail. "),
    (Group(TEXT_ONLY, (SHORT,)), "USER: What color is it? "),
    (
        Group(TALK, (SHORT, Answer(REJECTED))),
        "USER: <image> Is there a dog? ASSISTANT: Yes, there is a dog.</s>USER: Is there a cow in the image? ",
    ),
    (Group(prompt(1, "Is there a dog?"), (Answer("Yes"),)), "USER: <image> Is there a dog? "),
]
GROUPS = [group for group, _ in ROWS]


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def plain_logp(policy, image, opened, closed):
    """Sum of log-probs of what `closed` adds to `opened`: the plain Hugging Face forward on pixels, one row."""
    processor, images = policy.encoder.processor, [load_image(image)] if image else None
    start = processor(text=opened, images=images, return_tensors="pt")["input_ids"].shape[1]
    fields = processor(text=closed, images=images, return_tensors="pt")
    with torch.no_grad():
        logp = policy.core(**fields).logits[0].log_softmax(-1)
    ids = fields["input_ids"][0]
    return sum(float(logp[at - 1, ids[at]]) for at in range(start, len(ids))), len(ids) - start


def test_score_equals_the_plain_forward_row_by_row(policy):
    scores = policy.score(GROUPS)
    expected = [
        plain_logp(
            policy, (group.prompt.images or (None,))[0], f"<s>{text}ASSISTANT:", f"<s>{text}ASSISTANT: {a.text}</s>"
        )
        for group, text in ROWS
        for a in group.answers
    ]  # fmt: skip
    assert scores.logp_sum.tolist() == pytest.approx([logp for logp, _ in expected], rel=1e-5)
    assert scores.num_tokens.tolist() == [num for _, num in expected]


@pytest.mark.parametrize("order", [[0], [1], [2], [3], [1, 0], [3, 2, 1, 0], [2, 1]])
def test_score_does_not_depend_on_the_batch(policy, order):
    whole = policy.score(GROUPS).logp_sum.split([len(g.answers) for g in GROUPS])
    some = policy.score([GROUPS[i] for i in order]).logp_sum
    torch.testing.assert_close(some, torch.cat([whole[i] for i in order]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [CHOSEN, "Yes", "3.5 mètres, 犬"])
def test_the_first_token_and_the_end_token_are_supervised(policy, text):
    encoded = policy.encoder.answer(prompt(0), Answer(text))
    assert encoded.supervised == (True,) * len(encoded.ids)
    assert policy.encoder.tokenizer.decode(encoded.ids[:-1]) == f" {text}"
    assert encoded.ids[-1] == policy.encoder.eos_id


def test_follow_up_supervises_every_assistant_turn_and_no_user_turn(policy):
    turns = (*HISTORY, Message("user", "Is there a cow in the image?"), Message("assistant", "No, there is not."))
    row = Prompt("turns", (picture(3),), turns[0].text)
    at_once = policy.score([Group(row, (Answer(turns[1].text, turns[2:]),))])
    one_by_one = policy.score(
        [
            Group(row, (Answer(turns[1].text),)),
            Group(replace(row, text=turns[2].text, history=turns[:2]), (Answer(turns[3].text),)),
        ]
    )
    assert at_once.logp_sum.item() == pytest.approx(one_by_one.logp_sum.sum().item(), rel=1e-5)
    assert at_once.num_tokens.item() == one_by_one.num_tokens.sum().item()


def test_history_keeps_the_picture_in_the_first_user_turn(policy):
    encoder = policy.encoder
    text = encoder.tokenizer.decode(encoder.prompt(TALK).ids)
    assert text.count("<image>") == encoder.prompt(TALK).num_image_tokens == 16
    assert text.rindex("<image>") < text.index("Is there a dog?") < text.index("Is there a cow")


def test_two_pictures_in_one_prompt_are_told_apart(policy):
    left, right = picture(0), picture(1)
    both = Prompt("both", (left, right), "Describe this image in detail.")
    swapped = replace(both, images=(right, left))
    scores = policy.score([Group(row, (SHORT,)) for row in (both, swapped, prompt(0))]).logp_sum.tolist()
    assert policy.num_image_tokens([both])[0] == 32
    assert len({round(score, 3) for score in scores}) == 3


class SentencePieceLike:
    """LLaVA-1.5's manner: the word boundary is put before the text, the template closes answers with a blank."""

    chat_template = "{...}"
    image_token_id = 0

    def __init__(self):
        from tokenizers import Tokenizer, models, normalizers
        from transformers import PreTrainedTokenizerFast

        words = ["<image>", "▁USER:", "▁ASSISTANT:", "▁Is", "▁it?", "▁Yes", "▁it", "▁is.", "▁", "▁▁", "<unk>", "</s>"]
        inner = Tokenizer(models.Unigram([(w, -len(w) / 9) for w in words], unk_id=words.index("<unk>")))
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", unk_token="<unk>")

    def apply_chat_template(self, messages, *, add_generation_prompt, tokenize):
        names = {"user": "USER: ", "assistant": "ASSISTANT: "}
        shown = {"image": lambda part: "<image> ", "text": lambda part: f"{part['text']} "}
        text = "".join(names[m["role"]] + "".join(shown[p["type"]](p) for p in m["content"]) for m in messages)
        return text + ("ASSISTANT:" if add_generation_prompt else "")


@pytest.mark.parametrize("make", [SentencePieceLike, lambda: tiny_policy().encoder.processor])
def test_an_answers_beginning_has_the_tokens_that_are_scored(make):
    encoder, row = Encoder(make()), Prompt("row", (), "Is it?")
    ids, spans = encoder.text_tokens(row, "Yes it is.")
    scored = encoder.answer(row, Answer("Yes it is."))
    assert tuple(ids) == scored.ids[:-1]
    assert scored.ids[-1] == encoder.eos_id
    assert scored.supervised == (True,) * len(scored.ids)
    assert "".join("Yes it is."[left:right] for left, right in spans) == "Yes it is."


def test_a_template_that_shows_no_picture_is_refused():
    processor = tiny_policy().encoder.processor
    processor.chat_template = processor.chat_template.replace(" <image>", "")
    with pytest.raises(UserError, match=r"chat template shows no picture .*; accepted: one that puts '<image>'"):
        Encoder(processor)


def test_rows_longer_than_the_model_are_refused(policy):
    """Positions beyond those it was built for give numbers, but not the model's."""
    long = Answer("a " * 1100)
    with pytest.raises(UserError, match=r"row row0: found \d+ tokens of prompt and answer, accepted: up to 1024"):
        policy.score([Group(prompt(0), (SHORT, long))])


def test_a_changed_picture_file_is_another_picture(tmp_path, policy):
    """Keys are of bytes; a file is read once for them as long as its size and date stay."""
    path = tmp_path / "picture.png"
    row = Prompt("row", (ImageRef(path=path),), "What is this?")
    keys = []
    for seed in (0, 1):
        path.write_bytes(picture(seed).data)
        os.utime(path, ns=(seed, seed))
        keys += [policy.encoder.key(row), policy.encoder.key(row)]
    assert keys[0] == keys[1] == policy.encoder.key(replace(row, images=(picture(0),)))
    assert keys[2] == keys[3] == policy.encoder.key(replace(row, images=(picture(1),)))
    assert keys[0] != keys[2]


def reference_scores(policy, row, mode):
    return Reference(policy, mode=mode).score([Group(row, (SHORT,))]).logp_sum.tolist()


def beginning(policy, row):
    return policy.encoder.text_tokens(row, "The image shows")[0]


def greedy_tokens(draw):
    return [sampled.token_ids for row in draw for sampled in row]


GREEDY = Decoding(max_new_tokens=12, temperature=0.0)
LOOKERS = {
    "score": lambda policy, row, _: policy.score([Group(row, (SHORT,))]).logp_sum.tolist(),
    "adapter_off": lambda policy, row, _: reference_scores(policy, row, "adapter_off"),
    "frozen_copy": lambda policy, row, _: reference_scores(policy, row, "frozen_copy"),
    "sample": lambda policy, row, sight: greedy_tokens(policy.sample([row], decoding=GREEDY, seed=0, sights=[sight])),
    "branch": lambda policy, row, sight: greedy_tokens(
        policy.branch([row], [[beginning(policy, row)]], decoding=GREEDY, seed=0, sights=[sight])
    ),
}


def loud(policy, *, gain):
    """The same policy with its image features scaled; 0 hides every picture for good."""
    with torch.no_grad():
        for name, parameter in policy.core.named_parameters():
            if "multi_modal_projector" in name and "linear_2" in name:
                parameter.mul_(gain)
    return policy


@pytest.mark.parametrize("looker", LOOKERS)
def test_the_image_is_seen_and_only_through_its_visible_tokens(looker):
    look = LOOKERS[looker]
    rows = [replace(prompt(0), images=(picture(seed),)) for seed in range(4)]
    lora = LoraSettings(r=2, alpha=4)
    seeing, blind = loud(tiny_policy(), gain=30.0), loud(tiny_policy(), gain=0.0)
    for policy in (seeing, blind):
        policy.tune(lora, train_projector=True)
    assert len({str(look(seeing, row, Sight())) for row in rows}) > 2
    assert len({str(look(blind, row, Sight())) for row in rows}) == 1
    if looker in ("sample", "branch"):
        hidden = Sight(np.zeros(16, dtype=bool))
        assert len({str(look(seeing, row, hidden)) for row in rows}) == 1


def train_a_step(policy, *, lr=1e-2):
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=lr)
    policy.score([pair(0).group]).logp_sum.sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_references_are_the_starting_policy_and_stay_it():
    policy = tiny_policy()
    before = policy.score(GROUPS).logp_sum.detach()
    policy.tune(LoraSettings(r=4, alpha=8), train_projector=True)
    references = [Reference(policy, mode=mode) for mode in ("adapter_off", "frozen_copy")]
    assert torch.equal(policy.score(GROUPS).logp_sum, before)
    for _ in range(2):
        for reference in references:
            scores = reference.score(GROUPS)
            assert torch.equal(scores.logp_sum, before)
            assert not scores.logp_sum.requires_grad
        train_a_step(policy)
        assert (policy.score(GROUPS).logp_sum - before).abs().max() > 1e-3


def test_the_reference_is_without_the_trained_projector_too():
    policy = tiny_policy()
    before = policy.score(GROUPS).logp_sum.detach()
    policy.tune(LoraSettings(r=4, alpha=8), train_projector=True)
    with torch.no_grad():
        for name, parameter in policy.trainable().items():
            if "multi_modal_projector" in name:
                parameter.add_(1.0)
    assert (policy.score(GROUPS).logp_sum - before).abs().max() > 1e-3
    assert torch.equal(Reference(policy, mode="adapter_off").score(GROUPS).logp_sum, before)


def test_a_policy_without_adapter_cannot_switch_it_off(policy):
    with pytest.raises(AssertionError, match="no adapter"):
        Reference(policy, mode="adapter_off")


@pytest.mark.parametrize("train_projector", [True, False])
@pytest.mark.parametrize("lora", [LoraSettings(r=2, alpha=4), None])
def test_what_trains(lora, train_projector):
    policy = tiny_policy()
    before = {name: p.detach().clone() for name, p in policy.core.named_parameters()}
    policy.tune(lora, train_projector=train_projector)
    names = set(policy.trainable())
    assert not any("vision_tower" in name for name in names)
    assert any("multi_modal_projector" in name for name in names) == train_projector
    language = {name for name in names if "multi_modal_projector" not in name}
    assert all("language_model" in name for name in language)
    if lora is not None:
        adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in language}
        assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert len(language) == 2 * 2 * 7  # A and B, two layers, seven linears
    else:
        assert len(language) == len([name for name in before if "language_model" in name])
    train_a_step(policy)
    after = dict(policy.core.named_parameters())
    frozen = [name for name in before if "vision_tower" in name]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_the_adapter_starts_from_its_seed_alone():
    weights = []
    for noise, seed in ((1, 5), (2, 5), (1, 6)):
        policy = tiny_policy()
        torch.manual_seed(noise)
        policy.tune(LoraSettings(r=2, alpha=4), train_projector=False, seed=seed)
        weights.append(torch.cat([w.flatten() for w in policy.trainable().values()]).detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_processor_that_cannot_serve_is_refused():
    processor = tiny_policy().encoder.processor
    processor.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        Policy(tiny_policy().model, processor)


def test_a_template_whose_prompt_is_no_prefix_is_refused():
    processor = tiny_policy().encoder.processor
    head, _, tail = processor.chat_template.rpartition("'ASSISTANT:'")
    processor.chat_template = f"{head}'BOT:'{tail}"
    with pytest.raises(UserError, match="does not continue its prompt"):
        Encoder(processor).answer(prompt(0), Answer("Yes"))


@pytest.mark.parametrize("lora", [None, LoraSettings(4, 8)], ids=["full", "lora"])
def test_checkpointed_gradients_are_the_same_from_fewer_kept_tensors(lora):
    found = []
    for checkpointed in (False, True):
        policy, kept = tiny_policy(), []
        policy.tune(lora, train_projector=True, base_name="tiny")
        if checkpointed:
            policy.checkpoint_gradients()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            logp_sum = policy.score([pair(0).group, pair(1).group]).logp_sum
        logp_sum.sum().backward()
        found.append((logp_sum, [weight.grad for weight in policy.trainable().values()], sum(kept)))
    (logp, gradients, size), (logp_again, gradients_again, size_again) = found
    assert torch.allclose(logp, logp_again)
    for left, right in zip(gradients, gradients_again, strict=True):
        assert (left is None and right is None) or torch.allclose(left, right, atol=1e-5)
    assert size_again < 0.7 * size
    assert policy.sample([prompt(0)], decoding=Decoding(4, 0.0), seed=0)[0][0].num_tokens <= 4
