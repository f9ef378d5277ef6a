"""Every public preference set and each of its variants: the exact pairs of a row, and what cannot be one."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from data_files import PNG, SHA, base64_json, history, inside, made, picture, turns, write
from verisight.data.pairing import BestWorst, Margin
from verisight.data.readers import FORMATS, open_data
from verisight.types import Pair, UserError

COCO = "000000442786.jpg"
TEXT = {"question": "Q?", "chosen": "good", "rejected": "bad"}
CHANGED = {"chosen": [[0, 4]], "rejected": [[0, 3]]}
NC = "cc-by-nc-4.0"


def pairs(path: Path, *, seen: str = "", **options: Any) -> list[Pair]:
    """The pairs of a file in which nothing is amiss; `auto` has to take it for the same as its `kind`."""
    kind = options.pop("kind")
    reading = open_data(path, **options)
    assert reading.format.name == kind
    assert seen in reading.seen
    read = reading.read()
    assert not read.bad
    assert open_data(path, kind=kind, **options).read() == read
    return read.pairs


def amiss(path: Path, **options: Any) -> list[tuple[str, bool]]:
    """Why rows, or pairs in them, cannot be used, and whether that is a fault."""
    return [(bad.reason, bad.fault) for bad in open_data(path, **options).read().bad]


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
    assert pairs(path, kind="rlhf_v", seen="Parquet keys ds_name, image, text, ") == [
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
    assert pairs(path, kind="rlhf_v", images=tmp_path) == [
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
    assert pairs(path, kind="rlaif_v") == [
        made(path.name + "#0", inside(), uid="12", group="coco:000000442786", dataset="rlaif_v", license=NC, **told)
    ]


def test_two_shards_are_one_set(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"RLAIF-V-Dataset_00{number}.parquet", [rlaif_v()] * 2)
    (tmp_path / "README.md").touch()
    for path in (tmp_path, tmp_path / "RLAIF-V-Dataset_00*.parquet"):
        prompts = [pair.prompt for pair in pairs(path, kind="rlaif_v")]
        assert [prompt.uid for prompt in prompts] == ["0/0:12", "0/1:12", "1/0:12", "1/1:12"]
        assert prompts[3].provenance == "RLAIF-V-Dataset_001.parquet#1"


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"data/{split}-00000-of-00001.parquet", [rlaif_v()])
    with pytest.raises(UserError, match=r"several splits \(train, validation\); accepted: one, such as .*/train\*"):
        open_data(tmp_path)
    assert len(pairs(tmp_path / "data" / "train*.parquet", kind="rlaif_v")) == 1


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
    assert pairs(path, kind="nlf", images=tmp_path, seen="JSON lines keys image_id, caption, interaction") == [
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
    assert pairs(path, kind="spa_vl") == [
        made(path.name + "#0", inside(), group=f"sha256:{SHA}", dataset="spa_vl", license="cc-by-4.0",
             category="Harm/Fraud")
    ]  # fmt: skip
    ref = picture(tmp_path / "image", "7.png")
    path = write(tmp_path / "spa_vl.json", [{"id": 7, "image": "image/7.png", **TEXT}])
    for images in (None, tmp_path, tmp_path / "image"):
        assert pairs(path, kind="spa_vl", images=images) == [
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
    assert pairs(path, kind="mm_rlhf", images=tmp_path) == [
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
        ("USER: Q?\n<image> ASSISTANT:", (), "end"),
        ("Q?", (), "none"),
    ],
)
def test_mdpo(tmp_path: Path, prompt: str, before: Any, place: str) -> None:
    ref = picture(tmp_path, "merged_images/llava-detail-945.jpg")
    for name in ("llava-detail-945.jpg", "images/llava-detail-945.jpg", "merged_images/llava-detail-945.jpg"):
        row = {"img_path": name, "prompt": prompt, "chosen": "good", "rejected": "bad"}
        path = write(tmp_path / "vlfeedback_llava_10k.json", [row])
        assert pairs(path, kind="mdpo", images=tmp_path) == [
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


# The LLaVA family


@pytest.mark.parametrize("file", ["", "_version_1"])
@pytest.mark.parametrize("name", [f"COCO_train2014_{COCO}", f"./data/coco/COCO_train2014_{COCO}"])
@pytest.mark.parametrize("stored", [f"COCO_train2014_{COCO}", f"train2014/COCO_train2014_{COCO}", COCO])
def test_povid(tmp_path: Path, file: str, name: str, stored: str) -> None:
    ref = picture(tmp_path / "coco", stored)
    row = {
        "id": "COCO_1", "image": name, "conversations": turns("<image>\nQ?", "good"),
        "rejected_conversations": turns("<image>\nQ?", "bad"),
    }  # fmt: skip
    path = write(tmp_path / f"POVID_preference_data_for_VLLMs{file}.json", [row])
    told = {"uid": "COCO_1", "group": "coco:000000442786", "placeholder": "start"}
    assert pairs(path, kind="povid", images=tmp_path / "coco") == [
        made(path.name + "#0", ref, dataset="povid", license="cc-by-4.0", **told)
    ]
    assert open_data(path, kind="csr", images=tmp_path / "coco").read().pairs == [
        made(path.name + "#0", ref, dataset="csr", **told)
    ]


def test_povid_of_several_turns(tmp_path: Path) -> None:
    ref = picture(tmp_path, "a.jpg")

    def row(*rejected: str) -> dict[str, Any]:
        chosen = turns("A?\n<image>", "a", "Q?", "good")
        return {"id": 1, "image": "a.jpg", "conversations": chosen, "rejected_conversations": turns(*rejected)}

    rows = [
        row("A?\n<image>", "a", "Q?", "bad"),
        row("<image> A?", "b", "Q?", "bad"),
        row("B?", "a", "Q?", "bad"),
        row("A?", "a", "Q?", "good "),
        row("A?", "a"),
    ]
    read = open_data(write(tmp_path / "a.json", rows), images=tmp_path).read()
    assert read.pairs[0] == made(
        "a.json#0", ref, uid="1", group="name:a.jpg", before=history("A?", "a"), dataset="povid", license="cc-by-4.0",
        placeholder="end",
    )  # fmt: skip
    chosen, (rejected,) = read.pairs[1].chosen, read.pairs[1].rejected
    assert (read.pairs[1].prompt.text, chosen.text, rejected.text) == ("A?", "a", "b")
    assert (chosen.follow_up, rejected.follow_up) == (history("Q?", "good"), history("Q?", "bad"))
    reasons = [bad.reason for bad in read.bad]
    assert reasons == ["questions differ", "chosen equals rejected", "turns out of order"]


@pytest.mark.parametrize("deeper", [False, True])
@pytest.mark.parametrize("preference", [1, 2])
def test_llava_rlhf_keeps_its_history(tmp_path: Path, deeper: bool, preference: int) -> None:
    ref = picture(tmp_path, f"train2017/{COCO}")
    told = turns("A?\n<image>", "a", "Q?", "a slot")
    outputs = [{"from": "llava", "value": text} for text in ("good", "bad")][:: 1 if preference == 1 else -1]
    row = {
        "id": 43227, "image": COCO, "conversations": [told] if deeper else told, "output_1": outputs[0],
        "output_2": outputs[1], "preference": preference, "hallucination": True,
    }  # fmt: skip
    path = write(tmp_path / "llava_7b_v1_preference.json", [row])
    assert pairs(path, kind="llava_rlhf", images=tmp_path) == [
        made(
            path.name + "#0", ref, uid="43227", group="coco:000000442786", before=history("A?", "a"),
            dataset="llava_rlhf", license="apache-2.0 (project page: cc-by-nc-4.0)", placeholder="end",
            hallucination=True,
        )
    ]  # fmt: skip


def test_a_slot_alone_is_no_conversation(tmp_path: Path) -> None:
    output = {"from": "llava", "value": "a"}
    row = {"id": 1, "conversations": [{"from": "gpt", "value": "a slot"}], "output_1": output, "output_2": output}
    assert amiss(write(tmp_path / "a.json", [row | {"preference": 1}])) == [("turns out of order", True)]


# VLFeedback


def rated(model: str, *ratings: Any, response: str | None = None) -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    told = {aspect: {"Rating": rating, "Rationale": "So."} for aspect, rating in zip(aspects, ratings, strict=True)}
    return {"annotations": told, "model": model, "response": response or f"I am {model}."}


def vlfeedback(*completions: dict[str, Any]) -> dict[str, Any]:
    models = [one["model"] for one in completions]
    return {"id": "svit-1", "prompt": "Q?", "models": models, "completions": list(completions)}


FOUR = [rated("a", "5", "5", "4"), rated("b", "4", "5", "5"), rated("c", "1", "2", "3"), rated("d", "5", "N/A", "5")]


def test_both_layouts_of_vlfeedback_give_the_same_pairs(tmp_path: Path) -> None:
    row = vlfeedback(rated("a", "1", "1", "4", response="bad"), rated("b", "5", "5", "5", response="good"))
    ref = picture(tmp_path, "merged_images/svit-1.jpg")
    told = {
        "chosen_model": "b", "rejected_model": "a", "chosen_score": 5.0, "rejected_score": 2.0, "rule": "all_pairs",
        "dataset": "vlfeedback", "uid": "svit-1",
    }  # fmt: skip
    path = write(tmp_path / "vlfeedback_80k.jsonl", [row])
    assert pairs(path, kind="vlfeedback", images=tmp_path) == [
        made(path.name + "#0", ref, group="name:svit-1.jpg", **told)
    ]
    turned = {key: [one[key] for one in row["completions"]] for key in ("annotations", "model", "response")}
    row = row | {"completions": turned}
    cells = ({"image": {"bytes": PNG, "path": None}}, {"img_path": "/root/.cache/merged_images/svit-1.jpg"}, {})
    for cell, found in zip(cells, (inside(), ref, ref), strict=True):
        path = write(tmp_path / "data/train-00000-of-00001.parquet", [row | cell])
        group = f"sha256:{SHA}" if found.data else "name:svit-1.jpg"
        expected = [made(path.name + "#0", found, group=group, **told)]
        assert pairs(path, kind="vlfeedback", images=tmp_path) == expected
        assert pairs(tmp_path, kind="vlfeedback", images=tmp_path) == expected


@pytest.mark.parametrize(
    ("rule", "found", "left_out"),
    [
        (None, ["a>c", "b>c"], {"tie": 1, "rating is not a number": 3}),
        (BestWorst(), ["a>c"], {"rating is not a number": 1}),
        (Margin(2.0), ["a>c", "b>c"], {"tie": 1, "rating is not a number": 3}),
        (Margin(3.0), [], {"tie": 1, "rating is not a number": 3, "gap below the margin": 2}),
    ],
)
def test_rules_leave_out_and_count(tmp_path: Path, rule: Any, found: list[str], left_out: dict[str, int]) -> None:
    """Means of three: a 14/3, b 14/3, c 2, d not known; 6 comparisons, of which a-b is a tie and 3 hold d."""
    picture(tmp_path, "svit-1.jpg")
    path = write(tmp_path / "a.jsonl", [vlfeedback(*FOUR)])
    read = open_data(path, images=tmp_path, rule=rule).read()
    models = [f"{one.notes['chosen_model']}>{one.notes['rejected_model']}" for one in read.pairs]
    assert models == found
    reasons = [bad.reason for bad in read.bad]
    assert {reason: reasons.count(reason) for reason in reasons} == left_out
    assert not any(bad.fault for bad in read.bad)


# All of them


def test_rows_without_a_picture_have_to_be_asked_for(tmp_path: Path) -> None:
    row = {"id": 1, "image": None, **TEXT}
    path = write(tmp_path / "a.json", [row, row | {"question": "<image>Q?"}])
    assert amiss(path) == [("no image", True)] * 2
    read = open_data(path, text_only=True).read()
    assert read.pairs == [made("a.json#0", uid="1", dataset="spa_vl", license="cc-by-4.0")]
    assert [bad.reason for bad in read.bad] == ["placeholders do not fit"]


@pytest.mark.parametrize("key", ["question", "chosen", "rejected"])
def test_control_tokens_and_placeholders_are_no_text(tmp_path: Path, key: str) -> None:
    picture(tmp_path, "a.png")
    row = {"id": 1, "image": "a.png", **TEXT}
    rows = [row | {key: text} for text in ("Yes.</s>", "<|im_end|>", "half \ud83d", "")]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))  # half a pair of surrogates, escaped
    marks = "special token in a text"
    empty = f"empty {key}"
    assert amiss(path, images=tmp_path) == [(r, True) for r in (marks, marks, "invalid Unicode", empty)]
    if key != "question":
        write(path, [row | {key: "An <image>."}])
        assert amiss(path, images=tmp_path) == [("<image> in an answer", True)]


def test_an_unknown_kind_is_answered_with_all_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"id": 1, "image": None, **TEXT}])
    names = [one.name for one in FORMATS]
    with pytest.raises(UserError) as error:
        open_data(path, kind="POVID")
    assert str(error.value) == f"kind: found 'POVID'; accepted: auto, {', '.join(names)}"
    assert len(set(names)) == len(names) == 16


def test_a_format_tells_source_and_licence() -> None:
    assert all(one.title and one.source for one in FORMATS)
    told = {one.name: one.license for one in FORMATS if one.license and one.name != "llava_instruct"}
    assert told == {
        "povid": "cc-by-4.0", "llava_rlhf": "apache-2.0 (project page: cc-by-nc-4.0)", "rlhf_v": NC, "rlaif_v": NC,
        "mdpo": "apache-2.0", "spa_vl": "cc-by-4.0",
    }  # fmt: skip


def test_pictures_are_decoded_once_and_broken_ones_told(tmp_path: Path) -> None:
    rows = [rlaif_v(image={"bytes": data, "path": None}) for data in (PNG, PNG[:40], b"", io.BytesIO().getvalue())]
    read = open_data(write(tmp_path / "a.parquet", rows)).read()
    assert len(read.pairs) == 1
    assert {bad.reason for bad in read.bad} == {"image truncated"}
