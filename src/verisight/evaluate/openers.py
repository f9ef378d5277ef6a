"""Files of the public benchmarks -> questions, truths and scoring functions (`scorers.Opened`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from verisight.evaluate import (
    amber,
    chair,
    gqa,
    grounded,
    hallusion,
    llava_bench,
    mmhal,
    mmvet,
    object_hal,
    pope,
    textvqa,
)
from verisight.evaluate.amber_words import read_words
from verisight.evaluate.answers import FindUid, Truths, by_keys
from verisight.evaluate.chair_words import finder, protocol_name
from verisight.evaluate.coco import read_ground_truth
from verisight.evaluate.ground_truth import image_key, read_coco, read_ids, read_objects
from verisight.evaluate.pope_files import Released, read_questions
from verisight.evaluate.pope_parsers import PARSERS
from verisight.evaluate.scorers import Asked, Files, Opened, Row, take
from verisight.types import Request, UserError

SHORT = "Reply with one word or a short phrase and nothing else."


def open_chair(files: Files, protocol: str) -> Opened:
    """COCO files, or objects by image. Without a list of ids the images are those that have answers."""
    find = finder("official" if protocol == "official" else "corrected", files.synonyms)
    wanted = None if files.ids is None else read_ids(files.ids)
    if files.objects is not None:
        if files.annotations:
            raise UserError("--objects, --annotations: found both; chair takes one of them as ground truth")
        truths = read_objects(files.objects, find)
    else:
        several = "COCO instances and captions files, or --objects FILE"
        among = files.among if wanted is None else frozenset(wanted)
        truths = read_coco(take(files, None, "chair", several), find, among=among)
    if wanted is not None:
        lacking = [uid for uid in wanted if uid not in truths]
        if lacking:
            raise UserError(f"--ids: {len(lacking)} images have no ground truth, the first is {lacking[0]}")
        truths = {uid: truths[uid] for uid in wanted}
    name = protocol_name("official" if protocol == "official" else "corrected", files.synonyms)
    return Opened(truths, chair_uid, partial(chair.score, find=find), version=name.partition(", ")[2])


def chair_uid(row: Mapping[str, Any]) -> str | None:
    """The image's id of a row of captions."""
    keys = ("image_id", "uid", "question_id", "id", "image")
    return next((uid for key in keys if (uid := image_key(row.get(key))) is not None), None)


def open_pope(files: Files, protocol: str) -> Opened:
    """Released question files, and LLaVA's where its answers are scored."""
    asked = read_questions(take(files, None, "pope", "question files (coco_pope_random.json, ...)"), files.relabels)
    find = _find_pope(asked)
    return Opened(asked.truths, find, partial(pope.score, parse=PARSERS[protocol]), version=asked.version)


def open_amber(files: Files, protocol: str) -> Opened:
    """AMBER's annotations, its words, and the queries that were asked (generative, discriminative or both)."""
    several = "annotations.json, relation.json, safe_words.txt, then query files"
    annotations, relation, safe, *queries = take(files, None, "amber", several, least=4)
    words = read_words(relation, safe)
    truths = amber.read_truths(annotations, queries, words)
    return Opened(truths, by_keys("uid", "id", "question_id"), _with(amber.score, protocol, words=words))


def open_object_hal(files: Files, protocol: str) -> Opened:
    """Object HalBench's questions, and objects by image or COCO files as ground truth."""
    several = "the questions, then COCO instances and captions files (or --objects FILE)"
    questions, *coco = take(files, None, "object_hal", several)
    if files.objects is not None:
        truths = object_hal.read_truths(questions, files.objects)
    elif len(coco) in (1, 2):
        truths = object_hal.read_truths(questions, read_ground_truth(*coco))
    else:
        raise UserError(f"--annotations: found {len(coco)} files of ground truth; object_hal takes {several}")
    return Opened(truths, by_keys("uid", "image_id", "question_id"), _with(object_hal.score, protocol))


def ask_object_hal(row: Row, how: Asked) -> dict[str, Request]:
    """One request a row; an answer of a few words is not extracted from."""
    if object_hal.is_short(row["answer"]):
        return {}
    one = _one(object_hal.request, row, how)
    return {"replies": one}


def open_gqa(files: Files, protocol: str) -> Opened:
    """GQA's questions file."""
    (file,) = take(files, 1, "gqa", "the questions file (testdev_balanced_questions.json)")
    truths = gqa.read_truths(file)
    for one in truths.values():
        one["truth"]["prompt"] = f"{one['truth']['question']}\n{SHORT}"
    return Opened(truths, by_keys("uid", "questionId", "question_id", "id"), _with(gqa.score, protocol))


def open_grounded(files: Files, protocol: str) -> Opened:
    """A form of GroundedBench, by its form.json."""
    (file,) = take(files, 1, "grounded", "the form.json of a form (verisight pocket grounded)")
    return Opened(grounded.truths(file.parent), by_keys("uid", "id"), grounded.score, version=protocol)


def open_mmhal(files: Files, protocol: str) -> Opened:
    """MMHal-Bench's rows, with or without answers in them."""
    (file,) = take(files, 1, "mmhal", "its rows (response_template.json)")
    truths = mmhal.read_truths(file)
    return Opened(truths, _find_by_row(truths), _with(mmhal.score, protocol))


def ask_mmhal(row: Row, how: Asked) -> dict[str, Request]:
    """One request a row."""
    one = _one(mmhal.request, row, how)
    return {"replies": one}


