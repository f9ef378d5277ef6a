"""Rehearsals: every arm for a step, with the pocket world in the place of models, judges and data that are not here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from judged_world import write_world
from small_studies import InProcess, loaded, write_study
from verisight.data.files import read_jsonl
from verisight.pocket.datasets import write_split
from verisight.recipe.study import World
from verisight.studies.arms import places_of, runs_of
from verisight.studies.rehearse import rehearsal
from verisight.studies.run import missing_of, run_study
from verisight.types import UserError

DATA = {"kind": "povid", "file": "gone/povid.json", "images": "gone/pictures", "then": [{"take": 5000}]}
JUDGE = {"kind": "judge", "chat": {"kind": "http", "url": "http://localhost:1/v1", "model": "judge-34b"}}
ARMS = {
    "dpo": {},
    "online": {"change": {"source": {"kind": "online", "data": DATA, "annotator": JUDGE, "max_new_tokens": 256}}},
    "rloo": {"change": {"source": {"kind": "rollouts", "data": DATA, "rewards": [{"rewarder": {"kind": "reward",
             "path": "$rm"}}]}, "objective": {"kind": "rloo"}}},
}  # fmt: skip
PARTS = {"rm": {"change": {"objective": {"kind": "reward"}, "evaluate": []}}}


def write_paper_sized(folder: Path) -> Path:
    """A study of a 7B model on files that are not here, judged by a server that does not answer."""
    change = {
        "model.path": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "source": {"kind": "offline", "data": DATA},
        "train.steps": 4000,
    }
    file = write_study(folder, arms=ARMS, controls=["base"], change=change, varies=["tokens"], parts={
        name: {"change": change | part["change"]} for name, part in PARTS.items()
    })  # fmt: skip
    return file


def test_every_arm_of_a_study_that_is_too_large_runs_for_a_step(tmp_path: Path) -> None:
    sets = write_world(tmp_path / "sets")
    shutil.copytree(sets / "preference", sets / "llava_instruct" / "preference")
    write_split(tmp_path / "splits", "test", num=3)
    file = write_paper_sized(tmp_path)
    world = World(data=tmp_path / "splits", sets=sets)
    study = rehearsal(loaded(file).model_copy(update={"world": world}), file=file)
    run_study(study, InProcess(), file=file, report=lambda _: None)
    assert not missing_of(study, file=file, specs=False).missing
    places = places_of(study)
    assert places.store.is_relative_to(tmp_path / "store" / "rehearsal")
    for run in runs_of(study, file=str(file)):
        assert run.recipe is not None
        assert (run.recipe.model.path, run.recipe.train.steps) == ("pocket", 1)
        if run.arm in ("dpo", "online", "rloo"):
            assert len(read_jsonl(places.run(run.key) / "metrics.jsonl")) == 1
    assert not (tmp_path / "store" / "runs").exists()


def test_a_rehearsal_says_which_data_it_cannot_stand_in_for(tmp_path: Path) -> None:
    arms = {"dpo": {"change": {"source": {"kind": "offline", "data": {"kind": "bpo", "file": "gone.json"}}}}}
    file = write_study(tmp_path, arms=arms, controls=[])
    with pytest.raises(UserError, match=r"arms.dpo: found data of kind bpo; a rehearsal knows povid, rlhf_v"):
        rehearsal(loaded(file), file=file)
