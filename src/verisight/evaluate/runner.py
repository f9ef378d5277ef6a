"""Runs a benchmark on a policy, resumes it, scores kept answers again, and compares two runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from verisight.data.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl
from verisight.evaluate import chair, pope
from verisight.evaluate.benchmark import Benchmark, Item
from verisight.evaluate.stats import Measure, holm, paired_difference
from verisight.types import Decoding, Prompt, UserError

Progress = Callable[[int, int], None]
Measures = Callable[[Sequence[dict[str, Any]]], dict[str, Measure]]

MEASURES: Mapping[str, Measures] = {"chair": chair.measures, "pope": pope.measures}
SIGNIFICANCE = 0.05
_ANSWER_KEYS = ("answer", "num_tokens", "truncated")


class Answered(Protocol):
    """What a policy gives for one prompt."""

    text: str
    num_tokens: int
    truncated: bool


class Sampler(Protocol):
    """The part of a policy that benchmarks need."""

    def sample(
        self, prompts: Sequence[Prompt], *, num: int = 1, decoding: Decoding, seed: int
    ) -> Sequence[Sequence[Any]]:
        """`num` answers (`Answered`) for each prompt."""
        ...


class ScoredRun(NamedTuple):
    """One benchmark of one run: uids and clusters (items,), and the metrics before they are summed."""

    uids: list[str]
    clusters: list[str]
    measures: dict[str, Measure]


def run_benchmark(
    policy: Sampler,
    benchmark: Benchmark,
    *,
    folder: Path,
    batch_size: int,
    progress: Progress | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Answers what isn't answered yet, scores everything, and returns the benchmark's entry of the summary.

    Answers are appended batch by batch to `folder`/evaluate/<name>.jsonl, so that a killed run continues. The
    same pictures and text are asked once, however many items share them. `folder` belongs to one model:
    answers found there are taken for this policy's. `progress` gets (items answered, items). `seed` feeds
    sampling decodings.

    Raises:
        UserError: the stored answers were made with other questions or decoding.
    """
    items = benchmark.items()
    rows = _resume(benchmark, items, folder)
    answers = {_prompt_key(item.prompt): rows[item.uid] for item in items if item.uid in rows}
    waiting: dict[str, list[Item]] = {}
    for item in items:
        if item.uid not in rows:
            waiting.setdefault(_prompt_key(item.prompt), []).append(item)
    path = _rows_path(folder, benchmark.name)

    def keep(answered: Iterable[tuple[Item, dict[str, Any]]]) -> None:
        for item, answer in answered:
            rows[item.uid] = _row(item, answer)
            append_jsonl(path, rows[item.uid])
        if progress is not None:
            progress(len(rows), len(items))

    keep((item, answers[key]) for key in waiting for item in waiting[key] if key in answers)
    groups = [group for key, group in waiting.items() if key not in answers]
    for start in range(0, len(groups), batch_size):
        batch = groups[start : start + batch_size]
        prompts = [group[0].prompt for group in batch]
        drawn = policy.sample(prompts, num=1, decoding=benchmark.decoding, seed=seed + len(rows))
        keep((item, _answer(one[0])) for group, one in zip(batch, drawn, strict=True) for item in group)
    return score_folder(benchmark, folder=folder, seed=seed, items=items)


def score_folder(
    benchmark: Benchmark, *, folder: Path, seed: int = 0, items: Sequence[Item] | None = None
) -> dict[str, Any]:
    """Scores the stored answers, without a model: rewrites rows and summary, returns the summary's entry.

    Raises:
        UserError: answers are missing, or were made with other questions or decoding.
    """
    items = benchmark.items() if items is None else items
    rows = _resume(benchmark, items, folder)
    path = _rows_path(folder, benchmark.name)
    missing = [item.uid for item in items if item.uid not in rows]
    if missing:
        raise UserError(f"{path}: {len(missing)} of {len(items)} answers are missing, the first is {missing[0]!r}")
    scored = benchmark.score([_row(item, rows[item.uid]) for item in items])
    entry = {
        "metrics": benchmark.summary(scored, seed=seed),
        "num_items": len(scored),
        "decoding": asdict(benchmark.decoding) | {"stop": list(benchmark.decoding.stop)},
        "protocol": benchmark.protocol,
    }
    write_jsonl(path, scored)
    summary = _read_json(folder / "evaluate" / "summary.json")
    write_json(folder / "evaluate" / "summary.json", summary | {benchmark.name: entry})
    return entry


def fingerprint(items: Sequence[Item], decoding: Decoding) -> str:
    """SHA-256 over the questions, their pictures (file name or bytes), their truth and the decoding."""
    digest = hashlib.sha256(json.dumps(asdict(decoding), sort_keys=True).encode())
    for item in items:
        pictures = [_picture(image) for image in item.prompt.images]
        turns = [(turn.role, turn.text) for turn in item.prompt.history]
        facts = [item.uid, item.cluster, item.truth, item.prompt.text, turns, pictures]
        digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


def read_scored(folder: Path, name: str, *, measures: Measures) -> ScoredRun:
    """The scored rows of `folder`/evaluate/<name>.jsonl, ready for the functions of `stats`."""
    rows = list(read_jsonl(_rows_path(folder, name)))
    return ScoredRun([row["uid"] for row in rows], [row["cluster"] for row in rows], measures(rows))


