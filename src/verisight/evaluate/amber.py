"""AMBER (Wang et al. 2023): objects made up in descriptions, and yes/no questions on existence, attribute, relation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from verisight.data.files import read_json
from verisight.evaluate import pope
from verisight.evaluate.amber_words import (
    Nouns,
    Similar,
    Words,
    match_corrected,
    match_official,
    noun_finder,
    same_word,
)
from verisight.evaluate.fields import short, text_field
from verisight.evaluate.stats import Counts, Direction, Measure, Statistic, mean_among, ratio
from verisight.types import Decoding, UserError

Protocol = Literal["official", "corrected"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
Row = dict[str, Any]
DECODING = Decoding(max_new_tokens=512, temperature=0.0)  # the repository names no settings
GENERATIVE = "generative"
KINDS = {
    "generative": GENERATIVE,
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
GROUPS = {
    "existence": ("existence",), "attribute": ("state", "number", "action"), "state": ("state",),
    "number": ("number",), "action": ("action",), "relation": ("relation",),
}  # fmt: skip
_START = 0.001  # the official denominators start here, one for each kind
_ALL_KINDS = tuple(dict.fromkeys(KINDS.values()))[1:]


def read_truths(annotations: Path, queries: Sequence[Path], words: Words) -> dict[str, dict[str, Any]]:
    """The questions of the query files, in their order, with what annotations.json knows of them.

    Returns:
        id as text -> cluster (the picture) and truth: question, image, kind (one of `KINDS`' values), and `objects`
        and `likely` (what is there, and what people expect to be made up) of a description, or `label` (yes or no).

    Raises:
        UserError: a file not in the official format, a question twice or without annotation, or an object that
            `words` doesn't know.
    """
    known: dict[str, dict[str, Any]] = {}
    for where, row in _rows(annotations, "annotations"):
        uid = text_field(row, "id", where, numbers=True)
        if uid in known:
            raise UserError(f"{where}.id is {uid} a second time; ids must be unique")
        known[uid] = _truth(row, where, words)
    found: dict[str, dict[str, Any]] = {}
    for path in queries:
        for where, row in _rows(path, "queries"):
            uid = text_field(row, "id", where, numbers=True)
            image, question = text_field(row, "image", where), text_field(row, "query", where)
            if uid in found:
                raise UserError(f"{where}.id is {uid} a second time; ids must be unique over the query files")
            if uid not in known:
                raise UserError(f"{where}.id is {uid}, which {annotations} doesn't have")
            found[uid] = {"cluster": image, "truth": {"question": question, "image": image} | known[uid]}
    if not found:
        raise UserError("amber: no query file was given; accepted is one or more, such as query_all.json")
    return found


def _rows(path: Path, what: str) -> list[tuple[str, dict[str, Any]]]:
    table = read_json(path)
    if not isinstance(table, list) or not table:
        raise UserError(f"{path}: holds {short(table)}; AMBER's {what} are a list of objects")
    for at, row in enumerate(table):
        if not isinstance(row, dict):
            raise UserError(f"{path}: [{at}] is {short(row)}; accepted is an object")
    return [(f"{path}: [{at}]", row) for at, row in enumerate(table)]


def _truth(row: Mapping[str, Any], where: str, words: Words) -> dict[str, Any]:
    kind = KINDS.get(text_field(row, "type", where))
    if kind is None:
        raise UserError(f"{where}.type is {row['type']!r}; accepted are {', '.join(KINDS)}")
    if kind != GENERATIVE:
        if row.get("truth") not in ("yes", "no"):
            raise UserError(f"{where}.truth is {short(row.get('truth'))}; accepted are yes, no")
        return {"kind": kind, "label": row["truth"]}
    for key in ("truth", "hallu"):
        names = row.get(key)
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"{where}.{key} is {short(names)}; accepted is a list of objects")
        for name in names:
            if name not in words.associated:
                raise UserError(f"{where}.{key} holds {name!r}, which is no object of the association file")
    return {"kind": kind, "objects": row["truth"], "likely": row["hallu"]}


def score(
    rows: Sequence[Row],
    *,
    words: Words,
    protocol: Protocol = "official",
    nouns: Nouns | None = None,
    similar: Similar = same_word,
) -> list[Row]:
    """Adds what descriptions and yes/no answers count for, and `protocol`, `num_words`, `empty`, `unparsed`, `failed`.

    A description gets `nouns` (those in the vocabulary), `made_up`, `covered` and `hit` (its true and its likely
    objects that were named) and their num_*. Each noun in turn: a safe word counts for nothing; one that is, or may
    stand for, a true object covers the first such; one of the likely objects hits it; then the first likely and the
    first true object that it is similar to (`similar` > 0.8) are hit and covered; what covers nothing is made up.
    A yes/no answer gets `said` (None: neither) and `correct`.

    `nouns` gives the nouns of an answer as lemmas; None: `noun_finder`. `similar` is 0..1; the default knows no
    similarity. With the official pipeline given for both, "official" is the official script. What "corrected" mends:
    case doesn't count (official: "Dogs" and "TVs" are lost);
    a safe word is in no denominator (official: it is a noun of CHAIR's, and as an object it can't be covered);
    an object that is named by its own name is covered itself, not one it may stand for ("ground" for "grass");
    objects listed twice, or both as there and as likely, count once, as there (official: the second is never covered);
    a likely object is made up however similar to a true one (official: it counts as hit and as covered at once);
    a yes/no answer is read by `pope.parse_corrected` (official: it must be exactly "Yes" or "No").

    Raises:
        UserError: an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"amber: protocol is {protocol!r}; accepted are {', '.join(PROTOCOLS)}")
    official = protocol == "official"
    find = nouns or noun_finder(words, as_written=official)
    used = words if official else words.folded
    scored = []
    for row in rows:
        answer, truth = row["answer"], row["truth"]
        found = {"protocol": protocol, "num_words": len(answer.split()), "empty": not answer.strip(), "failed": False}
        if truth["kind"] == GENERATIVE:
            named = find(answer) if official else [noun.casefold() for noun in find(answer)]
            kept = [noun for noun in named if noun in used.vocabulary]
            match = match_official if official else match_corrected
            found |= {"unparsed": False} | match(kept, truth, used, similar)
        else:
            said = {"Yes": "yes", "No": "no"}.get(answer) if official else pope.parse_corrected(answer)
            found |= {"said": said, "correct": said == truth["label"], "unparsed": said is None}
        scored.append(row | found)
    return scored


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """AMBER's metrics before they are summed, as fractions.

    Descriptions: `chair` (made-up / nouns), `cover` (objects covered / objects), `hal` (with something made up / all),
    `cog` (likely objects named / likely objects), `length_words`, `truncated_fraction` (where that is known).
    Yes/no questions, with "no" as the positive class: `accuracy`, `precision`, `recall`, `f1`, also per group
    (existence, attribute, its parts state, number and action, relation), `no_fraction` (answered no),
    `unparsed_fraction`, `yes_no/length_words`. `amber_score` is (1 - chair + f1) / 2. All: `empty_fraction`.

    Every existence question's answer is no, so a model that always says no is perfect there, and precision is 1 for
    any. `balanced_accuracy` (ours), the mean of the rates right among yes and among no, is 0.5 for it; existence has
    none. Official denominators start at 0.001 (per kind: attribute at 0.003), F1 has 0.0001 more below (existence
    0.001) and is taken of precision and recall in tenths of a percent; "corrected" has none of it. What nobody was
    asked about is undefined under both; a denominator of 0 is undefined under "corrected" and gives 0 officially.
    """
    official = bool(scored) and scored[0]["protocol"] == "official"
    assert all((row["protocol"] == "official") == official for row in scored), "rows of one protocol"
    told = [row["truth"]["kind"] == GENERATIVE for row in scored]
    asked = [not one for one in told]
    found = _generative(scored, told, official=official)
    found |= _discriminative(scored, _ALL_KINDS, "", official=official)
    parts = np.hstack([found["chair"].counts, found["f1"].counts])
    combined = partial(_amber_score, chair=found["chair"].statistic, f1=found["f1"].statistic)
    found["amber_score"] = Measure(parts, combined, "higher")
    for name, kinds in GROUPS.items():
        found |= _discriminative(scored, kinds, f"{name}/", official=official)
    del found["existence/balanced_accuracy"]
    found["no_fraction"] = _share([row.get("said") == "no" for row in scored], asked)
    found["unparsed_fraction"] = _share([row["unparsed"] for row in scored], asked)
    num_words = [row["num_words"] for row in scored]
    found["length_words"] = _share(num_words, told, fraction=False)
    found["yes_no/length_words"] = _share(num_words, asked, fraction=False)
    known = [one and isinstance(row.get("truncated"), bool) for row, one in zip(scored, told, strict=True)]
    found["truncated_fraction"] = _share([row.get("truncated") is True for row in scored], known)
    found["empty_fraction"] = _share([row["empty"] for row in scored], [True] * len(scored))
    return found


