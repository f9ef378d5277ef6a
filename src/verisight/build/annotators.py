"""Nodes of chat models and annotators -> live ones."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import assert_never

from verisight import recipe
from verisight.build.models import open_model, open_reward
from verisight.chat.endpoint import Endpoint, Limits, Prices
from verisight.chat.http import HttpChat
from verisight.chat.local import LocalChat
from verisight.judges.likelihood import LikelihoodAnnotator
from verisight.judges.oracle import OracleAnnotator
from verisight.judges.rewarded import RewardAnnotator
from verisight.judges.rewards import FunctionRewarder
from verisight.judges.vlm import ChatAnnotator
from verisight.models.ranks import ranks
from verisight.models.reward import read_head
from verisight.pocket.known import KnownScenes
from verisight.pocket.scribe import Scribe
from verisight.types import Annotator, Chat, Decoding, UserError


def check_chats(one: recipe.Recipe) -> None:
    """Refuse what a chat model or an oracle cannot work with, before anything is written or a model opens.

    Raises:
        UserError: an address or key that cannot be used, or a scenes file that is none.
    """
    for key, node in recipe.walk(one):
        try:
            if isinstance(node, recipe.Http):
                _endpoint(node).key()
            elif isinstance(node, recipe.Oracle | recipe.OracleReward | recipe.Scribe):
                KnownScenes(node.scenes)
            elif isinstance(node, recipe.Rewarded | recipe.ModelReward):
                read_head(Path(node.path))
            elif isinstance(node, recipe.PythonReward):
                FunctionRewarder(node.target)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _endpoint(node: recipe.Http) -> Endpoint:
    return Endpoint(node.url, node.model, node.key_env, node.timeout, node.served_as, node.tokens_field)


@lru_cache(maxsize=8)
def chat(node: recipe.Http | recipe.Local | recipe.Scribe, *, folder: Path, seed: int) -> Chat:
    """A chat model. Answers over HTTP and what they cost are kept in `folder`/chat, for each model apart."""
    match node:
        case recipe.Http():
            prices = None
            if node.prompt_price is not None and node.completion_price is not None:
                prices = Prices(node.prompt_price, node.completion_price)
            return HttpChat(
                _endpoint(node),
                folder=folder
                / "chat"
                / ranks().own(hashlib.sha256(f"{node.url} {node.model}".encode()).hexdigest()[:12]),
                decoding=Decoding(node.max_new_tokens, node.temperature),
                limits=Limits(node.retries, node.concurrency, node.requests_per_minute),
                prices=prices,
                seed=seed,
            )
        case recipe.Local():
            opened = recipe.Model(path=node.path, dtype=node.dtype, trust_remote_code=node.trust_remote_code)
            decoding = Decoding(node.max_new_tokens, node.temperature)
            return LocalChat(open_model(opened), name=node.path, decoding=decoding, seed=seed)
        case recipe.Scribe(scenes=scenes, noise=noise):
            return Scribe(scenes, noise=noise, seed=seed)
        case other:
            assert_never(other)


@lru_cache(maxsize=8)
def annotator(node: recipe.Annotator, *, folder: Path, seed: int) -> Annotator:
    """Who compares answers. Asked again for the same, it is the same one: a judge is loaded once."""
    match node:
        case recipe.Oracle(scenes=scenes, noise=noise):
            return OracleAnnotator(scenes, noise=noise, seed=seed)
        case recipe.Likelihood(path=path, both_orders=both_orders, tie_margin=tie_margin):
            opened = recipe.Model(path=path, dtype=node.dtype, trust_remote_code=node.trust_remote_code)
            return LikelihoodAnnotator(open_model(opened), name=path, both_orders=both_orders, tie_margin=tie_margin)
        case recipe.Rewarded(path=path, dtype=dtype, tie_margin=tie_margin):
            return RewardAnnotator(open_reward(recipe.Model(path=path, dtype=dtype)), name=path, tie_margin=tie_margin)
        case recipe.Judge(chat=model, both_orders=both_orders):
            return ChatAnnotator(chat(model, folder=folder, seed=seed), both_orders=both_orders)
        case other:
            assert_never(other)
