"""What a study is made from and leaves: files by content, pairs that are asked about, a store that moves or forgets."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from small_studies import InProcess, loaded, write_study
from verisight.cli import app
from verisight.data.files import read_json, read_jsonl, write_json
from verisight.studies.arms import places_of, runs_of
from verisight.studies.collect import collect
from verisight.studies.launch import Failed
from verisight.studies.plan import check_read, plan_study
from verisight.studies.run import forget, missing_of, run_study
from verisight.study import run as runs
from verisight.types import UserError

ORACLE = {"kind": "oracle", "scenes": "world/preference/scenes.json", "noise": 0.0}


def quiet(_: str) -> None:
    """No report."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_study(folder)
    return folder / "world"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Path:
    """Folder of a study of one arm and one seed that was run."""
    file = write_study(tmp_path_factory.mktemp("study"), world=world, **ONE)
    run_study(loaded(file), InProcess(), file=file, report=quiet)
    return file.parent


ONE = {"arms": {"bdhs": {}}, "seeds": [0], "controls": ["base"], "change": {"train.reference": "cached"}}


def copied(whole: Path, target: Path, world: Path) -> Path:
    """The study elsewhere, with scenes of its own."""
    shutil.copytree(whole / "store", target / "store")
    shutil.copytree(world, target / "world")
    return write_study(target, **ONE)


def test_facts_say_which_files_a_run_was_made_from(whole: Path, world: Path, tmp_path: Path) -> None:
    file = copied(whole, tmp_path, world)
    places, (base, bdhs) = places_of(loaded(file)), runs_of(loaded(file), file="")
    told = {run.arm: read_json(places.fact(run.fact or "") / "run.json")["inputs"] for run in (base, bdhs)}
    tests = {"../world/test/instances.json"}
    assert set(told["bdhs"]) == {"pocket", "../world/preference/llava_instruct.json", *tests}
    assert set(told["base"]) == {"pocket", *tests}
    both = {"arms": {"bdhs": {}, "ipo": {"change": {"objective.kind": "ipo"}}}}
    file = write_study(tmp_path, **(ONE | both))
    (tmp_path / "world" / "test" / "instances.json").write_text((world / "test" / "instances.json").read_text() + "\n")
    with pytest.raises(UserError, match=r"\.\./world/test/instances\.json: found contents \w+, base was made from"):
        run_study(loaded(file), InProcess(), file=file, report=quiet)


def test_runs_of_other_contents_are_not_put_beside_each_other(whole: Path, world: Path, tmp_path: Path) -> None:
    file = copied(whole, tmp_path, world)
    *_, bdhs = runs_of(loaded(file), file="")
    told = places_of(loaded(file)).fact(bdhs.fact or "") / "run.json"
    about = read_json(told)
    about["inputs"]["../world/test/instances.json"] = "0" * 16
    write_json(told, about)
    with pytest.raises(UserError, match=r"instances.json: bdhs-0 was made from contents 0+, base-0 from"):
        collect(loaded(file), file=file)


def test_forgetting_leaves_nothing_of_a_run(whole: Path, world: Path, tmp_path: Path) -> None:
    file = copied(whole, tmp_path, world)
    study, places = loaded(file), places_of(loaded(file))
    *_, bdhs = runs_of(study, file="")
    assert list((places.store / "pairs").iterdir())
    assert [path for path in (places.store / "cache").iterdir() if path.is_dir()]
    with FileLock(places.lock(bdhs.key)), pytest.raises(UserError, match="is being made"):
        forget(study, ["bdhs"], file=file)
    shutil.rmtree(places.fact(bdhs.fact or ""))  # as of a run that was cut off
    assert forget(study, ["bdhs"], file=file) == ["bdhs-0"]
    assert forget(study, ["bdhs"], file=file) == []
    left = [path for name in ("pairs", "cache", "runs", "measured") for path in (places.store / name).iterdir()]
    assert [path.name for path in left if path.is_dir()] == [runs_of(study, file="")[0].fact]  # the base's answers
    run_study(study, InProcess(), file=file, report=quiet)
    assert not missing_of(study, file=file, specs=False).missing


