"""HallusionBench (Guan et al. 2024): yes/no questions on figures and edited copies, right in groups or not at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from verisight.data.files import read_json
from verisight.evaluate import pope
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.rubric import check_shown, fill
from verisight.evaluate.stats import Direction, Measure, mean_among
from verisight.evaluate.votes import majority_vote
from verisight.types import ImageRef, Request, UserError

Protocol = Literal["official", "corrected", "words"]
Row = dict[str, Any]
WRONG, RIGHT, UNCLEAR = 0.0, 1.0, 2.0
TEMPLATE = """You grade the answer to a yes/no question{picture}.
Question: {question}
What is true: {reference}
Answer to grade: {answer}

Reply with one word. "correct": the answer agrees with what is true. "incorrect": it contradicts it.
"unclear": it takes no side or says nothing about the question."""
_FIELDS = ("question", "reference", "answer")
_VERDICTS = {"incorrect": WRONG, "correct": RIGHT, "unclear": UNCLEAR}
_SAYS = re.compile(r"\b(incorrect|correct|unclear)(?:ly)?\b")
_ALONE = re.compile(r"\W*(incorrect|correct|unclear)\W*")
_HEDGED = re.compile(r"\b(?:not|cannot|never|neither|nor|if|whether|partly|partially|mostly)\b|n't\b")
_DENIED = re.compile(r"(?:\bnot|n't) (?:\w+ )?correct")
_CLAUSE = re.compile(r"[.!?;:,\n\u2013\u2014]|\b(?:so|therefore|thus|hence|because|but)\b")
_NUMBERS = {"visual_input": ("0", "1", "2"), "gt_answer": ("0", "1")}
IDS = ("category", "subcategory", "set_id", "figure_id", "question_id")


def read_truths(path: Path) -> dict[str, dict[str, Any]]:
    """The questions, from the official HallusionBench.json (also one with predictions in it).

    Returns:
        category_subcategory_set_figure_question -> cluster and truth. The cluster is the set: a figure, its
        edited copies and the questions about all of them, because question pairs reach across its figures.
        truth: the ids, question, reference, label (yes or no), visual_input (0 none, 1 original, 2 edited), image.

    Raises:
        UserError: not that format, a key lacks or has another value, or a question twice.
    """
    table = read_json(path)
    if not isinstance(table, list) or not table:
        raise UserError(f"{path}: holds {short(table)}; HallusionBench is a list of questions")
    found: dict[str, dict[str, Any]] = {}
    for at, row in enumerate(table):
        where = f"{path}: [{at}]"
        if not isinstance(row, dict):
            raise UserError(f"{where} is {short(row)}; accepted is an object")
        truth: dict[str, Any] = {key: text_field(row, key, where, numbers=True) for key in (*IDS, "question")}
        if truth["category"] not in ("VD", "VS"):
            raise UserError(f"{where}.category is {truth['category']!r}; accepted are VD, VS")
        numbers = {key: text_field(row, key, where, numbers=True) for key in _NUMBERS}
        for key, value in numbers.items():
            if value not in _NUMBERS[key]:
                raise UserError(f"{where}.{key} is {value!r}; accepted are {', '.join(_NUMBERS[key])}")
        truth |= {"reference": text_field(row, "gt_answer_details", where, numbers=True), "image": row.get("filename")}
        truth |= {"label": "yes" if numbers["gt_answer"] == "1" else "no"}
        truth |= {"visual_input": int(numbers["visual_input"])}
        uid = "_".join(truth[key] for key in IDS)
        if uid in found:
            raise UserError(f"{where} is question {uid} a second time; the ids {', '.join(IDS)} must be unique")
        found[uid] = {"cluster": "/".join(truth[key] for key in IDS[:3]), "truth": truth}
    return found


def request(
    uid: str,
    truth: Mapping[str, Any],
    answer: str,
    *,
    template: str | None = None,
    vision: bool = False,
    images: Sequence[ImageRef] = (),
) -> Request:
    """The judge's question, in our words or in a `template` with {question}, {reference} and {answer}.

    With `vision` the judge sees `images` (none for a question without a figure); else only the reference counts.

    Raises:
        UserError: a template without one of these, or `vision` and no picture of a question that has a figure.
    """
    check_shown("hallusion", uid, truth["image"] if truth["visual_input"] else None, vision=vision, images=images)
    shown = tuple(images) if vision else ()
    values = {name: truth[name] for name in _FIELDS[:2]} | {"answer": answer.strip() or "(empty)"}
    values["picture"] = " about the picture shown" if shown else ""
    text = fill("hallusion", template or TEMPLATE, values, needed=_FIELDS, accepted=(*_FIELDS, "picture"))
    return Request(uid, text, shown)


def parse_official(reply: str) -> float:
    """The official rule: 0 (wrong) if "incorrect" is in the reply, else 1 if "correct" is, else 2 (unclear).

    So "not correct" is right, "I can't say if it is correct" too, and a refusal or an empty reply is unclear.
    """
    text = reply.lower()
    return WRONG if "incorrect" in text else RIGHT if "correct" in text else UNCLEAR


def parse_corrected(reply: str) -> float | None:
    """0 wrong, 1 right, 2 unclear, or None where the reply gives no verdict or several.

    A verdict alone in the first or the last clause decides; else all must agree. "Not correct" is wrong; a
    clause with another negation, a condition or a part ("if it is correct", "partly correct") gives none.
    """
    text = unicodedata.normalize("NFKC", reply).lower().replace("\u2019", "'")
    clauses = [clause for clause in _CLAUSE.split(re.sub("[*_`]", "", text)) if re.search(r"\w", clause)]
    alone = [_ALONE.fullmatch(clause) for clause in clauses[:1] + clauses[-1:]]
    said = {_VERDICTS[match[1]] for match in alone if match is not None}
    said = said or {_verdict(clause) for clause in clauses if _SAYS.search(clause)}
    return said.pop() if len(said) == 1 else None


def _verdict(clause: str) -> float | None:
    words = set(_SAYS.findall(clause))
    if _HEDGED.search(clause):
        return WRONG if words == {"correct"} and _DENIED.search(clause) else None
    return _VERDICTS[words.pop()] if len(words) == 1 else None


def score(rows: Sequence[Row], *, protocol: Protocol = "official") -> list[Row]:
    """Adds `verdict` (0, 1, 2 or None), `correct` (None: unknown), `said_yes`, `failed`, `unparsed`, `num_words`.

    "official" and "corrected" read the judge's `replies` (one a vote, None: it failed; the verdict that most of them
    give counts, a draw is unparsed) with the parser of that name; "words"
    needs no judge: `pope.parse_corrected` reads the answer, one that takes no side is unclear, one without a
    word is wrong. Unclear counts as right where no figure was shown (VS, figure 0), as in the official code.
    `said_yes` is inferred from right or wrong under "official", as there (so an unclear answer is a yes or no),
    and read from the answer otherwise. Where the judge failed or can't be read, nothing is scored.

    Raises:
        UserError: an unknown protocol, or a row without `replies` under a protocol with a judge.
    """
    if protocol not in get_args(Protocol):
        raise UserError(f"hallusion: protocol is {protocol!r}; accepted are {', '.join(get_args(Protocol))}")
    return [row | _found(row, protocol) for row in rows]


def _found(row: Row, protocol: Protocol) -> Row:
    truth, said = row["truth"], pope.parse_corrected(row["answer"])
    failed = unparsed = False
    verdict: float | None
    if protocol == "words":
        unparsed = re.search("[a-zA-Z]", row["answer"]) is None
        verdict = WRONG if unparsed else UNCLEAR if said is None else float(said == truth["label"])
    else:
        if not row.get("replies"):
            raise UserError(f'hallusion: row {row["uid"]} has no `replies`; ask a judge, or use protocol "words"')
        parse: Callable[[str], float | None] = parse_official if protocol == "official" else parse_corrected
        verdict, failed, unparsed, *_ = majority_vote(row["replies"], parse)
    correct = None
    if verdict is not None:
        correct = verdict == RIGHT or (verdict == UNCLEAR and _without_figure(truth))
    said_yes = said == "yes"
    if protocol == "official":
        said_yes = correct == (truth["label"] == "yes")
    return {
        "verdict": verdict,
        "correct": correct,
        "said_yes": said_yes,
        "failed": failed,
        "unparsed": unparsed,
        "num_words": len(row["answer"].split()),
    }


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """HallusionBench's metrics before they are summed; questions without a verdict are in none but their shares.

    `accuracy` (aAcc) over questions, also easy and hard (edited figure) and per category; `figure_accuracy`
    (fAcc): figures with every question right, VS without a figure left out; `pair_accuracy` (qAcc): questions
    right on every figure of their set. A group with an unknown member is left out. The official tables call
    `easy_pair_accuracy` and `hard_pair_accuracy` "per easy/hard question". `inconsistent_fraction`: figures
    with some but not all right. `yes_difference`: share of yes said - share of yes true (-1..1, unbiased at
    0); `false_positive_ratio`: yes said among wrong answers (unbiased at 0.5; undefined without a wrong one,
    where the official code prints 1). Shares: unclear, unparsed, failed; `length_words`: mean words an answer.
    """
    known = [row["correct"] is not None for row in scored]
    truths = [row["truth"] for row in scored]
    figures = [None if _without_figure(truth) else _key(truth, "figure_id") for truth in truths]
    pairs: list[str | None] = [_key(truth, "question_id") for truth in truths]
    hard = [truth["visual_input"] == 2 for truth in truths]
    right = [row["correct"] is True for row in scored]
    yes = [float(row["said_yes"]) - float(row["truth"]["label"] == "yes") for row in scored]
    wrong = [row["correct"] is False for row in scored]
    found = {
        "accuracy": _share(right, known),
        "figure_accuracy": _groups(scored, figures).all_right,
        "pair_accuracy": _groups(scored, pairs).all_right,
        "inconsistent_fraction": _groups(scored, figures).mixed,
    }
    for name, wanted in (("easy", False), ("hard", True)):
        among = [each == wanted for each in hard]
        keys = [key if each else None for key, each in zip(pairs, among, strict=True)]
        found[f"{name}_accuracy"] = _share(right, _both(known, among))
        found[f"{name}_pair_accuracy"] = _groups(scored, keys).all_right
    for name in ("VD", "VS"):
        among = [truth["category"] == name for truth in truths]
        found[f"{name}/accuracy"] = _share(right, _both(known, among))
        for word, keys in (("figure", figures), ("pair", pairs)):
            kept = [key if each else None for key, each in zip(keys, among, strict=True)]
            found[f"{name}/{word}_accuracy"] = _groups(scored, kept).all_right
    found["yes_difference"] = _share(yes, known, better="neutral", fraction=False)
    found["false_positive_ratio"] = _share([row["said_yes"] for row in scored], wrong, better="neutral")
    everything = [True] * len(scored)
    found["unclear_fraction"] = _share([row["verdict"] == UNCLEAR for row in scored], known, better="neutral")
    for name in ("unparsed", "failed"):
        found[f"{name}_fraction"] = _share([row[name] for row in scored], everything, better="neutral")
    words = [row["num_words"] for row in scored]
    found["length_words"] = _share(words, everything, better="neutral", fraction=False)
    return found


class _Groups(NamedTuple):
    """Of the groups: those with every member right, and those with some but not all."""

    all_right: Measure
    mixed: Measure


def _groups(scored: Sequence[Row], keys: Sequence[str | None]) -> _Groups:
    """Counts of a group stand on its first row; a row without a key is in no group."""
    members: dict[str, list[int]] = {}
    for at, key in enumerate(keys):
        if key is not None:
            members.setdefault(key, []).append(at)
    num = len(scored)
    groups, every, some = [0.0] * num, [0.0] * num, [0.0] * num
    for rows in members.values():
        right = [scored[at]["correct"] for at in rows]
        if None not in right:
            groups[rows[0]], every[rows[0]], some[rows[0]] = 1.0, float(all(right)), float(any(right))
    mixed = [one - whole for one, whole in zip(some, every, strict=True)]
    return _Groups(
        _share(every, [group > 0 for group in groups]), _share(mixed, [g > 0 for g in groups], better="lower")
    )


def _share(
    values: Sequence[float], among: Sequence[bool], *, better: Direction = "higher", fraction: bool = True
) -> Measure:
    return mean_among(values, among, better=better, fraction=fraction)


def _both(a: Sequence[bool], b: Sequence[bool]) -> list[bool]:
    return [x and y for x, y in zip(a, b, strict=True)]


def _without_figure(truth: Mapping[str, Any]) -> bool:
    return truth["category"] == "VS" and truth["figure_id"] == "0"


def _key(truth: Mapping[str, Any], last: str) -> str:
    return "_".join(truth[key] for key in (*IDS[:3], last))
