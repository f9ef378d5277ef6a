"""McNemar by hand, and what can be detected against simulated runs."""

from __future__ import annotations

import numpy as np
import pytest

from verisight.evaluate.power import detectable_difference, items_needed, mcnemar
from verisight.evaluate.stats import paired_difference


@pytest.mark.parametrize(
    ("wins", "losses", "both", "p"),
    [
        (0, 0, 5, 1.0),
        (1, 0, 5, 1.0),  # 2 x 1/2
        (5, 0, 0, 2 / 32),
        (0, 5, 9, 2 / 32),
        (6, 1, 0, 2 * (1 + 7) / 128),
        (3, 3, 1, 1.0),
        (8, 2, 0, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_by_hand(wins: int, losses: int, both: int, p: float) -> None:
    a = [False] * wins + [True] * losses + [True] * both
    b = [True] * wins + [False] * losses + [True] * both
    assert mcnemar(a, b) == pytest.approx(p)
    assert mcnemar(b, a) == pytest.approx(p)


def test_mcnemar_of_many_items_is_finite_and_small() -> None:
    a, b = np.zeros(20_000, dtype=bool), np.zeros(20_000, dtype=bool)
    b[:10_400] = True
    a[10_400:] = True
    assert 0 < mcnemar(a, b) < 1e-6


def test_what_is_detectable_is_detected_four_times_in_five() -> None:
    """Two models of 300 items whose right answers differ by the difference that their interval calls detectable."""
    rng = np.random.default_rng(0)
    num, share = 300, 0.6

    def run(gain: float) -> tuple[float | None, float | None]:
        a = rng.random(num) < share
        b = np.where(rng.random(num) < 0.7, a, rng.random(num) < share + gain / 0.3)
        counts = [np.column_stack([x, np.ones(num)]).astype(float) for x in (a, b)]
        found = paired_difference(*counts, range(num), seed=int(rng.integers(1 << 30)), num_resamples=400)
        return found.low, found.high

    widths = [high - low for low, high in (run(0.0) for _ in range(40)) if low is not None and high is not None]
    wanted = detectable_difference(0.0, float(np.mean(widths)))
    hits = sum(low is not None and low > 0 for low, _ in (run(wanted) for _ in range(150)))
    assert 0.7 < hits / 150 < 0.9


def test_four_times_the_items_halve_what_is_detectable() -> None:
    assert items_needed(500, 0.04, 0.02) == 2000
    assert detectable_difference(-0.01, 0.03, power=0.5) == pytest.approx(0.02)
    assert detectable_difference(-0.01, 0.03) == pytest.approx(0.02 * (1.959964 + 0.841621) / 1.959964)
