"""Public preference sets re-enacted: their construction in the pocket world, written in their own file formats.

What a human or GPT-4V judged is judged here by the oracle (`verisight.pocket.oracle`), whose annotators err as
`verisight.pocket.raters` says; `noise` in [0, 1] is 0 for none and 1 for verdicts at random. The pictures are scenes
of the preference split, real JPEG files. The same settings give the same files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from verisight.data.files import replacing, write_atomic, write_json, write_jsonl
from verisight.pocket.datasets import write_split
from verisight.pocket.language import Narrator
from verisight.pocket.oracle import correct, judge
from verisight.pocket.raters import ASPECTS, interaction, prefer, rate, spoil, suspect
from verisight.pocket.voices import FALLIBLE, RANKED, VOICES, Asked, existence, gather, tell
from verisight.progress import track
from verisight.types import UserError

_MULTI_TURN_FRACTION = 0.3  # LLaVA-RLHF rows with a question before the description
_INSERTION_FRACTION = 0.25  # RLHF-V corrections that also add what was left out
_RATED_ANSWERS = 4  # VLFeedback answers a prompt


def write_all(folder: Path, *, num: int, noise: float = 0.1, seed: int = 0, quiet: bool = False) -> list[Path]:
    """Write every set into a folder of its own, from the first `num` scenes of the preference split.

    Args:
        folder: gets povid/, rlhf_v/, llava_rlhf/, vlfeedback/, vlfeedback_corrupted/, nlf/ and llava_instruct/.
        num: scenes. About a third of them is asked about twice, so that sets have up to 1.3 x num rows.
        noise: in [0, 1], how far annotators err; what that does to a set is said at its writer.
        seed: draws questions, answers and verdicts.
        quiet: no progress.

    Returns:
        The data files. Each is written in one piece, after its pictures.

    Raises:
        UserError: `num` below 1 or `noise` outside [0, 1].
    """
    if num < 1:
        raise UserError(f"num: found {num}, accepted: 1 or more scenes")
    if not 0 <= noise <= 1:
        raise UserError(f"noise: found {noise}, accepted: 0 to 1")
    asked = gather(num=num, seed=seed, quiet=quiet)
    paths = []
    with track("files", total=len(WRITERS) + 1, unit="files", quiet=quiet) as advance:
        for name, write in WRITERS.items():
            paths.append(write(folder / name.partition("/")[0], asked, noise=noise, seed=seed))
            advance(1, name)
        paths.append(write_split(folder / "llava_instruct", "preference", num=num) / "llava_instruct.json")
        advance(1, "llava_instruct")
    return paths


def write_povid(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """POVID: the true answer, and a plausible corruption of it. `noise` / 2 of the corruptions are other words only."""
    rows = []
    for one in asked:
        stem = f"COCO_train2014_{one.uid:012d}"
        write_atomic(folder / "images" / f"{stem}.jpg", one.jpeg)
        question = {"from": "human", "value": f"<image>\n{one.task.question}"}
        rejected = spoil(one.task, one.reference, noise=noise, rng=one.rng("povid", seed))
        rows.append(
            {
                "id": stem,
                "image": f"{stem}.jpg",
                "conversations": [question, {"from": "gpt", "value": one.reference}],
                "rejected_conversations": [question, {"from": "gpt", "value": rejected}],
            }
        )
    return _json(folder / "POVID_preference_data_for_VLLMs_version_1.json", rows)


def write_rlhf_v(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """RLHF-V: a model's answer, and its correction sentence by sentence.

    Each sentence is held to be wrong or right by a coin with probability `noise`: wrong ones then stay, true ones are
    "corrected". An answer that comes back unchanged is no row.
    """
    rows: list[dict[str, Any]] = []
    for one in asked:
        rng = one.rng("rlhf_v", seed)
        model = str(rng.choice(FALLIBLE))
        answer = one.answers[model][0]
        wrong = suspect(judge(one.task, answer), noise=noise, rng=rng)
        if not any(wrong):
            continue
        mended = correct(one.task, answer, rng, wrong=wrong, add_missing=rng.random() < _INSERTION_FRACTION)
        name = f"{one.uid:012d}.jpg"
        kind = "detailed description" if one.task.asked is None else "question answering"
        rows.append(
            {
                "ds_name": "RLHF-V",
                "image": {"bytes": one.jpeg, "path": name},
                "text": json.dumps({"question": one.task.question, "chosen": mended, "rejected": answer}),
                "origin_dataset": "pocket",
                "origin_split": json.dumps({"model": model, "type": kind}),
                "idx": len(rows),
                "image_path": name,
            }
        )
    return _parquet(folder / "RLHF-V-Dataset.parquet", rows, _RLHF_V)


def write_llava_rlhf(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """LLaVA-RLHF: two descriptions sampled from the model; the less hallucinated wins, then the more helpful.

    `noise` turns rankings round the oftener the closer the answers (`verisight.pocket.raters.prefer`). Two equal
    answers are no row. Earlier turns are context for the reader only: the answers were drawn without them, because
    the shipped model never learned to describe in a second turn.
    """
    rows = []
    for one in asked:
        first, second = one.answers[RANKED]
        if one.task.asked is not None or first == second:
            continue
        rng = one.rng("llava_rlhf", seed)
        verdict = prefer(judge(one.task, first), judge(one.task, second), noise=noise, rng=rng)
        turns = [one.task.question, one.reference]  # the last turn is a slot, nobody reads its text
        if rng.random() < _MULTI_TURN_FRACTION:
            before = existence(one.task.scene, rng)
            turns = [before.question, tell(before, Narrator(), rng), *turns]
        turns[0] = f"<image>\n{turns[0]}" if rng.random() < 0.5 else f"{turns[0]}\n<image>"
        name = f"{one.uid:012d}.jpg"
        write_atomic(folder / "images" / name, one.jpeg)
        rows.append(
            {
                "id": one.uid,
                "image": name,
                "conversations": [
                    {"from": "gpt" if at % 2 else "human", "value": text} for at, text in enumerate(turns)
                ],
                "output_1": {"from": "llava", "value": first},
                "output_2": {"from": "llava", "value": second},
                "preference": verdict.better,
                "hallucination": verdict.hallucination,
            }
        )
    return _json(folder / "llava_7b_v1_preference.json", rows)


def write_vlfeedback(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """VLFeedback's JSON lines and merged_images/: four voices' answers, each rated on three aspects.

    `noise` replaces ratings by any of the five (`verisight.pocket.raters.rate`). Two questions about one picture share
    their id, as rows of the real set do.
    """
    for one in asked:
        write_atomic(folder / "merged_images" / f"{_stem(one)}.jpg", one.jpeg)
    write_jsonl(folder / "vlfeedback_80k.jsonl", _feedback(asked, noise=noise, seed=seed))
    return folder / "vlfeedback_80k.jsonl"


def write_vlfeedback_parquet(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """The same rows in VLFeedback's later layout: completions as a dict of lists, pictures inside."""
    rows = []
    for one, row in zip(asked, _feedback(asked, noise=noise, seed=seed), strict=True):
        turned = {key: [done[key] for done in row["completions"]] for key in ("annotations", "model", "response")}
        name = f"{_stem(one)}.jpg"
        image = {"bytes": one.jpeg, "path": name}
        rows.append({**row, "completions": turned, "img_path": f"merged_images/{name}", "image": image})
    return _parquet(folder / "data" / "train-00000-of-00001.parquet", rows, _VLFEEDBACK)


