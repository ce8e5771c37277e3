"""Requantisation that hits every level: integers by hand, the three roundings, every sum tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.thresholds import (
    Fit,
    Ramp,
    double_rounding,
    fit_channel,
    fixed_point,
    gap_ends,
    in_floats,
    is_exact,
    other_fits,
    single_rounding,
)


def test_levels_by_hand() -> None:
    # 2 bits, a / 9: round(a / 3), so it steps up at 1.5, 4.5 and 7.5
    ramp = Ramp(1 / 9, 0.0, 3, -12, 12)
    assert ramp.level(np.array([-12, 0, 1, 2, 4, 5, 7, 8, 12])).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    below, above = gap_ends(ramp)
    assert (below.tolist(), above.tolist()) == ([1, 4, 7], [2, 5, 8])


def test_thresholds_out_of_reach_lie_at_the_ends() -> None:
    # steps at 1.5, 4.5, 7.5, and sums from 3 to 6: the first is passed already, the last never reached
    below, above = gap_ends(Ramp(1 / 9, 0.0, 3, 3, 6))
    assert (below.tolist(), above.tolist()) == ([1, 4, 6], [3, 5, 8])


def test_a_boundary_belongs_to_the_even_level() -> None:
    # a / 6 with 3 steps: a / 2, so 1 -> 0.5 -> 0, 3 -> 1.5 -> 2, 5 -> 2.5 -> 2
    below, above = gap_ends(Ramp(1 / 6, 0.0, 3, -10, 10))
    assert (below.tolist(), above.tolist()) == ([1, 2, 5], [2, 3, 6])


def test_integers_by_hand() -> None:
    # weights up to 3 leave a gain of 42; 42 a / 126 = a / 3 has its steps in mid-gap without a bias
    fit = fit_channel(Ramp(1 / 9, 0.0, 3, -12, 12), 42)
    assert fit is not None
    assert (fit.gain, fit.bias) == (42, 0)
    assert fit.unit == pytest.approx(126)
    # falling: round(3 - a / 3) = round((378 - 42 a) / 126)
    fit = fit_channel(Ramp(-1 / 9, 1.0, 3, -12, 12), 42)
    assert fit is not None
    assert (fit.gain, fit.bias) == (-42, 378)
    assert fit.unit == pytest.approx(126)


def test_a_constant_channel() -> None:
    # round(3 * 0.7) = 2, whatever the sum: 2 * 64 / 64
    ramp = Ramp(0.0, 0.7, 3, -12, 12)
    fit = fit_channel(ramp, 42)
    assert fit == Fit(0, 128, 64.0)
    assert is_exact(ramp, fit, 1 / 64, np.float32(1 / 64))


def test_fixed_point_by_hand() -> None:
    assert fixed_point(0.5) == (2**30, 0)
    assert fixed_point(0.25) == (2**30, -1)
    assert fixed_point(1.0) == (2**30, 1)
    assert fixed_point(1 - 2**-40) == (2**30, 1)  # the fraction rounds up to 1


def test_the_three_roundings_differ_where_they_should() -> None:
    sums = np.array([1, -1, 3])
    # 0.5, -0.5, 1.5: half goes up in integers, to even in floats
    assert double_rounding(sums, 0.5).tolist() == [1, 0, 2]
    assert single_rounding(sums, 0.5).tolist() == [1, 0, 2]
    assert in_floats(sums, np.float32(0.5)).tolist() == [0, 0, 2]
    # 0.25 rounds to 0.5 first and then to 1
    assert double_rounding(np.array([1]), 0.25).tolist() == [1]
    assert single_rounding(np.array([1]), 0.25).tolist() == [0]


def test_a_step_off_by_one_is_seen() -> None:
    ramp = Ramp(1 / 9, 0.0, 3, -12, 12)
    assert is_exact(ramp, Fit(42, 0, 126.0), 1 / 126, np.float32(1 / 126))
    # 42 more is one sum more: 1 -> (42 + 42) / 126 = 0.67 -> 1, but round(1 / 3) = 0
    assert not is_exact(ramp, Fit(42, 42, 126.0), 1 / 126, np.float32(1 / 126))


def test_too_coarse_a_resolution_is_no_fit() -> None:
    # 15 steps 2.3 apart, weights that leave no gain: whole biases cannot follow the fractions
    ramp = Ramp(1 / (15 * 2.3), (0.5 - 0.3 / 2.3) / 15, 15, -100, 100)
    assert fit_channel(ramp, 1) is None
    assert not any(is_exact(ramp, fit, 1 / fit.unit, np.float32(1 / fit.unit)) for fit in other_fits(ramp, 1))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([-1, 1]))
def test_a_proven_channel_is_right_for_every_sum(seed: int, bits: int, sign: int) -> None:
    rng = np.random.default_rng(seed)
    steps = 2**bits - 1
    row = rng.choice(np.arange(-steps, steps + 1, 2), rng.integers(1, 600))
    spread = 0.6 * steps * np.sqrt((row**2).sum())
    low, high = steps * int(row[row < 0].sum()), steps * int(row[row > 0].sum())
    ramp = Ramp(sign * rng.uniform(0.05, 3) / spread, rng.normal(0.3, 0.6), steps, low, high)
    fit = fit_channel(ramp, 127 // steps)
    assert fit is not None  # up to 3 bits every channel has a fit
    single = np.float32(1 / fit.unit)
    assert is_exact(ramp, fit, float(single), single)
    sums = np.arange(low, high + 1)
    gained = fit.gain * sums + fit.bias
    for answer in (
        double_rounding(gained, float(single)), single_rounding(gained, float(single)), in_floats(gained, single)
    ):  # fmt: skip
        np.testing.assert_array_equal(np.clip(answer, 0, steps), ramp.level(sums))
