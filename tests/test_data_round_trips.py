"""Every re-enacted set through every layout we write, and back: no word, picture, note or weight is lost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pocket_sets import everything, write_sets
from tiny import pair as tiny_pair
from tiny import tiny_policy
from verisight.data.export import to_llama_factory, to_ms_swift
from verisight.data.images import image_hash
from verisight.data.readers import open_data
from verisight.data.records import embedded, write_pairs
from verisight.models.reference import Reference
from verisight.models.tuning import LoraSettings
from verisight.train.preference import Dpo, PreferenceStep
from verisight.types import Answer, Group, Message, Pair, Prompt

SETS = {
    "povid": ("povid/POVID_preference_data_for_VLLMs_version_1.json", "povid/images"),
    "rlhf_v": ("rlhf_v/RLHF-V-Dataset.parquet", None),
    "llava_rlhf": ("llava_rlhf/llava_7b_v1_preference.json", "llava_rlhf/images"),
    "vlfeedback": ("vlfeedback/vlfeedback_80k.jsonl", "vlfeedback/merged_images"),
    "llama_factory": ("vlfeedback_corrupted/vlfeedback_corrupted.json", "vlfeedback_corrupted/images"),
    "nlf": ("nlf/LVLM_NLF/hallucination_nlf.jsonl", "nlf/images"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), everything(), noise=0.1)


def pairs_of(folder: Path, name: str) -> list[Pair]:
    file, images = SETS[name]
    reading = open_data(folder / file, images=folder / images if images else None)
    assert reading.format.name == name
    read = reading.read()
    assert not [bad for bad in read.bad if bad.fault]
    assert len(read.pairs) > 5
    return read.pairs


def told(pair: Pair) -> Pair:
    """The pair with its pictures named by content alone."""
    images = tuple(replace(ref, path=None, data=b"", member=None, sha256=image_hash(ref)) for ref in pair.prompt.images)
    return replace(pair, prompt=replace(pair.prompt, images=images))


@pytest.mark.parametrize("name", SETS)
def test_what_a_set_gives_comes_back_from_every_layout(name: str, folder: Path, tmp_path: Path) -> None:
    pairs = pairs_of(folder, name)
    expected = [told(pair) for pair in pairs]
    write_pairs(tmp_path / "paths.parquet", pairs)
    write_pairs(tmp_path / "bytes.parquet", (embedded(pair) for pair in pairs))
    to_llama_factory(tmp_path / "lf", pairs, copy_images=True)
    to_ms_swift(tmp_path / "swift", pairs, copy_images=True)
    for file, kind in (
        ("paths.parquet", "pairs"), ("bytes.parquet", "pairs"), ("lf/verisight.jsonl", "llama_factory"),
        ("swift/verisight.jsonl", "ms_swift"),
    ):  # fmt: skip
        reading = open_data(tmp_path / file)
        assert reading.format.name == kind
        read = reading.read()
        assert read.bad == []
        assert [told(pair) for pair in read.pairs] == expected


def test_both_layouts_of_vlfeedback_give_the_same_pairs(folder: Path) -> None:
    lines = pairs_of(folder, "vlfeedback")
    tables = open_data(folder / "vlfeedback" / "data").read().pairs
    assert [(one.prompt.text, one.chosen, one.rejected) for one in tables] == [
        (one.prompt.text, one.chosen, one.rejected) for one in lines
    ]
    for one, other in zip(tables, lines, strict=True):
        assert image_hash(one.prompt.images[0]) == image_hash(other.prompt.images[0])


def test_answers_of_several_turns_are_compared_turn_by_turn() -> None:
    """The margin of two conversations is that of all their answers, whatever their questions."""
    policy = tiny_policy()
    policy.tune(LoraSettings(4, 8), train_projector=True)
    short, asked = tiny_pair(0), Message("user", "Is there a dog in the image?")
    yes, no = (asked, Message("assistant", "Yes.")), (asked, Message("assistant", "No."))
    several = replace(short, chosen=Answer(short.chosen.text, yes), rejected=(Answer(short.rejected[0].text, no),))
    with torch.no_grad():
        scores, first = policy.score([several.group]), policy.score([short.group])
        for index, (answer, said) in enumerate(((short.chosen, yes), (short.rejected[0], no))):
            later = policy.score([Group(_behind(short, answer), (Answer(said[1].text),))])
            expected = float(first.logp_sum[index] + later.logp_sum[0])
            assert float(scores.logp_sum[index]) == pytest.approx(expected, abs=1e-4)
            assert int(scores.num_tokens[index]) == int(first.num_tokens[index] + later.num_tokens[0])
    loss = PreferenceStep(policy, Reference(policy, mode="adapter_off"), Dpo(0.1))([several]).loss
    assert loss.tolist() == pytest.approx([math.log(2)])  # before any step


def _behind(pair: Pair, answer: Answer) -> Prompt:
    history = (Message("user", pair.prompt.text), Message("assistant", answer.text))
    return replace(pair.prompt, history=history, text="Is there a dog in the image?")
