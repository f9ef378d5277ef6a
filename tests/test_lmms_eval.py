"""The bridge to lmms-eval, against a stand-in for the few names of that package that it uses.

The package itself brings torchvision, which the pinned CPU torch can't have; docs/evaluation.md says how it was tried.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from verisight.pocket.datasets import scene
from verisight.pocket.scenes import render
from verisight.types import Decoding, UserError


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """verisight.lmms_eval_model, imported beside the stand-in."""

    class Base:
        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}
            self.kept: list[Any] = []
            self.cache_hook = SimpleNamespace(add_partial=lambda *told: self.kept.append(told))

    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    made = {name: ModuleType(name) for name in names}
    made["lmms_eval.api.model"].lmms = Base  # type: ignore[attr-defined]
    made["lmms_eval.models.registry_v2"].ModelManifest = lambda *args, **named: (args, named)  # type: ignore[attr-defined]
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "verisight.lmms_eval_model", raising=False)
    import verisight.lmms_eval_model as found

    yield found
    sys.modules.pop("verisight.lmms_eval_model", None)


def requests(bridge: Any, num: int, **settings: Any) -> tuple[Any, list[Any]]:
    """A model, and questions about objects that are in the first scenes."""
    model = bridge.VerisightModel("pocket", dtype="float32", batch_size=4)
    docs = [scene("test", at) for at in range(num)]
    model.task_dict = {"task": {"test": docs}}
    made = []
    for at, doc in enumerate(docs):
        text = f"<image>\nIs there a {doc.names[0]} in the image?"
        kwargs = {"max_new_tokens": 4 + at % 2, "until": None, "do_sample": False, "temperature": 0} | settings
        made.append(SimpleNamespace(args=(text, kwargs, lambda one: [render(one)], at, "task", "test")))
    return model, made


def test_answers_come_in_the_order_of_the_requests(bridge: Any) -> None:
    """Two lengths share no batch; each answer is the one that its request gets alone."""
    model, asked = requests(bridge, 9)
    answers = model.generate_until(asked)
    assert answers == [model.generate_until([one])[0] for one in asked]
    assert sum(answer.startswith("Yes") for answer in answers) >= 7
    assert [told[1] for told in model.kept[:9]] != []
    assert sorted(told[2] for told in model.kept[:9]) == sorted(answers)


def test_the_picture_is_seen(bridge: Any) -> None:
    model, asked = requests(bridge, 6)
    blank = Image.new("RGB", (96, 96))
    hidden = [SimpleNamespace(args=(one.args[0], one.args[1], lambda doc: [blank], *one.args[3:])) for one in asked]
    assert model.generate_until(asked) != model.generate_until(hidden)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Decoding(1024, temperature=0.0)),
        ({"max_new_tokens": 16, "temperature": 0.2, "do_sample": False}, Decoding(16, temperature=0.0)),
        ({"temperature": 0.7, "do_sample": True, "top_p": 0.9}, Decoding(1024, temperature=0.7, top_p=0.9)),
        ({"until": ["\n\n", ""], "num_beams": 1}, Decoding(1024, temperature=0.0, stop=("\n\n",))),
        ({"until": "###"}, Decoding(1024, temperature=0.0, stop=("###",))),
    ],
)
def test_settings_of_tasks(bridge: Any, settings: dict[str, Any], expected: Decoding) -> None:
    assert bridge.decoding(settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 3}, "found num_beams 3; accepted: 1"),
        ({"length_penalty": 2}, "generation_kwargs: found length_penalty; accepted: do_sample, max_new_tokens"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(bridge: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bridge.decoding(settings)


def test_a_visual_that_is_no_picture_is_refused(bridge: Any) -> None:
    model, (one,) = requests(bridge, 1)
    one.args = (*one.args[:2], lambda doc: ["video.mp4"], *one.args[3:])
    with pytest.raises(UserError, match="task: found a visual of type str; accepted: pictures"):
        model.generate_until([one])


def test_other_kinds_of_requests_say_that_they_are_not_offered(bridge: Any) -> None:
    model, asked = requests(bridge, 1)
    for method in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match="not offered"):
            method(asked)


def test_the_entry_point_names_the_model(bridge: Any) -> None:
    (found,) = [one for one in entry_points(group="lmms_eval.models") if one.name == "verisight"]
    args, named = found.load()()
    assert args == ("verisight",)
    assert named["simple_class_path"] == f"{bridge.__name__}.VerisightModel"
