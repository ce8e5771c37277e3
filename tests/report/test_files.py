"""The page, the JSON and the pictures: complete, self-contained, escaped, repeatable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.report.examples import NAME, NETWORK, REPORT
from tfqprune import report
from tfqprune.errors import OutputError
from tfqprune.report import plots


class _Page(HTMLParser):
    """Collects tags, attributes, text and table cells of a page, and checks that its tags are balanced."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    report.write(REPORT, path / "deep" / "folder")
    return path / "deep" / "folder"


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    return _Page((folder / "report.html").read_text(encoding="utf-8"))


def test_needs_nothing_from_outside(folder: Path, page: _Page) -> None:
    """No script, no style sheet, no picture, no font from anywhere else."""
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"} == set()
    links = [attributes.get("href") for tag, attributes in page.tags if tag == "link"]
    assert links == ["data:,"]
    addresses = set(re.findall(r"(?:url\(|src=|@import)[^)>\s]*", (folder / "report.html").read_text(encoding="utf-8")))
    assert all(address.startswith("url(#") for address in addresses)


def test_readable_on_a_phone_light_and_dark(folder: Path, page: _Page) -> None:
    metas = {attributes.get("name"): attributes.get("content") for tag, attributes in page.tags if tag == "meta"}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert metas["color-scheme"] == "light dark"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    # Pictures are drawn in the page's own text colour.
    assert "currentColor" in text
    assert "#010203" not in text


def test_names_are_escaped(page: _Page) -> None:
    assert NAME in page.text
    assert "Title <b>bold</b>" in page.text
    assert "model output <script>" in page.text
    assert "b" not in [tag for tag, attributes in page.tags if tag == "b" and not page.text]
    assert [tag for tag, _ in page.tags if tag == "script"] == []


def test_every_section_is_there(page: _Page) -> None:
    headings = ["Before and after", "Ratio of each channel group", "Size of each layer, before and after"]
    headings += ["All trials: accuracy against size", "All trials in their order, and the best so far"]
    for heading in [*headings, "To repeat this", "Where it ran", "Versions", "Channel groups: 2", "Trials: 5"]:
        assert heading in page.text, heading
    assert sum(tag == "svg" for tag, _ in page.tags) == 4  # the second network has nothing to draw
    assert ["make", "demo", "tfqprune", "demo", "--seed", "0"][0] in " ".join(page.text)


def test_figures_in_the_table(page: _Page) -> None:
    # 35,660.8 / 50,944 = 0.7; 0.955 - 0.978 = -2.3 points; 45,000 / 60,000 = 0.75.
    for text in ("97.8 %", "95.5 %", "−2.3 pp", "34.8 KiB", "−30.0 %", "−25.0 %", "175 k", "210 µs"):
        assert text in page.text, text
    assert page.text.count("–") >= 5  # what was not measured is a dash
    assert "bayesian: No runtime <here>." in page.text


def test_inner_identifiers_of_pictures_differ(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    clips = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(clips) == len(set(clips)) > 0
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    assert used <= set(re.findall(r'id="([^"]+)"', text))


def test_files(folder: Path) -> None:
    names = sorted(path.name for path in (folder / "plots").iterdir())
    assert names == [f"1-resnet_binary_x-{plot}.png" for plot in ("layers", "progress", "ratios", "trials")]
    for path in (folder / "plots").iterdir():
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(data[16:20], "big") > 500  # width


def test_json_holds_the_same(folder: Path) -> None:
    assert report.read(folder) == report.read(folder / "report.json") == REPORT
    assert json.loads((folder / "report.json").read_text())["networks"][0]["variants"][1]["memory"] == 35_660.8


def test_same_report_same_bytes(folder: Path, tmp_path: Path) -> None:
    report.write(REPORT, tmp_path)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_numbers_of_numpy_and_no_numbers(tmp_path: Path) -> None:
    row = report.VariantRow("dense", accuracy=np.float32(0.5), params=np.int64(7), latency_ms=float("nan"))  # type: ignore[arg-type]
    report.write(replace(REPORT, networks=(replace(NETWORK, variants=(row,)),)), tmp_path)
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    variant = data["networks"][0]["variants"][0]
    assert (variant["accuracy"], variant["params"], variant["latency_ms"]) == (0.5, 7, None)


def test_many_layers_become_the_largest_and_the_rest() -> None:
    layers = tuple(report.LayerRow(f"layer{i:03d}", {"dense": 1024.0 * (i + 1)}) for i in range(100))
    axes = plots.draw(replace(NETWORK, layers=layers))["layers"].axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    # The 39 largest are layers 61 to 99, in the order of the network; 61 are left, 1 + ... + 61 = 1,891 KiB.
    assert labels == [*(f"layer{i:03d}" for i in range(61, 100)), "61 smaller layers"]
    assert axes.patches[39].get_width() == pytest.approx(1891)


def test_ratio_bars() -> None:
    axes = plots.draw(NETWORK)["ratios"].axes[0]
    # uniform: 12 of 16 stay, the frozen group whole; bayesian: 8 of 16.
    assert [bar.get_width() for bar in axes.patches] == [25.0, 0.0, 50.0, 0.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stage1 (16)", "dense (10, frozen)"]


def test_best_so_far_counts_what_met_the_budget() -> None:
    # Trial 2 was better but over the budget, trial 3 failed, trial 5 was worse than trial 4.
    assert plots.best_so_far(NETWORK.trials) == [(1, 0.80), (2, 0.80), (3, 0.80), (4, 0.90), (5, 0.90)]
    assert plots.best_so_far(NETWORK.trials[1:3]) == []


def test_nothing_met_the_budget() -> None:
    over = tuple(replace(trial, feasible=False) for trial in NETWORK.trials)
    assert set(plots.draw(replace(NETWORK, trials=over))) == {"ratios", "layers", "trials", "progress"}


class TestBadRequests:
    def test_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one network"):
            report.write(replace(REPORT, networks=()), tmp_path / "new")
        with pytest.raises(ValueError, match="a variant in each"):
            report.write(replace(REPORT, networks=(replace(NETWORK, variants=()),)), tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_folder_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OutputError, match="Expected a folder that can be written"):
            report.write(REPORT, tmp_path / "file")
        assert (tmp_path / "file").read_text() == "in the way"

    @pytest.mark.parametrize("content", [None, "no JSON", "[]", "{}", '{"networks": [{}]}', '{"networks": [], "x": 1}'])
    def test_read_refuses_what_is_no_report(self, content: str | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "report.json").write_text(content)
        with pytest.raises(OutputError, match=r"Expected a report\.json"):
            report.read(tmp_path)


def test_knows_no_tensorflow() -> None:
    code = "import sys; import tfqprune.report, tfqprune.report.tables; print(sorted(m for m in sys.modules if m in "
    code += "('tensorflow', 'larq', 'matplotlib', 'jinja2') or m.startswith('tfqprune.') and 'report' not in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "['tfqprune.errors', 'tfqprune.legacy']"
