"""Data nodes of recipes: a few lines of YAML, from real files to composed pairs, with a trail of what was done."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from pocket_sets import everything, write_sets
from verisight import build, recipe
from verisight.build.data import first_pairs, read
from verisight.data.files import read_json, read_jsonl, write_json
from verisight.data.readers import FORMATS
from verisight.pocket.datasets import write_split
from verisight.study import run
from verisight.types import UserError

RECIPES = Path(__file__).parent.parent / "recipes"
SETS = sorted((RECIPES / "pocket" / "sets").glob("*.yaml"))
POVID = "povid/POVID_preference_data_for_VLLMs_version_1.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped recipes beside small sets of every kind."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(RECIPES, folder / "recipes")
    write_sets(folder / "runs" / "pocket-sets", everything(), noise=0.1)
    write_split(folder / "runs" / "pocket-sets" / "llava_instruct", "preference", num=2)
    for split in ("preference", "test"):
        write_split(folder / "runs" / "pocket-data", split, num=2)
    return folder


def node(text: str) -> Any:
    return TypeAdapter(recipe.Data).validate_python(yaml.safe_load(text))


@pytest.fixture
def sets(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sets are; the working directory."""
    monkeypatch.chdir(project / "runs" / "pocket-sets")
    return project / "runs" / "pocket-sets"


def povid(*steps: str) -> str:
    then = f", then: [{', '.join(steps)}]" if steps else ""
    return f"{{kind: povid, file: {POVID}, images: povid/images{then}}}"


def test_every_format_has_a_kind_and_every_kind_a_format() -> None:
    kinds = {kind for one in (recipe.Rows, recipe.Rated) for kind in get_args(one.model_fields["kind"].annotation)}
    assert kinds == {one.name for one in FORMATS} | {"auto"}
    assert set(get_args(recipe.Rated.model_fields["kind"].annotation)) == {one.name for one in FORMATS if one.scored}
    told = (RECIPES.parent / "docs" / "data.md").read_text()
    assert all(f"| `{one.name}` |" in told for one in FORMATS)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md"])
def test_the_recipes_that_pages_show_are_recipes(page: str) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", (RECIPES.parent / page).read_text(), re.DOTALL)
    sources = [tree["source"] for text in shown for tree in [yaml.safe_load(text)] if "source" in tree]
    assert any("then" in one["data"] for one in sources)
    for one in sources:
        TypeAdapter(recipe.Source).validate_python(one)


def test_the_large_recipes_of_public_sets_load() -> None:
    for name, kind in (("povid_5k", "povid"), ("vlfeedback_5k", "vlfeedback")):
        one = recipe.load(RECIPES / "llava16_7b" / f"{name}.yaml")
        assert one.source.data.kind == kind
        assert one.source.data.then == (recipe.Take(num=5000),)
        assert one.source.data.file.parent == RECIPES.parent / "data"


@pytest.mark.parametrize("file", SETS, ids=[file.stem for file in SETS])
def test_a_shipped_set_recipe_gives_pairs_that_train(file: Path, project: Path, tmp_path: Path) -> None:
    path = project / "recipes" / "pocket" / "sets" / file.name
    last = len(yaml.safe_load(file.read_text())["source"]["data"]["then"]) - 1
    one = recipe.load(path, [f"source.data.then.{last}.take=4", f"output={tmp_path / 'run'}"])
    made = run.pairs(one, quiet=True)
    assert len(made) == 4
    for pair in made:
        assert pair.chosen.text != pair.rejected[0].text
        assert pair.prompt.provenance.endswith(" > take 4 (seed 0)")
    told = read_json(tmp_path / "run" / "data.json")
    assert told["pairs"] == told["steps"][-1]["pairs"] == 4
    assert {path.name for path in (tmp_path / "run").iterdir()} - {"bad_rows.jsonl"} == {
        *("recipe.sha256", "recipe.yaml", "environment.json", "data.json", "pairs.parquet"),
    }
    assert recipe.load(tmp_path / "run" / "recipe.yaml", [f"output={tmp_path / 'run'}"]) == one


