"""The output folder of a run: guarded against other runs, and resumed where it was left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tfqprune.errors import OutputError
from tfqprune.files import write_json

_FILE = "run.json"
_STEPS = "steps"


class RunFolder:
    """A folder that holds one run and knows its settings.

    An empty or missing folder begins a run; one that holds an unfinished run with the same settings
    goes on with it; anything else is refused, and nothing is touched.

    Args:
        path: the folder.
        settings: what must be the same to go on, as plain JSON values.
        holds: names of the files and folders that the run makes in it.
        overwrite: remove what an earlier run made there, finished or not, and nothing else.
        grows: the setting that may be larger than it was: then a finished run goes on, too.

    Attributes:
        path: the folder.
        resumed: whether an unfinished run goes on.

    Raises:
        OutputError: another or a finished run, or foreign files, are in the folder; it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        holds: Iterable[str] = (),
        overwrite: bool = False,
        grows: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(dict(settings)))
        self._grows, self._holds = grows, sorted({*holds, _STEPS})
        self.resumed = False
        known = state_of(self.path, overwrite=overwrite)
        if known is not None and not overwrite:
            self._admit(known)
        try:
            for name in known["holds"] if known is not None and overwrite else ():
                _remove(self.path / name)
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _STEPS).mkdir(exist_ok=True)
            self._write("running")
        except OSError as error:
            raise OutputError(
                f"Expected a folder that can be written. Received: '{self.path}' ({error.strerror or error}). "
                "Choose another one."
            ) from error

    def _admit(self, known: dict[str, Any]) -> None:
        changed = [key for key, value in self.settings.items() if known["settings"].get(key) != value]
        if self._grows in changed and self.settings[self._grows] > known["settings"].get(self._grows, 0):
            changed.remove(self._grows)
            if not changed:
                self.resumed = True
                return
        if changed:
            raise OutputError(
                f"Expected a new folder, or the run that '{self.path}' was begun with. Received: one in which "
                f"{', '.join(changed)} changed. Choose another folder, or overwrite that run (--overwrite)."
            )
        if known["status"] == "finished":
            raise _finished(self.path)
        self.resumed = True

    def step(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a step: made now, or read if an earlier session made it."""
        file = self.path / _STEPS / f"{name}.json"
        if file.exists():
            return dict(json.loads(file.read_text(encoding="utf-8")))
        result = make()
        write_json(file, result)
        return result

    def finish(self) -> None:
        """Marks the run as finished: from now on the folder is refused to other runs."""
        self._write("finished")

    def _write(self, status: str) -> None:
        write_json(self.path / _FILE, {"status": status, "settings": self.settings, "holds": self._holds})


def _remove(path: Path) -> None:
    """A file, a folder with all that is in it, or a link, but not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def state_of(path: Path, *, overwrite: bool = False) -> dict[str, Any] | None:
    """The run that a folder holds, or None where it may begin one.

    Raises:
        OutputError: it is a file, or holds other files than those of a run.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"Expected a folder for the results. Received: '{path}', which is a file.")
    if not path.is_dir() or not any(path.iterdir()):
        return None
    known = read_state(path)
    if known is None and overwrite:
        raise OutputError(
            f"Expected the folder of an earlier run to overwrite. Received: '{path}', which holds other files. Choose "
            "another folder."
        )
    if known is None:
        raise OutputError(f"Expected a new or empty folder. Received: '{path}', which holds other files.")
    return known


def reopen(path: Path) -> None:
    """Lets a finished run go on, for the run that it is a part of does; where there is none, nothing happens."""
    state = read_state(path)
    if state is not None:
        write_json(path / _FILE, {**state, "status": "running"})


def refuse_finished(path: Path) -> None:
    """Refuses, before anything is loaded, a folder that no run may begin or go on in.

    Raises:
        OutputError: see :func:`state_of`; or it holds a finished run.
    """
    known = state_of(path)
    if known is not None and known["status"] == "finished":
        raise _finished(path)


def _finished(path: Path) -> OutputError:
    return OutputError(
        f"Expected a new folder. Received: '{path}', which holds a finished run. Choose another folder, or overwrite "
        "that run (--overwrite)."
    )


def read_state(path: Path) -> dict[str, Any] | None:
    """Status and settings of the run in a folder, and names that it makes there; None where there is no run."""
    try:
        state = json.loads((path / _FILE).read_text(encoding="utf-8"))
        return {"status": str(state["status"]), "settings": dict(state["settings"]), "holds": list(state["holds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
