"""Recipes: what is read, what is refused and in which words, and what comes out again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from verisight import recipe
from verisight.recipe.yaml_tree import node_types
from verisight.types import UserError

SHIPPED = sorted((Path(__file__).parent.parent / "recipes").glob("*/*.yaml"))

BASE = """
output: runs/here
model: {path: pocket, tune: {kind: full}}
source:
  kind: generated
  data: {kind: llava_instruct, file: rows.json, images: pictures}
  negatives: {view: {kind: masked, rho: 0.5}}
objective: {kind: dpo, beta: 0.2}
train: {steps: 10, lr: 5e-7}
evaluate:
  - {kind: chair, images: pictures, instances: i.json}
  - {kind: pope, images: pictures, instances: i.json}
"""
OFFLINE = ("source.kind=offline", "source.data={kind: pairs, file: p.parquet}")
SFT_DATA = ("source.kind=offline", "source.data={kind: llava_instruct, file: rows.json, images: pictures}")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good recipe in recipes/base.yaml; the working directory is its grandparent."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    path = Path("recipes/base.yaml")
    path.write_text(BASE)
    return path


def write(name: str, text: str) -> Path:
    path = Path("recipes") / name
    path.write_text(text)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        recipe.load(path, overrides)
    return str(caught.value)


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
    assert loaded.source.data == recipe.Instruct(
        file=tmp_path / "recipes/rows.json", images=tmp_path / "recipes/pictures"
    )
    assert loaded.evaluate[0].instances == tmp_path / "typed.json"
    assert loaded.evaluate[1].instances == tmp_path / "recipes/i.json"


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


# --- extends ---------------------------------------------------------------------------------------------


def test_extends_merges_deeply_and_paths_stay_with_the_file_that_wrote_them(
    base: Path, tmp_path: Path
) -> None:
    Path("recipes/deep").mkdir()
    child = write("deep/child.yaml", "extends: ../base.yaml\nsource: {data: {file: other.json}}\nseed: 4\n")
    loaded = recipe.load(child)
    assert loaded.seed == 4
    assert loaded.source.data.file == tmp_path / "recipes/deep/other.json"
    assert loaded.source.data == recipe.Instruct(
        file=tmp_path / "recipes/deep/other.json", images=tmp_path / "recipes/pictures"
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


def test_extends_in_a_circle_is_refused(base: Path) -> None:
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "extends: ./a.yaml\n")
    text = refusal(Path("recipes/a.yaml"))
    assert (
        text
        == "recipes/a.yaml -> recipes/b.yaml -> recipes/a.yaml: found a circle of `extends`; accepted: a line"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: nowhere.yaml",
            "c.yaml: extends: recipes/nowhere.yaml: No such file or directory; accepted: a YAML",
        ),
        ("extends: [a.yaml]", r"c.yaml: extends: found \['a.yaml'\]; accepted: the path of one recipe file"),
        ("- a", "c.yaml: found a list; accepted: a YAML mapping of recipe keys"),
        ("", "c.yaml: found an empty file; accepted: a YAML mapping"),
        ("a: [1,", r"c.yaml: found text that is not YAML \(line 1: .*\); accepted: a YAML mapping"),
        ("a: 1\nb: 2\na: 3", r"not YAML \(line 3: the key 'a' is written twice\)"),
        ("a: !!python/object:os.system {}", "not YAML .*could not determine a constructor"),
    ],
)
def test_files_that_are_not_recipes(base: Path, text: str, message: str) -> None:
    assert re.search(message, refusal(write("c.yaml", text)))


def test_a_missing_file_a_folder_and_bytes_are_refused(base: Path) -> None:
    assert refusal(Path("no.yaml")) == "no.yaml: No such file or directory; accepted: a YAML recipe file"
    assert refusal(Path("recipes")) == "recipes: Is a directory; accepted: a YAML recipe file"
    Path("raw.yaml").write_bytes(b"\xff\xfe\x00")
    assert "raw.yaml: found text that is not YAML ('utf-8' codec can't decode" in refusal(Path("raw.yaml"))


# --- overrides -------------------------------------------------------------------------------------------


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
    assert switched.source == recipe.Offline(data=recipe.Pairs(file=Path("p.parquet")))
    assert switched.objective == recipe.Sft()


def test_an_override_reaches_into_a_list(base: Path) -> None:
    loaded = recipe.load(base, ["evaluate.1.num_images=7", "evaluate.0.limit=3"])
    chair, pope = loaded.evaluate
    assert isinstance(chair, recipe.Chair)
    assert isinstance(pope, recipe.Pope)
    assert (chair.limit, pope.num_images) == (3, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "command line: found 'seed'; accepted: key.path=value, for example train.lr=1e-6"),
        (
            "train..lr=1",
            "command line: found 'train..lr=1'; accepted: key.path=value, for example train.lr=1e-6",
        ),
        ("evaluate.2.limit=1", "command line: evaluate: found entry '2'; accepted: 0 to 1"),
        ("evaluate.first.limit=1", "command line: evaluate: found entry 'first'; accepted: 0 to 1"),
        (
            "train.lr.x=1",
            "command line: train.lr.x: train.lr is 5e-07 and has no key 'x'; accepted: a key of the recipe",
        ),
        (
            "train.rl=1",
            "command line: train.rl: found an unknown key (did you mean lr?); accepted: steps, epochs,",
        ),
        (
            "objective.beta=-1",
            "command line: objective.beta: found -1; accepted: greater than 0 (weight of staying",
        ),
        ("source.kind=offline", "command line: source.data: found nothing; accepted: a value (the rows)"),
        (
            "source.kind=generatd",
            "command line: source.kind: found 'generatd' (did you mean generated?); accepted: offline",
        ),
    ],
)
def test_overrides_that_are_refused(base: Path, override: str, message: str) -> None:
    assert refusal(base, override).startswith(message)


def test_an_override_that_is_not_yaml_and_one_past_an_empty_list(base: Path) -> None:
    assert re.fullmatch(
        r"command line: seed: found '\[1'; accepted: a YAML value \(line 1: .*\)", refusal(base, "seed=[1")
    )
    text = refusal(base, "evaluate=[]", "evaluate.0.limit=1")
    assert text == "command line: evaluate: found entry '0'; accepted: no entry, the list is empty"


# --- values ----------------------------------------------------------------------------------------------

BAD_VALUES = [
    ("sead: 1", "sead: found an unknown key (did you mean seed?); accepted: seed, output, model, source, "),
    ("1: 2", "1: found an unknown key; accepted: seed, output"),
    ("seed: true", "seed: found True; accepted: a valid integer (start of every random stream of the run)"),
    ("seed: 1.0", "seed: found 1.0; accepted: a valid integer"),
    ("seed: -1", "seed: found -1; accepted: greater than or equal to 0"),
    ("output:", "output: found None; accepted: "),
    ("output: ''", "output: found an empty path; accepted: a path"),
    (
        "max_bad_fraction: 2",
        "max_bad_fraction: found 2; accepted: less than or equal to 1 (share of unusable rows",
    ),
    ("max_bad_fraction: .nan", "max_bad_fraction: found nan; accepted: a finite number"),
    ("model: pocket", "model: found 'pocket'; accepted: a mapping of keys (the model that is aligned)"),
    (
        "model: {path: ''}",
        "model.path: found ''; accepted: at least 1 character (model folder,",
    ),
    ("model: {dtype: fp16}", "model.dtype: found 'fp16'; accepted: 'float32' or 'bfloat16' (number format"),
    ("model: {train_projector: 1}", "model.train_projector: found 1; accepted: a valid boolean"),
    (
        "model: {tune: {kind: lara}}",
        "model.tune.kind: found 'lara' (did you mean lora?); accepted: lora, full",
    ),
    (
        "model: {tune: {kind: lora, targets: all}}",
        "model.tune.targets: found 'all'; accepted: 'language' (whose",
    ),
    ("objective: dpo", "objective: found 'dpo'; accepted: a mapping of keys (how answers are compared)"),
    ("objective: {kind: 3}", "objective.kind: found 3; accepted: dpo, sft"),
    ("objective: {label_smoothing: 0.5}", "objective.label_smoothing: found 0.5; accepted: less than 0.5"),
    (
        "source: {negatives: {view: {rhoo: 1}}}",
        "source.negatives.view.rhoo: found an unknown key (did you mean rho?)",
    ),
    (
        "source: {negatives: {view: {rho: half}}}",
        "source.negatives.view.rho: found 'half'; accepted: a valid number",
    ),
    (
        "source: {negatives: {check: {rounds: 0}}}",
        "source.negatives.check.rounds: found 0; accepted: greater than",
    ),
    (
        "source: {negatives: {decoding: {top_p: 0}}}",
        "source.negatives.decoding.top_p: found 0; accepted: greater",
    ),
    ("source: {data: {file: [a]}}", "source.data.file: found ['a']; accepted: "),
    ("train: {adam_betas: [0.9]}", "train.adam_betas.1: found nothing; accepted: a value"),
    ("train: {adam_betas: [0.9, 1]}", "train.adam_betas.1: found 1; accepted: less than 1"),
    (
        "train: {schedule: cosin}",
        "train.schedule: found 'cosin'; accepted: 'cosine', 'constant' or 'linear' (",
    ),
    ("evaluate: {kind: pope}", "evaluate: found {'kind': 'pope'}; accepted: a list (what is measured"),
    ("evaluate: [{kind: chair, images: p}]", "evaluate.0.instances: found nothing; accepted: a value (COCO"),
    ("evaluate: [{images: p}]", "evaluate.0.kind: found nothing; accepted: chair, pope"),
    ("evaluate: [pope]", "evaluate.0: found 'pope'; accepted: a mapping of keys"),
]


@pytest.mark.parametrize(("text", "message"), BAD_VALUES)
def test_bad_values_name_file_key_found_and_accepted(base: Path, text: str, message: str) -> None:
    lines = refusal(write("c.yaml", f"extends: base.yaml\n{text}\n")).splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"recipes/c.yaml: {message}")


def test_all_problems_come_at_once_each_with_the_file_that_wrote_it(base: Path) -> None:
    base.write_text(BASE.replace("rho: 0.5", "rho: 5"))
    child = write("c.yaml", "extends: base.yaml\nseed: x\n")
    assert [line.split(": found")[0] for line in refusal(child, "train.lr=0").splitlines()] == [
        "recipes/c.yaml: seed",
        "recipes/base.yaml: source.negatives.view.rho",
        "command line: train.lr",
    ]


def test_missing_top_level_keys_are_listed(base: Path) -> None:
    lines = refusal(write("c.yaml", "seed: 1\n")).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "output",
        "model",
        "source",
        "objective",
        "train",
    ]
    assert lines[2] == "recipes/c.yaml: source: found nothing; accepted: a value (where pairs come from)"


# --- contradictions --------------------------------------------------------------------------------------

CONTRADICTIONS = [
    (["train.epochs=2"], "train: found steps 10 and epochs 2.0; accepted: one set, one null"),
    (["train.steps=null"], "train: found steps None and epochs None; accepted: one set, one null"),
    (["train.micro_batch_size=17"], "train: found micro_batch_size 17; accepted: 1 to batch_size (16)"),
    (["train.keep_checkpoints=2"], "train: found keep_checkpoints 2; accepted: only with checkpoint_every"),
    (
        ["source.negatives.decoding={temperature: 0, top_p: 0.9}"],
        "source.negatives.decoding: found top_p 0.9 with temperature 0, which ignores it; accepted: 1",
    ),
    (
        list(SFT_DATA),
        "source.data.kind: found llava_instruct, which has no rejected answers, with objective dpo; "
        "accepted: data of kind pairs, or a source of kind generated, which makes them",
    ),
    (
        ["train.projector_lr=1e-5", "model.train_projector=false"],
        "train.projector_lr: found 1e-05 with model.train_projector false; "
        "accepted: empty, or model.train_projector true",
    ),
    (
        ["train.reference=adapter_off"],
        "train.reference: found adapter_off with full tuning, which has no adapter; "
        "accepted: auto or frozen_copy",
    ),
    (
        [*SFT_DATA, "objective.kind=sft", "train.reference=frozen_copy"],
        "train.reference: found frozen_copy with objective sft, which has none; accepted: auto",
    ),
    (
        ["evaluate=[{kind: pope, images: p, instances: i}, {kind: pope, images: p, instances: j}]"],
        "evaluate: found pope 2 times, all in one file; accepted: each kind once",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), CONTRADICTIONS)
def test_contradictions_are_refused(base: Path, overrides: list[str], message: str) -> None:
    assert refusal(base, *overrides) == f"command line: {message}"


def test_contradictions_are_listed_together_with_their_files(base: Path) -> None:
    text = refusal(base, "objective.kind=sft", "train.reference=adapter_off")
    assert text.splitlines() == [
        "recipes/base.yaml: source.kind: found generated with objective sft, which ignores rejected answers; "
        "accepted: a source of kind offline",
        "command line: train.reference: found adapter_off with objective sft, which has none; accepted: auto",
        "command line: train.reference: found adapter_off with full tuning, which has no adapter; "
        "accepted: auto or frozen_copy",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [*SFT_DATA, "objective.kind=sft"],
        [*OFFLINE, "objective.kind=sft"],
        OFFLINE,
        ["model.tune.kind=lora", "train.reference=adapter_off"],
        ["train.projector_lr=1e-5"],
        ["source.negatives.decoding.temperature=0"],
        ["train.checkpoint_every=5", "train.keep_checkpoints=2", "train.micro_batch_size=16"],
    ],
)
def test_neighbours_of_the_contradictions_are_fine(base: Path, overrides: list[str]) -> None:
    recipe.load(base, overrides)


# --- files -----------------------------------------------------------------------------------------------


def test_check_files_names_what_is_not_there(base: Path, tmp_path: Path) -> None:
    loaded = recipe.load(base, ["model.path=./gone", "source.negatives.check.encoder=a/b/c"])
    with pytest.raises(UserError) as caught:
        recipe.check_files(loaded)
    model = "an existing model folder, a hub id (owner/name) or `pocket`"
    folder = tmp_path / "recipes"
    assert str(caught.value).splitlines() == [
        f"model.path: found nothing at {tmp_path}/gone; accepted: {model}",
        f"source.data.file: found nothing at {folder}/rows.json; accepted: an existing file",
        f"source.data.images: found nothing at {folder}/pictures; accepted: an existing folder",
        f"source.negatives.check.encoder: found nothing at a/b/c; accepted: {model}",
        f"evaluate.0.images: found nothing at {folder}/pictures; accepted: an existing folder",
        f"evaluate.0.instances: found nothing at {folder}/i.json; accepted: an existing file",
        f"evaluate.1.images: found nothing at {folder}/pictures; accepted: an existing folder",
        f"evaluate.1.instances: found nothing at {folder}/i.json; accepted: an existing file",
    ]


def test_check_files_passes_when_all_is_there_and_sees_optional_files(base: Path) -> None:
    Path("recipes/pictures").mkdir()
    for name in ("rows.json", "i.json"):
        Path("recipes", name).touch()
    recipe.check_files(recipe.load(base))
    with pytest.raises(
        UserError, match=r"evaluate\.1\.captions: found nothing at .*/c\.json; accepted: an existing file"
    ):
        recipe.check_files(recipe.load(base, ["evaluate.1.captions=c.json"]))


# --- out again -------------------------------------------------------------------------------------------


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


# --- meaning ---------------------------------------------------------------------------------------------


def all_nodes(node: type) -> set[type]:
    below = {found for field in node.model_fields.values() for found in node_types(field.annotation)}
    return {node}.union(*(all_nodes(found) for found in below))


def test_every_node_and_every_field_says_what_it_is() -> None:
    nodes = all_nodes(recipe.Recipe)
    assert {recipe.Lora, recipe.Masked, recipe.Sampling, recipe.Pope} <= nodes
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
