"""What a search is about, kept beside its trials, so that another one cannot be taken for it."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfqprune.allocation.cluster import is_worker
from tfqprune.criteria import Criterion
from tfqprune.errors import OutputError
from tfqprune.files import write_json

_FILE = "project.json"
_VERSION = 1
_PREPARED = ("scores.npz", "oracle.json")  # what a search makes of its facts before the first trial


class Project:
    """The folder of one search and its identity, which binds once there are trials or curves to compare with.

    Args:
        folder: the folder.
        facts: what must stay the same for trials to be comparable, as plain JSON values.
        overwrite: start anew, removing what an earlier search left there.

    Raises:
        OutputError: the folder holds another search, or something else; nothing is touched.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        self.facts = dict(facts)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"Expected a folder for the search. Received: {str(folder)!r}, which is a file.")
        # Half-written files are those of another worker of the same search, or of a process that was killed.
        occupied = folder.is_dir() and any(path.suffix != ".part" for path in folder.iterdir())
        known = self.read() if occupied else {}  # refuses what is no search, also where it is to be overwritten
        if occupied and not overwrite:
            changed = self._replace([key for key, value in self.facts.items() if known.get(key) != plain(value)])
            self.facts = self.facts if changed else {**known, **self.facts}
        try:
            if occupied and overwrite:
                shutil.rmtree(folder)  # a link to a folder is no folder to it
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"Expected a folder that can be made for the search. Received: {str(folder)!r} "
                f"({error.strerror or error}). Choose another directory."
            ) from error
        self._write()
        if occupied and not is_worker():  # workers may be writing
            self._check_files()

    def _check_files(self) -> None:
        """Refuses what was damaged since it was written, by name."""
        for path in (*self.folder.glob("*.json"), *self.folder.glob("trial_*/*.json"), *self.folder.glob("*.npz")):
            try:
                if path.suffix == ".json":
                    json.loads(path.read_text(encoding="utf-8"))
                else:
                    with np.load(path) as arrays:
                        for name in arrays.files:
                            arrays[name]
            except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise OutputError(
                    f"Expected the files of a search. Received: {str(path)!r}, which is damaged ({error}). Remove it: "
                    "what can be made anew is made anew, and a trial without it runs again."
                ) from error

    def add(self, facts: Mapping[str, Any]) -> None:
        """Adds facts that were not known at first (the data).

        Raises:
            OutputError: they differ from those of the search in the folder.
        """
        known = self.read()
        self._replace([key for key in facts if key in known and known[key] != plain(facts[key])])
        self.facts.update(facts)
        self._write()

    def read(self) -> dict[str, Any]:
        """The facts on disk."""
        try:
            content = json.loads((self.folder / _FILE).read_text(encoding="utf-8"))
            if "tfqprune_search" not in content:
                raise ValueError(f"its {_FILE} is none of a search")
            return dict(content["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"Expected the folder of a ratio search. Received: {str(self.folder)!r}, which holds something else "
                f"({error}). Choose another directory or project_name."
            ) from error

    def _replace(self, changed: list[str]) -> bool:
        """Whether facts may be others from now on: nothing was found out with the old ones, which may be a mistake."""
        if not changed:
            return False
        found = any(self.folder.glob("trial_*/trial.json")) or (self.folder / "curves.json").exists()
        if found or is_worker():  # what a search is about is for its chief to say
            raise OutputError(
                f"Expected the search that {str(self.folder)!r} was begun with. Received: one in which "
                f"{', '.join(changed)} changed. Choose another project_name, or start anew with overwrite=True."
            )
        for name in _PREPARED:
            (self.folder / name).unlink(missing_ok=True)
        return True

    def _write(self) -> None:
        write_json(self.folder / _FILE, {"tfqprune_search": _VERSION, "facts": plain(self.facts)})


def plain(value: Any) -> Any:
    """A value as it comes back from JSON, the same in every process: criteria by class and options, no addresses."""
    return json.loads(json.dumps(value, default=_described))


def _described(value: Any) -> Any:
    """What is no JSON, in words that are the same in every process: no address in memory."""
    if isinstance(value, Criterion):
        options = {name: option for name, option in vars(value).items() if not name.startswith("_")}
        options = {name: list(own.items()) if isinstance(own, Mapping) else own for name, own in options.items()}
        return {"class": type(value).__qualname__, **options}
    text = str(value)
    return getattr(value, "__qualname__", type(value).__qualname__) if " at 0x" in text else text
