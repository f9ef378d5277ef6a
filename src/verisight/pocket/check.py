"""What the pocket world is worth as an instrument, measured: it sees, it follows its prior, it is fluent when blind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from verisight import build
from verisight.data.readers import open_data
from verisight.evaluate.chair import Chair
from verisight.evaluate.paired import compare, read_scored
from verisight.evaluate.pope import Pope
from verisight.evaluate.pope import measures as pope_measures
from verisight.evaluate.runner import run_benchmark
from verisight.evaluate.stats import Interval, bootstrap_statistic, cluster_bootstrap, ratio
from verisight.models.hiding import Sight
from verisight.models.policy import Policy
from verisight.pocket.budget import Budget
from verisight.pocket.datasets import Split, png, scene, write_split
from verisight.pocket.language import DETAIL_PROMPTS, read_caption
from verisight.pocket.scenes import OBJECTS, usual
from verisight.pocket.vision import patch_features, patch_labels, pixels
from verisight.progress import track
from verisight.recipe import Model
from verisight.sources.offline import Offline
from verisight.train.loop import Optimization, fit
from verisight.train.preference import SftStep
from verisight.types import Decoding, ImageRef, Prompt

_PROBE_SCENES = 3000
_BLIND_SCENES = 300
_BATCH = 100


class Finding(NamedTuple):
    """One measured property: its interval, and the range it has to lie in for the instrument to be usable."""

    name: str
    found: Interval
    low: float
    high: float
    whole_interval: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value (or its whole interval) lies in the range."""
        numbers = self.found[:3] if self.whole_interval else self.found[:1]
        return all(number is not None and self.low <= number <= self.high for number in numbers)


def check(model: str, *, num: int, folder: Path, quiet: bool = False) -> bool:
    """Print every property with its 95 % interval and requirement; True if all hold. `num`: test scenes.

    Answers are kept in a folder below `folder` named by the weights and `num`, and used again there.
    """
    policy = build.open_model(Model(path=model))
    folder = folder / f"{_fingerprint(policy)}-{num}"
    data = folder / "data"
    if not (data / "test" / "scenes.json").exists():
        write_split(data, "test", num=num)
    findings = [
        probe(policy, num=num, quiet=quiet),
        *_answers(policy, data / "test", folder=folder, num=num, quiet=quiet),
        *blind(policy, quiet=quiet),
        _taught(policy, data, folder=folder, quiet=quiet),
    ]
    table = Table("property", "value", "95 % interval", "required", "")
    for one in findings:
        value, low, high = (_text(number) for number in one.found[:3])
        table.add_row(one.name, value, f"{low} to {high}", _range(one), "holds" if one.holds else "FAILS")
    Console().print(table)
    return all(one.holds for one in findings)


