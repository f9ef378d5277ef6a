"""CHAIR by hand, and the runner: resume, refuse, score again, compare."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from verisight.data.files import read_jsonl
from verisight.evaluate import Chair, Pope, compare, run_benchmark, score_folder
from verisight.evaluate.objects import CATEGORIES
from verisight.evaluate.pope import SPLITS
from verisight.types import UserError

SCENES = {
    1: ("dog", "cat", "car"), 2: ("dog", "cat", "person"), 3: ("dog", "bus", "person"),
    4: ("cup", "bowl", "apple"), 5: ("cup", "bowl", "knife"), 6: ("dog", "kite", "person"), 7: ("cup",),
    8: ("couch", "tv", "cat"),
}  # fmt: skip


@pytest.fixture
def world(tmp_path):
    """Eight pictures in COCO's format with a scenes file; picture 7 holds one object only."""
    folder = tmp_path / "world"
    folder.mkdir()
    ids = {name: at for at, name in enumerate(CATEGORIES)}
    table = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in SCENES],
        "categories": [{"id": at, "name": name} for name, at in ids.items()],
        "annotations": [{"image_id": i, "category_id": ids[name]} for i, held in SCENES.items() for name in held],
    }
    scenes = [
        {
            "image_id": i, "file_name": f"{i}.png", "kind": "street", "usual": ["dog", "car"],
            "objects": [{"name": name, "cell": "top left"} for name in held],
        }
        for i, held in SCENES.items()
    ]  # fmt: skip
    for i in SCENES:
        (folder / f"{i}.png").write_bytes(b"picture")
    (folder / "instances.json").write_text(json.dumps(table))
    (folder / "scenes.json").write_text(json.dumps(scenes))
    return folder


def chair_of(world, **changes):
    return Chair(**{"images": world, "instances": world / "instances.json"} | changes)


def pope_of(world, **changes):
    return Pope(**{"images": world, "instances": world / "instances.json", "num_images": 5} | changes)


class Parrot:
    """A policy that answers by a rule of the prompt, and remembers what it was asked."""

    def __init__(self, rule, *, dies_after=10**9):
        self.rule, self.dies_after, self.asked = rule, dies_after, []

    def sample(self, prompts, *, num=1, decoding, seed):
        assert num == 1
        assert decoding.temperature == 0
        if len(self.asked) + len(prompts) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += prompts
        return [[SimpleNamespace(text=self.rule(p), num_tokens=4, truncated=False)] for p in prompts]


def test_chair_by_hand(world):
    """Mentions 3 + 2 + 0, made up: kite twice and tv; true objects found 1 + 1 + 0 of 3 + 3 + 3."""
    chair = chair_of(world, limit=3)
    answers = ["A dog, a kite and a kite.", "People watch tv.", "Nothing here."]
    rows = [
        {
            "uid": item.uid,
            "cluster": item.cluster,
            "truth": item.truth,
            "answer": answer,
            "truncated": answer[0] == "N",
        }
        for item, answer in zip(chair.items(), answers, strict=True)
    ]
    scored = chair.score(rows)
    assert scored[0]["mentions"][1] == {"name": "kite", "start": 9, "end": 13, "hallucinated": True}
    assert [row["num_true_found"] for row in scored] == [1, 1, 0]
    values = {name: entry["value"] for name, entry in chair.summary(scored).items()}
    assert values == pytest.approx(
        {
            "chair_i": 3 / 5,
            "chair_s": 2 / 3,
            "recall": 2 / 9,
            "length_words": 12 / 3,
            "truncated_fraction": 1 / 3,
        }
    )
    assert chair.summary(scored)["chair_i"]["num"] == 3


def test_chair_with_scenes_adds_position_and_typical(world):
    """Of dog and cat, the dog is right; of car (usual) and kite made up, one is typical."""
    chair = chair_of(world, scenes=world / "scenes.json")
    item = chair.items()[1]
    answer = "A dog in the top left. A cat in the center. A car in the top left. A kite."
    rows = [{"cluster": c, "truth": item.truth, "answer": answer, "truncated": False} for c in "ab"]
    values = chair.summary(chair.score(rows))
    assert values["position_accuracy"]["value"] == 0.5
    assert values["typical_fraction"]["value"] == 0.5
    assert values["chair_i"]["value"] == 0.5


def test_chair_without_mentions_is_undefined_not_zero(world):
    chair = chair_of(world, limit=2)
    rows = [{"cluster": i.cluster, "truth": i.truth, "answer": "", "truncated": False} for i in chair.items()]
    assert chair.summary(chair.score(rows))["chair_i"]["value"] is None


def test_chair_refuses_what_is_not_there(world):
    (world / "3.png").unlink()
    with pytest.raises(UserError, match=r"image 3 is 3\.png, not in"):
        chair_of(world).items()
    with pytest.raises(UserError, match="limit is 0"):
        chair_of(world, limit=0).items()