def open_llava_bench(files: Files, protocol: str) -> Opened:
    """LLaVA-Bench's questions, contexts and reference answers, of either variant."""
    three = take(files, 3, "llava_bench", "questions, contexts and reference answers, JSON lines")
    truths = llava_bench.read_truths(*three)
    return Opened(truths, by_keys("uid", "question_id", "id"), _with(llava_bench.score, protocol))


def ask_llava_bench(row: Row, how: Asked) -> dict[str, Request]:
    """The reference first, as officially, and where both orders count the model first too."""
    found = {"replies": _one(llava_bench.request, row, how)}
    if how.protocol == "both-orders":
        found["replies_swapped"] = _one(llava_bench.request, row, how, swapped=True)
    return found


def open_mmvet(files: Files, protocol: str) -> Opened:
    """MM-Vet's questions."""
    (file,) = take(files, 1, "mmvet", "mm-vet.json")
    return Opened(mmvet.read_truths(file), by_keys("uid", "question_id", "id"), _with(mmvet.score, protocol))


def ask_mmvet(row: Row, how: Asked) -> dict[str, Request]:
    """One request a row."""
    return {"replies": _one(mmvet.request, row, how)}


def open_textvqa(files: Files, protocol: str) -> Opened:
    """TextVQA's annotations; with OCR words in the prompts also the file that holds them."""
    annotations, *ocr = take(files, None, "textvqa", "the annotations (TextVQA_0.5.1_val.json), and for -ocr OCR words")
    truths, tokens = textvqa.read_truths(annotations), textvqa.read_tokens(ocr[0]) if ocr else {}
    if protocol.endswith("-ocr") != bool(ocr) and (ocr or files.asks):
        raise UserError(f"annotations: found {len(ocr)} files of OCR words with protocol {protocol}; accepted: one "
                        "with official-ocr and corrected-ocr, none with the others")  # fmt: skip
    for one in truths.values():
        words = tokens.get(one["truth"]["image_id"], ()) if ocr else None
        one["truth"]["prompt"] = textvqa.prompt(one["truth"]["question"], tokens=words)
    return Opened(truths, _find_textvqa(truths), _with(textvqa.score, protocol))


def open_hallusion(files: Files, protocol: str) -> Opened:
    """HallusionBench.json."""
    (file,) = take(files, 1, "hallusion", "HallusionBench.json")
    return Opened(hallusion.read_truths(file), _find_hallusion, _with(hallusion.score, protocol))


def ask_hallusion(row: Row, how: Asked) -> dict[str, Request]:
    """One request a row."""
    one = _one(hallusion.request, row, how)
    return {"replies": one}


def _one(request: Callable[..., Request], row: Row, how: Asked, **settings: Any) -> Request:
    shown = {"template": how.template, "vision": how.vision, "images": how.images}
    return request(row["uid"], row["truth"], row["answer"], **shown, **settings)


def _with(score: Any, protocol: str, **settings: Any) -> Any:
    return partial(score, protocol=protocol, **settings)


def _find_by_row(truths: Truths) -> FindUid:
    """By id; where several questions are about an image, by its id and the question."""
    asked = {(one["cluster"], one["truth"]["question"]): uid for uid, one in truths.items()}
    plain = by_keys("uid", "question_id", "id", "image_id")

    def find(row: Row) -> str | None:
        uid = plain(row)
        return uid if uid in truths or uid is None else asked.get((uid, str(row.get("question"))), uid)

    return find


def _find_pope(asked: Released) -> FindUid:
    """By split and question_id, by LLaVA's ids, or (the official form has no ids) by the place in a split's file."""
    splits = {one["truth"]["split"] for one in asked.truths.values()}
    only = next(iter(splits)) if len(splits) == 1 else None
    order = {split: [uid for uid in asked.truths if uid.startswith(f"{split}/")] for split in splits}
    plain = by_keys("uid", "question_id", "id")

    def find(row: Row) -> str | None:
        number, name = plain(row), row.get("file_name", "")
        told = row.get("category")
        split = told if isinstance(told, str) else next((one for one in splits if one in name), only)
        for uid in (number, f"{split}/{number}", asked.places.get(number or "")):
            if uid in asked.truths:
                return uid
        at = row.get("place", -1)
        if number is None and split in order and 0 <= at < len(order[split]):
            uid = order[split][at]
            if row.get("question") == asked.truths[uid]["truth"]["question"]:
                return uid
        return number if number is None or split is None else f"{split}/{number}"

    return find


def _find_textvqa(truths: Truths) -> FindUid:
    """By question_id; LLaVA's answers hold the image's id there and the question in their prompt."""
    asked = {(one["truth"]["image_id"], one["truth"]["question"].lower()): uid for uid, one in truths.items()}
    plain = by_keys("uid", "question_id", "id")

    def find(row: Row) -> str | None:
        uid = plain(row)
        if uid in truths or uid is None:
            return uid
        question = row.get("prompt") if isinstance(row.get("prompt"), str) else row.get("question")
        first = question.strip().split("\n")[0].strip().lower() if isinstance(question, str) else ""
        return asked.get((uid, first), uid)

    return find


def _find_hallusion(row: Mapping[str, Any]) -> str | None:
    if isinstance(row.get("uid"), str):
        return row["uid"]
    values = [row.get(key) for key in hallusion.IDS]
    return None if any(not isinstance(value, str | int) for value in values) else "_".join(map(str, values))
