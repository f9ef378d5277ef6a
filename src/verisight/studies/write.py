"""A study's report as files: HTML, Markdown, LaTeX, CSV, and results.json. Nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from verisight.data.files import write_atomic
from verisight.recipe import load_study
from verisight.recipe.yaml_tree import load_yaml
from verisight.studies.arms import places_of
from verisight.studies.collect import collect
from verisight.studies.effects import Resampler
from verisight.studies.export import csv_rows, latex, markdown
from verisight.studies.page import write_page
from verisight.studies.results import write_results
from verisight.types import UserError


def write_reports(path: Path, *, out: Path | None = None) -> Iterator[Path]:
    """Write the report of a study's file, or of every study of a folder that has runs; gives each HTML page.

    Files go to the study's own folder in its `output`, or to that of its name in `out`.

    Raises:
        UserError: no study there, or none of them has runs.
    """
    found, resampler = 0, Resampler()
    for file in study_files(path):
        study = load_study(file)
        try:
            findings, results = collect(study, file=file, resampler=resampler)
        except UserError:
            if path.is_dir() and not any_run(file):
                continue
            raise
        folder = (out or places_of(study).output) / study.name
        write_results(results, findings.rows, findings.columns, folder / "results.json")
        for name, text in (("table.md", markdown), ("table.tex", latex), ("table.csv", csv_rows)):
            write_atomic(folder / name, text(findings))
        yield write_page(findings, folder / "report.html")
        found += 1
    if not found:
        raise UserError(f"{path}: found no study with runs; accepted: one (`verisight study run`)")


def study_files(path: Path) -> Sequence[Path]:
    """The file, or those of a folder that are studies by themselves."""
    if not path.is_dir():
        return [path]
    return [file for file in sorted(path.glob("*.y*ml")) if _is_study(file)]


def any_run(file: Path) -> bool:
    """Whether any run of a study has facts."""
    from verisight.studies.run import missing_of

    return bool(missing_of(load_study(file), file=file, specs=False).found)


def _is_study(file: Path) -> bool:
    try:
        tree = load_yaml(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as YAML ({error})") from error
    return isinstance(tree, dict) and "name" in tree and "arms" in tree
