"""The formats by name, and the choice among them."""

from __future__ import annotations

import importlib.util

from tflite_export.formats.base import Facts, Format
from tfqprune.errors import ExportError

_FORMATS: dict[str, Format] = {}


def register_format(entry: Format) -> Format:
    """Adds a format, or replaces the one of the same name; returns it."""
    _FORMATS[entry.name] = entry
    return entry


def get_format(name: str) -> Format:
    """The format of a name.

    Raises:
        ExportError: there is none.
    """
    if not isinstance(name, str) or name not in _FORMATS:
        raise ExportError(f"Expected format to be 'auto' or one of {', '.join(sorted(_FORMATS))}. Received: {name!r}.")
    return _FORMATS[name]


def list_formats() -> dict[str, Format]:
    """All registered formats by name."""
    return dict(_FORMATS)


def check_aim(optimize: str) -> None:
    """Refuses an unknown aim.

    Raises:
        ExportError: neither ``size`` nor ``speed``.
    """
    if optimize not in ("size", "speed"):
        raise ExportError(f"Expected optimize to be 'size' or 'speed'. Received: {optimize!r}.")


def choose_format(facts: Facts, optimize: str) -> tuple[str, str]:
    """The format for a model, by its precision and by what matters more.

    Args:
        facts: of the model.
        optimize: ``size`` or ``speed``.

    Returns:
        Name and reason, for a person.

    Raises:
        ExportError: ``optimize`` is neither.
    """
    check_aim(optimize)
    if not facts.kernel_bits:
        return "float32", "no layer has a quantised kernel, and float32 is exact"
    widths = "/".join(f"{bits}" for bits in sorted(set(facts.kernel_bits.values())))
    if facts.binary:
        refusal = get_format("binary").refusal(facts)
        if refusal is None and importlib.util.find_spec("larq_compute_engine") is None:
            refusal = "larq-compute-engine is not installed here"
        if refusal is None:
            return "binary", "every quantised kernel is +-1: Larq Compute Engine stores and computes single bits"
        if get_format("packed").refusal(facts) is None:
            return "packed", f"every quantised kernel is +-1, but {refusal}; packed stores single bits for stock LiteRT"
    if optimize == "speed" and "fast" in _FORMATS and _FORMATS["fast"].refusal(facts) is None:
        return "fast", f"{widths}-bit kernels, speed wanted: 8 bits stored, integer kernels"
    if get_format("packed").refusal(facts) is None:
        return "packed", f"{widths}-bit kernels: stored at that width, decoded at run time by stock LiteRT"
    return "float32", f"{widths}-bit kernels, which no packed storage holds: {get_format('packed').refusal(facts)}"
