"""Exports: what LLaMA-Factory and ms-swift read of them, and that they read back without loss."""

import hashlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verisight.data import export_rows
from verisight.data.encoded import encoded_bytes
from verisight.data.export import Exported, to_llama_factory, to_ms_swift
from verisight.types import Answer, ImageRef, Message, Pair, Prompt, UserError

TOOLS = [to_llama_factory, to_ms_swift]
Tool = Callable[..., Exported]
each_tool = pytest.mark.parametrize("tool", TOOLS)


def picture(colour: str = "red", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, kind)
    return buffer.getvalue()


RED, BLUE = picture(), picture("blue")
TEXT = st.text(max_size=30).filter(lambda text: not any(mark in text for mark in ("<image>", "<video>", "<audio>")))
FULL = TEXT.filter(lambda text: text.strip())
TURNS = st.lists(st.tuples(TEXT, FULL), max_size=2).map(
    lambda turns: tuple(m for q, a in turns for m in (Message("user", q), Message("assistant", a)))
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT, st.lists)
PROMPTS = st.builds(
    Prompt,
    uid=TEXT,
    images=st.lists(st.sampled_from(["file", "bytes", "member"]), max_size=3),
    text=TEXT,
    history=TURNS,
    split_group=TEXT,
    provenance=TEXT,
)
NOTES = st.dictionaries(TEXT, JSON, max_size=3)
SUPERVISED = st.builds(Pair, PROMPTS, st.builds(Answer, FULL, TURNS), origin=TEXT, notes=NOTES)


@st.composite
def preferences(draw: st.DrawFn) -> Pair:
    chosen, *rejected = draw(st.lists(FULL, min_size=2, max_size=4, unique_by=str.strip))
    weights = draw(st.sampled_from([(), tuple(1 / len(rejected) for _ in rejected)]))
    return Pair(draw(PROMPTS), Answer(chosen), tuple(map(Answer, rejected)), weights, draw(TEXT), draw(NOTES))


def picture_in(folder: Path, kind: Any) -> ImageRef:
    if kind == "bytes":
        return ImageRef(data=RED)
    if kind == "file":
        (folder / "a.png").write_bytes(BLUE)
        return ImageRef(path=folder / "a.png")
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("in side/b.jpg", picture("green", "JPEG"))
    return ImageRef(path=folder / "a.zip", member="in side/b.jpg")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def read_back(path: Path) -> Iterator[Pair]:
    """Pairs by the rules in `verisight.data.export`, and nothing else."""
    for row in rows(path):
        own = json.loads(row["verisight"])
        turns = [
            Message({"human": "user", "gpt": "assistant"}.get(role := turn.get("from") or turn["role"], role), text)
            for turn in row.get("messages") or row["conversations"]
            for text in [turn["value"] if "from" in turn else turn["content"]]
        ]
        turns[0] = replace(turns[0], text=turns[0].text.removeprefix("<image>" * len(row["images"])))
        first = [row["rejected_response"]] if "rejected_response" in row else []
        if "chosen" in row:
            turns.append(Message("assistant", row["chosen"]["value"]))
            first = [row["rejected"]["value"]]
        history, (question, chosen, *rest) = turns[: own["num_history"]], turns[own["num_history"] :]
        images = tuple(
            ImageRef(path=path.parent / name, sha256=known)
            for name, known in zip(row["images"], own["image_sha256"], strict=True)
        )
        yield Pair(
            Prompt(own["uid"], images, question.text, tuple(history), own["split_group"], own["provenance"]),
            Answer(chosen.text, tuple(rest)),
            tuple(map(Answer, [*first, *own["extra_rejected"]])),
            tuple(own["weights"]),
            own["origin"],
            own["notes"],
        )


