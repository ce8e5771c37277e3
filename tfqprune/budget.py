"""Budgets: upper bounds on costs, as fractions of the original, absolute numbers or strings with units."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tfqprune.errors import BudgetError

#: costs that follow from the plan alone
COUNTED = ("params", "macs", "bops", "memory")
#: costs that need the slim model itself
MEASURED = ("tflite_bytes", "latency")

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_BYTES = {
    **{f"{prefix}B": factor for prefix, factor in {**_SI, **_BINARY}.items()},
    "KB": 1e3,
    "byte": 1.0,
    "bytes": 1.0,
}
_SECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}


def _counts(*words: str) -> dict[str, float]:
    """SI prefixes, alone and before a unit: "M", "MMAC", "MMACs"."""
    units = {prefix + word: factor for prefix, factor in _SI.items() for word in ("", *words)}
    return units | {f"K{word}": 1e3 for word in ("", *words)}


#: cost -> unit -> factor to the cost's own unit (numbers, bytes, milliseconds)
_UNITS: dict[str, dict[str, float]] = {
    "params": _counts("param", "params", "parameters"),
    "macs": _counts("MAC", "MACs"),
    "bops": _counts("BOP", "BOPs"),
    "memory": _BYTES,
    "tflite_bytes": _BYTES,
    "latency": _SECONDS,
}
_EXAMPLES = {
    "params": '"1.2 M"',
    "macs": '"40 MMAC"',
    "bops": '"1.5 GBOP"',
    "memory": '"250 KiB"',
    "tflite_bytes": '"250 KiB"',
    "latency": '"5 ms"',
}
#: how files are exported that nobody has a wish for
_USUAL = {"tflite_format": "auto", "tflite_optimize": "size"}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")

Amount = float | int | str


@dataclass(frozen=True)
class Budget:
    """Upper bounds on one or more costs; all of them must hold.

    A number up to 1 is a fraction of the original model's cost, a larger whole one is absolute, a string
    has a unit: ``"50 %"``, ``"1.2 M"`` parameters, ``"40 MMAC"``, ``"250 KiB"``, ``"5 ms"``.

    Args:
        params: parameters, counted as :func:`tfqprune.cost` does.
        macs: multiply-accumulates of one sample.
        bops: the same times weight bits and activation bits.
        memory: bytes of all weights at deployed precision.
        tflite_bytes: bytes of the exported file, measured by exporting.
        latency: time of one run of the exported file on this machine, or what
            ``measure_latency`` says. An absolute latency needs its unit, as a string.
        measure_latency: measures a slim model somewhere else, on a device for example; gets the
            uncompiled Keras model and returns milliseconds. A search that is resumed knows it by its name.
        tflite_format: the format to export in for the measured costs.
        tflite_optimize: "size" or "speed", what the format "auto" goes by.

    Raises:
        BudgetError: no cost given; an amount of zero or below, not finite, above 100 %, of an
            unknown unit or of another type.
    """

    params: Amount | None = None
    macs: Amount | None = None
    bops: Amount | None = None
    memory: Amount | None = None
    tflite_bytes: Amount | None = None
    latency: Amount | None = None
    measure_latency: Callable[[Any], float] | None = None
    tflite_format: str = "auto"
    tflite_optimize: str = "size"

    def __init__(
        self,
        params: Amount | None = None,
        macs: Amount | None = None,
        bops: Amount | None = None,
        memory: Amount | None = None,
        tflite_bytes: Amount | None = None,
        latency: Amount | None = None,
        measure_latency: Callable[[Any], float] | None = None,
        tflite_format: str = "auto",
        tflite_optimize: str = "size",
        **unknown: Any,
    ) -> None:
        if unknown:
            raise BudgetError(
                f"Expected a budget for {', '.join(COUNTED + MEASURED)}. Received: {', '.join(map(repr, unknown))}."
            )
        given = dict(zip(COUNTED + MEASURED, (params, macs, bops, memory, tflite_bytes, latency), strict=True))
        for name, amount in given.items():
            if amount is not None:
                parse_amount(name, amount)
                amount = _plain(amount)
            object.__setattr__(self, name, amount)
        if measure_latency is not None and not callable(measure_latency):
            raise BudgetError(
                f"Expected measure_latency to be a function of the slim model. Received: {measure_latency!r}."
            )
        object.__setattr__(self, "measure_latency", measure_latency)
        object.__setattr__(self, "tflite_format", tflite_format)
        object.__setattr__(self, "tflite_optimize", tflite_optimize)
        if not self.names:
            raise BudgetError(
                f"Expected a budget for at least one of {', '.join(COUNTED + MEASURED)}, as in Budget(memory=0.5). "
                "Received: none."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The costs that are bounded."""
        return tuple(name for name in COUNTED + MEASURED if getattr(self, name) is not None)

    @property
    def measured(self) -> tuple[str, ...]:
        """Those of them that need the slim model."""
        return tuple(name for name in self.names if name in MEASURED)

    def as_dict(self) -> dict[str, Amount]:
        """The bounds as they were given, and by what they are measured where that was given, too."""
        content = {name: getattr(self, name) for name in self.names}
        elsewhere = self.latency is not None and self.measure_latency is not None
        if elsewhere:
            content["measure_latency"] = _title(self.measure_latency)
        exported = self.tflite_bytes is not None or (self.latency is not None and not elsewhere)
        return content | {key: getattr(self, key) for key in _USUAL if exported and getattr(self, key) != _USUAL[key]}

    def exported(self, format: str, optimize: str) -> Budget:
        """The same bounds, measured on files of the format that the result is exported in.

        Args:
            format: as for ``tflite_export.export``.
            optimize: likewise.

        Raises:
            BudgetError: the budget itself asks for another one.
        """
        for key, wanted in (("tflite_format", format), ("tflite_optimize", optimize)):
            if self.measured and getattr(self, key) not in (_USUAL[key], wanted):
                raise BudgetError(
                    f"Expected a budget that is measured on files like those that are exported: {key}={wanted!r}. "
                    f"Received: {key}={getattr(self, key)!r}. Leave it out of the budget: the export's own counts."
                )
        return replace(self, tflite_format=format, tflite_optimize=optimize)

    def resolve(self, original: Mapping[str, float]) -> Limits:
        """Turns the budget into absolute limits.

        Args:
            original: cost of the model before pruning, by name; at least for all bounded costs.

        Raises:
            BudgetError: a limit lies above the original, or the original cost is not known.
        """
        limits = {}
        for name in self.names:
            whole, (value, relative) = original[name], parse_amount(name, getattr(self, name))
            if not math.isfinite(whole):
                raise BudgetError(
                    f"Expected a model whose {name} can be counted, to hold it to a budget. Received: one whose "
                    "input has no fixed size. Build it with a full input_shape."
                )
            limit = value * whole if relative else value
            if limit > whole:
                raise BudgetError(
                    f"Expected a budget for {name} of at most the original's {format_cost(name, whole)}. "
                    f"Received: {getattr(self, name)!r}, which is {format_cost(name, limit)}."
                )
            limits[name] = limit
        return Limits(limits, {name: float(value) for name, value in original.items()})

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in self.names)


