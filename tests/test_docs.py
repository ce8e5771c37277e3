"""The pages say what is so: their code compiles, names exist, links lead somewhere, figures stand in the files."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tflite_export
import tfqprune
from tfqprune.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page(page: Path) -> None:
    """It is Python, and what it takes from the packages is there."""
    packages = {"tq": tfqprune, "te": tflite_export}
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
                assert hasattr(packages[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


def test_the_reference_holds_every_public_name() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    told = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    told |= {name for names in re.findall(r"members: \[(.*)\]", text) for name in names.split(", ")}
    public = {*tfqprune.__all__, *tflite_export.__all__} - {"__version__"}
    assert public <= told


def test_commands_exist() -> None:
    """Every ``tfqprune COMMAND`` of a page is one."""
    known = {command.name for command in app.registered_commands}
    named = {
        name
        for page in PAGES
        for block in [*_blocks(page, "sh"), *re.findall(r"`(tfqprune [^`]+)`", page.read_text(encoding="utf-8"))]
        for name in re.findall(r"^tfqprune ([a-z][\w-]*)", block, re.MULTILINE)
    }
    assert "compress" in named
    assert named <= known


def test_scripts_that_pages_name_exist() -> None:
    named = re.compile(r"python ((?:benchmarks|examples|docs)/[a-z0-9_/]+\.py)")
    for page in PAGES:
        for script in named.findall(page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"


def test_pictures_are_what_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "docs" / "pictures" / "draw.py"
    spec = importlib.util.spec_from_file_location("draw", path)
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    monkeypatch.setattr(draw, "HERE", tmp_path)
    draw.main()
    drawn = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert drawn == {file.name: file.read_bytes() for file in path.parent.glob("*.svg")}


def test_sizes_of_the_readme_are_measured() -> None:
    """The table of file sizes holds the figures of the benchmark."""
    nets = json.loads((ROOT / "benchmarks" / "results" / "size.json").read_text(encoding="utf-8"))["nets"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ResNet-18, (binary|k=2) \| ([\w ,.-]+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows) >= 4
    for precision, name, *told in rows:
        measured = [
            file["bytes"]
            for pruned in (False, True)
            for net in nets if (net["net"], net["precision"], net["pruned"]) == ("resnet18", precision, pruned)
            for file in net["files"] if file["file"] == name
        ]  # fmt: skip
        assert [int(figure.replace(",", "")) for figure in told] == measured, (precision, name)


@pytest.mark.slow
def test_site_builds_with_every_link_checked(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "slim" in (tmp_path / "site" / "reference" / "pruning.html").read_text(encoding="utf-8")
