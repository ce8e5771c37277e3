"""The growth that benchmarks report: exponents by hand, and a page that says what was measured."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

Programs = dict[str, ModuleType]


@pytest.fixture(scope="module")
def programs(load_benchmark: Callable[[str], ModuleType]) -> Programs:
    return {name: load_benchmark(name) for name in ("scale_growth", "scale_plan", "scale")}


def test_exponent_without_noise(programs: Programs) -> None:
    law = programs["scale_growth"].power_law([1, 2, 4, 10], [3, 12, 48, 300])  # 3 x^2
    assert (law.factor, law.exponent) == pytest.approx((3, 2))
    assert law.error == pytest.approx(0, abs=1e-7)
    assert law(5) == pytest.approx(75)


def test_exponent_and_its_error_by_hand(programs: Programs) -> None:
    # Logarithms u = -1, 0, 1 and v = -1, 1, 0: slope = sum(u v) / sum(u^2) = 1 / 2, intercept = mean(v) = 0.
    # Residuals -1/2, 1, -1/2: their squares are 3/2 in sum, over 3 - 2 degrees of freedom and sum(u^2) = 2.
    law = programs["scale_growth"].power_law([math.exp(u) for u in (-1, 0, 1)], [math.exp(v) for v in (-1, 1, 0)])
    assert (law.factor, law.exponent, law.error) == pytest.approx((1, 0.5, math.sqrt(0.75)))
    assert str(law) == "0.50 ± 0.87"


@pytest.mark.parametrize(("sizes", "values"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]), ([1, 2, 3], [1, -1, 2])])
def test_too_little_to_fit(programs: Programs, sizes: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="three positive points"):
        programs["scale_growth"].power_law(sizes, values)
    assert programs["scale_growth"].told_law(sizes, values) == "-"


def test_plan_by_hand(programs: Programs) -> None:
    """Two workers of 4 cores, 20 trials: ten rounds of 2,048 images at 0.1 s and 1,000 at 0.2 s, and the start."""
    steps = {"twin": 40.0, "assigning": 0.2, "re_estimating": 0.4, "evaluating": 0.8, "training": 1.2}
    row = {
        "depth": 50, "groups": 37, "images": 4, "calibration": 2048, "side": 224, "statistics_bytes": 2_000_000,
        "processor": "A processor, 4 cores", "steps": {name: {"cpu": [value]} for name, value in steps.items()},
    }  # fmt: skip
    basis = programs["scale_plan"].Basis(row)
    assert basis.trial(1000) == pytest.approx(0.2 + 204.8 + 200.0)
    assert programs["scale_plan"].hours(basis, 20, 1000, 2, chief=36.0) * 3600 == pytest.approx(
        (10 * 405 + 40) / 4 + 36
    )


def test_the_page_is_rendered_from_the_results(monkeypatch: pytest.MonkeyPatch, programs: Programs) -> None:
    monkeypatch.setattr(sys, "argv", ["scale.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        programs["scale"].main()
    assert ended.value.code == 0
