"""What options can be called, without loading what stands behind: for completion, and to refuse typing errors at once.

The registries of the project know more once TensorFlow is loaded; ``tests/cli/test_options.py`` holds both together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

#: but those that want more than a name: flips counted while training, weights of several
CRITERIA = (
    "auto", "apoz", "batchnorm_scale", "deployed_geometric_median", "deployed_l1", "deployed_l2", "fisher",
    "geometric_median", "latent_l1", "latent_l2", "mean_activation", "random", "reconstruction", "redundancy", "taylor",
)  # fmt: skip
FORMATS = ("auto", "binary", "fast", "float16", "float32", "hybrid", "int8", "packed")
#: of ``compress``
METHODS = ("bayesian", "holistic", "sensitivity", "slimming", "uniform")
#: of ``search``; ``train-prune`` is the one that trains
SEARCHES = tuple(name for name in METHODS if name != "holistic")
#: of ``prune``
ALLOCATORS = tuple(name for name in SEARCHES if name != "bayesian")
EVALUATIONS = ("proxy", "finetune", "both")
PURPOSES = ("size", "speed")
FLOAT_WEIGHTS = ("float32", "float16", "int8")
RUNTIMES = ("litert", "lce")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant: " Did you mean 'x'?", or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def one_of(known: Sequence[str]) -> Callable[[str | list[str] | None], str | list[str] | None]:
    """An option's callback that refuses all but these values."""

    def check(value: str | list[str] | None) -> str | list[str] | None:
        for entry in [value] if isinstance(value, str) else value or []:
            if entry not in known:
                raise typer.BadParameter(
                    f"Expected one of {', '.join(known)}. Received: '{entry}'.{nearest(entry, known)}"
                )
        return value

    return check


def completion(known: Sequence[str]) -> Callable[[str], list[str]]:
    """What the shell is offered for an option with these values."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


def choice(known: Sequence[str], *declarations: str, **settings: Any) -> Any:
    """A ``typer.Option`` that takes these values only, and offers them to the shell.

    Args:
        known: the values; shown as ``a|b`` where no ``metavar`` is given.
        *declarations: names of the option (``--format``, ``-f``); typer derives one from the parameter without them.
        **settings: what else ``typer.Option`` takes.
    """
    settings.setdefault("metavar", "|".join(known))
    return typer.Option(*declarations, callback=one_of(known), autocompletion=completion(known), **settings)
