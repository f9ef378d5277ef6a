"""GroundedBench: claims and yes/no questions about pictures whose content is known completely, counted, not judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verisight.data.files import read_json, read_jsonl
from verisight.data.forms import ITEMS, VERSION, form_facts
from verisight.evaluate.benchmark import Item
from verisight.evaluate.claims import KINDS, claims, facts, holds
from verisight.evaluate.fields import short
from verisight.evaluate.pope import parse_corrected
from verisight.evaluate.stats import Counts, Direction, Measure, mean_among, ratio, ratio_measure, summarise
from verisight.types import Decoding, ImageRef, Prompt, UserError

Row = dict[str, Any]
DECODING = Decoding(max_new_tokens=128, temperature=0.0)
LEVELS = {"size": ("normal", "small"), "clutter": ("few", "many"), "contrast": ("full", "faint")}
BIASES = ("typical", "random")
_KEYS = ("uid", "cluster", "image", "prompt", "truth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounded:
    """A form of the benchmark (`Benchmark`), from the folder that `verisight pocket grounded` wrote."""

    folder: Path
    temperature: float = 0.0

    @property
    def name(self) -> str:
        """Its file name and summary key."""
        return "grounded"

    @property
    def protocol(self) -> str:
        """The version of items and rules."""
        return f"v{VERSION}"

    @property
    def decoding(self) -> Decoding:
        """Greedy, unless a temperature is set (to measure it twice)."""
        return replace(DECODING, temperature=self.temperature)

    def items(self) -> list[Item]:
        """Every description and question. Errors as in `read_form`."""
        items = []
        for row in read_form(self.folder):
            image = ImageRef(path=self.folder / "images" / row["image"])
            prompt = Prompt(row["uid"], (image,), row["prompt"], split_group=row["cluster"], provenance="grounded")
            items.append(Item(row["uid"], prompt, row["cluster"], row["truth"]))
        return items

    def score(self, rows: Sequence[Row]) -> list[Row]:
        """See `score`."""
        return score(rows)

    def summary(self, scored: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
        """See `measures`."""
        return summarise(measures(scored), [row["cluster"] for row in scored], seed=seed)


def read_form(folder: Path) -> list[Row]:
    """A form's items, if the folder holds what was written into it.

    Raises:
        UserError: no form, one of another version, or one whose items or pictures were changed.
    """
    about = read_json(folder / "form.json")
    if not isinstance(about, dict) or about.get("version") != VERSION:
        found = short(about.get("version")) if isinstance(about, dict) else short(about)
        raise UserError(f"{folder / 'form.json'}: version is {found}; accepted is {VERSION!r}")
    try:
        found = form_facts(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.filename} can't be read; a form is a whole folder, write it again"
        ) from error
    for key, value in found.items():
        if about.get(key) != value:
            what = ITEMS if key.startswith("items") else "images"
            raise UserError(f"{folder / what}: is not what was written ({key} differs); write the form again")
    return [{key: row[key] for key in _KEYS} for row in read_jsonl(folder / ITEMS)]


def score(rows: Sequence[Row]) -> list[Row]:
    """Adds to yes/no rows `said` (as POPE's corrected parser reads it) and `correct`, to descriptions their claims.

    A description gets `claims` ({kind, what, true}) and, for each kind, `num_<kind>` claimed, `num_<kind>_true`, and,
    where a scene has facts of that kind (object, position, scene), `num_<kind>_facts` and `num_<kind>_found`.
    """
    return [row | (_described(row) if row["truth"]["form"] == "caption" else _answered(row)) for row in rows]


def _answered(row: Row) -> Row:
    said = parse_corrected(row["answer"])
    return {"said": said, "correct": said == row["truth"]["label"]}


def _described(row: Row) -> Row:
    truth, made = row["truth"], claims(row["answer"])
    known, true = facts(truth), {claim: holds(claim, truth) for claim in made}
    counts: Row = {}
    for kind in KINDS:
        counts[f"num_{kind}"] = sum(claim.kind == kind for claim in made)
        counts[f"num_{kind}_true"] = sum(good for claim, good in true.items() if claim.kind == kind)
        there = {fact for fact in known if fact.kind == kind}
        counts[f"num_{kind}_facts"], counts[f"num_{kind}_found"] = len(there), len(there & set(made))
    told = [{"kind": claim.kind, "what": list(claim.what), "true": good} for claim, good in true.items()]
    usual = sum(not good and claim.kind == "object" and claim.what[0] in truth["usual"] for claim, good in true.items())
    return {"claims": told, "num_typical": usual, "num_words": len(row["answer"].split())} | counts


def measures(scored: Sequence[Row]) -> dict[str, Measure]:
    """GroundedBench's metrics before they are summed.

    Descriptions: `precision` (true claims / claims), `recall` (facts told / facts: objects, their places, the scene),
    `f05` (F0.5 of these two), each also as `<kind>/...` (recall and F0.5 where there are facts) and by difficulty
    (`small/precision`, ...; `easy/`: large, few and clear at once); `hallucination_rate`: descriptions that name an
    object which isn't there; `typical_fraction`: of such objects, those that are usual in the place; `length_words`,
    `truncated_fraction`, `empty_fraction`.

    Questions (as many yes as no in each kind): `accuracy`, `yes_fraction`, `unparsed_fraction`; `<kind>/accuracy`,
    `object/typical_accuracy` and `object/random_accuracy` by what the absent object is, `object/typical_yes` and
    `object/random_yes`: how often the absent one is affirmed; `small/accuracy` and so on.

    Pairs (a picture and the same one without the object that is asked about): `pair_accuracy`: both right; `seeing`:
    yes to the first less yes to the second; `guessing`: the same answer to both.
    """
    questions = [row["truth"]["form"] == "yesno" and not row["truth"]["edited"] for row in scored]
    told = [row["truth"]["form"] == "caption" for row in scored]
    found = _descriptions(scored, told, "")
    found["hallucination_rate"] = _share(scored, told, lambda row: row["num_object"] > row["num_object_true"], "lower")
    made_up = [row.get("num_object", 0) - row.get("num_object_true", 0) for row in scored]
    usual = [row.get("num_typical", 0) for row in scored]
    found["typical_fraction"] = ratio_measure(usual, made_up, better="neutral")._replace(num_items=sum(told))
    words = [row.get("num_words") for row in scored]
    found["length_words"] = mean_among(words, told, better="neutral", fraction=False)
    known = [each and isinstance(row.get("truncated"), bool) for row, each in zip(scored, told, strict=True)]
    found["truncated_fraction"] = _share(scored, known, lambda row: row["truncated"], "neutral")
    found["empty_fraction"] = _share(scored, [True] * len(scored), lambda row: not row["answer"].strip(), "neutral")
    for kind in KINDS:
        found |= _one_kind(scored, told, kind)
    found |= _questions(scored, questions)
    plain = [all(row["truth"][level] == easy for level, (easy, _) in LEVELS.items()) for row in scored]
    found |= _descriptions(scored, _both(told, plain), "easy/")
    found["easy/accuracy"] = _right(scored, _both(questions, plain))
    for level, (easy, hard) in LEVELS.items():
        for value in (easy, hard):
            there = [row["truth"][level] == value for row in scored]
            found |= _descriptions(scored, _both(told, there), f"{value}/")
            found[f"{value}/accuracy"] = _right(scored, _both(questions, there))
    return found | _pairs(scored)


def _descriptions(scored: Sequence[Row], among: Sequence[bool], prefix: str) -> dict[str, Measure]:
    columns = [_column(scored, among, [f"num_{kind}{ending}" for kind in KINDS]) for ending in _ENDINGS]
    made, true, there, found = columns
    num = sum(among)
    parts = np.column_stack([true, made, found, there])
    return {
        f"{prefix}precision": Measure(np.column_stack([true, made]), ratio, "higher", num_items=num),
        f"{prefix}recall": Measure(np.column_stack([found, there]), ratio, "higher", num_items=num),
        f"{prefix}f05": Measure(parts, _f05, "higher", num_items=num),
    }


_ENDINGS = ("", "_true", "_facts", "_found")


def _one_kind(scored: Sequence[Row], told: Sequence[bool], kind: str) -> dict[str, Measure]:
    made, true, there, found = (_column(scored, told, [f"num_{kind}{ending}"]) for ending in _ENDINGS)
    num = sum(told)
    measures = {f"{kind}/precision": Measure(np.column_stack([true, made]), ratio, "higher", num_items=num)}
    if kind in ("object", "position", "scene"):
        measures[f"{kind}/recall"] = Measure(np.column_stack([found, there]), ratio, "higher", num_items=num)
        parts = np.column_stack([true, made, found, there])
        measures[f"{kind}/f05"] = Measure(parts, _f05, "higher", num_items=num)
    return measures


def _f05(sums: Counts) -> Counts:
    """F0.5 of precision (first two counts) and recall (last two): precision weighs twice as much."""
    precision, recall = ratio(sums[:, :2]), ratio(sums[:, 2:])
    with np.errstate(invalid="ignore"):
        over, under = 1.25 * precision * recall, 0.25 * precision + recall
    return np.divide(over, under, out=np.where(under == 0, 0.0, np.nan), where=under > 0)


def _questions(scored: Sequence[Row], among: Sequence[bool]) -> dict[str, Measure]:
    found = {
        "accuracy": _right(scored, among),
        "yes_fraction": _share(scored, among, lambda row: row["said"] == "yes", "neutral"),
        "unparsed_fraction": _share(scored, among, lambda row: row["said"] is None, "neutral"),
    }
    for kind in KINDS:
        found[f"{kind}/accuracy"] = _right(scored, _both(among, [row["truth"]["kind"] == kind for row in scored]))
    for bias in BIASES:
        there = _both(among, [row["truth"]["bias"] == bias for row in scored])
        found[f"object/{bias}_accuracy"] = _right(scored, there)
        absent = _both(there, [row["truth"].get("label") == "no" for row in scored])
        found[f"object/{bias}_yes"] = _share(scored, absent, lambda row: row["said"] == "yes", "lower")
    return found


def _pairs(scored: Sequence[Row]) -> dict[str, Measure]:
    """Counts of a pair stand on its edited row; a pair without both answers is none."""
    first = {row["uid"]: row for row in scored}
    both = [bool(row["truth"]["edited"]) and row["truth"]["pair"] in first for row in scored]

    def share(value: Callable[[Row, Row], float], better: Direction, *, fraction: bool = True) -> Measure:
        values = [
            value(first[row["truth"]["pair"]], row) if each else None for row, each in zip(scored, both, strict=True)
        ]
        return mean_among(values, both, better=better, fraction=fraction)

    return {
        "pair_accuracy": share(lambda one, other: one["correct"] and other["correct"], "higher"),
        "seeing": share(lambda one, other: (one["said"] == "yes") - (other["said"] == "yes"), "higher", fraction=False),
        "guessing": share(lambda one, other: one["said"] == other["said"], "lower"),
    }


def _column(scored: Sequence[Row], among: Sequence[bool], keys: Sequence[str]) -> Counts:
    return np.array(
        [float(sum(row[key] for key in keys)) if each else 0.0 for row, each in zip(scored, among, strict=True)]
    )


def _right(scored: Sequence[Row], among: Sequence[bool]) -> Measure:
    return _share(scored, among, lambda row: row["correct"], "higher")


def _share(scored: Sequence[Row], among: Sequence[bool], value: Callable[[Row], Any], better: Direction) -> Measure:
    return mean_among(
        [value(row) if each else None for row, each in zip(scored, among, strict=True)], among, better=better
    )


def _both(a: Sequence[bool], b: Sequence[bool]) -> list[bool]:
    return [x and y for x, y in zip(a, b, strict=True)]


def truths(folder: Path) -> dict[str, Mapping[str, Any]]:
    """A form's questions for `verisight score`: uid -> {cluster, truth}. Errors as in `read_form`."""
    return {
        row["uid"]: {
            "cluster": row["cluster"],
            "truth": row["truth"] | {"question": row["prompt"], "image": row["image"]},
        }
        for row in read_form(folder)
    }
