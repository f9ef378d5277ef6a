"""The only switchboard: recipe node -> live object. Everything below it takes plain arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import assert_never

import torch

from verisight import recipe
from verisight.build.data import Composed, counted, read
from verisight.data import views
from verisight.data.files import write_json
from verisight.data.outcome import enforce_bad_fraction
from verisight.evaluate.chair import Chair
from verisight.evaluate.pope import Pope
from verisight.models.fingerprint import tower_fingerprint
from verisight.models.loading import POCKET, load_model
from verisight.models.policy import LoraSettings, Policy, Scoring
from verisight.models.reference import Reference, StoredReference
from verisight.models.stores import Disk, Memory
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always, Check, Dissimilar, load_encoder
from verisight.negatives.guidance import Free, Guidance, SentenceGuided
from verisight.negatives.views import Clean, Masked, View
from verisight.sources.generated import Generated
from verisight.sources.offline import Offline
from verisight.train.loop import Optimization, Step
from verisight.train.preference import Dpo, PreferenceStep, SftStep
from verisight.types import BadRow, Benchmark, Decoding, Pair, Source, UserError


def open_model(model: recipe.Model, *, scoring: Scoring = "grouped") -> Policy:
    """The starting model, nothing of it training, on the GPU if there is one."""
    try:
        opened, processor = load_model(model.path, dtype=model.dtype, trust_remote_code=model.trust_remote_code)
    except OSError as error:  # Hugging Face's word for a hub id that is unknown or out of reach
        reason, accepted = str(error).strip().splitlines()[0], "a model folder, a hub id within reach or 'pocket'"
        raise UserError(f"model.path: {model.path} does not open ({reason}); accepted: {accepted}") from error
    return Policy(opened.to("cuda") if torch.cuda.is_available() else opened, processor, scoring=scoring)


def tune(policy: Policy, model: recipe.Model, *, seed: int = 0) -> None:
    """Make what the recipe names trainable. `seed` draws an adapter's first weights."""
    match model.tune:
        case recipe.Lora(r=r, alpha=alpha, targets=targets):
            settings = LoraSettings(r, alpha, targets)
            policy.tune(settings, train_projector=model.train_projector, base_name=model.path, seed=seed)
        case recipe.Full():
            policy.tune(None, train_projector=model.train_projector)
        case other:
            assert_never(other)


def cache_folder(one: recipe.Recipe) -> Path:
    """Where reference log-probs and image features are kept."""
    return one.train.cache or one.output / "cache"


def keep_looks(policy: Policy, one: recipe.Recipe) -> None:
    """Keep what the vision tower makes of pictures where the recipe says. After `tune`, which forgets it.

    On disk, in a folder named after the tower and the processor: what others made is never read.
    """
    match one.train.image_features:
        case "live":
            pass
        case "memory":
            policy.keep_looks(Memory())
        case "disk":
            policy.keep_looks(Disk(cache_folder(one) / "images" / tower_fingerprint(policy)))
        case other:
            assert_never(other)


def rows_folder(one: recipe.Recipe) -> Path:
    """Where what the data files hold is kept while the run goes on."""
    return (one.train.cache or one.output) / "rows"


def examples(one: recipe.Recipe, *, quiet: bool = True) -> Sequence[Pair]:
    """The pairs a source works on. What was done to get them goes to data.json, what was left out to bad_rows.jsonl.

    Answers that will be finished by the model are single answers: a multi-turn row becomes one example per answer.

    Raises:
        UserError: more rows are at fault than the recipe accepts.
    """
    found = read(one.source.data, folder=rows_folder(one), quiet=quiet)
    if isinstance(one.objective, recipe.Dpo) and isinstance(one.source, recipe.Offline):
        found = _comparable(found)
    write_json(one.output / "data.json", {"pairs": len(found.pairs), "steps": found.trail})
    enforce_bad_fraction(
        found.bad, num_rows=found.num_rows, max_bad_fraction=one.max_bad_fraction, log=one.output / "bad_rows.jsonl"
    )
    if not found.pairs:
        raise UserError(f"source.data: found no pair in {found.num_rows} rows; left out: {counted(found.bad)}")
    return views.Singles(found.pairs) if isinstance(one.source, recipe.Generated) else found.pairs


def _comparable(found: Composed) -> Composed:
    """Pairs that have a rejected answer; the others become bad rows."""
    kept, bad = [], list(found.bad)
    for number, pair in enumerate(found.pairs):
        if pair.rejected:
            kept.append(number)
        else:
            detail = f"{pair.prompt.provenance} has nothing to compare with"
            bad.append(BadRow(pair.prompt.provenance, number, "no rejected answer", detail))
    pairs = found.pairs if len(kept) == len(found.pairs) else views.View(found.pairs, kept)
    return Composed(pairs, bad, found.num_rows, found.trail)


