"""The reference on disk: the very numbers of the live one, for this model, these answers and these pictures only."""

import json
from dataclasses import replace

import pytest
import torch

from test_families import LONG, OTHER, PICTURES, SHORT
from tiny import pair, picture, tiny_policy
from verisight.data.files import read_jsonl
from verisight.models.fingerprint import reference_fingerprint
from verisight.models.loading import load_model
from verisight.models.policy import Policy
from verisight.models.reference import Reference, open_reference, store_reference
from verisight.models.tuning import LoraSettings
from verisight.sources.offline import Offline
from verisight.train.loop import Optimization, fit
from verisight.train.preference import Dpo, PreferenceStep
from verisight.types import Answer, Group, ImageRef, Pair, Prompt, UserError
from zoo import FAMILIES, tiny

PAIRS = [
    Pair(Prompt("a", (PICTURES[0],), "Describe this image in detail."), LONG, (OTHER,), (1.0,)),
    Pair(Prompt("b", (), "What color is it?"), SHORT, (OTHER,), (1.0,)),
    Pair(Prompt("c", (PICTURES[1], PICTURES[2]), "Is there a cow in the image?"), OTHER, (SHORT, LONG), (0.5, 0.5)),
]
GROUPS = [one.group for one in PAIRS]
LORA = LoraSettings(4, 8)


def tuned(policy, tune="lora"):
    policy.tune(LORA if tune == "lora" else None, train_projector=True, seed=1)
    return policy


def store(policy, file, groups=GROUPS, *, batch_size=2):
    done = []
    stored = store_reference(policy, groups, file, batch_size=batch_size, advance=lambda n=1, note="": done.append(n))
    assert sum(done) == len(groups)
    return stored


