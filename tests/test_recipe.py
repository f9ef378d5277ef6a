"""Recipes: what is read and what comes out again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from recipe_samples import BASE, OFFLINE, write, write_base
from verisight import recipe
from verisight.recipe.yaml_tree import node_types

_OTHERS = ("accelerate",)  # configurations of launchers
SHIPPED = sorted(
    file for file in (Path(__file__).parent.parent / "recipes").glob("*/*.yaml") if file.parent.name not in _OTHERS
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good recipe in recipes/base.yaml; the working directory is its grandparent."""
    monkeypatch.chdir(tmp_path)
    return write_base(tmp_path)


def test_load_reads_every_kind_of_node(base: Path) -> None:
    loaded = recipe.load(base)
    assert isinstance(loaded.source, recipe.Generated)
    assert loaded.source.negatives.view == recipe.Masked(rho=0.5)
    assert loaded.source.negatives.check == recipe.Dissimilar()
    assert loaded.objective == recipe.Dpo(beta=0.2)
    assert loaded.train.lr == 5e-7
    assert [type(benchmark) for benchmark in loaded.evaluate] == [recipe.Chair, recipe.Pope]


def test_a_recipe_is_frozen(base: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe.load(base).seed = 3  # pyrefly: ignore[read-only]


def test_relative_paths_count_from_the_file_and_output_and_overrides_from_the_working_directory(
    base: Path, tmp_path: Path
) -> None:
    loaded = recipe.load(base, ["evaluate.0.instances=typed.json"])
    assert loaded.output == tmp_path / "runs/here"
    assert loaded.source.data == recipe.Rows(
        kind="llava_instruct", file=tmp_path / "recipes/rows.json", images=tmp_path / "recipes/pictures"
    )
    assert loaded.evaluate[0].instances == tmp_path / "typed.json"
    assert loaded.evaluate[1].instances == tmp_path / "recipes/i.json"


def test_a_cache_counts_from_the_file_that_names_it(base: Path, tmp_path: Path) -> None:
    child = write("c.yaml", "extends: base.yaml\ntrain: {cache: ../kept, reference: cached}\n")
    assert recipe.load(child).train.cache == tmp_path / "kept"
    assert recipe.load(child, ["train.cache=here"]).train.cache == tmp_path / "here"


def test_a_model_is_a_hub_id_unless_it_is_a_folder(base: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes/tuned").mkdir()
    folders = {"./mine": tmp_path / "mine", "recipes/tuned": tmp_path / "recipes/tuned", "/a/b": Path("/a/b")}
    for written, meant in folders.items():
        assert recipe.load(base, [f"model.path={written}"]).model.path == str(meant)
    for name in ("pocket", "llava-hf/llava-1.5-7b-hf"):
        assert recipe.load(base, [f"model.path={name}"]).model.path == name


def test_the_kind_of_a_default_node_may_be_left_out(base: Path) -> None:
    loaded = recipe.load(base, ["source.negatives.check.rounds=2", "source.negatives.guidance={}"])
    assert isinstance(loaded.source, recipe.Generated)
    assert loaded.source.negatives.check == recipe.Dissimilar(rounds=2)


def test_extends_merges_deeply_and_paths_stay_with_the_file_that_wrote_them(base: Path, tmp_path: Path) -> None:
    Path("recipes/deep").mkdir()
    child = write("deep/child.yaml", "extends: ../base.yaml\nsource: {data: {file: other.json}}\nseed: 4\n")
    loaded = recipe.load(child)
    assert loaded.seed == 4
    assert loaded.source.data.file == tmp_path / "recipes/deep/other.json"
    assert loaded.source.data == recipe.Rows(
        kind="llava_instruct", file=tmp_path / "recipes/deep/other.json", images=tmp_path / "recipes/pictures"
    )
    assert loaded.objective == recipe.Dpo(beta=0.2)


def test_extends_with_another_kind_replaces_the_node_and_with_the_same_merges(base: Path) -> None:
    view = "extends: base.yaml\nsource: {negatives: {view: {kind: %s}}}\n"
    clean, masked = (recipe.load(write("c.yaml", view % kind)).source for kind in ("clean", "masked"))
    assert isinstance(clean, recipe.Generated)
    assert clean.negatives.view == recipe.Clean()
    assert isinstance(masked, recipe.Generated)
    assert masked.negatives.view == recipe.Masked(rho=0.5)


def test_extends_replaces_lists(base: Path) -> None:
    assert recipe.load(write("c.yaml", "extends: base.yaml\nevaluate: []\n")).evaluate == ()


def test_overrides_are_yaml_values_in_order(base: Path) -> None:
    loaded = recipe.load(
        base,
        [
            "train.lr=1e-6",
            "train.steps=null",
            "train.epochs=2",
            "train.adam_betas=[0.8, 0.9]",
            "seed=1",
            "seed=2",
        ],
    )
    assert (loaded.train.lr, loaded.train.steps, loaded.train.epochs) == (1e-6, None, 2.0)
    assert (loaded.train.adam_betas, loaded.seed) == ((0.8, 0.9), 2)


def test_an_override_of_kind_clears_the_old_variants_keys(base: Path) -> None:
    loaded = recipe.load(base, ["source.negatives.view.kind=clean", "objective.kind=dpo"])
    assert isinstance(loaded.source, recipe.Generated)
    assert loaded.source.negatives.view == recipe.Clean()
    assert loaded.objective == recipe.Dpo(beta=0.2)
    switched = recipe.load(base, [*OFFLINE, "objective.kind=sft"])
    assert switched.source == recipe.Offline(data=recipe.Rows(kind="pairs", file=Path("p.parquet")))
    assert switched.objective == recipe.Sft()


def test_an_override_reaches_into_a_list(base: Path) -> None:
    loaded = recipe.load(base, ["evaluate.1.num_images=7", "evaluate.0.limit=3"])
    chair, pope = loaded.evaluate
    assert isinstance(chair, recipe.Chair)
    assert isinstance(pope, recipe.Pope)
    assert (chair.limit, pope.num_images) == (3, 7)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_recipes_load_and_survive_dump_and_load(path: Path, tmp_path: Path) -> None:
    loaded = recipe.load(path)
    saved = tmp_path / "elsewhere" / "recipe.yaml"
    saved.parent.mkdir()
    saved.write_text(recipe.dump(loaded))
    assert recipe.load(saved) == loaded
    assert recipe.recipe_hash(recipe.load(saved)) == recipe.recipe_hash(loaded)


def test_the_shipped_control_differs_in_source_objective_and_output_only() -> None:
    folder = SHIPPED[0].parent.parent / "pocket"
    bdhs, sft = recipe.load(folder / "bdhs_dpo.yaml"), recipe.load(folder / "sft.yaml")
    assert sft == bdhs.model_copy(
        update={
            "source": recipe.Offline(data=bdhs.source.data),
            "objective": recipe.Sft(),
            "output": sft.output,
        }
    )


def test_dump_keeps_small_numbers_nulls_and_unicode(base: Path) -> None:
    loaded = recipe.load(base, ["evaluate.0.prompt=Was ist zu sehen? 图", "train.lr=5e-7"])
    base.write_text(recipe.dump(loaded))
    assert recipe.load(base) == loaded
    assert "图" in base.read_text(encoding="utf-8")


def test_hash_ignores_output_key_order_and_spelling_of_numbers(base: Path) -> None:
    tree = yaml.safe_load(BASE)
    same = {key: tree[key] for key in reversed(tree)} | {"output": "elsewhere"}
    same["train"] = {"lr": 0.0000005, "steps": 10, "batch_size": 16, "max_grad_norm": 1}
    other = write("other.yaml", yaml.safe_dump(same, sort_keys=False))
    digest = recipe.recipe_hash(recipe.load(base))
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert recipe.recipe_hash(recipe.load(other)) == digest


@pytest.mark.parametrize("override", ["seed=1", "objective.beta=0.3", "evaluate.0.limit=1", "model.path=a/b"])
def test_hash_changes_with_every_setting(base: Path, override: str) -> None:
    assert recipe.recipe_hash(recipe.load(base, [override])) != recipe.recipe_hash(recipe.load(base))


def all_nodes(*nodes: type) -> set[type]:
    found, ahead = set(), list(nodes)
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += [below for field in node.model_fields.values() for below in node_types(field.annotation)]
    return found


def test_every_node_and_every_field_says_what_it_is() -> None:
    nodes = all_nodes(recipe.Recipe)
    assert {recipe.Lora, recipe.Masked, recipe.Sampling, recipe.Pope, recipe.Take, recipe.Part} <= nodes
    for node in nodes:
        assert node.__doc__
        for name, field in node.model_fields.items():
            assert name == "kind" or (field.description and "\n" not in field.description), f"{node} {name}"


def test_explain_gives_value_meaning_and_source_of_every_setting(base: Path) -> None:
    rows = {row.key: row for row in recipe.explain(recipe.load(base))}
    rho = rows["source.negatives.view.rho"]
    assert (rho.value, rho.source) == (0.5, "Amirloo et al. 2024 (arXiv 2407.02477) eq. 6")
    assert rho.meaning == "share of image tokens hidden, 0 none to 1 all"
    assert rows["objective.kind"][1:3] == ("dpo", "Direct preference optimization")
    assert rows["objective.kind"].source.startswith("Rafailov et al. 2023, eq. 7")
    assert rows["seed"].source == ""
    assert rows["train"].source == "Loshchilov and Hutter 2019"
    assert {"evaluate.0.limit", "evaluate.1.parser", "model.tune.kind"} <= rows.keys()
    assert all(row.meaning for row in rows.values())


def test_json_schema_names_every_key_and_needs_none_with_extends() -> None:
    schema = recipe.json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == {*recipe.Recipe.model_fields, "extends"}
    assert schema["anyOf"][1] == {"required": ["extends"]}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Masked"]["properties"]["rho"]["maximum"] == 1


def test_importing_and_loading_recipes_imports_no_torch() -> None:
    code = (
        "import sys; from verisight import recipe; recipe.load(sys.argv[1]); recipe.json_schema();"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(SHIPPED[0])], check=True, timeout=60)