def test_parts_can_be_forgotten(world: Path, tmp_path: Path) -> None:
    part = {"change": {"objective.kind": "reward", "evaluate": []}}
    file = write_study(tmp_path, world=world, **(ONE | {"parts": {"rm": part}}))
    places, rm = places_of(loaded(file)), runs_of(loaded(file), file="")[0]
    places.model(rm.key).mkdir(parents=True)
    assert forget(loaded(file), ["rm"], file=file) == ["rm-0"]
    assert not places.run(rm.key).exists()


def test_a_half_trained_run_goes_on_where_all_was_moved_to(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world, tmp_path / "a" / "world")
    source = {"kind": "offline", "data": write_rated(tmp_path / "a")}
    file = write_study(tmp_path / "a", **(ONE | {"arms": {"dpo": {"change": {"source": source}}}}))
    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", lambda *_, **__: sys.exit(137))
        with pytest.raises(Failed):
            run_study(loaded(file), InProcess(), file=file, report=quiet)
    shutil.move(tmp_path / "a", tmp_path / "b")
    moved = tmp_path / "b" / "study.yaml"
    *_, dpo = runs_of(loaded(moved), file="")
    assert (places_of(loaded(moved)).run(dpo.key) / "recipe.yaml").exists()
    run_study(loaded(moved), InProcess(), file=moved, report=quiet)
    assert not missing_of(loaded(moved), file=moved, specs=False).missing


def rated(model: str, stars: str) -> dict[str, object]:
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    told = {name: {"Rating": stars, "Rationale": "x"} for name in aspects}
    return {"annotations": told, "model": model, "response": f"There is a dog. I am {model}."}


def write_rated(folder: Path, *, broken: bool = False) -> dict[str, object]:
    """Two ratings of scenes, one of them with a tie; `broken`: and a row without completions. The data's node."""
    images = sorted((folder / "world" / "preference" / "images").iterdir())[:3]
    rows = []
    for image, stars in zip(images, ("135", "145", "225"), strict=True):
        completions = [rated(name, star) for name, star in zip("abc", stars, strict=True)]
        rows.append(
            {
                "id": image.stem,
                "prompt": "Describe this image in detail.",
                "models": ["a", "b", "c"],
                "completions": completions,
            }
        )
        shutil.copy(image, folder / f"{image.stem}.jpg")
    if broken:
        rows[1]["completions"] = "none"
    (folder / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "vlfeedback", "file": "rated.jsonl", "images": "."}


def annotated(folder: Path, data: dict[str, object], world: Path | None) -> Path:
    """A study of an annotator that is asked about these pairs."""
    file = write_study(
        folder, world=world, arms={"oracle": {"annotator": ORACLE}}, controls=[], seeds=[0], columns=[], rounds=False,
        scatter=None, pairs={"rated": {"change": {"source": {"kind": "offline", "data": data}}}},
    )  # fmt: skip
    return file


def test_pairs_that_a_rule_leaves_out_are_no_faults_of_held_out_pairs(world: Path, tmp_path: Path) -> None:
    (tmp_path / "world").symlink_to(world, target_is_directory=True)
    file = annotated(tmp_path, write_rated(tmp_path), None)
    run_study(loaded(file), InProcess(), file=file, report=quiet)
    places, (oracle,) = places_of(loaded(file)), runs_of(loaded(file), file="")
    rows = read_jsonl(places.store / "measured" / (oracle.fact or "") / "evaluate" / "pairs.rated.jsonl")
    assert len(rows) == 8  # three of three answers, less the one tie
    told = read_json(places.fact(oracle.fact or "") / "run.json")["inputs"]
    assert set(told) == {"../rated.jsonl", "../world/preference/scenes.json"}