def move(policy):
    """As after some training: every trainable weight somewhere else."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(torch.randn(weight.shape, generator=random) * 0.05)


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_three_references_give_the_same_losses_and_gradients(family, tune, tmp_path):
    policy = tuned(tiny(family), tune)
    references = [store(policy, tmp_path / "reference.jsonl"), Reference(policy, mode="frozen_copy")]
    if tune == "lora":
        references.append(Reference(policy, mode="adapter_off"))
    move(policy)
    losses, grads = [], []
    for reference in references:
        loss = PreferenceStep(policy, reference, Dpo(0.2))(PAIRS).loss
        losses.append(loss)
        grads.append(torch.autograd.grad(loss.sum(), list(policy.trainable().values()), allow_unused=True))
    assert losses[0].std() > 1e-3
    for loss, grad in zip(losses[1:], grads[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], atol=1e-5, rtol=1e-5)
        for one, expected in zip(grad, grads[0], strict=True):
            assert (one is None) == (expected is None)
            if one is not None:
                torch.testing.assert_close(one, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_numbers_are_the_live_ones_bit_for_bit(dtype, tmp_path):
    policy, file = tiny_policy(), tmp_path / "kept" / "reference.jsonl"
    policy.model.to(dtype)
    tuned(policy)
    stored = store(policy, file, batch_size=len(GROUPS))
    live = Reference(policy, mode="adapter_off").score(GROUPS)
    assert equal(stored.score(GROUPS), live)
    assert equal(open_reference(policy, file).score(GROUPS), live)
    assert [tensor.dtype for tensor in stored.score(GROUPS)] == [tensor.dtype for tensor in live]
    turned = stored.score([GROUPS[2], GROUPS[0]])  # found by what they are, not by where they stand
    assert turned.logp_sum.tolist() == [*live.logp_sum[4:].tolist(), *live.logp_sum[:2].tolist()]
    assert turned.token_logp.split(turned.num_tokens.tolist())[4].sum().item() == pytest.approx(live.logp_sum[1].item())


def test_the_file_says_what_it_is(tmp_path):
    store(tuned(tiny_policy()), tmp_path / "r.jsonl")
    header, *rows = read_jsonl(tmp_path / "r.jsonl")
    assert header["format"] == 1
    assert set(header["fingerprint"]) == {
        "weights", "dtype", "scoring", "configuration", "tokenizer", "chat template", "image processor",
    }  # fmt: skip
    assert [row["uid"] for row in rows] == ["a", "b", "c"]
    assert all(set(row) == {"group", "uid", "logp_sum", "num_tokens", "token_logp"} for row in rows)


def nudged(wanted):
    def change(policy):
        with torch.no_grad():
            next(w for n, w in policy.core.named_parameters() if wanted in n).view(-1)[0] += 1e-3

    return change


CHANGES = [
    ("weights", nudged("q_proj")),
    ("weights", nudged("vision_tower")),
    ("weights", nudged("original_module")),
    ("weights and dtype", lambda policy: policy.model.to(torch.float64)),
    ("weights and dtype and scoring", lambda policy: policy.core.model.vision_tower.to(torch.bfloat16)),
    ("scoring", lambda policy: setattr(policy, "scoring", "padded")),
    ("configuration", lambda policy: setattr(policy.core.config.text_config, "rms_norm_eps", 1e-5)),
    ("tokenizer", lambda policy: policy.encoder.tokenizer.add_tokens(["zebra"])),
    (
        "chat template",
        lambda policy: setattr(policy.encoder.processor, "chat_template", policy.encoder.processor.chat_template + " "),
    ),
    (
        "image processor",
        lambda policy: setattr(policy.encoder.processor.image_processor, "image_mean", [0.5, 0.5, 0.5]),
    ),
    ("image processor", lambda policy: setattr(policy.encoder.processor, "vision_feature_select_strategy", "full")),
]


@pytest.mark.parametrize(("component", "change"), CHANGES, ids=range(len(CHANGES)))
def test_what_changed_has_a_name(component, change, tmp_path):
    file, policy = tmp_path / "r.jsonl", tuned(tiny_policy())
    store(policy, file)
    before = file.read_bytes()
    change(policy)
    remedy = r"\); delete the file, or name another folder as train\.cache"
    expected = rf"{file}: reference log-probs of another {component} \(stored: .*{remedy}$"
    with pytest.raises(UserError, match=expected):
        open_reference(policy, file)
    with pytest.raises(UserError, match=expected):
        store(policy, file)
    assert file.read_bytes() == before


def test_a_freshly_drawn_adapter_does_not_count_and_neither_does_scoring(tmp_path):
    plain = tiny_policy()
    first = reference_fingerprint(plain)
    for policy in (tuned(tiny_policy()), tuned(tiny_policy(), "full")):
        assert reference_fingerprint(policy) == first
    everywhere = tiny_policy()
    everywhere.tune(LoraSettings(2, 4, "all"), train_projector=False, seed=9)
    assert reference_fingerprint(everywhere) == first
    plain.score(GROUPS)
    words = plain.encoder.tokenizer.backend_tokenizer
    before = words.to_str()
    plain.encoder.tokenizer(["Is it?", "What?"], padding=True)
    assert words.to_str() != before  # it remembers how it padded last
    assert reference_fingerprint(plain) == first
    move(everywhere)
    assert reference_fingerprint(everywhere) == first  # nor what it learns: the reference is the model below it


def test_a_model_opened_from_its_folder_is_the_same_and_an_adapter_folder_is_part_of_the_weights(tmp_path):
    plain = tiny_policy()
    plain.save(tmp_path / "base")
    again = Policy(*load_model(str(tmp_path / "base"), dtype="float32"))
    assert reference_fingerprint(again) == reference_fingerprint(plain)
    again.tune(LORA, train_projector=False, base_name=str(tmp_path / "base"), seed=1)
    move(again)
    again.save(tmp_path / "adapter")
    opened = tuned(Policy(*load_model(str(tmp_path / "adapter"), dtype="float32")))
    found, first = reference_fingerprint(opened), reference_fingerprint(plain)
    assert {name for name in first if first[name] != found[name]} == {"weights"}


def test_a_changed_answer_question_or_picture_is_an_error(tmp_path):
    shown = tmp_path / "shown.png"
    shown.write_bytes(picture(0).data)
    group = Group(Prompt("row 7", (ImageRef(path=shown),), "What is this?"), (SHORT, LONG))
    stored = store(tuned(tiny_policy()), tmp_path / "r.jsonl", [group])
    assert len(stored.score([group]).logp_sum) == 2
    for changed in (
        replace(group, answers=(SHORT, Answer(LONG.text + " Really."))),
        replace(group, answers=(LONG, SHORT)),
        replace(group, prompt=replace(group.prompt, text="What is that?")),
        replace(group, prompt=replace(group.prompt, images=())),
    ):
        with pytest.raises(UserError, match=r"r\.jsonl: holds no reference log-probs of row 'row 7' as it is now"):
            stored.score([changed])
    shown.write_bytes(picture(1).data)
    with pytest.raises(UserError, match=r"row 'row 7' as it is now .*pictures"):
        stored.score([group])


def test_names_do_not_matter_and_a_group_is_scored_once(tmp_path):
    policy = tuned(tiny_policy())
    renamed = [replace(one, prompt=replace(one.prompt, uid="other")) for one in GROUPS]
    stored = store(policy, tmp_path / "r.jsonl", [*GROUPS, *renamed])
    assert len(read_jsonl(tmp_path / "r.jsonl")) == 1 + len(GROUPS)
    assert equal(stored.score(renamed), stored.score(GROUPS))


class Killed(Exception):
    pass


@pytest.mark.parametrize("left", ["whole lines", "half a line", "half a header"])
def test_a_killed_file_is_continued_and_only_the_rest_is_scored(left, tmp_path, monkeypatch):
    policy, file = tuned(tiny_policy()), tmp_path / "r.jsonl"
    expected = store(policy, tmp_path / "whole.jsonl", batch_size=1).score(GROUPS)
    scored, score = [], Policy.score

    def counting(self, groups):
        if len(scored) == 2:
            raise Killed
        scored.append([group.prompt.uid for group in groups])
        return score(self, groups)

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "score", counting)
        with pytest.raises(Killed):
            store(policy, file, batch_size=1)
    cut = {"whole lines": None, "half a line": -40, "half a header": 30}[left]
    file.write_bytes(file.read_bytes()[:cut])
    kept = {"whole lines": ["a", "b"], "half a line": ["a"], "half a header": []}[left]
    scored.clear()
    monkeypatch.setattr(Policy, "score", lambda self, gs: scored.extend(g.prompt.uid for g in gs) or score(self, gs))
    assert equal(store(policy, file, batch_size=1).score(GROUPS), expected)
    assert scored == [uid for uid in "abc" if uid not in kept]
    scored.clear()
    store(policy, file)
    assert scored == []


def test_a_batch_torn_by_a_kill_ends_with_the_same_file(tmp_path):
    policy, whole, torn = tuned(tiny_policy()), tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    store(policy, whole, batch_size=3)
    for num_lines in (1, 2, 3, 4):
        torn.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:num_lines]))
        store(policy, torn, batch_size=3)
        assert torn.read_bytes() == whole.read_bytes()


BREAKS = [
    (lambda lines: [lines[0], lines[1][:-9], *lines[2:]], "line 2: .*; each line is one JSON object"),
    (lambda lines: [lines[0], json.dumps({"group": "x"}), *lines[2:]], r"line 2: not what was written \(KeyError"),
    (lambda lines: [*lines[:2], lines[2].replace("[", "[1.0, ", 1), lines[3]], "line 3: its counts do not fit"),
    (lambda lines: [lines[0].replace('"format": 1', '"format": 2'), *lines[1:]], "line 1: no header of .* format 1"),
    (lambda lines: lines[1:], "line 1: no header"),
]


@pytest.mark.parametrize(("breaks", "message"), BREAKS)
def test_a_broken_file_is_an_error_with_its_line(breaks, message, tmp_path):
    policy, file = tuned(tiny_policy()), tmp_path / "r.jsonl"
    store(policy, file)
    file.write_text("\n".join(breaks(file.read_text().splitlines())) + "\n")
    for use in (open_reference, store):
        with pytest.raises(UserError, match=f"r.jsonl: {message}"):
            use(policy, file)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl: cannot be read"):
        open_reference(tiny_policy(), tmp_path / "none.jsonl")


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_training_with_stored_log_probs_ends_with_the_same_weights(tune, tmp_path):
    pairs = [pair(i) for i in range(5)]
    settings = Optimization(steps=4, batch_size=4, lr=1e-3, projector_lr=3e-3)

    def trained(name):
        policy = tuned(tiny_policy(), tune)
        live = "adapter_off" if tune == "lora" else "frozen_copy"
        reference = Reference(policy, mode=live)
        if name == "stored":
            reference = store(policy, tmp_path / "r.jsonl", [one.group for one in pairs], batch_size=4)
        step = PreferenceStep(policy, reference, Dpo(0.2))
        fit(policy, Offline(pairs, seed=1), step, optimization=settings, folder=tmp_path / name, quiet=True)
        return {name: weight.detach() for name, weight in policy.trainable().items()}

    stored, live = trained("stored"), trained("live")
    start = tuned(tiny_policy(), tune).trainable()
    assert max((stored[name] - start[name]).abs().max() for name in start) > 1e-3
    # Adam divides by the gradient's size, so weights whose gradient is noise around 0 move by rounding errors
    moved = torch.cat([(stored[name] - live[name]).abs().flatten() for name in start])
    assert (moved > 1e-5).float().mean() < 1e-3
    assert moved.max() < 1e-3
