"""`verisight plan`: a recipe is planned from a folder without weights, and what is proposed is accepted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaConfig

from user_files import LORA, RECIPE, Outcome, finished, row, verisight
from verisight import recipe
from verisight.models.pocket import build_processor, build_tokenizer
from verisight.pocket.language import corpus
from verisight.study.plan import make_plan


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
    tight = make_plan(loaded, limit_gib=32, rows=2)
    assert tight.fits is False
    *alone, together = tight.changes
    lora = "'model.tune={kind: lora, r: 128, alpha: 256}'"
    assert {change.settings for change in alone} == {"model.dtype=bfloat16", "train.reference=cached", lora}
    assert all(together.peak < change.peak < tight.memory.peak for change in alone)
    assert (
        together.settings == f"train.micro_batch_size=1 train.gradient_checkpointing=true model.dtype=bfloat16 {lora}"
    )
    assert together.fits
    assert make_plan(loaded, limit_gib=1000, rows=2).changes == ()
    assert "does not fit" in finished("plan", written, "--memory", 64).out


COPIED = "train.reference=frozen_copy"
EVERYWHERE = ("model.tune={kind: lora, r: 4, targets: all}", "model.train_projector=false")


@pytest.mark.parametrize(
    "settings",
    [
        (),
        (COPIED,),
        (COPIED, LORA),
        ("source.when=online",),
        ("source.when=online", COPIED),
        ("train.scoring=padded", COPIED),
        (*EVERYWHERE, COPIED),
        ("train.reference=cached", "train.cache=kept"),
    ],
)
def test_settings_that_help_are_accepted_and_cost_what_is_said(written: Path, settings: tuple[str, ...]) -> None:
    one = make_plan(recipe.load(written, settings), limit_gib=1, rows=2)
    assert len(one.changes) > 1
    for change in one.changes:
        with_it = make_plan(recipe.load(written, (*settings, *shlex.split(change.settings))), rows=2)
        assert with_it.memory.peak == change.peak < one.memory.peak
    proposed = {change.settings for change in one.changes}
    copied = one.setup.reference == "frozen_copy"
    assert ("train.reference=cached" in proposed) == (copied and "source.when=online" not in settings)
    if COPIED in settings:
        assert all("train.reference=auto" in text for text in proposed if "lora" in text)
        assert any("train.reference=auto" in text for text in proposed)


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
    config = written.parent / "seven" / "config.json"
    config.write_text(json.dumps({"model_type": "mllama"}))
    assert "cross-attention" in refused(written)
    config.unlink()
    assert "does not open" in refused(written)
    assert "nowhere" in refused(written, "model.path=./nowhere")


def test_rollouts_are_planned_with_what_draws_and_rates_them(written: Path) -> None:
    """K answers a prompt; drawn, scored, rated, valued once an epoch; keys while drawing, value function of its own."""
    rows = "{kind: llava_instruct, file: my rows.json, images: pictures}"
    source = f"source={{kind: rollouts, data: {rows}, rewards: [{{rewarder: {{kind: python, target: 'a:b'}}}}]}}"
    words = (LORA, "model.dtype=bfloat16", source)

    def plan(*more: str) -> dict:
        return json.loads(finished("plan", written, *words, *more, "--json").out)

    rloo, twice = plan("objective={kind: rloo}"), plan("objective={kind: rloo}", "source.epochs=2")
    two = plan("objective={kind: rloo}", "source.num_samples=2")
    step = rloo["shared"]
    assert step["drawing"] == pytest.approx(2 * step["forward"])
    assert twice["shared"]["drawing"] == pytest.approx(step["drawing"] / 2)
    assert twice["shared"]["reference"] == pytest.approx(step["reference"] / 2)
    assert rloo["ratio"] > two["ratio"] > 1.5
    name = "keys and values while drawing"
    [keys] = [phase[name] for phase in rloo["memory"]["phases"] if name in phase]
    prompt = rloo["tokens"]["prompt, image included"]["longest"]
    assert keys == min(8 << 30, 16 * (prompt + 4 * 256) * 2 * 2 * 32 * 4096)
    shared, separate = (plan(f"objective={{kind: ppo, value: {value}}}") for value in ("shared", "separate"))
    name = "value function: weights that train, gradients, moments"
    assert separate["memory"]["held"][name] == 16 * rloo["num_trainable"]
    assert name not in shared["memory"]["held"]
    assert separate["shared"]["total"] > 1.5 * shared["shared"]["total"]
    assert "drawn answers" in finished("plan", written, *words, "objective={kind: rloo}").out
