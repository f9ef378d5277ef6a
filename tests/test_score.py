"""`verisight score`: answers in every format, everything that can be wrong with them, and judges that fail."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chat_server import MODEL, refused, running, said, text_of
from test_cli_light import spied
from verisight.chat.endpoint import Endpoint, Limits
from verisight.chat.http import HttpChat
from verisight.cli import app
from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.paired import compare
from verisight.evaluate.public import Judge
from verisight.evaluate.scorers import Files
from verisight.evaluate.table import find_scorer
from verisight.study import scoring
from verisight.types import UserError

NUM = 100
GOLD = ["yes" if at % 2 else "no" for at in range(NUM)]


def write(path: Path, rows: Any) -> Path:
    """JSON, or JSON lines where the name says so."""
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """GQA questions 0 to 99 about 50 images, even ones no, odd ones yes."""
    types = {"structural": "verify", "semantic": "obj"}
    return write(
        tmp_path / "questions.json",
        {
            str(at): {
                "question": "Is it?", "imageId": f"n{at // 2}", "answer": gold, "isBalanced": True, "types": types,
            }
            for at, gold in enumerate(GOLD)
        },
    )  # fmt: skip


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["score", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def entry(out: Path, name: str = "gqa") -> dict[str, Any]:
    return read_json(out / "evaluate" / "summary.json")[name]


RIGHT = GOLD[:90] + ["maybe"] * 10  # 90 of 100
FORMATS = {
    "ours.jsonl": [{"uid": str(at), "answer": text, "truncated": False} for at, text in enumerate(RIGHT)],
    "llava.jsonl": [{"question_id": at, "prompt": "Is it?", "text": text} for at, text in enumerate(RIGHT)],
    "official.json": [{"questionId": str(at), "prediction": text} for at, text in enumerate(RIGHT)],
    "table.json": {str(at): text for at, text in enumerate(RIGHT)},
    "1_samples_gqa.jsonl": [  # lmms-eval before 0.7, --log_samples
        {
            "doc_id": at,
            "doc": {"id": str(at), "question": "Is it?", "answer": "the gold answer, not the model's"},
            "resps": [[text]],
            "filtered_resps": ["spoilt by a filter"],
        }
        for at, text in enumerate(RIGHT)
    ],
    "2_samples_gqa.jsonl": [  # 0.7: no doc; resps only where a filter changed them; the place and the words asked
        {"doc_id": at, "target": "x", "filtered_resps": text, "input": "Is it?\nOne word.", "exact_match": 1.0}
        | ({"resps": [text], "filtered_resps": "spoilt by a filter"} if at % 3 == 0 else {})
        for at, text in enumerate(RIGHT)
    ],
    "3_samples_gqa.jsonl": [  # 0.7, a task whose metrics keep the id; the places are another data set's
        {"doc_id": 1000 - at, "filtered_resps": text, "input": "?", "acc": {"question_id": str(at), "score": 0.5}}
        for at, text in enumerate(RIGHT)
    ],
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_answers_gives_the_same_score(name: str, questions: Path, tmp_path: Path) -> None:
    answers = write(tmp_path / name, FORMATS[name])
    told = run("gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out")
    found = entry(tmp_path / "out")
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(0.9)
    assert (found["protocol"], found["refused"], found["num_items"]) == ("official", "", NUM)
    assert re.search(r"\*accuracy +0\.9000 \[0\.8\d", told)


def test_places_of_lmms_eval_count_only_where_the_question_is_the_one_asked(questions: Path, tmp_path: Path) -> None:
    rows = [{"doc_id": at, "filtered_resps": "yes", "input": "Is it?" if at < 99 else "Why?"} for at in range(NUM)]
    answers = write(tmp_path / "samples.jsonl", rows)
    run("gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out")
    counts = entry(tmp_path / "out")["counts"]
    assert (counts["no_id"], counts["missing"]) == (1, 1)


def test_scoring_imports_nothing_heavy(questions: Path, tmp_path: Path) -> None:
    answers = write(tmp_path / "ours.jsonl", FORMATS["ours.jsonl"])
    ended = spied("score", "gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out")
    assert "heavy: []" in ended.stderr
    assert "accuracy" in ended.stdout


def test_what_does_not_fit_is_counted_and_listed(questions: Path, tmp_path: Path) -> None:
    """Row 0 twice alike, row 1 twice differing, 2 null, 3 a number, 4 left out, 5 empty, 6 in Chinese, one extra."""
    rows: list[dict[str, Any]] = [{"questionId": str(at), "prediction": text} for at, text in enumerate(GOLD)]
    rows[2]["prediction"], rows[3]["prediction"], rows[5]["prediction"] = None, 7, "  "
    rows[6]["prediction"] = "图中没有狗"
    del rows[4]
    rows += [rows[0], rows[1] | {"prediction": "other"}, {"questionId": "999", "prediction": "yes"}]
    rows += [{"prediction": "yes"}]
    answers = write(tmp_path / "answers.json", rows)
    told = run("gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out")
    found = entry(tmp_path / "out")
    assert found["counts"] == {
        "num_items": NUM, "missing": 4, "conflicting": 1, "not_text": 2, "duplicated": 1, "extra": 1, "no_id": 1,
        "empty": 1, "not_english": 1, "failed": 0, "unparsed": 0, "unusable": 6,
    }  # fmt: skip
    assert "6 of 100 items (6.0%) are unusable (4 missing, 1 empty, 1 not english)" in found["refused"]
    assert "no figures" in told
    assert "accuracy" not in told
    listed = Counter(row["problem"] for row in read_jsonl(tmp_path / "out" / "evaluate" / "gqa.problems.jsonl"))
    assert listed == {"missing": 4, "conflicting": 1, "not_text": 2, "duplicated": 1, "extra": 1, "no_id": 1}
    told = run("gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out", "--max-bad", 0.06)
    assert "accuracy" in told


@pytest.mark.parametrize(("missing", "told"), [(2, ""), (3, "3 of 100 items (3.0%)")])
def test_the_headline_is_refused_above_two_percent(missing: int, told: str, questions: Path, tmp_path: Path) -> None:
    answers = write(tmp_path / "answers.json", {str(at): "yes" for at in range(NUM - missing)})
    run("gqa", "--answers", answers, "--annotations", questions, "--out", tmp_path / "out")
    refused = entry(tmp_path / "out")["refused"]
    assert told in refused
    assert bool(refused) == bool(told)


@pytest.mark.parametrize(
    ("answers", "words", "message"),
    [
        ([], (), "holds no answers"),
        ([{"questionId": "1"}], (), r"answers\.json: \[0\] has no answer; accepted is one of the keys answer"),
        (["yes"], (), r"\[0\] is 'yes'; accepted is an object"),
        ({"x": "yes"}, (), r"none of 1 rows can be used for gqa: the first has id 'x', .* ids like '0'"),
        ({"0": "yes"}, ("--protocol", "lmms"), "--protocol: found 'lmms'; gqa has official, llava, corrected"),
        ({"0": "yes"}, ("--votes", "3"), "--votes: gqa with protocol official asks no judge"),
        ('{"0": "yes", "0": "no"}', (), "'0' is there twice in one object"),
    ],
)
def test_what_cannot_be_scored_is_said(
    answers: Any, words: tuple[str, ...], message: str, questions: Path, tmp_path: Path
) -> None:
    file = tmp_path / "answers.json"
    file.write_text(answers if isinstance(answers, str) else json.dumps(answers))
    with pytest.raises(UserError, match=message):
        run("gqa", "--answers", file, "--annotations", questions, "--out", tmp_path / "out", *words)


def test_an_unknown_benchmark_lists_the_known_ones(questions: Path) -> None:
    with pytest.raises(UserError, match=r"found 'qqa'; accepted: .*gqa.*textvqa"):
        run("qqa", "--answers", questions)


def test_two_scorings_are_compared_on_what_both_answered(questions: Path, tmp_path: Path) -> None:
    right = {str(at): gold for at, gold in enumerate(GOLD)}
    worse = {uid: "no" for uid in right if uid != "7"}
    for name, answers in (("a", worse), ("b", right)):
        file = write(tmp_path / f"{name}.json", answers)
        run("gqa", "--answers", file, "--annotations", questions, "--out", tmp_path / name)
    result = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"])
    row = json.loads(result.stdout)["gqa"]["accuracy"]
    assert (row["a"], row["b"], row["num"], row["verdict"]) == (pytest.approx(50 / 99), 1.0, 99, "better")
    few = write(tmp_path / "c.json", {uid: right[uid] for uid in list(right)[:90]})
    run("gqa", "--answers", few, "--annotations", questions, "--out", tmp_path / "c")
    found = compare(tmp_path / "a", tmp_path / "c")["gqa"]["accuracy"]
    assert (found["num"], found["verdict"]) == (89, "refused")
    assert row["p_mcnemar"] == pytest.approx(2 * 0.5**49), "right on 49 more, wrong on none"
    assert json.loads(result.stdout)["gqa"]["length_words"]["p_mcnemar"] is None


HALLUSION = [
    {
        "category": "VD", "subcategory": "illusion", "set_id": str(at), "figure_id": "1", "question_id": "0",
        "visual_input": "1", "question": "Is it longer?", "gt_answer": "1", "gt_answer_details": "It is.",
        "filename": f"{at}.png", "model_prediction": f"Yes, number {at}.",
    }
    for at in range(500)
]  # fmt: skip


def judge(url: str, **changes: Any) -> Judge:
    """A judge over HTTP that never sleeps."""

    def open_chat(folder: Path) -> HttpChat:
        limits = Limits(retries=20, concurrency=8)
        return HttpChat(Endpoint(url, MODEL), folder=folder / "http", limits=limits, sleep=lambda seconds: None)

    return Judge(name="judge", open=open_chat, **changes)


def hallusion(tmp_path: Path, num: int = 500) -> scoring.Loaded:
    """The first rows; they are annotations and answers in one."""
    file = write(tmp_path / "HallusionBench.json", HALLUSION[:num])
    return scoring.load(find_scorer("hallusion"), Files((file,)), [file])


def faulty(seed: int) -> Any:
    """One reply in five is a fault: a server error, a slow-down, garbage, half an answer, nothing."""
    rng = random.Random(seed)
    faults = [refused(500), refused(429), said(None), said("correct", usage=None)]
    faults[3].body = faults[3].body[:20]

    def serve(body: dict[str, Any]) -> Any:
        if rng.random() < 0.2:
            return rng.choice(faults)
        number = re.search(r"number (\d+)", text_of(body))
        assert number is not None
        return said("correct" if int(number[1]) % 2 else "incorrect")

    return serve


@pytest.mark.enable_socket
def test_a_judge_with_faults_loses_no_item_and_repeats_none(tmp_path: Path) -> None:
    """500 items, every fifth reply a fault: each item gets its own reply, once."""
    with running() as fake:
        fake.otherwise = faulty(0)
        loaded = hallusion(tmp_path)
        found = scoring.score(loaded, folder=tmp_path / "out", judge=judge(fake.url))
        assert len(fake.bodies) > 560
        replies = read_jsonl(tmp_path / "out" / "evaluate" / "hallusion.replies.jsonl")
        assert len(replies) == len({row["uid"] for row in replies}) == 500
        rows = read_jsonl(tmp_path / "out" / "evaluate" / "hallusion.jsonl")
        assert [row["correct"] for row in rows] == [bool(at % 2) for at in range(500)]
        assert (found["counts"]["failed"], found["refused"]) == (0, "")
        asked = len(fake.bodies)
        away = dataclasses.replace(judge(fake.url), open=lambda folder: pytest.fail("nobody has to be asked"))
        assert scoring.score(loaded, folder=tmp_path / "out", judge=away) == found
        assert len(fake.bodies) == asked, "a second scoring asks nothing"


@pytest.mark.enable_socket
def test_another_judge_and_a_changed_answer_are_asked_anew(tmp_path: Path) -> None:
    with running() as fake:
        fake.otherwise = said("correct")
        loaded, one = hallusion(tmp_path, 5), judge(fake.url)
        scoring.score(loaded, folder=tmp_path / "out", judge=one)
        scoring.score(loaded, folder=tmp_path / "out", judge=dataclasses.replace(one, name="another"))
        replies = tmp_path / "out" / "evaluate" / "hallusion.replies.jsonl"
        assert len(read_jsonl(replies)) == 10
        scoring.score(loaded, folder=tmp_path / "same", judge=one)
        with pytest.raises(UserError, match="only scores of one judge, asked in one way, can be compared"):
            compare(tmp_path / "out", tmp_path / "same")
        loaded.joined.rows[2]["answer"] = "No."
        scoring.score(loaded, folder=tmp_path / "out", judge=one)
        assert len(read_jsonl(replies)) == 11


@pytest.mark.enable_socket
def test_a_killed_judging_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verisight.evaluate import judged

    write_row, count = judged.append_jsonl, 0

    def dying(path: Path, row: dict[str, Any]) -> None:
        nonlocal count
        count += 1
        if count == 100:
            raise KeyboardInterrupt
        write_row(path, row)

    with running() as fake:
        fake.otherwise = faulty(1)
        loaded = hallusion(tmp_path, 200)
        monkeypatch.setattr(judged, "append_jsonl", dying)
        with pytest.raises(KeyboardInterrupt):
            scoring.score(loaded, folder=tmp_path / "out", judge=judge(fake.url))
        monkeypatch.setattr(judged, "append_jsonl", write_row)
        found = scoring.score(loaded, folder=tmp_path / "out", judge=judge(fake.url))
    replies = read_jsonl(tmp_path / "out" / "evaluate" / "hallusion.replies.jsonl")
    assert len(replies) == len({row["uid"] for row in replies}) == 200
    assert found["metrics"]["accuracy"]["value"] == 0.5


@pytest.mark.enable_socket
def test_judges_that_fail_are_no_score_and_refuse_the_headline(tmp_path: Path) -> None:
    """Of 20 items two are refused for good and one gets words without a verdict: they count in no rate."""
    with running() as fake:
        refusing = ("number 3.", "number 4.")
        fake.otherwise = lambda body: (
            refused(400) if any(one in text_of(body) for one in refusing)
            else said("Let me think.") if "number 5." in text_of(body) else said("correct")
        )  # fmt: skip
        file = write(tmp_path / "HallusionBench.json", HALLUSION[:20])
        loaded = scoring.load(find_scorer("hallusion"), Files((file,)), [file], protocol="corrected")
        found = scoring.score(loaded, folder=tmp_path / "out", judge=judge(fake.url))
        assert (found["counts"]["failed"], found["counts"]["unparsed"]) == (2, 1)
        assert "3 of 20 items (15.0%) are unusable (2 failed, 1 unparsed)" in found["refused"]
        assert found["metrics"]["accuracy"]["value"] == 1.0
        assert found["metrics"]["accuracy"]["num"] == 17
        fake.otherwise = said("correct")
        again = scoring.score(loaded, folder=tmp_path / "out", judge=judge(fake.url))
        assert (again["counts"]["failed"], again["counts"]["unparsed"]) == (0, 1), "what failed is asked again"


@pytest.mark.enable_socket
def test_votes_are_separate_draws(tmp_path: Path) -> None:
    """Three votes: two say correct, one incorrect; the majority counts."""
    given: Counter[str] = Counter()

    def serve(body: dict[str, Any]) -> Any:
        given[text_of(body)] += 1
        return said("incorrect" if given[text_of(body)] == 2 else "correct")

    with running() as fake:
        fake.otherwise = serve
        file = write(tmp_path / "HallusionBench.json", HALLUSION[:4])
        words = ["hallusion", "--answers", file, "--annotations", file, "--out", tmp_path / "out"]
        words += ["--judge-url", fake.url, "--judge-model", MODEL, "--votes", 3]
        with pytest.raises(UserError, match="--votes: found 3 at temperature 0"):
            run(*words)
        told = run(*words, "--judge-temperature", 0.7, "--concurrency", 1, "--price", 1, 2)
    assert set(given.values()) == {3}
    assert "12 of 12 replies to ask for" in told
    assert {row["correct"] for row in read_jsonl(tmp_path / "out" / "evaluate" / "hallusion.jsonl")} == {True}
    assert entry(tmp_path / "out", "hallusion")["judge"]["votes"] == 3


@pytest.mark.enable_socket
def test_the_price_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    with running() as fake:
        file = write(tmp_path / "HallusionBench.json", HALLUSION[:10])
        words = ["hallusion", "--answers", file, "--annotations", file, "--out", tmp_path / "out", "--estimate"]
        told = run(*words, "--judge-url", fake.url, "--judge-model", MODEL, "--price", 1, 100)
        assert fake.bodies == []
    assert re.search(r"10 of 10 replies to ask for, about 7\d\d tokens in, at most 2,560 out, at most 0\.26", told)
    assert not (tmp_path / "out" / "evaluate").exists()


@pytest.mark.enable_socket
def test_a_reply_of_another_model_is_refused(tmp_path: Path) -> None:
    with running() as fake:
        fake.otherwise = said("correct", model="cheaper-model")
        with pytest.raises(UserError, match=r"cheaper-model"):
            scoring.score(hallusion(tmp_path, 3), folder=tmp_path / "out", judge=judge(fake.url))


def test_a_judged_protocol_without_a_judge_says_what_to_do(tmp_path: Path) -> None:
    file = write(tmp_path / "HallusionBench.json", HALLUSION[:3])
    with pytest.raises(
        UserError, match=r"needs a judge; accepted: --judge-url with --judge-model, or --protocol words"
    ):
        run("hallusion", "--answers", file, "--annotations", file, "--out", tmp_path / "out")
    told = run("hallusion", "--answers", file, "--annotations", file, "--out", tmp_path / "out", "--protocol", "words")
    assert re.search(r"\*accuracy +1\.0000", told)
