"""`verisight reward check`: counts by hand, a blind model is found out, the table grows set by set."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from small_runs import loaded, write_small
from tiny import pair
from verisight import cli, recipe
from verisight.data.files import read_json, read_jsonl
from verisight.data.records import write_pairs
from verisight.evaluate.stats import summarise
from verisight.models.reward import new_head, with_head
from verisight.study.rewarding import check, measures, read_checks
from verisight.study.run import train
from zoo import tiny


def row(seen: float, no_image: float | None, swapped: float | None) -> dict:
    told = {"seen": seen, "no_image": no_image, "swapped": swapped}
    return {view: {"chosen": margin, "rejected": 0.0} for view, margin in told.items() if margin is not None}


def test_metrics_by_hand() -> None:
    """Seen: right, right, equal, wrong = 2.5 of 4. Without picture 1 of 3. Swapped 1 of 2, of which 2 were right."""
    rows = [row(1, 1, 1), row(2, -1, -1), row(0, None, None), row(-1, -2, None)]
    found = summarise(measures(rows), ["a", "b", "c", "d"], seed=0)
    assert [found[name]["value"] for name in found] == [0.625, pytest.approx(1 / 3), 0.5, 0.5]
    assert list(found) == ["accuracy", "accuracy_no_image", "accuracy_swapped", "image_gain"]


@pytest.mark.parametrize("sees", [True, False])
def test_a_blind_model_gains_nothing_from_pictures(sees: bool) -> None:
    policy = tiny("llava")
    with torch.no_grad():
        policy.core.model.multi_modal_projector.linear_2.weight.mul_(20 if sees else 0)
        policy.core.model.multi_modal_projector.linear_2.bias.zero_()
    model = with_head(policy, new_head(policy, seed=0) * 20)
    found = check(model, [pair(index) for index in range(24)], batch_size=5)
    changes = [abs(one["seen"]["chosen"] - one["swapped"]["chosen"]) for one in found.rows]
    assert (max(changes) > 1e-3) is sees
    if not sees:
        assert found.metrics["image_gain"]["value"] == 0
    assert found.metrics["accuracy"]["num"] == 24


def test_the_recipes_hold_out_the_same_pictures() -> None:
    """All split the same pairs the same way, and only then keep their own: no picture is on both sides of any two."""
    files = sorted((Path(__file__).parent.parent / "recipes" / "pocket" / "reward").glob("*.yaml"))
    sources = [recipe.load(file).source for file in files]
    datas = [source.data for source in sources if isinstance(source, recipe.Offline)]
    assert len(datas) == len(files)
    shared = [one.model_copy(update={"then": one.then[:1]}) for one in datas]
    assert all(one == shared[0] for one in shared)
    assert shared[0].then == (recipe.Split(part="train", held_out=0.2),)
    kept = [("povid",), ("povid", "rlhf_v"), ("rlhf_v",), ("vlfeedback",)]
    assert [one.then[1:] for one in datas] == [(recipe.Filter(notes={"dataset": names}),) for names in kept]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_small(tmp_path_factory.mktemp("checked"))
    train(loaded(folder, "rm", "objective={kind: reward}", "train.steps=1"), quiet=True)
    write_pairs(folder / "pairs.parquet", [pair(index) for index in range(5)])
    return folder


def ran(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["verisight", "reward", "check", *words])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_table_grows_set_by_set(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", str(made / "rm" / "model"), "--out", str(tmp_path / "out"), "--quiet")
    assert ran(monkeypatch, str(made / "pairs.parquet"), "--name", "mine", *words) == 0
    assert ran(monkeypatch, str(made / "povid.json"), "--images", str(made / "povid/images"), *words) == 0
    told = capsys.readouterr().out
    assert "mine" in told
    assert "povid" in told
    assert f"calibration plot: {tmp_path / 'out' / 'calibration.svg'}" in "".join(told.splitlines())
    drawn = ElementTree.parse(tmp_path / "out" / "calibration.svg")
    panels = [one.get("aria-label", "") for one in drawn.iter() if one.get("role") == "img"]
    assert [one.split(":")[0] for one in panels] == ["rm on mine", "rm on povid"]
    checks = read_checks(tmp_path / "out")
    assert [(one["model"], one["data"]["name"]) for one in checks] == [("rm", "mine"), ("rm", "povid")]
    assert checks[0]["num_pairs"] == 5
    rows = read_jsonl(tmp_path / "out" / checks[0]["rows"])
    assert len(rows) == 5
    before = read_json(tmp_path / "out" / "rm-on-mine.json")
    assert ran(monkeypatch, str(made / "pairs.parquet"), "--name", "mine", *words) == 0
    assert read_json(tmp_path / "out" / "rm-on-mine.json") == before


def test_what_is_no_reward_model_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny("llava").save(tmp_path / "policy")
    for name in ("policy", "nowhere"):
        words = ("--model", str(tmp_path / name), "--out", str(tmp_path / "out"))
        assert ran(monkeypatch, str(made / "pairs.parquet"), *words) == 2
        assert "holds no reward_head.safetensors" in " ".join(capsys.readouterr().err.split())


def test_two_models_of_one_name_are_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "one/rm/model", "--model", "two/rm/model", "--out", str(tmp_path / "out"))
    assert ran(monkeypatch, str(made / "pairs.parquet"), *words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--model: found two runs of one name in ['rm', 'rm']; accepted: names that tell them apart" in told
    assert not (tmp_path / "out").exists()
