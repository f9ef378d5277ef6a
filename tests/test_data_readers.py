"""The LLaVA family and VLFeedback: the exact pairs of each variant, the rules, and what all readers have in common."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_files import PNG, SHA, amiss, history, inside, made, picture, read_pairs, turns, write
from verisight.data.pairing import BestWorst, Margin
from verisight.data.readers import FORMATS, open_data
from verisight.types import UserError

COCO = "000000442786.jpg"
TEXT = {"question": "Q?", "chosen": "good", "rejected": "bad"}
CHANGED = {"chosen": [[0, 4]], "rejected": [[0, 3]]}
NC = "cc-by-nc-4.0"


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
    assert read_pairs(path, kind="povid", images=tmp_path / "coco") == [
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
    assert read_pairs(path, kind="llava_rlhf", images=tmp_path) == [
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
    assert read_pairs(path, kind="vlfeedback", images=tmp_path) == [
        made(path.name + "#0", ref, group="name:svit-1.jpg", **told)
    ]
    turned = {key: [one[key] for one in row["completions"]] for key in ("annotations", "model", "response")}
    row = row | {"completions": turned}
    cells = ({"image": {"bytes": PNG, "path": None}}, {"img_path": "/home/me/.cache/merged_images/svit-1.jpg"}, {})
    for cell, found in zip(cells, (inside(), ref, ref), strict=True):
        path = write(tmp_path / "data/train-00000-of-00001.parquet", [row | cell])
        group = f"sha256:{SHA}" if found.data else "name:svit-1.jpg"
        expected = [made(path.name + "#0", found, group=group, **told)]
        assert read_pairs(path, kind="vlfeedback", images=tmp_path) == expected
        assert read_pairs(tmp_path, kind="vlfeedback", images=tmp_path) == expected


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