@dataclass(frozen=True)
class Limits:
    """A budget in absolute numbers.

    Attributes:
        limits: cost -> the most it may be (numbers, bytes, milliseconds).
        original: cost -> what the model costs before pruning.
    """

    limits: dict[str, float]
    original: dict[str, float]

    def holds(self, costs: Mapping[str, float]) -> bool:
        """Whether no bounded cost is above its limit. Costs that are missing are not looked at."""
        return all(costs[name] <= limit for name, limit in self.limits.items() if name in costs)

    def load(self, costs: Mapping[str, float]) -> float:
        """The largest share of a limit that is used; at most 1 where the budget holds."""
        return max(costs[name] / limit for name, limit in self.limits.items() if name in costs)

    def broken(self, costs: Mapping[str, float]) -> list[str]:
        """The costs that are above their limit."""
        return [name for name, limit in self.limits.items() if name in costs and costs[name] > limit]


def parse_amount(name: str, amount: Any) -> tuple[float, bool]:
    """The value of an amount, and whether it is a share of the original.

    Raises:
        BudgetError: see :class:`Budget`.
    """
    expected = f"a fraction of the original in (0, 1], an absolute number, or a string such as {_EXAMPLES[name]}"
    if isinstance(amount, str):
        value, relative = _parse_text(name, amount)
    elif isinstance(amount, bool) or not hasattr(amount, "__float__") or getattr(amount, "ndim", False):
        raise BudgetError(
            f"Expected a budget for {name}: {expected}. Received: {amount!r} (of type {type(amount).__name__})."
        )
    else:
        value = _as_float(name, amount)
        relative = value <= 1
        if name == "latency" and not relative and math.isfinite(value):
            raise BudgetError(
                f'Expected an absolute latency with its unit, such as "{value:g} ms". Received: {amount!r}.'
            )
        if not relative and math.isfinite(value) and not value.is_integer():
            raise BudgetError(
                f"Expected a budget for {name}: {expected}. Received: {amount!r}, above 1 and no whole number. Write a "
                f"share of the original as a number up to 1, an amount as a whole number or as text with its unit."
            )
    if not math.isfinite(value) or value <= 0:
        raise BudgetError(f"Expected a budget for {name} above zero: {expected}. Received: {amount!r}.")
    if relative and value > 1:
        raise BudgetError(f"Expected a budget for {name} of at most 100 % of the original. Received: {amount!r}.")
    return value, relative


