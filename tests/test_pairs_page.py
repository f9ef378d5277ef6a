"""The page of `verisight pairs`: exact counts, marks, and nothing of the data that a browser would obey."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny import CHOSEN, REJECTED, pair, picture
from verisight.data.files import write_jsonl
from verisight.data.records import write_pairs
from verisight.negatives.bdhs import Negative
from verisight.sources.generated import averaged
from verisight.study import pairs_facts
from verisight.study.pairs_counts import Bin, Round, Threshold
from verisight.study.pairs_facts import collect_facts, num_words, pair_files, percent, summary_lines
from verisight.study.pairs_page import card, stretches, write_pairs_page
from verisight.types import Answer, ImageRef, Message, Pair, UserError

EVIL = '<script>alert("x")</script><img src=x onerror=y>'
PANELS = ("Resolved after each round", "Similarity to the chosen answer", "Share written by the model")


def made(index: int, *, round_: int, similarity: float, **changes) -> Pair:
    notes = {
        "round": round_, "guided": round_ < 4, "similarity": similarity, "encoder": "scripted", "eps": 0.97,
        "view": {"kind": "masked", "kept": 1, "of": 36}, "guidance": "sentence_guided", "seed": 0, "truncated": False,
        "cuts": [3], "written": [[28, 38], [39, 50]],
    }  # fmt: skip
    return replace(pair(index), origin="bdhs_attn", notes=notes | changes)


ROUNDS = [(1, 0.5), (1, 0.6), (1, 0.7), (1, 0.8), (2, 0.9), (4, 0.96), (4, 0.99), (4, 1.0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder: eight answers of four rounds (none taken in the third), two examples without a pair, a bad row."""
    pairs = [made(i, round_=r, similarity=s, truncated=i == 0) for i, (r, s) in enumerate(ROUNDS)]
    write_pairs(tmp_path / "pairs.parquet", pairs)
    write_jsonl(tmp_path / "equal_pairs.jsonl", [{"reason": "rejected equals chosen", "row": i} for i in (3, 7)])
    write_jsonl(tmp_path / "bad_rows.jsonl", [{"reason": "no image", "row": 1}])
    write_jsonl(tmp_path / "bad_rows.diagnose.jsonl", [{"reason": "of other data", "row": 1}])
    return tmp_path


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what the page shows and refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.shown = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs): ...

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


def test_facts_of_a_known_file_are_exact(folder: Path) -> None:
    """5 of 10 examples are resolved after the second round: 8 answers, and 2 examples without one.

    The two answers have 20 words each, 2 of which differ; the model wrote 21 characters of the rejected one.
    """
    facts = collect_facts(folder / "pairs.parquet")
    assert (facts.num, facts.num_several, facts.num_supervised, facts.num_misfit) == (8, 0, 0, 0)
    assert facts.origins == (("bdhs_attn", 8),)
    assert set(facts.left_out) == {
        ("bad_rows.jsonl", "no image", 1),
        ("equal_pairs.jsonl", "rejected equals chosen", 2),
    }
    assert (facts.chosen.num, facts.chosen.mean, facts.chosen.median) == (8, 20, 20)
    assert (facts.edits.num, facts.edits.mean, facts.edits.bins[2]) == (8, pytest.approx(4 / 40), (0.1, 0.15, 8))
    found = facts.made
    assert (found.num, found.num_truncated) == (8, 1)
    assert (found.views, found.guidances) == ((("masked", 8),), (("sentence_guided", 8),))
    assert found.written.mean == pytest.approx(21 / len(REJECTED))
    assert found.similarities.rounds == (
        Round(1, 4, 0, 4, 0.4, 0.65),
        Round(2, 1, 0, 1, 0.5, 0.9),
        Round(3, 0, 0, 0, 0.5, None),
        Round(4, 3, 3, 1, 0.6, 0.99),
    )
    assert (found.similarities.num_similar, found.similarities.median) == (2, 0.85)
    assert found.similarities.thresholds == (Threshold("scripted", 0.97, 8),)
    assert len(found.similarities.bins) == 50
    assert found.similarities.bins[-1] == Bin(0.99, 1.0, 2)
    assert sum(one.num for one in found.similarities.bins) == 8


def test_the_facts_are_said_in_lines(folder: Path) -> None:
    assert summary_lines(collect_facts(folder / "pairs.parquet")) == [
        "8 pairs: 8 bdhs_attn",
        "left out: 1 no image, 2 rejected equals chosen",
        "resolved: 40 % after round 1, 50 % after 2, 50 % after 3, 60 % after unguided round 4",
        "similarity: median 0.85, threshold 0.97 (scripted)",
        "edited: 10 % of the words; length: 20.0 words chosen, 20.0 rejected",
        f"written by the model: {100 * 21 / len(REJECTED):.0f} % of the characters of 8 answers",
        "cut off at the token limit: 12 %",
    ]
    assert [percent(share) for share in (0, 0.004, 0.5, 0.999, 1)] == ["0 %", "0.4 %", "50 %", "99.9 %", "100 %"]


