"""Algorithm 1, with a policy that records what it is asked, and with the tiny one."""

from dataclasses import replace

import numpy as np
import pytest

from tiny import CHOSEN, REJECTED, picture, prompt, tiny_policy
from verisight.models.hiding import Sight
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always, Dissimilar
from verisight.negatives.guidance import Free, SentenceGuided, Written, begin_sentences, split_sentences, swap_yes_no
from verisight.negatives.views import Clean, Masked
from verisight.types import Decoding, Sampled, UserError

PROMPTS = [prompt(i) for i in range(3)]
REFERENCES = [CHOSEN, REJECTED, "Yes, there is a dog. Nothing there is big."]


class Scripted:
    """Finishes every sentence with a rabbit, answers freely with a horse, and remembers its calls."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.branches, self.samples = [], []

    def num_image_tokens(self, prompts):
        return [16] * len(prompts)

    def branch(self, prompts, prefixes, **options):
        self.branches.append({"uids": [p.uid for p in prompts], "prefixes": prefixes} | options)
        ids = tuple(self.encoder.text_tokens(prompts[0], "a rabbit.")[0])
        return [[Sampled("a rabbit.", ids, False) for _ in row] for row in prefixes]

    def sample(self, prompts, **options):
        self.samples.append({"uids": [p.uid for p in prompts]} | options)
        return [[Sampled(f"A horse for {p.uid}.", (), False)] for p in prompts]


class KeptIn:
    """Keeps a candidate in the given round of its reference; similarity 0.99 until then, 0.5 from there on."""

    notes = {"encoder": "scripted", "eps": 0.97}  # noqa: RUF012

    def __init__(self, rounds):
        self.rounds, self.seen = rounds, dict.fromkeys(rounds, 0)

    def keep(self, references, candidates):
        for reference in references:
            self.seen[reference] += 1
        kept = np.array([self.seen[r] >= self.rounds[r] for r in references])
        return kept, np.where(kept, 0.5, 0.99)


@pytest.fixture(scope="module")
def tiny():
    return tiny_policy()


@pytest.fixture
def scripted(tiny):
    return Scripted(tiny.encoder)


def never(*references):
    return KeptIn(dict.fromkeys(references, 99))


def algorithm1(check, **changes):
    return Hallucinate(view=Masked(0.5), guidance=SentenceGuided(yes_no_swap=0.0), check=check, **changes)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (CHOSEN, ["The image shows a farm.", "There is a dog in the top left.", "In the center there is a cow."]),
        ("It costs 3.5 dollars! Really?! Yes", ["It costs 3.5 dollars!", "Really?!", "Yes"]),
        ("  one\ntwo.\n\nThree...  ", ["one\ntwo.", "Three..."]),
        ("www.a.b", ["www.a.b"]),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert [text[first:end] for first, end in split_sentences(text)] == sentences


@pytest.mark.parametrize(
    ("sentence", "swapped"),
    [
        ("Yes, there is.", "No, there is."),
        ("no", "yes"),
        ("  No. No dog.", "  Yes. No dog."),
        ("yes!", "no!"),
        *((same, same) for same in ("Nothing there.", "Not sure.", "Northern.", "Yesterday.", "A dog. No.", "NO")),
    ],
)  # fmt: skip
def test_yes_and_no_are_swapped_as_whole_first_words_only(sentence, swapped):
    assert swap_yes_no(sentence) == swapped


def test_every_prefix_is_the_true_previous_sentences_and_a_beginning(scripted):
    made = algorithm1(Always(), rounds=1)(scripted, PROMPTS, REFERENCES, seed=0)
    [call] = scripted.branches
    for row, reference, negative, prefixes in zip(PROMPTS, REFERENCES, made, call["prefixes"], strict=True):
        sentences, endings = [reference[first:end] for first, end in split_sentences(reference)], []
        for k, prefix in enumerate(prefixes):
            whole = scripted.encoder.text_tokens(row, " ".join(sentences[: k + 1]))[0]
            before = scripted.encoder.text_tokens(row, " ".join(sentences[:k]))[0] if k else []
            assert list(prefix) == whole[: len(prefix)]
            assert len(before) < len(prefix) < len(whole)
            endings.append(f"{scripted.encoder.decode(prefix[len(before) :])} a rabbit.")
        assert negative.text == " ".join(endings)


def test_paragraphs_stay_in_prefixes_and_in_the_negative(scripted):
    reference = "There is a dog.\n\nThere is a cow.\n\nThere is a bus."
    [made] = algorithm1(Always(), rounds=1)(scripted, PROMPTS[:1], [reference], seed=0)
    assert made.text.count("\n\n") == 2
    [call] = scripted.branches
    [prefixes] = call["prefixes"]
    assert [scripted.encoder.tokenizer.decode(list(prefix)).count("\n\n") for prefix in prefixes] == [0, 1, 2]


def test_cuts_fall_everywhere_but_leave_a_token_on_both_sides(scripted):
    ids, _ = scripted.encoder.text_tokens(PROMPTS[0], "There is a dog.")
    lengths = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        [beginning] = begin_sentences(scripted, PROMPTS[0], "There is a dog.", yes_no_swap=0.5, rng=rng)
        assert beginning.sentence_start == 0
        lengths.add(len(beginning.ids))
    assert lengths == set(range(1, len(ids)))
    [single] = begin_sentences(scripted, PROMPTS[0], "dog", yes_no_swap=0.5, rng=np.random.default_rng(0))
    assert single.ids == tuple(scripted.encoder.text_tokens(PROMPTS[0], "dog")[0])


@pytest.mark.parametrize(("swap", "low", "high"), [(0.0, 0, 0), (1.0, 200, 200), (0.5, 80, 120)])
def test_the_swap_happens_with_its_probability_and_not_in_the_true_sentences(scripted, swap, low, high):
    text, num = "Yes, it is a dog. It is not a cat. Nothing there is big.", 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second, third = begin_sentences(scripted, PROMPTS[0], text, yes_no_swap=swap, rng=rng)
        told = scripted.encoder.decode(first.ids)
        assert told.startswith(("Yes", "No"))
        num += told.startswith("No")
        for later in (second, third):
            assert scripted.encoder.decode(later.ids).startswith("Yes, it is a dog.")
        assert "Nothing".startswith(scripted.encoder.decode(third.ids[third.sentence_start :])[:7])
    assert low <= num <= high


def test_rounds_take_up_the_unresolved_with_new_masks_and_cuts_and_end_unguided(scripted):
    check = KeptIn({REFERENCES[0]: 1, REFERENCES[1]: 3, REFERENCES[2]: 99})
    method = algorithm1(check, rounds=4, decoding=Decoding(temperature=0.8, top_p=0.9), free=Free(77))
    made = method(scripted, PROMPTS, REFERENCES, seed=5)
    assert [call["uids"] for call in scripted.branches] == [
        ["row0", "row1", "row2"],
        ["row1", "row2"],
        ["row1", "row2"],
    ]
    assert [call["uids"] for call in scripted.samples] == [["row2"]]
    assert [(n.round, n.guided, n.similarity) for n in made] == [(1, True, 0.5), (3, True, 0.5), (4, False, 0.99)]
    assert made[2].text == "A horse for row2."
    calls = [*scripted.branches, *scripted.samples]
    masks = [tuple(call["sights"][-1].keep) for call in calls]  # row2, once a round
    assert len(set(masks)) == 4
    assert len({tuple(sight.keep) for sight in scripted.branches[0]["sights"]}) == 3
    assert len({str(call["prefixes"][-1]) for call in scripted.branches}) > 1
    assert len({call["seed"] for call in calls}) == 4
    budgets = [SentenceGuided().max_new_tokens] * 3 + [77]
    assert [call["decoding"] for call in calls] == [Decoding(n, 0.8, 0.9) for n in budgets]


def test_a_single_round_is_guided_and_taken_whatever_its_similarity(scripted):
    made = algorithm1(never(*REFERENCES), rounds=1)(scripted, PROMPTS, REFERENCES, seed=0)
    assert not scripted.samples
    assert [(n.round, n.guided, n.similarity) for n in made] == [(1, True, 0.99)] * 3


def test_free_writing_is_never_called_guided(scripted):
    method = Hallucinate(view=Clean(), guidance=Free(9), check=never(*REFERENCES), rounds=2, free=Free(8))
    made = method(scripted, PROMPTS, REFERENCES, seed=0)
    assert [(n.round, n.guided) for n in made] == [(2, False)] * 3
    assert [call["decoding"].max_new_tokens for call in scripted.samples] == [9, 8]
    assert Hallucinate(view=Clean(), guidance=Free(), check=Always(), rounds=1)(
        scripted, PROMPTS, REFERENCES, seed=0
    )[0].guided is False  # fmt: skip


@pytest.mark.parametrize("rounds", [1, 2])
def test_what_was_not_written_is_tried_again_and_never_kept(scripted, rounds):
    """A row given up by its writer has nothing to compare, whatever the check says of the empty text."""

    class GivesUp:
        kind = "gives_up"

        def write(self, policy, prompts, references, **options):
            return [Written("", (), {"problem": "a refusal"})] * len(prompts)

    method = Hallucinate(view=Clean(), guidance=GivesUp(), check=Always(), rounds=rounds)
    made = method(scripted, PROMPTS, REFERENCES, seed=0)
    assert [one.round for one in made] == [rounds] * 3
    assert ["problem" in one.notes for one in made] == [rounds == 1] * 3


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: algorithm1(Always(), rounds=0), "rounds: found 0"),
        (lambda: algorithm1(Always())(None, PROMPTS, REFERENCES, seed=-1), "seed: found -1"),
        (lambda: SentenceGuided(yes_no_swap=2), "yes_no_swap: found 2"),
        (lambda: SentenceGuided(yes_no_swap=-1), "yes_no_swap: found -1"),
        (lambda: SentenceGuided(yes_no_swap=float("nan")), "yes_no_swap: found nan"),
    ],
)
def test_settings_out_of_range_are_told(make, problem):
    with pytest.raises(UserError, match=problem):
        make()


class Angles:
    """Encodes "a" as the unit vector at a degrees."""

    def encode(self, texts, *, normalize_embeddings, show_progress_bar):
        assert normalize_embeddings
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_dissimilar_compares_row_by_row():
    kept, similarity = Dissimilar(Angles(), eps=0.97).keep(["0", "90", "30"], ["0", "30", "32"])
    assert similarity == pytest.approx([1, 0.5, np.cos(np.radians(2))])
    assert kept.tolist() == [False, True, False]


class Lengths:
    """Encodes every text as (x, 0) with x the number it is."""

    def encode(self, texts, *, normalize_embeddings, show_progress_bar):
        return np.array([[float(text), 0.0] for text in texts])


def test_similarities_count_to_six_digits():
    kept, similarity = Dissimilar(Lengths(), eps=0.5).keep(["1", "1"], ["0.4999999", "0.499999"])
    assert similarity.tolist() == [0.5, 0.499999]
    assert kept.tolist() == [False, True]


def test_the_threshold_of_dissimilar_is_strict():
    """Similarities count to six digits: what else is in a batch moves the seventh."""
    assert Dissimilar(Angles(), eps=0.5).keep(["0"], ["60"])[0].tolist() == [False]
    assert Dissimilar(Angles(), eps=0.500001).keep(["0"], ["60"])[0].tolist() == [True]


def test_always_keeps_and_measures_nothing():
    kept, similarity = Always().keep(["a", "b"], ["a", "c"])
    assert kept.all()
    assert np.isnan(similarity).all()


def test_views():
    rngs = [np.random.default_rng(0)]
    first, second = (Masked(0.5, "compact").look(Scripted(None), PROMPTS[:1], rngs=rngs)[0] for _ in range(2))
    assert first.sight.positions == "compact"
    assert first.sight.keep.shape == (16,)
    assert (first.sight.keep != second.sight.keep).any()
    assert first.notes == {"kind": "masked", "kept": int(first.sight.keep.sum()), "of": 16}
    [clean] = Clean().look(Scripted(None), PROMPTS[:1], rngs=rngs)
    assert (clean.prompt, clean.sight) == (PROMPTS[0], Sight())


TINY = Hallucinate(
    view=Masked(0.5), guidance=SentenceGuided(max_new_tokens=8), check=never(*REFERENCES), rounds=2, free=Free(12)
)
TINY_GUIDED = replace(TINY, rounds=1)


@pytest.mark.parametrize("method", [TINY, TINY_GUIDED])
def test_negatives_do_not_depend_on_the_batch(tiny, method):
    whole = method(tiny, PROMPTS, REFERENCES, seed=3)
    alone = [method(tiny, [p], [r], seed=3)[0] for p, r in zip(PROMPTS, REFERENCES, strict=True)]
    assert whole == alone == method(tiny, PROMPTS[::-1], REFERENCES[::-1], seed=3)[::-1]
    assert whole != method(tiny, PROMPTS, REFERENCES, seed=4)
    renamed = [replace(p, uid=f"{p.uid}x") for p in PROMPTS]
    assert whole != method(tiny, renamed, REFERENCES, seed=3)


@pytest.mark.parametrize("method", [TINY, TINY_GUIDED])
def test_with_everything_hidden_the_picture_does_not_matter(method):
    policy = tiny_policy()
    policy.core.model.multi_modal_projector.linear_2.weight.data.mul_(30)
    looks = [[replace(p, images=(picture(seed + i),)) for i, p in enumerate(PROMPTS)] for seed in (0, 50)]
    for view, same in ((Masked(1.0), True), (Masked(0.0), False), (Clean(), False)):
        first, second = (replace(method, view=view)(policy, rows, REFERENCES, seed=0) for rows in looks)
        assert (first == second) == same


def test_the_swapped_word_is_what_the_policy_continues(tiny):
    method = replace(TINY_GUIDED, guidance=SentenceGuided(yes_no_swap=1.0, max_new_tokens=1))
    [negative] = method(tiny, PROMPTS[:1], [REFERENCES[2]], seed=0)
    assert negative.text.startswith("No")