def test_a_run_trains_on_a_composed_set_and_leaves_no_store(project: Path, tmp_path: Path) -> None:
    path, target = project / "recipes" / "pocket" / "sets" / "held_out.yaml", tmp_path / "run"
    words = ["source.data.then.1.take=6", "train.steps=2", "train.batch_size=2", "evaluate=[]", f"output={target}"]
    run.train(recipe.load(path, words), quiet=True)
    assert {path.name for path in target.iterdir()} - {"bad_rows.jsonl"} == {
        *("recipe.sha256", "recipe.yaml", "environment.json", "data.json", "metrics.jsonl", "summary.json", "model"),
    }
    assert read_json(target / "summary.json")["num_pairs"] == 6


def test_negatives_are_made_for_the_chosen_answers_of_any_set(project: Path, tmp_path: Path) -> None:
    one = recipe.load(
        project / "recipes" / "pocket" / "bdhs_dpo.yaml",
        [
            f"source.data={povid('take: 4')}".replace("povid/", f"{project}/runs/pocket-sets/povid/"),
            f"output={tmp_path / 'run'}",
        ],
    )
    made = run.pairs(one, quiet=True)
    assert 0 < len(made) <= 4
    assert all(pair.origin == "bdhs_attn" and pair.notes["dataset"] == "povid" for pair in made)


def test_concat_mix_and_steps_tell_what_they_did(sets: Path, tmp_path: Path) -> None:
    whole = read(node(povid()), folder=tmp_path)
    both = read(node(f"{{kind: concat, parts: [{povid()}, {povid('take: 3')}], then: [take: 5]}}"), folder=tmp_path)
    assert len(both.pairs) == 5
    assert [(line["key"], line["step"], line["pairs"]) for line in both.trail] == [
        ("source.data.parts.0", f"povid {sets / POVID}", len(whole.pairs)),
        ("source.data.parts.1", f"povid {sets / POVID}", len(whole.pairs)),
        ("source.data.parts.1.then.0", "take 3 (seed 0)", 3),
        ("source.data", "concat", len(whole.pairs) + 3),
        ("source.data.then.0", "take 5 (seed 0)", 5),
    ]
    assert both.num_rows == 2 * whole.num_rows
    mixed = read(
        node(f"{{kind: mix, num: 8, parts: [{{share: 3, data: {povid()}}}, {{share: 1, data: {povid('take: 2')}}}]}}"),
        folder=tmp_path,
    )
    assert [pair.prompt.provenance.split(" > ")[-1] for pair in mixed.pairs] == ["mix 0.75"] * 6 + ["mix 0.25"] * 2


def test_train_and_held_out_share_no_picture_and_miss_no_pair(sets: Path, tmp_path: Path) -> None:
    parts = [
        read(node(povid(f"split: {{part: {part}, held_out: 0.4}}")), folder=tmp_path).pairs
        for part in ("train", "held_out")
    ]
    train, held_out = ({pair.prompt.images[0].sha256 for pair in part} for part in parts)
    assert train
    assert held_out
    assert not train & held_out
    assert len(parts[0]) + len(parts[1]) == len(read(node(povid()), folder=tmp_path).pairs)


