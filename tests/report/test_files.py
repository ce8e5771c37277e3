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

PLOTS = (
    "costs", "speed", "ratios", "sensitivity", "network", "layers", "file", "floor", "trials", "progress"
)  # fmt: skip


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
    headings = ["Before and after", "Agreement of file and Keras model", "Channel groups", "Size"]
    headings += ["Trials of the search", "Files", "To repeat this", "Settings", "Where it ran", "Versions"]
    for heading in [*headings, "Channel groups in words: 3", "All trials: 5"]:
        assert heading in page.text, heading
    # The second network has nothing to draw.
    assert sum(tag == "svg" for tag, _ in page.tags) == len(PLOTS)
    assert "tfqprune demo --seed 0" in " ".join(page.text)
    assert "ran <out> of memory" in page.text
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    inside = {str(link) for link in links if str(link).startswith("#")}
    assert {link[1:] for link in inside} <= anchors
    assert links - inside == {"uniform.tflite", "uniform.json", "report.json"}


def test_every_picture_says_what_it_shows(page: _Page) -> None:
    alts = [str(a["aria-label"]) for tag, a in page.tags if tag == "div" and a.get("role") == "img"]
    assert len(alts) == len(set(alts)) == len(PLOTS)
    for said in (
        "Of dense: uniform: Parameters 69 %, MACs 67 %",  # 120,000 / 174,506; 1.1 / 1.65 million
        "dense: 210 µs, 391 KiB; bayesian: 150 µs, 293 KiB",
        "uniform: 25 to 25 %; bayesian: 50 to 50 %",
        "most sensitive first: stage1 34.0",  # 95 % - 61 %
        "A: 16 units of conv1, conv2",
        "bayesian: 40.0 KiB, floor 30.0 KiB",
        "best: trial 4, 90.0 %. Pareto front over memory: trials 4, 5; Pareto front over macs: trials 1, 4.",
        "Best so far: 80.0 % from trial 1, 90.0 % from trial 4.",
    ):
        assert sum(said in alt for alt in alts) == 1, (said, alts)


def test_figures_in_the_table(page: _Page) -> None:
    # 35,660.8 / 50,944 = 0.7; 0.955 - 0.978 = -2.3 points; 45,000 / 60,000 = 0.75.
    for text in ("97.8 %", "95.5 %", "−2.3 pp", "34.8 KiB", "−30.0 %", "−25.0 %", "175 k", "210 µs"):
        assert text in page.text, text
    # The cards compare the best of the pruned variants: 0.969 - 0.978, 40,960 / 60,000.
    for text in ("−0.9 pp against 97.8 %", "−31.7 % against 58.6 KiB", "same class on 256 samples"):
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
    assert names == sorted(f"1-resnet_binary_x-{plot}.png" for plot in PLOTS)
    for path in (folder / "plots").iterdir():
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(data[16:20], "big") > 500  # width


def test_json_holds_the_same(folder: Path) -> None:
    assert report.read(folder) == report.read(folder / "report.json") == REPORT
    assert json.loads((folder / "report.json").read_text())["networks"][0]["variants"][1]["memory"] == 35_660.8


def test_drawn_again_from_its_folder(folder: Path, tmp_path: Path) -> None:
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "report.html").write_text("spoilt")
    written = report.redraw(folder)
    assert set(written.values()) == set(kept)
    assert {path: path.read_bytes() for path in kept} == kept
    elsewhere = report.redraw(folder, tmp_path / "elsewhere")
    assert elsewhere["html"].read_bytes() == kept[folder / "report.html"]


def test_a_figure_of_earlier_reports_is_passed_over(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "report.json").read_text())
    for network in content["networks"]:
        for row in network["variants"]:
            row["tflite_accuracy"] = None
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert report.read(tmp_path) == report.read(folder)


def test_same_report_same_bytes(folder: Path, tmp_path: Path) -> None:
    report.write(REPORT, tmp_path)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_numbers_of_numpy_and_no_numbers(tmp_path: Path) -> None:
    row = report.VariantRow("dense", accuracy=np.float32(0.5), params=np.int64(7), latency_ms=float("nan"))  # type: ignore[arg-type]
    trials = (report.TrialRow(1, 0.5, {"memory": float("inf"), "macs": 7.0}), *NETWORK.trials)
    report.write(replace(REPORT, networks=(replace(NETWORK, variants=(row,), trials=trials),)), tmp_path)
    assert report.read(tmp_path).networks[0].trials[0].costs == {"macs": 7.0}
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    variant = data["networks"][0]["variants"][0]
    assert (variant["accuracy"], variant["params"], variant["latency_ms"]) == (0.5, 7, None)


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

    @pytest.mark.parametrize(
        "content",
        [
            "no JSON", "[]", "{}", '{"networks": []}', '{"tfqprune_report": 2, "networks": [{}]}',
            '{"tfqprune_report": 2, "networks": [], "x": 1}', '{"tfqprune_report": 99, "title": "", "networks": []}',
        ],
    )  # fmt: skip
    def test_read_refuses_what_is_no_report(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(OutputError, match=r"Expected a report\.json written by"):
            report.read(tmp_path)

    def test_unfinished_run(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="Run the command of an unfinished run again"):
            report.redraw(tmp_path)


def test_knows_no_tensorflow() -> None:
    code = "import sys; import tfqprune.report, tfqprune.report.tables; print(sorted(m for m in sys.modules if m in "
    code += "('tensorflow', 'larq', 'matplotlib', 'jinja2') or m.startswith('tfqprune.') and 'report' not in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "['tfqprune.errors', 'tfqprune.legacy']"
