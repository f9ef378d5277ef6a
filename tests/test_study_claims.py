"""Claims: outcomes by where the interval lies, and the shipped ones against the shipped studies."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from small_studies import InProcess, loaded, write_study
from verisight import recipe
from verisight.cli import app
from verisight.data.files import read_json
from verisight.studies.arms import runs_of
from verisight.studies.claims import outcome, outcome_of, read_all
from verisight.studies.run import run_study
from verisight.types import UserError

RECIPES = Path(__file__).parent.parent / "recipes" / "studies"
STUDIES = sorted(file for file in RECIPES.glob("*/*.yaml") if file.stem not in ("shared", "claims"))


@pytest.mark.parametrize(
    ("expect", "margin", "low", "high", "better", "told"),
    [
        ("higher", 0, 0.1, 0.2, "lower", "holds"),
        ("higher", 0, -0.2, -0.1, "higher", "fails"),
        ("higher", 0, -0.1, 0.2, "higher", "can't tell"),
        ("lower", 0, -0.2, -0.1, "lower", "holds"),
        ("lower", 0, 0.1, 0.2, "lower", "fails"),
        ("lower", 0, -0.2, 0.0, "lower", "can't tell"),
        ("no_worse", 0.05, -0.04, 0.3, "higher", "holds"),
        ("no_worse", 0.05, -0.06, 0.3, "higher", "can't tell"),
        ("no_worse", 0.05, -0.3, -0.06, "higher", "fails"),
        ("no_worse", 0.05, -0.3, 0.04, "lower", "holds"),
        ("no_worse", 0.05, -0.3, 0.06, "lower", "can't tell"),
        ("no_worse", 0.05, 0.06, 0.3, "lower", "fails"),
        ("same", 0.05, -0.04, 0.04, "higher", "holds"),
        ("same", 0.05, -0.04, 0.06, "higher", "can't tell"),
        ("same", 0.05, 0.06, 0.3, "higher", "fails"),
        ("same", 0.05, -0.3, -0.06, "lower", "fails"),
    ],
)
def test_an_outcome_is_where_the_interval_lies(expect, margin, low, high, better, told) -> None:
    assert outcome(expect, margin, low, high, better) == told


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "can't tell"], "can't tell"),
        (["holds", "not measured"], "can't tell"),
        (["can't tell", "fails", "holds"], "fails"),
        (["not measured", "not measured"], "not measured"),
        (["not measured", "fails"], "fails"),
        ([], "not measured"),
    ],
)
def test_a_claim_is_as_strong_as_its_weakest_part(parts, told) -> None:
    assert outcome_of(parts) == told


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_shipped_studies_load_with_all_their_arms(file: Path) -> None:
    study = recipe.load_study(file)
    runs = runs_of(study, file=str(file))
    assert study.name == file.stem
    assert {run.arm for run in runs} == {*study.arms, *study.controls, *study.parts}
    assert len({run.fact for run in runs if run.fact}) == len([run for run in runs if run.fact])


def test_every_table_has_both_sizes() -> None:
    sizes = {
        folder: {file.stem for file in STUDIES if file.parent.name == folder} for folder in ("pocket", "llava16_7b")
    }
    assert sizes["pocket"] == sizes["llava16_7b"]
    assert len(sizes["pocket"]) == 11


def test_shipped_claims_name_arms_and_columns_that_are_there() -> None:
    claims = recipe.load_claims(RECIPES / "pocket" / "claims.yaml")
    assert list(claims.claims) == [f"C{number}" for number in range(1, 10)]
    studies = {name: recipe.load_study(file) for name, file in claims.studies.items()}
    for claim in claims.claims.values():
        for part in claim.parts:
            study = studies[part.study]
            for arm in (part.arm, part.than):
                assert isinstance(arm, float) or arm in {*study.arms, *study.controls}
            assert part.metric in study.columns


def test_claims_are_tested_on_what_studies_have_shown(tmp_path: Path) -> None:
    file = write_study(tmp_path, seeds=[0])
    run_study(loaded(file), InProcess(), file=file, report=lambda _: None)
    part = {"text": "BDHS | IPO", "study": "small", "arm": "bdhs", "than": "ipo", "metric": "chair/recall"}
    tree = {
        "title": "Claims",
        "studies": {"small": "study.yaml"},
        "claims": {
            "X1": {"text": "The same.", "parts": [part | {"expect": "same", "margin": 1.5}]},
            "X2": {"text": "Above.", "parts": [part | {"than": -1.0, "expect": "higher"}], "note": "Mind this."},
            "X3": {"text": "Unknown.", "parts": [part | {"metric": "mmhal/score", "expect": "higher"}]},
        },
    }
    claims = tmp_path / "claims.yaml"
    claims.write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(app, ["study", "claims", str(claims), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    told = read_json(tmp_path / "out" / "claims.json")
    assert [one["outcome"] for one in told] == ["holds", "holds", "not measured"]
    assert "BDHS \\| IPO" in (tmp_path / "out" / "claims.md").read_text()
    write_study(tmp_path, seeds=[0, 1])
    result = CliRunner().invoke(app, ["study", "claims", str(claims), "--out", str(tmp_path / "out")])
    told = read_json(tmp_path / "out" / "claims.json")
    assert [one["outcome"] for one in told] == ["can't tell", "can't tell", "not measured"]
    assert told[0]["parts"][0]["text"] == "BDHS | IPO (1 of 2 seeds)"
    first = tree["claims"]["X1"]["parts"][0]
    neutral = {"metric": "chair/length_words", "expect": "no_worse"}
    for changes, told in (
        ({"arm": "gone"}, "claims.X1.parts.0.arm: found 'gone'"),
        (neutral, "claims.X1.parts.0.expect: found no_worse of chair/length_words; accepted: same, higher or lower"),
    ):
        tree["claims"]["X1"]["parts"][0] = first | changes
        claims.write_text(yaml.safe_dump(tree))
        failed = CliRunner().invoke(app, ["study", "claims", str(claims)])
        assert isinstance(failed.exception, UserError)
        assert told in str(failed.exception)


def test_studies_of_claims_go_by_their_own_names(tmp_path: Path) -> None:
    file = write_study(tmp_path, seeds=[0])
    part = {"text": "x", "study": "other", "arm": "bdhs", "than": "ipo", "metric": "chair/recall", "expect": "lower"}
    tree = {"title": "t", "studies": {"other": file.name}, "claims": {"X": {"text": "x", "parts": [part]}}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"studies.other: found the study small in .*study.yaml; accepted: other"):
        read_all(recipe.load_claims(tmp_path / "claims.yaml"))


@pytest.mark.parametrize(
    ("part", "told"),
    [({"expect": "same"}, "accepted: a margin"), ({"expect": "higher", "margin": 0.1}, "accepted: a margin"),
     ({"study": "other", "expect": "higher"}, "found other")],
)  # fmt: skip
def test_claims_that_cannot_be_tested_are_refused(tmp_path: Path, part: dict[str, object], told: str) -> None:
    file = write_study(tmp_path)
    whole = {"text": "x", "study": "small", "arm": "bdhs", "than": "ipo", "metric": "chair/recall"} | part
    tree = {"title": "t", "studies": {"small": file.name}, "claims": {"X": {"text": "x", "parts": [whole]}}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=told):
        recipe.load_claims(tmp_path / "claims.yaml")
