"""Teacher-forced answers: what sampling draws behind every true beginning, and the text that comes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from test_families import PICTURES
from tiny import CHOSEN, REJECTED, prompt, tiny_policy
from verisight.models.hiding import Sight
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always
from verisight.negatives.forced import TokenForced
from verisight.negatives.views import Clean, Masked
from verisight.types import Decoding, Prompt, Sampled, UserError
from zoo import FAMILIES, tiny

GREEDY = Decoding(temperature=0.0)
WARM = Decoding(temperature=1.0)
PROMPTS = [prompt(0), prompt(1, "Is there a dog?"), Prompt("text", (), "What color is it?"), prompt(3)]
ANSWERS = [CHOSEN, "Yes.", f"{REJECTED} {CHOSEN} 猫 is a 😀.", "There is a dog."]
KEEP = np.random.default_rng(0).random(16) < 0.5


def seen(sight):
    return [Sight() if not row.images else sight for row in PROMPTS]


SIGHTS = {
    "all": None,
    "hidden": seen(Sight(KEEP)),
    "compact": seen(Sight(KEEP, "compact")),
    "veiled": seen(Sight(KEEP, scope="answer")),
    "mixed": [Sight(KEEP, scope="answer"), Sight(), Sight(), Sight(~KEEP)],
    "nothing": seen(Sight(np.zeros(16, dtype=bool))),
}


@pytest.fixture(scope="module")
def policy():
    """The tiny policy, its pictures and its words louder, so that what is seen and what was said both matter."""
    policy = tiny_policy()
    with torch.no_grad():
        policy.core.model.multi_modal_projector.linear_2.weight.mul_(10)
        policy.core.get_input_embeddings().weight.mul_(3)
    return policy


def tokens(drawn):
    return [one.token_ids for one in drawn]


def one_by_one(policy, decoding, sights, *, rows=PROMPTS, answers=ANSWERS):
    """The next token behind every true beginning, from the sampler; up to the first end token."""
    found = []
    for index, (row, text) in enumerate(zip(rows, answers, strict=True)):
        ids = policy.encoder.text_tokens(row, text)[0]
        sight = None if sights is None else [sights[index]]
        one = replace(decoding, max_new_tokens=1)
        [drawn] = policy.branch([row], [[ids[:k] for k in range(len(ids))]], decoding=one, seed=5, sights=sight)
        said = [d.token_ids for d in drawn]
        end = said.index(()) if () in said else len(said)
        found.append(tuple(token for some in said[:end] for token in some))
    return found


@pytest.mark.parametrize("decoding", [GREEDY, WARM, Decoding(temperature=0.7, top_p=0.8)])
@pytest.mark.parametrize("sights", SIGHTS.values(), ids=SIGHTS)
def test_forced_is_sampling_behind_every_true_beginning(policy, decoding, sights):
    forced = policy.forced(PROMPTS, ANSWERS, decoding=decoding, seed=5, sights=sights)
    assert tokens(forced) == one_by_one(policy, decoding, sights)
    assert not any(one.truncated for one in forced)


@pytest.mark.parametrize("family", FAMILIES)
def test_forced_is_sampling_in_every_family(family):
    policy = tiny(family)
    rows = [Prompt("a", (PICTURES[0],), "Is there a dog?"), Prompt("b", (PICTURES[1], PICTURES[2]), "What color?")]
    keeps = [np.arange(num) % 3 == 0 for num in policy.num_image_tokens(rows)]
    for sights in (None, [Sight(keeps[0]), Sight(keeps[1], scope="answer")]):
        forced = policy.forced(rows, ANSWERS[:2], decoding=WARM, seed=5, sights=sights)
        assert tokens(forced) == one_by_one(policy, WARM, sights, rows=rows, answers=ANSWERS[:2])


def test_sights_and_true_words_matter(policy):
    drawn = {
        name: tokens(policy.forced(PROMPTS, ANSWERS, decoding=GREEDY, seed=5, sights=SIGHTS[name])) for name in SIGHTS
    }
    assert len({str(some) for some in drawn.values()}) == len(SIGHTS)
    assert tokens(policy.forced(PROMPTS, ["No.", *ANSWERS[1:]], decoding=GREEDY, seed=5))[1:] == drawn["all"][1:]


def test_forced_is_the_plain_forward(policy):
    """Against transformers' own forward, pictures in full sight."""
    encoder = policy.encoder
    true = encoder.text_tokens(PROMPTS[0], ANSWERS[0])[0]
    encoded = encoder.prompt(PROMPTS[0])
    with torch.inference_mode():
        logits = (
            policy.core(input_ids=torch.tensor([[*encoded.ids, *true]]), pixel_values=encoded.fields["pixel_values"])
            .logits[0, len(encoded.ids) - 1 : -1]
            .clone()
        )
        logits[:, sorted(encoder.special_ids - encoder.end_ids)] = -torch.inf
    said = logits.argmax(dim=-1).tolist()
    [drawn] = policy.forced(PROMPTS[:1], ANSWERS[:1], decoding=GREEDY, seed=0)
    assert list(drawn.token_ids) == said[: len(drawn.token_ids)]
    assert len(drawn.token_ids) == len(true) or said[len(drawn.token_ids)] in encoder.end_ids


