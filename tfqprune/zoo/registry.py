"""The networks of the zoo by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from tfqprune.errors import ZooError

Builder = TypeVar("Builder", bound=Callable[..., tf.keras.Model])
_BUILDERS: dict[str, Callable[..., tf.keras.Model]] = {}


def register(function: Builder, name: str | None = None) -> Builder:
    """Adds a builder to the zoo, under its own name unless another is given; works as a decorator."""
    _BUILDERS[name or function.__name__] = function
    return function


def names() -> list[str]:
    """The networks that ``build`` knows, in alphabetical order."""
    return sorted(_BUILDERS)


def builder(name: str) -> Callable[..., tf.keras.Model]:
    """The builder of one network.

    Raises:
        ZooError: there is no network of that name; the message suggests the nearest.
    """
    if name in _BUILDERS:
        return _BUILDERS[name]
    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), names(), n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    raise ZooError(f"Expected the name of a network, one of {', '.join(names())}. Received: '{name}'.{hint}")


def build(name: str, **arguments: Any) -> tf.keras.Model:
    """Builds a network of the zoo.

    Args:
        name: one of ``names()``.
        **arguments: those of the builder, among them ``precision``, ``input_shape``, ``classes``, ``width`` and
            ``quantize_ends``.

    Returns:
        An untrained functional Keras model: images ``[batch, height, width, channels]`` to probabilities
        ``[batch, classes]``.

    Raises:
        ZooError: unknown network, an argument it does not have, or a value that makes no sense.
    """
    function = builder(name)
    known = list(inspect.signature(function).parameters)
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ZooError(f"Expected arguments of '{name}' among {', '.join(known)}. Received: {', '.join(unknown)}.")
    return function(**arguments)
