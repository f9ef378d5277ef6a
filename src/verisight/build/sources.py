"""Source nodes -> rows that are known beforehand, and the source that training draws from."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import assert_never

from verisight import recipe
from verisight.build.annotators import annotator
from verisight.build.data import Composed, counted, read
from verisight.build.negatives import hallucinate, origin
from verisight.data.files import write_json
from verisight.data.outcome import enforce_bad_fraction
from verisight.data.views import Singles, View
from verisight.sources.generated import Averaged, Generated, Join, averaged, paired
from verisight.sources.offline import Offline
from verisight.sources.online import Online
from verisight.sources.wrappers import Iterated, Mixed
from verisight.train import preference
from verisight.types import BadRow, Decoding, Pair, Source, UserError


def rows_folder(one: recipe.Recipe) -> Path:
    """Where what the data files hold is kept while the run goes on."""
    return (one.train.cache or one.output) / "rows"


def file_name(stem: str, key: str, end: str) -> str:
    """A file of the run folder that belongs to the source at `key`: those of the root have the bare stem."""
    return f"{stem}{key.removeprefix('source')}{end}"


def examples(
    one: recipe.Recipe,
    key: str,
    node: recipe.Offline | recipe.Generated | recipe.Online | recipe.Rollouts,
    *,
    quiet: bool = True,
) -> Sequence[Pair]:
    """The rows the source at `key` reads. What was done to get them goes to data.json, bad rows to bad_rows.jsonl.

    Answers that will be finished by the model are single answers: a multi-turn row becomes one example per answer.

    Raises:
        UserError: more rows are at fault than the recipe accepts.
    """
    found = read(node.data, folder=rows_folder(one), key=f"{key}.data", quiet=quiet)
    if isinstance(node, recipe.Offline) and not isinstance(one.objective, recipe.Sft):
        rated = isinstance(one.objective, recipe.Reward) and one.objective.margin > 0
        found = _comparable(found, single=key.endswith(".source") and _is_averaged(one, key), rated=rated)
    found = _shown(one, key, node, found)
    write_json(one.output / file_name("data", key, ".json"), {"pairs": len(found.pairs), "steps": found.trail})
    enforce_bad_fraction(
        found.bad, num_rows=found.num_rows, max_bad_fraction=one.max_bad_fraction,
        log=one.output / file_name("bad_rows", key, ".jsonl"),
    )  # fmt: skip
    if not found.pairs:
        raise UserError(f"{key}.data: found no pair in {found.num_rows} rows; left out: {counted(found.bad)}")
    return found.pairs if isinstance(node, recipe.Offline) else Singles(found.pairs)


def _shown(
    one: recipe.Recipe,
    key: str,
    node: recipe.Offline | recipe.Generated | recipe.Online | recipe.Rollouts,
    found: Composed,
) -> Composed:
    """Pairs with pictures, where a view spoils them or the objective compares them; the others become bad rows."""
    makers = [m for k, m in recipe.below(one.source) if (k == key or key.startswith(f"{k}."))]
    views = [m.negatives.view for m in makers if isinstance(m, recipe.Generated | recipe.Averaged)]
    hidden = [view for view in views if not isinstance(view, recipe.Clean | recipe.BadPrompt)]
    hidden += [view for view in views if isinstance(view, recipe.BadPrompt) and view.degraded > 0]
    compared = isinstance(one.objective, recipe.Mdpo)
    if not hidden and not compared:
        return found
    kept, bad = [], list(found.bad)
    for number, pair in enumerate(found.pairs):
        where, num = pair.prompt.provenance, len(pair.prompt.images)
        if not num:
            bad.append(BadRow(where, number, "no picture to spoil", f"{where} is text only"))
        elif compared and len(pair.rejected_images) not in (0, num):
            detail = f"{where} has {len(pair.rejected_images)} rejected pictures beside {num}"
            bad.append(BadRow(where, number, "rejected pictures do not fit", detail))
        else:
            kept.append(number)
    pairs = found.pairs if len(kept) == len(found.pairs) else View(found.pairs, kept)
    return Composed(pairs, bad, found.num_rows, found.trail)


def held_out(one: recipe.Recipe, data: recipe.Data, *, num: int, quiet: bool = True) -> Sequence[Pair]:
    """The first pairs of data that is looked at while training, not trained on.

    Raises:
        UserError: a row at fault beyond what the recipe accepts, or no pair.
    """
    found = read(data, folder=rows_folder(one), key="diagnose.data", quiet=quiet)
    if not isinstance(one.objective, recipe.Sft):
        found = _comparable(found, single=False, rated=False)
    enforce_bad_fraction(
        found.bad, num_rows=found.num_rows, max_bad_fraction=one.max_bad_fraction,
        log=one.output / "bad_rows.diagnose.jsonl",
    )  # fmt: skip
    if not found.pairs:
        raise UserError(f"diagnose.data: found no pair in {found.num_rows} rows; left out: {counted(found.bad)}")
    return found.pairs[:num]


def _is_averaged(one: recipe.Recipe, key: str) -> bool:
    """Whether a source above the one at `key` gives its pairs one more rejected answer."""
    above = (node for place, node in recipe.below(one.source) if key.startswith(f"{place}."))
    return any(isinstance(node, recipe.Averaged) for node in above)


def _comparable(found: Composed, *, single: bool, rated: bool) -> Composed:
    """Pairs that have a rejected answer (`single`: and one turn; `rated`: and ratings); the others become bad rows."""
    kept, bad = [], list(found.bad)
    for number, pair in enumerate(found.pairs):
        where, gap = pair.prompt.provenance, preference.rating_gap(pair)
        if not pair.rejected:
            bad.append(BadRow(where, number, "no rejected answer", f"{where} has nothing to compare with"))
        elif single and pair.chosen.follow_up:
            detail = f"{where} has {1 + len(pair.chosen.follow_up) // 2} answers; a second rejected one is for one"
            bad.append(BadRow(where, number, "several turns", detail))
        elif rated and gap is None:
            detail = f"{where} has no ratings of its answers; accepted: rated data, or objective.margin 0"
            bad.append(BadRow(where, number, "no ratings", detail))
        elif rated and gap is not None and gap < 0:
            detail = f"{where} has the chosen answer rated {-gap:g} below the rejected one, so no margin above it"
            bad.append(BadRow(where, number, "rated the other way round", detail))
        else:
            kept.append(number)
    pairs = found.pairs if len(kept) == len(found.pairs) else View(found.pairs, kept)
    return Composed(pairs, bad, found.num_rows, found.trail)


def join(node: recipe.Generated | recipe.Averaged) -> Join:
    """How an example and its negative make a pair."""
    told = origin(node.negatives)
    if isinstance(node, recipe.Averaged):
        return partial(averaged, gamma=node.gamma, origin=told)
    return partial(paired, origin=told)


def _order(one: recipe.Recipe, key: str) -> int:
    """The seed by which a source goes through its rows. The first that reads data has the recipe's.

    Others have one of their own, so that parts of a mixture over the same rows do not walk them side by side.
    """
    first = next(k for k, node in recipe.below(one.source) if not isinstance(node, recipe.Mixed | recipe.Iterated))
    leaf = next(k for k, _ in recipe.with_data(one.source))
    return one.seed if key in (first, leaf) else zlib.crc32(f"{one.seed}/{key}".encode())


def source(
    one: recipe.Recipe,
    rows: Mapping[str, Sequence[Pair]],
    *,
    node: recipe.Source | recipe.Rollouts | None = None,
    key: str = "source",
) -> Source:
    """The source at `key`. `rows`: what every source below it reads; of one made beforehand, its finished pairs."""
    node = node or one.source
    assert not isinstance(node, recipe.Rollouts), "build.rollouts puts them together"
    folder, seed = one.output, one.seed
    if not isinstance(node, recipe.Mixed) and recipe.is_fixed(node):
        return Offline(rows[key], seed=_order(one, key))
    match node:
        case recipe.Generated(negatives=negatives):
            method = hallucinate(negatives, rows[key], folder=folder, seed=seed)
            return Generated(
                Offline(rows[key], seed=_order(one, key)), method, join=join(node), seed=seed,
                batch_size=negatives.batch_size, stream=key,
            )  # fmt: skip
        case recipe.Averaged(source=inner, negatives=negatives, gamma=gamma):
            below_it = f"{key}.source"
            pool = next(rows[k] for k in rows if k == below_it or k.startswith(f"{below_it}."))
            method = hallucinate(negatives, pool, folder=folder, seed=seed)
            return Averaged(
                source(one, rows, node=inner, key=below_it), method, gamma=gamma, origin=origin(negatives),
                seed=seed, batch_size=negatives.batch_size, stream=key,
            )  # fmt: skip
        case recipe.Online(annotator=judge, num_samples=num, decoding=drawn, max_new_tokens=longest):
            return Online(
                Offline(rows[key], seed=_order(one, key)), annotator(judge, folder=folder, seed=seed),
                decoding=Decoding(longest, drawn.temperature, drawn.top_p), num_samples=num, seed=seed,
                batch_size=node.batch_size, stream=key,
            )  # fmt: skip
        case recipe.Mixed(parts=parts, order=order):
            below = [
                (part.weight, source(one, rows, node=part.source, key=f"{key}.parts.{i}.source"))
                for i, part in enumerate(parts)
            ]
            return Mixed(below, seed=seed, stream=key, order=order)
        case recipe.Iterated(source=inner, every=every):
            return Iterated(source(one, rows, node=inner, key=f"{key}.source"), every=every)
        case recipe.Offline():
            raise AssertionError("an offline source is fixed")
        case other:
            assert_never(other)
