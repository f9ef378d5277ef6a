"""What the vision tower makes of pictures is kept: nothing changes but the work."""

import itertools

import numpy as np
import pytest
import torch

from test_families import GROUPS, LONG, OTHER, PICTURES, SHORT
from tiny import picture
from verisight.models import encoding
from verisight.models.fingerprint import tower_fingerprint
from verisight.models.reference import Reference
from verisight.models.stores import Disk, Memory, Recent
from verisight.models.tuning import LoraSettings
from verisight.negatives.pictures import Noised
from verisight.train.preference import Dpo, PreferenceStep
from verisight.types import Group, Pair, Prompt, UserError
from zoo import FAMILIES, tiny

NUM_PICTURES = sum(len(group.prompt.images) for group in GROUPS)
PAIRS = [
    Pair(Prompt("a", (PICTURES[0],), "Describe this image in detail."), LONG, (OTHER,), (1.0,)),
    Pair(Prompt("b", (), "What color is it?"), SHORT, (OTHER,), (1.0,)),
    Pair(Prompt("c", (PICTURES[1], PICTURES[2]), "Is there a cow in the image?"), OTHER, (SHORT, LONG), (0.5, 0.5)),
]


class Nothing:
    """A store that keeps nothing."""

    def get(self, key):
        return None

    def put(self, key, look):
        pass


STORES = {"recent": lambda _: Recent(), "memory": lambda _: Memory(), "disk": Disk}


def tuned(family, store, *, tune="full"):
    policy = tiny(family)
    policy.tune(LoraSettings(4, 8) if tune == "lora" else None, train_projector=True, seed=1)
    policy.keep_looks(store)
    return policy


def scores_and_grads(policy):
    scores = policy.score(GROUPS)
    weights = torch.linspace(0.5, 1.5, len(scores.logp_sum))
    grads = torch.autograd.grad((scores.logp_sum * weights).sum(), list(policy.trainable().values()), allow_unused=True)
    return scores, dict(zip(policy.trainable(), grads, strict=True))


@pytest.fixture
def work(monkeypatch):
    """Counts decoded pictures; `work.watch(policy)` counts calls of its tower too."""

    class Work:
        decoded = tower = 0

        def watch(self, policy):
            tower = policy.core.model.get_submodule(policy.family.tower)
            (tower.blocks[0] if policy.family.cut == "blocks" else tower).register_forward_hook(self._passed)
            return policy

        def _passed(self, module, inputs, output):
            # a replayed forward runs the hooks too, but answers with what was kept
            self.tower += "forward" not in vars(module)

    counted, load = Work(), encoding.load_image

    def counting(ref):
        counted.decoded += 1
        return load(ref)

    monkeypatch.setattr(encoding, "load_image", counting)
    return counted


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def live(family):
    """Scores and gradients with pictures through the tower at every call."""
    return scores_and_grads(tuned(family, Nothing()))


@pytest.mark.parametrize("name", STORES)
def test_kept_pictures_give_the_scores_and_gradients_of_live_ones(family, live, name, tmp_path, work):
    policy = work.watch(tuned(family, STORES[name](tmp_path)))
    made = scores_and_grads(policy)
    assert work.decoded == NUM_PICTURES
    passed = work.tower
    for scores, grads in (made, scores_and_grads(policy)):  # as they are put into the store, and out of it
        torch.testing.assert_close(scores.token_logp, live[0].token_logp, atol=1e-5, rtol=0)
        assert any(policy.is_projector(name) and grad.abs().max() > 0 for name, grad in grads.items())
        for one, grad in grads.items():
            expected = live[1][one]
            if expected is None:
                assert grad is None
                continue
            assert (grad - expected).norm() <= 1e-5 * expected.norm() + 1e-7, one
    assert (work.decoded, work.tower) == (NUM_PICTURES, passed)


def test_a_look_from_disk_is_the_one_that_was_put_there(family, tmp_path):
    policy = tuned(family, Disk(tmp_path))
    made = policy.vision.look(policy.core, [group.prompt for group in GROUPS])
    for look, group in zip(made, GROUPS, strict=True):
        read = Disk(tmp_path).get(policy.encoder.key(group.prompt))
        assert (read.ids, read.num_image_tokens, read.pixel_shape) == (
            look.ids,
            look.num_image_tokens,
            look.pixel_shape,
        )
        assert all(torch.equal(a, b) for a, b in zip(read.tower, look.tower, strict=True))
        assert {n: t.tolist() for n, t in read.fields.items()} == {n: t.tolist() for n, t in look.fields.items()}


@pytest.mark.parametrize("mode", ["adapter_off", "frozen_copy"])
def test_a_picture_is_decoded_and_passes_the_tower_once_a_step(family, mode, work):
    """Policy and reference, chosen and rejected answers together."""
    policy = tuned(family, Recent(), tune="lora")
    alone = work.watch(tiny(family))
    alone.vision.look(alone.core, [pair.prompt for pair in PAIRS])
    expected, work.decoded, work.tower = work.tower, 0, 0
    step = PreferenceStep(work.watch(policy), Reference(policy, mode=mode), Dpo(0.1))
    step(PAIRS).loss.sum().backward()
    assert work.decoded == 3
    assert work.tower == expected


def by_ids(policy, prompt):
    return str(policy.encoder.prompt(prompt).ids)


