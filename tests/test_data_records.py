"""pairs.parquet: what is written comes back, and what cannot be used is counted."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verisight.data import records
from verisight.data.outcome import Read
from verisight.data.readers import open_data
from verisight.data.records import SCHEMA, write_pairs
from verisight.types import Answer, ImageRef, Message, Pair, Prompt, UserError


def read_pairs(path: Path, **options: Any) -> Read:
    return open_data(path, kind="pairs", **options).read()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = ImageRef(data=png(), sha256=hashlib.sha256(png()).hexdigest())
TEXT = st.text(max_size=30).filter(lambda text: "<image>" not in text)
FULL = TEXT.filter(lambda text: text.strip())
TURNS = st.lists(st.tuples(FULL, FULL), max_size=2).map(
    lambda turns: tuple(m for q, a in turns for m in (Message("user", q), Message("assistant", a)))
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT, st.lists)
PROMPTS = st.builds(
    Prompt,
    uid=FULL,
    images=st.sampled_from([(), (PICTURE,), (PICTURE, PICTURE)]),
    text=FULL,
    history=TURNS,
    split_group=TEXT,
    provenance=FULL,
)
NOTES = st.dictionaries(TEXT, JSON, max_size=3)
SUPERVISED = st.builds(Pair, PROMPTS, st.builds(Answer, FULL, TURNS), rejected=st.just(()), origin=TEXT, notes=NOTES)


@st.composite
def preferences(draw: st.DrawFn) -> Pair:
    chosen, *rejected = draw(st.lists(FULL, min_size=2, max_size=4, unique_by=str.strip))
    weights = tuple(1 / len(rejected) for _ in rejected)
    return Pair(draw(PROMPTS), Answer(chosen), tuple(map(Answer, rejected)), weights, draw(TEXT), draw(NOTES))


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(SUPERVISED | preferences(), max_size=4))
def test_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> None:
    path = tmp_path_factory.mktemp("round") / "pairs.parquet"
    assert write_pairs(path, pairs) == len(pairs)
    result = read_pairs(path)
    assert (result.pairs, result.bad, result.num_rows) == (pairs, [], len(pairs))


def pair(chosen: str = "yes", *rejected: str, images: tuple[ImageRef, ...] = (PICTURE,), **rest: Any) -> Pair:
    equal = (1 / len(rejected),) * len(rejected) if rejected else ()
    prompt = Prompt("u", images, "A?", provenance="made here")
    return Pair(prompt, Answer(chosen), tuple(map(Answer, rejected)), **{"weights": equal} | rest)


def test_the_columns_are_the_documented_ones(tmp_path: Path) -> None:
    history = (Message("user", "A?"), Message("assistant", "a"))
    prompt = Prompt("u", (PICTURE,), "B?", history, split_group="g", provenance="p#1")
    notes = {"round": 2}
    made = Pair(prompt, Answer("b"), (Answer("c"), Answer("d")), (0.25, 0.75), origin="bdhs", notes=notes)
    write_pairs(tmp_path / "pairs.parquet", [made], license="cc-by-4.0")
    (row,) = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert row == {
        "images": [{"bytes": PICTURE.data, "path": None}],
        "prompt": [
            {"role": "user", "content": "A?"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "B?"},
        ],
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "c"}],
        "uid": "u",
        "origin": "bdhs",
        "provenance": "p#1",
        "split_group": "g",
        "license": "cc-by-4.0",
        "image_sha256": [PICTURE.sha256],
        "extra_rejected": ["d"],
        "weights": [0.25, 0.75],
        "notes": '{"round": 2}',
        "rejected_images": [],
    }
    assert read_pairs(tmp_path / "pairs.parquet").pairs[0].notes == {"round": 2, "license": "cc-by-4.0"}


def test_the_license_of_a_row_wins(tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.parquet", [pair(notes={"license": "mit"})], license="cc-by-4.0")
    assert pq.read_table(tmp_path / "p.parquet")["license"].to_pylist() == ["mit"]


def test_pictures_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "run" / "images" / "a.png", tmp_path / "b.png"
    inside.parent.mkdir(parents=True)
    for path in (inside, outside):
        path.write_bytes(png())
    monkeypatch.chdir(tmp_path)
    relative = Path("run/../run/images/a.png")
    refs = tuple(ImageRef(path=path) for path in (inside, outside, relative))
    write_pairs(Path("run/pairs.parquet"), [pair(images=refs)])
    stored = pq.read_table("run/pairs.parquet")["images"].to_pylist()[0]
    assert [image["path"] for image in stored] == [str(inside), str(outside), str(inside)]
    (tmp_path / "moved").mkdir()
    (tmp_path / "run" / "pairs.parquet").rename(tmp_path / "moved" / "pairs.parquet")
    monkeypatch.chdir(tmp_path / "moved")
    (found,) = read_pairs(Path("pairs.parquet")).pairs
    assert [ref.path for ref in found.prompt.images] == [inside, outside, inside]


def test_rows_are_streamed_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, (pair(str(n)) for n in range(600)))
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [p.chosen.text for p in read_pairs(path).pairs] == [str(n) for n in range(600)]
    monkeypatch.setattr(records, "_GROUP_BYTES", 3 * len(png()))
    write_pairs(path, (pair(str(n)) for n in range(6)))
    assert pq.ParquetFile(path).num_row_groups == 2


def test_a_source_that_dies_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, [pair("old")])

    def dying():
        yield pair("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(path, dying())
    assert read_pairs(path).pairs == [pair("old")]
    assert len(list(tmp_path.iterdir())) == 1


def test_answers_of_several_turns_come_back(tmp_path: Path) -> None:
    turns = (Message("user", "B?"), Message("assistant", "b"))
    prompt = Prompt("u", (), "A?", provenance="made here")
    told = Pair(prompt, Answer("a", turns), (Answer("c", turns), Answer("d")), (0.5, 0.5))
    write_pairs(tmp_path / "pairs.parquet", [told])
    assert read_pairs(tmp_path / "pairs.parquet").pairs == [told]
    with pytest.raises(AssertionError, match="only the first rejected answer may have more turns"):
        write_pairs(tmp_path / "pairs.parquet", [replace(told, rejected=told.rejected[::-1])])


def turn(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


GOOD = {
    "images": [{"bytes": png(), "path": None}],
    "prompt": [turn("user", "A?")],
    "chosen": [turn("assistant", "a")],
    "rejected": [turn("assistant", "b")],
}
BAD_ROWS = [
    ({"chosen": [turn("assistant", " ")]}, "empty chosen", "blank"),
    ({"rejected": [turn("assistant", "")]}, "empty rejected", "blank"),
    ({"extra_rejected": ["c", ""]}, "empty rejected", "blank"),
    ({"rejected": [turn("assistant", " a\n")]}, "chosen equals rejected", "'a'"),
    ({"chosen": [turn("assistant", " b ")]}, "chosen equals rejected", "' b '"),
    ({"extra_rejected": ["a"]}, "chosen equals rejected", "'a'"),
    ({"images": [{"bytes": None, "path": "none.png"}]}, "image missing", "none.png"),
    ({"images": [{"bytes": None, "path": None}]}, "image missing", "neither bytes nor a path"),
    ({"images": [{"bytes": png()[:45], "path": "a.png"}]}, "image truncated", "held as bytes"),
    ({"images": [{"bytes": b"<html>", "path": None}]}, "image unreadable", "held as bytes"),
    ({"prompt": None}, "wrong type", "prompt: found NoneType"),
    ({"chosen": []}, "turns out of order", "'user'"),
    ({"prompt": [turn("system", "Be kind.")]}, "turns out of order", "'system'"),
    ({"prompt": [turn("user", None)]}, "wrong type", "prompt.0.content: found NoneType"),
    ({"prompt": [turn("user", "A?"), turn("assistant", "a")]}, "turns out of order", "'assistant'"),
    ({"prompt": [], "chosen": [turn("user", "A?"), turn("assistant", "a")]}, "turns out of order", "0 turns"),
    ({"rejected": [turn("user", "b")]}, "turns out of order", "'user', 'user'"),
    ({"rejected": [turn("assistant", "b")] * 2}, "turns out of order", "'assistant', 'assistant'"),
    ({"prompt": [turn("user", "<image>\nA?")]}, "<image> in a text", "images column"),
    ({"weights": [0.5, 0.5]}, "weights do not fit", "2 weights for 1"),
    ({"weights": [5.0]}, "weights do not fit", "summing to 1"),
    ({"notes": "{"}, "notes unreadable", "'{' is not JSON"),
    ({"notes": "[]"}, "notes unreadable", "not a JSON object"),
    ({"notes": "9" * 5000}, "notes unreadable", "is not JSON"),
    ({"notes": "[" * 100_000}, "notes unreadable", "is not JSON"),
]


@pytest.mark.parametrize(("change", "reason", "detail"), BAD_ROWS)
def test_unusable_rows_are_counted(tmp_path: Path, change: dict[str, Any], reason: str, detail: str) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, GOOD | change], schema=SCHEMA), path)
    result = read_pairs(path)
    assert (len(result.pairs), result.num_rows) == (1, 2)
    (bad,) = result.bad
    assert (bad.file, bad.row, bad.reason) == (str(path), 1, reason)
    assert detail in bad.detail


def test_a_picture_that_is_another_by_now_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    ref = ImageRef(path=tmp_path / "a.png", sha256=PICTURE.sha256)
    write_pairs(tmp_path / "p.parquet", [pair("yes", images=(ref,))])
    assert read_pairs(tmp_path / "p.parquet").pairs[0].prompt.images == (ref,)
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    (bad,) = read_pairs(tmp_path / "p.parquet").bad
    assert (bad.reason, str(tmp_path / "a.png") in bad.detail) == ("image changed", True)


def test_a_file_told_by_its_keys_is_trusted_with_pictures_whose_hash_it_knows(tmp_path: Path) -> None:
    """Anybody can write these keys; only who read the picture can write its hash."""
    (tmp_path / "private.png").write_bytes(png())
    folder = tmp_path / "downloaded"
    for known, usable in ((PICTURE.sha256, True), (None, False), ("0" * 64, False)):
        write_pairs(
            folder / "p.parquet", [pair("yes", images=(ImageRef(path=tmp_path / "private.png", sha256=known),))]
        )
        for decode in (True, False):
            read = open_data(folder / "p.parquet", check_images=decode).read()
            assert [bad.reason for bad in read.bad] == ([] if usable else ["image outside root"])
    assert open_data(folder / "p.parquet", kind="pairs", check_images=False).read().pairs


def test_unchecked_pictures_only_have_to_exist(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"<html>")
    names = ("a.png", "none.png")
    write_pairs(tmp_path / "p.parquet", [pair(images=(ImageRef(path=tmp_path / name),)) for name in names])
    result = read_pairs(tmp_path / "p.parquet", check_images=False)
    assert (len(result.pairs), [bad.reason for bad in result.bad]) == (1, ["image missing"])


def test_a_file_of_another_tool_with_the_four_columns_is_read(tmp_path: Path) -> None:
    large = pa.large_list(pa.struct([("content", pa.large_string()), ("role", pa.large_string())]))
    types = {"images": SCHEMA.field("images").type, "prompt": large, "chosen": large, "rejected": large}
    columns = {name: pa.array([GOOD[name]], type=kind) for name, kind in types.items()}
    pq.write_table(pa.table(columns | {"score": [1.0], "notes": pa.nulls(1)}), tmp_path / "trl.parquet")
    (found,) = read_pairs(tmp_path / "trl.parquet").pairs
    prompt = Prompt("0", (PICTURE,), "A?", provenance="trl.parquet#0")
    assert found == Pair(prompt, Answer("a"), (Answer("b"),), (1.0,))


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    with pytest.raises(UserError, match=r"pairs\.parquet: cannot be read: No such file"):
        read_pairs(path)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"pairs\.parquet: not a readable Parquet file"):
        read_pairs(path)
    pq.write_table(pa.table({"prompt": ["A?"], "x": [1]}), path)
    with pytest.raises(UserError, match="found rows with keys prompt, x; accepted: rows with chosen, images, prompt"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"chosen": "a"}, "chosen"), ({"prompt": [{"role": "user", "content": ["A?"]}]}, "prompt.0.content")],
)
def test_columns_of_another_type_are_counted(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    pq.write_table(pa.Table.from_pylist([GOOD | change]), tmp_path / "p.parquet")
    (bad,) = read_pairs(tmp_path / "p.parquet").bad
    assert (bad.reason, bad.detail.split(":")[0]) == ("wrong type", key)


def test_other_tools_are_told_that_the_pictures_are_pictures(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.parquet", [])
    schema = pq.read_schema(tmp_path / "pairs.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["images"] == {"feature": {"_type": "Image"}, "_type": "List"}
    assert list(features) == schema.names
