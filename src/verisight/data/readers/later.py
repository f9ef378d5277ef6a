"""Later preference sets with a prompt, answers and the name of a picture in every row: SPA-VL, MM-RLHF, BPO, mDPO."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.pairing import number
from verisight.data.readers.base import Desk, Format, pair, picture, prompt, ruled
from verisight.data.rows import Unusable
from verisight.data.texts import PLACEHOLDER, place, shorten
from verisight.types import Message, Pair

_SPEAKER = re.compile(r"(?:^|\s|</s>)(USER|ASSISTANT):")
_OTHER_SPEAKER = re.compile(r"(?:^|\s)(?:#+\s*)?(?:Human|Assistant|User|GPT):")
_PREAMBLE = "A chat between"


class _SafeRow(TypedDict):
    image: Any
    question: str
    chosen: str
    rejected: str
    id: NotRequired[str | int | None]
    class1: NotRequired[str | None]
    class2: NotRequired[str | None]
    class3: NotRequired[str | None]


class _ReasonedRow(TypedDict):
    prompt: str
    chosen: str
    rejected: str
    image: NotRequired[Any]
    video: NotRequired[Any]
    chosen_reason: NotRequired[Any]
    rejected_reason: NotRequired[Any]


class _Completion(TypedDict):
    response: str
    score: NotRequired[Any]
    type: NotRequired[str | None]


class _BootstrappedRow(TypedDict):
    prompt: str
    completions: list[_Completion]
    image: NotRequired[Any]


class _TemplatedRow(TypedDict):
    img_path: str | None
    prompt: str
    chosen: str
    rejected: str


def _safe(row: _SafeRow, desk: Desk) -> Iterator[Pair]:
    """The safer and more helpful of two answers, in a tree of three levels of harm."""
    image = row["image"]
    ref, split = ((), "") if image is None else _one(image, desk)
    made, notes = prompt([Message("user", row["question"])], ref, desk, uid=_text(row.get("id")), group=split)
    levels = [level for level in (row.get("class1"), row.get("class2"), row.get("class3")) if level]
    yield pair(made, row["chosen"], row["rejected"], notes | {"category": "/".join(levels) or None})


def _reasoned(row: _ReasonedRow, desk: Desk) -> Iterator[Pair]:
    """A pair and why it was ranked so. Placeholders of the prompt do not count: its authors put their own."""
    if row.get("video"):
        raise Unusable("video", f"{shorten(str(row['video']))}; pictures are accepted")
    image = row.get("image")
    cells = image if isinstance(image, list) else [image] if image else []
    seen = [picture(cell, desk) for cell in cells]
    question = Message("user", row["prompt"].replace(PLACEHOLDER, ""))
    made, notes = prompt([question], [ref for ref, _ in seen], desk, group=seen[0][1] if seen else "")
    notes |= {"placeholder": place(row["prompt"])}
    reasons = {key: row.get(key) or None for key in ("chosen_reason", "rejected_reason")}
    yield pair(made, row["chosen"], row["rejected"], notes | reasons)


def _bootstrapped(row: _BootstrappedRow, desk: Desk) -> Iterator[Pair | Unusable]:
    """The true answer (score 1) and spoiled ones (score 0), paired by the desk's rule; types stand for models."""
    completions = row["completions"]
    if len(completions) < 2:
        raise Unusable("fewer than two answers", f"{len(completions)} completions")
    image = row.get("image")
    ref, split = _one(image, desk) if image else ((), "")
    made, notes = prompt([Message("user", row["prompt"])], ref, desk, group=split)
    scores = [number(one.get("score")) for one in completions]
    for first, second, reason in desk.rule(scores):
        chosen, rejected = completions[first], completions[second]
        if reason is not None:
            yield Unusable(reason, f"{chosen.get('type')} and {rejected.get('type')}", fault=False)
            continue
        told = {
            "chosen_model": chosen.get("type"), "rejected_model": rejected.get("type"),
            "chosen_score": scores[first], "rejected_score": scores[second], "rule": str(desk.rule),
        }  # fmt: skip
        yield ruled(made, chosen["response"], rejected["response"], notes | told)


def _templated(row: _TemplatedRow, desk: Desk) -> Iterator[Pair]:
    """Vicuna's chat template is baked into the prompt; its turns are taken out of it."""
    name = row["img_path"]
    ref, split = _one(name, desk) if name else ((), "")
    uid = PurePosixPath(name).stem if name else ""
    made, notes = prompt(_turns(row["prompt"]), ref, desk, uid=uid, group=split)
    yield pair(made, row["chosen"], row["rejected"], notes)


def _turns(text: str) -> list[Message]:
    """The turns of a templated prompt, which ends where the answer begins; text without speakers is a question."""
    preamble, *told = _SPEAKER.split(text)
    if not told and (text.lstrip().startswith(_PREAMBLE) or _OTHER_SPEAKER.search(text)):
        raise Unusable("unknown template", f"{shorten(text)}; accepted: {_PREAMBLE!r} ... USER: ... ASSISTANT:")
    if not told:
        return [Message("user", text)]
    if preamble.strip() and not preamble.lstrip().startswith(_PREAMBLE):
        raise Unusable("unknown template", f"{shorten(preamble)}; accepted: {_PREAMBLE!r} ... USER: ... ASSISTANT:")
    turns = [
        Message("user" if speaker == "USER" else "assistant", said.strip().removesuffix("</s>").strip())
        for speaker, said in zip(told[::2], told[1::2], strict=True)
    ]
    if turns[-1] != Message("assistant", ""):
        raise Unusable("unknown template", f"it ends with {shorten(text[-40:])}; accepted: ASSISTANT:")
    return turns[:-1]


def _one(cell: Any, desk: Desk) -> tuple[tuple[Any, ...], str]:
    ref, split = picture(cell, desk)
    return (ref,), split


def _text(number: str | int | None) -> str:
    return "" if number is None else str(number)


def _is_safe(row: dict[str, Any]) -> bool:
    return "class1" in row or row.keys() == {"id", "image", "question", "chosen", "rejected"}


def _is_reasoned(row: dict[str, Any]) -> bool:
    named = bool(row.get("video")) or isinstance(row.get("image"), str | list)
    return named and all(isinstance(row[key], str) for key in ("prompt", "chosen", "rejected"))


def _is_bootstrapped(row: dict[str, Any]) -> bool:
    completions = row["completions"]
    return isinstance(completions, list) and any("score" in one for one in completions if isinstance(one, dict))


SPA_VL = Format(
    "spa_vl", "SPA-VL (Zhang et al. 2024)", "sqrti/SPA-VL", "cc-by-4.0", _SafeRow, _safe, where=_is_safe,
)  # fmt: skip
MM_RLHF = Format(
    "mm_rlhf", "MM-RLHF (Zhang et al. 2025)", "yifanzhang114/MM-RLHF", "", _ReasonedRow, _reasoned, where=_is_reasoned,
    one_of=frozenset({"image", "video"}),
)  # fmt: skip
BPO = Format(
    "bpo", "BPO (Pi et al. 2024)", "renjiepi/BPO", "", _BootstrappedRow, _bootstrapped, where=_is_bootstrapped,
    scored=True,
)  # fmt: skip
MDPO = Format("mdpo", "mDPO (Wang et al. 2024)", "fwnlp/mDPO-preference-data", "apache-2.0", _TemplatedRow, _templated)
