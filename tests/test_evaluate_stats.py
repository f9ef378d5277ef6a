"""Intervals cover, pairs cancel, and edge cases give no false certainty."""

import numpy as np
import pytest

from verisight.evaluate.stats import (
    bootstrap_statistic,
    cluster_bootstrap,
    holm,
    paired_difference,
    ratio,
    seed_and_cluster_difference,
)


def clustered_rates(rng, *, num_clusters=80, size=6, rate=0.3):
    """Yes/no outcomes whose rate varies by cluster (Beta with the given mean), and their cluster labels."""
    rates = rng.beta(2 * rate, 2 * (1 - rate), num_clusters)
    outcomes = (rng.random((num_clusters, size)) < rates[:, None]).astype(float).ravel()
    return outcomes, np.repeat(np.arange(num_clusters), size).tolist()


def test_interval_covers_the_truth_when_clustered_and_not_when_items_are_taken_as_independent():
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for trial in range(120):
        outcomes, clusters = clustered_rates(rng)
        ones = np.ones_like(outcomes)
        for at, labels in enumerate((clusters, list(range(len(clusters))))):
            found = cluster_bootstrap(outcomes, ones, labels, seed=trial, num_resamples=300)
            covered[at] += found.low <= 0.3 <= found.high
    clustered, independent = covered / 120
    assert 0.89 <= clustered <= 0.99
    assert independent < 0.8


def test_same_distribution_as_drawing_clusters_in_a_loop():
    rng = np.random.default_rng(1)
    items = [(float(rng.integers(0, 3)), float(rng.integers(3, 6)), f"image {rng.integers(12)}") for _ in range(40)]
    numerator, denominator, clusters = zip(*items, strict=True)
    names = sorted(set(clusters))
    values = []
    for _ in range(4000):
        drawn = [names[i] for i in rng.integers(0, len(names), len(names))]
        chosen = [item for name in drawn for item in items if item[2] == name]
        values.append(sum(i[0] for i in chosen) / sum(i[1] for i in chosen))
    found = cluster_bootstrap(numerator, denominator, clusters, seed=0, num_resamples=4000)
    assert found.value == pytest.approx(sum(numerator) / sum(denominator))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.01)
    assert found.num == 40


def test_interval_is_reproducible_and_does_not_depend_on_cluster_names():
    outcomes, clusters = clustered_rates(np.random.default_rng(2))
    ones = np.ones_like(outcomes)
    first = cluster_bootstrap(outcomes, ones, clusters, seed=5)
    assert first == cluster_bootstrap(outcomes, ones, [f"x{c}" for c in clusters], seed=5)
    assert first != cluster_bootstrap(outcomes, ones, clusters, seed=6)


def test_large_samples_are_resampled_in_chunks_without_changing_the_answer(monkeypatch):
    outcomes, clusters = clustered_rates(np.random.default_rng(3))
    ones = np.ones_like(outcomes)
    whole = cluster_bootstrap(outcomes, ones, clusters, seed=0)
    monkeypatch.setattr("verisight.evaluate.stats._CHUNK_CELLS", 1000)
    assert cluster_bootstrap(outcomes, ones, clusters, seed=0) == pytest.approx(whole)


def test_undefined_metric_has_no_value():
    assert cluster_bootstrap([0, 0], [0, 0], ["a", "b"], seed=0)[:3] == (None, None, None)


def test_a_single_cluster_has_no_interval():
    assert cluster_bootstrap([1, 0], [1, 1], ["a", "a"], seed=0)[:3] == (0.5, None, None)


def test_nothing_seen_is_not_proof_of_zero():
    """0 of 20 images: the exact 97.5 % bound is 1 - 0.025^(1/20) = 0.1684."""
    none = cluster_bootstrap([0] * 20, [1] * 20, range(20), seed=0)
    assert none[:3] == (0.0, 0.0, pytest.approx(0.1684, abs=1e-4))
    all_of_them = cluster_bootstrap([1] * 20, [1] * 20, range(20), seed=0)
    assert all_of_them[:3] == (1.0, pytest.approx(0.8316, abs=1e-4), 1.0)
    lengths = cluster_bootstrap([1] * 20, [1] * 20, range(20), seed=0, fraction=False)
    assert lengths[:3] == (1.0, 1.0, 1.0)