def _generative(scored: Sequence[Row], told: Sequence[bool], *, official: bool) -> dict[str, Measure]:
    def column(key: str) -> list[float]:
        return [float(row.get(key, 0)) for row in scored]

    def measure(over: Sequence[float], under: Sequence[float], better: Direction) -> Measure:
        counts = np.column_stack([over, under, told]).astype(float)
        return Measure(counts, _ratio(official, _START), better, num_items=sum(told))

    clean = [one and row["num_made_up"] == 0 for row, one in zip(scored, told, strict=True)]
    found = {
        "chair": measure(column("num_made_up"), column("num_nouns"), "lower"),
        "cover": measure(column("num_covered"), column("num_objects"), "higher"),
        "hal": measure(clean, told, "lower"),
        "cog": measure(column("num_hit"), column("num_likely"), "lower"),
    }
    statistic = found["hal"].statistic
    found["hal"] = found["hal"]._replace(statistic=lambda sums: 1 - statistic(sums))
    return found


def _discriminative(scored: Sequence[Row], kinds: Sequence[str], name: str, *, official: bool) -> dict[str, Measure]:
    asked = [row["truth"]["kind"] in kinds for row in scored]
    is_no = [one and row["truth"]["label"] == "no" for row, one in zip(scored, asked, strict=True)]
    is_yes = [one and not no for one, no in zip(asked, is_no, strict=True)]
    said_no = [one and row["said"] == "no" for row, one in zip(scored, asked, strict=True)]
    right = [one and row["correct"] for row, one in zip(scored, asked, strict=True)]
    hits = [one and no for one, no in zip(right, is_no, strict=True)]
    start = 3 * _START if name == "attribute/" else _START

    def measure(statistic: Statistic, *columns: Sequence[bool]) -> Measure:
        return Measure(np.column_stack(columns).astype(float), statistic, "higher", num_items=sum(asked))

    f1 = partial(_f1, official=official, start=start, extra=0.001 if name == "existence/" else 0.0001)
    right_yes = [one and yes for one, yes in zip(right, is_yes, strict=True)]
    return {
        f"{name}accuracy": measure(_ratio(official, start), right, asked, asked),
        f"{name}precision": measure(_ratio(official, start), hits, said_no, asked),
        f"{name}recall": measure(_ratio(official, start), hits, is_no, asked),
        f"{name}f1": measure(f1, hits, said_no, is_no, asked),
        f"{name}balanced_accuracy": measure(_balanced, hits, is_no, right_yes, is_yes),
    }