def write_vlfeedback_corrupted(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """The paper's VLFeedbackCorrupted in LLaMA-Factory's layout: the best rated answer, and a corruption of that one.

    `noise` is in the ratings, and in the corruptions as at `write_povid`.
    """
    rows = []
    for one, row in zip(asked, _feedback(asked, noise=noise, seed=seed), strict=True):
        chosen = max(row["completions"], key=_total)["response"]
        name = f"images/{_stem(one)}.jpg"
        write_atomic(folder / name, one.jpeg)
        rejected = spoil(one.task, chosen, noise=noise, rng=one.rng("corrupted", seed))
        rows.append(
            {
                "conversations": [{"from": "human", "value": f"<image>{one.task.question}"}],
                "chosen": {"from": "gpt", "value": chosen},
                "rejected": {"from": "gpt", "value": rejected},
                "images": [name],
            }
        )
    return _json(folder / "vlfeedback_corrupted.json", rows)


def write_nlf(folder: Path, asked: Sequence[Asked], *, noise: float, seed: int) -> Path:
    """DRESS's hallucination feedback: an answer, its rating and critique, then refined answers with theirs.

    `noise` replaces ratings by any of the four, and makes a sentence's verdict a coin, so that true sentences are
    criticised and "refined" and wrong ones praised.
    """
    rows = []
    for one in asked:
        name = f"{one.uid:012d}.jpg"
        write_atomic(folder / "images" / name, one.jpeg)
        rng = one.rng("nlf", seed)
        answer = one.answers[str(rng.choice(FALLIBLE))][0]
        turns = interaction(one.task, answer, noise=noise, rng=rng)
        rows.append({"image_id": name, "caption": one.reference, "interaction": turns})
    write_jsonl(folder / "LVLM_NLF" / "hallucination_nlf.jsonl", rows)
    return folder / "LVLM_NLF" / "hallucination_nlf.jsonl"


WRITERS: dict[str, Callable[..., Path]] = {
    "povid": write_povid,
    "rlhf_v": write_rlhf_v,
    "llava_rlhf": write_llava_rlhf,
    "vlfeedback": write_vlfeedback,
    "vlfeedback/data": write_vlfeedback_parquet,
    "vlfeedback_corrupted": write_vlfeedback_corrupted,
    "nlf": write_nlf,
}

_STRING = pa.string()
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _STRING)])
_TEXT = {"dtype": "string", "_type": "Value"}
_PICTURE = {"_type": "Image"}


