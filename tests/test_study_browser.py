"""The page of a study in a browser: filters, keys, colours, a phone, print; and nothing in it runs that shouldn't."""

import os
import re
from pathlib import Path

import pytest

from studies_made import findings, with_text
from verisight.studies.page import write_page

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
EVIL = "\"'><img src=x onerror=window.evil=1><script>window.evil=1</script></script><script>window.evil=1</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,  # playwright and the browser talk to each other
    pytest.mark.skipif(not CHROMIUM.exists(), reason="neither /usr/bin/chromium nor what $CHROMIUM names exists"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def made():
    return findings()


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    return write_page(made, tmp_path_factory.mktemp("page") / "study.html")


@pytest.fixture
def opened(browser, file):
    """Opens a page, the study's unless told otherwise; afterwards nothing may have been said on the console."""
    contexts, said = [], []

    def open_page(path=file, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def panel(page, name="answers"):
    return page.locator(f"#panel-{name}")


def status(page, name="answers"):
    return panel(page, name).get_by_role("status").inner_text()


def names(page):
    """The arms named on the cards of answers."""
    return set(panel(page).locator(".who").all_inner_texts())


def focused(page):
    return page.evaluate("document.activeElement.closest('.card')?.querySelector('.uid').textContent ?? null")


def test_arms_are_shown_as_chosen(opened, made):
    page = opened()
    assert status(page) == "24 of 24 pictures shown"
    assert names(page) == {row.label for row in made.rows}
    for label in ("Terse", "IPO"):
        panel(page).get_by_label(label, exact=True).uncheck()
    assert names(page) == {row.label for row in made.rows} - {"Terse", "IPO"}
    page.get_by_role("button", name="none").click()
    assert status(page) == "0 of 24 pictures shown"
    panel(page).get_by_label("BDHS", exact=True).check()
    assert names(page) == {"BDHS"}
    assert status(page) == "24 of 24 pictures shown"


def test_only_pictures_where_shown_arms_make_up_other_things(opened, made):
    page = opened()
    page.get_by_role("button", name="none").click()
    for label in ("start", "Terse"):
        panel(page).get_by_label(label, exact=True).check()
    panel(page).get_by_label(re.compile("only pictures where")).check()

    def made_up(said):
        return {said.text[m.start : m.end] for m in said.mentions if m.hallucinated}

    wanted = [one.uid for one in made.answers if made_up(one.answers[0]) != made_up(one.answers[-1])]
    assert 0 < len(wanted) < 24
    assert panel(page).locator(".uid").all_inner_texts() == wanted
    assert status(page) == f"{len(wanted)} of 24 pictures shown"
    panel(page).get_by_label("Terse", exact=True).uncheck()
    assert status(page) == "0 of 24 pictures shown"


def test_largest_difference_to_the_base_comes_first(opened, made):
    page = opened()
    assert panel(page).locator(".uid").all_inner_texts() == [one.uid for one in made.answers]
    panel(page).get_by_label("Order").select_option("difference")
    num = {one.uid: [sum(m.hallucinated for m in said.mentions) for said in one.answers] for one in made.answers}
    apart = {uid: max(abs(n - base) for n in (base, *others)) for uid, (base, *others) in num.items()}
    shown = panel(page).locator(".uid").all_inner_texts()
    assert shown == sorted(num, key=lambda uid: -apart[uid])


def test_made_up_words_are_marked_for_eyes_and_ears(opened, made):
    page = opened()
    page.get_by_role("button", name="none").click()
    panel(page).get_by_label("start", exact=True).check()
    first = [one.answers[0] for one in made.answers]
    said = [(one.text[m.start : m.end], m.hallucinated) for one in first for m in one.mentions]
    marks, there = (panel(page).locator(one).all_text_contents() for one in (".made-up", ".there"))
    assert marks == [f"{word} (not in the picture)" for word, hallucinated in said if hallucinated]
    assert there == [word for word, hallucinated in said if not hallucinated]
    assert "wavy" in panel(page).locator(".made-up").first.evaluate("one => getComputedStyle(one).textDecoration")
    pictures = panel(page).locator("img")
    assert pictures.count() == 24
    assert pictures.first.evaluate("one => one.complete && one.naturalWidth") == 64
    assert pictures.first.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"


def test_search_finds_every_word(opened, made):
    page = opened()
    panel(page).get_by_label("Search").fill("KITE Bus")
    texts = ["\n".join([*one.objects, *(said.text for said in one.answers)]) for one in made.answers]
    num = sum("kite" in text and "bus" in text for text in texts)
    assert status(page) == f"{num} of 24 pictures shown"
    panel(page).get_by_label("Search").fill("no such words")
    assert status(page) == "0 of 24 pictures shown"


def test_pairs_by_arm_kind_and_words(opened, made):
    page = opened()
    page.get_by_role("tab", name="Training pairs").click()
    pairs = panel(page, "pairs")
    assert panel(page).is_hidden()
    assert status(page, "pairs") == "40 of 40 pairs shown"
    assert pairs.locator(".card").count() == 24
    pairs.get_by_role("button", name="Show more").click()
    assert pairs.locator(".card").count() == 40
    pairs.get_by_label("Kind").select_option("bdhs")
    assert status(page, "pairs") == "10 of 40 pairs shown"
    pairs.get_by_label("Arm").select_option(label="BDHS")
    assert status(page, "pairs") == "5 of 40 pairs shown"
    own = [one for one in made.pairs if one.arm == "bdhs_attn"]
    assert pairs.locator(".uid").all_inner_texts() == [one.uid for one in own]
    told = pairs.locator(".card").first
    assert "".join(told.locator(".written").all_inner_texts()) == own[0].rejected[slice(*own[0].written[0])]
    assert told.locator("dd").all_text_contents() == [own[0].chosen, own[0].rejected]
    assert told.locator("dd .changed").count() >= 2
    pairs.get_by_label("Search").fill("bdhs_attn/3")
    assert status(page, "pairs") == "1 of 40 pairs shown"


def test_keys_move_search_and_help(opened):
    page = opened()
    page.keyboard.press("j")
    assert focused(page) == "chair/000"
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "chair/002"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("k")
    assert focused(page) == "chair/000"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.type") == "search"
    page.keyboard.type("j?")
    assert panel(page).get_by_label("Search").input_value() == "j?"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_everything_is_reached_by_tab(opened):
    page = opened()
    page.evaluate("document.querySelector('#samples').scrollIntoView()")
    page.get_by_role("tab", name="Answers").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Training").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    reached = []
    for _ in range(18):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(one => one.type || one.className || one.tagName)(document.activeElement)"))
    boxes = ["checkbox"] * 10
    assert reached == ["button", *boxes, "button", "button", "checkbox", "select-one", "search", "card", "SUMMARY"]


def test_lines_of_an_arm_can_be_hidden(opened):
    page = opened(java_script_enabled=False)
    chart = page.get_by_role("img", name=re.compile("^margin_mean: "))
    assert chart.locator(".series").first.is_visible()
    page.get_by_role("checkbox", name="SFT control").uncheck()
    assert not chart.locator(".n1").first.is_visible()
    assert chart.locator(".n2").first.is_visible()


def test_light_and_dark_keep_their_contrast(opened, tmp_path):
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 382) == (scheme == "light")
        low = page.evaluate(CONTRASTS)
        assert low == []
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        assert (tmp_path / f"{scheme}.png").stat().st_size > 50_000


CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const low = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.getClientRects().length || one.closest("script, .said")) continue;
    const style = getComputedStyle(one);
    const pair = [parse(one.closest("svg") ? style.fill : style.color), ground(one)].map(light).sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) low.add(`${one.tagName}.${one.getAttribute("class")} ${ratio.toFixed(2)}`);
  }
  return [...low];
}"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_its_screen(opened, tmp_path, width):
    page = opened(viewport={"width": width, "height": 800})
    for one in page.locator("summary").all():
        one.click()
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_print_holds_what_is_folded_and_no_controls(opened, tmp_path):
    page = opened()
    page.emulate_media(media="print")
    assert page.get_by_text("facts/base-0").is_visible()
    assert page.locator("#panel-pairs .card").first.is_visible()
    assert not panel(page).get_by_label("Order").is_visible()
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 100_000
    assert page.locator("#panel-pairs .card").count() == 40, "those not yet drawn are printed too"


def test_nothing_from_data_runs(opened, tmp_path):
    evil = with_text(findings(num_arms=3, num_samples=4), lambda text: text + EVIL)
    page = opened(write_page(evil, tmp_path / "evil.html"))
    assert status(page) == "4 of 4 pictures shown"
    page.get_by_role("tab", name="Training pairs").click()
    panel(page, "pairs").get_by_label("Kind").select_option(index=1)
    page.keyboard.press("j")
    page.wait_for_timeout(200)
    assert page.evaluate("window.evil === undefined")
    assert "onerror=window.evil" in panel(page, "pairs").locator(".question").first.inner_text()
    assert page.locator("img[src=x]").count() == 0


def test_without_scripts_all_but_the_samples_is_there(opened):
    page = opened(java_script_enabled=False)
    assert page.get_by_text("The samples need JavaScript").is_visible()
    assert page.locator("svg.chart").first.is_visible()
    assert page.locator("table.summary").first.is_visible()
    assert page.locator("#panel-answers").count() == 0
