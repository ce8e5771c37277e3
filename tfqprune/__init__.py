"""Prunes the filters of binary and k-bit Keras networks, and makes them physically slim.

Importing this package selects legacy Keras (tf_keras); TensorFlow itself is loaded when the first
public name is used, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfqprune.legacy import select_legacy_keras

select_legacy_keras()

__version__ = "0.1.0"
