"""Numbers that users give: numpy's are as good as Python's, and a message says which would have done."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tfqprune.errors import DataError, PlanError, real_number, seed_number, whole_number


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_whole_numbers(value: Any) -> None:
    found = whole_number("count", value, DataError)
    assert (found, type(found)) == (2, int)


@pytest.mark.parametrize("value", [0, -1, 2.0, np.float64(2), True, np.True_, "2", None, np.array([2])])
def test_no_whole_numbers(value: Any) -> None:
    with pytest.raises(DataError, match=r"Expected count to be a whole number of at least 1\. Received: "):
        whole_number("count", value, DataError)


def test_whole_numbers_have_bounds() -> None:
    assert whole_number("count", 3, DataError, 2, 3) == 3
    with pytest.raises(DataError, match=r"of at least 2 and at most 3\. Received: 4"):
        whole_number("count", 4, DataError, 2, 3)
    assert [seed_number(value, DataError) for value in (0, 2**32 - 1)] == [0, 2**32 - 1]
    for wrong in (-1, 2**32, None, "0"):
        with pytest.raises(DataError, match="Expected seed to be a whole number of at least 0 and at most 4294967295"):
            seed_number(wrong, DataError)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_real_numbers(value: Any) -> None:
    found = real_number("share", value, PlanError, 0, 1)
    assert (found, type(found)) == (0.5, float)
    assert real_number("share", np.int32(-3), PlanError) == -3.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, True, np.True_, 1j, "0.5", None, np.array([0.5])])
def test_no_real_numbers(value: Any) -> None:
    with pytest.raises(PlanError, match=r"Expected share to be a finite number\. Received: "):
        real_number("share", value, PlanError)


@pytest.mark.parametrize(
    ("bounds", "least", "most", "words"),
    [
        ({"low": 0, "high": 1}, 0, 1, "a finite number of at least 0 and at most 1"),
        ({"low": 0}, 0, 1e30, "a finite number of at least 0"),
        ({"above": 0}, 1e-30, 1e30, "a finite number above 0"),
        ({"above": 0, "high": 1}, 1e-30, 1, "a finite number above 0 and at most 1"),
        ({"low": 0, "below": 1}, 0, 1 - 1e-9, "a finite number of at least 0 and below 1"),
    ],
)
def test_bounds(bounds: dict[str, float], least: float, most: float, words: str) -> None:
    for value in (least, most):
        assert real_number("share", value, PlanError, **bounds) == value
    outside = [least - 1e-9] + ([most + 1e-9] if most < 2 else [])
    for value in outside:
        with pytest.raises(PlanError, match=f"^Expected share to be {words}. Received: {value!r}.$"):
            real_number("share", value, PlanError, **bounds)
