"""Effects over seeds and items: against closed forms, simulation, and the package's other interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from verisight.evaluate.paired import ScoredRun
from verisight.evaluate.stats import ratio_measure, seed_and_cluster_difference
from verisight.studies.effects import NUM_RESAMPLES, Resampler, Spread, effects, spread, verdict


def run_of(right: np.ndarray, clusters: list[str] | None = None) -> ScoredRun:
    uids = [f"q{at}" for at in range(len(right))]
    ones = [1.0] * len(right)
    measures = {"share": ratio_measure(right.astype(float).tolist(), ones, better="higher")}
    return ScoredRun(uids, clusters or uids, measures)


def picked(resampler: Resampler, runs: list[ScoredRun]) -> list[tuple[float, np.ndarray]]:
    found = [resampler("bench", run) for run in runs]
    return [(one.values["share"], one.resampled["share"]) for one in found]


def drawn(rng: np.random.Generator, share: float, num: int = 200) -> np.ndarray:
    return rng.random(num) < share


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_the_interval_is_that_of_seed_and_cluster_difference(num_seeds: int) -> None:
    rng = np.random.default_rng(3)
    ours = [run_of(drawn(rng, 0.6 + 0.02 * seed)) for seed in range(num_seeds)]
    base = run_of(drawn(rng, 0.4))
    resampler = Resampler()
    found = spread(picked(resampler, ours), picked(resampler, [base] * num_seeds))
    counts = [run.measures["share"].counts for run in ours]
    other = seed_and_cluster_difference(
        [base.measures["share"].counts] * num_seeds, counts, base.clusters, seed=5, num_resamples=20_000
    )
    assert found.value == pytest.approx(other.value)
    assert found.low is not None
    assert found.high is not None
    assert other.low is not None
    assert other.high is not None
    assert found.low == pytest.approx(other.low, abs=0.05 * (other.high - other.low))
    assert found.high == pytest.approx(other.high, abs=0.05 * (other.high - other.low))


def test_without_items_luck_the_p_value_is_students() -> None:
    constant = np.zeros(NUM_RESAMPLES)
    values = [0.10, 0.14, 0.18]
    found = spread([(value, constant + float(np.mean(values))) for value in values])
    statistic = 0.14 / (np.std(values, ddof=1) / 3**0.5)
    assert found.p_value == pytest.approx(2 * student.sf(statistic, 2), rel=1e-6)


def test_p_value_and_interval_agree_about_zero() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        resampler = Resampler()
        share = rng.uniform(0.4, 0.6)
        ours = picked(resampler, [run_of(drawn(rng, share)) for _ in range(3)])
        base = picked(resampler, [run_of(drawn(rng, 0.5))] * 3)
        found = spread(ours, base)
        assert found.low is not None
        assert found.high is not None
        assert found.p_value is not None
        if not 0.03 < found.p_value < 0.08:
            assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_an_effect_that_is_not_there_is_rarely_found() -> None:
    """Seeds and items both scatter; the truth is 0: at most about one in twenty p-values is below 0.05."""
    rng = np.random.default_rng(1)
    below = 0
    for _ in range(200):
        resampler = Resampler()
        seeds = [run_of(drawn(rng, np.clip(0.5 + rng.normal(0, 0.05), 0, 1), 100)) for _ in range(6)]
        found = spread(picked(resampler, seeds[:3]), picked(resampler, seeds[3:]))
        below += (found.p_value or 1.0) < 0.05
    assert below <= 20


def test_two_seeds_prove_less_than_five() -> None:
    rng = np.random.default_rng(2)
    runs = [run_of(drawn(rng, 0.6, 2000)) for _ in range(5)]
    resampler = Resampler()
    two, five = (spread(picked(resampler, runs[:num]), 0.5) for num in (2, 5))
    assert (two.high or 0) - (two.low or 0) > (five.high or 0) - (five.low or 0)


def test_clusters_are_resampled_whole() -> None:
    right = np.repeat([True, False] * 10, 10)
    alone, together = Resampler(), Resampler()
    apart = spread(picked(alone, [run_of(right)]))
    whole = spread(picked(together, [run_of(right, [str(at // 10) for at in range(200)])]))
    assert (whole.high or 0) - (whole.low or 0) > 2.5 * ((apart.high or 0) - (apart.low or 0))


def test_the_same_items_get_the_same_resamples() -> None:
    resampler = Resampler()
    one, two = (resampler("bench", run_of(np.arange(5) < 3)) for _ in range(2))
    other = resampler("bench", run_of(np.arange(6) < 3))
    assert (one.resampled["share"] == two.resampled["share"]).all()
    assert one.items == two.items != other.items


def test_an_undefined_metric_has_no_interval() -> None:
    nothing = np.full(NUM_RESAMPLES, np.nan)
    assert spread([(float("nan"), nothing)] * 2) == Spread(None, None, None, None, (None, None))


def test_holm_is_over_the_whole_family() -> None:
    one = Spread(0.1, 0.02, 0.18, 0.02, ())
    alone, *_ = effects([(one, "higher")])
    assert (alone.verdict, alone.p_holm) == ("better", 0.02)
    first, *_ = effects([(one, "higher")] + [(Spread(0.0, -1.0, 1.0, 0.9, ()), "higher")] * 2)
    assert first.p_holm == pytest.approx(0.06)
    assert first.verdict == "can't tell"


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "better", "told"),
    [
        (0.1, 0.05, 0.2, 0.01, "higher", "better"),
        (0.1, 0.05, 0.2, 0.01, "lower", "worse"),
        (-0.1, -0.2, -0.05, 0.01, "lower", "better"),
        (0.1, 0.05, 0.2, 0.01, "neutral", "higher"),
        (-0.1, -0.2, -0.05, 0.01, "neutral", "lower"),
        (0.1, -0.01, 0.2, 0.01, "higher", "can't tell"),
        (0.1, 0.05, 0.2, 0.06, "higher", "can't tell"),
        (0.1, None, None, None, "higher", "can't tell"),
        (None, None, None, None, "higher", "not measured"),
    ],
)
def test_verdicts_are_no_stronger_than_interval_and_p(value, low, high, p, better, told) -> None:
    assert verdict(Spread(value, low, high, p, ()), p, better) == told
