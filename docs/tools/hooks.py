"""MkDocs hooks: what pages link to outside of ``docs`` becomes a part of the site, so that every link is checked."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def _target(link: str, page: str) -> str | None:
    """Where a link leads, relative to the checkout, if that is a file outside of ``docs``."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return path if not path.startswith("docs/") and (ROOT / path).is_file() else None


def on_files(files: Files, config: Any) -> Files:
    """Adds the files that pages link to: Markdown as pages, all else as it is."""
    wanted = {
        target
        for page in files.documentation_pages()
        for match in _LINK.finditer(page.content_string)
        if (target := _target(match.group(1), page.src_uri))
    }
    for target in sorted(wanted):
        files.append(File.generated(config, f"checkout/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lets links lead to the added files; on added pages, links are as seen from the checkout."""
    here = page.file.src_uri
    if here.startswith("checkout/"):
        return _from_checkout(markdown, here)

    def moved(match: re.Match[str]) -> str:
        target = _target(match.group(1), here)
        if target is None:
            return match.group(0)  # MkDocs reports it
        return f"]({posixpath.relpath(f'checkout/{target}', posixpath.dirname(here) or '.')}{match.group(2) or ''})"

    return _LINK.sub(moved, markdown)


def _from_checkout(markdown: str, here: str) -> str:
    """``docs/engine.md`` in CONTRIBUTING.md is ``engine.md`` of the site."""
    up = posixpath.relpath(".", posixpath.dirname(here))
    return re.sub(r"\]\(docs/([^)\s]+)\)", lambda match: f"]({up}/{match.group(1)})", markdown)