def test_a_store_is_made_once_and_again_when_the_file_changes(sets: Path, tmp_path: Path) -> None:
    first = read(node(povid()), folder=tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = read(node(povid("take: 2")), folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
    assert (again.trail[0], again.bad) == (first.trail[0], first.bad)
    (tmp_path / "copy.json").write_text((sets / POVID).read_text())
    data = f"{{kind: auto, file: {tmp_path}/copy.json, images: povid/images}}"
    assert len(read(node(data), folder=tmp_path / "s").pairs) == len(first.pairs)
    (tmp_path / "copy.json").write_text("[" + (sets / POVID).read_text()[1:-1].strip().rstrip("]") + ', {"id": 1}]')
    changed = read(node(data), folder=tmp_path / "s")
    assert (len(changed.pairs), changed.num_rows) == (len(first.pairs), first.num_rows + 1)
    assert [bad.reason for bad in changed.bad] == ["missing key"]


def test_a_store_that_a_kill_left_unfinished_is_made_again(sets: Path, tmp_path: Path) -> None:
    whole = list(read(node(povid()), folder=tmp_path).pairs)
    (marker,) = tmp_path.glob("*.json")
    marker.unlink()
    (rows,) = tmp_path.glob("*.arrow")
    rows.write_bytes(rows.read_bytes()[:100])
    assert list(read(node(povid()), folder=tmp_path).pairs) == whole


def test_a_draw_is_the_same_from_a_file_in_another_order(sets: Path, tmp_path: Path) -> None:
    rows = read_json(sets / POVID)
    write_json(tmp_path / "turned.json", rows[::-1])
    turned = f"{{kind: povid, file: {tmp_path}/turned.json, images: povid/images, then: [take: 5]}}"
    drawn, again = (read(node(text), folder=tmp_path / "s").pairs for text in (povid("take: 5"), turned))
    assert sorted(pair.chosen.text for pair in drawn) == sorted(pair.chosen.text for pair in again)
    assert [pair.prompt.uid for pair in drawn] != [pair.prompt.uid for pair in again]


def test_a_draw_is_the_same_from_names_and_from_bytes(sets: Path, tmp_path: Path) -> None:
    lines = (
        "{kind: vlfeedback, file: vlfeedback/vlfeedback_80k.jsonl, images: vlfeedback/merged_images, then: [take: 9]}"
    )
    table = "{kind: vlfeedback, file: vlfeedback/data, then: [take: 9]}"
    drawn = [
        sorted((pair.chosen.text, pair.rejected[0].text) for pair in read(node(text), folder=tmp_path).pairs)
        for text in (lines, table)
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{tak: 5}", "found the step tak: 5; accepted: take: NUMBER, or one of take, filter"),
        ("{take: 5, seed: 1}", "found a step with the keys take, seed; accepted: one step an entry"),
        ("{split: train}", "found the step split: 'train'; accepted: take: NUMBER, or one of take"),
    ],
)
def test_a_step_written_wrongly_is_told_how(step: str, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        node(povid(step))


def test_the_schema_knows_short_steps() -> None:
    text = json.dumps(recipe.json_schema())
    assert '"propertyNames": {"enum": ["take", "filter", "split", "prompts", "replace"]}' in text


def test_what_a_killed_run_left_of_a_store_goes(sets: Path, tmp_path: Path) -> None:
    read(node(povid()), folder=tmp_path)
    (rows,) = tmp_path.glob("*.arrow")
    (marker,) = tmp_path.glob("*.json")
    marker.unlink()
    torn = tmp_path / f".{rows.name}.0123456789ab.tmp"
    torn.touch()
    read(node(povid()), folder=tmp_path)
    assert not torn.exists()


def test_training_takes_the_pairs_that_were_looked_at(project: Path, tmp_path: Path) -> None:
    """A file that changed after `verisight pairs` changes nothing in the folder that holds the pairs."""
    for name in ("povid.yaml", "../bdhs_dpo.yaml"):
        (tmp_path / "r" / "sets").mkdir(parents=True, exist_ok=True)
        shutil.copy(project / "recipes" / "pocket" / "sets" / name, tmp_path / "r" / "sets" / name)
    rows = read_json(project / "runs" / "pocket-sets" / POVID)
    write_json(tmp_path / "rows.json", rows[:6])
    words = [
        f"source.data={{kind: povid, file: {tmp_path}/rows.json, images: {project}/runs/pocket-sets/povid/images}}",
        "train.steps=1", "train.batch_size=2", "evaluate=[]", f"output={tmp_path}/run",
    ]  # fmt: skip
    one = recipe.load(tmp_path / "r" / "sets" / "povid.yaml", words)
    assert len(run.pairs(one, quiet=True)) == 6
    write_json(tmp_path / "rows.json", rows[:9])
    run.train(one, quiet=True)
    assert read_json(tmp_path / "run" / "summary.json")["num_pairs"] == 6


def test_filters(sets: Path, tmp_path: Path) -> None:
    rated = "{kind: vlfeedback, file: vlfeedback/vlfeedback_80k.jsonl, images: vlfeedback/merged_images, then: [%s]}"
    strong = read(node(rated % "filter: {chosen_model: [narrator-truth]}"), folder=tmp_path).pairs
    assert {pair.notes["chosen_model"] for pair in strong} == {"narrator-truth"}
    wide = read(node(rated % "filter: {min_score_gap: 2, max_words: 200}"), folder=tmp_path).pairs
    assert all(pair.notes["chosen_score"] - pair.notes["rejected_score"] > 1.999 for pair in wide)
    whole = read(node(rated % ""), folder=tmp_path).pairs
    gaps = [pair.notes["chosen_score"] - pair.notes["rejected_score"] for pair in whole]
    assert len(wide) == sum(gap > 1.999 for gap in gaps)
    noted = read(node(rated % "filter: {notes: {rejected_model: [pocket, pocket-rho90]}}"), folder=tmp_path).pairs
    assert {pair.notes["rejected_model"] for pair in noted} == {"pocket", "pocket-rho90"}
    margin = (rated % "").replace("then: []", "rule: {kind: margin, least: 2}")
    assert len(read(node(margin), folder=tmp_path).pairs) == len(wide)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("take: 999", r"source\.data\.then\.0: take: found 999 of \d+ pairs; accepted: 1 to \d+"),
        (
            "filter: {notes: {dataset: [vlfeedback]}}",
            r'then\.0: found no pair with notes={"dataset": \["vlfeedback"\]}; the data has dataset povid \(',
        ),
        ("filter: {max_words: 1}", r"source\.data\.then\.0: found no pair with max_words=1; the data has \d+ pairs"),
        (
            "prompts: {which: new, of: {kind: povid, file: povid/POVID_preference_data_for_VLLMs_version_1.json, "
            "images: povid/images}}",
            r"source\.data\.then\.0: new prompts: found no pair among \d+",
        ),
        (
            "replace: {answer: rejected, by: {kind: povid, file: none.json}}",
            r"source\.data\.then\.0: .*none\.json: cannot be read",
        ),
    ],
)
def test_steps_that_find_nothing_say_so(step: str, message: str, sets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(node(povid(step)), folder=tmp_path)


def test_steps_do_not_hide_why_there_is_no_pair(sets: Path, tmp_path: Path) -> None:
    """And pictures that are put there are found at the next try, whatever the folder's date."""
    (tmp_path / "empty" / "images").mkdir(parents=True)
    text = povid("take: 2").replace("povid/images", f"{tmp_path}/empty")
    with pytest.raises(UserError, match=r"source\.data: found no pair in \d+ rows .*: image missing: \d+\. First"):
        read(node(text), folder=tmp_path / "s")
    for picture in (sets / "povid" / "images").iterdir():
        shutil.copy(picture, tmp_path / "empty" / "images")
    assert len(read(node(text), folder=tmp_path / "s").pairs) == 2


def test_rows_at_fault_stop_the_run_and_ties_do_not(project: Path, tmp_path: Path) -> None:
    one = recipe.load(
        project / "recipes" / "pocket" / "sets" / "vlfeedback.yaml", ["source.data.then=[]", f"output={tmp_path}/run"]
    )
    assert len(run.pairs(one, quiet=True)) > 20
    listed = read_jsonl(tmp_path / "run" / "bad_rows.jsonl")
    assert {(row["reason"], row["fault"]) for row in listed} <= {("tie", False), ("chosen equals rejected", False)}
    assert "tie" in {row["reason"] for row in listed}


def test_the_first_pairs_need_no_store(sets: Path) -> None:
    found = first_pairs(node(f"{{kind: concat, parts: [{povid('take: 2')}, {povid()}]}}"), rows=3)
    assert (len(found.pairs), found.num_rows) == (4, 4)  # two of each
    assert first_pairs(node(f"{{kind: mix, parts: [{{share: 1, data: {povid()}}}]}}"), rows=2).num_rows == 2


def test_supervised_rows_cannot_be_compared_unless_they_are_given_rejected_answers() -> None:
    supervised = "{kind: llava_instruct, file: a.json, then: [%s]}"
    assert not recipe.compares(node(supervised % ""))
    assert not recipe.compares(node(f"{{kind: concat, parts: [{povid()}, {supervised % ''}]}}"))
    assert recipe.compares(node(supervised % "replace: {answer: rejected, by: {kind: auto, file: b.json}}"))
    assert recipe.compares(node(f"{{kind: mix, parts: [{{share: 1, data: {povid()}}}]}}"))
    replaced = supervised % "replace: {answer: rejected, by: {kind: auto, file: b.json}}"
    assert recipe.replaces_rejected(node(f"{{kind: concat, parts: [{povid()}, {replaced}]}}"))
    assert not recipe.replaces_rejected(node(povid()))


def test_rows_without_a_rejected_answer_are_bad_rows_of_a_comparison(sets: Path, tmp_path: Path) -> None:
    one = recipe.load(
        sets.parent.parent / "recipes" / "pocket" / "sets" / "povid.yaml",
        [
            "source.data={kind: auto, file: llava_instruct/preference/llava_instruct.json, "
            "images: llava_instruct/preference/images}",
            f"output={tmp_path}/run",
        ],
    )
    with pytest.raises(UserError, match=r"4 of 4 rows .* no rejected answer: 4"):
        build.examples(one, "source", one.source)
