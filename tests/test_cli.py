"""The command line: what a user got wrong is said in one message, with exit code 2, before any model is opened."""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from user_files import RECIPE, Files, finished, row, truth, verisight
from verisight.data.files import read_jsonl
from verisight.models.loading import pocket_folder

Breaks = Callable[[Files], object]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Four small pictures, a question about each, their truth, and the recipe of the tests of user files."""
    folder = tmp_path_factory.mktemp("template")
    names = ("pictures", "my rows.json", "instances.json", "recipe.yaml", "sft.yaml")
    files = Files(folder, *(folder / name for name in names))
    files.pictures.mkdir()
    pictures = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(pictures):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files.pictures / name)
    rows = [row(name, name, ["<image>\nWhat is it?", f"A cat. It has {name}."]) for name in pictures]
    files.rows.write_text(json.dumps(rows))
    files.instances.write_text(json.dumps(truth({name: [("cat", "cup")[n % 2]] for n, name in enumerate(pictures)})))
    files.recipe.write_text(RECIPE)
    return files


@pytest.fixture
def files(template: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The template, fresh, as the working directory."""
    shutil.copytree(template.folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Files(*(tmp_path / path.relative_to(template.folder) for path in template))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a model fails the test."""
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))


def refused(*words: object) -> str:
    """The message of a command that has to be refused."""
    outcome = verisight(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    return outcome.err


def edit_rows(files: Files, change: Callable[[list[Any]], object]) -> None:
    rows = json.loads(files.rows.read_text())
    change(rows)
    files.rows.write_text(json.dumps(rows))


def edit_truth(files: Files, change: Callable[[dict[str, Any]], object]) -> None:
    table = json.loads(files.instances.read_text())
    change(table)
    files.instances.write_text(json.dumps(table))


def say(turn: int, text: str) -> Breaks:
    """Row 1 says something else."""
    return lambda files: edit_rows(files, lambda rows: rows[1]["conversations"][turn].update(value=text))


def huge_png() -> bytes:
    """A PNG whose header says 60000 x 60000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    end = b"IEND"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, end)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def text_model(files: Files) -> None:
    (files.folder / "llama").mkdir()
    (files.folder / "llama" / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 32000}))


def without_weights(files: Files) -> None:
    names = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(pocket_folder(), files.folder / "empty", ignore=names)


def test_the_guard_sees_a_model_being_opened(files: Files, no_model: None) -> None:
    with pytest.raises(pytest.fail.Exception, match="a model was opened"):
        verisight("pairs", files.recipe)


@pytest.mark.parametrize("verb", ["pairs", "train", "eval", "explain"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bach_size=3", "command line: train.bach_size: found an unknown key (did you mean batch_size?)"),
        ("objective.bta=1", "command line: objective.bta: found an unknown key (did you mean beta?)"),
        ("train.steps=many", "command line: train.steps: found 'many'; accepted: a valid integer"),
        ("train.steps=0", "train.steps: found 0; accepted: greater than or equal to 1"),
        ("source={kind: onlin}", "source.kind: found 'onlin' (did you mean online?); accepted: offline, generated, "),
    ],
)
def test_settings_that_do_not_exist(verb: str, override: str, message: str, files: Files, no_model: None) -> None:
    assert message in refused(verb, files.recipe, override)
    assert not (files.folder / "run").exists()


def test_a_recipe_that_does_not_exist_and_one_with_a_misspelt_key(files: Files, no_model: None) -> None:
    assert "nowhere.yaml: No such file or directory" in refused("train", "nowhere.yaml")
    files.recipe.write_text(RECIPE.replace("objective:", "objectve:"))
    message = refused("train", files.recipe)
    assert f"{files.recipe}: objectve: found an unknown key (did you mean objective?)" in message
    assert f"{files.recipe}: objective: found nothing" in message


@pytest.mark.parametrize(
    ("breaks", "override", "message"),
    [
        (
            lambda f: f.rows.unlink(),
            "seed=0",
            "source.data.file: found nothing at .*my rows.json; accepted: an existing",
        ),
        (lambda f: f.instances.unlink(), "seed=0", "evaluate.0.instances: found nothing at .*instances.json"),
        (lambda f: shutil.rmtree(f.pictures), "seed=0", "source.data.images: found nothing at .*pictures"),
        (lambda f: None, "model.path=./no", "model.path: found nothing at .*no; accepted: an existing model folder"),
        (text_model, "model.path=./llama", "model.path: .*llama: found a 'llama' model; accepted: llava"),
        (
            lambda f: None,
            "model.path=./pictures",
            "model.path: .*pictures has no config.json; accepted: a Hugging Face",
        ),
        (without_weights, "model.path=./empty", r"model.path: .*empty holds no \*.safetensors weights"),
        (lambda f: (f.folder / "run").touch(), "seed=0", "run: is a file, a run needs a folder of its own"),
        (lambda f: (f.folder / "run" / "my.doc").mkdir(parents=True), "seed=0", "run: already holds another run"),
        (lambda f: None, "source.negatives.check={encoder: ./pictures, eps: 1}", "encoder: '.*' does not open as"),
    ],
)
@pytest.mark.parametrize("verb", ["pairs", "train"])
def test_files_folders_and_models_that_cannot_be_used(
    verb: str, breaks: Breaks, override: str, message: str, files: Files, no_model: None
) -> None:
    breaks(files)
    found = refused(verb, files.recipe, override)
    assert re.search(message, found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "1 of 1 rows (100.0%) cannot be used"),
        ("[{", "my rows.json: not valid JSON at line 1, column 3"),
        ('{"id": 1}', "my rows.json: kind llava_instruct: found rows with keys id; accepted: rows with"),
        ("[1]", "my rows.json: found rows of type int; accepted: objects"),
        (
            '[{"id": 1, "image": "0.png"}]',
            "my rows.json: kind llava_instruct: found rows with keys id, image;",
        ),
        ("[]", "no rows: the data holds nothing to train on"),
    ],
)
@pytest.mark.parametrize("verb", ["pairs", "train"])
def test_data_files_that_hold_something_else(verb: str, text: str, message: str, files: Files, no_model: None) -> None:
    files.rows.write_text(text)
    assert message in refused(verb, files.recipe)