@each_tool
@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(SUPERVISED, min_size=1, max_size=4) | st.lists(preferences(), min_size=1, max_size=4))
def test_a_round_trip_loses_nothing(tmp_path_factory: pytest.TempPathFactory, tool: Tool, pairs: list[Pair]) -> None:
    folder = tmp_path_factory.mktemp("round")
    pairs = [
        replace(p, prompt=replace(p.prompt, images=tuple(picture_in(folder, kind) for kind in p.prompt.images)))
        for p in pairs
    ]
    done = tool(folder / "out", iter(pairs), name="p")
    assert (done.num_rows, done.bad) == (len(pairs), ())
    assert done.num_unseen == sum(max(0, len(p.rejected) - 1) for p in pairs)
    back = list(read_back(done.files[0]))
    for row, old, new in zip(rows(done.files[0]), pairs, back, strict=True):
        without = [replace(p, prompt=replace(p.prompt, images=())) for p in (old, new)]
        assert without[0] == without[1]
        assert [*map(encoded_bytes, new.prompt.images)] == [*map(encoded_bytes, old.prompt.images)]
        assert json.dumps({**row, "verisight": ""}).count("<image>") == len(row["images"])
        for known, ref in zip(new.prompt.images, old.prompt.images, strict=True):
            assert known.sha256 == (ref.sha256 if ref == known else hashlib.sha256(encoded_bytes(ref)).hexdigest())


HISTORY = (Message("user", "A?"), Message("assistant", "a"))


def pair(uid: str = "u", *images: ImageRef, text: str = "B?", **rest: Any) -> Pair:
    rest = {"chosen": Answer("b"), "rejected": (Answer("c"),)} | rest
    return Pair(Prompt(uid, images, text, HISTORY), **rest)


def supervised(uid: str = "u", *images: ImageRef, **rest: Any) -> Pair:
    follow_up = (Message("user", "C?"), Message("assistant", "c"))
    return pair(uid, *images, chosen=Answer("b", follow_up), rejected=(), **rest)


