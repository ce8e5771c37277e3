"""Settings from a TOML file: the options of subcommands by their names, in sections or for all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tfqprune.cli.names import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: subcommand -> {name in the file: name of the parameter}
Known = Mapping[str, Mapping[str, str]]


def read_settings(path: Path, command: str, known: Known) -> dict[str, Any]:
    """The settings that a file has for one subcommand, as texts, by parameter.

    ``[compress]`` is a section for one subcommand; what stands above all sections is for every subcommand that has
    such an option, and gives way to the section.

    Args:
        path: the TOML file.
        command: the subcommand.
        known: the options of all subcommands.

    Raises:
        typer.BadParameter: the file cannot be read, or has a section or an option that does not exist.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"Expected a TOML file. Received: '{path}', which cannot be read: {error}.") from error
    everywhere = sorted({name for options in known.values() for name in options})
    common: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and key in known:
            for name in value:
                _refuse_unknown(path, f"[{key}] {name}", name, known[key])
        else:
            _refuse_unknown(path, key, key, [*everywhere, *known] if isinstance(value, dict) else everywhere)
            common[_normal(key)] = value
    options = known[command]
    found = {name: value for name, value in common.items() if name in options}
    found |= {_normal(name): value for name, value in content.get(command, {}).items()}
    return {options[name]: _texts(value) for name, value in found.items()}


def _normal(name: str) -> str:
    return name.replace("_", "-")


def _refuse_unknown(path: Path, shown: str, name: str, known: Any) -> None:
    if _normal(name) not in known:
        raise typer.BadParameter(
            f"Expected settings that are options of tfqprune. Received: '{shown}' in '{path}'."
            f"{nearest(_normal(name), known)}"
        )


def _texts(value: Any) -> Any:
    """As if it had been typed, so that files and command lines are read alike."""
    if isinstance(value, dict):
        return [f"{name}={_texts(entry)}" for name, entry in value.items()]
    if isinstance(value, list):
        return [_texts(entry) for entry in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
