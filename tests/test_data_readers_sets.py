"""RLHF-V, RLAIF-V, NLF, SPA-VL, MM-RLHF, BPO and mDPO: the exact pairs of each variant, and rows that are none."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from data_files import PNG, SHA, amiss, base64_json, history, inside, made, picture, read_pairs, write
from verisight.data.readers import open_data
from verisight.types import UserError

COCO = "000000442786.jpg"
TEXT = {"question": "Q?", "chosen": "good", "rejected": "bad"}
CHANGED = {"chosen": [[0, 4]], "rejected": [[0, 3]]}
NC = "cc-by-nc-4.0"


# RLHF-V


def rlhf_v(**other: Any) -> dict[str, Any]:
    return {
        "ds_name": "RLHF-V",
        "image": {"bytes": PNG, "path": "x.jpg"},
        "text": json.dumps(TEXT),
        "origin_dataset": "COCO",
        "origin_split": '{"model": "Muffin", "type": "question answering"}',
        "idx": 5,
        "image_path": "x.jpg",
    } | other


FROM_MUFFIN = {"rejected_model": "Muffin", "category": "question answering"}


def test_rlhf_v_parquet(tmp_path: Path) -> None:
    logps = json.dumps(TEXT | {"logps": [1.0, [2.0]]})
    rows = [rlhf_v(), rlhf_v(text=logps, origin_split=""), rlhf_v(origin_split=None, image_path=f"coco/{COCO}")]
    path = write(tmp_path / "RLHF-V-Dataset.parquet", rows)
    notes = {"dataset": "rlhf_v", "license": NC, "changed": CHANGED}
    assert read_pairs(path, kind="rlhf_v", seen="Parquet keys ds_name, image, text, ") == [
        made("RLHF-V-Dataset.parquet#0", inside(), uid="5", group=f"sha256:{SHA}", **FROM_MUFFIN, **notes),
        made("RLHF-V-Dataset.parquet#1", inside(), uid="5", group=f"sha256:{SHA}", **notes),
        made("RLHF-V-Dataset.parquet#2", inside(), uid="5", group="coco:000000442786", **notes),
    ]


@pytest.mark.parametrize(
    ("image", "image_path"),
    [(COCO, ""), ("train", f"images/{COCO}"), (None, "442786"), ("train", 442786), (f"a/{COCO}", None)],
)
def test_rlhf_v_json_lines(tmp_path: Path, image: str | None, image_path: str | int | None) -> None:
    ref = picture(tmp_path, COCO)
    row = {
        "dataset_name": "RLHF-V", "image": image, "text": TEXT, "origin_dataset": "COCO",
        "origin_split": base64_json({"Model": "Muffin", "question_type": "question answering"}),
        "origin_split_inner_idx": "8", "image_path": image_path,
    }  # fmt: skip
    path = write(tmp_path / "RLHF-V-Dataset.jsonl", [row])
    assert read_pairs(path, kind="rlhf_v", images=tmp_path) == [
        made(
            "RLHF-V-Dataset.jsonl#0", ref, uid="8", group="coco:000000442786", dataset="rlhf_v", license=NC,
            changed=CHANGED, **FROM_MUFFIN,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("more", [[], [[1.0, 2.0, [0.5], 1.0, 2.0, [0.5]]], [1, 2, 3, 4, 5, 6]])
def test_rlhf_v_tsv(tmp_path: Path, more: list[Any]) -> None:
    text = base64_json([*TEXT.values(), *more])
    origin = base64_json({"model": "Muffin", "type": "question answering"})
    row = ["RLHF-V-Hall_v0", base64.b64encode(PNG).decode(), text, "unimm-chat", origin, "3", "train2014/x.jpg"]
    path = write(tmp_path / "RLHF-V-Hall_v0-1401.tsv", [row, row, row[:6]])
    reading = open_data(path)
    assert reading.seen == "TSV 7 columns: RLHF-V (Yu et al. 2023)"
    read = reading.read()
    assert read.pairs == [
        made(
            f"{path.name}#{number}", inside(), uid="3", group=f"sha256:{SHA}", dataset="rlhf_v", license=NC,
            changed=CHANGED, **FROM_MUFFIN,
        )
        for number in range(2)
    ]  # fmt: skip
    assert [(bad.reason, bad.detail) for bad in read.bad] == [("wrong number of columns", "found 6; accepted: 7")]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"text": "no JSON"}, "wrong type"),
        ({"text": '["Q?", "good"]'}, "wrong type"),
        ({"text": {"question": "Q?", "chosen": "good"}}, "missing key"),
        ({"text": TEXT | {"chosen": None}}, "wrong type"),
        ({"text": TEXT | {"chosen": "bad"}}, "chosen equals rejected"),
        ({"text": TEXT | {"chosen": " "}}, "empty chosen"),
        ({"image": None, "image_path": None}, "no image"),
        ({"image": "a.png", "image_path": "b.png"}, "image missing"),
        ({"image": "../a.png"}, "image outside root"),
    ],
)
def test_an_rlhf_v_row_that_is_no_pair(tmp_path: Path, other: dict[str, Any], reason: str) -> None:
    row = rlhf_v(image="x.png", image_path="") | other
    picture(tmp_path, "x.png")
    assert amiss(write(tmp_path / "a.jsonl", [row]), images=tmp_path) == [(reason, True)]


def test_a_tsv_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", [["a", "b"]])
    with pytest.raises(
        UserError, match=r"a\.tsv: no known layout 2 columns; accepted:(.|\n)* rlhf_v: text, or 7 columns"
    ):
        open_data(path)
    with pytest.raises(UserError, match=r"kind povid: found rows with 2 columns; accepted: rows with conversations, "):
        open_data(path, kind="povid")


# RLAIF-V


def rlaif_v(**other: Any) -> dict[str, Any]:
    return {
        "ds_name": "RLAIF-V", "image": {"bytes": PNG, "path": "x.jpg"}, **TEXT, "origin_dataset": "COCO",
        "origin_split": '{"labeling_model": "b", "answering_model": "a", "question_type": "detail"}', "idx": "12",
        "image_path": f"/somewhere/{COCO}",
    } | other  # fmt: skip


@pytest.mark.parametrize("idx", ["12", 12], ids=repr)
def test_rlaif_v(tmp_path: Path, idx: str | int) -> None:
    path = write(tmp_path / "RLAIF-V-Dataset_000.parquet", [rlaif_v(idx=idx, logps='{"logps": [1]}')])
    told = {"chosen_model": "a", "rejected_model": "a", "category": "detail"}
    assert read_pairs(path, kind="rlaif_v") == [
        made(path.name + "#0", inside(), uid="12", group="coco:000000442786", dataset="rlaif_v", license=NC, **told)
    ]


def test_two_shards_are_one_set(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"RLAIF-V-Dataset_00{number}.parquet", [rlaif_v()] * 2)
    (tmp_path / "README.md").touch()
    for path in (tmp_path, tmp_path / "RLAIF-V-Dataset_00*.parquet"):
        prompts = [pair.prompt for pair in read_pairs(path, kind="rlaif_v")]
        assert [prompt.uid for prompt in prompts] == ["0/0:12", "0/1:12", "1/0:12", "1/1:12"]
        assert prompts[3].provenance == "RLAIF-V-Dataset_001.parquet#1"


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-00000-of-00001.parquet", [rlaif_v()])
    with pytest.raises(UserError, match=r"several splits \(train, validation\); accepted: one, such as .*/train\*"):
        open_data(tmp_path)
    assert len(read_pairs(tmp_path / "data" / "train*.parquet", kind="rlaif_v")) == 1


# NLF


def nlf(*answers: tuple[Any, ...], **other: Any) -> dict[str, Any]:
    told = []
    for number, (model, rating, *critique) in enumerate(answers):
        turn = {"user": "Q?" if number == 0 else "Please refine.", "model": model}
        if rating is not None:
            turn["rating"] = rating
        told.append(turn | ({"critique NLF": critique[0]} if critique else {}))
    return {"image_id": COCO, "caption": "A bus.", "interaction": told} | other


@pytest.mark.parametrize("caption", ["A bus.", ["A bus.", "A red bus."], None, 3])
@pytest.mark.parametrize("space", [" ", "_"])
def test_nlf(tmp_path: Path, caption: Any, space: str) -> None:
    ref = picture(tmp_path, COCO)
    row = nlf(("bad", "2", "No bus."), ("good", 4.0), caption=caption)
    row["interaction"][0][f"critique{space}NLF"] = row["interaction"][0].pop("critique NLF")
    path = write(tmp_path / "hallucination_nlf.jsonl", [row])
    assert read_pairs(path, kind="nlf", images=tmp_path, seen="JSON lines keys image_id, caption, interaction") == [
        made(
            f"{path.name}#0", ref, uid="000000442786", group="coco:000000442786", dataset="nlf", chosen_score=4.0,
            rejected_score=2.0, rule="all_pairs", critique={"rejected": "No bus."}, chosen_turn=1, rejected_turn=0,
        )
    ]  # fmt: skip


def test_nlf_pairs_are_answers_of_different_rating(tmp_path: Path) -> None:
    picture(tmp_path, COCO)
    rows = [
        nlf(("a", "1"), ("b", "3"), ("c", "3")),  # 2 pairs, 1 tie
        nlf(("a", "4"), ("b", "4")),  # a tie
        nlf(("a", "..."), ("b", 2), ("c", None), ("d", True)),  # nothing to compare
        nlf(("a", "4")),
        nlf(("", "1"), ("b", "2")),
        nlf(),
    ]
    path = write(tmp_path / "helpfulness_nlf.jsonl", rows)
    read = open_data(path, images=tmp_path).read()
    found = [(one.chosen.text, one.rejected[0].text, one.prompt.uid) for one in read.pairs]
    assert found == [("b", "a", "0:000000442786.0"), ("c", "a", "0:000000442786.1")]
    assert [(bad.row, bad.reason, bad.fault) for bad in read.bad] == [
        (0, "tie", False), (1, "tie", False), *[(2, "rating is not a number", False)] * 6,
        (3, "fewer than two answers", False), (4, "empty rejected", True), (5, "turns out of order", True),
    ]  # fmt: skip


def test_vlsafe_has_no_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "harmlessness_examine.jsonl", [{"image_id": COCO, "caption": "A bus.", "query": "Q?"}])
    with pytest.raises(UserError, match=r"no known layout keys image_id, caption, query; accepted:(.|\n)*interaction"):
        open_data(path)
    with pytest.raises(UserError, match=r"found rows with keys .*query; accepted: rows with image_id, interaction"):
        open_data(path, kind="nlf")


# SPA-VL, MM-RLHF, BPO, mDPO


def test_spa_vl(tmp_path: Path) -> None:
    row = {"image": {"bytes": PNG, "path": None}, **TEXT, "class1": "Harm", "class2": "Fraud", "class3": None}
    path = write(tmp_path / "train-00000-of-00008.parquet", [row])
    assert read_pairs(path, kind="spa_vl") == [
        made(path.name + "#0", inside(), group=f"sha256:{SHA}", dataset="spa_vl", license="cc-by-4.0",
             category="Harm/Fraud")
    ]  # fmt: skip
    ref = picture(tmp_path / "image", "7.png")
    path = write(tmp_path / "spa_vl.json", [{"id": 7, "image": "image/7.png", **TEXT}])
    for images in (None, tmp_path, tmp_path / "image"):
        assert read_pairs(path, kind="spa_vl", images=images) == [
            made("spa_vl.json#0", ref, uid="7", group="name:7.png", dataset="spa_vl", license="cc-by-4.0")
        ]


def test_mm_rlhf(tmp_path: Path) -> None:
    refs = [picture(tmp_path, "long/a.png"), picture(tmp_path, "long/b.png", 9)]
    ask = {"prompt": "<image>\nQ?", "chosen": "good", "rejected": "bad"}
    rows = [
        ask | {"image": "long/a.png", "chosen_reason": "true", "rejected_reason": ""},
        ask | {"image": ["long/a.png", "long/b.png"]},
    ]
    path = write(tmp_path / "dpo_pairs.jsonl", rows)
    told = {"group": "name:a.png", "dataset": "mm_rlhf", "placeholder": "start"}
    assert read_pairs(path, kind="mm_rlhf", images=tmp_path) == [
        made("dpo_pairs.jsonl#0", refs[0], chosen_reason="true", **told),
        made("dpo_pairs.jsonl#1", *refs, **told),
    ]
    write(path, [ask | {"video": "video/1"}, ask | {"image": None}])
    assert amiss(path, images=tmp_path, kind="mm_rlhf") == [("video", True), ("no image", True)]


def test_bpo(tmp_path: Path) -> None:
    ref = picture(tmp_path, f"coco/train2017/{COCO}")
    completions = [
        {"score": 0, "response": "bad", "type": "llm-hal"},
        {"score": 1, "response": "good", "type": "gt"},
        {"score": 0, "response": "worse", "type": "mllm-hal"},
        {"score": 1, "response": "better", "type": "gt-rephrased"},
    ]
    row = {"prompt": "Q?\n<image>", "image": f"coco/train2017/{COCO}", "completions": completions}
    path = write(tmp_path / "bpo.json", [row])
    read = open_data(path, images=tmp_path).read()
    assert read.pairs[0] == made(
        "bpo.json#0.0", ref, group="coco:000000442786", dataset="bpo", placeholder="end", chosen_model="gt",
        rejected_model="llm-hal", chosen_score=1.0, rejected_score=0.0, rule="all_pairs",
    )  # fmt: skip
    assert len(read.pairs) == 4
    assert [(bad.reason, bad.detail, bad.fault) for bad in read.bad] == [
        ("tie", "llm-hal and mllm-hal", False), ("tie", "gt and gt-rephrased", False),
    ]  # fmt: skip
    write(path, [row | {"completions": completions[:1]}, row | {"completions": [completions[0], {"score": 1}]}])
    assert amiss(path, kind="bpo", images=tmp_path) == [("fewer than two answers", True), ("missing key", True)]


VICUNA = "A chat between a curious user and an artificial intelligence assistant. The assistant is polite. USER: "


@pytest.mark.parametrize(
    ("prompt", "before", "place"),
    [
        (f"{VICUNA}<image>\nQ? ASSISTANT:", (), "start"),
        (f"{VICUNA}<image>\nA? ASSISTANT: a</s>USER: Q? ASSISTANT:", history("A?", "a"), "start"),
        (f"{VICUNA}<image>\nA? ASSISTANT: a</s> USER: Q? ASSISTANT:", history("A?", "a"), "start"),
        ("USER: Q?\n<image> ASSISTANT:", (), "end"),
        ("Q?", (), "none"),
    ],
)
def test_mdpo(tmp_path: Path, prompt: str, before: Any, place: str) -> None:
    ref = picture(tmp_path, "merged_images/llava-detail-945.jpg")
    for name in ("llava-detail-945.jpg", "images/llava-detail-945.jpg", "merged_images/llava-detail-945.jpg"):
        row = {"img_path": name, "prompt": prompt, "chosen": "good", "rejected": "bad"}
        path = write(tmp_path / "vlfeedback_llava_10k.json", [row])
        assert read_pairs(path, kind="mdpo", images=tmp_path) == [
            made(
                path.name + "#0", ref, uid="llava-detail-945", group="name:llava-detail-945.jpg", before=before,
                dataset="mdpo", license="apache-2.0", placeholder=place,
            )
        ]  # fmt: skip


@pytest.mark.parametrize("prompt", ["Be kind. USER: Q? ASSISTANT:", f"{VICUNA}Q?", f"{VICUNA}Q? ASSISTANT: So"])
def test_an_unknown_template_is_no_question(tmp_path: Path, prompt: str) -> None:
    picture(tmp_path, "a.jpg")
    row = {"img_path": "a.jpg", "prompt": prompt, "chosen": "good", "rejected": "bad"}
    assert amiss(write(tmp_path / "a.json", [row]), images=tmp_path) == [("unknown template", True)]


def test_pictures_are_decoded_once_and_broken_ones_told(tmp_path: Path) -> None:
    rows = [rlaif_v(image={"bytes": data, "path": None}) for data in (PNG, PNG[:40], b"", io.BytesIO().getvalue())]
    read = open_data(write(tmp_path / "a.parquet", rows)).read()
    assert len(read.pairs) == 1
    assert {bad.reason for bad in read.bad} == {"image truncated"}


def test_notes_that_no_file_can_hold_are_told(tmp_path: Path) -> None:
    picture(tmp_path, COCO)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(nlf(("a", "1", "half \ud83d"), ("b", "2"))))  # half a pair of surrogates, escaped
    assert amiss(path, images=tmp_path) == [("notes unreadable", True)]
