"""Settings of objectives, sources and annotators reach the objects they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import pair
from verisight import recipe
from verisight.build.negatives import hallucinate, origin
from verisight.build.objectives import _reduction, objective
from verisight.build.sources import source
from verisight.data.segments import Segments
from verisight.negatives.bad_prompt import BadPrompt
from verisight.negatives.forced import TokenForced
from verisight.negatives.pictures import Blank, Cropped, Noised
from verisight.negatives.pictures_swapped import Swapped
from verisight.pocket.datasets import write_split
from verisight.train import preference as live
from verisight.types import Decoding, UserError

OBJECTIVES = [
    (recipe.Dpo(beta=0.3, label_smoothing=0.2), live.Dpo(0.3, 0.2), live.Sum()),
    (recipe.Ipo(tau=0.4), live.Ipo(0.4), live.Sum()),
    (recipe.Ipo(tau=0.9, over="mean"), live.Ipo(0.9), live.Mean()),
    (recipe.Slic(beta=0.02), live.Slic(0.02), live.Sum()),
    (recipe.CalibratedSlic(delta=2.0, sft_weight=0.7), live.CalibratedSlic(2.0, 0.7), live.Sum()),
    (recipe.Gpo(beta=0.6, f="exponential"), live.Gpo(0.6, "exponential"), live.Sum()),
    (recipe.Dpop(beta=0.7, penalty=3.0), live.Dpop(0.7, 3.0), live.Sum()),
    (recipe.Rpo(beta=0.8, sft_weight=0.2), live.Rpo(0.8, 0.2), live.Sum()),
    (recipe.Reward(center=0.3, margin=0.2), live.Reward(0.3, 0.2), live.Sum()),
    (
        recipe.Mdpo(beta=0.9, delta=0.1, image_weight=0.2, anchor_weight=0.3),
        live.Mdpo(0.9, 0.1, 0.2, 0.3),
        live.Sum(),
    ),
    (recipe.Ddpo(beta=0.4, gamma=2.0, average=False, muffin_compat=True), live.Dpo(0.4),
     live.Segmented(Segments(2.0, False, True))),
]  # fmt: skip


@pytest.mark.parametrize(("node", "expected", "reduction"), OBJECTIVES, ids=range(len(OBJECTIVES)))
def test_every_setting_of_an_objective(node, expected, reduction):
    assert objective(node) == expected
    assert _reduction(node) == reduction


def test_every_objective_is_in_the_table():
    kinds = {node.kind for node, *_ in OBJECTIVES}
    assert kinds | {"sft", "rloo", "ppo"} == set(
        recipe.json_schema()["properties"]["objective"]["discriminator"]["mapping"]
    )


VIEWS = [
    (recipe.Noised(steps=7, overflow="wrap"), Noised(7, "wrap")),
    (recipe.Blank(colour="mean"), Blank("mean")),
    (recipe.Cropped(low=0.1, high=0.3), Cropped(0.1, 0.3)),
    (
        recipe.BadPrompt(texts=("What else?",), place="instead", degraded=0.5),
        BadPrompt(("What else?",), "instead", 0.5),
    ),
]


@pytest.mark.parametrize(("node", "expected"), VIEWS, ids=range(len(VIEWS)))
def test_every_setting_of_a_view(node, expected, tmp_path):
    negatives = recipe.Negatives(view=node, check=recipe.Always())
    assert hallucinate(negatives, [], folder=tmp_path, seed=0).view == expected


def test_swapped_draws_from_the_rows(tmp_path):
    rows = [pair(i) for i in range(3)]
    negatives = recipe.Negatives(view=recipe.Swapped(), check=recipe.Always())
    assert hallucinate(negatives, rows, folder=tmp_path, seed=0).view == Swapped(rows)


def test_token_forced_and_the_names_of_published_methods(tmp_path):
    node = recipe.Negatives(view=recipe.Noised(), guidance=recipe.TokenForced(), check=recipe.Always())
    assert hallucinate(node, [], folder=tmp_path, seed=0).guidance == TokenForced()
    assert origin(node) == "povid_distortion"
    assert origin(recipe.Negatives()) == "bdhs_attn"
    assert origin(recipe.Negatives(view=recipe.Noised())) == "bdhs_noise"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    return write_split(folder, "preference", num=3) / "scenes.json"


def tree(source: dict, tmp_path: Path) -> recipe.Recipe:
    return recipe.Recipe.model_validate(
        {
            "output": tmp_path / "run", "model": {"path": "pocket"}, "source": source, "objective": {"kind": "dpo"},
            "train": {"steps": 1}, "seed": 5,
        }
    )  # fmt: skip


def rows_of(one: recipe.Recipe) -> dict:
    return {key: [pair(i) for i in range(20)] for key, _ in recipe.with_data(one.source)}


def online(scenes: Path, **options) -> dict:
    data = {"kind": "povid", "file": scenes, "images": scenes.parent}
    return {"kind": "online", "data": data, "annotator": {"kind": "oracle", "scenes": scenes, "noise": 0.3}} | options


def offline(scenes: Path) -> dict:
    return {"kind": "offline", "data": {"kind": "povid", "file": scenes, "images": scenes.parent}}


def test_settings_of_online(scenes, tmp_path):
    drawn = {"temperature": 0.7, "top_p": 0.9}
    one = tree(online(scenes, decoding=drawn, max_new_tokens=33, num_samples=4, batch_size=3), tmp_path)
    made = source(one, rows_of(one))
    assert made._decoding == Decoding(33, 0.7, 0.9)
    assert (made._num_samples, made._batch_size, made._seed, made._stream) == (4, 3, 5, "source")
    assert made._annotator.name.endswith("0.3")


def test_parts_of_a_mixture_have_orders_and_streams_of_their_own(scenes, tmp_path):
    parts = [{"weight": 1, "source": offline(scenes)}, {"weight": 1, "source": online(scenes)}]
    inner = {"weight": 3, "source": {"kind": "mixed", "parts": parts}}
    one = tree({"kind": "mixed", "order": "interleave", "parts": [parts[0], inner]}, tmp_path)
    made = source(one, rows_of(one))
    first, mixture = made._sources
    second, asked = mixture._sources
    orders = [[p.prompt.uid for p in s.draw(20, None)] for s in (first, second, asked._prompts)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert made._stream != mixture._stream
    assert (made._order, mixture._order) == ("interleave", "bernoulli")
    assert made._shares.tolist() == [0.25, 0.75]
    alone = source(tree(offline(scenes), tmp_path), rows_of(tree(offline(scenes), tmp_path)))
    assert [p.prompt.uid for p in alone.draw(20, None)] == orders[0]


def test_a_judge_is_opened_once_for_all_parts(scenes, tmp_path):
    part = {"weight": 1, "source": online(scenes)}
    one = tree({"kind": "mixed", "parts": [part, part]}, tmp_path)
    first, second = source(one, rows_of(one))._sources
    assert first._annotator is second._annotator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoding": {"temperature": 0}}, "draws the same answer each time"),
        ({"annotator": {"kind": "judge", "chat": {"kind": "http", "url": "ftp://x", "model": "m"}}}, "ftp scheme"),
        (
            {"annotator": {"kind": "judge", "chat": {"kind": "http", "url": "http://me:secret@x/v1", "model": "m"}}},
            "holds a user, password",
        ),
        (
            {"annotator": {"kind": "judge", "chat": {"kind": "http", "url": "http://x/v1", "model": "m",
                                                     "key_env": "NO_SUCH_KEY_HERE"}}},
            "NO_SUCH_KEY_HERE is not set",
        ),
        ({"annotator": {"kind": "oracle", "scenes": "broken"}}, "broken.json: entry 0"),
    ],
)  # fmt: skip
def test_what_an_annotator_cannot_work_with_is_said_before_anything_is_written(
    scenes, tmp_path, monkeypatch, options, message
):
    from verisight.study.run import open_run

    monkeypatch.setattr("verisight.build.models.load_model", lambda *_, **__: pytest.fail("a model was opened"))
    broken = tmp_path / "broken.json"
    broken.write_text('[{"kind": "nowhere"}]')
    if options.get("annotator", {}).get("scenes") == "broken":
        options = {"annotator": {"kind": "oracle", "scenes": broken}}
    with pytest.raises((UserError, ValueError), match=message) as refused:
        open_run(tree(online(scenes, **options), tmp_path))
    assert "secret" not in str(refused.value) or "password" in message
    assert not (tmp_path / "run").exists()


def test_the_threshold_is_the_encoders_own_unless_it_is_set(tmp_path):
    for check, eps in (
        (recipe.Dissimilar(encoder="pocket"), 0.92),
        (recipe.Dissimilar(encoder="all-MiniLM-L6-v2"), 0.97),
        (recipe.Dissimilar(encoder="pocket", eps=0.5), 0.5),
    ):
        made = hallucinate(recipe.Negatives(check=check), [], folder=tmp_path, seed=0)
        assert made.check.notes == {"encoder": check.encoder, "eps": eps}
    with pytest.raises(ValueError, match=r"found no eps, and encoder 'some/encoder' has none of its own"):
        recipe.Dissimilar(encoder="some/encoder")
    assert recipe.Dissimilar(encoder="some/encoder", eps=0.9).threshold == 0.9


def test_a_crop_that_crops_nothing_is_refused():
    with pytest.raises(ValueError, match="found low 1, which crops nothing"):
        recipe.Cropped(low=1, high=1)