def compare(
    folder_a: Path, folder_b: Path, *, measures: Mapping[str, Measures] = MEASURES, seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """Paired differences b - a of every metric of every benchmark that both runs hold.

    Benchmark -> metric -> {a, b, value, low, high, num, p_value, p_holm, verdict}; p_holm is Holm-corrected
    over the benchmark's metrics. verdict is better | worse (for metrics with no good side: higher | lower)
    where p_holm is below 0.05 and the 95 % interval leaves out 0, else "can't tell".

    Raises:
        UserError: the two runs answered different questions, were scored under different protocols, or hold a
            benchmark that `measures` doesn't know.
    """
    summary_a, summary_b = (_read_json(folder / "evaluate" / "summary.json") for folder in (folder_a, folder_b))
    table = {}
    for name in (name for name in summary_a if name in summary_b):
        if name not in measures:
            raise UserError(f"compare: no measures for benchmark {name!r}; known are {', '.join(measures)}")
        found = [_read_json(_meta_path(folder, name)).get("fingerprint") for folder in (folder_a, folder_b)]
        protocols = [summary[name]["protocol"] for summary in (summary_a, summary_b)]
        if found[0] != found[1] or protocols[0] != protocols[1]:
            raise UserError(
                f"{folder_a} and {folder_b}: {name} was run with different questions, decoding or protocol "
                f"({protocols[0]}, {protocols[1]}); only equal ones can be compared"
            )
        a, b = (read_scored(folder, name, measures=measures[name]) for folder in (folder_a, folder_b))
        assert a.uids == b.uids, "equal fingerprints mean equal items in equal order"
        table[name] = _differences(a, b, seed=seed)
    return table


def _differences(a: ScoredRun, b: ScoredRun, *, seed: int) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for name, measure in a.measures.items():
        pair = (measure.counts, b.measures[name].counts)
        difference = paired_difference(*pair, a.clusters, statistic=measure.statistic, seed=seed)
        values = [float(measure.statistic(counts.sum(0, keepdims=True))[0]) for counts in pair]
        value_a, value_b = (None if value != value else value for value in values)
        rows[name] = {"a": value_a, "b": value_b} | difference._asdict()
        if measure.num_items is not None:
            rows[name]["num"] = measure.num_items
    tested = [name for name in rows if rows[name]["p_value"] is not None]
    adjusted = dict(zip(tested, holm([rows[name]["p_value"] for name in tested]), strict=True))
    for name, row in rows.items():
        row["p_holm"] = adjusted.get(name)
        row["verdict"] = _verdict(row, a.measures[name].better)
    return rows


def _verdict(row: dict[str, Any], better: str) -> str:
    if row["p_holm"] is None or row["low"] is None or row["p_holm"] >= SIGNIFICANCE or row["low"] <= 0 <= row["high"]:
        return "can't tell"
    direction = "higher" if row["value"] > 0 else "lower"
    if better == "neutral":
        return direction
    return "better" if direction == better else "worse"


def _resume(benchmark: Benchmark, items: Sequence[Item], folder: Path) -> dict[str, dict[str, Any]]:
    """Stored rows by uid, checked to belong to these items; notes the fingerprint of a fresh run."""
    path, meta_path = _rows_path(folder, benchmark.name), _meta_path(folder, benchmark.name)
    uids = {item.uid for item in items}
    assert len(uids) == len(items), f"{benchmark.name}: item uids must be unique"
    meta = {"fingerprint": fingerprint(items, benchmark.decoding), "num_items": len(items)}
    stored = list(read_jsonl(path)) if path.exists() else []
    if stored and _read_json(meta_path).get("fingerprint") != meta["fingerprint"]:
        raise UserError(
            f"{path}: holds {len(stored)} answers made with other questions, pictures or decoding than "
            f"{benchmark.name} has now (see {meta_path.name}); move the file away or use another folder"
        )
    write_json(meta_path, meta)
    return {row["uid"]: row for row in stored if row["uid"] in uids}


def _row(item: Item, answer: Mapping[str, Any]) -> dict[str, Any]:
    image = item.prompt.images[0].path if item.prompt.images else None
    return {
        "uid": item.uid,
        "cluster": item.cluster,
        "image": None if image is None else str(image),
        "question": item.prompt.text,
        "truth": item.truth,
    } | {key: answer[key] for key in _ANSWER_KEYS}


def _answer(sampled: Answered) -> dict[str, Any]:
    return {"answer": sampled.text, "num_tokens": sampled.num_tokens, "truncated": sampled.truncated}


def _prompt_key(prompt: Prompt) -> str:
    pictures = [str(image.path) if image.path else _picture(image) for image in prompt.images]
    return json.dumps([prompt.text, [(turn.role, turn.text) for turn in prompt.history], pictures])


def _picture(image: Any) -> str:
    return image.path.name if image.path else hashlib.sha256(image.data).hexdigest()


def _rows_path(folder: Path, name: str) -> Path:
    return folder / "evaluate" / f"{name}.jsonl"


def _meta_path(folder: Path, name: str) -> Path:
    return folder / "evaluate" / f"{name}.json"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}; a JSON object is needed")
    return found
