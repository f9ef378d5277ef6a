"""Training, and making pairs, on two processes: the same as on one, whatever is drawn; kills are survived."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate import DistributedType
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from judged_world import POVID, write_world
from verisight.data.files import read_jsonl
from verisight.models.ranks import Ranks, join, ranks
from verisight.train.spread import check_batch, check_spread
from verisight.types import UserError

DATA = {"kind": "povid", "file": f"povid/{POVID}", "images": "povid/images", "then": [{"take": 12}]}
OFFLINE = {"kind": "offline", "data": DATA}
ORACLE = {"kind": "oracle", "scenes": "preference/scenes.json", "noise": 0.1}
ONLINE = {"kind": "online", "data": DATA, "annotator": ORACLE, "max_new_tokens": 96}
BDHS = {
    "guidance": {"kind": "sentence_guided", "max_new_tokens": 8},
    "check": {"kind": "dissimilar", "encoder": "pocket"},
}
ROLLOUTS = {"kind": "rollouts", "data": DATA, "rewards": [{"rewarder": {"kind": "oracle", "scenes": ORACLE["scenes"]}}],
            "max_new_tokens": 32, "num_samples": 2, "normalize": 5, "guard": None}  # fmt: skip
DPO = {"kind": "dpo", "beta": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "dpo": {"source": OFFLINE, "objective": DPO, "train": {"reference": "cached"}},
    "lora": {"source": OFFLINE, "objective": DPO, "model": {"tune": {"kind": "lora", "r": 4, "alpha": 8}}},
    "mixed": {"source": {"kind": "mixed", "parts": [{"weight": 0.5, "source": OFFLINE},
                                                    {"weight": 0.5, "source": ONLINE}]}, "objective": DPO},
    "bdhs": {"source": {"kind": "generated", "when": "online", "data": DATA, "negatives": BDHS}, "objective": DPO},
    "reward": {"source": OFFLINE, "objective": {"kind": "reward"}},
    "rloo": {"source": ROLLOUTS, "objective": {"kind": "rloo", "beta": 0.05}},
    "ppo": {"source": ROLLOUTS | {"epochs": 2}, "objective": {"kind": "ppo", "beta": 0.05, "value": "separate"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def write_recipe(world: Path, name: str) -> Path:
    settings = RUNS[name]
    tree = {
        "seed": 3,
        "model": {"path": "pocket", "tune": {"kind": "full"}} | settings.get("model", {}),
        "train": {"steps": 3, "batch_size": 4, "lr": 1e-5, "checkpoint_every": 1} | settings.get("train", {}),
        "output": f"runs/{name}",
        "source": settings["source"],
        "objective": settings["objective"],
    }
    file = world / f"{name}.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def start(num: int, *words: str) -> list[subprocess.Popen[str]]:
    """`verisight` with these words in `num` processes, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "verisight", *words, "--quiet"]
    return [
        subprocess.Popen(
            command, env=os.environ | place | {"RANK": str(at), "LOCAL_RANK": str(at)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for at in range(num)
    ]  # fmt: skip


def run(num: int, *words: str) -> list[str]:
    """What every process printed."""
    processes = start(num, *words)
    told = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * num, told
    return [out for out, _ in told]


def train(world: Path, name: str, num: int, to: str, *words: str) -> Path:
    folder = world / "runs" / f"{name}-{to}"
    said = run(num, "train", str(write_recipe(world, name)), f"output={folder}", *words)
    assert said == [f"model: {folder / 'model'}\n", *[""] * (num - 1)]
    return folder


def assert_same(one: Path, two: Path) -> None:
    first, second = (read_jsonl(folder / "metrics.jsonl") for folder in (one, two))
    assert [row["step"] for row in first] == [row["step"] for row in second] == [1, 2, 3]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in first] == pytest.approx([row[name] for row in second], rel=1e-4, abs=1e-6)
    for a, b in zip(first, second, strict=True):
        assert (a["origin"], a.get("source")) == (b["origin"], b.get("source"))
    names = sorted(path.name for path in (one / "model").glob("*.safetensors"))
    assert names == sorted(path.name for path in (two / "model").glob("*.safetensors"))
    for name in names:
        weights, others = (load_file(folder / "model" / name) for folder in (one, two))
        assert weights.keys() == others.keys()
        assert max(float((weights[key] - others[key]).abs().max()) for key in weights) < 1e-6


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_what_one_trains(world: Path, name: str) -> None:
    alone = train(world, name, 1, "alone")
    assert_same(alone, train(world, name, 2, "two"))
    if name in ("dpo", "mixed", "reward", "rloo"):
        assert_same(alone, train(world, name, 1, "accumulated", "train.micro_batch_size=2"))
    if name == "dpo":
        assert_same(alone, train(world, name, 2, "both", "train.micro_batch_size=1"))


@pytest.mark.slow
@pytest.mark.enable_socket
def test_two_processes_make_the_pairs_that_one_makes(world: Path) -> None:
    source = RUNS["bdhs"]["source"] | {"when": "offline"}
    RUNS["pairs"] = {"source": source, "objective": DPO}
    file = write_recipe(world, "pairs")
    told = [run(num, "pairs", str(file), f"output={world / 'made' / str(num)}") for num in (1, 2)]
    assert told[1][1] == ""
    files = [world / "made" / str(num) / "pairs.parquet" for num in (1, 2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert {path.name for path in files[0].parent.iterdir()} == {path.name for path in files[1].parent.iterdir()}


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_killed_process_ends_the_launch_and_another_number_of_them_goes_on(world: Path) -> None:
    whole = train(world, "mixed", 1, "whole")
    folder = world / "runs" / "mixed-killed"
    words = ("train", str(write_recipe(world, "mixed")), f"output={folder}")
    processes = start(2, *words)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    out, said = processes[0].communicate(timeout=120)
    processes[1].communicate()
    assert processes[0].returncode == 2, (out, said)
    assert "another process of this launch has ended" in said
    assert "start the same again" in said
    assert list(folder.glob("checkpoints/step-*"))
    assert not (folder / "model").exists()
    run(1, *words)
    assert_same(whole, folder)


@pytest.mark.slow
@pytest.mark.enable_socket
def test_a_problem_of_one_process_is_told_by_all(world: Path) -> None:
    file = write_recipe(world, "dpo")
    processes = start(2, "train", str(file), f"output={world / 'runs' / 'odd'}", "train.batch_size=3")
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "train.batch_size: found 3 with 2 processes; accepted: a multiple of 2" in told[0]
    assert "error: another process of this launch has ended, its own words say why" in told[1]
    assert not any("Traceback" in text for text in told)
    assert not (world / "runs" / "odd").exists()


@pytest.mark.slow
@pytest.mark.enable_socket
def test_torchrun_starts_it(world: Path) -> None:
    folder = world / "runs" / "torchrun"
    words = ["--nproc-per-node", "2", "--master-port", "0", "-m", "verisight", "train", str(write_recipe(world, "dpo"))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words]
    done = subprocess.run(
        [*command, f"output={folder}", "--quiet"], capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"model: {folder / 'model'}\n"
    assert len(read_jsonl(folder / "metrics.jsonl")) == 3


def test_the_shipped_launch_configuration_is_one() -> None:
    found = load_config_from_file(str(Path(__file__).parents[1] / "recipes" / "accelerate" / "ddp.yaml"))
    assert (found.distributed_type, found.num_processes) == ("MULTI_GPU", 8)


def test_parts_make_up_the_whole() -> None:
    for num in (1, 2, 3, 5):
        for size in range(8):
            parts = [Ranks(at, num).part(range(size)) for at in range(num)]
            assert [one for part in parts for one in part] == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert Ranks(0, 2).own("chat") == "chat"
    assert Ranks(1, 2).own("chat") == "chat-rank-1"


def test_launchers_of_sharded_models_are_refused() -> None:
    with pytest.raises(UserError, match="training: found FSDP; accepted: processes that each hold the model"):
        check_spread(SimpleNamespace(distributed_type=DistributedType.FSDP), 4)  # type: ignore[arg-type]


def test_one_process_works_alone() -> None:
    assert ranks() == Ranks(0, 1)
    assert ranks().share([1, 2, 3], lambda some: [one * 2 for one in some]) == [2, 4, 6]
    assert ranks().told("x") == ["x"]
    with ranks().in_turn():
        ranks().wait()
    check_batch(3)


def test_what_a_launcher_did_not_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE: found 'two'; accepted: a number"):
        join()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="LOCAL_RANK: found nothing beside WORLD_SIZE 2"):
        join()
