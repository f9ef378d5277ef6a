"""`verisight eval MODEL|RUN BENCHMARK...`: answers, shared by processes if there are several, then scores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from verisight import recipe as recipes
from verisight.evaluate.runner import Shard
from verisight.types import Decoding, Prompt, UserError

_SUFFIXES = (".yaml", ".yml")


class Measured(NamedTuple):
    """`folder` holds evaluate/; `entries` are the summary's, without those that other processes still answer."""

    folder: Path
    entries: dict[str, dict[str, Any]]
    waiting: tuple[str, ...]


class Target(NamedTuple):
    """What is measured on what. `folder` belongs to this one model."""

    model: recipes.Model
    benchmarks: tuple[recipes.Benchmark, ...]
    folder: Path


def is_recipe(target: str) -> bool:
    """Whether it names a recipe file, no model and no run."""
    return target.endswith(_SUFFIXES)


def find_target(
    target: str, benchmarks: Sequence[str], *, out: Path | None, dtype: Literal["float32", "bfloat16"],
    trust_remote_code: bool = False,
) -> Target:  # fmt: skip
    """A run folder or a model, and benchmarks: YAML files with `evaluate`, forms of GroundedBench, kinds of the run.

    Raises:
        UserError: a benchmark that is neither, or a model or run that isn't there.
    """
    run = Path(target)
    own: tuple[recipes.Benchmark, ...] = ()
    if (run / "recipe.yaml").is_file():
        loaded = recipes.load(run / "recipe.yaml")
        if not (run / "model").is_dir():
            raise UserError(f"{run}: holds a recipe, but no model yet; train it first (verisight train)")
        own, out = loaded.evaluate, out or run
        model = loaded.model.model_copy(update={"path": str(run / "model")})
    else:
        settings = {"path": target, "dtype": dtype, "trust_remote_code": trust_remote_code}
        model = recipes.Model.model_validate(settings)
        recipes.check_files(model)
        out = out or Path("runs/eval") / (re.sub(r"[^\w.-]+", "-", target).strip("-.") or "model")
    found = [one for name in benchmarks for one in _named(name, own, target)] if benchmarks else list(own)
    if not found:
        raise UserError(f"benchmarks: found none for {target}; accepted: YAML files with `evaluate`, one or more")
    names = [recipes.benchmark_name(one) for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"benchmarks: found {name} {names.count(name)} times; accepted: each once")
    return Target(model, tuple(found), out)


def shard_of(environment: Mapping[str, str]) -> Shard:
    """Which process this is: RANK and WORLD_SIZE (accelerate, torchrun), or Slurm's.

    Raises:
        UserError: numbers that don't fit together.
    """
    for index, num in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if num not in environment:
            continue
        found = environment.get(index, "0"), environment[num]
        if not all(text.isdecimal() for text in found) or not int(found[0]) < int(found[1]):
            raise UserError(f"{index}, {num}: found {found[0]!r} of {found[1]!r}; accepted: 0 to {num} - 1")
        return Shard(int(found[0]), int(found[1]))
    return Shard()


def measure(target: Target, *, shard: Shard, batch_size: int, quiet: bool = False) -> Measured:
    """Answers this shard's part and scores each benchmark that has all its answers.

    What is wrong with the benchmarks' files is said before the model opens.
    """
    from verisight import build
    from verisight.evaluate.folders import read_summary
    from verisight.evaluate.runner import answer_items, score_folder
    from verisight.models.weights_hash import weights_sha256
    from verisight.study.run import check_pictures, progress_of

    benchmarks = [build.benchmark(node) for node in target.benchmarks]
    every = [check_pictures(one) for one in benchmarks]
    target.folder.mkdir(parents=True, exist_ok=True)
    policy, model = _Late(target.model), weights_sha256(target.model.path)
    waiting = []
    for one, items in zip(benchmarks, every, strict=True):
        with progress_of(one.name, target.folder, len(items), quiet=quiet) as progress:
            whole = answer_items(
                policy,
                one,
                items,
                folder=target.folder,
                batch_size=batch_size,
                shard=shard,
                model=model,
                progress=progress,
            )
        if whole:
            score_folder(one, folder=target.folder, items=items)
        else:
            waiting.append(one.name)
    summary = read_summary(target.folder)
    names = [one.name for one in benchmarks]
    return Measured(target.folder, {name: summary[name] for name in names if name in summary}, tuple(waiting))


def spawn(num: int) -> None:
    """Runs this very command in `num` processes that share the work.

    Raises:
        UserError: one of them failed; what the others answered is kept.
    """
    threads = max(1, (os.cpu_count() or 1) // num)
    words = [word for word in sys.argv[1:] if not word.startswith("--processes=")]
    while "--processes" in words:
        at = words.index("--processes")
        words = words[:at] + words[at + 2 :]
    children = []
    for index in range(num):
        place = {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(num)}
        environment = {"OMP_NUM_THREADS": str(threads)} | dict(os.environ) | place
        command = [sys.executable, "-c", "from verisight.cli import main; main()", *words, "--quiet"]
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    codes = [child.wait() for child in children]
    if any(codes):
        failed = ", ".join(f"{index} (exit code {code})" for index, code in enumerate(codes) if code)
        raise UserError(f"--processes: {failed} of {num} failed; run the same again to go on with what is left")


def _named(name: str, own: Sequence[recipes.Benchmark], target: str) -> Sequence[recipes.Benchmark]:
    if name.endswith(_SUFFIXES):
        return recipes.load_benchmarks(Path(name))
    if (Path(name) / "form.json").is_file():
        return [recipes.Grounded(form=Path(name))]
    found = [one for one in own if recipes.benchmark_name(one) == name]
    if not found:
        known = ", ".join(map(recipes.benchmark_name, own)) or "none"
        raise UserError(
            f"{name}: no benchmark of {target} (it has {known}); accepted: one of these, a YAML file with "
            "`evaluate`, or the folder of a form of GroundedBench"
        )
    return found


class _Late:
    """The model, opened when the first question is asked: a finished evaluation needs none."""

    def __init__(self, model: recipes.Model) -> None:
        self._model = model
        self._policy: Any = None

    def sample(
        self, prompts: Sequence[Prompt], *, num: int = 1, decoding: Decoding, seed: int
    ) -> Sequence[Sequence[Any]]:
        """`evaluate.runner.Sampler`."""
        if self._policy is None:
            from verisight.build import open_model

            _take_device()
            self._policy = open_model(self._model)
        return self._policy.sample(prompts, num=num, decoding=decoding, seed=seed)


def _take_device() -> None:
    """With several GPUs each process takes its own."""
    import torch

    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    if torch.cuda.is_available() and local.isdecimal():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())
