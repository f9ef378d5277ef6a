"""`verisight plan`: its counts are those of real models, its FLOPs and bytes those of real steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, LlavaConfig

from tiny import pair, tiny_policy
from user_files import LORA, RECIPE, Outcome, finished, row, verisight
from verisight import recipe
from verisight.models.costs import MATH, Load, Setup, activations, memory, read_anatomy, shared, standard
from verisight.models.families import family_of
from verisight.models.pocket import build_model, build_processor, build_tokenizer
from verisight.models.policy import LoraSettings, Policy
from verisight.models.reference import Reference
from verisight.pocket.language import corpus
from verisight.study.plan import make_plan, tower_segments
from verisight.types import Group
from zoo import FAMILIES, tiny

GROUP = pair(0).group
SETUPS = {
    "lora": Setup(rank=4),
    "lora, frozen projector": Setup(rank=4, train_projector=False),
    "lora, checkpointed": Setup(rank=4, checkpointing=True),
    "full": Setup(rank=0, reference="frozen_copy"),
    "full, frozen projector": Setup(rank=0, train_projector=False, reference="frozen_copy"),
}


def tuned(policy: Policy, setup: Setup) -> Policy:
    """The policy, training what the setup says."""
    if setup.dtype == "bfloat16":
        policy.model.bfloat16()
    policy.tune(LoraSettings(setup.rank, 8) if setup.rank else None, train_projector=setup.train_projector)
    if setup.checkpointing:
        policy.checkpoint_gradients()
    return policy


def load_of(policy: Policy, group: Group, *, patch: tuple[int, int]) -> Load:
    """The group's token counts."""
    prompt = policy.encoder.prompt(group.prompt)
    answers = [policy.encoder.answer(group.prompt, answer) for answer in group.answers]
    lengths, supervised = [len(a.ids) for a in answers], [sum(a.supervised) for a in answers]
    return Load(len(prompt.ids), tower_segments(prompt.fields, patch=patch), tuple(lengths), tuple(supervised))


