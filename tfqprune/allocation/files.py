"""Files that are there in full or not at all, whenever a process is killed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text in one step: a process that is killed leaves the old file or the new one."""
    target = Path(path)
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, suffix=".part", delete=False, encoding="utf-8", newline=""
    ) as part:
        part.write(text)
    os.replace(part.name, target)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON in one step."""
    write_text(path, json.dumps(content))
