"""The errors of the project: one base, and families that are also built-in types.

Every message says what was expected, what was received and what to do.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


class TfqpruneError(Exception):
    """Base of all errors raised on purpose by tfqprune and tflite_export."""


class ModelTypeError(TfqpruneError, TypeError):
    """The object handed in is no Keras model that has a graph of legacy Keras layers."""


class PlanError(TfqpruneError, ValueError):
    """A plan, its ratios or its scores cannot be used on this model."""


class BudgetError(TfqpruneError, ValueError):
    """A budget is malformed or cannot be met."""


class DataError(TfqpruneError, ValueError):
    """Data of the wrong shape, type or content, or a data set that does not exist."""


class ActivationError(DataError):
    """NaN or infinity inside a model that sees sound data; of several trials, one that failed."""


class CriterionError(TfqpruneError, ValueError):
    """A criterion is unknown, misses what it needs or returned nonsense."""


class EvaluationError(TfqpruneError, ValueError):
    """What is to judge a model did not return a number."""


class OutputError(TfqpruneError, OSError):
    """An output folder or file exists already or cannot be written."""


class ClusterError(TfqpruneError, OSError):
    """Chief and workers cannot come together."""


class ExportError(TfqpruneError, ValueError):
    """A model cannot be exported in the format asked for, or the file is not faithful."""


class MissingDependencyError(TfqpruneError, ImportError):
    """An optional package is not installed here."""


class ZooError(TfqpruneError, ValueError):
    """The zoo has no such network, or cannot build it with these arguments."""


class ModelLoadError(TfqpruneError, ValueError):
    """A file is no model that can be loaded here, or would run code that nobody vouched for."""


def whole_number(name: str, value: Any, error: type[TfqpruneError], least: int = 1, most: int | None = None) -> int:
    """A number that counts something, made sure of.

    Args:
        name: what the message calls it.
        value: what was given; numpy's whole numbers are welcome, truth values are not.
        error: which error to raise.
        least: the smallest that makes sense.
        most: the largest; None: no such bound.

    Raises:
        TfqpruneError: of the type given: no whole number, or out of bounds.
    """
    whole = not isinstance(value, bool) and isinstance(value, Integral)
    if whole and int(value) >= least and (most is None or int(value) <= most):
        return int(value)
    limit = "" if most is None else f" and at most {most}"
    raise error(f"Expected {name} to be a whole number of at least {least}{limit}. Received: {value!r}.")


def seed_number(value: Any, error: type[TfqpruneError]) -> int:
    """A seed that numpy, TensorFlow and Python all take, made sure of.

    Raises:
        TfqpruneError: of the type given: no whole number from 0 to 2^32 - 1.
    """
    return whole_number("seed", value, error, 0, 2**32 - 1)


def real_number(
    name: str,
    value: Any,
    error: type[TfqpruneError],
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number that measures something, made sure of.

    Args:
        name: what the message calls it.
        value: what was given; numpy's numbers are welcome, truth values are not.
        error: which error to raise.
        low: the smallest that makes sense; None: no such bound.
        high: the largest.
        above: what it has to be above.
        below: what it has to be below.

    Raises:
        TfqpruneError: of the type given: no finite number, or out of bounds.
    """
    fits = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
    fits = fits and (low is None or value >= low) and (high is None or value <= high)
    if fits and (above is None or value > above) and (below is None or value < below):
        return float(value)
    bounds = {"of at least": low, "above": above, "at most": high, "below": below}
    limits = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    raise error(f"Expected {name} to be a finite number{limits and ' ' + limits}. Received: {value!r}.")
