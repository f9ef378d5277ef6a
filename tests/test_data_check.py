"""What a check says of small sets whose faults, repeats, bias and leaks are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from checked_sets import checked, encoded, photo, pictures, row, written
from verisight.data import check_repeats
from verisight.data.check import Checked
from verisight.data.check_facts import quantile, wilson
from verisight.data.check_page import write_page
from verisight.data.check_text import cautions, listings, verdict

LONG = "A man in a red coat walks a small brown dog along the wet road while two children wave from a blue bus"


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
    other = LONG.replace("bus", "van")
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
    assert all(table.rows for table in listings(found.facts))
    write_page(found, target=tmp_path / "p.html", seed=0)
    assert "none of 1 rows gives a pair" in (tmp_path / "p.html").read_text()
