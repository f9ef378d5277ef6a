"""POPE's released question files, in both versions, RePOPE's labels for them, and files of our own questions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verisight.data.files import read_jsonl, write_jsonl
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.pope import SPLITS, Question, Split
from verisight.types import UserError

_OBJECT = re.compile(r"is there an? (.+?) in the im(?:an|a)ge\?.*", re.IGNORECASE | re.DOTALL)
_FIRST_RANDOM = 2910  # questions of the random split of August 2023
_LATER_RANDOM = 3000  # since November 2023
_FIRST_TYPOS = {"random": 144, "popular": 44, "adversarial": 58}  # "imange" in August 2023; none later
_KNOWN = ("COCO_val2014_000000310196.jpg", "snowboard", "yes")  # the first of both releases


class Released(NamedTuple):
    """Released questions.

    `truths`: "<split>/<question_id>" -> {cluster, truth: {split, label, object, image, question}}; `version` is which
    release they are, as far as that can be told; `places`: LLaVA's question ids -> our uids, where its file was given.
    """

    truths: dict[str, dict[str, Any]]
    version: str
    places: dict[str, str]


def read_questions(files: Sequence[Path], relabels: Sequence[Path] = ()) -> Released:
    """Question files as released (coco_pope_random.json and its like: JSON lines with question_id, image, text, label).

    The split is in the file's name or in the rows' `category`. A file without labels (LLaVA's llava_pope_test.jsonl)
    says which answers belong to which question. `relabels` are RePOPE's files: a question that they hold gets their
    label, one that they don't hold is ambiguous and left out.

    Raises:
        UserError: a row that is no such question, an id twice, no split to be told, or no question with a label.
    """
    truths: dict[str, dict[str, Any]] = {}
    order: dict[str, list[str]] = {split: [] for split in SPLITS}
    unlabelled: list[tuple[str, dict[str, Any]]] = []
    for file in files:
        for at, row in enumerate(read_jsonl(file)):
            where = f"{file}: row {at}"
            split = _split(file, row, where)
            if "label" not in row:
                unlabelled.append((split, row))
                continue
            uid, entry = _question(row, split, where)
            if uid in truths:
                raise UserError(f"{where}.question_id is {row['question_id']} a second time in {split}")
            truths[uid] = entry
            order[split].append(uid)
    if not truths:
        raise UserError(f"{', '.join(map(str, files))}: no question has a label; accepted: coco_pope_*.json")
    version = _version(truths, order)
    places = _places(unlabelled, truths)
    if relabels:
        truths, told = _relabelled(truths, relabels)
        version = f"{version}, {told}"
    return Released(truths, version, places)


def write_questions(
    path: Path, questions: Sequence[Question], names: Mapping[int, str], *, compat: bool = False
) -> None:
    """Questions of one split in the released format; `names` are the pictures' file names.

    `compat` keeps the official fault: every "a" of the sentence becomes "an" in front of a vowel ("the imange").

    Raises:
        UserError: a picture without a file name.
    """
    missing = next((one.image_id for one in questions if one.image_id not in names), None)
    if missing is not None:
        raise UserError(f"{path}: image {missing} has no file name; accepted: one for each picture asked about")

    def text(one: Question) -> str:
        if compat and one.object[0] in "aeiou":
            return f"Is there an {one.object} in the imange?"
        return one.text

    rows = [
        {"question_id": at, "image": names[one.image_id], "text": text(one), "label": one.label}
        for at, one in enumerate(questions, start=1)
    ]
    write_jsonl(path, rows)


def _split(file: Path, row: Mapping[str, Any], where: str) -> Split:
    for split in SPLITS:
        if row.get("category") == split:
            return split
    for split in SPLITS:
        if split in file.name:
            return split
    raise UserError(
        f"{where}: neither its `category` nor the file's name says which split; accepted: {', '.join(SPLITS)}"
    )


def _question(row: dict[str, Any], split: Split, where: str) -> tuple[str, dict[str, Any]]:
    number = text_field(row, "question_id", where, numbers=True)
    image, text = text_field(row, "image", where), text_field(row, "text", where)
    if row["label"] not in ("yes", "no"):
        raise UserError(f"{where}.label is {short(row['label'])}; accepted are yes, no")
    named = _OBJECT.fullmatch(text.strip())
    truth = {
        "split": split, "label": row["label"], "object": named[1] if named else "", "image": image, "question": text,
    }  # fmt: skip
    return f"{split}/{number}", {"cluster": image, "truth": truth}


def _version(truths: Mapping[str, Mapping[str, Any]], order: Mapping[str, Sequence[str]]) -> str:
    """The August 2023 release has 2,910 random questions and "imange" in each split; the later one neither.

    Both hold `_KNOWN`; other sets of 3,000 questions, such as our own, are named by their content.
    """
    typos = {split: sum("imange" in truths[uid]["truth"]["question"] for uid in uids) for split, uids in order.items()}
    known = all(any(_content(truths[uid])[1:] == _KNOWN for uid in uids) for uids in order.values() if uids)
    whole = all(len(order[split]) in (0, _LATER_RANDOM) for split in ("popular", "adversarial"))
    num = len(order["random"])
    expected = {split: _FIRST_TYPOS[split] if uids else 0 for split, uids in order.items()}
    if known and whole and num == _FIRST_RANDOM and typos == expected:
        return "POPE e3e3926 (August 2023)"
    if known and whole and num == _LATER_RANDOM and not any(typos.values()):
        return "POPE 109985c and later (November 2023)"
    content = "\n".join(sorted("\t".join(_content(one)) for one in truths.values()))
    return f"POPE of an unknown version, {len(truths)} questions, {hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _content(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    truth = entry["truth"]
    return (*_same(truth["split"], truth), truth["label"])


def _places(unlabelled: Sequence[tuple[str, dict[str, Any]]], truths: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """LLaVA's ids: a row is the question about the same object in the same picture, wherever that stands.

    Its file is of the first release; by their places its questions would get the labels of others in the second.
    """
    uids = {_same(one["truth"]["split"], one["truth"]): uid for uid, one in truths.items()}
    found = {}
    for split, row in unlabelled:
        number, image, text = row.get("question_id"), row.get("image"), row.get("text")
        if not isinstance(number, int | str) or not isinstance(image, str) or not isinstance(text, str):
            continue
        named = _OBJECT.fullmatch(text.strip())
        uid = uids.get(_same(split, {"image": image, "object": named[1] if named else "", "question": text}))
        if uid is not None:
            found[str(number)] = uid
    return found


def _relabelled(truths: Mapping[str, dict[str, Any]], files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], str]:
    labels: dict[tuple[str, str, str], str] = {}
    for file in files:
        for at, row in enumerate(read_jsonl(file)):
            where = f"{file}: row {at}"
            split = _split(file, row, where)
            _, entry = _question(row, split, where)
            same = _same(split, entry["truth"])
            if labels.setdefault(same, row["label"]) != row["label"]:
                raise UserError(f"{where}.label is {row['label']!r}, but another row says otherwise of that question")
    covered = {split for split, _, _ in labels}
    kept, flipped, dropped = {}, 0, 0
    for uid, one in truths.items():
        truth = one["truth"]
        label = labels.get(_same(truth["split"], truth))
        if truth["split"] not in covered:
            kept[uid] = one
        elif label is None:
            dropped += 1
        else:
            flipped += label != truth["label"]
            kept[uid] = one | {"truth": truth | {"label": label}}
    if not kept:
        raise UserError(f"{files[0]}: holds none of the questions; accepted: RePOPE's files of the same splits")
    unknown = len(labels.keys() - {_same(one["truth"]["split"], one["truth"]) for one in truths.values()})
    told = f"{flipped} changed, {dropped} ambiguous ones left out"
    return kept, f"RePOPE labels ({told}{f', {unknown} for questions that are not here' if unknown else ''})"


def _same(split: str, truth: Mapping[str, Any]) -> tuple[str, str, str]:
    """What names a question in both files: ids were given anew, and one has the typo."""
    return split, Path(truth["image"]).name, (truth["object"] or truth["question"]).lower()