def test_the_layouts_are_the_documented_ones(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    refs = ImageRef(path=tmp_path / "a.png", sha256="known"), ImageRef(data=BLUE)
    made = replace(
        pair("7", *refs, origin="bdhs", notes={"rule": "x"}), rejected=(Answer("c"), Answer("d")), weights=(0.5, 0.5)
    )
    blue = hashlib.sha256(BLUE).hexdigest()
    own = {
        "uid": "7", "origin": "bdhs", "provenance": "", "split_group": "", "notes": {"rule": "x"},
        "weights": [0.5, 0.5], "image_sha256": ["known", blue], "extra_rejected": ["d"], "num_history": 2,
    }  # fmt: skip
    done = to_llama_factory(tmp_path / "lf", [made], name="p")
    assert done == Exported((tmp_path / "lf/p.jsonl", tmp_path / "lf/dataset_info.json"), 1, 1, 1, ())
    (row,) = rows(tmp_path / "lf/p.jsonl")
    assert json.loads(row.pop("verisight")) == own
    assert row == {
        "conversations": [
            {"from": "human", "value": "<image><image>A?"},
            {"from": "gpt", "value": "a"},
            {"from": "human", "value": "B?"},
        ],
        "chosen": {"from": "gpt", "value": "b"},
        "rejected": {"from": "gpt", "value": "c"},
        "images": [str(tmp_path / "a.png"), str(tmp_path / f"lf/images/{blue}.png")],
    }
    turns = [
        {"role": "user", "content": "<image><image>A?"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "B?"},
        {"role": "assistant", "content": "b"},
    ]
    images = [str(tmp_path / "a.png"), str(tmp_path / f"sw/images/{blue}.png")]
    done = to_ms_swift(tmp_path / "sw", [made], name="p")
    assert done == Exported((tmp_path / "sw/p.jsonl",), 1, 1, 1, ())
    (row,) = rows(tmp_path / "sw/p.jsonl")
    assert json.loads(row.pop("verisight")) == own
    assert row == {"messages": turns, "rejected_response": "c", "images": images}
    turns += [{"role": "user", "content": "C?"}, {"role": "assistant", "content": "c"}]
    to_llama_factory(tmp_path / "lf", [supervised("7", *refs)], name="s")
    (row,) = rows(tmp_path / "lf/s.jsonl")
    assert (row["messages"], list(row)) == (turns, ["messages", "images", "verisight"])
    to_ms_swift(tmp_path / "sw", [supervised("7", *refs)], name="s")
    (row,) = rows(tmp_path / "sw/s.jsonl")
    learned = iter([False, True, True])
    assert row["messages"] == [t | {"loss": next(learned)} if t["role"] == "assistant" else t for t in turns]
    assert list(row) == ["messages", "images", "verisight"]


def test_other_data_sets_stay_declared(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    other = {"other": {"hf_hub_url": "a/b", "columns": {"prompt": "é"}}}
    info.write_text(json.dumps(other))
    to_llama_factory(tmp_path, [pair()], name="p")
    to_llama_factory(tmp_path, [supervised()], name="s")
    to_llama_factory(tmp_path, [pair("again")], name="p")
    assert json.loads(info.read_text()) == other | {
        "p": {
            "file_name": "p.jsonl",
            "formatting": "sharegpt",
            "ranking": True,
            "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
        },
        "s": {
            "file_name": "s.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
        },
    }
    before = info.read_text()
    for name, made in (("s", pair()), ("p", supervised()), ("other", pair())):
        with pytest.raises(UserError, match=f"dataset_info.json: '{name}' is already declared as .*; accepted: anoth"):
            to_llama_factory(tmp_path, [made], name=name)
    assert info.read_text() == before
    assert not (tmp_path / "other.jsonl").exists()
    info.write_text("[]")
    with pytest.raises(UserError, match=r"dataset_info\.json: found a JSON list, an object of data sets is accepted"):
        to_llama_factory(tmp_path, [pair()])
    info.write_text("{")
    with pytest.raises(UserError, match=r"dataset_info\.json: not valid JSON"):
        to_llama_factory(tmp_path, [pair()])


@each_tool
def test_pictures_become_files_unchanged(tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {kind: picture(kind=kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for kind, data in content.items():
            archive.writestr(f"{kind}.png", data)
    members = [ImageRef(path=tmp_path / "a.zip", member=f"{kind}.png") for kind in content]
    held = [ImageRef(data=data) for data in content.values()]
    done = tool(tmp_path / "out", [pair("0", *members), pair("1", *held), pair("2", *members[:1])])
    assert (done.num_rows, done.num_pictures) == (3, 6)
    written = {path.name: path.read_bytes() for path in (tmp_path / "out/images").iterdir()}
    extensions = ("png", "jpg", "webp", "bmp", "gif", "tif")
    names = [
        f"{hashlib.sha256(data).hexdigest()}.{end}" for data, end in zip(content.values(), extensions, strict=True)
    ]
    assert written == dict(zip(names, content.values(), strict=True))
    first, second, third = (row["images"] for row in rows(done.files[0]))
    assert first == second
    assert first[:1] == third
    assert tool(tmp_path / "out", [pair("0", *held)]).num_pictures == 0  # there already
    (tmp_path / "out/images" / names[0]).write_bytes(b"cut")
    assert tool(tmp_path / "out", [pair("0", *held)]).num_pictures == 1
    assert (tmp_path / "out/images" / names[0]).read_bytes() == content["PNG"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.png").write_bytes(RED)
    relative = ImageRef(path=Path("b.png"))
    for copy in (False, True):
        done = tool(Path("out"), [pair("0", relative)], copy_images=copy)
        (name,) = rows(done.files[0])[0]["images"]
        assert (tmp_path / "out" / name).read_bytes() == RED
        if copy:
            place = Path(name).parent
            assert place == Path("images") if tool is to_llama_factory else place == tmp_path / "out/images"
        else:
            assert name == str(tmp_path / "b.png")


SURROGATE = "\ud800"
LEFT_OUT = [
    (pair("x", ImageRef(path=Path("none.png"))), "image missing", "none.png"),
    (pair("x", ImageRef(path=Path("none.zip"), member="a.png")), "image missing", "none.zip"),
    (pair("x", ImageRef(data=b"<html>")), "image unreadable", "6 bytes, not one of JPEG"),
    (pair("x", text="see <image>"), "<image> in a text", "see <image>"),
    (pair("x", chosen=Answer("<image>")), "<image> in a text", "'<image>'"),
    (pair("x", rejected=(Answer("<image>"),)), "<image> in a text", "'<image>'"),
    (pair("x", rejected=(Answer(" b\n"),)), "chosen equals rejected", "' b\\n'"),
    (pair("x", chosen=Answer("b", HISTORY)), "answer of several turns", "split by its turns"),
    (pair("x", rejected=(Answer("c", HISTORY),)), "answer of several turns", "split by its turns"),
    (pair("x", text=SURROGATE), "invalid Unicode", "character"),
    (pair("x", notes={"a": SURROGATE}), "invalid Unicode", "character"),
]


@each_tool
@pytest.mark.parametrize(("wrong", "reason", "detail"), LEFT_OUT)
def test_what_cannot_be_written_is_counted(tmp_path: Path, tool: Tool, wrong: Pair, reason: str, detail: str) -> None:
    done = tool(tmp_path, [pair("0"), wrong, pair("2")])
    assert [json.loads(row["verisight"])["uid"] for row in rows(done.files[0])] == ["0", "2"]
    assert done.num_rows == 2
    (bad,) = done.bad
    assert (bad.file, bad.row, bad.reason, bad.fault) == (str(done.files[0]), 1, reason, True)
    assert bad.detail.startswith("x: ")
    assert detail in bad.detail
    with pytest.raises(UserError, match="none of 1 pairs can be used, the first: " + reason):
        tool(tmp_path / "empty", [wrong])
    assert not list((tmp_path / "empty").glob("*.json*"))


def test_media_that_llama_factory_alone_counts(tmp_path: Path) -> None:
    texts = [pair(mark, text=f"the {mark} tag") for mark in ("<video>", "<audio>")]
    assert [bad.reason for bad in to_llama_factory(tmp_path, [pair(), *texts]).bad] == [
        "<video> in a text",
        "<audio> in a text",
    ]
    assert to_ms_swift(tmp_path, [pair(), *texts]).num_rows == 3


@each_tool
def test_what_no_file_can_hold_is_refused(tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no pairs: there is nothing to export"):
        tool(tmp_path, [])
    with pytest.raises(UserError, match=r"pair 1 \(s\) is supervised, those before are a preference; .* apart"):
        tool(tmp_path, [pair(), supervised("s")])
    with pytest.raises(UserError, match=r"pair 1 \(p\) is a preference, those before are supervised; .* apart"):
        tool(tmp_path, [supervised(), pair("p")])
    for name in ("", ".", "..", "a/b", "a,b", "a b", "é"):
        with pytest.raises(UserError, match=r"ASCII letters, digits and \._- are accepted"):
            tool(tmp_path, [pair()], name=name)
    monkeypatch.setattr(export_rows, "_TYPED_BYTES", 1000)
    late = pair("late", ImageRef(data=RED))
    with pytest.raises(UserError, match=r"pair 9 \(late\) is the first with a picture, behind .* in front of them"):
        tool(tmp_path, [pair()] * 9 + [late])
    assert tool(tmp_path, [late] + [pair()] * 9 + [late]).num_rows == 11


@each_tool
def test_a_source_that_dies_leaves_the_old_file(tmp_path: Path, tool: Tool) -> None:
    (old, *_) = tool(tmp_path, [pair("old")]).files
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def dying() -> Iterator[Pair]:
        yield pair("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tool(tmp_path, dying())
    assert old in before
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@each_tool
def test_rows_are_not_held_in_memory(tmp_path: Path, tool: Tool) -> None:
    tool(tmp_path, [pair()])  # imports and caches
    tracemalloc.start()
    try:
        done = tool(tmp_path, (pair(str(n), text=f"{n}" * 500) for n in range(3000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert done.files[0].stat().st_size > 5_000_000
    assert peak < 500_000


@each_tool
def test_our_own_values_make_no_columns(tmp_path: Path, tool: Tool) -> None:
    from datasets import Value, load_dataset

    notes = [{"a": 1}, {"a": "x"}, {"a": {"b": None}}, {"c": [0.5, "y"]}]
    done = tool(tmp_path, [pair(str(n), ImageRef(data=RED), notes=note) for n, note in enumerate(notes)])
    table = load_dataset("json", data_files=str(done.files[0]), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.features["verisight"] == Value("string")
    assert [json.loads(own)["notes"] for own in table["verisight"]] == notes


def samples(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Preferences and supervised rows: with a file, bytes and an archive, of several turns, without a picture."""
    refs = [picture_in(folder, kind) for kind in ("file", "bytes", "member")]
    some = [pair("0", refs[0]), pair("1", refs[1], refs[2]), pair("2")]
    return some, [supervised("0", refs[0]), supervised("1", refs[1], refs[2]), supervised("2")]


@pytest.mark.filterwarnings("ignore")
def test_llama_factory_reads_it(tmp_path: Path) -> None:
    """Its own `get_dataset` loads, converts and tokenizes every row; its plugin opens the pictures."""
    loader = pytest.importorskip("llamafactory.data.loader", exc_type=ImportError)
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    preferred, learned = samples(tmp_path)
    to_llama_factory(tmp_path / "out", preferred, name="p")
    to_llama_factory(tmp_path / "out", learned, name="s", copy_images=True)
    tokenizer, processor = llava_processor()
    training = Seq2SeqTrainingArguments(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True)
    model = ModelArguments(model_name_or_path="none", cache_dir=str(tmp_path / "cache"))

    def read(name: str, stage: str, **more: Any) -> list[dict[str, Any]]:
        data = DataArguments(template="llava", dataset=name, dataset_dir=str(tmp_path / "out"), **more)
        template = get_template_and_fix_tokenizer(tokenizer, data)
        found = list(loader.get_dataset(template, model, data, training, stage, tokenizer, processor)["train_dataset"])
        for row in found:
            if row["images"]:
                pixels = template.mm_plugin._get_mm_inputs(row["images"], [], [], processor)["pixel_values"]
                assert len(pixels) == len(row["images"])
        assert [len(row["images"] or ()) for row in found] == [1, 2, 0]
        return found

    def text(ids: list[int]) -> str:
        return tokenizer.decode([token for token in ids if token >= 0])

    for row, num in zip(read("p", "rm"), (1, 2, 0), strict=True):
        asked = "USER: " + "<image>" * 4 * num + "A? ASSISTANT:a</s>USER: B? ASSISTANT:"
        assert text(row["chosen_input_ids"]).endswith(asked + "b</s>")
        assert text(row["rejected_input_ids"]).endswith(asked + "c</s>")
        assert (text(row["chosen_labels"]), text(row["rejected_labels"])) == ("b</s>", "c</s>")
    for row, num in zip(read("s", "sft"), (1, 2, 0), strict=True):
        asked = "USER: " + "<image>" * 4 * num + "A? ASSISTANT:a</s>USER: B? ASSISTANT:b</s>USER: C? ASSISTANT:c</s>"
        assert text(row["input_ids"]).endswith(asked)
        assert text(row["labels"]) == "a</s>b</s>c</s>"
    assert [text(row["labels"]) for row in read("s", "sft", mask_history=True)] == ["c</s>"] * 3


def llava_processor() -> tuple[Any, Any]:
    """A tokenizer of bytes and a processor that makes 4 tokens of a picture."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>", "<image>"]
    base = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    base.pre_tokenizer, base.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base, bos_token="<s>", eos_token="</s>", pad_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    resize = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return tokenizer, LlavaProcessor(
        image_processor=resize, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_ms_swift_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own `load_dataset` keeps every row, its templates are given the turns, and it opens the pictures."""
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    swift = pytest.importorskip("swift.dataset", exc_type=ImportError)
    from swift.template.template_inputs import TemplateInputs
    from swift.template.vision_utils import load_image

    preferred, learned = samples(tmp_path)
    files = [
        to_ms_swift(tmp_path / "out", preferred, name="p").files[0],
        to_ms_swift(tmp_path / "out", learned, name="s").files[0],
    ]
    monkeypatch.chdir(tmp_path)  # it must not matter where
    for file, streaming in ((file, streaming) for file in files for streaming in (False, True)):
        table, _ = swift.load_dataset(str(file), strict=True, streaming=streaming)
        found = [TemplateInputs.from_dict(row) for row in table]
        assert [len(inputs.chosen.images) for inputs in found] == [1, 2, 0]
        for inputs, num in zip(found, (1, 2, 0), strict=True):
            asked = ["<image>" * num + "A?", "a", "B?"]
            said = [turn["content"] for turn in inputs.chosen.messages]
            assert [load_image(image["path"]).size for image in inputs.chosen.images] == [(40, 30)] * num
            if file == files[0]:
                assert said == [*asked, "b"]
                assert [turn["content"] for turn in inputs.rejected.messages] == [*asked, "c"]
                assert inputs.rejected.images == inputs.chosen.images
            else:
                assert (said, inputs.rejected) == ([*asked, "b", "C?", "c"], None)
                assert [turn["loss"] for turn in inputs.chosen.messages[1::2]] == [False, True, True]