def test_any_function_of_summed_counts():
    """Three counts, sum (4, 2, 6): (4 - 2) / 6."""
    counts = np.array([[1.0, 0, 2], [3, 2, 4]])
    found = bootstrap_statistic(counts, lambda s: (s[:, 0] - s[:, 1]) / s[:, 2], ["a", "b"], seed=0)
    assert found.value == pytest.approx(1 / 3)
    assert found.low <= found.value <= found.high


def paired_runs(rng, *, gain, num_clusters=60):
    """Two runs that share most of what makes an image hard; b is right `gain` more often."""
    base = rng.random((num_clusters, 4)) < rng.beta(2, 2, num_clusters)[:, None]
    lifted = base | (rng.random(base.shape) < gain)
    clusters = np.repeat(np.arange(num_clusters), 4).tolist()
    return *(np.column_stack([run.ravel(), np.ones(run.size)]).astype(float) for run in (base, lifted)), clusters


def test_paired_difference_sees_what_two_intervals_hide():
    a, b, clusters = paired_runs(np.random.default_rng(4), gain=0.1)
    alone_a, alone_b = (cluster_bootstrap(*run.T, clusters, seed=0) for run in (a, b))
    assert alone_a.high > alone_b.low
    found = paired_difference(a, b, clusters, seed=0)
    assert found.value == pytest.approx(alone_b.value - alone_a.value)
    assert found.low > 0
    assert found.p_value < 0.01
    back = paired_difference(b, a, clusters, seed=0)
    assert back.value == pytest.approx(-found.value)


def test_equal_runs_do_not_differ():
    a, _, clusters = paired_runs(np.random.default_rng(5), gain=0.1)
    assert paired_difference(a, a, clusters, seed=0) == (0.0, 0.0, 0.0, 240, 1.0)


def test_p_value_is_not_small_by_itself():
    """With no real difference, p is below 0.1 in about a tenth of the trials."""
    rng = np.random.default_rng(6)
    small = 0
    for trial in range(200):
        a, b = (np.column_stack([rng.random(30) < 0.5, np.ones(30)]).astype(float) for _ in range(2))
        small += paired_difference(a, b, range(30), seed=trial, num_resamples=200).p_value < 0.1
    assert small / 200 < 0.15


def test_three_images_prove_nothing():
    """All three improve; of the 8 ways to swap, 2 are as extreme: p is about 1/4."""
    a, b = (np.column_stack([np.full(3, value), np.ones(3)]) for value in (0.0, 1.0))
    assert paired_difference(a, b, "xyz", seed=0).p_value == pytest.approx(0.25, abs=0.05)


def test_seed_spread_widens_the_interval():
    rng = np.random.default_rng(7)
    a, b, clusters = paired_runs(rng, gain=0.1)
    agree = seed_and_cluster_difference([a] * 4, [b] * 4, clusters, seed=0)
    plain = paired_difference(a, b, clusters, seed=0)
    assert agree.value == pytest.approx(plain.value)
    assert agree.high - agree.low == pytest.approx(plain.high - plain.low, rel=0.15)
    varied = [paired_runs(np.random.default_rng(7), gain=g)[1] for g in (0.0, 0.1, 0.3, 0.5)]
    spread = seed_and_cluster_difference([a] * 4, varied, clusters, seed=0)
    assert spread.high - spread.low > 2 * (agree.high - agree.low)
    assert spread.low < spread.value < spread.high


def test_seed_interval_covers_the_truth():
    """Each seed's true gain is N(0.1, 0.1^2); the interval is about their mean, 0.1."""
    rng = np.random.default_rng(8)
    clusters, covered = list(range(100)), 0
    for trial in range(100):
        gains = rng.normal(0.1, 0.1, 3)
        pairs = [(rng.normal(0, 0.2, 100), rng.normal(gain, 0.2, 100)) for gain in gains]
        a, b = ([np.column_stack([pair[side], np.ones(100)]) for pair in pairs] for side in (0, 1))
        found = seed_and_cluster_difference(a, b, clusters, seed=trial, num_resamples=300)
        covered += found.low <= 0.1 <= found.high
    assert 90 <= covered <= 99


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1 are 0.03, 0.04, 0.04."""
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_ratio_of_nothing_is_nan():
    assert np.isnan(ratio(np.array([[1.0, 0.0]]))).all()
