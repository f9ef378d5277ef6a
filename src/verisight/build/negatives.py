"""Nodes of negatives -> the maker of rejected answers: view x guidance x check."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import assert_never

from verisight import recipe
from verisight.build.annotators import chat
from verisight.models.loading import POCKET
from verisight.negatives.bad_prompt import BadPrompt
from verisight.negatives.bdhs import Hallucinate
from verisight.negatives.checks import Always, Check, Dissimilar
from verisight.negatives.encoders import open_encoder
from verisight.negatives.forced import TokenForced
from verisight.negatives.guidance import Free, Guidance, SentenceGuided
from verisight.negatives.pictures import Blank, Cropped, Noised
from verisight.negatives.pictures_swapped import Swapped
from verisight.negatives.rewrite import Rewrite
from verisight.negatives.views import Clean, Masked, View
from verisight.types import Decoding, Pair, UserError

_ORIGINS = {
    ("masked", "sentence_guided", "dissimilar"): "bdhs_attn",
    ("noised", "sentence_guided", "dissimilar"): "bdhs_noise",
    ("noised", "token_forced", "always"): "povid_distortion",
    ("clean", "rewrite", "always"): "rewrite",
}


def origin(negatives: recipe.Negatives) -> str:
    """The name generated pairs carry: that of a published method, else the three axes."""
    kinds = (negatives.view.kind, negatives.guidance.kind, negatives.check.kind)
    return _ORIGINS.get(kinds, "+".join(kinds))


def hallucinate(negatives: recipe.Negatives, rows: Sequence[Pair], *, folder: Path, seed: int) -> Hallucinate:
    """The negative maker. `rows`: the data set, whose pictures are swapped; `folder`: the run's."""
    guidance = _guidance(negatives.guidance, folder=folder, seed=seed)
    return Hallucinate(
        view=_view(negatives.view, rows),
        guidance=guidance,
        check=_check(negatives.check),
        rounds=negatives.check.rounds if isinstance(negatives.check, recipe.Dissimilar) else 1,
        decoding=Decoding(temperature=negatives.decoding.temperature, top_p=negatives.decoding.top_p),
        free=guidance if isinstance(guidance, Free | Rewrite) else Free(),
    )


def _view(node: recipe.View, rows: Sequence[Pair]) -> View:
    match node:
        case recipe.Masked(rho=rho, positions=positions, scope=scope):
            return Masked(rho, positions, scope)
        case recipe.BadPrompt(texts=texts, place=place, degraded=degraded):
            return BadPrompt(texts, place, degraded)
        case recipe.Clean():
            return Clean()
        case _:
            return picture_view(node, rows)


def picture_view(
    node: recipe.Noised | recipe.Blank | recipe.Cropped | recipe.Swapped, rows: Sequence[Pair]
) -> Noised | Blank | Cropped | Swapped:
    """A view that gives another picture; `rows` has the pictures that are swapped in."""
    match node:
        case recipe.Noised(steps=steps, overflow=overflow):
            return Noised(steps, overflow)
        case recipe.Blank(colour=colour):
            return Blank(colour)
        case recipe.Cropped(low=low, high=high):
            return Cropped(low, high)
        case recipe.Swapped():
            return Swapped(rows)
        case other:
            assert_never(other)


def _guidance(node: recipe.Guidance, *, folder: Path, seed: int) -> Guidance:
    match node:
        case recipe.SentenceGuided(yes_no_swap=swap, max_new_tokens=longest):
            return SentenceGuided(swap, longest)
        case recipe.TokenForced():
            return TokenForced()
        case recipe.Free(max_new_tokens=longest):
            return Free(longest)
        case recipe.Rewrite(chat=writer, retries=retries, shows_image=shows_image):
            return Rewrite(chat(writer, folder=folder, seed=seed), retries=retries, show_image=shows_image)
        case other:
            assert_never(other)


def _check(node: recipe.Dissimilar | recipe.Always) -> Check:
    match node:
        case recipe.Dissimilar(encoder=encoder, threshold=eps):
            folder = str(files("verisight.pocket") / "assets" / "encoder") if encoder == POCKET else encoder
            try:
                return Dissimilar(open_encoder(folder), eps, encoder)
            except UserError as error:
                raise UserError(f"negatives.check.{error}") from error
        case recipe.Always():
            return Always()
        case other:
            assert_never(other)
