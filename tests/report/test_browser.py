"""The page in a real browser: nothing to complain of, everything rendered, readable everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.report.chromium import EXECUTABLE, Chromium
from tests.report.examples import REPORT
from tfqprune import report

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="chromium is not installed (apt-get install chromium)")

# Every text in the page: its size on the screen, and its contrast to the nearest background that is painted.
_TEXTS = """(() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0) return c; }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement, style = getComputedStyle(e);
    if (!node.textContent.trim() || ["STYLE", "SCRIPT"].includes(e.tagName)) continue;
    const range = document.createRange(); range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (!box.height || e.closest(".skip")) continue;
    const svg = e.closest("svg");
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const ink = parse(svg ? style.fill : style.color), ground = behind(e);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    found.push([node.textContent.trim(), parseFloat(style.fontSize) * scale, (high + 0.05) / (low + 0.05)]);
  }
  return found;
})()"""
_SHOWN = """[...document.querySelectorAll("main section, main figure, main svg, main table, dl, pre")].map(e => {
  const box = e.getBoundingClientRect();
  return [e.id || e.getAttribute('class') || e.tagName, box.width, box.height, !!e.closest("details")];
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(REPORT, tmp_path_factory.mktemp("page"))["html"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


LOOKS = [(1280, False), (1280, True), (390, False), (390, True), (320, False)]


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_nothing_to_complain_of(browser: Chromium, page: Path, width: int, dark: bool) -> None:
    browser.show(page, width=width, dark=dark, phone=width < 500)
    assert browser.complaints() == []
    assert browser.addresses() == {page.as_uri()}


def test_complaints_are_heard(browser: Chromium, tmp_path: Path) -> None:
    """The test above can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('no'); undefined.x</script><img src='missing.png'>")
    before = len(browser.events)
    browser.show(bad, width=400)
    heard = " ".join(browser.complaints())
    assert "console:" in heard
    assert "exception:" in heard
    assert "not loaded:" in heard
    assert any(address.endswith("missing.png") for address in browser.addresses())
    del browser.events[before:]


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_everything_is_rendered_and_nothing_sticks_out(browser: Chromium, page: Path, width: int, dark: bool) -> None:
    browser.show(page, width=width, dark=dark, phone=width < 500)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    shown = browser.run(_SHOWN)
    names = {name for name, *_ in shown}
    sections = ("compared", "agreement", "groups", "size", "trials", "files")
    assert {f"network-1-{section}" for section in sections} | {"network-1", "network-2", "reproduce"} <= names
    assert [entry for entry in shown if entry[1] < 100 or entry[2] < 15] == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert sum(name.startswith("plot-") for name in names) == 10


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_texts_are_large_and_stand_out(browser: Chromium, page: Path, width: int, dark: bool) -> None:
    """WCAG 2.1, 1.4.3: text needs 4.5 : 1."""
    browser.show(page, width=width, dark=dark, phone=width < 500)
    texts = browser.run(_TEXTS)
    assert len(texts) > 200
    assert [text for text in texts if text[2] < 4.5] == []
    assert [text for text in texts if text[1] < (8.0 if width >= 390 else 6.5)] == []


def test_light_and_dark_differ(browser: Chromium, page: Path, tmp_path: Path) -> None:
    corner = {}
    for dark in (False, True):
        browser.show(page, width=1280, dark=dark)
        image = Image.open(io.BytesIO(browser.screenshot(tmp_path / "page.png"))).convert("RGB")
        assert len(image.getcolors(1 << 24) or []) > 50
        assert image.height > 2000
        corner[dark] = image.getpixel((2, 2))
    assert min(corner[False]) > 200
    assert max(corner[True]) < 50


def test_on_paper_everything_is_open_and_black_on_white(browser: Chromium, page: Path) -> None:
    browser.show(page, width=800, dark=True, media="print")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    closed = (
        "[...document.querySelectorAll('details table')].map(t => t.checkVisibility({contentVisibilityAuto: true}))"
    )
    assert browser.run(closed) == [True, True]
    assert len(browser.call("Page.printToPDF")["data"]) > 20_000


def test_what_a_screen_reader_meets(browser: Chromium, page: Path) -> None:
    browser.show(page, width=1280)
    browser.call("Accessibility.enable")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    pictures = [name for role, name in seen if role in ("img", "image")]
    assert len(pictures) == 10
    assert all(len(name) > 40 for name in pictures)
    assert all(name for role, name in seen if role in ("link", "region", "navigation", "table"))
    levels = browser.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    # What scrolls can be reached with the keyboard.
    assert browser.run("[...document.querySelectorAll('.wide, .tall')].every(e => e.tabIndex === 0)") is True
