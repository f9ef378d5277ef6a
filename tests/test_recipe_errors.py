"""Recipes: what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipe_samples import BASE, OFFLINE, SFT_DATA, refusal, write, write_base
from verisight import recipe


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good recipe in recipes/base.yaml; the working directory is its grandparent."""
    monkeypatch.chdir(tmp_path)
    return write_base(tmp_path)


def test_extends_in_a_circle_is_refused(base: Path) -> None:
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "extends: ./a.yaml\n")
    text = refusal(Path("recipes/a.yaml"))
    assert text == "recipes/a.yaml -> recipes/b.yaml -> recipes/a.yaml: found a circle of `extends`; accepted: a line"


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
        "model: {tune: {kind: lora, targets: vision}}",
        "model.tune.targets: found 'vision'; accepted: 'language' or 'all' (whose",
    ),
    ("objective: dpo", "objective: found 'dpo'; accepted: a mapping of keys (how answers are compared)"),
    ("objective: {kind: 3}", "objective.kind: found 3; accepted: dpo, ipo, slic, calibrated_slic, gpo, "),
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
    told = "a value (where pairs, or rated answers, come from)"
    assert lines[2] == f"recipes/c.yaml: source: found nothing; accepted: {told}"


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
        "accepted: preference data, or a source of kind generated, which makes them",
    ),
    (
        ["train.projector_lr=1e-5", "model.train_projector=false"],
        "train.projector_lr: found 1e-05 with model.train_projector false; "
        "accepted: empty, or model.train_projector true",
    ),
    (
        ["train.reference=adapter_off"],
        "train.reference: found adapter_off with full tuning, which has no adapter; "
        "accepted: auto, frozen_copy or cached",
    ),
    (
        [*SFT_DATA, "objective.kind=sft", "train.reference=frozen_copy"],
        "train.reference: found frozen_copy with objective sft, which has none; accepted: auto",
    ),
    (
        [*SFT_DATA, "objective.kind=sft", "train.reference=cached"],
        "train.reference: found cached with objective sft, which has none; accepted: auto",
    ),
    (
        ["source.when=online", "train.reference=cached"],
        "train.reference: found cached with a source whose pairs are not known beforehand; "
        "accepted: auto, adapter_off or frozen_copy",
    ),
    (
        ["model.tune={kind: lora, targets: all}"],
        "model.tune.targets: found all, which puts an adapter on the projector, with model.train_projector true; "
        "accepted: language, or model.train_projector false",
    ),
    (
        ["model={path: pocket, tune: {kind: lora, targets: all}, train_projector: false}", "train.image_features=disk"],
        "train.image_features: found disk with model.tune.targets all, which trains the vision tower; accepted: live",
    ),
    (
        ["train.cache=/kept", "train.image_features=memory"],
        "train.cache: found /kept with nothing to keep there; "
        "accepted: empty, train.reference cached, or train.image_features disk",
    ),
    (
        ["source.negatives.view={kind: masked, scope: answer, positions: compact}"],
        "source.negatives.view: found positions compact with scope answer, which keeps every token; "
        "accepted: positions original",
    ),
    (
        ["evaluate=[{kind: pope, images: p, instances: i}, {kind: pope, images: p, instances: j}]"],
        "evaluate: found pope 2 times, all in one file; accepted: each once",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), CONTRADICTIONS)
def test_contradictions_are_refused(base: Path, overrides: list[str], message: str) -> None:
    assert refusal(base, *overrides) == f"command line: {message}"


def test_contradictions_are_listed_together_with_their_files(base: Path) -> None:
    text = refusal(base, "objective.kind=sft", "train.reference=adapter_off")
    assert text.splitlines() == [
        "recipes/base.yaml: source.kind: found generated with objective sft, which ignores rejected answers; "
        "accepted: a source of kind offline, or mixed of such",
        "command line: train.reference: found adapter_off with objective sft, which has none; accepted: auto",
        "command line: train.reference: found adapter_off with full tuning, which has no adapter; "
        "accepted: auto, frozen_copy or cached",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [*SFT_DATA, "objective.kind=sft"],
        [*OFFLINE, "objective.kind=sft"],
        OFFLINE,
        ["model.tune.kind=lora", "train.reference=adapter_off"],
        ["train.projector_lr=1e-5"],
        ["train.reference=cached", "train.cache=kept"],
        ["train.reference=cached", "model.tune.kind=lora", "train.image_features=memory"],
        ["train.image_features=disk", "train.cache=kept", "source.when=online"],
        ["model={path: pocket, tune: {kind: lora, targets: all}, train_projector: false}"],
        ["train.scoring=padded"],
        ["source.negatives.view.scope=answer"],
        ["source.negatives.decoding.temperature=0"],
        ["train.checkpoint_every=5", "train.keep_checkpoints=2", "train.micro_batch_size=16"],
    ],
)
def test_neighbours_of_the_contradictions_are_fine(base: Path, overrides: list[str]) -> None:
    assert recipe.load(base, overrides) != recipe.load(base)
