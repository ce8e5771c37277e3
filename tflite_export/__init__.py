"""Keras models to small .tflite files: k bits that are k bits in the file, proven equal, measured.

Importing this package selects legacy Keras (tf_keras); TensorFlow itself is loaded when a model is first handled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import tfqprune  # noqa: F401 - selects legacy Keras, before TensorFlow loads

if TYPE_CHECKING:
    from tflite_export.benchmarking import Benchmark, benchmark
    from tflite_export.exporting import ExportResult, export
    from tflite_export.floor import floor_bytes
    from tflite_export.formats import Format, Promise, get_format, list_formats, register_format
    from tflite_export.inputs import with_uint8_input
    from tflite_export.levels import LevelMismatch
    from tflite_export.sizes import SizeReport, SizeRow, size_report
    from tflite_export.verification import Agreement, verify

# Public name -> module that has it. No module may have a public name: importing it would hide the function.
_PUBLIC = {
    "Agreement": "verification",
    "Benchmark": "benchmarking",
    "ExportResult": "exporting",
    "Format": "formats",
    "LevelMismatch": "levels",
    "Promise": "formats",
    "SizeReport": "sizes",
    "SizeRow": "sizes",
    "benchmark": "benchmarking",
    "export": "exporting",
    "floor_bytes": "floor",
    "get_format": "formats",
    "list_formats": "formats",
    "register_format": "formats",
    "size_report": "sizes",
    "verify": "verification",
    "with_uint8_input": "inputs",
}

__all__ = [
    "Agreement", "Benchmark", "ExportResult", "Format", "LevelMismatch", "Promise", "SizeReport", "SizeRow",
    "benchmark", "export", "floor_bytes", "get_format", "list_formats", "register_format", "size_report", "verify",
    "with_uint8_input",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