@pytest.mark.parametrize("decoding", [GREEDY, WARM])
def test_forced_does_not_depend_on_the_batch(policy, decoding):
    sights = SIGHTS["mixed"]
    whole = policy.forced(PROMPTS, ANSWERS, decoding=decoding, seed=5, sights=sights)
    for size in (1, 3):
        assert policy.forced(PROMPTS, ANSWERS, decoding=decoding, seed=5, sights=sights, batch_size=size) == whole
    back = policy.forced(PROMPTS[::-1], ANSWERS[::-1], decoding=decoding, seed=5, sights=sights[::-1])
    assert back[::-1] == whole
    other = policy.forced(PROMPTS, ANSWERS, decoding=decoding, seed=6, sights=sights)
    assert (other == whole) == (decoding == GREEDY)


def test_one_forward_reads_all(policy, monkeypatch):
    reads = []
    network = type(policy.network)
    read = network.read
    monkeypatch.setattr(
        network, "read", lambda self, row, *a, **k: reads.append(row.vectors.shape) or read(self, row, *a, **k)
    )
    policy.forced(PROMPTS, ANSWERS, decoding=GREEDY, seed=0)
    assert len(reads) == 1
    policy.forced(PROMPTS, ANSWERS, decoding=GREEDY, seed=0, batch_size=2)
    assert len(reads) == 3


def test_an_answer_ends_where_the_end_token_is_drawn():
    policy = tiny_policy()
    hot = Decoding(temperature=50.0)
    rows = [prompt(i) for i in range(60)]
    num_true = len(policy.encoder.text_tokens(rows[0], CHOSEN)[0])
    lengths = {len(one.token_ids) for one in policy.forced(rows, [CHOSEN] * 60, decoding=hot, seed=0)}
    assert max(lengths) == num_true
    assert len(lengths) > 1
    assert not any(
        policy.encoder.eos_id in one.token_ids for one in policy.forced(rows, [CHOSEN] * 60, decoding=hot, seed=0)
    )


def test_an_empty_reference_gives_an_empty_answer(policy):
    drawn = policy.forced(PROMPTS[:2], ["", CHOSEN], decoding=WARM, seed=0)
    assert drawn[0].text == ""
    assert drawn[1] == policy.forced(PROMPTS[1:2], [CHOSEN], decoding=WARM, seed=0)[0]


def test_rows_too_long_for_the_model_are_told(policy):
    with pytest.raises(UserError, match=r"row row0: found \d+ tokens of prompt and answer"):
        policy.forced(PROMPTS[:1], [CHOSEN * 200], decoding=GREEDY, seed=0)


class Says:
    """Draws the given text's tokens."""

    def __init__(self, encoder, *texts):
        self.encoder, self.texts, self.asked = encoder, texts, []

    def forced(self, prompts, answers, **options):
        self.asked.append((prompts, answers, options))
        ids = [tuple(self.encoder.text_tokens(row, text)[0]) for row, text in zip(prompts, self.texts, strict=True)]
        return [Sampled(self.encoder.decode(some), some, False) for some in ids]


@pytest.mark.parametrize(
    ("reference", "said", "marked"),
    [
        ("There is a dog.", "There is a dog.", []),
        ("There is a dog.", "There is a cow.", ["cow"]),
        ("There is a dog.", "No is no dog.", ["No", "no"]),
        ("There is a dog.", "No", ["No"]),
        ("There is a dog.", "There is a", []),
        ("狗 is a dog.", "猫 is a cow.", ["猫", "cow"]),
        ("狗 is here.", "猗 is here.", ["猗"]),  # three bytes, three tokens: the second differs
        ("dog", "", []),
    ],
)  # fmt: skip
def test_spans_are_where_tokens_differ(policy, reference, said, marked):
    writer = Says(policy.encoder, said)
    [written] = TokenForced().write(
        writer, PROMPTS[:1], [reference], sights=[Sight()], rngs=[np.random.default_rng(0)], seed=3, decoding=WARM
    )
    assert written.text == said
    assert [written.text[a:b].strip() for a, b in written.spans] == marked
    assert written.notes == {"cuts": [], "truncated": False}
    assert writer.asked == [(PROMPTS[:1], [reference], {"decoding": WARM, "seed": 3, "sights": [Sight()]})]


@pytest.mark.parametrize("decoding", [GREEDY, WARM])
def test_distortion_as_a_negative(policy, decoding):
    method = Hallucinate(Masked(0.9), TokenForced(), Always(), rounds=1, decoding=decoding)
    rows = [PROMPTS[0], PROMPTS[3]]
    made = method(policy, rows, [CHOSEN, REJECTED], seed=0)
    alone = [method(policy, [row], [text], seed=0)[0] for row, text in zip(rows, [CHOSEN, REJECTED], strict=True)]
    assert made == alone
    for negative in made:
        assert negative.guided
        assert negative.as_notes()["guidance"] == "token_forced"
        assert all(0 <= a < b <= len(negative.text) for a, b in negative.spans)
        assert negative.spans == tuple(sorted(negative.spans))
    assert made != replace(method, view=Clean())(policy, rows, [CHOSEN, REJECTED], seed=0)
