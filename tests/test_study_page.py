"""The page of a study: whole, escaped, in need of nothing else, and every number is on it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from studies_made import COLUMNS, findings, scene, with_text
from verisight.studies.drawings import Compared, Dot, Series, chart, forest, swatch, tick_texts
from verisight.studies.export import shown
from verisight.studies.findings import ArmRow, Cell, Claim, Curve, Effect, Findings, Rounds, Sweep, SweepPoint
from verisight.studies.page import Arms, write_page
from verisight.studies.scatter import Placed, scatter

EVIL = "\"'><script>window.evil = 1</script><img src=x onerror=window.evil=1> & </style></script><!-- {{ 1 }}"
VOID = {"meta", "img", "br", "input"}
NONE = Effect(None, None, None, None, "not measured")


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what the page shows and refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.texts, self.samples = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.samples = self.samples or data
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def written(found, folder):
    target = folder / "new" / "study.html"
    assert write_page(found, target) == target
    return target.read_text(encoding="utf-8")


def bare(**changes):
    """Findings of nothing but a title."""
    empty = dict.fromkeys(("columns", "rows", "budget", "varies", "claims", "curves", "sweeps", "rounds", "answers",
                           "pairs", "facts"), ())  # fmt: skip
    whole = {"name": "n", "title": "t", "about": "", "base": "base", "control": "control", "pictures": {}} | empty
    return Findings(**whole | changes)


@pytest.mark.parametrize(("arms", "seeds"), [(1, 1), (2, 3), (10, 3)])
def test_page_is_whole_and_needs_nothing_else(tmp_path, arms, seeds):
    text = written(findings(num_arms=arms, num_seeds=seeds), tmp_path)
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    for word in ("http:", "https:", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML", "eval("):
        assert word not in text
    [policy] = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'")
    assert text.index("Content-Security-Policy") < text.index("<style>")
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") == "true" for attrs in drawn)
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs} <= set(ids)
    assert {link[1:] for link in page.links} <= set(ids)


def test_everything_from_data_is_escaped(tmp_path):
    tame = Page(written(findings(num_arms=3), tmp_path))
    text = written(with_text(findings(num_arms=3), lambda said: said + EVIL), tmp_path)
    page = Page(text)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in tame.tags]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "What makes pairs good" + " ".join(EVIL.split()) in page.text
    assert "<script>window" not in text
    assert "<img" not in text
    data = json.loads(page.samples)
    assert data["answers"][0]["question"].endswith(EVIL)
    assert "<" not in page.samples


def test_every_number_is_on_the_page(tmp_path):
    found = findings(num_arms=5)
    text = Page(written(found, tmp_path)).text
    for row in found.rows:
        assert row.label in text
        assert row.about in text
        assert all(f"{value:.2f}" in text for _, value in row.paper)
        for cell, column in zip(row.cells, found.columns, strict=True):
            assert all(shown(value, column) in text for value in (cell.value, cell.low, cell.high, *cell.by_seed))
            for effect in filter(None, (cell.to_base, cell.to_control)):
                numbers = [shown(value, column, signed=True) for value in (effect.value, effect.low, effect.high)]
                assert f"{numbers[0]} {effect.verdict}{numbers[1]} to {numbers[2]}" in text
    for sweep in found.sweeps:
        for _, points in sweep.series:
            assert all(f"{shown(p.low, sweep.column)} to {shown(p.high, sweep.column)}" in text for p in points)
    assert all(f"{100 * share:.1f}" in text for one in found.rounds for share in one.shares)
    for claim in found.claims:
        assert claim.text in text
        assert all(part.expects in text for part in claim.parts)
    for fact in found.facts:
        assert fact.folder in text
    for words in (*(value for entry in found.budget for value in entry), *found.varies, *found.notes, *found.missing):
        assert words in text


def test_best_control_and_cautions_are_told_in_words(tmp_path):
    page = Page(written(findings(), tmp_path)).text
    assert "(best)" in page
    assert "(second best)" in page
    assert "SFT control control" in page
    assert "start base" in page
    assert "Mind: its answers are much shorter than the base's" in page
    assert "Mind: Terse makes up less than start, but also finds less." in page


def test_a_study_without_a_control_speaks_of_none(tmp_path):
    made = findings(num_arms=3)
    rows = tuple(replace(row, cells=tuple(replace(cell, to_control=None) for cell in row.cells)) for row in made.rows)
    text = Page(written(replace(made, rows=(rows[0], rows[2])), tmp_path)).text
    assert "Every arm less start (round), with" in text
    assert "Differences to" not in text


def test_many_missing_runs_are_folded_and_a_name_is_not_said_twice(tmp_path):
    made = findings(num_arms=2)
    rows = (replace(made.rows[0], label="base"), *made.rows[1:])
    few = written(replace(made, rows=rows), tmp_path)
    assert "one run is missing" in few
    assert '<span class="tag">base</span>' not in few
    page = Page(written(replace(made, missing=tuple(f"arm-{at}" for at in range(7))), tmp_path)).text
    assert "7 runs are missing" in page
    assert "Which arm-0arm-1" in page


def test_what_was_not_measured_is_no_number(tmp_path):
    empty = Cell(None, None, None, (None,), NONE, None)
    row = ArmRow("x", "X", "", False, (0,), (empty,) * len(COLUMNS))
    made = findings(num_arms=1)
    partly = replace(row, seeds=(0, 1), cells=(replace(empty, by_seed=(0.123,)),) * len(COLUMNS))
    never = replace(row, cells=(replace(empty, by_seed=(), to_base=None),) * len(COLUMNS))
    text = Page(written(replace(made, rows=(*made.rows, row, partly, never)), tmp_path)).text
    assert "12.3" in text
    assert "\u2013 not measured" in text
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize("changes", [
    {},
    {"columns": COLUMNS},
    {"columns": COLUMNS[:1], "rows": (ArmRow("a", "A", "", False, (), (Cell(0.5, None, None, ()),)),)},
    {"scatter": ("none/such", "chair/recall")},
    {"columns": (COLUMNS[0], COLUMNS[2]), "scatter": ("chair/chair_i", "chair/recall"),
     "rows": (ArmRow("a", "A", "", False, (), (Cell(0.5, None, None, ()), Cell(None, None, None, ()))),)},
    {"curves": (Curve("gone", "loss", "loss", (1,), (0.5,), (0.5,), (0.5,)), Curve("gone", "b", "", (), (), (), ()))},
    {"sweeps": (Sweep("s", "x", True, COLUMNS[0], ()), Sweep("z", "x", True, COLUMNS[0],
                (("one", (SweepPoint(0.0, "a", 0.5, None, None), SweepPoint(1.0, "a", 0.5, 0.4, None))),)))},
    {"rounds": (Rounds("r", ()),)},
    {"claims": (Claim("C", "t", "not measured", ()),)},
])  # fmt: skip
def test_what_there_is_little_of_is_shown_all_the_same(tmp_path, changes):
    page = Page(written(bare(**changes), tmp_path))
    assert "None" not in page.text
    assert 'id="samples-data"' not in str(page.tags)


def test_pictures_that_cannot_be_read_become_notes(tmp_path):
    made = replace(findings(num_arms=3, num_samples=3), pictures={"p0": scene(0), "p1": b"no picture"})
    pictures = json.loads(Page(written(made, tmp_path)).samples)["pictures"]
    assert pictures["p0"]["uri"].startswith("data:image/png;base64,")
    assert (pictures["p0"]["width"], pictures["p0"]["pixelated"]) == (192, True)
    assert pictures["p1"]["problem"]
    assert pictures["p2"] == {"problem": "image missing"}


def test_samples_keep_texts_and_marks(tmp_path):
    made = findings(num_arms=4, num_samples=4)
    data = json.loads(Page(written(made, tmp_path)).samples)
    assert [arm["label"] for arm in data["arms"]] == [row.label for row in made.rows]
    for sample, told in zip(made.answers, data["answers"], strict=True):
        for said, answer in zip(sample.answers, told["answers"], strict=True):
            assert "".join(text for text, _ in answer["pieces"]) == said.text
            marked = [text for text, kind in answer["pieces"] if kind == "made up"]
            assert marked == [said.text[m.start : m.end] for m in said.mentions if m.hallucinated]
            assert (answer["num_made"], answer["num"]) == (len(marked), len(said.mentions))
    for pair, told in zip(made.pairs, data["pairs"], strict=True):
        assert "".join(text for text, *_ in told["rejected"]) == pair.rejected
        own = "".join(text for text, _, written_ in told["rejected"] if written_)
        assert own == "".join(pair.rejected[start:end] for start, end in pair.written)


def test_arms_are_found_by_key_and_by_label():
    made = findings(num_arms=3)
    arms = Arms(replace(made, facts=(replace(made.facts[0], arm="a part"),)))
    assert arms.style("dpo_povid") == arms.style("DPO, POVID") == 2
    assert arms.label("DPO, POVID") == arms.label("dpo_povid") == "DPO, POVID"
    assert (arms.style("a part"), arms.style("nobody"), arms.label("nobody")) == (3, -1, "nobody")


def test_colours_come_with_markers_and_dashes_of_their_own():
    assert len({re.sub('class="[^"]*"', "", swatch(style)) for style in range(20)}) == 20


def test_forest_says_which_side_is_better():
    effect = Effect(-0.031, -0.05, -0.01, 0.01, "better")
    told = forest([Compared("A", effect, NONE)], COLUMNS[0], base="start", control="SFT")
    root = ElementTree.fromstring(told)
    texts = [one.text for one in root.iter("text")]
    assert "\u2190 better" in texts
    assert "worse \u2192" in texts
    assert root.attrib["aria-label"] == "CHAIR_i. A: less start \u22123.1 (\u22125.0 to \u22121.0), better."
    flipped = forest([Compared("A", effect, None)], COLUMNS[2], base="start", control="SFT")
    assert "better \u2192" in [one.text for one in ElementTree.fromstring(flipped).iter("text")]
    neutral = forest([Compared("A", effect, None)], COLUMNS[4], base="start", control="SFT")
    assert "higher \u2192" in [one.text for one in ElementTree.fromstring(neutral).iter("text")]


def test_scatter_labels_lie_on_no_other():
    spots = [(0.1 + 0.004 * at, 0.7 + 0.003 * (at % 3)) for at in range(10)]
    placed = [
        Placed(f"arm {at}", at, (x, x - 0.01, x + 0.01), (y, None, None), at == 0) for at, (x, y) in enumerate(spots)
    ]
    root = ElementTree.fromstring(scatter(placed, COLUMNS[0], COLUMNS[2]))
    places = [(float(t.attrib["x"]), float(t.attrib["y"])) for t in root.iter("text") if t.attrib["class"] == "label"]
    assert len(places) == 10
    for at, (x, y) in enumerate(places):
        assert all(abs(x - a) > 36 or abs(y - b) > 10 for a, b in places[:at])
    assert "makes up less, finds less: it says less" in [t.text for t in root.iter("text")]


def test_charts_keep_points_inside_and_say_their_ends():
    dots = (Dot(50, 0.2, 0.15, 0.25), Dot(100, 0.1, 0.05, 0.12), Dot(800, 0.05, None, None, "named"))
    root = ElementTree.fromstring(
        chart([Series("A", 1, dots)], title="T", x_label="x", y_label="y", percent=True, log_x=True)
    )
    assert root.attrib["aria-label"] == "T: A from 20.0 % at 50 to 5.0 % at 800."
    [line] = root.iter("polyline")
    xs, ys = zip(*(map(float, point.split(",")) for point in line.attrib["points"].split()), strict=True)
    assert xs[2] - xs[1] == pytest.approx(3 * (xs[1] - xs[0]), abs=0.1), "800 is three doublings from 100"
    assert all(0 < y < 250 for y in ys)
    assert [one.text for one in root.iter("title")][-1] == "named"
    assert tick_texts([-0.05, 0.0, 0.05], percent=True, signed=True) == ["\u22125", "0", "+5"]
    assert tick_texts([0.001, 0.0015], percent=True) == ["0.10", "0.15"]
