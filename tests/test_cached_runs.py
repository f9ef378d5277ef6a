"""Whole runs: what they keep on disk, and settings that have to reach the model."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny import pair, prompt
from user_files import assert_same_weights, weights
from verisight import build, recipe
from verisight.data.files import read_jsonl
from verisight.data.records import write_pairs
from verisight.models import reference
from verisight.models.encoding import Encoder
from verisight.study.run import train
from verisight.types import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished pairs, and a recipe that trains on them."""
    folder = tmp_path_factory.mktemp("runs")
    write_pairs(folder / "pairs.parquet", [pair(i) for i in range(6)])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


RECIPE = """
output: run
model: {path: pocket, tune: {kind: lora, r: 4, alpha: 8}}
source: {kind: offline, data: {kind: pairs, file: pairs.parquet}}
objective: {kind: dpo}
train: {steps: 4, batch_size: 3, lr: 1e-3}
"""


def ran(made, name, *overrides):
    one = recipe.load(made / "recipe.yaml", [f"output={made / name}", *overrides])
    return train(one, quiet=True)


def test_cached_runs_end_with_the_weights_of_a_live_one(made, monkeypatch):
    """Log-probs and image features in one folder that runs share; nothing is computed for it twice."""
    kept = ("train.reference=cached", "train.image_features=disk", f"train.cache={made / 'kept'}")
    ran(made, "live")
    ran(made, "first", *kept)
    assert len(read_jsonl(made / "kept" / "reference.jsonl")) == 1 + 6
    [tower] = (made / "kept" / "images").iterdir()
    looks = {path: path.stat().st_mtime_ns for path in tower.rglob("*.safetensors")}
    assert len(looks) == 6
    monkeypatch.setattr(Encoder, "prompt", lambda *_: pytest.fail("a picture was read again"))
    monkeypatch.setattr(reference, "_starting_scores", lambda *_: pytest.fail("a pair was scored again"))
    ran(made, "second", *kept)
    assert {path: path.stat().st_mtime_ns for path in tower.rglob("*.safetensors")} == looks
    assert_same_weights(made / "first", made / "second")
    one, two = weights(made / "live"), weights(made / "first")
    # Adam divides by the gradient's size, so weights whose gradient is noise around 0 move by rounding errors
    moved = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
    assert (moved > 1e-5).float().mean() < 1e-3


def test_image_features_of_another_tower_are_not_read(made):
    words = ("train.image_features=disk", f"train.cache={made / 'towers'}", "train.steps=1")
    for dtype in ("float32", "bfloat16"):
        ran(made, f"tower {dtype}", *words, f"model.dtype={dtype}")
    assert [len(list(tower.rglob("*.safetensors"))) for tower in (made / "towers" / "images").iterdir()] == [3, 3]


@pytest.mark.parametrize("features", ["memory", "disk"])
def test_a_run_keeps_its_own_cache_until_it_is_done(features, made, monkeypatch):
    name = f"alone {features}"
    words = ("train.reference=cached", f"train.image_features={features}", "train.checkpoint_every=2")

    class Killed(BaseException):
        pass

    def dies(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("verisight.study.run.save_model", dies)
        with pytest.raises(Killed):
            ran(made, name, *words)
        before = (made / name / "cache" / "reference.jsonl").read_bytes()
        with pytest.raises(Killed):
            ran(made, name, *words)
    cache = made / name / "cache"
    assert sorted(path.name for path in cache.iterdir()) == ["images", "reference.jsonl"][features == "memory" :]
    assert (cache / "reference.jsonl").read_bytes() == before
    ran(made, name, *words)
    assert not cache.exists()
    ran(made, f"{name} uninterrupted", *words)
    assert_same_weights(made / name, made / f"{name} uninterrupted")


def test_padded_scoring_is_the_recipes_choice_and_has_its_own_log_probs(made):
    ran(made, "grouped", "train.reference=cached", f"train.cache={made / 'one'}")
    with pytest.raises(UserError, match=r"of another scoring .stored: scoring grouped, one number format, now padded"):
        ran(made, "padded", "train.reference=cached", f"train.cache={made / 'one'}", "train.scoring=padded")


def test_adapters_go_everywhere_where_the_recipe_says_so(made):
    tune = "model={path: pocket, tune: {kind: lora, r: 4, alpha: 8, targets: %s}, train_projector: %s}"
    for targets, projector in (("language", "true"), ("all", "false")):
        ran(made, f"adapters {targets}", tune % (targets, projector), "train.steps=2", "train.reference=cached")
    language, everywhere = (weights(made / f"adapters {targets}") for targets in ("language", "all"))
    for part in ("vision_tower", "multi_modal_projector"):
        assert not any(part in name and "lora_B" in name for name in language)
        moved = [weight.abs().max() > 0 for name, weight in everywhere.items() if part in name and "lora_B" in name]
        assert any(moved)


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_what_a_mask_hides_from_whom_reaches_the_view(scope):
    view = build.hallucinate(
        recipe.Negatives(view=recipe.Masked(rho=0.5, scope=scope), check=recipe.Always()), [], folder=Path(), seed=0
    ).view
    many = SimpleNamespace(num_image_tokens=lambda prompts: [64] * len(prompts))
    sight = view.look(many, [prompt(0)], rngs=[np.random.default_rng(0)])[0].sight
    assert (sight.scope, sight.drops) == (scope, scope == "all")


def test_a_cache_that_cannot_be_made_is_said_before_a_model_loads(made, monkeypatch):
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))
    (made / "file").touch()
    with pytest.raises(UserError, match=r"train\.cache: .*file cannot be made \(File exists\); accepted: a folder"):
        ran(made, "nowhere", "train.reference=cached", f"train.cache={made / 'file'}")


def test_compact_positions_and_three_axes_are_refused_before_a_model_loads(made, monkeypatch):
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))
    (made / "qwen").mkdir()
    (made / "qwen" / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    (made / "qwen" / "model.safetensors").touch()
    (made / "rows.json").write_text("[]")
    (made / "pictures").mkdir()
    words = (
        f"model.path={made / 'qwen'}",
        f"source={{kind: generated, data: {{kind: llava_instruct, file: {made / 'rows.json'}, "
        f"images: {made / 'pictures'}}}, negatives: {{view: {{kind: masked, positions: compact}}}}}}",
    )
    message = r"source\.negatives\.view\.positions: found compact with a 'qwen2_5_vl' model.*; accepted: original"
    with pytest.raises(UserError, match=message):
        ran(made, "qwen run", *words)


def test_processes_without_a_launcher_are_refused_before_anything_is_written(made, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="RANK: found nothing beside WORLD_SIZE 4; accepted: what accelerate launch"):
        ran(made, "crowd")
    assert not (made / "crowd").exists()
