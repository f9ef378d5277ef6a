"""Recipes: files, folders and models that they name have to be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe_samples import write_base
from verisight import recipe
from verisight.types import UserError


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good recipe in recipes/base.yaml; the working directory is its grandparent."""
    monkeypatch.chdir(tmp_path)
    return write_base(tmp_path)


def test_check_files_names_what_is_not_there(base: Path, tmp_path: Path) -> None:
    loaded = recipe.load(
        base, ["model.path=./gone", "source.negatives.check.encoder=a/b/c", "source.negatives.check.eps=0.9"]
    )
    with pytest.raises(UserError) as caught:
        recipe.check_files(loaded)
    model = "an existing model folder, a hub id (owner/name) or `pocket`"
    folder = tmp_path / "recipes"
    data = "an existing file, a folder of *.parquet, or a pattern such as data/train-*.parquet that fits one"
    assert str(caught.value).splitlines() == [
        f"model.path: found nothing at {tmp_path}/gone; accepted: {model}",
        f"source.data.file: found nothing at {folder}/rows.json; accepted: {data}",
        f"source.data.images: found nothing at {folder}/pictures; accepted: an existing folder or zip archive",
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
