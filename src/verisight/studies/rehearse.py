"""A study's rehearsal: every arm for one step, with the pocket model and re-enacted files in place of the real ones.

What a rehearsal finds is that every recipe runs from data to table; its numbers mean nothing, and are kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from verisight.data.files import write_atomic
from verisight.recipe import Arm, Likelihood, Study, World
from verisight.studies.arms import composed, places_of
from verisight.types import UserError

_SETS = {  # kind of the real data -> file and pictures of its re-enactment
    "povid": ("povid/POVID_preference_data_for_VLLMs_version_1.json", "povid/images"),
    "rlhf_v": ("rlhf_v/RLHF-V-Dataset.parquet", None),
    "llava_rlhf": ("llava_rlhf/llava_7b_v1_preference.json", "llava_rlhf/images"),
    "vlfeedback": ("vlfeedback/vlfeedback_80k.jsonl", "vlfeedback/merged_images"),
    "llama_factory": ("vlfeedback_corrupted/vlfeedback_corrupted.json", "vlfeedback_corrupted/images"),
    "nlf": ("nlf/LVLM_NLF/hallucination_nlf.jsonl", "nlf/images"),
    "llava_instruct": ("llava_instruct/preference/llava_instruct.json", "llava_instruct/preference/images"),
}
_PAIRS = 8
_SHORT, _WHOLE = 16, 96  # tokens of an answer; one that is judged has to come to its end
_DROPPED = ("filter", "prompts")  # steps that look for names and prompts of the real sets


def rehearsal(study: Study, *, file: Path) -> Study:
    """The study as it is rehearsed: its recipes, rewritten, are in the store's folder `rehearsal`.

    Raises:
        UserError: an arm reads a data set of which there is no re-enactment.
    """
    root = places_of(study).store / "rehearsal"
    world = study.world or World(data=root / "pocket-data", sets=root / "pocket-sets")
    assert world.data is not None
    sets, splits = world.sets or root / "pocket-sets", world.data

    def rewritten(where: str, name: str, arm: Arm) -> Arm:
        if arm.annotator is not None:
            return arm.model_copy(update={"annotator": Likelihood(path="pocket", dtype="float32")})
        models = {part: f"${part}" for part in study.parts}
        one = composed(study, f"{where}.{name}", arm, study.seeds[0], str(file), models=models)
        tree = one.model_dump(mode="json", exclude={"output"})
        parts = list(_parts(tree, models))
        tree = _small(tree, sets, splits, where=f"{file}: {where}.{name}")
        path = root / study.name / f"{where}-{name}.yaml"
        write_atomic(path, yaml.safe_dump(tree | {"output": "rehearsed"}, sort_keys=False))
        return Arm(recipe=path, change=dict(parts), label=arm.label)

    base = rewritten("base", "base", Arm()).recipe if study.base is not None else None
    changed = {
        "base": base, "change": {}, "seeds": study.seeds[:1], "store": root / "store", "output": root / "output",
        "facts": root / "facts", "world": World(data=splits, sets=sets), "num_pairs": _PAIRS,
    }  # fmt: skip
    for where in ("arms", "parts", "pairs"):
        changed[where] = {name: rewritten(where, name, arm) for name, arm in getattr(study, where).items()}
    return Study.model_validate(study.model_copy(update=changed).model_dump())


def _parts(value: Any, models: dict[str, str], key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys whose value is the model of a part."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        here = f"{key}.{name}" if key else str(name)
        if isinstance(part, str) and part in models.values():
            yield here, part
        yield from _parts(part, models, here)


def _small(tree: dict[str, Any], sets: Path, splits: Path, *, where: str) -> dict[str, Any]:
    tree = _stood_in(tree, sets, where)
    test = splits / "test"
    files = {"images": str(test / "images"), "instances": str(test / "instances.json")}
    few = {"steps": 1, "epochs": None, "batch_size": 2, "micro_batch_size": None, "lr": 1e-5, "projector_lr": None}
    rest = {
        "checkpoint_every": None,
        "keep_checkpoints": 1,
        "cache": None,
        "trackers": [],
        "gradient_checkpointing": False,
    }
    tree["model"] |= {"path": "pocket", "dtype": "float32"}
    if tree["model"]["tune"]["kind"] == "lora":
        tree["model"]["tune"] |= {"r": 4, "alpha": 8}
    tree["train"] |= few | rest
    if tree["evaluate"]:
        tree["evaluate"] = [{"kind": "chair", "limit": 2, "max_new_tokens": 8} | files,
                            {"kind": "pope", "num_images": 2, "per_image": 1} | files]  # fmt: skip
    if tree.get("diagnose"):
        tree["diagnose"] |= {"num": 2, "max_new_tokens": 8, "data": None}
    if tree["source"]["kind"] == "rollouts":
        small = {"batch_size": 2, "max_new_tokens": 8, "normalize": 4, "guard": None}
        tree["source"] |= {key: value for key, value in small.items() if key in tree["source"]}
    return tree


def _stood_in(value: Any, sets: Path, where: str) -> Any:
    """The tree with data sets, judges, encoders and models that are not here replaced by the pocket world's."""
    if isinstance(value, list):
        return [_stood_in(part, sets, where) for part in value]
    if not isinstance(value, dict):
        return value
    if "file" in value and "then" in value:
        return _data(value, sets, where)
    kind = value.get("kind")
    if kind in ("judge", "http", "local"):
        scenes = str(sets / "llava_instruct" / "preference" / "scenes.json")
        return {"kind": "scribe", "scenes": scenes} if kind != "judge" else {"kind": "oracle", "scenes": scenes}
    found = {key: _stood_in(part, sets, where) for key, part in value.items()}
    if kind == "dissimilar":
        found |= {"encoder": "pocket", "eps": 0.97}
    if kind in ("likelihood", "reward") and "path" in found and not str(found["path"]).startswith("$"):
        found |= {"path": "pocket", "dtype": "float32"}
    if "max_new_tokens" in found and isinstance(found["max_new_tokens"], int):
        most = _WHOLE if "annotator" in found else _SHORT
        found["max_new_tokens"] = min(found["max_new_tokens"], most)
    return found


def _data(node: dict[str, Any], sets: Path, where: str) -> dict[str, Any]:
    if node["kind"] not in _SETS:
        raise UserError(f"{where}: found data of kind {node['kind']}; a rehearsal knows {', '.join(_SETS)}")
    path, images = _SETS[node["kind"]]
    steps = [_stood_in(step, sets, where) for step in node["then"] if step["kind"] not in (*_DROPPED, "take")]
    if any(step["kind"] == "take" for step in node["then"]) or not steps:
        steps.append({"kind": "take", "num": _PAIRS, "seed": 0})
    pictures = None if images is None else str(sets / images)
    return node | {"file": str(sets / path), "images": pictures, "limit": None, "then": steps}
