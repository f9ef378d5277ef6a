"""Every model family: the grouped row equals the padded batch and Hugging Face's own forward."""

import pytest
import torch
from transformers import AutoConfig

from tiny import picture
from verisight.data.images import load_image
from verisight.models.policy import Policy
from verisight.models.tuning import LoraSettings
from verisight.types import Answer, Group, ImageRef, Prompt
from zoo import FAMILIES, tiny
from zoo_processors import processor_of

LONG = Answer("The image shows a farm. There is a dog in the top left. In the center there is a cow.")
SHORT, OTHER = Answer("No."), Answer("There is a horse in the top left of the image.")


def wide(seed, size):
    """A random picture of its own size, so that families with tiles take more of them."""
    import io

    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return ImageRef(data=buffer.getvalue())


PICTURES = [wide(0, (32, 48)), wide(1, (40, 16)), picture(2)]
GROUPS = [
    Group(Prompt("a", (PICTURES[0],), "Describe this image in detail."), (LONG, SHORT, OTHER)),
    Group(Prompt("b", (), "What color is it?"), (SHORT,)),
    Group(Prompt("c", (PICTURES[1], PICTURES[2]), "Is there a cow in the image?"), (OTHER, SHORT)),
    Group(Prompt("d", (PICTURES[2],), "Is there a cow in the image?"), (SHORT, LONG)),
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def hugging_face(policy, group, answer):
    """Sum of log-probs by the family's own forward on pixels, one row, attention as transformers ships it."""
    encoder, core = policy.encoder, policy.core
    core.set_attn_implementation({"text_config": "sdpa"})
    images = [load_image(ref) for ref in group.prompt.images] or None
    text = encoder._render(group.prompt, (), generate=True)
    fields = encoder.processor(images=images, text=text, return_tensors="pt", add_special_tokens=False)
    ids = encoder.answer(group.prompt, answer).ids
    start = fields["input_ids"].shape[1]
    more = torch.tensor([ids])
    fields["input_ids"] = torch.cat([fields["input_ids"], more], dim=1)
    fields["attention_mask"] = torch.ones_like(fields["input_ids"])
    if "mm_token_type_ids" in fields:
        fields["mm_token_type_ids"] = torch.cat([fields["mm_token_type_ids"], torch.zeros_like(more)], dim=1)
    with torch.no_grad():
        logp = core(**fields).logits[0].log_softmax(-1)
    core.set_attn_implementation({"text_config": "verisight"})
    return sum(float(logp[start + k - 1, token]) for k, token in enumerate(ids))


def test_scores_equal_hugging_face(family):
    policy = tiny(family)
    expected = [hugging_face(policy, group, answer) for group in GROUPS for answer in group.answers]
    for scoring in ("grouped", "padded"):
        policy.scoring = scoring
        with torch.no_grad():
            assert policy.score(GROUPS).logp_sum.tolist() == pytest.approx(expected, abs=2e-4, rel=2e-5)


def losses(policy, scoring, *, tune, checkpoint):
    policy.tune(LoraSettings(4, 8) if tune == "lora" else None, train_projector=True, seed=1)
    with torch.no_grad():
        for name, weight in policy.trainable().items():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    if checkpoint:
        policy.checkpoint_gradients()
    policy.scoring = scoring
    scores = policy.score(GROUPS)
    weights = torch.linspace(0.5, 1.5, len(scores.logp_sum))
    (scores.logp_sum * weights).sum().backward()
    return scores, {name: p.grad for name, p in policy.trainable().items()}


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_grouped_equals_padded(family, tune, checkpoint):
    one, grads = losses(tiny(family), "grouped", tune=tune, checkpoint=checkpoint)
    two, expected = losses(tiny(family), "padded", tune=tune, checkpoint=False)
    assert one.num_tokens.tolist() == two.num_tokens.tolist()
    torch.testing.assert_close(one.token_logp, two.token_logp, atol=1e-5, rtol=0)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        if expected[name] is None:
            assert grad is None
            continue
        size = expected[name].norm()
        assert (grad - expected[name]).norm() <= 1e-4 * size + 1e-7, name


@pytest.mark.parametrize(("family", "kind"), [("llava_next", "mistral"), ("internvl", "qwen3"), ("internvl", "llama")])
def test_other_language_models_of_a_family(family, kind):
    """LLaVA-1.6 comes with Mistral, InternVL3.5 with Qwen3."""
    model = tiny(family).core
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "max_position_embeddings", "initializer_range")
    old = model.config.text_config
    sizes = {name: getattr(old, name) for name in names}
    model.config.text_config = AutoConfig.for_model(kind, **sizes, head_dim=8, sliding_window=None)
    torch.manual_seed(0)
    policy = Policy(type(model)(model.config).eval(), processor_of(family))
    assert policy.core.config.text_config.model_type == kind
    expected = [hugging_face(policy, group, answer) for group in GROUPS for answer in group.answers]
    with torch.no_grad():
        assert policy.score(GROUPS).logp_sum.tolist() == pytest.approx(expected, abs=2e-4, rel=2e-5)
    policy.tune(LoraSettings(2, 4), train_projector=False)
    assert len(policy.trainable()) == 2 * 7 * sizes["num_hidden_layers"]
