"""A good row of every layout, hostile rows beside it, and what has to hold for whatever is read from a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_files import base64_json, chat, picture, png, turns, write
from verisight.data.outcome import Outcome
from verisight.data.readers import Reading, open_data
from verisight.data.records import SCHEMA, image_ref, to_pair, to_row
from verisight.types import Pair, UserError

TEXT = {"chosen": "good", "rejected": "bad"}


class Row(NamedTuple):
    """A layout's row number `n` about a picture in `cell`; `spoils` are the places of values that it cannot do without.

    `takes_bytes`: the cell may hold a struct of bytes and path.
    """

    make: Callable[[int, Any], dict[str, Any]]
    spoils: tuple[tuple[str | int, ...], ...]
    takes_bytes: bool = True


def _povid(n: int, cell: Any) -> dict[str, Any]:
    asked = "<image>\nQ?"
    return {
        "id": f"i{n}", "image": cell, "conversations": turns(asked, f"good {n}"),
        "rejected_conversations": turns(asked, f"bad {n}"),
    }  # fmt: skip


def _llava_rlhf(n: int, cell: Any) -> dict[str, Any]:
    outputs = [{"from": "llava", "value": f"{text} {n}"} for text in ("good", "bad")]
    return {
        "id": n, "image": cell, "conversations": turns("<image>\nQ?", "slot"), "output_1": outputs[0],
        "output_2": outputs[1], "preference": 1, "hallucination": True,
    }  # fmt: skip


def _bpo(n: int, cell: Any) -> dict[str, Any]:
    told = [{"score": 1, "response": f"good {n}", "type": "gt"}, {"score": 0, "response": f"bad {n}", "type": "llm"}]
    return {"prompt": "Q?\n<image>", "image": cell, "completions": told}


def _vlfeedback(n: int, cell: Any) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    told = [
        {
            "annotations": {aspect: {"Rating": rating, "Rationale": "So."} for aspect in aspects},
            "model": f"model {rating}", "response": f"{text} {n}",
        }
        for text, rating in (("good", "5"), ("bad", "2"))
    ]  # fmt: skip
    return {"id": f"i{n}", "prompt": "Q?", "models": ["a", "b"], "completions": told, "image": cell}


def _nlf(n: int, cell: Any) -> dict[str, Any]:
    told = [
        {"user": "Q?", "model": f"bad {n}", "rating": "2", "critique NLF": "No."},
        {"user": "Refine.", "model": f"good {n}", "rating": "4", "critique NLF": "Yes."},
    ]
    return {"image_id": cell, "caption": "A bus.", "interaction": told}


def _rlhf_v(n: int, cell: Any) -> dict[str, Any]:
    text = json.dumps({"question": "Q?", "chosen": f"good {n}", "rejected": f"bad {n}"})
    origin = '{"model": "Muffin", "type": "detail"}'
    return {
        "ds_name": "RLHF-V", "image": cell, "text": text, "origin_dataset": "COCO", "origin_split": origin, "idx": n,
        "image_path": "",
    }  # fmt: skip


def _answered(**rest: Any) -> Callable[[int, Any], dict[str, Any]]:
    def make(n: int, cell: Any) -> dict[str, Any]:
        texts = {"question": "Q?", "chosen": f"good {n}", "rejected": f"bad {n}"}
        return {"image": cell} | texts | rest

    return make


def _prompted(key: str) -> Callable[[int, Any], dict[str, Any]]:
    def make(n: int, cell: Any) -> dict[str, Any]:
        return {key: cell, "prompt": "<image>\nQ?", "chosen": f"good {n}", "rejected": f"bad {n}"}

    return make


def _said(n: int) -> dict[str, Any]:
    return {"chosen": chat("", f"good {n}")[1:], "rejected": chat("", f"bad {n}")[1:]}


def _trl(n: int, cell: Any) -> dict[str, Any]:
    return {"images": [cell], "prompt": chat("Q?")} | _said(n)


def _pairs(n: int, cell: Any) -> dict[str, Any]:
    return {
        "images": [cell], "prompt": chat("Q?"), **_said(n), "uid": f"u{n}", "origin": "povid", "provenance": f"a#{n}",
        "split_group": f"g{n}", "license": "mit", "image_sha256": [None], "extra_rejected": ["worse"],
        "weights": [0.25, 0.75], "notes": '{"dataset": "povid"}',
    }  # fmt: skip


def _llama_factory(n: int, cell: Any) -> dict[str, Any]:
    answers = {
        side: {"from": "gpt", "value": f"{text} {n}"} for side, text in (("chosen", "good"), ("rejected", "bad"))
    }
    return {"conversations": turns("<image>Q?"), **answers, "images": [cell]}


def _ms_swift(n: int, cell: Any) -> dict[str, Any]:
    return {"messages": chat("<image>Q?", f"good {n}"), "images": [cell], "rejected_response": f"bad {n}"}


def _llava_instruct(n: int, cell: Any) -> dict[str, Any]:
    return {"id": f"i{n}", "image": cell, "conversations": turns("<image>\nQ?", f"good {n}", "More?", "a")}


_CONVERSATIONS = (
    ("id",), ("image",), ("conversations",), ("conversations", 0), ("conversations", 0, "from"),
    ("conversations", 0, "value"), ("conversations", 1, "from"), ("conversations", 1, "value"),
)  # fmt: skip
_REJECTED = tuple(("rejected_conversations", *place[1:]) for place in _CONVERSATIONS[2:])
_SAID = tuple(
    (side, *rest) for side in ("prompt", "chosen", "rejected") for rest in ((), (0,), (0, "role"), (0, "content"))
)
_ASKED = (("image",), ("question",), ("chosen",), ("rejected",))
_POVID = Row(_povid, _CONVERSATIONS + _REJECTED, takes_bytes=False)
SAMPLES: dict[str, Row] = {
    "pairs": Row(
        _pairs,
        (
            ("images",), ("images", 0), *_SAID, ("uid",), ("origin",), ("provenance",), ("split_group",), ("license",),
            ("image_sha256",), ("extra_rejected",), ("extra_rejected", 0), ("weights",), ("weights", 0), ("notes",),
        ),
    ),
    "povid": _POVID,
    "csr": _POVID,
    "llava_rlhf": Row(
        _llava_rlhf,
        (
            *_CONVERSATIONS[:7], ("output_1",), ("output_1", "value"), ("output_2",), ("output_2", "value"),
            ("preference",), ("hallucination",),
        ),
        takes_bytes=False,
    ),
    "bpo": Row(
        _bpo, (("prompt",), ("image",), ("completions",), ("completions", 0), ("completions", 0, "score"),
               ("completions", 1, "response"), ("completions", 0, "type")),
    ),
    "vlfeedback": Row(
        _vlfeedback,
        (
            ("id",), ("prompt",), ("image",), ("completions",), ("completions", 0), ("completions", 0, "annotations"),
            ("completions", 0, "annotations", "Helpfulness"),
            ("completions", 0, "annotations", "Helpfulness", "Rating"), ("completions", 1, "response"),
        ),
    ),
    "nlf": Row(
        _nlf,
        (
            ("image_id",), ("interaction",), ("interaction", 0), ("interaction", 0, "user"),
            ("interaction", 0, "model"), ("interaction", 1, "model"), ("interaction", 1, "rating"),
        ),
        takes_bytes=False,
    ),
    "rlhf_v": Row(_rlhf_v, (("image",), ("text",), ("idx",), ("image_path",))),
    "rlaif_v": Row(_answered(ds_name="RLAIF-V", idx="3", image_path=""), (*_ASKED, ("idx",), ("image_path",))),
    "spa_vl": Row(_answered(class1="Harm", class2=None, class3=None), (*_ASKED, ("class1",))),
    "mdpo": Row(_prompted("img_path"), (("img_path",), ("prompt",), ("chosen",), ("rejected",)), takes_bytes=False),
    "mm_rlhf": Row(_prompted("image"), (("image",), ("prompt",), ("chosen",), ("rejected",)), takes_bytes=False),
    "llama_factory": Row(
        _llama_factory,
        (
            ("conversations",), ("conversations", 0), ("conversations", 0, "from"), ("conversations", 0, "value"),
            ("chosen",), ("chosen", "from"), ("chosen", "value"), ("rejected",), ("rejected", "value"),
            ("images",), ("images", 0),
        ),
    ),
    "ms_swift": Row(
        _ms_swift,
        (
            ("messages",), ("messages", 0), ("messages", 0, "role"), ("messages", 0, "content"),
            ("messages", 1, "content"), ("rejected_response",), ("images",), ("images", 0),
        ),
    ),
    "trl": Row(_trl, (("images",), ("images", 0), *_SAID)),
    "llava_instruct": Row(_llava_instruct, _CONVERSATIONS, takes_bytes=False),
}  # fmt: skip


def good(kind: str, n: int, *, encoded: bool = False) -> dict[str, Any]:
    """Row `n` of the layout about picture `n`.png, which `album` writes, or with that picture's bytes in it."""
    assert not encoded or SAMPLES[kind].takes_bytes
    return SAMPLES[kind].make(n, {"bytes": png(n), "path": None} if encoded else f"{n}.png")