BAD_ROWS: list[tuple[Breaks, str, str]] = [
    (lambda f: (f.pictures / "1.png").unlink(), "image missing", "'1.png' is not in "),
    (lambda f: _cut(f.pictures / "1.png"), "image truncated", "1.png"),
    (lambda f: (f.pictures / "1.png").write_text("<html>"), "image unreadable", "not one of JPEG, PNG"),
    (lambda f: (f.pictures / "1.png").write_bytes(huge_png()), "image too large", "1.png"),
    (say(1, " \n"), "empty answer", "' \\n'"),
    (say(0, "What is it?"), "no <image> placeholder", "'What is it?'"),
    (lambda f: edit_rows(f, lambda rows: rows[1].pop("image")), "no image", "id 1.png names no image"),
]


def _cut(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:-700])


@pytest.mark.parametrize(("breaks", "reason", "detail"), BAD_ROWS, ids=[reason for _, reason, _ in BAD_ROWS])
@pytest.mark.parametrize("verb", ["pairs", "train", "train online"])
def test_unusable_rows_stop_the_run_and_are_counted_and_listed(
    verb: str, breaks: Breaks, reason: str, detail: str, files: Files, no_model: None
) -> None:
    breaks(files)
    online = ["source.when=online"] if verb == "train online" else []
    message = refused(verb.split()[0], files.recipe, "evaluate=[]", *online)
    assert "1 of 4 rows (25.0%) cannot be used, max_bad_fraction accepts 0.0%" in message
    assert f"{reason}: 1. First:" in message
    assert f"my rows.json: row 1: {reason}: " in message
    assert detail in message
    (listed,) = read_jsonl(files.folder / "run" / "bad_rows.jsonl")
    assert (listed["row"], listed["reason"]) == (1, reason)
    assert listed["file"] == str(files.rows)


def test_reasons_are_counted_apart(files: Files, no_model: None) -> None:
    for breaks in (BAD_ROWS[0][0], lambda f: (f.pictures / "2.png").unlink()):
        breaks(files)
    edit_rows(files, lambda rows: rows[3]["conversations"][1].update(value=""))
    assert "3 of 4 rows (75.0%)" in (message := refused("pairs", files.recipe, "max_bad_fraction=0.5"))
    assert "image missing: 2, empty answer: 1" in message
    assert len(read_jsonl(files.folder / "run" / "bad_rows.jsonl")) == 3


def test_within_the_accepted_share_the_run_continues_in_the_same_folder(files: Files) -> None:
    say(1, "")(files)
    refused("pairs", files.recipe)
    shown = finished("pairs", files.recipe, "max_bad_fraction=0.25").out
    assert shown.startswith(f"3 pairs in {files.folder / 'run' / 'pairs.parquet'}")
    assert [one["reason"] for one in read_jsonl(files.folder / "run" / "bad_rows.jsonl")] == ["empty answer"]
    message = refused("pairs", files.recipe, "max_bad_fraction=0.5")
    assert "already holds another run" in message
    assert "name a new or empty folder" in message


@pytest.mark.parametrize(
    ("breaks", "override", "message"),
    [
        (lambda f: f.instances.write_text("[]"), "seed=0", "holds a list; a COCO file is one JSON object"),
        (
            lambda f: edit_truth(f, lambda t: t["categories"][0].update(name="unicorn")),
            "seed=0",
            "categories[0].name is 'unicorn'",
        ),
        (lambda f: None, "evaluate.1.num_images=99", "num_images is 99, but only 4 of 4 images hold 1 or more"),
        (
            lambda f: edit_truth(f, lambda t: t["images"][0].update(file_name="no.png")),
            "seed=0",
            "image 1 is no.png, not in ",
        ),
        (lambda f: _cut(f.pictures / "3.png"), "source.data.limit=1", "image truncated: "),
        (lambda f: (f.pictures / "3.png").write_bytes(huge_png()), "seed=0", "image too large: "),
    ],
)
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_benchmarks_that_cannot_be_run(
    verb: str, breaks: Breaks, override: str, message: str, files: Files, no_model: None
) -> None:
    breaks(files)
    assert message in refused(verb, files.recipe, override)


def test_what_a_verb_has_nothing_to_do_with(files: Files, no_model: None) -> None:
    assert "evaluate: found no benchmark" in refused("eval", files.recipe, "evaluate=[]")
    words = ("train", files.recipe, "source.kind=offline", "source.data={kind: pairs, file: instances.json}")
    assert "instances.json: kind pairs: found rows with keys images, " in refused(*words)


def test_a_hub_id_out_of_reach(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused("train", files.recipe, "model.path=nobody/nothing")
    assert "model.path: nobody/nothing does not open (" in message
    assert "accepted: a model folder, a hub id within reach or 'pocket'" in message
