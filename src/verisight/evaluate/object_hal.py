"""Object HalBench (Rohrbach et al. 2018, as Yu et al. 2024 ask it): COCO objects that descriptions make up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from verisight.data.files import read_json, read_jsonl
from verisight.evaluate.coco import Truth
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.objects import CATEGORIES, Mention, find_objects, singular
from verisight.evaluate.rubric import fill
from verisight.evaluate.stats import Direction, Measure, ratio_measure
from verisight.types import Decoding, ImageRef, Request, UserError

Protocol = Literal["official", "corrected", "plain"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Row = dict[str, Any]
Column = Sequence[float]
DECODING = Decoding(max_new_tokens=1024, temperature=0.0)  # RLAIF-V's runs take 3 beams too
JUDGE_DECODING = Decoding(max_new_tokens=512, temperature=0.2)
FEW_WORDS = 3
TEMPLATE = """Below is what somebody wrote about a picture, and the question they were asked. You can't see the picture;
take the text as true.
Question: {question}
Text: {answer}

Which objects does the text say can be seen in the picture? Reply with one JSON list of strings and nothing else, for
example ["dog", "traffic light"]. Take the name of each object alone, without colour, material, size or number. List
nothing that the text doesn't name or that it says is absent. If it names no visible object, reply with []."""
_FIELDS = ("question", "answer")
_FENCE = re.compile(r"```\w*")
_WORD = re.compile(r"[^\W\d_]+")
_PICTURE = "COCO_val2014_{:012d}.jpg"
_SAME = {"bow tie": "tie", "toilet seat": "toilet", "passenger jet": "jet", "passenger train": "train"}
_AGE = re.compile("^(?:baby|adult) ")


class Named(NamedTuple):
    """An object that a description names: the word in the singular, and its COCO category."""

    word: str
    name: str


def read_truths(questions: Path, ground_truth: Path | Mapping[int, Truth]) -> dict[str, dict[str, Any]]:
    """The questions (JSON lines with image_id and question), with what is in their pictures.

    Args:
        questions: the official obj_halbench_300_with_image.jsonl, or one without its pictures.
        ground_truth: what `coco.read_ground_truth` gives, or a JSON file {image_id: [COCO category, ...]}.

    Returns:
        image_id as text -> cluster (the same) and truth: question, image (`file_name` of the row or of COCO, else
        val2014's), objects.

    Raises:
        UserError: a file in another format, an image twice, without ground truth, or an object COCO doesn't have.
    """
    known = _read_objects(ground_truth) if isinstance(ground_truth, Path) else ground_truth
    rows = read_jsonl(questions)
    if not rows:
        raise UserError(f"{questions}: holds no questions; accepted are JSON lines with image_id and question")
    found: dict[str, dict[str, Any]] = {}
    for at, row in enumerate(rows):
        where = f"{questions}: row {at}"
        number = _image_id(text_field(row, "image_id", where, numbers=True), f"{where}.image_id")
        question, uid = text_field(row, "question", where), str(number)
        if uid in found:
            raise UserError(f"{where}.image_id is {uid} a second time; each image has one question")
        if number not in known:
            raise UserError(f"{where}.image_id is {uid}, of which the ground truth knows nothing")
        image = text_field(row, "file_name", where) if "file_name" in row else known[number].file_name
        truth = {"question": question, "image": image, "objects": list(known[number].ordered)}
        found[uid] = {"cluster": uid, "truth": truth}
    return found


def _read_objects(path: Path) -> dict[int, Truth]:
    table = read_json(path, unique=True)
    if not isinstance(table, dict):
        raise UserError(f"{path}: holds {short(table)}; accepted is an object of image_id: list of objects")
    found: dict[int, Truth] = {}
    for key, names in table.items():
        number = _image_id(key, f"{path}: image_id")
        if not (isinstance(names, list) and all(name in CATEGORIES for name in names)):
            raise UserError(f"{path}: {key} is {short(names)}; accepted is a list of COCO's 80 category names")
        if number in found:
            raise UserError(f"{path}: {key} is image {number} a second time; ids must be unique")
        found[number] = Truth(number, _PICTURE.format(number), tuple(dict.fromkeys(names)))
    return found