def check_budget(budget: Any) -> Budget:
    """The budget, if it is one.

    Raises:
        BudgetError: it is something else.
    """
    if not isinstance(budget, Budget):
        raise BudgetError(
            f"Expected a tfqprune.Budget, as in Budget(memory=0.5). Received: {budget!r} "
            f"(of type {type(budget).__name__})."
        )
    return budget


def _plain(amount: Any) -> Amount:
    """An amount as Python's own type, which can be written to files."""
    return amount if isinstance(amount, str | int) else float(amount)


def _as_float(name: str, amount: Any) -> float:
    try:
        return float(amount)
    except OverflowError as error:
        raise BudgetError(
            f"Expected a budget for {name} of at most the original's. Received: a whole number too large to count with."
        ) from error


def _title(function: Any) -> str:
    """What a callable is called, the same in every process: never an address."""
    if isinstance(function, partial):
        given = [*function.args, *(part for pair in sorted(function.keywords.items()) for part in pair)]
        plain = [str(part) if isinstance(part, str | int | float) else type(part).__qualname__ for part in given]
        return f"{_title(function.func)}({', '.join(plain)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _parse_text(name: str, text: str) -> tuple[float, bool]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BudgetError(
            f"Expected a budget for {name}: a number with a unit, such as {_EXAMPLES[name]}. Received: {text!r}."
        )
    value, unit = float(match[1]), match[2]
    if unit == "%":
        return value / 100, True
    if unit not in _UNITS[name] or (name in (*MEASURED, "memory") and not unit):
        known = ", ".join(repr(known) for known in [*_UNITS[name], "%"] if known)
        raise BudgetError(f"Expected the budget for {name} in one of {known}. Received: {text!r}.")
    if not unit and 0 < value < 1:
        raise BudgetError(
            f"Expected a budget for {name} of at least 1, or a share of the original. Received: {text!r}, which says "
            f'less than one. Write {value:g} without quotes, or "{100 * value:g} %".'
        )
    return value * _UNITS[name][unit], False


def format_cost(name: str, value: float) -> str:
    """A cost with its unit, for people."""
    if name == "latency":
        return f"{value:.3g} ms"
    if name in ("memory", "tflite_bytes"):
        return f"{value / 1024:,.2f} KiB" if value >= 1024 else f"{value:,.0f} B"
    noun = {"params": "parameters", "macs": "MACs", "bops": "BOPs"}[name]
    return f"{value:,.0f} {noun}"
