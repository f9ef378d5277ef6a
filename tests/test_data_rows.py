"""JSON lists parsed piece by piece, and where files break off."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verisight.data import rows as rows_module
from verisight.data.rows import Unusable, raw_rows
from verisight.types import UserError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(VALUES, max_size=6), chunk=st.integers(1, 9), ascii=st.booleans(), indent=st.sampled_from([None, 2])
)
def test_a_json_list_in_pieces_is_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[Any], chunk: int, ascii: bool, indent: int | None
) -> None:
    monkeypatch.setattr(rows_module, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(values, ensure_ascii=ascii, indent=indent).encode(errors="surrogatepass"))
    read = list(raw_rows(path))
    assert [raw.value for raw in read] == json.loads(path.read_text(encoding="utf-8"))
    assert [raw.row for raw in read] == list(range(len(values)))


@pytest.mark.parametrize("chunk", range(1, 9))
def test_a_cut_number_is_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(rows_module, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text("[1.5, -2e+30, 10, 3E-7, 0]")
    assert [raw.value for raw in raw_rows(path)] == [1.5, -2e30, 10, 3e-7, 0]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize(
    ("text", "before", "error"),
    [
        ('[{"a": 1}, {"a": }]', 1, "line 1, column 18"),
        ('[\n {"a": 1}\n {"a": 2}]', 1, "line 3, column 2: found '{' behind a row"),
        ('[{"a": 1}', 1, "line 1, column 10: found the end of the file"),
        ('[{"a": 1},', 1, "line 1, column 11"),
        ('[{"a": "cut', 0, "line 1, column 8"),
        ("[12", 1, "line 1, column 4: found the end of the file"),
        ("[1] 2", 1, "line 1, column 5: found text behind the list"),
        ("[1,]", 1, "line 1, column 4"),
    ],
)
def test_where_a_json_list_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, text: str, before: int, error: str
) -> None:
    monkeypatch.setattr(rows_module, "_CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text)
    read = raw_rows(path)
    for _ in range(before):
        next(read)
    with pytest.raises(UserError, match=re.escape(error)):
        next(read)


def test_a_line_that_is_no_json_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": \n"\xff"\n' + b"[" * 100_000 + b"\n" + b"9" * 5000 + b"\n[2]")
    found = [raw.value.reason if isinstance(raw.value, Unusable) else raw.value for raw in raw_rows(path)]
    assert found == [{"a": 1}, "not JSON", "not UTF-8", "not JSON", "not JSON", [2]]
