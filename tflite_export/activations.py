"""What levels the activations in front of a layer have, found by asking its input quantiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfqprune.precision import input_bits, quantize

# Fine about zero, where levels change, and far beyond, where a quantiser without bounds shows itself.
_ASKED = np.concatenate([np.linspace(-4, 4, 4001), [-1e3, -100, -10, 10, 100, 1e3]]).astype(np.float32)
_MOST_BITS = 8


@dataclass(frozen=True)
class InputLevels:
    """Activations that are ``step`` times integers.

    Attributes:
        step: what one level is worth.
        signed: whether the integers are -1, (0) and 1, rather than 0 to 2^k - 1.
    """

    step: float
    signed: bool


def input_levels(layer: Any) -> InputLevels | None:
    """The levels that a layer multiplies, or None where its input is real-valued or of levels not known here.

    Known are signs (with or without 0), and k bits that count from 0: those of larq's quantisers.
    """
    bits = input_bits(layer)
    if bits > _MOST_BITS:
        return None
    try:
        given = quantize(layer.input_quantizer, _ASKED)
    except Exception:  # one that takes images only, or as many channels as its layer reads
        return None
    largest = float(np.abs(given).max())
    signed = bool((given < 0).any())
    step = largest if signed else largest / (2**bits - 1)
    if not step or not np.isfinite(step) or not np.allclose(given / step, np.rint(given / step), atol=1e-3):
        return None
    return InputLevels(step, signed)
