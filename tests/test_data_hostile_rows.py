"""Every field of every layout with wrong values in it: a counted row with a reason, and its neighbours untouched."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_files import picture, write
from data_samples import SAMPLES, account, album, beside, good, reasons, told
from user_files import verisight
from verisight.data.outcome import Outcome
from verisight.data.readers import open_data
from verisight.types import Pair

WRONG_TYPES = (
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, "", " \n\t", [], {}, [[]], [None], [{}], {"a": 1},
    {"bytes": 3, "path": 4}, [[[["x"]]]], {"from": 1, "value": 2}, {"role": [], "content": {}}, [1, "x", None],
)  # fmt: skip
ODD_TEXTS = (
    "half \ud83d", "\udc00", "nul \0 in it", "</s>", "<|im_end|>", "<image>", "<image><image>", "[INST]", "a\r\nb",
    "\ufeff", "\u200b\u202e", "<script>alert(1)</script>", "x" * 100_000, "[" * 5_000, '{"a": ' * 2_000, "NULL",
    "../secret.png", "/etc/passwd", "..\\secret.png", "C:\\secret.png", "file:///etc/passwd", "https://example.com/a.png",
    "~/x", ".", "..", "zip://secret.png::../secret.zip", "0.png\0.jpg", "n" * 5_000 + ".png", "%2e%2e/secret.png",
    "link.png", "folder.png", "pipe.png", "empty.png", "NaN", "1e400",
)  # fmt: skip
# what a layout lets pass where something else usually stands, by the repr of the value ("..." is no key at all)
NONE, BLANK, WHOLE, NUMBER = {"...", "None"}, {"''", r"' \n\t'"}, {"0", "-1", "10**30"}, {"0", "-1", "1.5", "10**30"}
EMPTY = {"[]"}
LENIENT: dict[tuple[str, ...], set[str]] = {
    ("pairs", "images"): {"None"} | EMPTY,
    ("pairs", "images", "0"): {"..."},  # no picture is left, which our own files may have
    **{("pairs", key): NONE | BLANK for key in ("uid", "origin", "provenance", "split_group", "license")},
    ("pairs", "image_sha256"): NONE | EMPTY | {"[None]"},
    ("pairs", "weights"): NONE | EMPTY,
    ("pairs", "notes"): NONE | {"''"},
    **{(kind, "id"): NONE | WHOLE | BLANK for kind in ("povid", "csr", "llava_rlhf", "llava_instruct")},
    ("vlfeedback", "id"): WHOLE | BLANK,
    ("llava_rlhf", "hallucination"): NONE | NUMBER | WHOLE | BLANK | {"True", "nan", "inf"},
    ("bpo", "completions", "0", "score"): NUMBER - {"0"},  # 0 is the score of the other one
    ("bpo", "completions", "0", "type"): NONE | BLANK,
    ("vlfeedback", "completions", "0", "annotations", "Helpfulness", "Rating"): NUMBER,
    ("nlf", "interaction", "1", "rating"): NUMBER,
    **{(kind, key): NONE | WHOLE | BLANK for kind in ("rlhf_v", "rlaif_v") for key in ("idx", "image_path")},
    ("spa_vl", "class1"): NONE | BLANK,
    ("ms_swift", "rejected_response"): {"..."},  # a supervised row
}
PLACES = [
    pytest.param(kind, place, id=f"{kind}-{'.'.join(map(str, place))}")
    for kind, sample in SAMPLES.items()
    for place in sample.spoils
]


def spoiled(row: dict[str, Any], place: tuple[str | int, ...], value: Any = ...) -> dict[str, Any]:
    """A copy of the row with another value in its place, or without it."""
    row = copy.deepcopy(row)
    inner: Any = row
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return row


def strings(value: Any) -> Iterator[str]:
    """All texts in a row, also those in texts that are JSON, as a prompt or an answer may have them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from strings(one)
        return
    if isinstance(value, str):
        yield value
        yield value.replace("<image>", "").strip()
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            return
        if isinstance(inner, dict | list):
            yield from strings(inner)


def said(pair: Pair) -> set[str]:
    """All texts of a pair."""
    answers = (pair.chosen, *pair.rejected)
    around = (*pair.prompt.history, *(turn for one in answers for turn in one.follow_up))
    return {pair.prompt.text, *(one.text for one in answers), *(turn.text for turn in around)}


def traps(folder: Path) -> Path:
    """Pictures, and beside them what is none: a link that leads out, a folder, a pipe, an empty file."""
    images = album(folder / "images")
    picture(folder, "secret.png")
    (images / "link.png").symlink_to(folder / "secret.png")
    (images / "folder.png").mkdir()
    (images / "empty.png").touch()
    os.mkfifo(images / "pipe.png")
    return images


