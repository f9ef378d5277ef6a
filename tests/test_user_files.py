"""Whole runs on a user's own photographs, questions and recipe, and what they leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from user_files import (
    LORA,
    NUM_ANSWERS,
    PHOTOS,
    ROWS,
    Files,
    assert_same_weights,
    finished,
    of_pairs,
    verisight,
    weights,
    write_files,
)  # fmt: skip
from verisight import recipe
from verisight.data.files import read_json, read_jsonl
from verisight.data.readers import open_data
from verisight.models.loading import pocket_folder, quiet_peft

FULL_KEYS = {
    *("step", "split", "loss", "margin_mean", "accuracy", "chosen_logp_mean", "rejected_logp_mean"),
    *("lr", "seconds", "origin"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("a user's folder"))


@pytest.fixture(scope="module")
def made(files: Files) -> Path:
    """Finished pairs."""
    finished("pairs", files.recipe, f"output={files.folder / 'made'}")
    return files.folder / "made" / "pairs.parquet"


@pytest.fixture(scope="module")
def trained(files: Files) -> Path:
    """A finished DPO run with full tuning, evaluated."""
    words = (files.recipe, f"output={files.folder / 'full'}")
    finished("train", *words)
    finished("eval", *words)
    return files.folder / "full"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file that is written by work."""
    shown = ("recipe.yaml", "environment.json", "pairs.html")
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name not in shown]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}


def forbid_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))


def answer_of(run: Path, picture: str) -> str:
    return next(row["answer"] for row in read_jsonl(run / "evaluate" / "chair.jsonl") if row["image"].endswith(picture))


def greedy(model: Any, processor: Any, picture: Path) -> str:
    """What Hugging Face's own generate answers to the question of CHAIR."""
    text = "Please describe this image in detail."
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    with Image.open(picture) as opened:
        given = processor(images=opened.convert("RGB"), text=rendered, add_special_tokens=False, return_tensors="pt")
    drawn = model.generate(**given, max_new_tokens=8, do_sample=False)[0, given["input_ids"].shape[1] :]
    return processor.decode(drawn, skip_special_tokens=True).strip()


def test_every_answer_becomes_a_pair_whatever_its_picture_and_its_language(made: Path) -> None:
    rows = pq.read_table(made).to_pylist()
    equal = made.with_name("equal_pairs.jsonl")  # answers that came out as they went in
    left_out = [one["row"] for one in read_jsonl(equal)] if equal.exists() else []
    answers = [(picture, answer) for _, picture, turns in ROWS for answer in turns[1::2]]
    expected = [answer for number, answer in enumerate(answers) if number not in left_out]
    assert len(rows) + len(left_out) == NUM_ANSWERS
    assert len(left_out) <= 2
    for row, (picture, answer) in zip(rows, expected, strict=True):
        assert row["chosen"] == [{"role": "assistant", "content": answer}]
        assert row["rejected"][0]["content"].strip() not in ("", answer.strip())
        assert row["origin"] == "bdhs_attn"
        assert Path(row["images"][0]["path"]).is_file()
        assert row["images"][0]["path"].endswith(picture)
        assert "<image>" not in json.dumps(row["prompt"])
    (second,) = [row for row in rows if row["prompt"][-1]["content"] == "What does she wear?"]
    assert [turn["content"] for turn in second["prompt"][:-1]] == ["Who is this?", "An astronaut. She smiles."]
    assert not open_data(made).read().bad
    assert {path.name for path in made.parent.iterdir()} - {equal.name} == {
        *("recipe.sha256", "recipe.yaml", "environment.json", "data.json", "pairs.parquet", "pairs.html"),
    }


