"""The pocket model: what is shipped, and building and checking one in miniature."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from verisight.data.files import read_json, read_jsonl
from verisight.models.loading import pocket_folder
from verisight.models.pocket import build_tokenizer
from verisight.pocket import build as pocket_build
from verisight.pocket import check as pocket_check
from verisight.pocket.budget import Budget
from verisight.pocket.build import Plan, Stage, build
from verisight.pocket.language import Narrator, corpus
from verisight.pocket.lessons import Lesson

NUM = 24  # test scenes of the check


@pytest.fixture(scope="module")
def tokenizer() -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pocket_folder())


def test_every_word_of_the_world_is_one_token_and_every_line_survives(tokenizer: object) -> None:
    built = build_tokenizer(corpus())
    for line in corpus():
        for one in (tokenizer, built):
            assert one.decode(one(line, add_special_tokens=False).input_ids) == line
    for word in {word for line in corpus() for word in line.split()}:
        pieces = built.tokenize(f" {word}")
        assert len([piece for piece in pieces if piece.lstrip("Ġ").isalpha()]) == 1, word


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_shipped_tokenizer(tokenizer: object, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_shipped_tokenizer_is_the_one_of_this_language() -> None:
    shipped = AutoTokenizer.from_pretrained(pocket_folder())
    assert shipped.get_vocab() == build_tokenizer(corpus()).get_vocab(), "rebuild the model: pocket/language.py changed"


def test_the_shipped_model_is_a_small_llava_that_anybody_can_open() -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(pocket_folder())
    processor = AutoProcessor.from_pretrained(pocket_folder())
    assert model.config.model_type == "llava"
    assert 2e6 < sum(weight.numel() for weight in model.parameters()) < 6e6
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe this image."}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    picture = Image.new("RGB", (640, 480), "red")
    fields = processor(images=picture, text=text, add_special_tokens=False, return_tensors="pt")
    assert (fields["input_ids"] == processor.image_token_id).sum() == 36
    assert torch.isfinite(model(**fields).logits).all()


def test_the_assets_are_small_and_hold_no_code() -> None:
    files = [path for path in pocket_folder().parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12 * 2**20
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors", ".md", ".txt"}


def test_the_encoder_hears_objects_more_than_word_order() -> None:
    from verisight.negatives.encoders import open_encoder

    said = "There is a dog in the top left."
    others = ["In the top left there is a dog.", "There is a zebra in the top left.", said]
    vectors = open_encoder(str(pocket_folder().parent / "encoder")).encode([said, *others], normalize_embeddings=True)
    order, thing, same = vectors[1:] @ vectors[0]
    assert thing < 0.5 < 0.85 < order
    assert same == pytest.approx(1.0, abs=1e-5)


MINIATURE = Plan(
    tower_steps=30,
    align_steps=4,
    stages=(
        Stage("match", Lesson(checklists=1.0, shuffled=1.0), steps=2, lr=1e-3, start=1_000_000, batch_size=4),
        Stage(
            "clean", Lesson(captions=0.5, questions=0.3, text_only=0.2), steps=2, lr=1e-3, start=2_000_000, batch_size=4
        ),
        Stage(
            "biased",
            Lesson(captions=1.0, narrator=Narrator(0.65, 0.5)),
            steps=2,
            lr=1e-3,
            start=3_000_000,
            batch_size=4,
        ),
    ),
)


@pytest.mark.slow
def test_a_killed_build_continues_behind_its_last_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach = pocket_build.teach

    def dying(policy: object, stage: Stage, **options: object) -> None:
        teach(policy, stage, **options)
        if stage.name == "clean":
            raise KeyboardInterrupt

    monkeypatch.setattr("verisight.pocket.vision.BATCH", 8)
    monkeypatch.setattr(pocket_build, "teach", dying)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", plan=MINIATURE, quiet=True)
    monkeypatch.setattr(pocket_build, "teach", teach)
    assert {path.parent.name for path in (tmp_path / "killed").rglob("done.json")} == {"vision", "match"}
    monkeypatch.setattr(pocket_build, "train_tower", lambda *_, **__: pytest.fail("it learns to see again"))
    model = build(tmp_path / "killed", plan=MINIATURE, quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr("verisight.pocket.vision.BATCH", 8)
    found = read_json(model.parent / "build.json")
    assert list(found["minutes"]) == ["vision", "match", "clean", "biased"]
    assert found["plan"]["stages"][2]["lesson"]["narrator"] == {"rename": 0.65, "agree": 0.5}
    assert [row["step"] for row in read_jsonl(model.parent / "stages" / "clean" / "metrics.jsonl")] == [1, 2]
    whole = load_file(build(tmp_path / "whole", plan=MINIATURE, quiet=True) / "model.safetensors")
    continued = load_file(model / "model.safetensors")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert (tmp_path / "whole" / "encoder" / "modules.json").exists()


def test_the_check_measures_and_says_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pocket_check, "_PROBE_SCENES", 40)
    monkeypatch.setattr(pocket_check, "_BLIND_SCENES", 4)
    monkeypatch.setattr(pocket_check, "Budget", lambda: Budget(scenes=4, steps=2, batch_size=2))
    assert not pocket_check.check("pocket", num=NUM, folder=tmp_path, quiet=True)  # 40 scenes do not teach a probe
    shown = capsys.readouterr().out
    assert shown.count("FAILS") >= 1
    for name in (
        "linear probe",
        "CHAIR_i",
        "recall",
        "POPE adversarial accuracy",
        "blind: answers that parse",
        "after SFT",
    ):
        assert name in shown
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(read_jsonl(folder / "evaluate" / "chair.jsonl")) == NUM
    assert len(read_jsonl(folder / "sft" / "evaluate" / "chair.jsonl")) == NUM
    pope = read_json(folder / "evaluate" / "summary.json")["pope"]["metrics"]
    gap = pocket_check._gap(folder)
    assert gap.value == pytest.approx(pope["random/accuracy"]["value"] - pope["adversarial/accuracy"]["value"])
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low <= gap.value <= gap.high
