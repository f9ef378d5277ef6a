"""Studies: what is made once, what is refused, and results that are the same however they came about."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from small_studies import InProcess, loaded, write_study
from verisight.cli import app
from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.paired import MEASURES
from verisight.studies.arms import content_key, places_of, runs_of
from verisight.studies.budget import Budget, budgets_of, check_budgets, differences
from verisight.studies.collect import collect
from verisight.studies.facts import read_counts
from verisight.studies.launch import Failed
from verisight.studies.plan import listings, plan_study
from verisight.studies.results import write_results
from verisight.studies.run import forget, missing_of, run_study
from verisight.types import UserError


def quiet(_: str) -> None:
    """No report."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_study(folder)
    return folder / "world"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, world: Path) -> tuple[Path, list[str]]:
    """A study that was run, and the tasks that it took."""
    file = write_study(tmp_path_factory.mktemp("study"), world=world)
    launcher = InProcess()
    run_study(loaded(file), launcher, file=file, report=quiet)
    return file, launcher.names


def results_of(file: Path, target: Path) -> bytes:
    findings, results = collect(loaded(file), file=file)
    return write_results(results, findings.rows, findings.columns, target / "results.json").read_bytes()


def test_pairs_that_arms_share_are_made_once_and_the_base_is_measured_once(made: tuple[Path, list[str]]) -> None:
    _, names = made
    assert [name for name in names if name.startswith("pairs")] == ["pairs of bdhs-0", "pairs of bdhs-1"]
    runs = ["base-0", "sft_chosen-0", "bdhs-0", "ipo-0", "sft_chosen-1", "bdhs-1", "ipo-1"]
    assert [name for name in names if not name.startswith("pairs")] == runs


def test_arms_that_share_pairs_train_on_the_same_ones(made: tuple[Path, list[str]]) -> None:
    study = loaded(made[0])
    folders = [places_of(study).run(run.key) for run in runs_of(study, file="") if run.arm in ("bdhs", "ipo")]
    seeds = [(folder / "pairs.parquet").read_bytes() for folder in folders]
    assert seeds[0] == seeds[1]
    assert seeds[2] == seeds[3]
    assert seeds[0] != seeds[2]


def test_a_study_that_is_whole_runs_nothing(made: tuple[Path, list[str]]) -> None:
    file, _ = made
    launcher = InProcess()
    run_study(loaded(file), launcher, file=file, report=quiet)
    assert launcher.names == []


def test_another_study_runs_only_what_is_new(made: tuple[Path, list[str]]) -> None:
    file, _ = made
    other = file.with_name("other.yaml")
    arms = {"bdhs": {}, "slic": {"change": {"objective.kind": "slic"}}}
    other.write_text(json.dumps({"extends": "study.yaml", "name": "other", "seeds": [1, 2], "arms": arms}))
    tree = loaded(other)
    names = {f"{run.arm}-{run.seed}" for run in missing_of(tree, file=other, specs=False).missing}
    assert {"slic-1", "slic-2", "sft_chosen-2", "bdhs-2", "ipo-2"} == names


def test_the_same_recipes_elsewhere_give_the_same_keys_and_numbers(
    made: tuple[Path, list[str]], world: Path, tmp_path: Path
) -> None:
    file, _ = made
    again = write_study(tmp_path, world=world, seeds=[0], arms={"bdhs": {"label": "BDHS"}})
    run_study(loaded(again), InProcess(), file=again, report=quiet)
    first, second = loaded(file), loaded(again)
    keys = {run.arm: run.fact for run in runs_of(first, file="") if run.seed == 0}
    for run in runs_of(second, file=""):
        assert run.fact == keys[run.arm]
        for name in ("chair", "pope"):
            folders = [places_of(study).fact(run.fact or "") for study in (first, second)]
            one, two = (read_counts(folder, name, name) for folder in folders)
            assert one.uids == two.uids
            assert all((one.measures[key].counts == two.measures[key].counts).all() for key in one.measures)


