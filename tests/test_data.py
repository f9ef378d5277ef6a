"""Files: what a kill leaves behind. LLaVA-Instruct rows: every one becomes a pair or a counted bad row."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from verisight.data.files import (
    append_jsonl,
    claim_run_folder,
    read_json,
    read_jsonl,
    replacing,
    write_atomic,
    write_json,
    write_jsonl,
)
from verisight.data.images import image_hash
from verisight.data.outcome import Read, enforce_bad_fraction
from verisight.data.readers import open_data
from verisight.data.views import split_turns
from verisight.types import Answer, BadRow, ImageRef, Message, Pair, UserError


def test_write_atomic_replaces_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_atomic(path, "ä")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_write_that_dies_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert read_jsonl(path) == [{"a": 1}]
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_at_the_path_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as handle:
        handle.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": [1, None]})
    assert "é" in path.read_text(encoding="utf-8")
    assert read_json(path) == {"é": [1, None]}
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON at line 2, column 7"):
        read_json(path)
    path.write_bytes(b'"\xff"')
    with pytest.raises(UserError, match=r"a\.json: not UTF-8 text at byte 1"):
        read_json(path)
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file"):
        read_json(tmp_path / "none.json")
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]


def test_jsonl_rows_may_hold_any_line_separator(tmp_path: Path) -> None:
    rows = [{"text": "a\nb\u2028c\x85d\x0ce"}, {"n": 1}]
    path = tmp_path / "sub" / "a.jsonl"
    for row in rows:
        append_jsonl(path, row)
    assert read_jsonl(path) == rows
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


def test_a_kill_at_any_byte_costs_only_the_last_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [{"step": 1}, {"step": 2, "text": "ü"}])
    whole = path.read_bytes()
    first_line = whole.index(b"\n") + 1
    for cut in range(first_line, len(whole)):
        path.write_bytes(whole[:cut])
        kept = [{"step": 1}] if cut < len(whole) - 1 else [{"step": 1}, {"step": 2, "text": "ü"}]
        assert read_jsonl(path) == kept
        append_jsonl(path, {"step": 3})
        assert read_jsonl(path) == [*kept, {"step": 3}]


@pytest.mark.parametrize("line", ["{", "[1]", "\udcff"])
def test_any_other_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UserError, match=r"a\.jsonl: line 3: .*each line is one JSON object"):
        read_jsonl(path)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert image_hash(ImageRef(path=path)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert image_hash(ImageRef(path=path)) == image_hash(ImageRef(data=b"abc"))


def test_claim_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    assert claim_run_folder(folder, "1" * 64) is False
    assert (folder / "recipe.sha256").read_text() == "1" * 64 + "\n"
    (folder / "metrics.jsonl").touch()
    assert claim_run_folder(folder, "1" * 64) is True
    with pytest.raises(UserError, match=r"a: already holds another run \(recipe 1{12}, this one is 2{12}\)"):
        claim_run_folder(folder, "2" * 64)
    (folder / "recipe.sha256").unlink()
    with pytest.raises(UserError, match=r"already holds another run \(files but no recipe.sha256\)"):
        claim_run_folder(folder, "1" * 64)
    with pytest.raises(UserError, match="is a file"):
        claim_run_folder(folder / "metrics.jsonl", "1")


def test_a_claim_killed_before_its_rename_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / ".recipe.sha256.abc.tmp").touch()
    assert claim_run_folder(tmp_path, "1") is False


# LLaVA-Instruct


def row(*values: str, id: int | str = 7, image: str | None = "a.png") -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]
    return {"id": id, "conversations": turns} | ({"image": image} if image is not None else {})


def read_set(folder: Path, *, limit: int | None = None, **options: Any) -> Read:
    return open_data(folder / "set.json", kind="llava_instruct", images=folder, **options).read(limit)


def read(folder: Path, *rows: Any, **options: Any) -> Read:
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:45])
    (folder / "text.png").write_text("<html>")
    write_json(folder / "set.json", list(rows))
    return read_set(folder, **options)


@pytest.mark.parametrize("question", ["<image>\nWho?", "Who?\n<image>", "<image>Who?", " Who? <image> "])
def test_the_placeholder_is_removed_wherever_it_stands(tmp_path: Path, question: str) -> None:
    (pair,) = read(tmp_path, row(question, " Me. ")).pairs
    assert (pair.prompt.text, pair.chosen) == ("Who?", Answer(" Me. "))


def test_a_row_of_several_turns_is_one_pair(tmp_path: Path) -> None:
    rows = [row("<image>\nA?", "a", id="x"), row("<image>\nA?", "a", "B? <image>", "b", image="sub/a.png")]
    pair = read(tmp_path, *rows).pairs[1]
    assert pair.prompt.uid == "1:7"
    assert pair.prompt.images == (
        ImageRef(path=tmp_path / "a.png", sha256=image_hash(ImageRef(path=tmp_path / "a.png"))),
    )
    assert (pair.prompt.split_group, pair.prompt.provenance) == ("name:a.png", "set.json#1")
    assert pair.chosen == Answer("a", (Message("user", "B?"), Message("assistant", "b")))
    assert (pair.rejected, pair.origin, pair.notes["placeholder"]) == ((), "llava_instruct", "start")
    assert pair.notes["dataset"] == "llava_instruct"


def test_a_limit_leaves_later_rows_unread(tmp_path: Path) -> None:
    good, broken = row("<image>\nA?", "a"), row("<image>\nA?", "")
    assert (read(tmp_path, good, good, broken, limit=2).bad, read(tmp_path, good, broken).num_rows) == ([], 2)


OK = ("<image>\nA?", "a")
BAD_ROWS = [
    (row("A?", "a"), "no <image> placeholder", "'A?'"),
    (row("A?", "a", "<image>\nB?", "b"), "no <image> placeholder", "'A?'"),
    (row("<image>\nA <image>?", "a"), "several <image> placeholders", "A <image>?"),
    (row("<image>", "a"), "empty question", "'<image>'"),
    (row(*OK, "", "b"), "empty question", "''"),
    (row("A?", "a", image=None), "no image", "'A?'"),
    (row(*OK, image=None), "no image", "A?"),
    (row(*OK, image=""), "no image", "A?"),
    (row("<image>\nA?", "<image> a"), "<image> in an answer", "'<image> a'"),
    (row("<image>\nA?", " \n"), "empty answer", "' \\n'"),
    (row(*OK, "B?", ""), "empty answer", "''"),
    (row(), "turns out of order", "0 turns"),
    (row("<image>\nA?"), "turns out of order", "1 turns"),
    (row(*OK, "B?"), "turns out of order", "'user', 'assistant', 'user'"),
    (row("<image>\nA?", "\ud800"), "invalid Unicode", "'\\ud800'"),
    (row(*OK, image="b.png"), "image missing", "'b.png'"),
    (row(*OK, image="cut.png"), "image truncated", "cut.png"),
    (row(*OK, image="text.png"), "image unreadable", "text.png"),
    (row(*OK, image="../a.png"), "image outside root", "leads out of"),
]


@pytest.mark.parametrize(("bad", "reason", "detail"), BAD_ROWS)
def test_a_bad_row_is_counted_and_explained(tmp_path: Path, bad: Any, reason: str, detail: str) -> None:
    read(tmp_path)
    (tmp_path / "set.json").write_text(json.dumps([row(*OK), bad]))
    result = read_set(tmp_path)
    assert (len(result.pairs), result.num_rows) == (1, 2)
    (found,) = result.bad
    assert (found.file, found.row, found.reason) == (str(tmp_path / "set.json"), 1, reason)
    assert detail in found.detail
    found.detail.encode()


def test_two_questions_in_a_row_are_out_of_order(tmp_path: Path) -> None:
    bad = row(*OK)
    bad["conversations"] = [*bad["conversations"][:1] * 2, *bad["conversations"][1:] * 2]
    assert read(tmp_path, bad).bad[0].reason == "turns out of order"


def test_a_picture_too_large_is_a_bad_row(tmp_path: Path) -> None:
    Image.new("1", (8000, 8000)).save(tmp_path / "large.png")
    assert read(tmp_path, row(*OK, image="large.png")).bad[0].reason == "image too large"


def test_unchecked_pictures_only_have_to_exist(tmp_path: Path) -> None:
    rows = [row(*OK, image=name) for name in ("cut.png", "none.png")]
    result = read(tmp_path, *rows, check_images=False)
    assert (len(result.pairs), [bad.reason for bad in result.bad]) == (1, ["image missing"])


def test_text_only_rows_are_taken_when_asked_for(tmp_path: Path) -> None:
    rows = [row("A?", "a", image=None), row("<image>\nA?", "a", image=None)]
    result = read(tmp_path, *rows, text_only=True)
    (pair,) = result.pairs
    assert (pair.prompt.images, pair.prompt.text, pair.prompt.split_group) == ((), "A?", "0:7")
    assert [bad.reason for bad in result.bad] == ["no image"]


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ("a", "wrong type", "the row: found str 'a'"),
        ({"id": 1, "image": "a.png"}, "missing key", "conversations"),
        (row(*OK) | {"image": ["a.png"]}, "image unreadable", "the cell holds a list"),
        ({"id": 1, "conversations": [{"from": "human"}]}, "missing key", "conversations.0.value"),
        (row(*OK) | {"id": 1.5}, "wrong type", "id"),
    ],
)
def test_a_row_of_another_shape_is_counted(tmp_path: Path, bad: Any, reason: str, detail: str) -> None:
    result = read(tmp_path, row(*OK), bad)
    assert (len(result.pairs), result.num_rows) == (1, 2)
    assert result.bad[0].reason == reason
    assert detail in result.bad[0].detail


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set\.json: kind llava_instruct: found rows with keys a; accepted: rows "):
        read(tmp_path, {"a": 1})
    with pytest.raises(UserError, match=r"set\.json: found rows of type str; accepted: objects"):
        read(tmp_path, "a")


def test_the_image_root_must_be_a_folder(tmp_path: Path) -> None:
    read(tmp_path)
    with pytest.raises(UserError, match=r"images: .*none is not there; accepted: a folder or a zip archive"):
        open_data(tmp_path / "set.json", kind="llava_instruct", images=tmp_path / "none")


# too many bad rows


def test_bad_rows_are_logged_and_stop_above_the_fraction(tmp_path: Path) -> None:
    """3 of 10 rows: 30.0 % passes at 0.3 and not at 0.29."""
    bad = [BadRow("set.json", n, "image missing" if n else "empty answer", f"detail {n}") for n in range(3)]
    log = tmp_path / "bad_rows.jsonl"
    enforce_bad_fraction([], num_rows=1, max_bad_fraction=0.0, log=log)
    assert not log.exists()
    enforce_bad_fraction(bad, num_rows=10, max_bad_fraction=0.3, log=log)
    assert read_jsonl(log)[2] == {
        "file": "set.json",
        "row": 2,
        "reason": "image missing",
        "detail": "detail 2",
        "fault": True,
    }
    with pytest.raises(UserError) as error:
        enforce_bad_fraction(bad, num_rows=10, max_bad_fraction=0.29, log=log)
    message = str(error.value)
    assert "3 of 10 rows (30.0%) cannot be used, max_bad_fraction accepts 29.0%" in message
    assert "image missing: 2, empty answer: 1." in message
    assert "\n  set.json: row 1: image missing: detail 1" in message
    assert message.endswith("bad_rows.jsonl.")


def test_only_three_bad_rows_are_shown() -> None:
    bad = [BadRow("f", n, "r", "d") for n in range(5)]
    with pytest.raises(UserError, match=r"row 2(?!.*row 3)"):
        enforce_bad_fraction(bad, num_rows=6, max_bad_fraction=0.5, log=None)


@pytest.mark.parametrize("num", [0, 2])
def test_no_usable_row_always_stops(tmp_path: Path, num: int) -> None:
    bad = [BadRow("f", n, "r", "d") for n in range(num)]
    with pytest.raises(UserError, match=r"no rows|at least one usable row"):
        enforce_bad_fraction(bad, num_rows=num, max_bad_fraction=1.0, log=None)


def test_split_turns(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, row(*OK, "B?", "b", "C?", "c")).pairs
    one, two, three = split_turns(pair)
    assert [(p.prompt.uid, p.prompt.text, p.chosen) for p in (one, two, three)] == [
        ("0:7/0", "A?", Answer("a")),
        ("0:7/1", "B?", Answer("b")),
        ("0:7/2", "C?", Answer("c")),
    ]
    first = (Message("user", "A?"), Message("assistant", "a"))
    assert (one.prompt.history, two.prompt.history) == ((), first)
    assert three.prompt.history == (*first, Message("user", "B?"), Message("assistant", "b"))
    assert three.prompt.images == pair.prompt.images
    single = Pair(one.prompt, one.chosen)
    assert split_turns(single) == [single]