def check_spoiled(folder: Path, kind: str, rows: list[Any]) -> list[Outcome]:
    """Spoiled rows between good ones: all accounted for, nothing made up, nobody else's picture, neighbours exact."""
    images = traps(folder)
    written = [good(kind, 0), *rows, good(kind, 2)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    found = told(path, num_rows=len(written), kind=kind, images=images)
    assert not isinstance(found, str), found
    ends = account(open_data(write(folder / "good.jsonl", [written[0], written[-1]]), kind=kind, images=images))
    for end in (0, -1):
        assert [texts(pair) for pair in found[end].pairs] == [texts(pair) for pair in ends[end].pairs]
        assert not found[end].bad
    for row, one in zip(rows, found[1:-1], strict=True):
        for pair in one.pairs:
            assert said(pair) <= set(strings(row))
            assert all(ref.path == images / "1.png" for ref in pair.prompt.images)
    return found[1:-1]


def texts(pair: Pair) -> tuple[Any, ...]:
    """All of the pair but where it stood."""
    prompt = pair.prompt
    return prompt.images, prompt.text, prompt.history, pair.chosen, pair.rejected, pair.weights, pair.notes


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_field_of_a_wrong_type(tmp_path: Path, kind: str, place: tuple[str | int, ...]) -> None:
    row = good(kind, 1)
    found = check_spoiled(tmp_path, kind, [spoiled(row, place), *(spoiled(row, place, one) for one in WRONG_TYPES)])
    names = ["...", *("10**30" if one == 10**30 else repr(one) for one in WRONG_TYPES)]
    taken = {name for name, one in zip(names, found, strict=True) if one.pairs}
    assert taken == LENIENT.get((kind, *map(str, place)), set())
    for bad in (bad for one in found for bad in one.bad):
        assert bad.fault or bad.reason in ("rating is not a number", "tie", "fewer than two answers")
        if bad.reason in ("wrong type", "missing key"):
            assert place[0] in bad.detail


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_a_field_of_an_odd_text(tmp_path: Path, kind: str, place: tuple[str | int, ...]) -> None:
    row = good(kind, 1)
    check_spoiled(tmp_path, kind, [spoiled(row, place, one) for one in ODD_TEXTS])


ROWS_THAT_ARE_NONE = (
    None, True, 3, -1.5, float("nan"), "", "a text", [], {}, [[]], ["a"] * 7, [{"a": 1}], {"": ""}, {"id": 1},
    {"a": {"b": []}},
)  # fmt: skip


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("container", ["json", "jsonl"])
def test_a_row_that_is_no_object(tmp_path: Path, kind: str, container: str) -> None:
    for row in ROWS_THAT_ARE_NONE:
        found, expected = beside(tmp_path, kind, row, container)
        assert reasons(found)[1] in ("wrong type", "missing key", "wrong number of columns")
        assert found[0] == expected[0]
        assert found[2] == expected[2]


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind in SAMPLES for key in (SAMPLES[kind].spoils[0][0], SAMPLES[kind].spoils[-1][0], "x")],
)
def test_lists_in_lists(tmp_path: Path, kind: str, key: str) -> None:
    """About as deep as Python can read and no deeper than it can write: what is too deep is a row, not the end."""
    album(tmp_path)
    depths = [10, 300, *range(850, 1010, 5), 2_000, 100_000]
    lines = []
    for depth in depths:
        row = good(kind, 1)
        row.pop(key, None)
        lines.append(json.dumps(row)[:-1] + f', "{key}": ' + "[" * depth + "]" * depth + "}")
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(good(kind, 0)), *lines, json.dumps(good(kind, 2))]))
    first, *found, last = reasons(told(path, num_rows=len(lines) + 2, kind=kind, images=tmp_path))
    assert (first, last) == ("", "")
    assert ("" in found) == (key == "x")
    assert found[-2:] == ["not JSON"] * 2


@pytest.mark.parametrize("digits", [400, 4_299, 4_301, 100_000])
@pytest.mark.parametrize(
    ("kind", "key"), [("povid", "id"), ("llava_rlhf", "preference"), ("mm_rlhf", "chosen_reason"), ("rlhf_v", "idx")]
)
def test_absurd_numbers(tmp_path: Path, kind: str, key: str, digits: int) -> None:
    """Python refuses to read whole numbers of more than 4,300 digits."""
    album(tmp_path)
    row = good(kind, 1)
    row.pop(key, None)
    numbers = ("9" * digits, f"-{'9' * digits}", f"1e{digits}", f"0.{'0' * digits}1", f"1.{'3' * digits}")
    lines = [json.dumps(row)[:-1] + f', "{key}": {number}' + "}" for number in numbers]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(good(kind, 0)), *lines, json.dumps(good(kind, 2))]))
    found = reasons(told(path, num_rows=len(lines) + 2, kind=kind, images=tmp_path))
    assert (found[0], found[-1]) == ("", "")
    assert (found[1] == "not JSON") == (digits > 4_300)


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_command_line_stands_them_all(tmp_path: Path, kind: str) -> None:
    images = traps(tmp_path)
    rows = [good(kind, 0)]
    for place in SAMPLES[kind].spoils:
        rows += [spoiled(good(kind, 1), place, value) for value in (..., *WRONG_TYPES, *ODD_TEXTS)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (path, "--kind", kind, "--images", images)
    shown = verisight("data", "check", *words, "--json", "--html", tmp_path / "page.html")
    assert shown.code == 1
    facts = json.loads(shown.out)["rows"]
    assert facts["num"] == len(rows)
    assert facts["num_usable"] > 0
    assert facts["num_faulty"] > len(rows) / 4
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    target = tmp_path / "pairs.parquet"
    made = verisight("data", "convert", *words, "--out", target, "--max-bad", 1)
    assert made.code == 0, made.err
    assert verisight("data", "convert", *words, "--out", tmp_path / "none.parquet").code == 1
    assert not (tmp_path / "none.parquet").exists()
    assert not [one for one in reasons(account(open_data(target))) if one]