def _image_id(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{where} is {text!r}; accepted is a whole number, COCO's id of the image")
    return int(text)


def request(
    uid: str,
    truth: Mapping[str, Any],
    answer: str,
    *,
    template: str | None = None,
    vision: bool = False,
    images: Sequence[ImageRef] = (),
) -> Request:
    """What a chat model is asked to extract, in our words or in a `template` with {question} and {answer}.

    The official run sends its prompt as a system message; this is a user turn. Not needed for `is_short` answers.

    Raises:
        UserError: a template that lacks one of them, or `vision` (or pictures): who extracts must not see more than
            the text says.
    """
    if vision or images:
        raise UserError("object_hal: its judge lists what a text says, so that it is shown no pictures")
    values = {"question": truth["question"], "answer": _clean(answer) or "(empty)"}
    return Request(uid, fill("object_hal", template or TEMPLATE, values, needed=_FIELDS, accepted=_FIELDS))


def is_short(answer: str) -> bool:
    """Whether nobody is asked about this answer: one of three words or fewer names nothing, by the official rule."""
    return len(_clean(answer).split()) <= FEW_WORDS


def parse_official(reply: str) -> list[str] | None:
    """RLHF-V's rule: the reply as JSON, else, if a list of strings begins in it anywhere, its last line as JSON.

    None: the official run would ask again, and in the end stop. So code fences, a word after the list, or "()" (what
    the official prompt asks for) give None; an object gives its keys, a string its letters. (RLAIF-V's newer script
    reads a fenced list, but no longer a bare one over several lines.)
    """
    found = _json(reply)
    if found is None and '["' in reply:
        found = _json(reply.strip().split("\n")[-1])
    return [str(one) for one in found] if isinstance(found, list | dict | str) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_corrected(reply: str) -> list[str] | None:
    """The one JSON list of strings in the reply, wherever it stands; None where there is none or several that differ.

    Code fences and curly quotes don't matter, lists of anything else ("[1]") aren't looked at, "()" alone is empty.
    """
    text = _FENCE.sub("", reply).strip()
    if text == "()":
        return []
    lists = list(_lists(text)) or list(_lists(re.sub("[\u201c\u201d\u201e]", '"', text)))
    return lists[0] if lists and all(one == lists[0] for one in lists) else None


def _lists(text: str) -> Iterator[list[str]]:
    at, decoder = text.find("["), json.JSONDecoder()
    while at >= 0:
        end = at + 1
        try:
            found, stop = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = None
        else:
            if all(isinstance(one, str) for one in found):
                yield found
                end = stop
        at = text.find("[", end)


def map_phrases(phrases: Iterable[str], *, double_only: bool) -> list[Named]:
    """The COCO objects in the phrases that were extracted, each word (in the singular) once.

    Each is read as "a <phrase>" by `objects.find_objects`, with its list of words: the official run takes spaCy's
    en_core_web_trf and drops a compound that isn't listed ("elephant statue"), which this reads as an elephant.
    double_only: as there, a phrase that holds a name of several words gives no single ones ("dog on a park bench").
    """
    found: list[Mention] = []
    for phrase in phrases:
        mentions = find_objects(f"a {phrase}")
        several = [mention for mention in mentions if len(_WORD.findall(mention.word)) > 1]
        found += several if several and double_only else mentions
    return _unique(found)


def extract_plain(answer: str) -> list[Named]:
    """The COCO objects that `objects.find_objects` finds in the answer itself, each word once: no judge needed."""
    return _unique(find_objects(_clean(answer)))


def _unique(mentions: Sequence[Mention]) -> list[Named]:
    words = [_AGE.sub("", " ".join(map(singular, _WORD.findall(one.word.lower())))) for one in mentions]
    named = [Named(_SAME.get(word, word), one.name) for word, one in zip(words, mentions, strict=True)]
    return list(dict.fromkeys(named))


def _clean(answer: str) -> str:
    """The official run strips what a chat template left."""
    return answer.replace("Assistant:", "").strip()


def score(rows: Sequence[Row], *, protocol: Protocol = "official") -> list[Row]:
    """Adds `objects` (word, name, hallucinated; None: not known), num_* counts, `failed`, `unparsed`, `empty`.

    "official" and "corrected" read the judge's `replies` (one a vote; None: it failed) with the parser of that name;
    a word counts that more than half of the readable replies name. Short answers (`is_short`) name nothing and need no
    reply. Where no reply came or none can be read, nothing is known: the official run asks again, then stops, so that
    there is no value for it. "official" takes `double_only` phrases, "corrected" all objects of a phrase. "plain" needs
    no judge (`extract_plain`) and reads short answers too, as the official run does without one.

    Raises:
        UserError: an unknown protocol, or a row without `replies` under a protocol with a judge.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"object_hal: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    return [row | _found(row, protocol) for row in rows]


def _found(row: Row, protocol: Protocol) -> Row:
    failed = unparsed = False
    named: list[Named] | None = []
    if protocol == "plain":
        named = extract_plain(row["answer"])
    elif not is_short(row["answer"]):
        if not row.get("replies"):
            raise UserError(f'object_hal: row {row["uid"]} has no `replies`; ask a judge, or use protocol "plain"')
        came = [reply for reply in row["replies"] if reply is not None]
        parse = parse_official if protocol == "official" else parse_corrected
        lists = [phrases for phrases in map(parse, came) if phrases is not None]
        failed, unparsed = not came, bool(came) and not lists
        named = _majority([map_phrases(phrases, double_only=protocol == "official") for phrases in lists])
    present = row["truth"]["objects"]
    objects = [one._asdict() | {"hallucinated": one.name not in present} for one in named or ()]
    return {
        "objects": None if named is None else objects,
        "num_objects": len(objects),
        "num_hallucinated": sum(one["hallucinated"] for one in objects),
        "num_true_found": len({one["name"] for one in objects if not one["hallucinated"]}),
        "num_true": len(set(present)),
        "num_words": len(_clean(row["answer"]).split()),
        "empty": not _clean(row["answer"]),
        "failed": failed,
        "unparsed": unparsed,
    }


def _majority(votes: Sequence[list[Named]]) -> list[Named] | None:
    if not votes:
        return None
    every = dict.fromkeys(one for vote in votes for one in vote)
    return [one for one in every if 2 * sum(one in vote for vote in votes) > len(votes)]


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """Object HalBench's metrics before they are summed; answers of which nothing is known are in no rate of objects.

    `response_hallucination`: answers with a made-up object / those that name any (CHAIRs_refine); `chair_s`: / all;
    `object_hallucination`: made-up words / words, each once an answer (CHAIRi); `object_recall`: true categories named
    / true categories; `num_objects`: words an answer. Of all answers: `length_words`, `truncated_fraction` (where that
    is known), `empty_fraction`, `failed_fraction`, `unparsed_fraction`.
    """
    known = [row["objects"] is not None for row in scored]
    names_any = [row["num_objects"] > 0 for row in scored]
    made_up = [float(row["num_hallucinated"]) for row in scored]
    some = [num > 0 for num in made_up]
    everything = [True] * len(scored)

    def column(key: str, among: Column) -> list[float]:
        return [float(row[key]) if each else 0.0 for row, each in zip(scored, among, strict=True)]

    def share(over: Column, under: Column, among: Column, better: Direction, *, fraction: bool = True) -> Measure:
        measure = ratio_measure(over, under, better=better, fraction=fraction)
        return measure._replace(num_items=int(sum(among)))

    num_objects, num_true = column("num_objects", known), column("num_true", known)
    found = {
        "response_hallucination": share(some, names_any, names_any, "lower"),
        "chair_s": share(some, known, known, "lower"),
        "object_hallucination": share(made_up, num_objects, known, "lower"),
        "object_recall": share(column("num_true_found", known), num_true, known, "higher"),
        "num_objects": share(num_objects, known, known, "neutral", fraction=False),
        "length_words": share(column("num_words", everything), everything, everything, "neutral", fraction=False),
    }
    told = [isinstance(row.get("truncated"), bool) for row in scored]
    found["truncated_fraction"] = share([row.get("truncated") is True for row in scored], told, told, "neutral")
    for name in ("empty", "failed", "unparsed"):
        found[f"{name}_fraction"] = share(column(name, everything), everything, everything, "neutral")
    return found
