"""VLFeedback (Li et al. 2024): four answers a prompt, each rated on three aspects. Pairs are made by a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NotRequired

from typing_extensions import TypedDict

from verisight.data.pairing import number
from verisight.data.pictures import group
from verisight.data.readers.base import Desk, Format, first_picture, prompt, ruled
from verisight.data.rows import Unusable
from verisight.data.texts import shorten
from verisight.types import ImageRef, Message, Pair

ASPECTS = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")


class _Row(TypedDict):
    id: str | int
    prompt: str
    completions: list[dict[str, Any]] | dict[str, list[Any]]
    img_path: NotRequired[str | None]
    image: NotRequired[Any]


def _read(row: _Row, desk: Desk) -> Iterator[Pair | Unusable]:
    """Pairs by the desk's rule. The score of an answer is the mean of its three ratings, as VLFeedback's authors do."""
    completions = _as_list(row["completions"])
    scores = [_score(one) for one in completions]
    ref, split = _picture(row, desk)
    made, notes = prompt([Message("user", row["prompt"])], (ref,), desk, uid=row["id"], group=split)
    for first, second, reason in desk.rule(scores):
        chosen, rejected = completions[first], completions[second]
        if reason is not None:
            yield Unusable(reason, f"{_model(chosen)} and {_model(rejected)}", fault=False)
            continue
        told = {
            "chosen_model": _model(chosen), "rejected_model": _model(rejected),
            "chosen_score": scores[first], "rejected_score": scores[second], "rule": str(desk.rule),
        }  # fmt: skip
        yield ruled(made, _text(chosen), _text(rejected), notes | told)


def _as_list(completions: list[dict[str, Any]] | dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Completions as dicts: JSON lines have them so, Parquet has a dict of lists."""
    if isinstance(completions, dict):
        lengths = {key: len(values) for key, values in completions.items()}
        if len(set(lengths.values())) > 1:
            raise Unusable("completions do not fit", f"lists of unequal length: {lengths}")
        completions = [dict(zip(completions, one, strict=True)) for one in zip(*completions.values(), strict=True)]
    for one in completions:
        if not isinstance(one.get("response"), str) or not isinstance(one.get("annotations"), dict | None):
            raise Unusable("wrong type", f"completions: found {shorten(repr(one))}; response and annotations accepted")
    if len(completions) < 2:
        raise Unusable("fewer than two answers", f"{len(completions)} completions")
    return completions


def _score(completion: dict[str, Any]) -> float | None:
    annotations = completion.get("annotations") or {}
    ratings = [
        number(entry.get("Rating")) if isinstance(entry := annotations.get(aspect), dict) else None
        for aspect in ASPECTS
    ]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(ASPECTS) if len(known) == len(ASPECTS) else None


def _text(completion: dict[str, Any]) -> str:
    return str(completion["response"])


def _model(completion: dict[str, Any]) -> str:
    return str(completion.get("model") or "unknown")


def _picture(row: _Row, desk: Desk) -> tuple[ImageRef, str]:
    """The image column, else `img_path`, else {id}.jpg, which is how the set's own loader finds it."""
    own = f"{row['id']}.jpg"
    cells = [cell for cell in (row.get("image"), row.get("img_path"), own) if cell]
    ref, _ = first_picture(cells, desk)
    return ref, group(ref, "" if ref.data is not None else row.get("img_path") or own)


VLFEEDBACK = Format(
    "vlfeedback", "VLFeedback (Li et al. 2024)", "MMInstruction/VLFeedback", "", _Row, _read, scored=True
)
