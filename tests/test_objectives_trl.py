"""Losses and gradients are those of TRL's own loss code on the same log-probs, by the benchmark that prints them."""

from pathlib import Path

import pytest

pytest.importorskip("trl")

# TRL 1.16 still uses names that transformers 5.23 calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import objectives_vs_trl

    return objectives_vs_trl


@pytest.mark.parametrize("name", ["DPO", "IPO, mean", "SLiC", "cDPO", "RPO"])
def test_ours_is_theirs(benchmark, name):
    (case,) = [case for case in benchmark.CASES if case.name == name]
    row = benchmark.measure(case, num=20)
    assert row["largest loss"] > 0.5
    assert row["loss difference"] < 1e-12
    assert row["gradient difference"] < 1e-12
    assert row["step difference"] < 1e-4


def test_ipo_over_the_sum_is_another_loss(benchmark):
    row = benchmark.measure(benchmark.CONTROL, num=20)
    assert row["loss difference"] > 1
    assert row["step difference"] > 1
