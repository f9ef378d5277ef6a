"""Runs a benchmark on a policy, shared by processes if wanted, resumes it, and scores kept answers again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from verisight.data.files import append_jsonl, write_json, write_jsonl
from verisight.evaluate.benchmark import Benchmark, Item, Judged
from verisight.evaluate.folders import add_entry, meta_path, read_object, read_rows, rows_path, shard_path, shards
from verisight.evaluate.health import count, refusal
from verisight.evaluate.table import headline
from verisight.types import Decoding, Prompt, UserError

Progress = Callable[[int, int], None]
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


class Shard(NamedTuple):
    """Which part of the work is ours: number `index` (from 0) of `num` processes."""

    index: int = 0
    num: int = 1


WHOLE = Shard()


def run_benchmark(
    policy: Sampler, benchmark: Benchmark, *, folder: Path, batch_size: int, model: str | None = None,
    progress: Progress | None = None, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Answers what isn't answered yet, scores everything, and returns the benchmark's entry of the summary.

    See `answer_items` and `score_folder`.
    """
    items = benchmark.items()
    answer_items(
        policy, benchmark, items, folder=folder, batch_size=batch_size, model=model, progress=progress, seed=seed
    )
    return score_folder(benchmark, folder=folder, seed=seed, items=items)


def answer_items(
    policy: Sampler, benchmark: Benchmark, items: Sequence[Item], *, folder: Path, batch_size: int,
    shard: Shard = WHOLE, model: str | None = None, progress: Progress | None = None, seed: int = 0,
) -> bool:  # fmt: skip
    """Answers this shard's items that have no answer yet. Returns whether now all items have one.

    Answers are appended batch by batch to `folder`/evaluate/<name>.jsonl (of a shard: to its own file), so that a
    killed run continues, with another number of processes if need be. The same pictures and text are asked once,
    however many items share them. `folder` belongs to one model: answers found there are taken for this policy's.
    `model` names its weights (`models.weights_hash`), if known: then answers of other weights are refused.
    `progress` gets (items answered, items), of this shard. `seed` feeds sampling decodings.

    Raises:
        UserError: the stored answers were made with other questions, decoding or weights.
    """
    rows = _resume(benchmark, items, folder, model)
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(_prompt_key(item.prompt), []).append(item)
    ours = [group for at, group in enumerate(groups.values()) if at % shard.num == shard.index]
    num_ours, num_done = sum(map(len, ours)), sum(item.uid in rows for group in ours for item in group)
    path = shard_path(folder, benchmark.name, *shard)

    def keep(answered: Iterable[tuple[Item, Mapping[str, Any]]]) -> None:
        nonlocal num_done
        for item, answer in answered:
            rows[item.uid] = _row(item, answer)
            append_jsonl(path, rows[item.uid])
            num_done += 1
        if progress is not None:
            progress(num_done, num_ours)

    waiting = []
    for group in ours:
        known = next((rows[item.uid] for item in group if item.uid in rows), None)
        missing = [item for item in group if item.uid not in rows]
        if known is not None and missing:
            keep((item, known) for item in missing)
        elif missing:
            waiting.append(missing)
    keep(())
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        prompts = [group[0].prompt for group in batch]
        drawn = policy.sample(prompts, num=1, decoding=benchmark.decoding, seed=seed + len(rows))
        keep((item, _answer(one[0])) for group, one in zip(batch, drawn, strict=True) for item in group)
    if shard.num > 1:
        rows |= {row["uid"]: row for row in read_rows(folder, benchmark.name)}
    return all(item.uid in rows for item in items)


def score_folder(
    benchmark: Benchmark, *, folder: Path, seed: int = 0, items: Sequence[Item] | None = None
) -> dict[str, Any]:
    """Scores the stored answers, without the model: rewrites rows and summary, returns the summary's entry.

    A benchmark with a judge asks it here; its replies are kept. The entry: metrics, num_items, decoding, protocol,
    counts (`health.count`), refused ("", or why its headline can't be trusted), version and judge where there are any.

    Raises:
        UserError: answers are missing, or were made with other questions or decoding.
    """
    items = benchmark.items() if items is None else items
    found = _resume(benchmark, items, folder)
    path = rows_path(folder, benchmark.name)
    missing = [item.uid for item in items if item.uid not in found]
    if missing:
        raise UserError(f"{path}: {len(missing)} of {len(items)} answers are missing, the first is {missing[0]!r}")
    rows = [_row(item, found[item.uid]) for item in items]
    scored = benchmark.score(benchmark.judge(rows, folder) if isinstance(benchmark, Judged) else rows)
    counts = count(scored)
    entry = {
        "metrics": benchmark.summary(scored, seed=seed),
        "num_items": len(scored),
        "decoding": asdict(benchmark.decoding) | {"stop": list(benchmark.decoding.stop)},
        "protocol": benchmark.protocol,
        "headline": list(headline(benchmark.name)),
        "counts": counts,
        "refused": refusal(counts),
        "model_sha256": read_object(meta_path(folder, benchmark.name)).get("model_sha256"),
    } | (benchmark.about() if isinstance(benchmark, Judged) else {})
    write_jsonl(path, scored)
    add_entry(folder, benchmark.name, entry)
    for part in shards(folder, benchmark.name):
        part.unlink(missing_ok=True)
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


def _resume(
    benchmark: Benchmark, items: Sequence[Item], folder: Path, model: str | None = None
) -> dict[str, dict[str, Any]]:
    """Stored rows by uid, checked to belong to these items; notes the fingerprint of a fresh run."""
    path, meta_file = rows_path(folder, benchmark.name), meta_path(folder, benchmark.name)
    uids = {item.uid for item in items}
    assert len(uids) == len(items), f"{benchmark.name}: item uids must be unique"
    meta = {"fingerprint": fingerprint(items, benchmark.decoding), "num_items": len(items)}
    stored = read_rows(folder, benchmark.name)
    if stored and read_object(meta_file).get("fingerprint") != meta["fingerprint"]:
        raise UserError(
            f"{path}: holds {len(stored)} answers made with other questions, pictures or decoding than "
            f"{benchmark.name} has now (see {meta_file.name}); move the file away or use another folder"
        )
    known = read_object(meta_file).get("model_sha256") if stored else None
    if model is not None and known is not None and known != model:
        told = f"{known[:12]}, here {model[:12]}"
        raise UserError(
            f"{path}: holds {len(stored)} answers of a model with other weights ({told}); move the file away or use "
            "another folder"
        )
    write_json(meta_file, meta | {"model_sha256": model or known})
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