def tsv_row(n: int) -> list[str]:
    """Row `n` of RLHF-V's oldest layout."""
    return ["RLHF-V-Hall_v0", "", base64_json(["Q?", f"good {n}", f"bad {n}"]), "coco", "", str(n), f"{n}.png"]


def album(folder: Path, num: int = 3) -> Path:
    """A folder with the pictures 0.png, 1.png, ..., each of another shade."""
    for number in range(num):
        picture(folder, f"{number}.png", number)
    return folder


def account(reading: Reading) -> list[Outcome]:
    """Everything that a reading gives, and that nothing of it is lost: the invariant of all readers.

    Rows are numbered without a gap, each gives a pair or says why not, and every pair can be stored as it is.
    """
    found = list(reading)
    for file in reading.files:
        assert [one.row for one in found if one.file == str(file)] == list(
            range(sum(o.file == str(file) for o in found))
        )
    assert {one.file for one in found} <= {str(file) for file in reading.files}
    for one in found:
        assert one.pairs or one.bad
        for bad in one.bad:
            assert (bad.file, bad.row) == (one.file, one.row)
            assert bad.reason
            assert bad.detail
            assert len(bad.detail) < 2000
            json.dumps([bad.reason, bad.detail], ensure_ascii=False).encode()
        for pair in one.pairs:
            assert stored(pair) == pair
    return found


