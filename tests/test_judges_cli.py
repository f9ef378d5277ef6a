"""`verisight judge check`: what it prints, writes, pays and refuses."""

import json

import pytest
from typer.testing import CliRunner

from chat_server import running, said, text_of
from judged_world import POVID, write_world
from verisight.cli_judge import judge_app
from verisight.data.files import read_json, read_jsonl
from verisight.types import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def run(*words):
    return CliRunner().invoke(judge_app, ["check", *map(str, words)])


def oracle_words(world, out):
    return [
        world / "povid" / POVID, "--images", world / "povid" / "images",
        "--oracle", world / "preference" / "scenes.json", "--out", out, "--quiet",
    ]  # fmt: skip


def test_the_command_compares_annotators(world, tmp_path):
    result = run(*oracle_words(world, tmp_path), "--noise", 0, "--noise", 0.5, "--num", 30)
    assert result.exit_code == 0, result.output
    assert f"povid: 30 pairs of {POVID}" in result.output
    assert "oracle, noise 0    100.0 [" in result.output
    assert "kappa" in result.output
    summary = read_json(tmp_path / "summary.json")
    assert list(summary["annotators"]) == ["oracle, noise 0", "oracle, noise 0.5"]
    assert summary["num_pairs"] == 30
    assert summary["agreement"][0]["kappa"]["num"] == 30


@pytest.mark.enable_socket
def test_the_command_asks_a_server_and_pays_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with running() as fake:
        fake.otherwise = lambda body: said("Verdict: A" if "Answer A" in text_of(body) else "?")
        words = [*oracle_words(world, tmp_path), "--url", fake.url, "--name", "judge-1", "--key-env", "JUDGE_KEY"]
        words += ["--price", 1, 2, "--num", 5, "--seed", 1]
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert len(fake.bodies) == 10
        assert "100 tokens in, 30 out, cost 0.0002" in result.output
        for file in tmp_path.glob("judge*.jsonl"):
            file.unlink()
        assert run(*words).exit_code == 0
        assert len(fake.bodies) == 10, "the cache outlives the rows"
    summary = json.loads((tmp_path / "summary.json").read_text())
    name = f"judge-1@{fake.url.split('/')[2]}"
    assert summary["annotators"][name]["metrics"]["first_fraction"]["value"] == 1
    assert "sk-secret" not in "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "annotators: found none"),
        (["--url", "http://x/v1"], "--url, --name"),
        (["--name", "m"], "--url, --name|annotators"),
        (["--noise", "0.1", "--model", "pocket"], "--noise: found without --oracle"),
        (["--model", "pocket", "--key-env", "X"], "--key-env, --per-minute, --price"),
        (["--oracle", "scenes.json", "--mode", "generate"], "--mode: found generate without --model"),
        (["--oracle", "scenes.json", "--tie-margin", "1"], "--tie-margin"),
        (["--model", "pocket", "--model", "pocket"], "--model: found one twice"),
    ],
)
def test_options_that_do_not_belong_together(tmp_path, words, problem):
    result = run("nothing.json", "--out", tmp_path, *words)
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(tuple(problem.split("|")))


def test_faulty_rows_stop_the_command_and_are_listed(world, tmp_path):
    source = world / "povid" / POVID
    rows = json.loads(source.read_text())
    rows[0]["image"] = "gone.jpg"
    (tmp_path / "data.json").write_text(json.dumps(rows))
    words = oracle_words(world, tmp_path / "out")
    words[0] = tmp_path / "data.json"
    result = run(*words)
    assert isinstance(result.exception, UserError)
    assert "image missing" in str(result.exception)
    assert run(*words, "--max-bad", 0.1).exit_code == 0
    assert len(read_jsonl(tmp_path / "out" / "bad_rows.jsonl")) == 1
