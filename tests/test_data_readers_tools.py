"""Layouts of training tools, and our exports read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_files import PNG, SHA, chat, history, inside, made, picture, read_pairs, turns, write
from verisight.data.export import to_llama_factory, to_ms_swift
from verisight.data.readers import open_data
from verisight.data.records import write_pairs
from verisight.types import Answer, Pair, Prompt, UserError

CELL = {"bytes": PNG, "path": None}
SYSTEM = {"role": "system", "content": "Be kind."}


def amiss(folder: Path, kind: str, *rows: Any) -> list[str]:
    """Why each row is no pair."""
    picture(folder, "a.png")
    read = open_data(write(folder / "rows.jsonl", rows), kind=kind, images=folder).read()
    assert not read.pairs
    return [bad.reason for bad in read.bad]


# TRL


def said(role: str, *parts: str) -> dict[str, Any]:
    """A message in parts; "" is a picture."""
    told = [{"type": "text", "text": part} if part else {"type": "image", "text": None} for part in parts]
    return {"role": role, "content": told}


ASKED, GOOD, BAD = said("user", "", "Q?"), said("assistant", "good"), said("assistant", "bad")


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}, "start"),
        ({"prompt": [said("user", "Q", "?", "")], "chosen": [GOOD], "rejected": [BAD]}, "end"),
        ({"prompt": chat("Q?"), "chosen": chat("", "good")[1:], "rejected": chat("", "bad")[1:]}, "none"),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}, "start"),
        ({"prompt": "Q?", "chosen": chat("Q?", "good"), "rejected": chat("Q?", "bad")}, "none"),
        ({"prompt": "<image>Q?", "chosen": "good", "rejected": "bad"}, "start"),
    ],
)
@pytest.mark.parametrize("image", [{"images": [CELL]}, {"image": CELL}, {"images": None, "image": CELL}])
def test_trl(tmp_path: Path, row: dict[str, Any], place: str, image: dict[str, Any]) -> None:
    path = write(tmp_path / "train-00000-of-00001.parquet", [row | image | {"score": 1.5}])
    expected = made(f"{path.name}#0", inside(), group=f"sha256:{SHA}", dataset="trl", placeholder=place)
    assert read_pairs(path, kind="trl") == [expected]


def test_trl_conversations(tmp_path: Path) -> None:
    refs = [picture(tmp_path, "a.png"), picture(tmp_path, "b.png", 9)]
    before = [said("user", "", "A?"), said("assistant", "a")]
    later = [said("user", "B?"), said("assistant", "b")]
    rows = [
        {"chosen": [*before, said("user", "", "Q?"), GOOD], "rejected": [*before, said("user", "", "Q?"), BAD]},
        {"prompt": [*before, said("user", "", "Q?")], "chosen": [GOOD, *later], "rejected": [BAD]},
    ]
    path = write(tmp_path / "a.jsonl", [row | {"images": ["a.png", "b.png"]} for row in rows])
    told = {"group": "name:a.png", "before": history("A?", "a"), "dataset": "trl", "placeholder": "start"}
    found = read_pairs(path, kind="trl")
    assert found[0] == made("a.jsonl#0", *refs, **told)
    assert found[1].prompt == made("a.jsonl#1", *refs, **told).prompt
    assert found[1].chosen == Answer("good", history("B?", "b"))
    assert found[1].rejected == (Answer("bad"),)


def test_a_trl_row_that_is_no_pair(tmp_path: Path) -> None:
    row = {"images": ["a.png"], "prompt": chat("Q?"), "chosen": "good", "rejected": "bad"}
    sound = {"type": "audio", "audio": "x"}
    assert amiss(
        tmp_path, "trl",
        row | {"prompt": None}, row | {"prompt": 3}, row | {"prompt": chat("Q?", "a")}, row | {"prompt": []},
        row | {"chosen": None}, row | {"chosen": [[]]}, row | {"chosen": []}, row | {"rejected": "good"},
        row | {"prompt": [SYSTEM, *chat("Q?")]}, row | {"prompt": [{"role": "user", "content": [sound]}]},
        row | {"prompt": None, "chosen": chat("A?", "a"), "rejected": chat("B?", "a")},
        row | {"prompt": None, "chosen": chat("A?", "a", "B?", "b"), "rejected": chat("A?", "a")},
        row | {"prompt": None, "chosen": chat("A?", "a"), "rejected": chat("A?", "a ")},
        row | {"images": []}, row | {"prompt": "<image><image>Q?"}, row | {"images": ["b.png"]},
        row | {"chosen": chat("", "a", "<image>B?", "b")[1:]},
    ) == [
        "no prompt", "wrong type", "turns out of order", "turns out of order",
        "empty chosen", "wrong type", "turns out of order", "chosen equals rejected",
        "system prompt", "wrong type",
        "questions differ", "turns out of order", "chosen equals rejected",
        "no image", "placeholders do not fit", "image missing", "placeholders do not fit",
    ]  # fmt: skip


# LLaMA-Factory and ms-swift


@pytest.mark.parametrize("images", [["a.png"], "a.png", [{"bytes": None, "path": "a.png"}]], ids=str)
def test_llama_factory(tmp_path: Path, images: Any) -> None:
    ref = picture(tmp_path, "a.png")
    answers = {"chosen": {"from": "gpt", "value": "good"}, "rejected": {"role": "assistant", "content": "bad"}}
    rows = [
        {"conversations": turns("<image>Q?"), **answers, "images": images},
        {"conversations": turns("<image>A?", "a", "Q?"), **answers, "images": images, "system": ""},
    ]
    path = write(tmp_path / "rlhf-v.json", rows)
    told = {"group": "name:a.png", "dataset": "llama_factory", "placeholder": "start"}
    assert read_pairs(path, kind="llama_factory") == [
        made("rlhf-v.json#0", ref, **told),
        made("rlhf-v.json#1", ref, before=history("A?", "a"), **told),
    ]


def test_supervised_rows_of_both_tools(tmp_path: Path) -> None:
    ref = picture(tmp_path, "a.png")
    texts = ("<image>Q?", "good", "A?", "a")
    llama = write(tmp_path / "llama.json", [{"conversations": turns(*texts), "images": ["a.png"]}])
    swift = write(tmp_path / "swift.jsonl", [{"messages": chat(*texts), "images": ["a.png"]}])
    for kind, path in (("llama_factory", llama), ("ms_swift", swift)):
        found = made(f"{path.name}#0", ref, group="name:a.png", dataset=kind, placeholder="start")
        assert read_pairs(path, kind=kind) == [
            Pair(found.prompt, Answer("good", history("A?", "a")), origin=kind, notes=found.notes)
        ]
    assert open_data(swift, kind="llama_factory").read().pairs[0].chosen == Answer("good", history("A?", "a"))


@pytest.mark.parametrize(
    "rejected",
    [
        {"rejected_response": "bad"},
        {"rejected_response": chat("", "bad")[1:]},
        {"rejected_response": chat("", "bad")[1]},
        {"rejected_messages": [{"role": "system", "content": ""}, *chat("A?", "a", "Q?", "bad")]},
    ],
    ids=str,
)
@pytest.mark.parametrize("images", [["a.png"], [CELL]], ids=["path", "bytes"])
def test_ms_swift(tmp_path: Path, rejected: dict[str, Any], images: list[Any]) -> None:
    ref = picture(tmp_path, "a.png")
    row = {"messages": chat("<image>A?", "a", "Q?", "good"), "images": images, **rejected}
    path = write(tmp_path / f"a.{'jsonl' if images == ['a.png'] else 'parquet'}", [row])
    ref, group = (ref, "name:a.png") if images == ["a.png"] else (inside(), f"sha256:{SHA}")
    told = {"dataset": "ms_swift", "placeholder": "start", "before": history("A?", "a")}
    assert read_pairs(path, kind="ms_swift") == [made(f"{path.name}#0", ref, group=group, **told)]


def test_answers_without_a_loss_are_history(tmp_path: Path) -> None:
    picture(tmp_path, "a.png")

    def row(*losses: Any) -> dict[str, Any]:
        told = chat("A?", "a", "B?", "b", "C?", "c")
        for at, loss in enumerate(losses):
            told[2 * at + 1]["loss"] = loss
        return {"messages": told, "images": ["a.png"]}

    path = write(tmp_path / "a.jsonl", [row(False), row(0, False, 1.0), row(True, False), row(False, False, False)])
    read = open_data(path).read()
    assert [(one.prompt.history, one.chosen) for one in read.pairs] == [
        (history("A?", "a"), Answer("b", history("C?", "c"))),
        (history("A?", "a", "B?", "b"), Answer("c")),
    ]
    assert [bad.reason for bad in read.bad] == ["untrained turn", "no answer"]


def test_tool_rows_that_are_no_pairs(tmp_path: Path) -> None:
    row = {"messages": chat("Q?", "good"), "images": ["a.png"], "rejected_response": "bad"}
    assert amiss(
        tmp_path, "ms_swift",
        row | {"system": "Be kind."}, row | {"videos": ["a.mp4"]}, row | {"rejected_images": ["b.png"]},
        row | {"rejected_response": 3}, row | {"rejected_response": "good"}, row | {"rejected_response": ""},
        row | {"messages": [SYSTEM, *chat("Q?", "good")]}, row | {"messages": []}, row | {"messages": chat("Q?")},
        row | {"messages": [{"role": "tool", "content": "x"}]}, row | {"rejected_response": chat("A?", "bad")},
    ) == [
        "system prompt", "videos", "rejected_images",
        "wrong type", "chosen equals rejected", "empty rejected",
        "system prompt", "turns out of order", "turns out of order",
        "turns out of order", "questions differ",
    ]  # fmt: skip
    row = {"conversations": turns("Q?"), "images": ["a.png"]}
    bad = {"from": "gpt", "value": "bad"}
    assert amiss(
        tmp_path, "llama_factory",
        row, row | {"chosen": bad}, row | {"chosen": bad, "rejected": 3}, row | {"conversations": None},
        row | {"chosen": bad, "rejected": bad},
    ) == ["no answer", "empty rejected", "wrong type", "wrong type", "chosen equals rejected"]  # fmt: skip


def test_a_wrong_kind_names_the_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"messages": chat("Q?", "good"), "images": ["a.png"]}])
    with pytest.raises(UserError, match="kind povid: found rows with keys messages, images; accepted: rows with conv"):
        open_data(path, kind="povid")
    with pytest.raises(UserError, match="accepted: rows with chosen, prompt, rejected, image or video"):
        open_data(path, kind="mm_rlhf")
    write(path, [{"text": "a", "label": 1}])
    with pytest.raises(UserError, match=r"kind llama_factory: .* keys text, label; .* with conversations or messages"):
        open_data(path, kind="llama_factory")


# Our own exports


def exported(folder: Path, *, supervised: bool) -> list[Pair]:
    refs = [picture(folder, "a.png"), inside(9)]
    notes = {"license": "mit", "dataset": "povid", "changed": {"chosen": [[0, 1]], "rejected": []}, "score": 0.1}
    return [
        Pair(
            Prompt("7:x.1", tuple(refs), "  Q?\n", history("A?", "a "), "coco:1", "a.json#7.1"),
            Answer("good ", () if not supervised else history("B?", "b")),
            () if supervised else (Answer(" bad"), Answer("worse")),
            () if supervised else (0.25, 0.75),
            "povid",
            notes,
        ),
        Pair(
            Prompt("8", (refs[0],), "Q?", (), "8", "a.json#8"),
            Answer("good"),
            () if supervised else (Answer("bad"),),
            () if supervised else (1.0,),
            "csr",
            {},
        ),
    ]


def stored(pair: Pair) -> tuple[Any, ...]:
    """The pair, but for where its pictures are."""
    prompt = pair.prompt
    hashes = [ref.sha256 for ref in prompt.images]
    return (
        prompt.uid, hashes, prompt.text, prompt.history, prompt.split_group, prompt.provenance,
        pair.chosen, pair.rejected, pair.weights, pair.origin, pair.notes,
    )  # fmt: skip


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("export", [to_llama_factory, to_ms_swift])
def test_exports_come_back_as_they_were(tmp_path: Path, supervised: bool, export: Callable[..., Any]) -> None:
    before = exported(tmp_path, supervised=supervised)
    export(tmp_path, before, copy_images=True)
    kind = "llama_factory" if export is to_llama_factory else "ms_swift"
    for auto in (kind, "auto"):
        read = open_data(tmp_path / "verisight.jsonl", kind=auto, images=tmp_path).read()
        assert not read.bad
        assert [stored(pair) for pair in read.pairs] == [stored(pair) for pair in before]


def test_pairs_are_told_from_a_foreign_set_in_the_same_layout(tmp_path: Path) -> None:
    before = exported(tmp_path, supervised=False)
    write_pairs(tmp_path / "pairs.parquet", before)
    assert [stored(pair) for pair in read_pairs(tmp_path / "pairs.parquet", kind="pairs")] == [
        stored(p) for p in before
    ]
    row = {"prompt": chat("Q?"), "chosen": chat("", "good")[1:], "rejected": chat("", "bad")[1:], "images": [CELL]}
    path = write(tmp_path / "foreign.parquet", [row | {"uid": "x"}])
    assert read_pairs(path, kind="trl")[0].chosen == Answer("good")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("{", "notes unreadable"),
        ("[1]", "wrong type"),
        ({"uid": None}, "wrong type"),
        ({"notes": [1]}, "wrong type"),
        ({"weights": [0.5]}, "weights do not fit"),
        ({"weights": [float("nan"), 1.0]}, "weights do not fit"),
        ({"num_history": -1}, "turns out of order"),
        ({"num_history": 9}, "turns out of order"),
        ({"num_history": 1}, "turns out of order"),
        ({"extra_rejected": ["good"]}, "chosen equals rejected"),
        ({"uid": "half \ud83d"}, "invalid Unicode"),
    ],
    ids=str,
)
def test_what_an_export_carries_is_checked(tmp_path: Path, change: Any, reason: str) -> None:
    to_ms_swift(tmp_path, exported(tmp_path, supervised=False))
    path = tmp_path / "verisight.jsonl"
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    row["verisight"] = change if isinstance(change, str) else json.dumps(json.loads(row["verisight"]) | change)
    read = open_data(write(path, [row]), images=tmp_path).read()
    assert [(bad.reason, bad.fault) for bad in read.bad] == [(reason, True)]


def test_an_export_cannot_point_at_pictures_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    refs = (picture(tmp_path / "secret", "a.png"),)
    one = Pair(Prompt("1", refs, "Q?", (), "1", "a#1"), Answer("good"), (Answer("bad"),), (1.0,), "x")
    to_ms_swift(tmp_path / "export", [one])
    path = tmp_path / "export" / "verisight.jsonl"
    assert [bad.reason for bad in open_data(path).read().bad] == ["image outside root"]
    assert len(open_data(path, images=tmp_path / "secret").read().pairs) == 1
