"""The command line is light: what needs no model imports no heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from user_files import RECIPE, finished
from verisight import recipe

HEAVY = ("torch", "transformers", "peft", "accelerate", "sentence_transformers", "pyarrow")
SPY = f"""
import sys
from verisight.cli import main
try:
    code = main()
except SystemExit as stopped:
    code = stopped.code or 0
print("heavy:", sorted({{name.partition(".")[0] for name in sys.modules}} & {set(HEAVY)}), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A recipe whose files do not exist."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def spied(*words: object) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, which says at the end what it imported."""
    command = [sys.executable, "-c", SPY, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["pocket", "--help"], ["schema"], []])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    ended = spied(*words)
    assert "heavy: []" in ended.stderr
    assert ended.stdout or not words
    if words == ["--help"]:
        assert all(
            verb in ended.stdout
            for verb in ("demo", "pairs", "train", "eval", "compare", "report", "plan", "explain", "schema")
        )


def test_explain_imports_nothing_heavy_and_names_its_sources(written: Path) -> None:
    ended = spied("explain", written, "objective.beta=0.25")
    assert (ended.returncode, ended.stderr) == (0, "heavy: []\n")
    (beta,) = [line for line in ended.stdout.splitlines() if line.startswith("objective.beta")]
    assert "0.25" in beta
    assert "Rafailov et al. 2023" in beta


def test_a_mistake_ends_the_process_with_code_2_before_anything_heavy(written: Path) -> None:
    ended = spied("train", written, "train.bach_size=3")
    assert ended.returncode == 2
    assert "did you mean batch_size?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "heavy: []" in ended.stderr


def test_the_schema_and_the_shipped_recipes() -> None:
    assert json.loads(finished("schema").out)["properties"].keys() >= {"model", "source", "objective", "train"}
    assert json.loads(finished("schema", "--of", "study").out)["properties"].keys() >= {
        "arms",
        "seeds",
        "varies",
        "extends",
    }
    assert "claims" in json.loads(finished("schema", "--of", "claims").out)["properties"]
    recipes = Path(__file__).parents[1] / "recipes"
    others = {recipes / "studies", recipes / "accelerate"}
    shipped = sorted(path for path in recipes.rglob("*.yaml") if others.isdisjoint(path.parents))
    assert len(shipped) >= 4
    for path in shipped:
        assert recipe.load(path)
        assert "objective" in finished("explain", path).out
