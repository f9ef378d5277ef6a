"""What the report shows of RLOO and PPO: panels, rewards over sqrt(KL), and when it says that a reward is hacked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from test_report import Page, answers_of, png
from verisight.data.files import write_json, write_jsonl
from verisight.evaluate import Chair, run_benchmark
from verisight.study import hacking
from verisight.study.report import Arm, collect, write_report
from verisight.train.tracking import flatten

EVIL = "<script>1</script> & co"
TRAIN = {
    "reward": 0.1, "kl_sum": 2.0, "answer_tokens": 20.0, "repetition": 0.02, "truncated_fraction": 0.0, "entropy": 1.5,
    "clipped_fraction": 0.1, "value_loss": 0.3, "drawn": {"beta": 0.1, "explained_variance": -0.2},
}  # fmt: skip
ADDED = {"Reward", "Entropy a token", "Ratios clipped", "Value loss", "Value function", "Repetition and cut-off"}


def look(step: int, *, reward: float, gold: float, **changed: Any) -> dict[str, Any]:
    rated = {"train_reward": reward, "train_reward_se": 0.1, "gold_reward": gold, "gold_reward_se": 0.1}
    told = {"kl_sum": step / 4, "kl_sum_se": 0.1, "tokens": 20.0 + step, "words": 15.0, "repetition": 0.01 * step}
    return {"step": step, "split": "probe", "samples": rated | told | changed}


HACKED = [look(0, reward=0, gold=0), look(4, reward=1, gold=0.5), look(8, reward=2, gold=-1)]


def flat(*rows: dict[str, Any]) -> list[dict[str, float]]:
    return [flatten(row) for row in rows]


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> list[Arm]:
    """Two evaluated models without a training."""
    root = tmp_path_factory.mktemp("rl")
    for i in range(4):
        (root / f"{i}.png").write_bytes(png())
    write_json(
        root / "instances.json",
        {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
            "categories": [{"id": 0, "name": "dog"}],
            "annotations": [{"image_id": i, "category_id": 0} for i in range(4)],
        },
    )
    made = [Arm("base", root / "base"), Arm(EVIL, root / "rl")]
    for arm in made:
        chair = Chair(images=root, instances=root / "instances.json")
        run_benchmark(answers_of(lambda i: "A dog."), chair, folder=arm.folder, batch_size=4)
    return made


def trained(arms: list[Arm], columns: dict[str, Any], looks: list[dict[str, Any]]) -> list[Arm]:
    rows = [{"step": s, "split": "train", "loss": 1.0, "origin": {"rollouts": 4}} | columns for s in range(1, 9)]
    write_jsonl(arms[1].folder / "metrics.jsonl", [*rows, *looks])
    return arms


def test_a_run_of_ppo_shows_its_panels_its_paths_and_a_caution_and_escapes(arms: list[Arm], tmp_path: Path) -> None:
    both = trained(arms, TRAIN, HACKED)
    [training] = collect(both, images=None).trainings
    assert {chart.title for chart in training.charts} >= ADDED
    assert [len(path.looks) for path in training.paths] == [3, 3, 3, 3]
    text = write_report(both, target=tmp_path / "r.html", title="RL").read_text()
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert f"{EVIL}: the reward it is trained on rose from 0 to 2" in "".join(page.texts)
    told = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "√KL" in attrs["aria-label"]]
    names = ("reward it is trained on", "gold reward, not trained on", "length", "repeated 4-grams")
    assert len({one.partition(":")[2] for one in told}) == 4
    assert [one.split(":")[0] for one in told] == [f"{EVIL}, {name}" for name in names]
    assert "http:" not in text


@pytest.mark.parametrize("looks", [[], [{"step": s, "split": "probe", "samples": {"kl_sum": s, "tokens": 9.0,
                                         "words": 9.0, "repetition": 0.0}} for s in (0, 8)]])  # fmt: skip
def test_a_run_without_rewards_shows_nothing_new(arms: list[Arm], looks: list[Any], tmp_path: Path) -> None:
    both = trained(arms, {"margin_mean": 1.0}, looks)
    report = collect(both, images=None)
    [training] = report.trainings
    assert not ADDED & {chart.title for chart in training.charts}
    assert (training.paths, training.caution) == ((), None)
    assert "Gao" not in write_report(both, target=tmp_path / "r.html", title="DPO").read_text()


def test_a_path_is_over_the_root_of_the_kl_and_leaves_out_what_is_no_number() -> None:
    rows = [
        *HACKED,
        look(9, reward=math.nan, gold=-2),
        look(12, reward=9, gold=9, kl_sum=math.nan),
        look(16, reward=3, gold=-2, kl_sum=-0.5),
        {"step": 17},
    ]
    trained_on, gold, *_ = hacking.paths(flat(*rows))
    assert [(one.step, one.distance, one.value) for one in trained_on.looks] == [
        (0, 0.0, 0), (4, 1.0, 1), (8, math.sqrt(2), 2), (16, 0.0, 3),
    ]  # fmt: skip
    assert [one.step for one in gold.looks] == [0, 4, 8, 9, 16]
    assert gold.looks[0].error == pytest.approx(0.196)
    gold_only = [{"step": s, "samples": {"gold_reward": 1.0, "kl_sum": 1.0}} for s in (0, 1)]
    assert [path.title for path in hacking.paths(flat(*gold_only))] == ["Gold reward, not trained on"]


@pytest.mark.parametrize(
    ("reward", "gold", "changed", "hacked"),
    [
        (2.0, -1.0, {}, True),
        (2.0, 1.0, {}, False),
        (-1.0, -1.0, {}, False),
        (0.27, -1.0, {}, False),  # 1.96 x sqrt(2) x 0.1 = 0.277
        (0.28, -0.28, {}, True),
        (2.0, -0.27, {}, False),
        (2.0, -1.0, {"gold_reward_se": None}, False),
    ],
)
def test_hacked_is_said_only_beyond_chance(reward: float, gold: float, changed: dict[str, Any], hacked: bool) -> None:
    rows = flat(look(0, reward=0, gold=0), look(8, reward=reward, gold=gold, **changed))
    assert (hacking.caution(rows) is not None) == hacked
    assert hacking.caution(rows[:1]) is None


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(numbers, numbers, st.floats(0, 1e3)), min_size=2, max_size=6))
def test_drawings_stay_inside_their_frame(values: list[tuple[float, float, float]]) -> None:
    looks = tuple(hacking.Look(s, abs(x) ** 0.5, y, error) for s, (x, y, error) in enumerate(values))
    root = ElementTree.fromstring(hacking.drawing(hacking.Path("<&>", "reward", looks), title="<&>"))
    _, _, width, height = map(float, root.get("viewBox", "").split())
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter("circle")]
    assert len(dots) == len(looks)
    assert all(0 < x < width and 0 < y < height for x, y in dots)
    ends = [(float(line.get("x1", "")), float(line.get("y1", ""))) for line in root.iter("line")]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in ends)
    assert root.get("aria-label", "").startswith("<&>: from ")