def test_a_picture_outside_the_folder_is_refused(world):
    table = json.loads((world / "instances.json").read_text())
    (world.parent / "secret.png").write_bytes(b"picture")
    table["images"][0]["file_name"] = "../secret.png"
    (world / "instances.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"secret\.png"):
        chair_of(world).items()


def right_answer(prompt):
    held = SCENES[int(prompt.split_group)]
    return "Yes." if any(f" {name} " in prompt.text for name in held) else "No."


def test_run_writes_rows_and_summary_and_asks_each_question_once(world, tmp_path):
    run, policy = tmp_path / "run", Parrot(right_answer)
    seen = []
    entry = run_benchmark(policy, pope_of(world), folder=run, batch_size=7, progress=lambda *at: seen.append(at))
    rows = read_jsonl(run / "evaluate" / "pope.jsonl")
    assert len(rows) == entry["num_items"] == 3 * 5 * 6
    assert set(rows[0]) == {
        "uid", "cluster", "image", "question", "truth",
        "answer", "num_tokens", "truncated", "said", "correct",
    }  # fmt: skip
    assert [row["truth"]["split"] for row in rows] == [split for split in SPLITS for _ in range(30)]
    assert entry["metrics"]["f1"]["value"] == 1
    assert entry["protocol"] == "official"
    assert json.loads((run / "evaluate" / "summary.json").read_text()) == {"pope": entry}
    questions = {(row["cluster"], row["question"]) for row in rows}
    assert len(policy.asked) == len(questions) < 90
    assert seen[-1] == (90, 90)


def test_a_killed_run_resumes_and_ends_the_same(world, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_benchmark(Parrot(right_answer), pope_of(world), folder=whole, batch_size=7)
    first, second = Parrot(right_answer, dies_after=30), Parrot(right_answer)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(first, pope_of(world), folder=killed, batch_size=7)
    stored = read_jsonl(killed / "evaluate" / "pope.jsonl")
    assert 0 < len(stored) < 90
    with (killed / "evaluate" / "pope.jsonl").open("a") as torn:
        torn.write('{"uid": "pope/ran')
    with pytest.raises(UserError, match="answers are missing"):
        score_folder(pope_of(world), folder=killed)
    run_benchmark(second, pope_of(world), folder=killed, batch_size=7)
    for name in ("pope.jsonl", "summary.json", "pope.json"):
        assert (killed / "evaluate" / name).read_bytes() == (whole / "evaluate" / name).read_bytes()
    asked = [(p.split_group, p.text) for p in first.asked + second.asked]
    assert len(asked) == len(set(asked))


def test_a_run_killed_between_the_copies_of_one_answer_does_not_ask_again(world, tmp_path):
    run_benchmark(Parrot(right_answer), pope_of(world), folder=tmp_path, batch_size=50)
    path = tmp_path / "evaluate" / "pope.jsonl"
    rows = read_jsonl(path)
    shared = Counter((row["cluster"], row["question"]) for row in rows)
    dropped = next(at for at, row in enumerate(rows) if shared[row["cluster"], row["question"]] > 1)
    path.write_text("".join(json.dumps(row) + "\n" for at, row in enumerate(rows) if at != dropped))
    policy = Parrot(right_answer)
    run_benchmark(policy, pope_of(world), folder=tmp_path, batch_size=50)
    assert not policy.asked
    assert read_jsonl(path) == rows


def test_two_benchmarks_share_a_folder_and_a_finished_one_is_not_asked_again(world, tmp_path):
    policy = Parrot(lambda prompt: "A dog and a cup.")
    run_benchmark(policy, chair_of(world), folder=tmp_path, batch_size=3)
    run_benchmark(policy, pope_of(world), folder=tmp_path, batch_size=3)
    num = len(policy.asked)
    again = run_benchmark(policy, chair_of(world), folder=tmp_path, batch_size=3)
    assert len(policy.asked) == num
    summary = json.loads((tmp_path / "evaluate" / "summary.json").read_text())
    assert set(summary) == {"chair", "pope"}
    assert summary["chair"] == again


def test_another_benchmark_is_refused_and_another_parser_is_scored_again(world, tmp_path):
    run_benchmark(Parrot(lambda prompt: "NO"), pope_of(world), folder=tmp_path, batch_size=50)
    for other in (pope_of(world, seed=3), pope_of(world, max_new_tokens=9), pope_of(world, suffix="!")):
        with pytest.raises(UserError, match=r"pope\.jsonl: holds 90 answers made with other questions"):
            run_benchmark(Parrot(right_answer), other, folder=tmp_path, batch_size=50)
    official = json.loads((tmp_path / "evaluate" / "summary.json").read_text())["pope"]
    corrected = score_folder(replace(pope_of(world), parser="corrected"), folder=tmp_path)
    assert official["metrics"]["random/yes_fraction"]["value"] == 1
    assert corrected["metrics"]["random/yes_fraction"]["value"] == 0


def test_compare_names_the_better_run_and_stays_quiet_on_equal_ones(world, tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    truthful = Parrot(lambda prompt: f"A picture of a {SCENES[int(prompt.split_group)][0]}")
    run_benchmark(Parrot(lambda prompt: "A zebra and a toaster"), chair_of(world), folder=a, batch_size=8)
    for folder in (b, c):
        run_benchmark(truthful, chair_of(world), folder=folder, batch_size=8)
    found = compare(a, b)["chair"]
    assert found["chair_i"]["value"] == -1
    assert found["chair_i"]["verdict"] == "better"
    assert found["recall"]["verdict"] == "better"
    assert found["length_words"]["verdict"] == "can't tell"
    assert compare(b, a)["chair"]["chair_s"]["verdict"] == "worse"
    assert {row["verdict"] for row in compare(b, c)["chair"].values()} == {"can't tell"}


def test_compare_refuses_runs_of_different_questions(world, tmp_path):
    for folder, limit in ((tmp_path / "a", 4), (tmp_path / "b", 5)):
        run_benchmark(Parrot(right_answer), chair_of(world, limit=limit), folder=folder, batch_size=8)
    with pytest.raises(UserError, match="chair was run with different questions"):
        compare(tmp_path / "a", tmp_path / "b")
