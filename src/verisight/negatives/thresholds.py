"""The similarity thresholds that go with sentence encoders."""

from __future__ import annotations

MPNET = "sentence-transformers/all-mpnet-base-v2"
MINILM = "all-MiniLM-L6-v2"
POCKET = "pocket"

# Below which cosine similarity an answer differs from its reference. all-mpnet-base-v2: the paper's. The others: where
# the same share of one-word corruptions passes as there (benchmarks/encoder_thresholds.py), of everyday descriptions
# for all-MiniLM-L6-v2, of pocket captions for the pocket encoder.
EPS = {MPNET: 0.97, MINILM: 0.97, f"sentence-transformers/{MINILM}": 0.97, POCKET: 0.92}


def recommended_eps(encoder: str) -> float | None:
    """The threshold that goes with an encoder, in [-1, 1]; None where nobody measured one."""
    return EPS.get(encoder)