def test_a_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = Counter()

    def watched(path, **options):
        for outcome in real(path, **options):
            walks[outcome.row] += 1
            yield outcome

    real = pairs_facts.open_data
    monkeypatch.setattr(pairs_facts, "open_data", watched)
    write_pairs_page(folder)
    assert walks == {row: 1 for row in range(8)}


def test_the_page_is_whole_and_needs_nothing_else(folder: Path) -> None:
    write_pairs(folder / "pairs.parts.1.source.parquet", [pair(0), pair(1)])
    assert [path.name for path in pair_files(folder)] == ["pairs.parquet", "pairs.parts.1.source.parquet"]
    target = write_pairs_page(folder, num=4)
    assert target == folder / "pairs.html"
    text = target.read_text()
    page = Page(text)
    assert len(page.links) == 6
    assert all(link.startswith("data:image/") for link in page.links)
    assert "script" not in page.tags
    assert page.tags.count("h2") == 2
    assert all(page.shown.count(title) == 2 for title in PANELS), "as a title, and as that of its numbers"
    assert page.shown.count("Share of words that differ") == 4
    for said in ("threshold 0.97", "2 were kept although still similar", "masked 1 of 36 visible", "round 4, unguided"):
        assert said in page.shown
    assert '<mark class="changed"><u>' in text
    assert write_pairs_page(folder, num=4, target=folder / "again.html").read_text() == text


def test_pairs_that_were_not_made_here_have_no_such_panels(tmp_path: Path) -> None:
    judged = replace(pair(0), origin="online", notes={"annotator": "oracle", "verdict": "fewer", "num_samples": 2})
    write_pairs(tmp_path / "pairs.parquet", [judged, pair(1)])
    facts = collect_facts(tmp_path / "pairs.parquet")
    assert (facts.made, facts.annotators) == (None, (("oracle", 1),))
    page = Page(write_pairs_page(tmp_path).read_text())
    assert not any(title in page.shown for title in (*PANELS, "Underlined"))
    assert all(said in page.shown for said in ("annotator: oracle", "verdict: fewer", "samples: 2"))


def test_of_averaged_pairs_the_last_answer_is_the_one_that_was_made(tmp_path: Path) -> None:
    view = {"kind": "noised", "steps": 500}
    negative = Negative("The image shows a zoo.", 2, True, 0.4, ((18, 21),), view, {"eps": 0.9, "encoder": "e"})
    both = averaged(pair(0), negative, gamma=0.75, origin="bdhs_noise")
    assert both is not None
    shown = card(both)
    assert [one.label for one in shown.answers] == ["Chosen", "Rejected, weight 0.75", "Rejected, weight 0.25"]
    assert [[one.text for one in answer.stretches if one.written] for answer in shown.answers] == [[], [], ["zoo"]]
    assert {"offline+bdhs_noise", "round 2", "noised steps 500"} <= set(shown.badges)
    write_pairs(tmp_path / "pairs.parquet", [both])
    facts = collect_facts(tmp_path / "pairs.parquet")
    assert (facts.num_several, facts.rejected.num, facts.edits.num, facts.made.num) == (1, 2, 2, 1)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    notes = {"encoder": EVIL, "view": {"kind": EVIL, EVIL: EVIL}, "guidance": EVIL, "annotator": EVIL, "verdict": EVIL}
    hostile = made(0, round_=1, similarity=0.5, written=[[0, 20]], **notes)
    asked = replace(hostile.prompt, uid=EVIL, text=EVIL, history=(Message("user", EVIL), Message("assistant", EVIL)))
    answers = {"chosen": Answer(f"A dog. {EVIL}"), "rejected": (Answer(f"A cat. {EVIL}"),)}
    write_pairs(tmp_path / "pairs.parquet", [replace(hostile, prompt=asked, origin=EVIL, **answers)])
    write_jsonl(tmp_path / "bad_rows.jsonl", [{"reason": EVIL}])
    page = Page(write_pairs_page(tmp_path).read_text())
    assert collect_facts(tmp_path / "pairs.parquet").num_misfit == 0
    assert "script" not in page.tags
    assert all(link.startswith("data:image/") for link in page.links)
    assert page.shown.count("<script>") >= 12


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 0}, {"round": "1"}, {"round": 10**9}, {"similarity": float("nan")}, {"similarity": 7}, {"eps": "low"},
        {"written": [[0, 999]]}, {"written": [[9, 4]]}, {"written": [[4, 9], [8, 12]]}, {"written": [[1]]}, {"view": 3},
    ],
)  # fmt: skip
def test_notes_that_do_not_fit_are_counted_and_told(tmp_path: Path, changes: dict) -> None:
    one = made(0, round_=1, similarity=0.5)
    write_pairs(tmp_path / "pairs.parquet", [replace(one, notes=one.notes | changes)])
    facts = collect_facts(tmp_path / "pairs.parquet")
    assert (facts.num_misfit, facts.made) == (1, None)
    assert "notes that don't fit their answers: 1" in summary_lines(facts)
    assert "notes that don\u2019t fit them" in write_pairs_page(tmp_path).read_text()