def test_a_finished_run_leaves_the_files_of_the_contract(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} - {"equal_pairs.jsonl"} == {
        *("recipe.sha256", "recipe.yaml", "environment.json", "data.json", "pairs.parquet", "metrics.jsonl"),
        *("model", "evaluate", "summary.json"),
    }
    assert {"python", "torch", "transformers", "verisight"} <= read_json(trained / "environment.json").keys()
    rows = read_jsonl(trained / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.keys() >= FULL_KEYS
        assert row["origin"] == {"bdhs_attn": 4}
        assert 0 <= row["accuracy"] <= 1
    assert rows[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy starts as its own reference
    summary = read_json(trained / "summary.json")
    num_pairs = pq.read_metadata(trained / "pairs.parquet").num_rows
    assert (summary["num_pairs"], summary["steps"], summary["last"]) == (num_pairs, 3, rows[-1])


def test_the_answers_and_their_summary(trained: Path, files: Files) -> None:
    described = read_jsonl(trained / "evaluate" / "chair.jsonl")
    assert [Path(row["image"]).relative_to(files.pictures).as_posix() for row in described] == list(PHOTOS)
    assert [row["truth"]["objects"] for row in described] == list(PHOTOS.values())
    assert len(read_jsonl(trained / "evaluate" / "pope.jsonl")) == 4 * 2 * 3
    summary = read_json(trained / "evaluate" / "summary.json")
    assert {name: entry["num_items"] for name, entry in summary.items()} == {"chair": len(PHOTOS), "pope": 24}
    assert summary["chair"]["metrics"].keys() >= {"chair_i", "chair_s", "recall"}


def test_the_recipe_in_the_run_folder_is_the_run(trained: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = recipe.load(files.recipe, [f"output={trained}"])
    assert recipe.load(trained / "recipe.yaml") == loaded
    forbid_models(monkeypatch)
    before = contents(trained)
    assert finished("train", trained / "recipe.yaml").out == f"model: {trained / 'model'}\n"
    assert len(finished("pairs", trained / "recipe.yaml").out.splitlines()) > 3
    assert contents(trained) == before


def test_evaluating_again_answers_nothing_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.models.policy.decode", lambda *_, **__: pytest.fail("it was asked again"))
    before = {path: data for path, (data, _) in contents(trained).items()}
    shown = finished("eval", trained / "recipe.yaml").out
    assert "chair (official, own synonyms, 12 items)" in shown
    assert {path: data for path, (data, _) in contents(trained).items()} == before


def test_a_run_folder_is_evaluated_by_the_names_in_its_recipe(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.models.policy.decode", lambda *_, **__: pytest.fail("it was asked again"))
    assert "pope (official, 24 items)" in finished("eval", trained, "pope").out
    both = finished("eval", trained).out
    assert "chair (official, own synonyms, 12 items)" in both
    assert "pope (official, 24 items)" in both
    ended = verisight("eval", trained, "gqa")
    assert (ended.code, "no benchmark of" in ended.err, "(it has chair, pope)" in ended.err) == (2, True, True)


def test_hugging_face_opens_a_fully_tuned_model_and_answers_the_same(trained: Path, files: Files) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(trained / "model")
    processor = AutoProcessor.from_pretrained(trained / "model")
    for name in ("chelsea.png", "cmyk.jpg", "camera.png"):
        assert greedy(model, processor, files.pictures / name) == answer_of(trained, name)
    start = load_file(pocket_folder() / "model.safetensors")
    moved = {name for name, weight in weights(trained).items() if not torch.equal(weight, start[name])}
    assert any("language_model" in name for name in moved)
    assert any("projector" in name for name in moved)
    assert not any("vision_tower" in name for name in moved)


def test_a_lora_run_leaves_an_adapter_that_peft_opens(made: Path, files: Files) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    run = files.folder / "lora"
    words = (files.recipe, f"output={run}", LORA, *of_pairs(made), "train.lr=1e-2")
    finished("train", *words)
    finished("eval", *words)
    assert read_json(run / "model" / "adapter_config.json")["base_model_name_or_path"] == "pocket"
    base = AutoModelForImageTextToText.from_pretrained(pocket_folder())
    with quiet_peft():
        tuned = PeftModel.from_pretrained(base, str(run / "model")).eval()
    processor = AutoProcessor.from_pretrained(run / "model")
    assert greedy(tuned, processor, files.pictures / "coffee.png") == answer_of(run, "coffee.png")
    drawn = {name: weight for name, weight in weights(run).items() if "lora_B" in name}
    assert drawn
    assert all(weight.abs().max() > 0 for weight in drawn.values())


def test_a_supervised_run_learns_several_turns_in_one_row(files: Files) -> None:
    run = files.folder / "sft"
    finished("train", files.sft, f"output={run}", "train.epochs=2", "train.steps=null")
    rows = read_jsonl(run / "metrics.jsonl")
    assert len(rows) == 5  # two passes over ten rows, four rows a step
    assert rows[0].keys() >= {"loss", "chosen_logp_mean"}
    assert not rows[0].keys() & {"margin_mean", "rejected_logp_mean"}
    assert read_json(run / "summary.json")["num_pairs"] == len(ROWS)
    assert not (run / "pairs.parquet").exists()


def test_before_training_the_starting_model_is_measured_in_a_folder_of_its_own(files: Files, made: Path) -> None:
    run = files.folder / "measured"
    words = (files.recipe, f"output={run}", *of_pairs(made), "evaluate.0.limit=3")
    finished("eval", *words)
    assert (run / "base" / "evaluate" / "summary.json").exists()
    finished("train", *words)
    finished("eval", *words)
    assert (run / "evaluate" / "summary.json").exists()


def test_pairs_made_before_train_the_same_model(trained: Path, made: Path, files: Files) -> None:
    run = files.folder / "from_pairs"
    finished("train", files.recipe, f"output={run}", *of_pairs(made))
    assert_same_weights(run, trained)


def test_a_preference_file_of_another_tool_trains(files: Files) -> None:
    said = [{"role": "user", "content": "What is it?"}]
    picture = {"bytes": (files.pictures / "coins.png").read_bytes(), "path": None}
    rows = [
        {
            "images": [picture],
            "prompt": said,
            "chosen": [{"role": "assistant", "content": f"{number} coins."}],
            "rejected": [{"role": "assistant", "content": "A dog."}] if number else [],
        }
        for number in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), files.folder / "trl.parquet")
    words = ("train", files.recipe, f"output={files.folder / 'trl'}", *of_pairs(files.folder / "trl.parquet"))
    refused = verisight(*words)
    assert refused.code == 2
    assert "1 of 4 rows" in refused.err
    assert "no rejected answer: 1" in refused.err
    finished(*words, "max_bad_fraction=0.25")
    assert [row["row"] for row in read_jsonl(files.folder / "trl" / "bad_rows.jsonl")] == [0]
    assert read_json(files.folder / "trl" / "summary.json")["num_pairs"] == 3


def test_the_picture_reaches_the_model(trained: Path, files: Files, tmp_path: Path) -> None:
    """The same run with all pictures black makes other weights."""
    blackened = tmp_path / "black"
    shutil.copytree(files.folder / "pictures", blackened / "pictures")
    for picture in (blackened / "pictures").rglob("*.*"):
        with Image.open(picture) as opened:
            black = Image.new("RGB", opened.size)
        black.save(picture)
    for file in (files.rows, files.recipe, files.instances):
        shutil.copy(file, blackened)
    run = blackened / "run"
    finished("train", blackened / files.recipe.name, f"output={run}", *of_pairs(_with_pictures(trained, blackened)))
    a, b = weights(run), weights(trained)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def _with_pictures(trained: Path, folder: Path) -> Path:
    """The run's pairs.parquet with its pictures taken from `folder`."""
    table = pq.read_table(trained / "pairs.parquet")
    old = str(trained.parent)
    rows = table.to_pylist()
    for row in rows:
        row["images"] = [{"bytes": None, "path": row["images"][0]["path"].replace(old, str(folder))}]
        row["image_sha256"] = [None]  # else the black pictures would be refused as changed
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "pairs.parquet")
    return folder / "pairs.parquet"