def stored(pair: Pair) -> Pair:
    """The pair after it was in one of our files."""
    (row,) = pa.Table.from_pylist([to_row(pair)], schema=SCHEMA).to_pylist()
    return to_pair(row, find=image_ref)


def told(path: Path, *, num_rows: int | None = None, **options: Any) -> list[Outcome] | str:
    """What a hostile file gives: outcomes that account for all of its rows, or a UserError's text that names it."""
    try:
        found = account(open_data(path, **options))
    except UserError as error:
        message = str(error)
        assert str(path) in message
        assert "Traceback" not in message
        message.encode()
        return message
    assert num_rows is None or len(found) == num_rows
    return found


def reasons(found: Sequence[Outcome] | str) -> list[str]:
    """Why each row is no pair, "" for one that is."""
    assert not isinstance(found, str), found
    return ["" if one.pairs else one.bad[0].reason for one in found]


def beside(folder: Path, kind: str, row: Any, container: str = "jsonl") -> tuple[list[Outcome] | str, list[Outcome]]:
    """What the row gives between two good ones, and what three good ones give."""
    album(folder)
    rows = [good(kind, n) for n in range(3)]
    path = folder / f"rows.{container}"
    expected = account(open_data(write(path, rows), kind=kind, images=folder))
    assert reasons(expected) == [""] * 3
    if container == "jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in (rows[0], row, rows[2])))
    else:
        path.write_text(json.dumps([rows[0], row, rows[2]]))
    return told(path, kind=kind, images=folder), expected
