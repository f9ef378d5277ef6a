"""Whole runs of nested sources: equal to what they have to be equal to, killed and resumed, looked at, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from small_runs import BDHS, OFFLINE, ONLINE, POVID, loaded, mixed, rows_of, write_small
from user_files import assert_same_weights, weights
from verisight.data.readers import open_data
from verisight.sources.online import Online
from verisight.study import prepare
from verisight.study.run import pairs, train
from verisight.types import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("composed"))


@pytest.fixture(scope="module")
def offline(made: Path) -> Path:
    train(loaded(made, "offline"), quiet=True)
    return made / "offline"


@pytest.mark.parametrize(
    "source",
    [
        mixed(1, ONLINE),
        f"source={{kind: averaged, gamma: 1, source: {OFFLINE}, negatives: {BDHS}}}",
        mixed(1, f"{{kind: mixed, parts: [{{weight: 1, source: {ONLINE}}}, {{weight: 1, source: {OFFLINE}}}]}}"),
    ],
    ids=["mixed p 1", "averaged gamma 1", "nested"],
)
def test_compositions_that_are_offline_train_the_same_weights(made: Path, offline: Path, source: str) -> None:
    folder = made / f"as offline {abs(hash(source))}"
    train(loaded(made, folder.name, source), quiet=True)
    assert_same_weights(folder, offline)
    assert rows_of(folder) == rows_of(offline)


def test_a_mixture_of_all_kinds_trains_and_says_what_came_from_where(made: Path) -> None:
    averaged = f"{{kind: averaged, source: {OFFLINE}, negatives: {BDHS}}}"
    generated = f"{{kind: generated, data: {POVID}, negatives: {BDHS}}}"
    iterated = f"{{kind: iterated, every: 2, source: {ONLINE}}}"
    source = mixed(0.25, averaged, generated, iterated)
    train(loaded(made, "all kinds", source, "train.batch_size=12"), quiet=True)
    rows = rows_of(made / "all kinds")
    origins = {name for row in rows for name in row["origin"]}
    assert origins == {"povid", "povid+masked+sentence_guided+always", "masked+sentence_guided+always", "online"}
    for row in rows:
        assert {name: entry["num"] for name, entry in row["by_origin"].items()} == row["origin"]
    names = {path.name for path in (made / "all kinds").glob("*.parquet")}
    assert names == {"pairs.parts.2.source.parquet"}
    trails = {path.name for path in (made / "all kinds").glob("data*.json")}
    assert trails == {
        f"data.parts.{part}.json" for part in ("0.source", "1.source.source", "2.source", "3.source.source")
    }


@pytest.mark.parametrize(("name", "source"), [("online", f"source={ONLINE}"), ("mixed", mixed(0.5, ONLINE))])
def test_a_killed_run_ends_with_the_weights_of_a_whole_one(
    made: Path, name: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verisight.train import tracking

    class Killed(BaseException):
        pass

    words = (source, "train.checkpoint_every=2")
    train(loaded(made, f"whole {name}", *words), quiet=True)
    write, count = tracking.append_jsonl, 0

    def dying(path: Path, row: dict) -> None:
        nonlocal count
        count += 1
        if count == 4:
            raise Killed
        write(path, row)

    monkeypatch.setattr(tracking, "append_jsonl", dying)
    with pytest.raises(Killed):
        train(loaded(made, f"killed {name}", *words), quiet=True)
    monkeypatch.undo()
    train(loaded(made, f"killed {name}", *words), quiet=True)
    assert_same_weights(made / f"killed {name}", made / f"whole {name}")
    assert rows_of(made / f"killed {name}") == rows_of(made / f"whole {name}")


@pytest.mark.parametrize(
    "source", [ONLINE, f"{{kind: iterated, every: 3, source: {ONLINE}}}"], ids=["online", "iterated"]
)
@pytest.mark.parametrize("dies_in", ["append_jsonl", "write_json"])
def test_online_pairs_can_be_looked_at_and_a_killed_look_continues(
    made: Path, source: str, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{name} {dies_in} {len(source)}" for name in ("looked", "look killed")]
    whole = list(pairs(loaded(made, names[0], f"source={source}"), quiet=True))
    assert {one.origin for one in whole} == {"online"}
    assert whole[0].notes["annotator"].startswith("oracle")
    with monkeypatch.context() as patch:
        real, count = getattr(prepare, dies_in), 0

        def dying(path: Path, row: dict) -> None:
            nonlocal count
            count += 1
            if count == 3:
                raise KeyboardInterrupt
            real(path, row)

        patch.setattr(prepare, dies_in, dying)
        with pytest.raises(KeyboardInterrupt):
            pairs(loaded(made, names[1], f"source={source}"), quiet=True)
    assert list(pairs(loaded(made, names[1], f"source={source}"), quiet=True)) == whole
    assert not list((made / names[1]).glob("drawn.json*"))
    again = [one for outcome in open_data(made / names[0] / "pairs.parquet") for one in outcome.pairs]
    assert again == whole


def test_a_probe_of_an_iterated_source_draws_no_more_than_training_does(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    draw = Online.draw
    monkeypatch.setattr(Online, "draw", lambda self, n, policy: asked.append(n) or draw(self, n, policy))
    source = f"source={{kind: iterated, every: 2, source: {ONLINE}}}"
    train(loaded(made, "probed", source, "diagnose={num: 7, every: 100}", "train.steps=1"), quiet=True)
    assert asked == [6, 2, 6], "3 + 3 + 1 pairs of the probe, two steps ahead; then a step of training"


def test_averaged_pairs_made_beforehand_hold_both_rejected_answers(made: Path) -> None:
    source = f"source={{kind: averaged, when: offline, gamma: 0.25, source: {OFFLINE}, negatives: {BDHS}}}"
    found = list(pairs(loaded(made, "averaged", source), quiet=True))
    assert all(len(one.rejected) == 2 and one.weights == (0.25, 0.75) for one in found)
    train(loaded(made, "averaged", source), quiet=True)
    assert (made / "averaged" / "model").exists()


OBJECTIVES = (
    "{kind: ipo, tau: 0.2}", "{kind: ipo, tau: 1.0, over: mean}", "{kind: slic}", "{kind: calibrated_slic}",
    "{kind: gpo, f: exponential}", "{kind: dpop}", "{kind: rpo}", "{kind: ddpo}",
    "{kind: ddpo, gamma: 1.1, average: false, muffin_compat: true, beta: 0.1}", "{kind: mdpo}",
    "{kind: mdpo, view: {kind: swapped}}",
)  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_from_a_recipe(made: Path, offline: Path, objective: str) -> None:
    folder = made / f"objective {OBJECTIVES.index(objective)}"
    train(loaded(made, folder.name, f"objective={objective}"), quiet=True)
    changed, plain = weights(folder), weights(offline)
    assert any(not bool((changed[name] == plain[name]).all()) for name in plain)


def test_gpo_s_logistic_member_is_dpo_down_to_the_weights(made: Path, offline: Path) -> None:
    train(loaded(made, "gpo", "objective={kind: gpo, f: logistic}"), quiet=True)
    assert_same_weights(made / "gpo", offline)


def test_reference_free_needs_no_second_model(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.build.objectives.Reference", lambda *_, **__: pytest.fail("a reference was made"))
    train(loaded(made, "free", "train.reference=none"), quiet=True)
    train(loaded(made, "calibrated", "objective={kind: calibrated_slic}"), quiet=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([mixed(0.5, ONLINE), "train.reference=cached"], "train.reference: found cached with a source whose pairs"),
        ([mixed(0.5, ONLINE), "objective={kind: sft}"], "source.parts.1.source.kind: found online with objective sft"),
        ([f"source={{kind: iterated, every: 3, source: {OFFLINE}}}"], "of kind offline whose pairs never change"),
        (["objective={kind: mdpo}", "train.reference=cached"], "found cached with objective mdpo"),
        (["objective={kind: ipo, beta: 1}"], "objective.beta"),
        ([f"source={{kind: averaged, when: offline, source: {ONLINE}}}"], "when offline with a source of kind online"),
        ([f"source={{kind: mixed, parts: [{{weight: 0, source: {OFFLINE}}}, {{weight: 0, source: {OFFLINE}}}]}}"],
         "accepted: at least one above 0"),
        ([f"source={{kind: mixed, parts: [{{weight: 1, source: {OFFLINE}}}]}}"], "parts"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_together_is_refused(made: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        loaded(made, "refused", *overrides)
    assert message in str(refused.value)


def test_a_scenes_file_that_is_missing_is_said_before_a_model_opens(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))
    with pytest.raises(UserError, match=r"source\.annotator\.scenes.*none\.json"):
        train(loaded(made, "missing", f"source={ONLINE}", f"source.annotator.scenes={made}/none.json"), quiet=True)


def test_rows_of_several_turns_get_no_second_rejected_answer(made: Path, tmp_path: Path) -> None:
    """They are counted as bad rows."""
    rows = read_jsonl_list(made / "povid.json")
    for row in rows[:2]:
        for name in ("conversations", "rejected_conversations"):
            row[name] += [{"from": "human", "value": "And?"}, {"from": "gpt", "value": f"More {name}."}]
    (made / "turns.json").write_text(json.dumps(rows))
    data = POVID.replace("povid.json", str(made / "turns.json"))
    source = f"source={{kind: averaged, source: {{kind: offline, data: {data}}}, negatives: {BDHS}}}"
    with pytest.raises(UserError, match="several turns: 2"):
        train(loaded(made, "turns", source), quiet=True)


def read_jsonl_list(path: Path) -> list[dict]:
    return json.loads(path.read_text())
