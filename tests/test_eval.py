"""`verisight eval MODEL BENCHMARK`: any model, any benchmark, shared by processes, killed and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chat_server import MODEL, running, said, text_of
from user_files import finished, verisight
from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.runner import Shard
from verisight.models.loading import pocket_folder
from verisight.models.weights_hash import weights_sha256
from verisight.pocket.datasets import file_name, png, scene
from verisight.study import measuring
from verisight.types import UserError

NUM = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GQA and HallusionBench questions about pocket scenes: about an object that is there, and one that isn't."""
    root = tmp_path_factory.mktemp("benchmarks")
    (root / "pictures").mkdir()
    gqa, hallusion = {}, []
    for at in range(NUM):
        one = scene("test", at // 2)
        name = Path(file_name(one)).stem
        (root / "pictures" / f"{name}.jpg").write_bytes(png(one))
        asked = one.names[0] if at % 2 else next(x for x in ("zebra", "pizza", "bed") if x not in one.names)
        text, gold = f"Is there a {asked} in the image?", "yes" if at % 2 else "no"
        types = {"structural": "verify", "semantic": "obj"}
        gqa[str(at)] = {"question": text, "imageId": name, "answer": gold, "isBalanced": True, "types": types}
        hallusion.append(
            {
                "category": "VD", "subcategory": "scene", "set_id": str(at // 2), "figure_id": "1",
                "question_id": str(at % 2), "visual_input": "1", "question": text, "gt_answer": str(at % 2),
                "gt_answer_details": gold, "filename": f"{name}.jpg",
            }
        )  # fmt: skip
    (root / "gqa.json").write_text(json.dumps(gqa))
    (root / "hallusion.json").write_text(json.dumps(hallusion))
    node = "kind: gqa, images: pictures, annotations: [gqa.json], protocol: llava, max_new_tokens: 4, suffix: ''"
    (root / "gqa.yaml").write_text(f"evaluate: [{{{node}}}]\n")
    return root


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process's evaluation."""
    out = tmp_path_factory.mktemp("whole")
    told = finished("eval", "pocket", folder / "gqa.yaml", "--out", out, "--quiet").out
    assert "gqa (llava, 24 items)" in told
    assert "*accuracy" in told
    return out


def without_place(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "image"} for row in rows]


def test_the_pocket_model_answers_a_public_benchmark(whole: Path) -> None:
    rows = read_jsonl(whole / "evaluate" / "gqa.jsonl")
    assert [row["uid"] for row in rows] == [str(at) for at in range(NUM)]
    assert read_json(whole / "evaluate" / "summary.json")["gqa"]["metrics"]["accuracy"]["value"] > 0.7


def test_its_answers_score_the_same_without_the_model(whole: Path, folder: Path, tmp_path: Path) -> None:
    answers = whole / "evaluate" / "gqa.jsonl"
    words = ("--annotations", folder / "gqa.json", "--protocol", "llava", "--out", tmp_path)
    finished("score", "gqa", "--answers", answers, *words)
    again, first = (read_json(one / "evaluate" / "summary.json")["gqa"]["metrics"] for one in (tmp_path, whole))
    assert again == first


def test_shards_end_as_one_process_does_also_after_a_kill(whole: Path, folder: Path, tmp_path: Path) -> None:
    """Process 0 of 3 dies before it answers; the work is then shared by two."""
    target = measuring.find_target("pocket", [str(folder / "gqa.yaml")], out=tmp_path, dtype="float32")
    for index in (1, 2):
        measured = measuring.measure(target, shard=Shard(index, 3), batch_size=4, quiet=True)
        assert measured.waiting == ("gqa",)
    parts = sorted(path.name for path in (tmp_path / "evaluate").glob("*.shard-*"))
    assert parts == ["gqa.shard-1-of-3.jsonl", "gqa.shard-2-of-3.jsonl"]
    assert measuring.measure(target, shard=Shard(1, 2), batch_size=4, quiet=True).waiting == ("gqa",)
    measured = measuring.measure(target, shard=Shard(0, 2), batch_size=4, quiet=True)
    assert measured.waiting == ()
    assert not list((tmp_path / "evaluate").glob("*.shard-*"))
    for name in ("gqa.jsonl", "summary.json"):
        assert (tmp_path / "evaluate" / name).read_bytes() == (whole / "evaluate" / name).read_bytes()


def test_a_shard_sees_what_others_answered_meanwhile(
    whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 answers while process 0 is at its first batch: process 0 is the last one, and scores."""
    target = measuring.find_target("pocket", [str(folder / "gqa.yaml")], out=tmp_path, dtype="float32")
    sample, waiting = measuring._Late.sample, [Shard(1, 2)]

    def interrupted(self: Any, *args: Any, **named: Any) -> Any:
        if waiting:
            assert measuring.measure(target, shard=waiting.pop(), batch_size=4, quiet=True).waiting == ("gqa",)
        return sample(self, *args, **named)

    monkeypatch.setattr(measuring._Late, "sample", interrupted)
    assert measuring.measure(target, shard=Shard(0, 2), batch_size=4, quiet=True).waiting == ()
    assert (tmp_path / "evaluate" / "gqa.jsonl").read_bytes() == (whole / "evaluate" / "gqa.jsonl").read_bytes()


@pytest.mark.slow
def test_local_processes_share_the_work(whole: Path, folder: Path, tmp_path: Path) -> None:
    finished_here = _in_a_process("eval", "pocket", folder / "gqa.yaml", "--out", tmp_path, "--processes", 2)
    assert "*accuracy" in finished_here
    assert (tmp_path / "evaluate" / "gqa.jsonl").read_bytes() == (whole / "evaluate" / "gqa.jsonl").read_bytes()


def _in_a_process(*words: object) -> str:
    import subprocess
    import sys

    command = [sys.executable, "-c", "from verisight.cli import main; main()", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_finished_evaluation_opens_no_model(whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.build.open_model", lambda *_: pytest.fail("it was opened"))
    assert "*accuracy" in finished("eval", "pocket", folder / "gqa.yaml", "--out", whole, "--quiet").out


def test_answers_of_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    """The built-in model's folder, copied; its last weight is changed."""
    shutil.copytree(pocket_folder(), tmp_path / "model")
    words = ("eval", tmp_path / "model", folder / "gqa.yaml", "--out", tmp_path / "out", "--quiet")
    finished(*words)
    entry = read_json(tmp_path / "out" / "evaluate" / "summary.json")["gqa"]
    assert entry["model_sha256"] == weights_sha256(str(tmp_path / "model")) == weights_sha256("pocket")
    finished(*words)
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ended = verisight(*words)
    assert ended.code == 2
    assert "holds 24 answers of a model with other weights" in ended.err
    assert weights_sha256("owner/name") is None


@pytest.mark.enable_socket
def test_a_judge_reads_the_answers_and_is_paid_once(folder: Path, tmp_path: Path) -> None:
    """It sees the pictures, so the entry is hallusion_v."""
    with running() as fake:
        fake.otherwise = lambda body: said("correct" if "yes" in text_of(body) else "incorrect")
        node = f"judge: {{kind: http, url: '{fake.url}', model: {MODEL}}}, vision: true, max_new_tokens: 4"
        (folder / "judged.yaml").write_text(
            f"evaluate: [{{kind: hallusion, images: pictures, annotations: [hallusion.json], {node}}}]\n"
        )
        words = ("eval", "pocket", folder / "judged.yaml", "--out", tmp_path, "--quiet")
        finished(*words)
        assert len(fake.bodies) == NUM
        assert fake.bodies[0]["messages"][0]["content"][0]["type"] == "image_url"
        finished(*words)
        assert len(fake.bodies) == NUM
    entry = read_json(tmp_path / "evaluate" / "summary.json")["hallusion_v"]
    assert entry["counts"]["failed"] == 0
    assert (entry["judge"]["vision"], entry["judge"]["votes"], entry["judge"]["rubric"]) == (True, 1, "own")
    assert len(read_jsonl(tmp_path / "evaluate" / "hallusion_v.replies.jsonl")) == NUM


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere/model", "{}/gqa.yaml"), "model"),
        (("pocket",), "benchmarks: found none for pocket; accepted: YAML files with `evaluate`"),
        (("pocket", "gqa"), "gqa: no benchmark of pocket (it has none)"),
        (("pocket", "{}/gqa.yaml", "{}/gqa.yaml"), "benchmarks: found gqa 2 times; accepted: each once"),
        (("pocket", "{}/none.yaml"), "none.yaml"),
    ],
)
def test_what_cannot_be_measured_is_said(words: tuple[str, ...], message: str, folder: Path) -> None:
    ended = verisight("eval", *(word.format(folder) for word in words))
    assert ended.code == 2
    assert message in ended.err


def test_missing_files_are_named_before_a_model_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.build.open_model", lambda *_: pytest.fail("it was opened"))
    (folder / "bad.yaml").write_text("evaluate: [{kind: gqa, images: pictures, annotations: [gone.json]}]\n")
    ended = verisight("eval", "pocket", folder / "bad.yaml")
    assert "evaluate.0.annotations.0: found nothing at" in ended.err
    shutil.copytree(folder / "pictures", folder / "fewer")
    next((folder / "fewer").iterdir()).unlink()
    (folder / "bad.yaml").write_text("evaluate: [{kind: gqa, images: fewer, annotations: [gqa.json]}]\n")
    ended = verisight("eval", "pocket", folder / "bad.yaml")
    assert ended.code == 2
    assert "is not in" in ended.err


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Shard(1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Shard(2, 3)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, Shard(0, 2)),
    ],
)
def test_launchers_say_which_process_this_is(environment: dict[str, str], shard: Shard) -> None:
    assert measuring.shard_of(environment) == shard


def test_ranks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"RANK, WORLD_SIZE: found '4' of '4'"):
        measuring.shard_of({"RANK": "4", "WORLD_SIZE": "4"})
