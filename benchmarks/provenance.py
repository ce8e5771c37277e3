"""The commands behind a table: the fewest of those that were run which name all of its rows."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

# What these name is measured and all else is not; where they are not given, all is measured.
_CHOOSING = ("--budgets", "--criteria", "--methods", "--ratios", "--seeds", "--settings")
_NAMED = ("--precisions",)  # the same, but a program's default is not all that there is


def fewest(commands: Iterable[str]) -> list[str]:
    """The commands without those that measure a part of what another does, sorted.

    Programs go on where they were stopped, so a command that was run in parts names what each part measured.
    """
    rest = sorted(set(commands))
    return [one for one in rest if not any(other != one and _is_part(one, other) for other in rest)]


def listed(commands: Iterable[str], seeds: Mapping[str, Iterable[int]] | None = None) -> str:
    """Commands for the middle of a sentence, with the space about them: one as it is, more of them as a list.

    Args:
        commands: that were run.
        seeds: command -> the seeds that it ran with, if any; those of its parts are added.
    """
    commands = set(commands)
    entries = [
        f"`{kept}`"
        + _of_seeds(n for one, ns in (seeds or {}).items() if one == kept or _is_part(one, kept) for n in ns)
        for kept in fewest(commands)
    ]
    return f" {entries[0]} " if len(entries) == 1 else "\n\n" + "\n".join(f"- {entry}" for entry in entries) + "\n\n"


def _of_seeds(seeds: Iterable[int]) -> str:
    """How a command's entry ends, where it has seeds."""
    numbers = sorted(set(seeds))
    return f", seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""


def _is_part(one: str, other: str) -> bool:
    """Whether a command measures nothing that another does not, and less, or the same in other words."""
    program, chosen, how = _parsed(one)
    wider_program, wider, wider_how = _parsed(other)
    if program != wider_program or how != wider_how:
        return False
    if any(name not in chosen or not _within(name, chosen[name], wider[name]) for name in wider):
        return False
    # combinations that users name are not in a default
    added = set(chosen) - set(wider)
    if any(name in _NAMED or any(set(" ,") & set(value) for value in chosen[name]) for name in added):
        return False
    alike = not added and all(_within(name, wider[name], values) for name, values in chosen.items())
    return not alike or other < one


def _within(name: str, values: list[str], wider: list[str]) -> bool:
    if name == "--seeds":
        return int(values[0]) <= int(wider[0])
    return set(values) <= set(wider)


def _parsed(command: str) -> tuple[str, dict[str, list[str]], frozenset[tuple[str, ...]]]:
    """The program, the values of the options that choose, and all other options."""
    options: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word.startswith("--"):
            options.append([])
        options[-1].append(word)
    chosen = {name: values for name, *values in options[1:] if name in (*_CHOOSING, *_NAMED)}
    how = frozenset(tuple(option) for option in options[1:] if option[0] not in chosen)
    return " ".join(options[0]), chosen, how