@pytest.mark.parametrize("name", SETUPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_flops_are_those_of_a_real_step(family: str, name: str) -> None:
    policy, setup = tiny(family), SETUPS[name]
    size = read_anatomy(policy.core, policy.family)
    assert size.num_weights == sum(p.numel() for p in policy.model.parameters())
    tuned(policy, setup)
    assert size.trainable(setup) == sum(p.numel() for p in policy.trainable().values())
    assert setup.reference != "none"
    assert setup.reference != "cached"
    reference = Reference(policy, mode=setup.reference)
    expected = shared(size, load_of(policy, GROUP, patch=size.patch), setup, kernel=MATH)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        policy.score([GROUP]).logp_sum.sum().backward()
        trained = counter.get_total_flops()
        reference.score([GROUP])
    assert expected.total == pytest.approx(counter.get_total_flops(), rel=0.03)
    assert expected.reference == pytest.approx(counter.get_total_flops() - trained, rel=0.06)


@pytest.mark.parametrize("rank", [0, 4])
def test_standard_flops_are_those_of_whole_rows(rank: int) -> None:
    policy, setup = tiny_policy(), Setup(rank=rank, train_projector=True, reference="none")
    size = read_anatomy(policy.core, policy.family)
    core = tuned(policy, setup).core
    prompt = policy.encoder.prompt(GROUP.prompt)
    rows = [[*prompt.ids, *policy.encoder.answer(GROUP.prompt, answer).ids] for answer in GROUP.answers]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for ids in rows:
            pixels = prompt.fields["pixel_values"]
            core(input_ids=torch.tensor([ids]), pixel_values=pixels, use_cache=False).logits.sum().backward()
    expected = standard(size, load_of(policy, GROUP, patch=size.patch), setup, kernel=MATH)
    assert expected.total == pytest.approx(counter.get_total_flops(), rel=0.03)


# TFLOPs of a pair with Vicuna-7B and CLIP-L/336, worked out by hand: standard, ours, ours with a cached reference
SEVEN = [
    ((600, 100, 1), (58.2, 32.4, 21.8)),
    ((2940, 100, 5), (270.6, 135.7, 92.4)),
    ((2940, 20, 5), (263.2, 128.2, 87.3)),
]


@pytest.mark.parametrize(("tokens", "figures"), SEVEN)
def test_seven_billion_weights_cost_what_was_worked_out_by_hand(
    tokens: tuple[int, int, int], figures: tuple[float, ...]
) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(LlavaConfig())
    size = read_anatomy(model, family_of("llava"))
    assert size.num_weights == pytest.approx(7.06e9, rel=1e-3)
    prompt, answer, tiles = tokens
    load = Load(prompt, (576,) * tiles, (answer, answer), (answer, answer))
    live, stored = Setup(rank=1, train_projector=False), Setup(rank=1, train_projector=False, reference="cached")
    found = (standard(size, load, live), shared(size, load, live), shared(size, load, stored))
    assert [one.total / 1e12 for one in found] == pytest.approx(figures, rel=0.01)


class Live(TorchDispatchMode):
    """The most bytes that were alive at once of what was computed inside."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.most = 0
        self._given = {w.untyped_storage()._cdata for w in policy.model.parameters()}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._given:
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: one for key, one in self._alive.items() if not one[0].expired()}
        self.most = max(self.most, sum(num for _, num in self._alive.values()))
        return made


def wide() -> Policy:
    """A model in which layers, not logits, take the memory."""
    tokenizer = build_tokenizer(corpus())
    model = build_model(
        tokenizer, image_size=32, patch_size=4, vision_width=32, vision_layers=1, width=128, layers=6
    )  # fmt: skip
    return Policy(model, build_processor(tokenizer, image_size=32, patch_size=4))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_of_a_backward_pass_is_what_is_alive_in_it(dtype: str, checkpointing: bool) -> None:
    setup = Setup(dtype="float32" if dtype == "float32" else "bfloat16", rank=8, checkpointing=checkpointing)
    policy = wide()
    size = read_anatomy(policy.core, policy.family)
    load = load_of(policy, GROUP, patch=size.patch)
    tuned(policy, setup).score([GROUP]).logp_sum.sum().backward()  # gradients exist, the pictures are kept
    with Live(policy) as live:
        policy.score([GROUP]).logp_sum.sum().backward()
    (scored, *_) = memory(size, [load], setup).phases
    assert sum(scored.values()) == pytest.approx(live.most, rel=0.15)


@pytest.mark.parametrize("rank", [0, 8])
def test_activations_are_what_autograd_saves(rank: int) -> None:
    setup, policy = Setup(rank=rank, reference="none"), wide()
    size = read_anatomy(policy.core, policy.family)
    load = load_of(policy, GROUP, patch=size.patch)
    tuned(policy, setup).score([GROUP])
    given = {w.untyped_storage()._cdata for w in policy.model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in given:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = policy.score([GROUP])
    assert activations(size, load, setup).kept == pytest.approx(sum(saved.values()), rel=0.1)
    scores.logp_sum.sum().backward()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe for a folder of real 7B sizes that holds config.json and a processor, and nothing else."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pictures" / "one.png")
    rows = [row(n, "one.png", ["<image>\nWhat is it?", "A cat. " * (n + 1)]) for n in range(4)]
    (tmp_path / "my rows.json").write_text(json.dumps(rows))
    (tmp_path / "instances.json").write_text("{}")
    tokenizer = build_tokenizer(corpus())
    build_processor(tokenizer, image_size=336, patch_size=14).save_pretrained(tmp_path / "seven")
    LlavaConfig(image_token_index=tokenizer.vocab["<image>"]).save_pretrained(tmp_path / "seven")
    assert not list((tmp_path / "seven").glob("*.safetensors"))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("path: pocket", "path: ./seven"))
    return tmp_path / "recipe.yaml"


def refused(*words: object) -> str:
    outcome: Outcome = verisight("plan", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Traceback" not in outcome.err
    return outcome.err


def test_a_folder_without_weights_is_planned(written: Path) -> None:
    out = finished("plan", written, LORA, "model.dtype=bfloat16").out
    assert "7,062.9 million weights" in out
    assert "no device to compare with" in out or torch.cuda.is_available()
    assert "do not exist yet" in out
    planned = json.loads(finished("plan", written, LORA, "model.dtype=bfloat16", "--json", "--rows", "2").out)
    assert planned["num_rows"] == 2
    assert planned["tokens"]["image"]["longest"] == 576
    assert planned["memory"]["held"]["weights that do not train"] == 2 * planned["num_weights"]
    assert 1.7 < planned["ratio"] < 2.1
    assert not list(written.parent.glob("run"))


def test_what_does_not_fit_is_said_with_what_helps(written: Path) -> None:
    loaded = recipe.load(written)
    tight = make_plan(loaded, limit_gib=64, rows=2)
    assert tight.fits is False
    *alone, together = tight.changes
    names = [change.settings for change in alone]
    assert {"model.dtype=bfloat16", "train.micro_batch_size=1", "train.gradient_checkpointing=true"} <= set(names)
    assert any("lora" in name for name in names)
    assert all(together.peak < change.peak <= tight.memory.peak for change in alone)
    assert together.settings == "all of these"
    assert together.fits
    assert make_plan(loaded, limit_gib=1000, rows=2).changes == ()
    assert "does not fit" in finished("plan", written, "--memory", 64).out


def test_rejected_answers_count_as_long_as_they_are(written: Path) -> None:
    sft = ("source.kind=offline", "source.data={kind: llava_instruct, file: my rows.json, images: pictures}")
    alone = make_plan(recipe.load(written, (*sft, "objective.kind=sft")), rows=4)
    both = make_plan(recipe.load(written), rows=4)
    prompt, answer = both.tokens["prompt, image included"].mean, both.tokens["answer"].mean
    assert alone.tokens["pair, prompt once (ours)"].mean == pytest.approx(prompt + answer)
    assert both.tokens["pair, prompt once (ours)"].mean == pytest.approx(prompt + 2 * answer)
    assert alone.shared.reference == alone.standard.reference == 0
    assert len(alone.assumptions) == len(both.assumptions) - 1


def test_what_is_cached_is_not_computed(written: Path) -> None:
    live = make_plan(recipe.load(written, [LORA]), rows=2)
    stored = make_plan(recipe.load(written, [LORA, "train.reference=cached", "train.image_features=disk"]), rows=2)
    assert stored.shared.reference == 0 < live.shared.reference
    assert stored.shared.vision < 0.5 * live.shared.vision
    assert stored.standard == live.standard
    assert stored.memory.peak < live.memory.peak


def test_an_adapter_is_planned_on_its_base(written: Path) -> None:
    adapter = written.parent / "adapter"
    adapter.mkdir()
    for file in (written.parent / "seven").iterdir():
        if file.name != "config.json":
            (adapter / file.name).write_bytes(file.read_bytes())
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(written.parent / "seven")}))
    found = make_plan(recipe.load(written, ["model.path=./adapter"]), rows=1)
    assert found.num_weights == make_plan(recipe.load(written), rows=1).num_weights


def test_what_cannot_be_planned_is_refused(written: Path) -> None:
    assert "did you mean" in refused(written, "train.bach_size=3")
    assert "accepted: grouped" in refused(written, "train.scoring=padded")
    everywhere = "model.tune={kind: lora, targets: all}"
    assert "accepted: language" in refused(written, everywhere, "model.train_projector=false")
    config = written.parent / "seven" / "config.json"
    config.write_text(json.dumps({"model_type": "mllama"}))
    assert "cross-attention" in refused(written)
    config.unlink()
    assert "does not open" in refused(written)
    assert "nowhere" in refused(written, "model.path=./nowhere")
