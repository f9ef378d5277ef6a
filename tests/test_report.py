"""The report, on runs made by the real evaluation: honest, escaped, self-contained."""

import io
import json
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from verisight.cli import main
from verisight.data.files import read_json, read_jsonl, write_json, write_jsonl
from verisight.data.records import write_pairs
from verisight.evaluate import Chair, Pope, compare, run_benchmark
from verisight.evaluate.paired import MEASURES
from verisight.study.gallery import LARGE_SIZE, SHOWN_SIZE, collect_answers, collect_pairs, embed
from verisight.study.marks import changed_words, named_objects
from verisight.study.report import Arm, collect, comparison, markdown_table, terminal_table, write_report
from verisight.study.svg import Line, line_chart, ticks
from verisight.study.tables import METRICS, headlines
from verisight.types import Answer, ImageRef, Pair, Prompt, UserError

NUM = 40
EVIL = '<script>alert("1")</script> A dog & a kite.'
MINUS = "\u2212"
VOID = {"meta", "img"}


def png(size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, format="PNG")
    return buffer.getvalue()


def answers_of(rule):
    """A policy whose description of picture i is rule(i), and which says yes to every question."""

    def sample(prompts, *, num, decoding, seed):
        texts = ["Yes." if p.text.startswith("Is") else rule(int(p.images[0].path.stem)) for p in prompts]
        return [[SimpleNamespace(text=text, num_tokens=5, truncated=False)] for text in texts]

    return SimpleNamespace(sample=sample)


