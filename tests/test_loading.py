"""Model folders: what is refused before weights are read, and what comes back of what was saved."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import pair, prompt, tiny_policy
from verisight.models.loading import check_model, load_model
from verisight.models.policy import Policy
from verisight.models.tuning import LoraSettings
from verisight.types import Decoding, UserError

GROUPS = [pair(i).group for i in range(3)]


def folder_of(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


LLAVA = {"model_type": "llava"}
REFUSED = {
    "no config": ({}, r"model.path: .*folder has no config.json; accepted: a Hugging Face model folder"),
    "another model": ({"config.json": {"model_type": "llama"}}, r"found a 'llama' model; accepted: llava"),
    "no model type": ({"config.json": {}}, r"found no model type; accepted: llava"),
    "pickled weights": (
        {"config.json": LLAVA, "pytorch_model.bin": ""},
        r"holds no \*\.safetensors weights \(other formats are not opened\)",
    ),
    "broken JSON": ({"config.json": '{"model_type": "lla'}, r"folder.config\.json: not readable as JSON"),
    "a list": ({"config.json": [LLAVA]}, r"config\.json: found list, accepted: a JSON object"),
    "an adapter of nothing": ({"adapter_config.json": {}}, r"base_model_name_or_path is None; accepted: another model"),
    "an adapter of a missing base": (
        {"adapter_config.json": {"base_model_name_or_path": "/nowhere/at/all"}},
        r"no folder /nowhere/at/all",
    ),
    "a broken adapter": ({"adapter_config.json": "{"}, r"adapter_config\.json: not readable as JSON"),
    "a pickled adapter": (
        {"adapter_config.json": {"base_model_name_or_path": "owner/name"}, "adapter_model.bin": ""},
        r"holds no \*\.safetensors weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_folders(case, tmp_path):
    files, message = REFUSED[case]
    folder = folder_of(tmp_path / "folder", files)
    with pytest.raises(UserError, match=message):
        check_model(str(folder))
    with pytest.raises(UserError, match=message):
        load_model(str(folder), dtype="float32")


@pytest.mark.parametrize("path", ["/nowhere", "./nowhere", "nowhere", "a/b/c", ""])
def test_a_path_to_nothing_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if path == "":
        path = "nothing here"
    with pytest.raises(UserError, match="accepted: a model folder, a hub id 'owner/name' or 'pocket'"):
        check_model(path)


def test_an_adapter_that_is_its_own_base_is_refused(tmp_path):
    folder = folder_of(tmp_path / "folder", {})
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    with pytest.raises(UserError, match="accepted: another model"):
        check_model(str(folder))


def test_hub_ids_are_left_to_hugging_face():
    check_model("owner/name")


def moved(policy, *, by=0.05):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return policy


def reopened(folder):
    return Policy(*load_model(str(folder), dtype="float32"))


def assert_same(one, other):
    with torch.no_grad():
        torch.testing.assert_close(one.score(GROUPS).logp_sum, other.score(GROUPS).logp_sum, rtol=1e-5, atol=1e-4)
    greedy = Decoding(max_new_tokens=8, temperature=0.0)
    rows = [prompt(0), prompt(1)]
    assert one.sample(rows, decoding=greedy, seed=0) == other.sample(rows, decoding=greedy, seed=0)


def unpickled(folder):
    return not [p for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]


def test_a_saved_model_comes_back(tmp_path):
    policy = tiny_policy()
    policy.tune(None, train_projector=True)
    moved(policy)
    policy.save(tmp_path / "model")
    assert unpickled(tmp_path / "model")
    again = reopened(tmp_path / "model")
    assert not again.has_adapter
    assert_same(policy, again)


@pytest.mark.parametrize("train_projector", [True, False])
def test_saved_adapters_come_back_on_their_base_and_on_each_other(tmp_path, train_projector):
    """A second adapter trained on the first (fine-tuning, then alignment) needs all three folders."""
    tiny_policy().save(tmp_path / "base")
    policy, name = reopened(tmp_path / "base"), str(tmp_path / "base")
    for stage in ("first", "second"):
        before = policy.score(GROUPS).logp_sum.detach()
        policy.tune(LoraSettings(r=2, alpha=4), train_projector=train_projector, base_name=name)
        moved(policy)
        assert (policy.score(GROUPS).logp_sum - before).abs().max() > 0.1
        folder = tmp_path / stage
        policy.save(folder)
        assert unpickled(folder)
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == name
        again = reopened(folder)
        assert again.has_adapter, "merging would round small adapters away"
        assert_same(policy, again)
        policy, name = again, str(folder)
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(UserError, match=r"no folder .*first"):
        check_model(name)


def test_an_adapter_on_a_hub_base_is_saved_without_asking_the_hub(tmp_path):
    policy = tiny_policy()
    policy.tune(LoraSettings(r=2, alpha=4), train_projector=True, base_name="owner/name")
    policy.save(tmp_path / "model")
    check_model(str(tmp_path / "model"))


def test_a_model_opens_in_the_asked_precision(tmp_path):
    tiny_policy().save(tmp_path / "model")
    model, _ = load_model(str(tmp_path / "model"), dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_small_adapter_on_a_bfloat16_base_survives_saving(tmp_path):
    tiny_policy().save(tmp_path / "base")
    policy = Policy(*load_model(str(tmp_path / "base"), dtype="bfloat16"))
    start = policy.score(GROUPS).logp_sum
    policy.tune(LoraSettings(r=2, alpha=4), train_projector=True, base_name=str(tmp_path / "base"))
    assert {weight.dtype for weight in policy.trainable().values()} == {torch.float32}
    moved(policy, by=1e-3)
    policy.save(tmp_path / "model")
    again = Policy(*load_model(str(tmp_path / "model"), dtype="bfloat16"))
    assert_same(policy, again)
    assert not torch.equal(again.score(GROUPS).logp_sum, start)
    assert again.sample([prompt(0)], decoding=Decoding(3), seed=0)[0][0].num_tokens <= 3


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    tiny_policy().save(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = {name: w for name, w in load_file(file).items() if "multi_modal_projector" not in name}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 4 weights of its model, such as .*multi_modal_projector"):
        load_model(str(tmp_path / "model"), dtype="float32")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(str(tmp_path / "model"), dtype="float32")
