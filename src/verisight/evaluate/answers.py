"""Saved answers, from whatever wrote them, set beside the questions they belong to; what doesn't fit is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.fields import short
from verisight.types import UserError

Row = dict[str, Any]
Truths = Mapping[str, Mapping[str, Any]]
FindUid = Callable[[Row], str | None]

ANSWER_KEYS = ("answer", "text", "prediction", "response", "model_answer", "model_prediction", "caption")
PROBLEMS = ("missing", "conflicting", "not_text", "duplicated", "extra", "no_id")
_ABOUT = ("num_tokens", "truncated")  # what our own files tell of an answer besides its text


class Joined(NamedTuple):
    """Answers beside their questions.

    `rows`: uid, cluster, question, truth, answer (and num_tokens, truncated if known) of every question with one
    answer, in the questions' order. `counts` by `PROBLEMS`; `problems` lists each: {problem, uid, where, found}.
    """

    rows: list[Row]
    counts: dict[str, int]
    problems: list[Row]


def read_answers(file: Path) -> list[Row]:
    """Rows of a file of answers, each with `answer` (whatever it holds), `where`, `file_name` and `place` (from 0).

    Accepted: JSON lines or a JSON list of objects with an id and one of `ANSWER_KEYS` (our own files, LLaVA's, the
    benchmarks' own), a JSON object of id: answer, CHAIR's {"imgToEval": {...}}, and lmms-eval's samples_*.jsonl
    (older: {"logs": [...]}), whose answer is the raw one, not what its filters left.

    Raises:
        UserError: the file can't be read, holds no rows, or a row is no object or has no answer.
    """
    rows = [row | {"file_name": file.name, "place": at} for at, row in enumerate(_rows(file))]
    if not rows:
        raise UserError(f"{file}: holds no answers; accepted is at least one row")
    return rows


def join(truths: Truths, given: Sequence[Row], find_uid: FindUid) -> Joined:
    """Every question with its answer.

    missing: no answer (or none that can be used); conflicting: several different ones, none is taken; not_text: a
    number, null or a list; duplicated: the same answer again, the first is taken; extra: an id that no question has;
    no_id: no id can be found in the row. `missing` counts the questions left without an answer for any reason.
    """
    answers: dict[str, Row] = {}
    spoiled: set[str] = set()
    counts = dict.fromkeys(PROBLEMS, 0)
    problems: list[Row] = []

    def note(problem: str, uid: str | None, row: Row) -> None:
        counts[problem] += 1
        problems.append({"problem": problem, "uid": uid, "where": row["where"], "found": short(row["answer"])})

    order = list(truths)
    for row in given:
        uid = find_uid(row)
        if uid not in truths and "doc_id" in row:
            uid = _by_position(row, order, truths) or uid
        if uid is None or uid not in truths:
            note("no_id" if uid is None else "extra", uid, row)
        elif not isinstance(row["answer"], str):
            note("not_text", uid, row)
        elif uid not in answers:
            answers[uid] = row
        elif answers[uid]["answer"] == row["answer"]:
            note("duplicated", uid, row)
        else:
            note("conflicting", uid, row)
            spoiled.add(uid)
    rows = []
    for uid, entry in truths.items():
        if uid in answers and uid not in spoiled:
            rows.append(_joined(uid, entry, answers[uid]))
        else:
            counts["missing"] += 1
            problems.append({"problem": "missing", "uid": uid, "where": "", "found": ""})
    return Joined(rows, counts, problems)


def _by_position(row: Row, order: Sequence[str], truths: Truths) -> str | None:
    """The question at the place that lmms-eval gives, if it is the one that was asked."""
    at, asked = row["doc_id"], row.get("input")
    if not isinstance(at, int) or not 0 <= at < len(order) or not isinstance(asked, str):
        return None
    question = truths[order[at]]["truth"].get("question")
    same = isinstance(question, str) and " ".join(question.lower().split()) in " ".join(asked.lower().split())
    return order[at] if same else None


def by_keys(*keys: str) -> FindUid:
    """An id is the first of these keys that holds a text or a whole number."""

    def find(row: Row) -> str | None:
        for key in keys:
            if _is_id(row.get(key)):
                return str(row[key])
        return None

    return find


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _joined(uid: str, entry: Mapping[str, Any], row: Row) -> Row:
    truth = entry["truth"]
    found = {"uid": uid, "cluster": entry["cluster"], "question": truth.get("question"), "truth": dict(truth)}
    about = {key: row[key] for key in _ABOUT if isinstance(row.get(key), bool | int)}
    return found | {"answer": row["answer"]} | about


def _rows(file: Path) -> Iterator[Row]:
    if file.suffix in (".jsonl", ".ndjson") or _is_lines(file):
        for at, row in enumerate(read_jsonl(file)):
            yield _row(row, f"{file}: row {at}")
        return
    table = read_json(file, unique=True)
    if isinstance(table, dict) and isinstance(table.get("imgToEval"), dict):
        table = list(table["imgToEval"].values())
    if isinstance(table, dict) and isinstance(table.get("logs"), list):
        table = table["logs"]
    if isinstance(table, dict):
        for uid, value in table.items():
            row = value if isinstance(value, dict) else {"answer": value}
            yield _row({"uid": uid} | row, f"{file}: {uid}")
    elif isinstance(table, list):
        for at, row in enumerate(table):
            yield _row(row, f"{file}: [{at}]")
    else:
        raise UserError(f"{file}: holds {short(table)}; accepted are JSON lines, a list of objects, or an object")


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where} is {short(row)}; accepted is an object with an id and an answer")
    if "doc_id" in row and ("resps" in row or "filtered_resps" in row):
        return _sample(row, where)
    key = next((key for key in ANSWER_KEYS if key in row), None)
    if key is None:
        raise UserError(f"{where} has no answer; accepted is one of the keys {', '.join(ANSWER_KEYS)}")
    return row | {"answer": row[key], "where": where}


def _sample(row: Row, where: str) -> Row:
    """A line of lmms-eval.

    Its raw words are in `resps` (a list a request, a list of draws), left out where the filters changed nothing. Ids
    are in `doc` (before 0.7), else in the entries that its metrics keep for each question.
    """
    said = row.get("resps", row.get("filtered_resps"))
    while isinstance(said, list) and said:
        said = said[0]
    ids: Row = {}
    for kept in [row.get("doc"), *(value for key, value in row.items() if key != "doc")]:
        if isinstance(kept, dict):
            ids = {key: value for key, value in kept.items() if isinstance(value, str | int)} | ids
    asked = {"doc_id": row["doc_id"], "input": row.get("input", _first_text(row.get("arguments")))}
    return ids | asked | {"answer": said, "where": where}


def _first_text(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _is_lines(file: Path) -> bool:
    """Whether a file without a telling name holds an object a line."""
    if file.suffix == ".json" and file.is_file():
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            first = next((line for line in lines if line.strip()), "").strip()
            second = next((line for line in lines if line.strip()), "").strip()
        return first.startswith("{") and first.endswith("}") and second.startswith("{")
    return False
