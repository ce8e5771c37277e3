"""Integer requantisation that gives the same level as a DoReFa quantiser, for every sum that can occur.

A quantised layer makes integer sums a; batch norm and activation make a level of them, round(n clip(s a + b, 0, 1)). An
8-bit runtime computes round((g a + c) m) and clips. The levels step up at n thresholds, which lie between two integers
each; for weights times g, an integer bias c and a multiplier m are chosen so that every step falls in mid-gap. As all
requantisations in use are monotone, two sums at each threshold prove a channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_SECTIONS = 60
_GOLDEN = (5**0.5 - 1) / 2
_CONSTANT_UNIT = 64
_UNITS = 9
_LARGEST_SUM = 2**31 - 1


@dataclass(frozen=True)
class Ramp:
    """The levels of one output channel by its integer sum.

    Attributes:
        scale: s, real.
        offset: b, real.
        steps: n = 2^k - 1 of the activation.
        low: smallest sum that can occur.
        high: largest.
    """

    scale: float
    offset: float
    steps: int
    low: int
    high: int

    def level(self, sums: np.ndarray) -> np.ndarray:
        """Levels of integer sums; ties go to even, as in TensorFlow."""
        real = self.scale * np.asarray(sums, np.float64) + self.offset
        return np.rint(np.clip(real, 0.0, 1.0) * self.steps).astype(np.int64)


@dataclass(frozen=True)
class Fit:
    """A channel's integers: level = round((gain a + bias) / unit), clipped to 0..n.

    Attributes:
        gain: factor of the weights; negative where the level falls as the sum rises, 0 where it never changes.
        bias: integer bias.
        unit: real, what one level is worth in gained sums.
    """

    gain: int
    bias: int
    unit: float


def fit_channel(ramp: Ramp, gain: int) -> Fit | None:
    """The integers that put the thresholds of a channel as near to mid-gap as they go, or None where a step would move.

    For a unit u the bias may lie between the largest (j - 1/2) u - g above_j and the smallest (j - 1/2) u - g below_j;
    how far these are apart is concave in u, so the best unit is found by golden sections.

    Args:
        ramp: the channel.
        gain: largest factor that keeps the weights in 8 bits, from 1.
    """
    if ramp.scale == 0:
        return Fit(0, _CONSTANT_UNIT * int(ramp.level(np.zeros(1))[0]), float(_CONSTANT_UNIT))
    sign = -1 if ramp.scale < 0 else 1
    below, above = gap_ends(ramp)
    steps = np.arange(1, ramp.steps + 1) - 0.5
    low, high = sorted((sign * ramp.low, sign * ramp.high))
    lowest, highest = gain * below[below >= low], gain * above[above <= high]
    to_lowest, to_highest = steps[below >= low], steps[above <= high]

    def ends(unit: float) -> tuple[float, float]:
        # a side without a threshold is as far away as one level
        least = (to_highest * unit - highest).max(initial=-np.inf)
        most = (to_lowest * unit - lowest).min(initial=np.inf)
        return (most - unit, most) if np.isinf(least) else (least, least + unit) if np.isinf(most) else (least, most)

    def room(unit: float) -> float:
        least, most = ends(unit)
        return most - least

    expected = gain / (ramp.steps * abs(ramp.scale))
    left, right = expected / 2, expected * 2
    for _ in range(_SECTIONS):
        first, second = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        left, right = (left, second) if room(first) >= room(second) else (first, right)
    unit = (left + right) / 2
    least, most = ends(unit)
    bias = round((least + most) / 2)
    if not least < bias < most or abs(bias) > _LARGEST_SUM // 2:
        return None
    return Fit(sign * gain, bias, unit)


def other_fits(ramp: Ramp, gain: int) -> Iterator[Fit]:
    """Further integers whose thresholds lie in their gaps, for where the roundings in between miss with the best ones.

    Smaller gains, every bias that fits, and units across what each bias allows.
    """
    sign = -1 if ramp.scale < 0 else 1
    below, above = gap_ends(ramp)
    steps = np.arange(1, ramp.steps + 1) - 0.5
    low, high = sorted((sign * ramp.low, sign * ramp.high))
    for factor in range(gain, gain // 2, -1) if ramp.scale else ():
        around = round(factor * ramp.offset / abs(ramp.scale))
        biases = around + np.arange(-factor, factor + 1)
        least = np.where(below >= low, (factor * below + biases[:, None]) / steps, 0.0).max(axis=1)
        most = np.where(above <= high, (factor * above + biases[:, None]) / steps, np.inf).min(axis=1)
        most = np.minimum(most, 4 * np.maximum(least, 1.0))
        for i in np.argsort((least - most) / np.maximum(most, 1.0)):
            if least[i] >= most[i]:
                break
            for share in np.linspace(0, 1, _UNITS + 2)[1:-1]:
                unit = float(least[i] + share * (most[i] - least[i]))
                yield Fit(sign * factor, int(biases[i]), unit)


def gap_ends(ramp: Ramp) -> tuple[np.ndarray, np.ndarray]:
    """For each threshold the last sum below it and the first above it, that can occur; sums count upwards by level.

    Where a level falls with the sum, sums are negated. A threshold that no sum crosses has one end outside the range.
    """
    sign = -1 if ramp.scale < 0 else 1
    low, high = sorted((sign * ramp.low, sign * ramp.high))
    numbers = np.arange(1, ramp.steps + 1)
    if ramp.scale == 0:
        reached = int(ramp.level(np.zeros(1))[0]) >= numbers
        first = np.where(reached, low, high + 1)
    else:
        real = ((numbers - 0.5) / ramp.steps - ramp.offset) / abs(ramp.scale)
        real = np.clip(real, low - 1.0, high + 2.0)
        first = np.ceil(real).astype(np.int64)
        # on the boundary itself the even level wins
        for shift in (-1, 0):
            there = ramp.level(sign * (first + shift)) >= numbers
            first = np.where(there & (shift < 0), first + shift, first)
            first = np.where(~there & (shift == 0) & (first <= high), first + 1, first)
    return np.minimum(first - 1, high), np.maximum(first, low)


def is_exact(ramp: Ramp, fit: Fit, multiplier: float, single: np.float32) -> bool:
    """Whether all requantisations in use give the right level for every sum that can occur.

    Args:
        ramp: the channel.
        fit: its integers.
        multiplier: input scale * weight scale / output scale, computed in double from the file's float32 scales.
        single: the same computed in float32.
    """
    below, above = gap_ends(ramp)
    sign = -1 if ramp.scale < 0 else 1
    low, high = sorted((sign * ramp.low, sign * ramp.high))
    sums = np.concatenate([below[below >= low], above[above <= high], [low, high]]).astype(np.int64)
    gained = abs(fit.gain) * sums + fit.bias
    if np.abs(gained).max() > _LARGEST_SUM // 2:
        return False
    wanted = ramp.level(sign * sums)
    answers = (double_rounding(gained, multiplier), single_rounding(gained, multiplier), in_floats(gained, single))
    return all(np.array_equal(np.clip(answer, 0, ramp.steps), wanted) for answer in answers)


def fixed_point(multiplier: float) -> tuple[int, int]:
    """A real multiplier as TensorFlow Lite holds it: a 31-bit fraction and a power of two."""
    fraction, exponent = np.frexp(multiplier)
    mantissa = int(np.floor(float(fraction) * 2**31 + 0.5))
    if mantissa == 2**31:
        return 2**30, int(exponent) + 1
    return mantissa, int(exponent)


def double_rounding(sums: np.ndarray, multiplier: float) -> np.ndarray:
    """TensorFlow Lite's reference: rounds in the high half of the product, then in the shift."""
    mantissa, exponent = fixed_point(multiplier)
    left, right = max(exponent, 0), max(-exponent, 0)
    product = (np.asarray(sums, np.int64) << left) * mantissa
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))  # towards zero, as C divides
    mask = (1 << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def single_rounding(sums: np.ndarray, multiplier: float) -> np.ndarray:
    """TensorFlow Lite built for single rounding: one shift with half added."""
    mantissa, exponent = fixed_point(multiplier)
    shift = 31 - exponent
    return (np.asarray(sums, np.int64) * mantissa + (1 << (shift - 1))) >> shift


def in_floats(sums: np.ndarray, multiplier: np.float32) -> np.ndarray:
    """XNNPACK: float32 product, ties to even."""
    return np.rint(np.asarray(sums).astype(np.float32) * multiplier).astype(np.int64)
