"""Benchmarks: questions with known answers, pure scorers, and numbers with intervals. No torch in here."""

from verisight.evaluate.chair import Chair
from verisight.evaluate.paired import compare, read_scored
from verisight.evaluate.pope import Pope
from verisight.evaluate.runner import run_benchmark, score_folder

__all__ = ["Chair", "Pope", "compare", "read_scored", "run_benchmark", "score_folder"]