def test_broken_held_out_pairs_are_refused(world: Path, tmp_path: Path) -> None:
    (tmp_path / "world").symlink_to(world, target_is_directory=True)
    file = annotated(tmp_path, write_rated(tmp_path, broken=True), None)
    with pytest.raises(Failed, match=r"pairs\.rated: "):
        run_study(loaded(file), InProcess(), file=file, report=quiet)


def test_files_of_annotators_and_of_held_out_pairs_are_looked_for_first(world: Path, tmp_path: Path) -> None:
    file = annotated(tmp_path, {"kind": "povid", "file": "gone.json"}, world)
    tree = yaml.safe_load(file.read_text())
    tree["arms"]["oracle"]["annotator"]["scenes"] = "nowhere.json"
    file.write_text(yaml.safe_dump(tree))
    launcher = InProcess()
    with pytest.raises(UserError) as refused:
        run_study(loaded(file), launcher, file=file, report=quiet)
    assert "gone.json; accepted: " in str(refused.value)
    assert "nowhere.json; accepted: an existing file" in str(refused.value)
    assert launcher.names == []


def test_an_arm_whose_data_cannot_be_read_does_not_run(world: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("[{]")
    data = {"kind": "povid", "file": "broken.json"}
    arms = {"bdhs": {}, "bad": {"change": {"source": {"kind": "offline", "data": data}}}}
    file = write_study(tmp_path, world=world, **(ONE | {"arms": arms, "change": {}}))
    with pytest.raises(UserError, match=r"arms.bad: its budget could not be compared: .*broken.json"):
        check_read(plan_study(loaded(file), file=file), file=file)
    result = CliRunner().invoke(app, ["study", "run", str(file)])
    assert "arms.bad: its budget could not be compared" in str(result.exception)


def test_the_time_of_shared_pairs_counts_once(whole: Path, world: Path, tmp_path: Path) -> None:
    file = copied(whole, tmp_path, world)
    places = places_of(loaded(file))
    for told in places.facts.glob("*/run.json"):
        about = read_json(told)
        seconds = {"evaluate": 2.0} | ({"pairs": 7.0, "train": 6.0} if about["arm"] == "bdhs" else {})
        write_json(told, about | {"seconds": seconds})
    arms = {name: {"change": {"objective.beta": beta}} for name, beta in (("a", 0.2), ("b", 0.3))}
    more = write_study(tmp_path, **(ONE | {"arms": {"bdhs": {}} | arms}))
    assert plan_study(loaded(more), file=more).seconds == pytest.approx(2 * 5.0 + 7.0)


def test_a_study_with_one_seed_says_what_its_intervals_are_over(whole: Path) -> None:
    file = whole / "study.yaml"
    findings, _ = collect(loaded(file), file=file)
    assert findings.notes == ("One seed: intervals and verdicts are over items alone, another seed may say otherwise.",)


@pytest.mark.parametrize("key", ["store", "facts", "output"])
def test_a_file_is_no_folder_of_a_study(world: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "taken").write_text("x")
    file = write_study(tmp_path, world=world, **{key: "taken"})
    with pytest.raises(UserError, match=f"small: {key}: found a file at .*taken; accepted: a folder"):
        runs_of(loaded(file), file="")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a {b: *a}", "an alias stands within what it names"),
        ("[" * 3000, "nested too deep"),
        ("name: 2024-13-45", "not YAML"),
        ("a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
            f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 9)), "more than 100,000 values"),
    ],
    ids=["recursive", "deep", "date", "unfolding"],
)  # fmt: skip
def test_yaml_that_is_no_tree_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    for words in (["study", "plan", str(tmp_path / "study.yaml")], ["report", str(tmp_path)]):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, UserError), result.exception
        assert told in str(result.exception) or "cannot be read as YAML" in str(result.exception)


def test_who_changes_an_entry_that_a_list_lacks_is_named(world: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, world=world, arms={"a": {"change": {"evaluate.7.max_new_tokens": 3}}})
    with pytest.raises(UserError, match=r"study.yaml: arms.a.change: evaluate: found entry '7'; accepted: 0 to 1"):
        runs_of(loaded(file), file=str(file))
