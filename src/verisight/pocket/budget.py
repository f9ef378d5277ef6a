"""What the demo's alignment runs may spend, so that the instrument is checked at the budget it is used with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """Preference scenes (two rows each), optimizer steps of `batch_size` rows, peak learning rate."""

    scenes: int = 600
    steps: int = 120
    batch_size: int = 16
    lr: float = 1e-4
