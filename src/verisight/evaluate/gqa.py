"""GQA (Hudson and Manning 2019): compositional questions with one right answer, scored by equality, by type."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from verisight.data.files import read_json
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.stats import Measure, ratio_measure
from verisight.types import UserError

Protocol = Literal["official", "llava", "corrected"]
STRUCTURAL = ("query", "verify", "logical", "choose", "compare")
SEMANTIC = {"attr": "attribute", "cat": "category", "global": "scene", "obj": "object", "rel": "relation"}
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_ARTICLE = re.compile(r"^(?:an?|the)\s+")


def read_truths(path: Path) -> dict[str, dict[str, Any]]:
    """The right answers, from an official questions file (testdev_balanced_questions.json and its like).

    Returns:
        questionId -> {"cluster": imageId, "truth": {question, image, answer, balanced, structural, semantic}}.

    Raises:
        UserError: not that format, a key lacks, a type GQA doesn't have, or an id twice.
    """
    table = read_json(path, unique=True)
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: holds {short(table)}; a GQA questions file is an object of questionId: question")
    found = {}
    for uid, row in table.items():
        where = f"{path}: {uid}"
        if not isinstance(row, dict):
            raise UserError(f"{where} is {short(row)}; accepted is an object")
        truth: dict[str, Any] = {key: text_field(row, key, where) for key in ("question", "answer")}
        truth["balanced"] = row.get("isBalanced")
        if not isinstance(truth["balanced"], bool):
            raise UserError(f"{where}.isBalanced is {short(truth['balanced'])}; accepted is true or false")
        types = row.get("types")
        for key, accepted in (("structural", STRUCTURAL), ("semantic", tuple(SEMANTIC))):
            value = types.get(key) if isinstance(types, dict) else None
            if value not in accepted:
                raise UserError(f"{where}.types.{key} is {short(value)}; accepted are {', '.join(accepted)}")
            truth[key] = value
        image = text_field(row, "imageId", where)
        found[uid] = {"cluster": image, "truth": truth | {"image": f"{image}.jpg"}}
    return found


def normalise_official(answer: str) -> str:
    """The answer as it stands: the official script compares case, blanks and dots too."""
    return answer


def normalise_llava(answer: str) -> str:
    """LLaVA's conversion in front of the official script: dots at the end go, then lower case ("Yes. " stays)."""
    return answer.rstrip(".").lower()


def normalise_corrected(answer: str) -> str:
    """Case, blanks and marks around the answer and a leading article don't count, nor how letters are encoded."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    return _ARTICLE.sub("", _EDGES.sub("", text))


PROTOCOLS: Mapping[str, Callable[[str], str]] = {
    "official": normalise_official,
    "llava": normalise_llava,
    "corrected": normalise_corrected,
}


def score(rows: Sequence[dict[str, Any]], *, protocol: Protocol = "official") -> list[dict[str, Any]]:
    """Adds `said` (normalised answer), `correct`, `empty` and `num_words` to each row.

    Correct is what equals the right answer: "official" as it stands, "llava" after its conversion (the published
    LLaVA figures), "corrected" with both sides normalised. A sentence is wrong under each of them: GQA expects
    a word or a short phrase, and `length_words` shows where a model gave more.

    Raises:
        UserError: an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"gqa: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    normalise = PROTOCOLS[protocol]
    scored = []
    for row in rows:
        said, gold = normalise(row["answer"]), row["truth"]["answer"]
        right = said == gold if protocol != "corrected" else said != "" and said == normalise(gold)
        empty, num_words = not row["answer"].strip(), len(row["answer"].split())
        scored.append(row | {"said": said, "correct": right, "empty": empty, "num_words": num_words})
    return scored


def measures(scored: Sequence[dict[str, Any]]) -> dict[str, Measure]:
    """Right answers / questions, over the balanced questions alone, as in the official script.

    `accuracy`; `binary/accuracy` and `open/accuracy` (open: the structural type is query); `structural/<type>`
    and `semantic/<type>`; `empty_fraction` and `length_words` of the answers. A type that nobody asked about is
    undefined. The script's consistency, validity, plausibility, grounding and distribution aren't measured.
    """
    balanced = [row["truth"]["balanced"] for row in scored]
    structural = [row["truth"]["structural"] for row in scored]
    semantic = [row["truth"]["semantic"] for row in scored]

    def share(key: str, among: Sequence[bool], better: Any, *, fraction: bool = True) -> Measure:
        counted = [float(each and whole) for each, whole in zip(among, balanced, strict=True)]
        values = [float(row[key]) * one for row, one in zip(scored, counted, strict=True)]
        measure = ratio_measure(values, counted, better=better, fraction=fraction)
        return measure._replace(num_items=int(sum(counted)))

    found = {
        "accuracy": share("correct", balanced, "higher"),
        "binary/accuracy": share("correct", [kind != "query" for kind in structural], "higher"),
        "open/accuracy": share("correct", [kind == "query" for kind in structural], "higher"),
    }
    for kind in STRUCTURAL:
        found[f"structural/{kind}"] = share("correct", [each == kind for each in structural], "higher")
    for kind, word in SEMANTIC.items():
        found[f"semantic/{word}"] = share("correct", [each == kind for each in semantic], "higher")
    found["empty_fraction"] = share("empty", balanced, "neutral")
    found["length_words"] = share("num_words", balanced, "neutral", fraction=False)
    return found