def test_results_come_from_facts_alone(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    file, _ = made
    shutil.copytree(file.parent / "store" / "facts", tmp_path / "facts")
    study = loaded(file).model_copy(update={"store": tmp_path / "nothing", "facts": tmp_path / "facts"})
    before = json.loads(results_of(file, tmp_path))
    assert before["missing"] == []
    for fact in {fact for facts in before["facts"].values() for fact in facts.values()}:
        assert (study.facts or tmp_path) / fact / "run.json" in sorted((tmp_path / "facts").glob("*/run.json"))
    shutil.rmtree(tmp_path / "facts" / before["facts"]["ipo"]["1"])
    _, results = collect(study.model_copy(update={"store": places_of(loaded(file)).store}), file=file)
    assert results.missing == ("ipo-1",)
    findings, _ = collect(study.model_copy(update={"store": places_of(loaded(file)).store}), file=file)
    whole, half = findings.rows[2:]
    assert all(cell.to_base is not None and cell.to_base.p_holm is not None for cell in whole.cells[:2])
    assert all(cell.to_base is not None and cell.to_base.p_holm is None for cell in half.cells)
    assert all(cell.to_base is not None and cell.to_base.verdict == "can't tell" for cell in half.cells)
    assert (whole.seeds, half.seeds) == ((0, 1), (0,))


def test_facts_hold_counts_and_no_texts(made: tuple[Path, list[str]]) -> None:
    study = loaded(made[0])
    for run in runs_of(study, file=""):
        folder = places_of(study).fact(run.fact or "")
        rows = read_jsonl(places_of(study).store / "measured" / (run.fact or "") / "evaluate" / "chair.jsonl")
        kept = read_counts(folder, "chair", "chair")
        assert kept.uids == [row["uid"] for row in rows]
        assert all((kept.measures[name].counts == one.counts).all() for name, one in MEASURES["chair"](rows).items())
        stored = (folder / "counts" / "chair.parquet").read_bytes()
        assert max(rows, key=lambda row: len(row["answer"]))["answer"].encode() not in stored
        assert str(made[0].parent) not in (folder / "run.json").read_text()


def test_the_findings_have_every_arm_pairs_answers_and_rounds(made: tuple[Path, list[str]]) -> None:
    findings, results = collect(loaded(made[0]), file=made[0])
    assert [row.key for row in findings.rows] == ["base", "sft_chosen", "bdhs", "ipo"]
    assert results.missing == ()
    assert {row.key: row.seeds for row in findings.rows} == {
        "base": (0,), "sft_chosen": (0, 1), "bdhs": (0, 1), "ipo": (0, 1)
    }  # fmt: skip
    base, control, bdhs, _ = findings.rows
    assert all(cell.to_base is None for cell in base.cells)
    assert all(cell.to_base is not None and cell.to_control is None for cell in control.cells)
    assert all(cell.to_base is not None and cell.to_control is not None for cell in bdhs.cells)
    assert {one.arm for one in findings.pairs} == {"BDHS", "IPO"}
    assert len(findings.answers) == 6
    assert all(len(one.answers) == 4 and findings.pictures[one.picture] for one in findings.answers)
    assert {one.label for one in findings.rounds} == {"BDHS", "IPO"}
    assert all(0 <= share <= 1 for one in findings.rounds for share in one.shares)
    assert {one.quantity for one in findings.curves} >= {"loss", "margin of log-ratios"}


def test_arms_of_unequal_budgets_are_refused_unless_the_study_says_so(world: Path, tmp_path: Path) -> None:
    arms = {"bdhs": {}, "long": {"change": {"train.steps": 3}}, "few": {"change": {"source.data.limit": 3}}}
    file = write_study(tmp_path, world=world, arms=arms)
    with pytest.raises(UserError) as refused:
        plan_study(loaded(file), file=file)
    told = str(refused.value)
    assert "steps: found 2 steps of 2 in sft_chosen, bdhs, few; 3 steps of 2 in long" in told
    assert "pairs: found" in told
    assert "prompts: found" in told
    declared = write_study(tmp_path, arms=arms, varies=["steps", "pairs", "prompts", "tokens"])
    assert plan_study(loaded(declared), file=declared).missing == 9


def test_a_plan_says_pairs_steps_tokens_cost_and_what_could_be_found(made: tuple[Path, list[str]]) -> None:
    file, _ = made
    planned = plan_study(loaded(file), file=file)
    assert (planned.there, planned.missing, planned.seconds) == (7, 0, 0.0)
    assert [one.arm for one in planned.budgets] == ["sft_chosen", "bdhs", "ipo"]
    sft, bdhs, ipo = planned.budgets
    assert bdhs.steps == sft.steps == (2, 2)
    assert bdhs.tokens == ipo.tokens == pytest.approx(2 * (sft.tokens or 0), abs=1)
    assert bdhs.pairs == sft.pairs
    assert bdhs.flops is not None
    assert {one.column.key for one in planned.detectable} == set(loaded(file).columns)
    assert all(one.difference > 0 for one in planned.detectable if one.item_error or one.seed_deviation)
    assert len(list(listings(planned))) == 3


def test_what_is_not_here_is_compared_by_what_recipes_say(tmp_path: Path, world: Path) -> None:
    gone = {"kind": "povid", "file": "gone.json", "then": [{"take": 5}]}
    arms = {
        "a": {"change": {"source": {"kind": "offline", "data": gone}}},
        "b": {"change": {"source": {"kind": "offline", "data": gone | {"then": [{"take": 7}]}}}},
    }
    file = write_study(tmp_path, world=world, arms=arms, controls=["base"])
    budgets = budgets_of(loaded(file), file=file)
    assert [(one.pairs, bool(one.unread)) for one in budgets] == [(5, True), (7, True)]
    with pytest.raises(UserError, match="pairs: found 5 in a; 7 in b"):
        check_budgets(loaded(file), budgets, file=file)


def budget(arm: str, tokens: int, **changes: object) -> Budget:
    return Budget(arm, "base", 10, (10, "x"), (2, 2), tokens, 1.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tokens", "refused"), [(100, False), (120, False), (121, True)])
def test_tokens_may_differ_by_a_fifth_and_the_supervised_arm_has_fewer(tokens: int, refused: bool) -> None:
    found = list(differences([budget("a", 100), budget("b", tokens), budget("sft", 50, supervised=True)], []))
    assert bool(found) == refused


def test_a_failed_arm_is_named_and_the_others_run(world: Path, tmp_path: Path) -> None:
    arms = {"bad": {"change": {"train.lr": 1e12, "train.max_grad_norm": 1e12}}, "good": {}}
    file = write_study(tmp_path, world=world, arms=arms, seeds=[0], controls=["base"])
    with pytest.raises(Failed, match=r"1 of 4 tasks failed, 0 more need them\nbad-0: "):
        run_study(loaded(file), InProcess(), file=file, report=quiet)
    findings, results = collect(loaded(file), file=file)
    assert [row.key for row in findings.rows] == ["base", "good"]
    assert results.missing == ("bad-0",)


def test_forgotten_arms_are_missing_again(world: Path, tmp_path: Path, made: tuple[Path, list[str]]) -> None:
    shutil.copytree(made[0].parent / "store", tmp_path / "store")
    file = write_study(tmp_path, world=world)
    assert forget(loaded(file), ["ipo"], file=file) == ["ipo-0", "ipo-1"]
    assert [run.arm for run in missing_of(loaded(file), file=file, specs=False).missing] == ["ipo", "ipo"]
    with pytest.raises(UserError, match="found no arm nope; accepted: base, bdhs, ipo, sft_chosen"):
        forget(loaded(file), ["ipo", "nope"], file=file)


def test_reference_log_probs_are_computed_once_for_arms_with_the_same_pairs(world: Path, tmp_path: Path) -> None:
    arms = {"bdhs": {}, "slic": {"change": {"objective.kind": "slic"}}}
    file = write_study(
        tmp_path, world=world, arms=arms, seeds=[0], controls=["base"], change={"train.reference": "cached"}
    )
    run_study(loaded(file), InProcess(), file=file, report=quiet)
    [stored] = (tmp_path / "store" / "cache").glob("*/reference.jsonl")
    rows = read_jsonl(stored)
    assert len(rows) == len({json.dumps(row, sort_keys=True) for row in rows}) > 0
    plain = write_study(tmp_path, world=None, arms=arms, seeds=[0], controls=["base"])
    run_study(loaded(plain), InProcess(), file=plain, report=quiet)
    by_reference = {}
    for study in (loaded(file), loaded(plain)):
        keys = [run.key for run in runs_of(study, file="") if run.arm == "slic"]
        losses = [row["loss"] for row in read_jsonl(places_of(study).run(keys[0]) / "metrics.jsonl")]
        by_reference[len(by_reference)] = losses
    assert by_reference[0] == pytest.approx(by_reference[1], rel=1e-4)


def test_an_arm_needs_its_part_wherever_the_store_is(world: Path, tmp_path: Path) -> None:
    part = {"change": {"objective.kind": "reward", "evaluate": [], "source.when": "offline"}}
    arms = {"a": {"change": {"source": {"kind": "online", "data": {"kind": "llava_instruct", "file": "x.json"},
                                        "annotator": {"kind": "reward", "path": "$rm"}}}}}  # fmt: skip
    file = write_study(
        tmp_path, world=world, arms=arms, parts={"rm": part}, seeds=[0], store="stor\u00e9", controls=["base"]
    )
    runs = {run.arm: run for run in runs_of(loaded(file), file="")}
    assert runs["a"].needs == (runs["rm"].key,)


def test_a_misspelt_metric_is_told(made: tuple[Path, list[str]]) -> None:
    study = loaded(made[0]).model_copy(update={"columns": ("chair/typo",)})
    with pytest.raises(UserError, match="chair/typo: found no such metric; accepted: chair_i"):
        collect(study, file=made[0])


def test_keys_count_paths_from_the_store(tmp_path: Path) -> None:
    one = content_key({"file": str(tmp_path / "a" / "x.json")}, tmp_path / "a" / "store")
    two = content_key({"file": str(tmp_path / "b" / "x.json")}, tmp_path / "b" / "store")
    assert one == two
    assert one != content_key({"file": str(tmp_path / "a" / "y.json")}, tmp_path / "a" / "store")


def test_keys_are_of_what_is_run(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    file, _ = made
    study = loaded(file)

    def keys(**changes: object) -> list[tuple[str, str | None]]:
        changed = study.model_copy(update={"change": changes, "seeds": (0,)})
        return [(run.key, run.fact) for run in runs_of(changed, file="") if run.arm == "bdhs"]

    ((key, fact),) = keys()
    ((again, other),) = keys(**{"evaluate": [{"kind": "grounded", "form": str(tmp_path)}]})
    assert (again, other != fact) == (key, True)
    ((another, _),) = keys(**{"train.lr": 2e-4})
    assert another != key


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": {"a": {"change": {"objective.beta": -1}}}}, "arms.a.change: objective.beta: found -1"),
        ({"arms": {"a": {"change": {"objctive.beta": 1}}}}, "unknown key"),
        ({"arms": {"a": {"change": {"source.data.file": "$rm"}}}}, r"found \$rm; accepted: \$ and a part"),
        ({"arms": {"base": {}}}, "found the name of a control"),
        ({"seeds": [1, 1]}, "each once"),
        ({"base": None}, "arms.bdhs.recipe: found nothing"),
        ({"varies": ["luck"]}, "varies"),
        ({"arms": {"a": {"annotator": {"kind": "likelihood", "path": "pocket"}}}}, "pairs: found none"),
        ({"sweeps": [{"title": "x", "x_label": "x", "metric": "chair/recall", "series": {"s": {"z": 1}}}]}, "arm z"),
        ({"arms": {"A b": {}}}, "arms"),
        ({"unknown": 1}, "unknown"),
        ({"arms": {"a": {"change": {"seed": 7}}}}, r"arms.a.change.seed: found in a study"),
        ({"change": {"output": "x"}}, r"change.output: found in a study"),
        (
            {"arms": {"a": {}, "b": {"change": {"evaluate.0.max_new_tokens": 8}}}},
            r"measured differently \(base, sft_chosen, a \| b",
        ),
    ],
)
def test_what_is_wrong_in_a_study_is_said_before_anything_runs(
    world: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    file = write_study(tmp_path, world=world, **changes)
    with pytest.raises(UserError, match=told):
        runs_of(loaded(file), file=str(file))


def test_the_verbs_plan_show_and_report(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    file, _ = made
    shown = CliRunner().invoke(app, ["study", "show", str(file)])
    assert shown.exit_code == 0
    assert "| BDHS" in shown.output
    found = read_json(file.parent / "results" / "small" / "results.json")
    assert set(found["arms"][2]) >= {"key", "cells", "seeds"}
    planned = CliRunner().invoke(app, ["study", "plan", str(file)])
    assert planned.exit_code == 0
    assert "answer tokens" in planned.output
    written = CliRunner().invoke(app, ["report", str(file), "--out", str(tmp_path)])
    assert written.exit_code == 0, written.exception
    names = {"report.html", "results.json", "table.md", "table.tex", "table.csv"}
    assert {path.name for path in (tmp_path / "small").iterdir()} == names
    assert (tmp_path / "small" / "results.json").read_bytes() == results_of(file, tmp_path / "again")
