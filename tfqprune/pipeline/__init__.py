"""The whole line: from a trained Keras model to measured .tflite files of slim models.

TensorFlow is loaded with the first public name that is used: the command line looks at output folders before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfqprune.pipeline.compression import METHODS, CompressionResult, compress
    from tfqprune.pipeline.line import Variant

_HOMES = {"METHODS": "compression", "CompressionResult": "compression", "compress": "compression", "Variant": "line"}

__all__ = ["METHODS", "CompressionResult", "Variant", "compress"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