def test_pictures_that_cannot_be_shown_are_told(tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(picture(0).data or b"")
    there = replace(pair(0), prompt=replace(pair(0).prompt, images=(ImageRef(path=file),)))
    gone = replace(pair(1), prompt=replace(pair(1).prompt, images=(ImageRef(path=tmp_path / "1.png"),)))
    (tmp_path / "1.png").write_bytes(picture(1).data or b"")
    write_pairs(tmp_path / "pairs.parquet", [there, gone])
    (tmp_path / "1.png").unlink()
    facts = collect_facts(tmp_path / "pairs.parquet")
    assert (facts.num, facts.unread) == (1, (("image missing", 1),))
    file.write_bytes(b"\x89PNG broken")
    assert card(there).pictures[0].problem
    assert card(there).pictures[0].uri == ""
    write_pairs(tmp_path / "pairs.parquet", [gone])
    with pytest.raises(UserError, match=r"pairs\.parquet: holds no pair .*image missing: 1"):
        write_pairs_page(tmp_path)


def test_folders_and_files_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no pairs\.parquet"):
        write_pairs_page(tmp_path)
    write_pairs(tmp_path / "pairs.parquet", [])
    with pytest.raises(UserError, match=r"pairs\.parquet: holds no pair that can be read \(no rows\)"):
        write_pairs_page(tmp_path)
    write_pairs(tmp_path / "pairs.parquet", [pair(0)])
    write_jsonl(tmp_path / "bad_rows.jsonl", [{"row": 1}])
    with pytest.raises(UserError, match=r"bad_rows\.jsonl: row 0: no `reason`"):
        write_pairs_page(tmp_path)


def test_supervised_rows_and_pairs_without_pictures_are_shown(tmp_path: Path) -> None:
    alone = replace(pair(0), rejected=(), weights=(), prompt=replace(pair(0).prompt, images=()))
    write_pairs(tmp_path / "pairs.parquet", [alone])
    facts = collect_facts(tmp_path / "pairs.parquet")
    assert (facts.num_supervised, facts.rejected, facts.edits) == (1, None, None)
    page = Page(write_pairs_page(tmp_path).read_text())
    assert CHOSEN in page.shown
    assert "svg" not in page.tags


def test_the_sample_is_drawn_by_seed_in_the_files_order(folder: Path) -> None:
    def drawn(seed: int, num: int = 3) -> list[str]:
        return [one.prompt.uid for one in collect_facts(folder / "pairs.parquet", num=num, seed=seed).sample]

    assert drawn(0) == drawn(0) == sorted(drawn(0))
    assert len(drawn(0, num=99)) == 8
    assert drawn(0, num=0) == []
    times = Counter(uid for seed in range(60) for uid in drawn(seed))
    assert len(times) == 8
    assert min(times.values()) > 8, "each with 3/8 of 60, within four standard errors"


words = st.lists(st.sampled_from(["a", "dog", "it's", "bus.", "<b>", "…", "né", "\n", "猫"]), max_size=9).map(" ".join)
# more characters than are shown
long = st.builds(lambda text, num: text * num, words, st.sampled_from([1, 1, 1, 700]))


@given(long, words, st.data())
def test_stretches_are_the_text_cut_where_marks_begin_or_end(text: str, other: str, data: st.DataObject) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
    written = ((ends[0], ends[1]), (ends[2], ends[3]))
    found = stretches(text, other, written=written)
    told = "".join(one.text for one in found)
    assert told == text if len(text) <= 6000 else told.startswith(text[:6000])
    at = 0
    for one in found:
        if at < 6000:
            assert one.written == any(start <= at < end for start, end in written)
        at += len(one.text)


def test_of_very_long_answers_the_beginning_is_shown() -> None:
    found = stretches("dog " * 2000, "cat")
    assert ["".join(one.text for one in found[:-1]), found[-1].text] == ["dog " * 1500, " [... 2,000 characters more]"]


def test_words_are_counted_in_scripts_without_blanks_too() -> None:
    assert num_words("It is a dog, 3 dogs!") == 6
    assert num_words("这是一只猫。") == 5
    assert num_words("这是一只猫。", ((4, 5),)) == 1
    assert num_words("a dog and", ((2, 5),)) == 1
