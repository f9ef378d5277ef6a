"""What a check says of small sets whose faults, repeats, bias and leaks are known."""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from verisight.data import check_repeats
from verisight.data.check import Checked, check
from verisight.data.check_facts import as_json, quantile, wilson
from verisight.data.check_leaks import read_against
from verisight.data.check_page import write_page
from verisight.data.check_text import cautions, listings, verdict
from verisight.data.images import fingerprint
from verisight.data.readers import open_data
from verisight.types import UserError

LONG = "A man in a red coat walks a small brown dog along the wet road while two children wave from a blue bus"


def photo(seed: int, size: int = 64) -> Image.Image:
    """A picture that looks like no other one."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def row(number: int, image: str | None, asked: str, chosen: str, rejected: str) -> dict[str, Any]:
    """As POVID has it."""
    mark = "<image>\n" if image else ""
    asking = {"from": "human", "value": mark + asked}
    told = {"id": number} | ({"image": image} if image else {})
    return told | {
        "conversations": [asking, {"from": "gpt", "value": chosen}],
        "rejected_conversations": [asking, {"from": "gpt", "value": rejected}],
    }


def written(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(list(rows)))
    return path


def pictures(folder: Path, names: Iterable[str]) -> Path:
    """A folder in which the n-th picture is photo n."""
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(photo(number), "JPEG" if name.endswith("jpg") else "PNG"))
    return folder


def checked(path: Path, images: Path | None = None, *against: Path, decode: bool = True, **options: Any) -> Checked:
    reading = open_data(path, images=images, check_images=decode, text_only=images is None)
    return check(reading, against=[read_against(one, images=images, decode=decode) for one in against], **options)


def texts(tmp_path: Path, *triples: tuple[str, str, str]) -> Checked:
    """A check of rows without pictures."""
    return checked(written(tmp_path / "rows.json", (row(i, None, *triple) for i, triple in enumerate(triples))))


def test_rows_and_reasons_are_counted(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png"])
    (images / "cut.png").write_bytes(encoded(photo(1))[:200])
    rows = [
        row(0, "a.png", "What?", "A cat.", "A dog."),
        row(1, "a.png", "What?", "Same.", "Same. "),
        row(2, "gone.png", "What?", "A cat.", "A dog."),
        row(3, "cut.png", "What?", "A cat.", "A dog."),
        row(4, "gone.png", "What?", "A cat.", "A dog."),
    ]
    facts = checked(written(tmp_path / "d.json", rows), images, max_bad=0.8).facts
    told = facts.rows
    assert (told.num, told.num_usable, told.num_faulty, told.num_left_out, told.num_pairs) == (5, 1, 4, 0, 1)
    assert told.passed
    assert {(one.reason, one.num, one.rows) for one in facts.reasons} == {
        ("image missing", 2, ("2", "4")), ("chosen equals rejected", 1, ("1",)), ("image truncated", 1, ("3",)),
    }  # fmt: skip
    assert facts.reasons[0].reason == "image missing"
    assert all(one.fault for one in facts.reasons)
    assert facts.num_equal == 1
    assert facts.taken.kind == "povid"
    assert [(one.name, one.num) for one in facts.placeholders] == [("start", 1)]
    assert [(one.name, one.num) for one in facts.licenses] == [("cc-by-4.0", 1)]
    assert not checked(tmp_path / "d.json", images, max_bad=0.79).facts.rows.passed
    assert "4 of 5 rows are faulty (80.0%)" in verdict(facts)


def test_ties_are_left_out_and_no_fault(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["7.jpg"])

    def answer(text: str, rating: str) -> dict[str, Any]:
        aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
        return {"model": text, "response": text, "annotations": {aspect: {"Rating": rating} for aspect in aspects}}

    answers = [answer("one", "5"), answer("two", "3"), answer("three", "3"), answer("four", "1")]
    line = {"id": 7, "prompt": "What?", "completions": answers}
    tied = {"id": 7, "prompt": "Where?", "completions": answers[1:3]}
    (tmp_path / "v.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(tied)}\n")
    facts = checked(tmp_path / "v.jsonl", images).facts
    assert (facts.rows.num_pairs, facts.rows.num_faulty, facts.rows.num_left_out) == (5, 0, 1)
    assert [(one.reason, one.fault, one.num, one.rows) for one in facts.reasons] == [("tie", False, 2, ("0", "1"))]
    assert facts.repeats.same_prompt.num == 0, "pairs of one row share its prompt by construction"
    assert facts.taken.rule == "all_pairs"


def test_copies_near_copies_and_contradictions(tmp_path: Path) -> None:
    other = LONG.replace("wet", "dry")
    facts = texts(
        tmp_path,
        ("What is it?", "A cat.", "A dog."),
        ("What is it?", "A cat.", "A dog. "),  # 1: a copy of 0, blanks apart
        ("What is it?", "A dog.", "A cat."),  # 2: contradicts 0 and 1
        ("Where?", LONG, "Nowhere at all."),
        ("Where?", other, "Nowhere at all."),  # 4: nearly 3
        ("Where?", "In the house.", "Nowhere at all."),  # 5: another pair of the same prompt
        ("Where now?", other, "Nowhere at all."),  # 6: another prompt
    ).facts
    found = facts.repeats
    assert (found.exact.num, found.exact.num_groups, found.exact.examples) == (1, 1, (("0", "1"),))
    assert (found.near.num, found.near.examples) == (1, (("3", "4"),))
    assert (found.same_prompt.num, found.same_prompt.num_groups) == (6, 2)
    assert (found.conflicts.num, found.conflicts.examples) == (3, (("0", "1", "2"),))
    assert "Comparisons that contradict another one of the same prompt: 3." in list(cautions(facts))


def test_near_is_jaccard_of_three_word_runs(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(40)]  # 38 runs, and one of the prompt, one of the rejected answer

    def pair(changed: int) -> tuple[str, str, str]:
        return "What?", " ".join([*words[: len(words) - changed], *(f"x{n}" for n in range(changed))]), "No."

    # the last n words changed: 38 - n of 38 runs are kept, J = (40 - n) / (40 + n); 4: 0.818, 5: 0.778
    assert texts(tmp_path, pair(0), pair(4)).facts.repeats.near.num == 1
    assert texts(tmp_path, pair(0), pair(5)).facts.repeats.near.num == 0


def test_texts_longer_than_a_sketch_are_compared_too(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(2000)]
    close = " ".join([*words[:-20], *(f"x{n}" for n in range(20))])
    far = " ".join([*words[:1000], *(f"x{n}" for n in range(1000))])
    triples = [("What?", text, "No.") for text in (" ".join(words), close, far)]
    assert texts(tmp_path, *triples).facts.repeats.near.examples == (("0", "1"),)


def test_a_full_bucket_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_repeats, "BUCKET_CAP", 3)
    found = texts(tmp_path, *(("What?", f"{LONG} {n}", "No.") for n in range(5))).facts.repeats
    assert (found.near.num, found.num_not_compared, found.bucket_cap) == (2, 2, 3)


def test_length_bias(tmp_path: Path) -> None:
    longer, shorter, tie = (("What?", "a b c", "d"), ("What?", "a", "b c d e"), ("What?", "a b", "c d"))
    facts = texts(tmp_path, *[longer] * 3, shorter, *[tie] * 2).facts
    bias = facts.length_bias
    assert bias is not None
    assert (bias.longer_chosen.num, bias.longer_chosen.total, bias.num_ties) == (3, 4, 2)
    assert bias.rule_accuracy == pytest.approx(4 / 6)
    assert (bias.longer_chosen.low, bias.longer_chosen.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert facts.chosen is not None
    assert (facts.chosen.mean, facts.chosen.median) == pytest.approx((14 / 6, 2.5))


def test_wilson_and_quantiles() -> None:
    assert (wilson(0, 10).low, wilson(10, 10).high) == pytest.approx((0, 1))
    assert wilson(50, 100).low == pytest.approx(0.4038, abs=1e-4)
    assert [quantile([1, 2, 3, 10], share) for share in (0, 0.5, 1)] == [1, 2.5, 10]


def test_words_that_tell_the_answers_apart(tmp_path: Path) -> None:
    triples = [(f"What? {n}", "It shows a cat.", f"It shows a {'dog' if n < 12 else 'cow'}.") for n in range(16)]
    words = texts(tmp_path, *triples).facts.words
    assert [(one.word, one.num_chosen_only, one.num_rejected_only) for one in words] == [
        ("cat", 16, 0), ("dog", 0, 12),
    ]  # fmt: skip
    assert words[0].log_odds > 0 > words[1].log_odds


@pytest.fixture
def leaky(tmp_path: Path) -> tuple[Path, Path]:
    """Four rows: of a shared file, a shared COCO number, a re-encoded picture, and one of its own."""
    names = ["a.png", "COCO_train2014_000000000042.jpg", "look.png", "own.png"]
    images = pictures(tmp_path / "images", names)
    rows = [row(n, name, "What?", f"A cat {n}.", f"A dog {n}.") for n, name in enumerate(names)]
    return written(tmp_path / "d.json", [*rows, row(4, "look.png", "Where?", "Here.", "There.")]), images


def evaluation(folder: Path) -> Path:
    """Pictures for evaluation: the same file, the same number in 2017's name, and the same picture re-encoded."""
    folder.mkdir()
    (folder / "other_name.png").write_bytes(encoded(photo(0)))
    (folder / "000000000042.jpg").write_bytes(encoded(photo(99), "JPEG"))
    (folder / "re.jpg").write_bytes(encoded(photo(2), "JPEG", quality=95))
    (folder / "readme.txt").write_text("no picture")
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.mark.parametrize("as_zip", [False, True])
def test_leaks_into_evaluation_pictures(tmp_path: Path, leaky: tuple[Path, Path], as_zip: bool) -> None:
    against = evaluation(tmp_path / "eval")
    if as_zip:
        with zipfile.ZipFile(tmp_path / "eval.zip", "w") as archive:
            for path in sorted(against.iterdir()):
                archive.write(path, f"val/{path.name}")
        against = tmp_path / "eval.zip"
    assert fingerprint(photo(2)) == fingerprint(Image.open(tmp_path / "eval" / "re.jpg"))
    (leak,) = checked(*leaky, against).facts.leaks
    assert (leak.num_pictures, leak.num_unusable, leak.num_pairs) == (3, 1, 4)
    shared = [leak.same_file, leak.same_coco, leak.look_alike]
    assert [(one.num_pictures, one.num_pairs) for one in shared if one] == [(1, 1), (1, 1), (1, 2)]
    assert leak.same_file is not None
    assert leak.same_file.examples[0].startswith("row 0: ")
    assert leak.same_file.examples[0].endswith("other_name.png")
    assert (leak.same_prompts, leak.same_pairs) == (None, None)