def _schema(columns: dict[str, pa.DataType], features: dict[str, Any]) -> pa.Schema:
    """Arrow columns, and beside them the feature types that `datasets` writes and reads."""
    return pa.schema(list(columns.items()), {"huggingface": json.dumps({"info": {"features": features}})})


_RLHF_V = _schema(
    {
        "ds_name": _STRING, "image": _IMAGE, "text": _STRING, "origin_dataset": _STRING, "origin_split": _STRING,
        "idx": pa.int64(), "image_path": _STRING,
    },
    {
        "ds_name": _TEXT, "image": _PICTURE, "text": _TEXT, "origin_dataset": _TEXT, "origin_split": _TEXT,
        "idx": {"dtype": "int64", "_type": "Value"}, "image_path": _TEXT,
    },
)  # fmt: skip
_RATED = pa.struct([("Rating", _STRING), ("Rationale", _STRING)])
_COMPLETIONS = pa.struct(
    [
        ("annotations", pa.list_(pa.struct([(aspect, _RATED) for aspect in ASPECTS]))),
        ("model", pa.list_(_STRING)),
        ("response", pa.list_(_STRING)),
    ]
)
_COMPLETION = {
    "annotations": {aspect: {"Rating": _TEXT, "Rationale": _TEXT} for aspect in ASPECTS},
    "model": _TEXT,
    "response": _TEXT,
}
_VLFEEDBACK = _schema(
    {
        "id": _STRING, "prompt": _STRING, "models": pa.list_(_STRING), "completions": _COMPLETIONS,
        "img_path": _STRING, "image": _IMAGE,
    },
    {
        "id": _TEXT, "prompt": _TEXT, "models": {"feature": _TEXT, "_type": "Sequence"},
        "completions": {"feature": _COMPLETION, "_type": "Sequence"}, "img_path": _TEXT, "image": _PICTURE,
    },
)  # fmt: skip


def _feedback(asked: Sequence[Asked], *, noise: float, seed: int) -> Iterator[dict[str, Any]]:
    for one in asked:
        rng = one.rng("vlfeedback", seed)
        models = [str(name) for name in rng.permutation(list(VOICES))[:_RATED_ANSWERS]]
        completions = []
        for name in models:
            said = one.answers[name][0]
            rated = rate(one.task, judge(one.task, said), noise=noise, rng=rng)
            completions.append({"annotations": rated, "model": name, "response": said})
        yield {"id": _stem(one), "prompt": one.task.question, "models": models, "completions": completions}


def _total(completion: dict[str, Any]) -> int:
    return sum(int(rated["Rating"]) for rated in completion["annotations"].values())


def _stem(one: Asked) -> str:
    return f"pocket-{one.uid}"


def _json(path: Path, rows: list[dict[str, Any]]) -> Path:
    write_json(path, rows)
    return path


def _parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    with replacing(path) as handle:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), handle)
    return path
