"""The whole line: from a trained Keras model to measured .tflite files of slim models."""

from __future__ import annotations

from tfqprune.pipeline.compression import METHODS, CompressionResult, compress
from tfqprune.pipeline.line import Variant

__all__ = ["METHODS", "CompressionResult", "Variant", "compress"]