def _ratio(official: bool, start: float) -> Callable[[Counts], Counts]:
    """(n, 3): first over second, which starts at `start` officially; undefined where the third (members) is 0."""
    return partial(_started, start=start) if official else _plain


def _plain(sums: Counts) -> Counts:
    return ratio(sums[:, :2])


def _started(sums: Counts, *, start: float) -> Counts:
    return np.where(sums[:, 2] > 0, sums[:, 0] / (sums[:, 1] + start), np.nan)


def _f1(sums: Counts, *, official: bool, start: float, extra: float) -> Counts:
    """(n, 4): right no, said no, is no, questions."""
    hits, said_no, is_no, asked = sums.T
    if not official:
        return ratio(np.column_stack([2 * hits, said_no + is_no]))
    precision, recall = np.round(hits / (said_no + start), 3), np.round(hits / (is_no + start), 3)
    return np.where(asked > 0, 2 * precision * recall / (precision + recall + extra), np.nan)


def _balanced(sums: Counts) -> Counts:
    return (ratio(sums[:, :2]) + ratio(sums[:, 2:])) / 2


def _amber_score(sums: Counts, *, chair: Statistic, f1: Statistic) -> Counts:
    return (1 - chair(sums[:, :3]) + f1(sums[:, 3:])) / 2


def _share(values: Sequence[float], among: Sequence[bool], *, fraction: bool = True) -> Measure:
    """Mean of the values over the rows in `among`."""
    return mean_among(values, among, better="neutral", fraction=fraction)