def hallucinate(negatives: recipe.Negatives) -> Hallucinate:
    """The negative maker: view x guidance x check."""
    free = Free(negatives.guidance.max_new_tokens) if isinstance(negatives.guidance, recipe.Free) else Free()
    return Hallucinate(
        view=_view(negatives.view),
        guidance=_guidance(negatives.guidance),
        check=_check(negatives.check),
        rounds=negatives.check.rounds if isinstance(negatives.check, recipe.Dissimilar) else 1,
        decoding=Decoding(temperature=negatives.decoding.temperature, top_p=negatives.decoding.top_p),
        free=free,
    )


def origin(negatives: recipe.Negatives) -> str:
    """The name generated pairs carry: `bdhs_attn` for algorithm 1 with the mask, else the three axes."""
    kinds = (negatives.view.kind, negatives.guidance.kind, negatives.check.kind)
    return "bdhs_attn" if kinds == ("masked", "sentence_guided", "dissimilar") else "+".join(kinds)


def online_source(one: recipe.Recipe, rows: Sequence[Pair]) -> Source:
    """A source of pairs. `rows`: examples, or (for a source generated offline) the finished pairs."""
    match one.source:
        case recipe.Generated(when="online", negatives=negatives):
            return Generated(
                rows,
                hallucinate(negatives),
                origin=origin(negatives),
                seed=one.seed,
                batch_size=negatives.batch_size,
            )
        case recipe.Generated() | recipe.Offline():
            return Offline(rows, seed=one.seed)
        case other:
            assert_never(other)


def step(one: recipe.Recipe, policy: Policy, *, stored: StoredReference | None = None) -> Step:
    """The training step. The reference is taken from the policy as it stands now, unless it was `stored` before."""
    match one.objective:
        case recipe.Sft():
            return SftStep(policy)
        case recipe.Dpo(beta=beta, label_smoothing=smoothing):
            return PreferenceStep(policy, stored or _live_reference(one, policy), Dpo(beta, smoothing))
        case other:
            assert_never(other)


def _live_reference(one: recipe.Recipe, policy: Policy) -> Reference:
    mode = one.train.reference
    assert mode != "cached", "log-probs are stored before the step is built"
    if mode == "auto":
        mode = "adapter_off" if policy.has_adapter else "frozen_copy"
    return Reference(policy, mode=mode)


def optimization(train: recipe.Train, *, num_pairs: int) -> Optimization:
    """Steps and learning rates; epochs are counted in steps over `num_pairs`."""
    steps = train.steps
    if steps is None:
        assert train.epochs is not None, "the recipe sets steps or epochs"
        steps = max(1, math.ceil(train.epochs * num_pairs / train.batch_size))
    return Optimization(
        steps=steps,
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        lr=train.lr,
        projector_lr=train.projector_lr,
        warmup_fraction=train.warmup_fraction,
        schedule=train.schedule,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        betas=train.adam_betas,
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
    )


def benchmark(node: recipe.Benchmark) -> Benchmark:
    """What is measured."""
    match node:
        case recipe.Chair():
            return Chair(
                images=node.images, instances=node.instances, captions=node.captions, scenes=node.scenes,
                prompt=node.prompt, limit=node.limit, max_new_tokens=node.max_new_tokens,
            )  # fmt: skip
        case recipe.Pope():
            return Pope(
                images=node.images, instances=node.instances, captions=node.captions, num_images=node.num_images,
                per_image=node.per_image, seed=node.seed, parser=node.parser,
            )  # fmt: skip
        case other:
            assert_never(other)


def _view(node: recipe.Masked | recipe.Clean) -> View:
    match node:
        case recipe.Masked(rho=rho, positions=positions, scope=scope):
            return Masked(rho, positions, scope)
        case recipe.Clean():
            return Clean()
        case other:
            assert_never(other)


def _guidance(node: recipe.SentenceGuided | recipe.Free) -> Guidance:
    match node:
        case recipe.SentenceGuided(yes_no_swap=swap, max_new_tokens=longest):
            return SentenceGuided(swap, longest)
        case recipe.Free(max_new_tokens=longest):
            return Free(longest)
        case other:
            assert_never(other)


def _check(node: recipe.Dissimilar | recipe.Always) -> Check:
    match node:
        case recipe.Dissimilar(encoder=encoder, eps=eps):
            folder = str(files("verisight.pocket") / "assets" / "encoder") if encoder == POCKET else encoder
            return Dissimilar(load_encoder(folder), eps)
        case recipe.Always():
            return Always()
        case other:
            assert_never(other)