@pytest.mark.parametrize("name", STORES)
def test_one_text_with_two_pictures_is_never_mixed_up(name, tmp_path, monkeypatch):
    groups = [Group(Prompt("same", (image,), "What is this?"), (SHORT,)) for image in (picture(0), picture(1))]
    expected = [tuned("llava", Nothing()).score([group]).logp_sum.item() for group in groups]

    def scored(folder):
        policy = tuned("llava", STORES[name](folder))
        return [policy.score([group]).logp_sum.item() for group in groups]

    assert scored(tmp_path / "right") == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3
    # the trap: placeholders have the same ids whatever the picture is
    monkeypatch.setattr(encoding.Encoder, "key", lambda self, prompt: f"{hash(self.prompt(prompt).ids):x}")
    assert scored(tmp_path / "trap") != pytest.approx(expected, abs=1e-5)


def test_disk_survives_a_restart_and_memory_does_not(tmp_path, work):
    stores = [Disk(tmp_path), Disk(tmp_path), Memory(), Memory()]
    passed = []
    for store in stores:
        policy = work.watch(tuned("qwen3_vl", store))
        before = work.decoded
        policy.score(GROUPS)
        passed.append(work.decoded - before)
    assert passed == [NUM_PICTURES, 0, NUM_PICTURES, NUM_PICTURES]


def test_looks_at_spoiled_pictures_are_not_kept(tmp_path, work):
    policy = work.watch(tuned("llava", Disk(tmp_path)))
    prompt = PAIRS[0].prompt
    spoiled = Noised(500).look(policy, [prompt], rngs=[np.random.default_rng(0)])[0].prompt
    policy.score([Group(spoiled, (LONG,)), Group(prompt, (LONG,))])
    assert [path.stem for path in files(tmp_path)] == [policy.encoder.key(prompt)]
    before = work.tower
    policy.score([Group(spoiled, (LONG,))])
    assert work.tower == before, "policy and reference still share a look"


def test_a_frozen_copy_looks_where_the_policy_keeps_its_looks_now(tmp_path, work):
    policy = work.watch(tuned("llava", Recent()))
    reference = Reference(policy, mode="frozen_copy")
    policy.keep_looks(Disk(tmp_path))
    reference.score(GROUPS)
    before = work.decoded
    policy.score(GROUPS)
    assert work.decoded == before
    assert files(tmp_path)


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("left", [0, 4, 60, -1])
def test_a_broken_file_is_an_error_with_its_name(left, tmp_path):
    policy = tuned("llava", Disk(tmp_path))
    policy.score(GROUPS[:1])
    [path] = files(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(UserError, match=rf"{path.name}: not readable .*; accepted: what was written, or no file"):
        policy.score(GROUPS[:1])


def test_a_file_of_something_else_is_an_error(tmp_path):
    from safetensors.torch import save_file

    policy = tuned("llava", Disk(tmp_path))
    policy.score(GROUPS[:1])
    save_file({"ids": torch.zeros(3)}, files(tmp_path)[0])
    with pytest.raises(UserError, match="safetensors: lacks num_image_tokens, pixel_shape; accepted"):
        policy.score(GROUPS[:1])


def test_a_half_written_file_is_not_read(tmp_path, monkeypatch, work):
    class Killed(Exception):
        pass

    def dies(source, target):
        raise Killed

    policy = tuned("llava", Disk(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("verisight.models.stores.os.replace", dies)
        with pytest.raises(Killed):
            policy.score(GROUPS[:1])
    assert files(tmp_path) == []
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    expected = tuned("llava", Nothing()).score(GROUPS[:1]).logp_sum
    torch.testing.assert_close(tuned("llava", Disk(tmp_path)).score(GROUPS[:1]).logp_sum, expected, atol=1e-5, rtol=0)


def nudge(policy, wanted):
    name, weight = next((n, w) for n, w in policy.core.named_parameters() if wanted(n))
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
    return name


def test_a_towers_fingerprint_is_its_own(family):
    """The same with an adapter or without, whatever the projector and the language model learn; not after a change."""
    plain = tiny(family)
    first = tower_fingerprint(plain)
    lora, full = tuned(family, Nothing(), tune="lora"), tuned(family, Nothing())
    inside = f".{plain.family.tower}."
    assert tower_fingerprint(lora) == tower_fingerprint(full) == first
    for policy in (plain, lora, full):
        policy.score(GROUPS[:1])
        nudge(policy, lambda name: plain.is_projector(name) and "original_module" not in name)
        nudge(policy, lambda name: f".{plain.family.language}." in name)
        assert tower_fingerprint(policy) == first
        nudge(policy, lambda name: inside in name and not plain.is_projector(name))
        assert tower_fingerprint(policy) != first


def test_a_towers_fingerprint_changes_with_the_processor_and_the_number_format():
    def changed(change):
        policy = tiny("llava")
        change(policy)
        return tower_fingerprint(policy)

    found = [
        changed(lambda policy: None),
        changed(lambda policy: setattr(policy.encoder.processor, "chat_template", "{{ messages }}")),
        changed(lambda policy: setattr(policy.encoder.processor.image_processor, "image_mean", [0.5, 0.5, 0.5])),
        changed(lambda policy: policy.encoder.tokenizer.add_tokens(["zebra"])),
        changed(lambda policy: policy.model.to(torch.bfloat16)),
        changed(lambda policy: setattr(policy.core.config, "vision_feature_layer", -1)),
    ]
    assert all(one != two for one, two in itertools.combinations(found, 2))
    assert changed(lambda policy: None) == found[0]
