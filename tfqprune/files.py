"""Files that are there in full or not at all, whenever a process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np


@contextlib.contextmanager
def _in_one_step(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of ``path`` once all is written."""
    target = Path(os.path.realpath(path))  # a link stays one
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
        try:
            yield part
        except BaseException:
            os.unlink(part.name)
            raise
    umask = os.umask(0)  # temporary files are private, what takes their place is not
    os.umask(umask)
    os.chmod(part.name, 0o666 & ~umask)
    os.replace(part.name, target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text in one step: a process that is killed leaves the old file or the new one."""
    with _in_one_step(path) as part:
        part.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON in one step."""
    write_text(path, json.dumps(content))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as ``.npz`` in one step."""
    with _in_one_step(path) as part:
        np.savez(part, **arrays)
