"""Markdown tables, and the places in documents where they stand: between `<!-- table NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from provenance import listed


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; columns but the first are right-aligned."""
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def source(entries: Iterable[Mapping[str, Any]]) -> str:
    """The commands that measured these entries, and with what."""
    entries = list(entries)
    seeds: dict[str, list[int]] = {}
    for entry in entries:
        seeds.setdefault(entry["command"], []).extend([entry["seed"]] if "seed" in entry else [])
    found = {f"{name} {version}" for entry in entries for name, version in entry["versions"].items()}
    return f"Measured by{listed(seeds, seeds)}({', '.join(sorted(found))})."


def commands(content: Mapping[str, Any]) -> str:
    """The commands that one file of results came from, for the middle of a sentence."""
    return listed(content["commands"])


def rendered(text: str, tables: Mapping[str, str], document: Path) -> str:
    """A document with every table replaced."""
    for name, content in tables.items():
        pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"Expected <!-- table {name} --> ... <!-- end --> in {document}. Received: no such place.")
        text = pattern.sub(lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}", text)
    return text


def render(document: Path, tables: Mapping[str, str], check: bool = False) -> bool:
    """Writes the tables into a document, or only looks whether they are there; whether they were."""
    before = document.read_text(encoding="utf-8")
    after = rendered(before, tables, document)
    if not check and before != after:
        document.write_text(after, encoding="utf-8")
    return before == after
