"""What the project says it needs is what it imports, what was pinned and what the documentation tells."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
}


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)])
def test_pinned_version_lies_in_its_range(line: str) -> None:
    requirement = Requirement(line)
    assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_documentation_tells_the_pinned_versions() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| (?:`\w+` \| )?([\w.-]+)(?:\[\w+\])? \| ([\d.]+) \|", text, flags=re.MULTILINE))
    told = {canonicalize_name(name): version for name, version in told.items()}
    needed = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    optional = {canonicalize_name(Requirement(line).name) for extra in ("lce", "tfmot") for line in EXTRAS[extra]}
    assert set(told) == needed | optional
    assert {name: PINNED[name] for name in told} == told


def test_every_import_is_declared() -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    declared |= {canonicalize_name(Requirement(line).name) for extra in ("lce", "tfmot") for line in EXTRAS[extra]}
    declared |= {"markupsafe", "tfqprune"}  # markupsafe is a part of jinja2's own interface
    owners = packages_distributions()
    missing = {}
    for path in [*ROOT.glob("tfqprune/**/*.py"), *ROOT.glob("tflite_export/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in (
                {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"tfqprune", "tflite_export"}
            ):
                if not declared & {canonicalize_name(owner) for owner in owners.get(name, [name])}:
                    missing[name] = str(path.relative_to(ROOT))
    assert missing == {}


def test_the_marker_of_larq_compute_engine() -> None:
    marker = Requirement(EXTRAS["lce"][0]).marker
    assert marker is not None
    assert marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"})
    assert not marker.evaluate({"sys_platform": "darwin", "platform_machine": "x86_64"})
    assert not marker.evaluate({"sys_platform": "linux", "platform_machine": "aarch64"})


def test_typed_packages_and_templates_are_in_the_wheel() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for package, patterns in data.items():
        for pattern in patterns:
            assert list((ROOT / package).glob(pattern)), (package, pattern)
    templates = {path.relative_to(ROOT / "tfqprune") for path in (ROOT / "tfqprune").rglob("*.j2")}
    assert templates <= {
        p.relative_to(ROOT / "tfqprune") for g in data["tfqprune"] for p in (ROOT / "tfqprune").glob(g)
    }
