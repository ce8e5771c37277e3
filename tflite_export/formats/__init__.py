"""The formats that a model can be stored in; importing this package registers those of the project."""

from tflite_export.formats import binary, fast, float16, float32, hybrid, int8, packed  # noqa: F401
from tflite_export.formats.base import CALIBRATION_SAMPLES, Built, Capability, Facts, Format, Promise, Request
from tflite_export.formats.registry import check_aim, choose_format, get_format, list_formats, register_format

__all__ = [
    "CALIBRATION_SAMPLES", "Built", "Capability", "Facts", "Format", "Promise", "Request",
    "check_aim", "choose_format", "get_format", "list_formats", "register_format",
]  # fmt: skip
