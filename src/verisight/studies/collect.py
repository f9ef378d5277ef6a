"""Findings of a study, put together from its results and the samples among its facts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from verisight.data.files import read_json
from verisight.recipe import Study, load_claims
from verisight.recipe.study import BASE, CONTROL
from verisight.studies import findings
from verisight.studies.claims import read_all, weigh
from verisight.studies.effects import Resampler, spread
from verisight.studies.facts import read_samples
from verisight.studies.findings import Findings
from verisight.studies.results import Results, columns_of, read_results, rows_of
from verisight.types import UserError

_PICTURE = re.compile(r"[0-9a-f]{16}")
_ONE_SEED = ("One seed: intervals and verdicts are over items alone, another seed may say otherwise.",)
_NAMES = {
    "loss": "loss", "margin_mean": "margin of log-ratios", "accuracy": "pairs put right", "reward": "reward",
    "chosen_logratio_sum": "log-ratio of chosen answers", "rejected_logratio_sum": "log-ratio of rejected answers",
    "kl_sum": "KL to the start", "answer_tokens": "length of own answers", "samples/kl_sum": "KL to the start (probe)",
    "samples/words": "length of own answers (probe)", "samples/gold_reward": "gold reward (probe)",
    "samples/train_reward": "reward that is trained on (probe)",
}  # fmt: skip


def collect(
    study: Study, *, file: Path, with_claims: bool = True, resampler: Resampler | None = None
) -> tuple[Findings, Results]:
    """Everything a report of the study shows. Studies that are collected with one resampler read each run once.

    Raises:
        UserError: no run has facts yet, or facts that cannot be read.
    """
    resampler = resampler or Resampler()
    results = read_results(study, file=file, resampler=resampler)
    if not results.arms:
        raise UserError(f"{file}: none of its {len(results.missing)} runs has been made; `verisight study run` first")
    columns = columns_of(results)
    rows = rows_of(results, columns)
    labels = {row.key: row.label for row in rows}
    answers, pairs, pictures = _samples(results, labels)
    claims: tuple[findings.Claim, ...] = ()
    if with_claims and study.claims is not None:
        told = load_claims(study.claims)
        every = weigh(told, read_all(told, resampler=resampler), file=study.claims)
        ours = {name for name, one in told.claims.items() if any(part.study == study.name for part in one.parts)}
        claims = tuple(one for one in every if one.key in ours)
    return Findings(
        name=study.name, title=study.title, about=study.meaning, columns=columns, rows=rows, base=BASE, control=CONTROL,
        budget=tuple(_budget(results)), varies=study.varies, claims=claims, curves=tuple(_curves(results, labels)),
        sweeps=tuple(_sweeps(results)), rounds=tuple(_rounds(results, labels)) if study.rounds else (),
        answers=answers, pairs=pairs, pictures=pictures, facts=tuple(_facts(results)), missing=results.missing,
        scatter=study.scatter, notes=_ONE_SEED if len(study.seeds) == 1 else (),
    ), results  # fmt: skip


def _budget(results: Results) -> Iterator[tuple[str, str]]:
    """What the trained arms have in common, from their recipes; what differs is not said."""
    recipes = [one.about["recipe"] for runs in results.arms.values() for one in runs.values()
               if one.about["recipe"] and not one.run.untrained]  # fmt: skip
    read = {
        "starting model": lambda one: one["model"]["path"],
        "tuning": lambda one: one["model"]["tune"]["kind"],
        "optimizer steps": lambda one: one["train"]["steps"] or f"{one['train']['epochs']} epochs",
        "pairs a step": lambda one: one["train"]["batch_size"],
        "learning rate": lambda one: f"{one['train']['lr']:g}",
    }
    for name, get in read.items():
        values = {str(get(one)) for one in recipes}
        if len(values) == 1:
            yield name, values.pop()
    yield "seeds", ", ".join(map(str, results.study.seeds))
    items = {name: _num(one.about, name)
             for runs in results.arms.values() for one in runs.values() for name in one.benchmarks}  # fmt: skip
    for name, num in items.items():
        if num:
            yield f"{name} items", f"{num:,}"


def _num(about: dict[str, Any], name: str) -> int:
    return int(about["summary"].get(name, {}).get("num_items", 0))


def _curves(results: Results, labels: dict[str, str]) -> Iterator[findings.Curve]:
    """Mean, least and largest seed of every quantity of every trained arm."""
    for arm, runs in results.arms.items():
        files = [one.folder / "curves.json" for one in runs.values() if not one.run.untrained]
        told = [read_json(file) for file in files if file.exists()]
        for key in (key for key in _NAMES if told and all(key in one for one in told)):
            steps = told[0][key]["steps"]
            if any(one[key]["steps"] != steps for one in told):
                continue  # a run that a guard stopped
            values = np.array([one[key]["values"] for one in told])
            yield findings.Curve(
                labels[arm], _NAMES[key], told[0][key]["unit"], tuple(steps), tuple(values.mean(0).tolist()),
                tuple(values.min(0).tolist()), tuple(values.max(0).tolist()),
            )  # fmt: skip


def _sweeps(results: Results) -> Iterator[findings.Sweep]:
    for sweep in results.study.sweeps:
        lines = []
        for name, arms in sweep.series.items():
            points = []
            for arm, x in sorted(arms.items(), key=lambda one: one[1]):
                seeds = results.has(arm, sweep.metric)
                if seeds:
                    found = spread(results.pick(arm, sweep.metric, seeds))
                    if found.value is not None:
                        points.append(findings.SweepPoint(x, arm, found.value, found.low, found.high))
            if points:
                lines.append((name, tuple(points)))
        if lines:
            column = results.column(sweep.metric)
            yield findings.Sweep(sweep.title, sweep.x_label, sweep.log_x, column, tuple(lines))


def _rounds(results: Results, labels: dict[str, str]) -> Iterator[findings.Rounds]:
    """Shares resolved up to each guided round, all seeds together; the last, free one is not among them."""
    for arm, runs in results.arms.items():
        counts: Counter[str] = Counter()
        for one in runs.values():
            counts.update(one.about["pairs"].get("rounds", {}))
        guided = sorted(int(name) for name in counts if name != "free")
        if guided:
            total = sum(counts.values())
            shares = [sum(counts[str(at)] for at in range(1, upto + 1)) / total for upto in range(1, guided[-1] + 1)]
            yield findings.Rounds(labels[arm], tuple(shares))


def _samples(
    results: Results, labels: dict[str, str]
) -> tuple[tuple[findings.AnswerSample, ...], tuple[findings.PairSample, ...], dict[str, bytes]]:
    """Answers of every arm's first seed to the same pictures, and pairs of those that had some written."""
    first = {arm: next(iter(runs.values())) for arm, runs in results.arms.items()}
    answers: dict[str, dict[str, Any]] = {}
    pairs = []
    for arm, one in first.items():
        for row in read_samples(one.folder, "answers"):
            kept = answers.setdefault(row["uid"], {"row": row, "said": []})
            mentions = tuple(findings.Mention(*mention) for mention in json.loads(row["mentions"]))
            kept["said"].append(findings.Said(labels[arm], row["answer"], mentions))
        pairs += [_pair(labels[arm], row) for row in read_samples(one.folder, "pairs")]
    drawn = tuple(
        findings.AnswerSample(
            uid, told["row"]["picture"], told["row"]["question"], tuple(told["row"]["objects"]), tuple(told["said"])
        )
        for uid, told in answers.items()
    )
    keys = {one.picture for one in (*drawn, *pairs) if _PICTURE.fullmatch(one.picture)}
    folder = results.places.facts / "pictures"
    pictures = {key: (folder / key).read_bytes() for key in sorted(keys) if (folder / key).exists()}
    return drawn, tuple(pairs), pictures


def _pair(label: str, row: dict[str, Any]) -> findings.PairSample:
    return findings.PairSample(
        label, row["uid"], row["kind"], row["picture"], row["question"], row["chosen"], row["rejected"],
        tuple((start, end) for start, end in json.loads(row["written"])),
        tuple((name, str(value)) for name, value in json.loads(row["notes"]).items() if value),
    )  # fmt: skip


def _facts(results: Results) -> Iterator[findings.Fact]:
    for arm, runs in results.arms.items():
        for one in {id(shown): shown for shown in runs.values()}.values():
            yield findings.Fact(
                arm, one.run.seed, one.run.fact or "", tuple(sorted(one.about["seconds"].items())),
                tuple(sorted(one.about["versions"].items())),
            )  # fmt: skip