def probe(policy: Policy, *, num: int, quiet: bool) -> Finding:
    """Accuracy of a linear probe that names the object in an occupied cell from its patches' frozen features.

    Trained on base scenes, measured on test scenes. The features are those the projector reads.
    """
    side = policy.core.config.vision_config.image_size // policy.core.config.vision_config.patch_size
    with track("probe", total=_PROBE_SCENES + num, unit="scenes", quiet=quiet) as advance:
        seen, label, _ = _cells(policy, "base", _PROBE_SCENES, side, advance)
        test, truth, cluster = _cells(policy, "test", num, side, advance)
    torch.manual_seed(0)
    head = nn.Linear(seen.shape[1], len(OBJECTS))
    mean, std = seen.mean(0), seen.std(0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(300):
        loss = nn.functional.cross_entropy(head((seen - mean) / std), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (head((test - mean) / std).argmax(1) == truth).double().tolist()
    return Finding("linear probe: object in a cell", _share(right, cluster), 0.95, 1.0)


def blind(policy: Policy, *, quiet: bool) -> Iterator[Finding]:
    """Fluency and prior of sampled descriptions with every image token hidden."""
    prompts = [_ask(index) for index in range(_BLIND_SCENES)]
    hidden = [Sight(np.zeros(num, dtype=bool)) for num in policy.num_image_tokens(prompts)]
    with track("blind answers", total=len(prompts), unit="answers", quiet=quiet) as advance:
        answers = policy.sample(prompts, decoding=Decoding(96), seed=0, sights=hidden)
        advance(len(prompts))
    told = [read_caption(row[0].text) for row in answers]
    uids = [prompt.uid for prompt in prompts]
    yield Finding("blind: answers that parse", _share([float(t.fluent) for t in told], uids), 0.95, 1.0)
    expected, clusters = [], []
    for uid, one in zip(uids, told, strict=True):
        if one.kind is not None:
            expected += [float(name in usual(one.kind)) for name, _ in one.mentions]
            clusters += [uid] * len(one.mentions)
    yield Finding("blind: objects usual in the place told", _share(expected, clusters), 0.5, 1.0)


def _answers(policy: Policy, split: Path, *, folder: Path, num: int, quiet: bool) -> Iterator[Finding]:
    """Hallucination, recall and yes/no accuracy with the image shown."""
    pope = Pope(
        images=split / "images",
        instances=split / "instances.json",
        captions=split / "captions.json",
        num_images=num // 2,
    )
    measured = {}
    for benchmark in (_chair(split), pope):
        with track(benchmark.name, total=len(benchmark.items()), unit="items", quiet=quiet) as advance:
            entry = run_benchmark(policy, benchmark, folder=folder, batch_size=64)
            advance(entry["num_items"])
        measured |= {name: Interval(**found) for name, found in entry["metrics"].items()}
    yield Finding("CHAIR_i", measured["chair_i"], 0.12, 0.35)
    yield Finding("CHAIR_s", measured["chair_s"], 0.0, 1.0)
    yield Finding("recall", measured["recall"], 0.65, 1.0)
    yield Finding("hallucinations typical of the place", measured["typical_fraction"], 0.70, 1.0)
    yield Finding("positions right", measured["position_accuracy"], 0.0, 1.0)
    for name in ("random", "popular", "adversarial"):
        yield Finding(f"POPE {name} accuracy", measured[f"{name}/accuracy"], 0.55, 1.0, whole_interval=True)
    yield Finding("POPE random - adversarial", _gap(folder), 0.08, 1.0)


def _gap(folder: Path) -> Interval:
    """Accuracy on random less accuracy on adversarial questions, images resampled jointly."""
    run = read_scored(folder, "pope", measures=pope_measures)
    counts = np.hstack([run.measures[f"{split}/accuracy"].counts for split in ("random", "adversarial")])
    return bootstrap_statistic(
        counts, lambda sums: ratio(sums[:, :2]) - ratio(sums[:, 2:]), run.clusters, seed=0, fraction=False
    )


def _taught(policy: Policy, data: Path, *, folder: Path, quiet: bool) -> Finding:
    """Change of CHAIR_i by supervised training on true answers at the demo's budget: is there something to learn?

    Trains `policy` itself, so it comes last.
    """
    budget = Budget()
    preference = write_split(data, "preference", num=budget.scenes)
    read = open_data(preference / "llava_instruct.json", kind="llava_instruct", images=preference / "images").read()
    policy.tune(None, train_projector=True)
    fit(
        policy,
        Offline(read.pairs, seed=0),
        SftStep(policy),
        optimization=Optimization(steps=budget.steps, batch_size=budget.batch_size, lr=budget.lr),
        folder=folder / "sft",
        label="sft on true answers",
        quiet=quiet,
    )
    with track("chair again", total=1, unit="runs", quiet=quiet) as advance:
        run_benchmark(policy, _chair(data / "test"), folder=folder / "sft", batch_size=64)
        advance()
    change = compare(folder, folder / "sft")["chair"]["chair_i"]
    found = Interval(change["value"], change["low"], change["high"], change["num"])
    return Finding("CHAIR_i after SFT on true answers, change", found, -1.0, -1e-9, whole_interval=True)


def _chair(split: Path) -> Chair:
    return Chair(
        images=split / "images",
        instances=split / "instances.json",
        captions=split / "captions.json",
        scenes=split / "scenes.json",
        words="corrected",
        max_new_tokens=96,
    )


def _cells(
    policy: Policy, split: Split, num: int, side: int, advance: Any
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Mean feature, object index and scene of every occupied cell of the first `num` scenes."""
    features, labels, clusters = [], [], []
    for start in range(0, num, _BATCH):
        scenes = [scene(split, index) for index in range(start, min(num, start + _BATCH))]
        with torch.inference_mode():
            images = pixels(policy.encoder.processor, scenes).to(policy.core.device)
            patches = patch_features(policy.core, images).cpu()
        named = patch_labels(scenes, side=side)
        for one, vectors, names in zip(scenes, patches, named, strict=True):
            for item in one.placed:
                index = OBJECTS.index(item.name)
                features.append(vectors[names == index + 1].mean(0))
                labels.append(index)
                clusters.append(str(one.uid))
        advance(len(scenes))
    return torch.stack(features).clone(), torch.tensor(labels), clusters


def _ask(index: int) -> Prompt:
    one = scene("test", index)
    return Prompt(f"blind/{one.uid}", (ImageRef(data=png(one)),), DETAIL_PROMPTS[0])


def _fingerprint(policy: Policy) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _share(values: list[float], clusters: list[str]) -> Interval:
    if not values:  # a model that says nothing of this world
        return Interval(None, None, None, 0)
    return cluster_bootstrap(values, [1.0] * len(values), clusters, seed=0)


def _text(number: float | None) -> str:
    return "-" if number is None else f"{100 * number:.1f}"


def _range(one: Finding) -> str:
    if one.high < 0:
        return "< 0"
    if (one.low, one.high) == (0.0, 1.0):
        return ""
    return f">= {100 * one.low:.0f}" if one.high == 1.0 else f"{100 * one.low:.0f} to {100 * one.high:.0f}"