def test_without_decoding_files_are_hashed_and_look_alikes_not_looked_for(
    tmp_path: Path, leaky: tuple[Path, Path]
) -> None:
    (leak,) = checked(*leaky, evaluation(tmp_path / "eval"), decode=False).facts.leaks
    assert leak.look_alike is None
    assert [one.num_pictures for one in (leak.same_file, leak.same_coco) if one] == [1, 1]


def test_flat_pictures_do_not_look_alike(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "images" / "a.png")
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "eval" / "b.png")
    data = written(tmp_path / "d.json", [row(0, "a.png", "What?", "Red.", "Blue.")])
    (leak,) = checked(data, tmp_path / "images", tmp_path / "eval").facts.leaks
    assert leak.num_pairs == 0
    assert leak.look_alike is None


def test_leaks_into_another_split(tmp_path: Path, leaky: tuple[Path, Path]) -> None:
    path, images = leaky
    rows = [
        row(0, "a.png", "What?", "A cat 0.", "A dog 0."),
        row(1, "look.png", "Where?", "Elsewhere.", "There."),
    ]
    (leak,) = checked(path, images, written(tmp_path / "test.json", rows)).facts.leaks
    assert leak.what.startswith("data set: POVID")
    assert (leak.num_pictures, leak.num_pairs, leak.same_prompts, leak.same_pairs) == (2, 3, 2, 1)


