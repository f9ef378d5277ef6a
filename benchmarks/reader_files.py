"""Public layouts filled with made-up rows, in every container they come in: answers of 60 words, 1,000 pictures."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NUM_PICTURES = 1000
_WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lo", "mu", "ne", "ra", "so", "ti", "vu") for b in "bdfgklmnprstz"]
_GROUP_ROWS = 500  # of a Parquet file


class Layout(NamedTuple):
    """A layout in one container. `tool`: the builder of `datasets` that loads it ("" where there is none)."""

    kind: str
    container: str
    tool: str
    row: Callable[[int, random.Random, list[bytes]], Any]
    inside: bool = False  # pictures lie in the file


def write_pictures(folder: Path, *, num: int = NUM_PICTURES, size: tuple[int, int] = (160, 160)) -> list[bytes]:
    """JPEGs of blurred noise by COCO names (6 kB each at 160 x 160 pixels); their bytes."""
    folder.mkdir()
    rng, encoded = np.random.default_rng(0), []
    for number in range(num):
        coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 11, size[0] // 11, 3), dtype=np.uint8))
        buffer = BytesIO()
        coarse.resize(size).save(buffer, "JPEG", quality=90)
        (folder / _name(number)).write_bytes(buffer.getvalue())
        encoded.append(buffer.getvalue())
    return encoded


def write(layout: Layout, path: Path, pictures: list[bytes], *, num: int) -> None:
    """`num` rows of the layout."""
    rng = random.Random(0)
    rows = (layout.row(number, rng, pictures) for number in range(num))
    match layout.container:
        case "JSON list":
            with path.open("w") as handle:
                handle.write("[")
                for number, row in enumerate(rows):
                    handle.write((", " if number else "") + json.dumps(row))
                handle.write("]")
        case "JSON lines":
            with path.open("w") as handle:
                handle.writelines(json.dumps(row) + "\n" for row in rows)
        case "TSV":
            with path.open("w") as handle:
                handle.writelines("\t".join(row) + "\n" for row in rows)
        case "Parquet":
            first = pa.Table.from_pylist(list(islice(rows, _GROUP_ROWS)))
            with pq.ParquetWriter(path, first.schema) as writer:
                writer.write_table(first)
                while some := list(islice(rows, _GROUP_ROWS)):
                    writer.write_table(pa.Table.from_pylist(some, schema=first.schema))


def text(rng: random.Random, num: int = 60) -> str:
    """Words and full stops."""
    return " ".join(rng.choices(_WORDS, k=num)).capitalize() + "."


def _name(number: int) -> str:
    return f"{number % NUM_PICTURES:012d}.jpg"


def _turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]


def _messages(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def _cell(number: int, pictures: list[bytes]) -> dict[str, Any]:
    return {"bytes": pictures[number % NUM_PICTURES], "path": _name(number)}


def _instruct(n: int, rng: random.Random, _: list[bytes]) -> Any:
    return {"id": str(n), "image": _name(n), "conversations": _turns(text(rng, 10), text(rng))}


def _povid(n: int, rng: random.Random, _: list[bytes]) -> Any:
    asked = text(rng, 10)
    told = {"conversations": _turns(asked, text(rng)), "rejected_conversations": _turns(asked, text(rng))}
    return {"id": str(n), "image": f"COCO_train2014_{_name(n)}", **told}


def _llava_rlhf(n: int, rng: random.Random, _: list[bytes]) -> Any:
    outputs = {f"output_{i}": {"from": "llava", "value": text(rng)} for i in (1, 2)}
    row = {"id": n, "image": _name(n), "conversations": _turns(text(rng, 10), "")}
    return row | outputs | {"preference": 1 + n % 2, "hallucination": False}


def _completion(rng: random.Random) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    told = {aspect: {"Rating": str(rng.randint(1, 5)), "Rationale": text(rng, 20)} for aspect in aspects}
    return {"model": rng.choice(("gpt4v", "llava", "qwen")), "response": text(rng), "annotations": told}


def _vlfeedback(n: int, rng: random.Random, _: list[bytes]) -> Any:
    return {"id": _name(n)[:-4], "prompt": text(rng, 10), "completions": [_completion(rng) for _ in range(4)]}


def _vlfeedback_table(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    row = _vlfeedback(n, rng, pictures)
    listed = {key: [one[key] for one in row["completions"]] for key in ("model", "response", "annotations")}
    return row | {"completions": listed, "image": _cell(n, pictures)}


def _nlf(n: int, rng: random.Random, _: list[bytes]) -> Any:
    turns = [
        {"user": text(rng, 10), "model": text(rng), "rating": str(rating), "critique NLF": text(rng, 15)}
        for rating in rng.sample((1, 2, 3, 4), 2)
    ]
    return {"image_id": _name(n), "caption": text(rng, 10), "interaction": turns}


def _rlhf_v(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    words = text(rng).split()
    chosen = [rng.choice(_WORDS) if rng.random() < 0.1 else word for word in words]
    told = {"question": text(rng, 10), "chosen": " ".join(chosen) + " x", "rejected": " ".join(words)}
    origin = json.dumps({"model": "llava", "type": "detailed description"})
    return {
        "ds_name": "RLHF-V", "image": _cell(n, pictures), "text": json.dumps(told), "origin_dataset": "COCO",
        "origin_split": origin, "idx": n, "image_path": _name(n),
    }  # fmt: skip


def _rlhf_v_lines(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    row = _rlhf_v(n, rng, pictures)
    return row | {"image": row["image_path"], "text": json.loads(row["text"])}


def _rlhf_v_columns(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    row = _rlhf_v(n, rng, pictures)
    told = list(json.loads(row["text"]).values())
    packed = (pictures[n % NUM_PICTURES], json.dumps(told).encode(), row["origin_split"].encode())
    image, words, origin = (base64.b64encode(one).decode() for one in packed)
    return [row["ds_name"], image, words, row["origin_dataset"], origin, str(n), row["image_path"]]


def _rlaif_v(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    row = _rlhf_v(n, rng, pictures)
    return {key: row[key] for key in row if key != "text"} | json.loads(row["text"]) | {"idx": str(n)}


def _spa_vl(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    told = {"question": text(rng, 10), "chosen": text(rng), "rejected": text(rng)}
    return {"image": _cell(n, pictures), **told, "class1": "a", "class2": "b", "class3": "c"}


def _spa_vl_named(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    row = _spa_vl(n, rng, pictures)
    return {key: row[key] for key in ("question", "chosen", "rejected")} | {"id": str(n), "image": _name(n)}


def _mm_rlhf(n: int, rng: random.Random, _: list[bytes]) -> Any:
    return {"prompt": text(rng, 10), "chosen": text(rng), "rejected": text(rng), "image": _name(n)}


def _bpo(n: int, rng: random.Random, _: list[bytes]) -> Any:
    kinds = ((1, "gt"), (0, "llm-hal"), (0, "mllm-hal"))
    told = [{"score": score, "response": text(rng), "type": kind} for score, kind in kinds]
    return {"prompt": f"{text(rng, 10)}\n<image>", "image": f"coco/train2017/{_name(n)}", "completions": told}


def _mdpo(n: int, rng: random.Random, _: list[bytes]) -> Any:
    asked = f"A chat between a curious user and an assistant. USER: <image>\n{text(rng, 10)} ASSISTANT:"
    return {"img_path": _name(n), "prompt": asked, "chosen": text(rng), "rejected": text(rng)}


def _trl(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    told = {"chosen": _messages("assistant", text(rng)), "rejected": _messages("assistant", text(rng))}
    return {"images": [_cell(n, pictures)], "prompt": _messages("user", text(rng, 10)), **told}


def _llama_factory(n: int, rng: random.Random, _: list[bytes]) -> Any:
    told = {side: {"from": "gpt", "value": text(rng)} for side in ("chosen", "rejected")}
    return {"conversations": _turns(text(rng, 10), "")[:1], **told, "images": [_name(n)]}


def _ms_swift(n: int, rng: random.Random, _: list[bytes]) -> Any:
    turns = _messages("user", f"<image>{text(rng, 10)}") + _messages("assistant", text(rng))
    return {"messages": turns, "rejected_response": text(rng), "images": [_name(n)]}


def _pairs(n: int, rng: random.Random, pictures: list[bytes]) -> Any:
    told = {"uid": str(n), "origin": "made", "provenance": f"made#{n}", "notes": "{}"}
    return _trl(n, rng, pictures) | told


LAYOUTS = (
    Layout("llava_instruct", "JSON list", "json", _instruct),
    Layout("povid", "JSON list", "json", _povid),
    Layout("csr", "JSON list", "json", _povid),
    Layout("llava_rlhf", "JSON list", "json", _llava_rlhf),
    Layout("bpo", "JSON list", "json", _bpo),
    Layout("spa_vl", "JSON list", "json", _spa_vl_named),
    Layout("mdpo", "JSON list", "json", _mdpo),
    Layout("llama_factory", "JSON list", "json", _llama_factory),
    Layout("vlfeedback", "JSON lines", "json", _vlfeedback),
    Layout("nlf", "JSON lines", "json", _nlf),
    Layout("mm_rlhf", "JSON lines", "json", _mm_rlhf),
    Layout("ms_swift", "JSON lines", "json", _ms_swift),
    Layout("rlhf_v", "JSON lines", "json", _rlhf_v_lines),
    Layout("rlhf_v", "TSV", "", _rlhf_v_columns, inside=True),
    Layout("rlhf_v", "Parquet", "parquet", _rlhf_v, inside=True),
    Layout("rlaif_v", "Parquet", "parquet", _rlaif_v, inside=True),
    Layout("spa_vl", "Parquet", "parquet", _spa_vl, inside=True),
    Layout("vlfeedback", "Parquet", "parquet", _vlfeedback_table, inside=True),
    Layout("trl", "Parquet", "parquet", _trl, inside=True),
    Layout("pairs", "Parquet", "parquet", _pairs, inside=True),
)
