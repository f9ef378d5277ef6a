"""Public sets re-enacted in the pocket world: their formats to the letter, and their construction against the truth."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pocket_sets import NUM, everything, is_the_picture, rows, task_of, write_sets
from verisight.pocket.datasets import scene
from verisight.pocket.oracle import judge
from verisight.pocket.voices import FALLIBLE, RANKED, VOICES, Asked


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    return everything()


@pytest.fixture(scope="module")
def written(asked: list[Asked], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), asked)


def types(row: dict[str, Any]) -> dict[str, type]:
    return {key: type(value) for key, value in row.items()}


def is_turn(turn: dict[str, Any], speaker: str) -> bool:
    return list(turn) == ["from", "value"] and turn["from"] == speaker and bool(turn["value"].strip())


# What is asked and answered


def test_every_voice_answers_everything_and_the_blinder_the_worse(asked: list[Asked]) -> None:
    details = [one for one in asked if one.task.asked is None]
    assert [one.uid for one in details] == [scene("preference", index).uid for index in range(NUM)]
    assert 0 < len(asked) - len(details) < NUM
    assert len(VOICES) >= 6
    for one in asked:
        assert judge(one.task, one.reference).num_faults == 0
        assert {name: len(said) for name, said in one.answers.items()} == {
            name: 2 if name == RANKED else 1 for name in VOICES
        }
        is_the_picture(one.jpeg, asked, one.uid)
    errors = dict.fromkeys(VOICES, 0)
    for one in details:
        for name, said in one.answers.items():
            verdict = judge(one.task, said[0])
            errors[name] += verdict.num_faults + len(verdict.missed)
    assert errors["narrator-truth"] == 0 < errors["narrator-biased"]
    assert errors["pocket-greedy"] < errors["pocket-rho50"] < errors["pocket-rho90"] < errors["pocket-rho100"]


# The files


def test_povid(asked: list[Asked], written: Path) -> None:
    found = rows(written, "povid")
    assert len(found) == len(asked)
    for one, row in zip(asked, found, strict=True):
        assert list(row) == ["id", "image", "conversations", "rejected_conversations"]
        assert (row["id"], row["image"]) == (f"COCO_train2014_{one.uid:012d}", f"COCO_train2014_{one.uid:012d}.jpg")
        is_the_picture((written / "povid" / "images" / row["image"]).read_bytes(), asked, one.uid)
        (human, chosen), (again, rejected) = row["conversations"], row["rejected_conversations"]
        assert human == again == {"from": "human", "value": f"<image>\n{one.task.question}"}
        assert is_turn(chosen, "gpt")
        assert is_turn(rejected, "gpt")
        assert judge(one.task, chosen["value"])[1:] == (("",) * len(judge(one.task, chosen["value"]).claims), (), 1.0)
        assert judge(one.task, rejected["value"]).num_faults in (1, 2)


def test_rlhf_v(asked: list[Asked], written: Path) -> None:
    table = pq.read_table(written / "rlhf_v" / "RLHF-V-Dataset.parquet")
    text = pa.string()
    assert [(field.name, field.type) for field in table.schema] == [
        ("ds_name", text), ("image", pa.struct([("bytes", pa.binary()), ("path", text)])), ("text", text),
        ("origin_dataset", text), ("origin_split", text), ("idx", pa.int64()), ("image_path", text),
    ]  # fmt: skip
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.schema.names
    assert features["image"] == {"_type": "Image"}
    found = rows(written, "rlhf_v")
    assert 0 < len(found) < len(asked)  # an answer without an error is no row
    for at, row in enumerate(found):
        assert (row["ds_name"], row["idx"]) == ("RLHF-V", at)
        pair, split = json.loads(row["text"]), json.loads(row["origin_split"])
        assert list(pair) == ["question", "chosen", "rejected"]
        task = task_of(asked, int(row["image_path"].removesuffix(".jpg")), pair["question"])
        is_the_picture(row["image"]["bytes"], asked, task.scene.uid)
        assert row["image"]["path"] == row["image_path"]
        assert split["type"] == ("detailed description" if task.asked is None else "question answering")
        assert split["model"] in FALLIBLE
        said = next(one.answers[split["model"]] for one in asked if one.task is task)
        assert pair["rejected"] in said
        assert judge(task, pair["rejected"]).num_faults >= 1
        assert judge(task, pair["chosen"]).num_faults == 0
        kept = [c.sentence for c, fault in zip(*judge(task, pair["rejected"])[:2], strict=True) if not fault]
        assert [one for one in (c.sentence for c in judge(task, pair["chosen"]).claims) if one in kept] == kept
    assert {json.loads(row["origin_split"])["model"] for row in found} == set(FALLIBLE)


def test_llava_rlhf(asked: list[Asked], written: Path) -> None:
    found = rows(written, "llava_rlhf")
    assert NUM - 4 <= len(found) <= NUM
    expected = dict(
        id=int, image=str, conversations=list, output_1=dict, output_2=dict, preference=int, hallucination=bool
    )
    lengths, marks = Counter(), Counter()
    for row in found:
        assert types(row) == expected
        assert row["image"] == f"{row['id']:012d}.jpg"
        is_the_picture((written / "llava_rlhf" / "images" / row["image"]).read_bytes(), asked, row["id"])
        turns = row["conversations"]
        assert all(is_turn(turn, "gpt" if at % 2 else "human") for at, turn in enumerate(turns))
        first = turns[0]["value"]
        assert [turn["value"].count("<image>") for turn in turns] == [1, *[0] * (len(turns) - 1)]
        assert first.startswith("<image>\n") != first.endswith("\n<image>")
        lengths[len(turns)] += 1
        marks[first.startswith("<image>")] += 1
        if len(turns) == 4:
            assert first.replace("<image>", "").strip().startswith("Is there a")
        task = task_of(asked, row["id"], turns[-2]["value"].replace("<image>", "").strip())
        assert is_turn(row["output_1"], "llava")
        assert is_turn(row["output_2"], "llava")
        one, two = (judge(task, row[key]["value"]) for key in ("output_1", "output_2"))
        assert row["output_1"]["value"] != row["output_2"]["value"]
        assert row["hallucination"] == (one.num_faults != two.num_faults)
        better, worse = (one, two) if row["preference"] == 1 else (two, one)
        assert (better.num_faults, len(better.missed)) <= (worse.num_faults, len(worse.missed))
    assert lengths.keys() == {2, 4}
    assert marks.keys() == {True, False}


def test_vlfeedback(asked: list[Asked], written: Path) -> None:
    found = rows(written, "vlfeedback")
    assert len(found) == len(asked)
    assert len({row["id"] for row in found}) == NUM  # two questions about a picture share its id
    for one, row in zip(asked, found, strict=True):
        assert types(row) == dict(id=str, prompt=str, models=list, completions=list)
        is_the_picture((written / "vlfeedback" / "merged_images" / f"{row['id']}.jpg").read_bytes(), asked, one.uid)
        assert row["prompt"] == one.task.question
        assert [done["model"] for done in row["completions"]] == row["models"]
        assert len(set(row["models"])) == 4
        assert set(row["models"]) <= VOICES.keys()
        for done in row["completions"]:
            assert types(done) == dict(annotations=dict, model=str, response=str)
            assert done["response"] == one.answers[done["model"]][0]
            assert list(done["annotations"]) == ["Helpfulness", "Ethical Considerations", "Visual Faithfulness"]
            for rated in done["annotations"].values():
                assert types(rated) == dict(Rating=str, Rationale=str)
                assert rated["Rating"] in set("12345")
                assert rated["Rationale"]
        verdicts = [judge(one.task, done["response"]) for done in row["completions"]]
        for aspect, measure in (("Helpfulness", "recall"), ("Visual Faithfulness", "precision")):
            told = [int(done["annotations"][aspect]["Rating"]) for done in row["completions"]]
            known = [getattr(verdict, measure) for verdict in verdicts]
            assert all((told[a] <= told[b]) for a in range(4) for b in range(4) if known[a] <= known[b])
    assert {name for row in found for name in row["models"]} == VOICES.keys()


def test_vlfeedback_as_parquet_holds_what_the_lines_hold(asked: list[Asked], written: Path) -> None:
    table = pq.read_table(written / "vlfeedback" / "data" / "train-00000-of-00001.parquet")
    completions, text = table.schema.field("completions").type, pa.string()
    rated = pa.struct([("Rating", text), ("Rationale", text)])
    aspects = pa.struct([(name, rated) for name in ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")])
    assert completions == pa.struct(
        [("annotations", pa.list_(aspects)), ("model", pa.list_(text)), ("response", pa.list_(text))]
    )
    lines = rows(written, "vlfeedback")
    for one, line, row in zip(asked, lines, rows(written, "vlfeedback/data"), strict=True):
        turned = row.pop("completions")
        listed = [dict(zip(turned, values, strict=True)) for values in zip(*turned.values(), strict=True)]
        assert row.pop("img_path") == f"merged_images/{line['id']}.jpg"
        image = row.pop("image")
        assert image["path"] == f"{line['id']}.jpg"
        is_the_picture(image["bytes"], asked, one.uid)
        assert {**row, "completions": listed} == line


def test_vlfeedback_corrupted(asked: list[Asked], written: Path) -> None:
    for one, row, rated in zip(asked, rows(written, "vlfeedback_corrupted"), rows(written, "vlfeedback"), strict=True):
        assert types(row) == dict(conversations=list, chosen=dict, rejected=dict, images=list)
        assert row["conversations"] == [{"from": "human", "value": f"<image>{one.task.question}"}]
        (name,) = row["images"]
        is_the_picture((written / "vlfeedback_corrupted" / name).read_bytes(), asked, one.uid)
        assert is_turn(row["chosen"], "gpt")
        assert is_turn(row["rejected"], "gpt")
        totals = {
            done["response"]: sum(int(a["Rating"]) for a in done["annotations"].values())
            for done in rated["completions"]
        }
        chosen, rejected = row["chosen"]["value"], row["rejected"]["value"]
        assert totals[chosen] == max(totals.values())
        assert judge(one.task, chosen).num_faults < judge(one.task, rejected).num_faults


def test_nlf(asked: list[Asked], written: Path) -> None:
    found = rows(written, "nlf")
    lengths = Counter()
    for one, row in zip(asked, found, strict=True):
        assert types(row) == dict(image_id=str, caption=str, interaction=list)
        assert row["image_id"] == f"{one.uid:012d}.jpg"
        is_the_picture((written / "nlf" / "images" / row["image_id"]).read_bytes(), asked, one.uid)
        assert row["caption"] == one.reference
        turns = row["interaction"]
        lengths[len(turns)] += 1
        assert turns[0]["user"] == one.task.question
        faults = []
        for turn in turns:
            assert types(turn) == {"user": str, "model": str, "rating": str, "critique NLF": str}
            verdict = judge(one.task, turn["model"])
            assert turn["rating"] == str(max(1, 4 - verdict.num_faults))
            faults.append(verdict.num_faults)
            for claim, fault in zip(*verdict[:2], strict=True):
                if fault == "absent" and claim.kind == "object":
                    assert f"There is no {claim.name} in the image." in turn["critique NLF"]
        assert faults == sorted(faults, reverse=True)
        for turn, later in pairwise(turns):
            assert later["user"].startswith(turn["critique NLF"])
    assert lengths.keys() == {2, 3}