@pytest.mark.parametrize("what", ["instances", "questions"])
def test_leaks_by_names_alone(tmp_path: Path, leaky: tuple[Path, Path], what: str) -> None:
    name = "COCO_val2014_000000000042.jpg"
    against = tmp_path / "names.json"
    if what == "instances":
        against.write_text(json.dumps({"images": [{"id": 42, "file_name": name}], "annotations": []}))
    else:
        against.write_text(json.dumps({"question_id": 1, "image": name, "text": "Cat?", "label": "no"}) + "\n")
    (leak,) = checked(*leaky, against).facts.leaks
    assert leak.same_coco is not None
    assert leak.same_coco.examples == (f"row 1: {name}",)
    assert (leak.num_pairs, leak.same_file, leak.look_alike) == (1, None, None)


def test_an_other_side_of_nothing_is_refused(tmp_path: Path, leaky: tuple[Path, Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text('{"a": 1}')
    for against in (tmp_path / "empty", tmp_path / "x.json", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="accepted: a data set, a folder or zip"):
            checked(*leaky, against)


def test_pictures_in_several_splits(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png", "b.png", "c.png"])
    written(tmp_path / "train.json", [row(n, f"{name}.png", "What?", "A.", "B.") for n, name in enumerate("ab")])
    written(tmp_path / "test.json", [row(n, f"{name}.png", "Where?", "A.", "B.") for n, name in enumerate("bc")])
    facts = checked(tmp_path / "*.json", images).facts
    assert facts.splits is not None
    assert (facts.splits.names, facts.splits.num_pictures, facts.splits.num_pairs) == (("test", "train"), 1, 2)
    assert facts.splits.examples == (("test.json:0", "train.json:1"),)
    assert checked(tmp_path / "train.json", images).facts.splits is None


def test_samples_depend_on_seed_and_place_only(tmp_path: Path) -> None:
    path = written(tmp_path / "d.json", (row(n, None, f"What {n}?", "A.", "B.") for n in range(40)))
    drawn = [[one.place for one in checked(path, num_samples=8, seed=seed).samples] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 8
    assert drawn[0] == sorted(drawn[0], key=int)
    assert set(drawn[0]) <= {one.place for one in checked(path, num_samples=9, seed=0).samples}


def test_the_json_has_these_keys(leaky: tuple[Path, Path], tmp_path: Path) -> None:
    told = json.loads(json.dumps(as_json(checked(*leaky, evaluation(tmp_path / "eval")).facts)))
    assert list(told) == [
        "version", "taken", "rows", "reasons", "num_equal", "placeholders", "turns", "pictures", "num_pictures",
        "licenses", "chosen", "rejected", "length_bias", "repeats", "splits", "leaks", "words",
    ]  # fmt: skip
    assert list(told["rows"]) == [
        "num", "num_usable", "num_faulty", "num_left_out", "num_pairs", "num_supervised", "max_bad", "passed",
    ]  # fmt: skip
    assert list(told["leaks"][0]) == [
        "against", "what", "num_pictures", "num_unusable", "num_pairs", "same_file", "same_coco", "look_alike",
        "same_prompts", "same_pairs",
    ]  # fmt: skip
    assert told["version"] == 1


def test_every_table_is_square(leaky: tuple[Path, Path], tmp_path: Path) -> None:
    facts = checked(*leaky, evaluation(tmp_path / "eval")).facts
    tables = list(listings(facts))
    assert len(tables) >= 6
    for table in tables:
        widths = {len(table_row) for table_row in table.rows} | ({len(table.header)} if table.header else set())
        assert len(widths) == 1, table.title


def test_the_page_escapes_everything_and_needs_nothing_else(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    (tmp_path / "i").mkdir()
    name = "<b onmouseover=alert(3)>.png"
    (tmp_path / "i" / name).write_bytes(encoded(photo(0)))
    rows = [
        row(0, name, f"{evil}?", f"{evil} red", f"{evil} blue"),
        row(1, f"{evil.replace('/', '')}.png", "What?", "A.", "B."),
    ]
    rows[0]["id"] = evil
    path = written(tmp_path / "<u>d&.json", rows)
    write_page(checked(path, tmp_path / "i", tmp_path / "i", num_samples=5), target=tmp_path / "p.html", seed=0)
    page = (tmp_path / "p.html").read_text()
    for tag in ("<script", "<img src=x", "<b onmouseover", "<u>"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<ins>red</ins>" in page
    assert "<del>blue</del>" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count('src="data:image/') == 1


def test_a_picture_that_is_gone_is_a_note_on_the_page(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png"])
    found = checked(written(tmp_path / "d.json", [row(0, "a.png", "What?", "A.", "B.")]), images, num_samples=1)
    (images / "a.png").unlink()
    write_page(found, target=tmp_path / "p.html", seed=0)
    assert "image missing" in (tmp_path / "p.html").read_text()


def test_a_set_without_a_usable_row_is_told_too(tmp_path: Path) -> None:
    found = texts(tmp_path, ("What?", "Same.", "Same."))
    assert (found.facts.chosen, found.facts.length_bias, found.facts.rows.passed) == (None, None, False)
    write_page(found, target=tmp_path / "p.html", seed=0)
    assert "none of 1 rows gives a pair" in (tmp_path / "p.html").read_text()
