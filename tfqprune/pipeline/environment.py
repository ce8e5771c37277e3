"""Where a run took place: versions, processor, the command that repeats it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "tfqprune", "tensorflow", "tf_keras", "keras", "larq", "larq-compute-engine", "ai-edge-litert", "keras-tuner",
    "tensorflow-datasets", "tensorflow-model-optimization", "numpy", "scikit-learn",
)  # fmt: skip


def installed() -> dict[str, str | None]:
    """Version of each package that matters here; None: it is not installed."""
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def versions() -> dict[str, str]:
    """The same for people, and Python's."""
    found = {package: version or "not installed" for package, version in installed().items()}
    return {"python": platform.python_version(), **found}


def processor() -> str:
    """The processor's name, and the number of cores."""
    return f"{processor_name()}, {os.cpu_count()} cores"


def processor_name() -> str:
    """The processor's name, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:  # not Linux
        pass
    return name


def as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as a reader likes to see them: "learning rate" -> "0.001"; what is empty is left out."""
    shown = {}
    for key, value in settings.items():
        if isinstance(value, list | tuple):
            value = ", ".join("×".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in value)
        if value is not None and value != "":
            shown[key.replace("_", " ")] = str(value)
    return shown


def command() -> str:
    """The command line of this process, as one would type it."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        first = ["python", "-m", script.parent.name]
    else:
        first = ["python", script.name] if script.suffix == ".py" else [script.name]
    return shlex.join([*first, *sys.argv[1:]])