RULES = {
    "base": lambda i: "A dog and a kite." if i % 4 else "A dog and a cat.",
    "good & short": lambda i: "A dog and a cat." if i else EVIL,
    "same": lambda i: "A dog and a kite." if i % 4 and i not in (3, 5) else "A dog and a cat.",
    "bad": lambda i: "A kite and a pizza flew over a zebra in the sky today.",
}


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Four evaluated models; the second one has all that a training run leaves behind."""
    root = tmp_path_factory.mktemp("report")
    world = root / "world"
    world.mkdir()
    names = ["dog", "cat", "bus", "train"]
    for i in range(NUM):
        (world / f"{i}.png").write_bytes(png())
    held = [(i, at) for i in range(NUM) for at in (0, 1)] + [(0, 2), (1, 3)]
    table = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(NUM)],
        "categories": [{"id": at, "name": name} for at, name in enumerate(names)],
        "annotations": [{"image_id": i, "category_id": at} for i, at in held],
    }
    write_json(world / "instances.json", table)
    files = {"images": world, "instances": world / "instances.json"}
    made = []
    for label, rule in RULES.items():
        folder = root / label.split()[0]
        for benchmark in (Chair(**files), Pope(**files, num_images=NUM, per_image=1)):
            run_benchmark(answers_of(rule), benchmark, folder=folder, batch_size=64)
        made.append(Arm(label, folder))
    leave_a_training(made[1].folder, keys=("margin_mean", "accuracy", "chosen_logratio_sum", "rejected_logratio_sum"))
    leave_a_training(made[2].folder, keys=("chosen_logp_mean",))
    notes = [{"round": 1 + i // 6, "guided": i < 6, "similarity": 0.5} for i in range(8)]
    asked = [Prompt(f"row{i}", (ImageRef(data=png()),), "What is <here>?") for i in range(8)]
    chosen, rejected = Answer("A dog sits there."), (Answer("A <b>bus</b> sits there now."),)
    pairs = [Pair(one, chosen, rejected, (1.0,), "bdhs", more) for one, more in zip(asked, notes, strict=True)]
    write_pairs(made[1].folder / "pairs.parquet", pairs, license="CC0")
    (made[1].folder / "recipe.yaml").write_text("seed: 0 # <&>\n")
    write_json(made[1].folder / "environment.json", {"python": "3.11"})
    return made


@pytest.fixture(scope="module")
def rows(arms):
    return comparison(arms)


def leave_a_training(folder, *, keys):
    rows = [
        {"step": step, "split": "train", "loss": 1 / step, "seconds": 0.5, "origin": {"bdhs": 4}}
        | {key: 0.1 * step for key in keys}
        for step in range(1, 9)
    ]
    write_jsonl(folder / "metrics.jsonl", rows)


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what the page shows and refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs): ...

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def written(arms, folder, **options):
    return write_report(arms, target=folder / "new" / "r.html", title="A <b>title</b>", **options).read_text()


@pytest.mark.parametrize("num", [1, 2, 4])
def test_page_is_whole_escaped_and_needs_nothing_else(arms, tmp_path, num):
    text = written(arms[:num], tmp_path, num_answers=NUM)
    page = Page(text)
    assert page.links
    assert all(link.startswith("data:image/") for link in page.links)
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text  # noqa: PT018
    assert not {"script", "b"} & {tag for tag, _ in page.tags}
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    assert all(attrs["aria-label"] for tag, attrs in page.tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    shown = "".join(page.texts)
    assert "A <b>title</b>" in shown
    if num > 1:
        assert '<script>alert("1")</script> A ' in shown
        assert "seed: 0 # <&>" in shown


def test_sections_are_there_only_with_their_files(arms, tmp_path):
    assert 'id="training"' not in written(arms[:1], tmp_path)
    assert 'id="pairs"' not in written([arms[0], arms[2]], tmp_path)
    report = collect(arms[:3], images=None)
    assert [(one.arm, len(one.charts)) for one in report.trainings] == [("good & short", 4), ("same", 1)]
    assert report.trainings[0].origins == (("bdhs", 32),)
    assert report.trainings[0].seconds == 4.0
    assert [one.arm for one in report.pairs] == ["good & short"]


def test_headline_is_never_stronger_than_its_interval(arms, rows):
    base_text, *_ = headlines(comparison(arms[:1]))
    assert base_text.startswith("base: CHAIR_i is 37.5 % (95 % interval ")
    good, same, bad = headlines(rows)
    change = compare(arms[0].folder, arms[1].folder)["chair"]["chair_i"]
    low, high = (f"{100 * change[end]:+.1f}".replace("-", MINUS) for end in ("low", "high"))
    assert good.startswith("good & short: CHAIR_i fell from 37.5 % to ")
    assert f"95 % interval {low} to {high})" in good
    assert "CHAIR_i: can't tell (37.5 % before, 35.0 % after; difference " + MINUS + "2.5, 95 % interval " in same
    assert not any(word in same for word in ("fell", "rose"))
    assert "CHAIR_i rose from 37.5 % to 100.0 % (worse; difference +62.5" in bad
    assert "recall fell" in bad


def test_cells_hold_what_summary_and_compare_say(arms, rows):
    """The metric list of the report agrees with the scorers about which way is better."""
    changes = compare(arms[0].folder, arms[3].folder)
    summaries = {arm.label: read_json(arm.folder / "evaluate" / "summary.json") for arm in arms}
    for row in rows:
        path = (row.metric.benchmark, row.metric.name)
        for arm, cell in zip(arms, row.cells, strict=True):
            summary = summaries[arm.label][path[0]]["metrics"][path[1]]
            assert (cell.value.value, cell.value.low) == (summary["value"], summary["low"])
            assert cell.value.file == str(arm.folder / "evaluate" / "summary.json")
        change = changes[path[0]][path[1]]
        assert (row.cells[3].change.value, row.cells[3].change.verdict) == (change["value"], change["verdict"])
    scored = {name: list(read_jsonl(arms[0].folder / "evaluate" / f"{name}.jsonl")) for name in ("chair", "pope")}
    counts = {"num_placed": 0, "num_placed_right": 0, "num_typical": 0}
    scored["chair"] = [row | counts for row in scored["chair"]]
    for metric in METRICS:
        measure = MEASURES[metric.benchmark](scored[metric.benchmark])[metric.name]
        assert (measure.better, measure.fraction) == (metric.better, metric.percent)


def test_objects_are_marked_where_the_scorer_found_them(arms):
    cards = {card.uid: card for card in collect_answers(arms[:2], images=None, num=4 * NUM, seed=0).sample}
    assert len(cards) == NUM
    evil = cards["chair/0"].answers[1].pieces
    assert "".join(piece.text for piece in evil) == EVIL
    assert [piece for piece in evil if piece.kind != "plain"] == [("dog", "true"), ("kite", "made up")]
    assert cards["chair/0"].answers[1].num_made_up == 1


def test_answers_are_a_seeded_sample_and_those_that_changed_most(arms):
    first, again, other = (collect_answers(arms[:2], images=None, num=8, seed=s) for s in (0, 0, 1))
    assert first == again
    assert [card.uid for card in first.sample] != [card.uid for card in other.sample]
    assert (len(first.sample), len(first.changed)) == (6, 2)
    assert not {card.uid for card in first.sample} & {card.uid for card in first.changed}
    assert first.changed[0].uid == "chair/0", "the only answer of which nearly every word is new"
    assert all(card.answers[0].pieces != card.answers[1].pieces for card in first.changed)


def test_pairs_are_counted_by_round_and_their_differing_words_marked(arms):
    gallery = collect_pairs(arms[1], num=5, seed=0)
    assert (gallery.num, gallery.licenses, len(gallery.cards)) == (8, ("CC0",), 5)
    assert [(r.round, r.guided, r.num, r.fraction) for r in gallery.rounds] == [(1, True, 6, 0.75), (2, False, 2, 0.25)]
    card = gallery.cards[0]
    assert card.badges[0] == "bdhs"
    assert ("dog", "changed") in card.chosen
    assert ("<b>bus</b>", "changed") in card.rejected[0]
    assert [int(card.uid[3:]) for card in gallery.cards] == sorted(int(card.uid[3:]) for card in gallery.cards)


words = st.lists(st.sampled_from(["a", "dog", "it's", "bus.", "<b>", "…", "né", "\n"]), max_size=8).map(" ".join)


@given(words, words)
def test_pieces_are_the_text_and_equal_words_stay_plain(text, other):
    pieces = changed_words(text, other)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.kind == "plain" for piece in changed_words(text, text))


def test_mentions_outside_the_text_are_our_own_mistake():
    with pytest.raises(AssertionError, match="inside the text"):
        named_objects("dog", [{"start": 0, "end": 4, "hallucinated": False}])


def test_tables_colour_only_what_is_decided(arms, rows):
    console = Console(width=200, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(terminal_table(rows))
    lines = console.export_text(styles=True).splitlines()
    decided = [line for line in lines if " better" in line or " worse" in line]
    assert decided
    assert all("\x1b[32m" in line or "\x1b[31m" in line for line in decided)
    assert not any("\x1b[3" in part for line in lines for part in line.split("\x1b[0m") if "can't tell" in part)
    table = markdown_table(comparison([Arm("a|b", arms[0].folder), arms[1]])).splitlines()
    assert "a\\|b" in table[0]
    assert len(table) == len(rows) + 2
    assert {line.replace("\\|", "").count("|") for line in table} == {5}


def test_user_errors_name_the_file_or_the_label(arms, tmp_path):
    with pytest.raises(UserError, match=r"nothing.evaluate.summary\.json: missing"):
        comparison([arms[0], Arm("new", tmp_path / "nothing")])
    with pytest.raises(UserError, match="labels of their own"):
        comparison([arms[0], Arm("base", arms[1].folder)])
    write_json(tmp_path / "evaluate" / "summary.json", {})
    with pytest.raises(UserError, match=r"summary\.json: holds none of the benchmarks"):
        comparison([Arm("empty", tmp_path)])


def test_pictures_are_found_enlarged_scaled_down_or_missed(arms, tmp_path):
    small, large = (embed(ImageRef(data=png(size)), alt="x") for size in ((8, 10), (900, 300)))
    assert (small.width, small.height, small.pixelated) == (SHOWN_SIZE, 180, True)
    assert (large.width, large.height, large.pixelated) == (LARGE_SIZE, 133, False)
    assert embed(ImageRef(path=tmp_path / "none.png"), alt="x").problem == "image missing"
    (tmp_path / "0.png").write_bytes(png((16, 16)))
    cards = collect_answers(arms[:1], images=tmp_path, num=4 * NUM, seed=0).sample
    assert cards[0].picture.uri != cards[1].picture.uri, "the folder given comes before the stored path"


def test_charts_are_drawn_inside_their_frame_and_told_in_words():
    lines = [Line("chosen", (1, 2, 9), (-5.0, 0.0, 2.0)), Line("<&>", (1, 9), (3.0, 3.0))]
    chart = ElementTree.fromstring(line_chart(lines, title="Log-ratio", y_label="nats"))
    _, _, width, height = map(float, chart.get("viewBox").split())
    points = [point.split(",") for line in chart.iter("polyline") for point in line.get("points").split()]
    assert {0 < float(x) < width and 0 < float(y) < height for x, y in points} == {True}
    assert "chosen from" in chart.get("aria-label")
    assert "<&>" in [text.text for text in chart.iter("text")]
    assert ticks(-0.31, 0.62, 5) == [-0.2, 0, 0.2, 0.4, 0.6]
    assert "nan" not in line_chart([Line("loss", (1,), (0.0,))], title="Loss", y_label="loss")


def test_cautions_speak_up_beside_a_lower_rate(arms, tmp_path):
    world = arms[0].folder.parent / "world"
    chair = Chair(images=world, instances=world / "instances.json")
    run_benchmark(answers_of(lambda i: "Dog."), chair, folder=tmp_path, batch_size=64)
    summary = read_json(tmp_path / "evaluate" / "summary.json")
    summary["chair"]["metrics"]["truncated_fraction"]["value"] = 0.25
    write_json(tmp_path / "evaluate" / "summary.json", summary)
    cautions = collect([arms[0], Arm("quiet", tmp_path)], images=None).cautions
    assert any("shorter" in one for one in cautions)
    assert any("names fewer" in one for one in cautions)
    assert "quiet: 25.0% of the descriptions were cut off by the token limit." in cautions


def test_two_runs_are_compared_on_the_command_line(arms, tmp_path, capsys):
    first, second = arms[0].folder, arms[1].folder
    assert verisight_main("compare", first, second, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = compare(first, second)
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        for metric, row in rows.items():
            assert {k: v for k, v in row.items() if k != "detectable"} == expected[name][metric]
            told = row["low"] is not None
            assert row["detectable"] == (
                pytest.approx((row["high"] - row["low"]) * 0.71464, rel=1e-3) if told else None
            )
    assert verisight_main("compare", first, second) == 0
    assert "can't tell" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert verisight_main("compare", first, tmp_path / "empty") == 2
    assert "holds no evaluate/summary.json" in capsys.readouterr().err


def verisight_main(*words):
    """The exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["verisight", *map(str, words)])
        try:
            return main()
        except SystemExit as stopped:
            return stopped.code or 0
