"""Budgets: amounts and units by hand, what is refused, and limits."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfqprune as tq
from tfqprune.budget import format_cost, parse_amount
from tfqprune.errors import BudgetError

# (cost, amount, value, relative): numbers, bytes, milliseconds
AMOUNTS = [
    ("memory", 0.5, 0.5, True),
    ("memory", 1, 1.0, True),
    ("memory", "50 %", 0.5, True),
    ("memory", "50%", 0.5, True),
    ("memory", "250 KiB", 256_000, False),
    ("memory", "250 kB", 250_000, False),
    ("memory", "1.5MiB", 1_572_864, False),
    ("memory", 2048, 2048, False),
    ("memory", np.float64(2048.0), 2048, False),
    ("memory", "1.5 B", 1.5, False),
    ("tflite_bytes", "300 B", 300, False),
    ("tflite_bytes", "1e3 bytes", 1000, False),
    ("params", "1.2 M", 1_200_000, False),
    ("params", "750 params", 750, False),
    ("macs", "40 MMAC", 40_000_000, False),
    ("macs", "0.5 GMACs", 500_000_000, False),
    ("macs", "64", 64, False),
    ("bops", "1.5 GBOP", 1_500_000_000, False),
    ("latency", "5 ms", 5, False),
    ("latency", "300 us", 0.3, False),
    ("latency", "0.01 s", 10, False),
    ("latency", 0.25, 0.25, True),
]


@pytest.mark.parametrize(("name", "amount", "value", "relative"), AMOUNTS)
def test_amounts(name: str, amount: object, value: float, relative: bool) -> None:
    assert parse_amount(name, amount) == (pytest.approx(value, rel=1e-12), relative)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "at least one of params, macs"),
        ({"memory": 0}, "above zero"),
        ({"memory": 0.0}, "above zero"),
        ({"memory": -0.5}, "above zero"),
        ({"memory": "0 KiB"}, "above zero"),
        ({"params": math.nan}, "above zero"),
        ({"params": math.inf}, "above zero"),
        ({"macs": "120 %"}, "at most 100 %"),
        ({"memory": True}, "Received: True"),
        ({"memory": [0.5]}, r"Received: \[0.5\]"),
        ({"memory": "half"}, "a number with a unit, such as"),
        ({"memory": "250"}, "in one of 'B'"),
        ({"memory": "250 KB/s"}, "Received: '250 KB/s'"),
        ({"memory": "5 ms"}, "Received: '5 ms'"),
        ({"latency": "5"}, "'ms'"),
        ({"latency": 5}, 'with its unit, such as "5 ms"'),
        ({"macs": "3 KiB"}, "Received: '3 KiB'"),
        ({"flops": 0.5}, "Received: 'flops'"),
        ({"memory": np.array([0.5, 0.6])}, r"Received: array\(\[0.5, 0.6\]\) \(of type ndarray\)"),
        ({"memory": 10**400}, "at most the original's. Received: a whole number too large"),
        ({"memory": 1.5}, "Received: 1.5, above 1 and no whole number. Write a share .* up to 1"),
        ({"tflite_bytes": np.float32(50.5)}, "no whole number"),
        ({"params": "0.5"}, r"says less than one. Write 0.5 without quotes, or \"50 %\""),
        ({"macs": ".25"}, 'Write 0.25 without quotes, or "25 %"'),
        ({"bops": "0"}, "above zero"),
        ({"latency": 0.5, "measure_latency": 3}, "a function of the slim model"),
    ],
)
def test_refused(arguments: dict, message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        tq.Budget(**arguments)


@pytest.mark.parametrize("amount", [Fraction(1, 2), Decimal("0.5"), np.float32(0.5), tf.constant(0.5)])
def test_numbers_of_any_type_can_be_written_to_a_file(amount: object) -> None:
    budget = tq.Budget(memory=amount, params=np.int64(2048))
    assert json.dumps(budget.as_dict()) == '{"params": 2048.0, "memory": 0.5}'
    assert budget == tq.Budget(memory=0.5, params=2048)


def test_resolve_and_hold() -> None:
    limits = tq.Budget(memory=0.5, macs="1 k").resolve({"memory": 200.0, "macs": 4000.0, "params": 50.0})
    assert limits.limits == {"macs": 1000.0, "memory": 100.0}
    assert limits.holds({"memory": 100.0, "macs": 1000.0, "params": 50.0})
    assert not limits.holds({"memory": 100.125, "macs": 1000.0})
    assert limits.broken({"memory": 100.125, "macs": 1000.0}) == ["memory"]
    assert limits.load({"memory": 50.0, "macs": 900.0}) == pytest.approx(0.9)


@pytest.mark.parametrize("amount", [201.0, "201 B", "1 KiB"])
def test_above_the_original(amount: object) -> None:
    with pytest.raises(BudgetError, match="at most the original's 200 B"):
        tq.Budget(memory=amount).resolve({"memory": 200.0})


def test_cost_that_cannot_be_counted() -> None:
    with pytest.raises(BudgetError, match="no fixed size"):
        tq.Budget(macs=0.5).resolve({"macs": math.nan})


def test_equal_budgets_are_equal() -> None:
    assert tq.Budget(memory=0.5) == tq.Budget(memory=0.5)
    assert tq.Budget(memory=0.5) != tq.Budget(memory="50 %")
    assert str(tq.Budget(macs="40 MMAC", memory=0.5)) == "macs 40 MMAC, memory 0.5"


def device(slim: object, name: str = "", repeats: int = 1) -> float:
    return 1.0


class Device:
    def __call__(self, slim: object) -> float:
        return 1.0

    def measure(self, slim: object) -> float:
        return 1.0


def test_what_measures_belongs_to_the_budget() -> None:
    def description(**options: object) -> object:
        return tq.Budget(latency=0.5, **options).as_dict().get("measure_latency")

    assert description() is None
    assert description(measure_latency=device) == f"{__name__}.device"
    assert description(measure_latency=Device()) == f"{__name__}.Device"
    assert description(measure_latency=Device().measure) == f"{__name__}.Device.measure"
    phone = partial(device, name="phone", repeats=3)
    assert description(measure_latency=phone) == f"{__name__}.device(name, phone, repeats, 3)"
    # An address would be another one in the next process.
    assert description(measure_latency=partial(device, name=object())) == f"{__name__}.device(name, object)"


def test_measured_on_files_like_those_that_are_exported() -> None:
    budget = tq.Budget(tflite_bytes=0.5, tflite_format="packed")
    assert budget.exported("packed", "speed") == tq.Budget(
        tflite_bytes=0.5, tflite_format="packed", tflite_optimize="speed"
    )
    for change in ({"tflite_format": "packed"}, {"tflite_optimize": "speed"}):
        with pytest.raises(BudgetError, match=rf"{next(iter(change))}='\w+'\. Received: .*Leave it out of the budget"):
            tq.Budget(tflite_bytes=0.5, **change).exported("auto", "size")
    # What is counted has no format.
    assert tq.Budget(memory=0.5, tflite_format="packed").exported("fast", "size").as_dict() == {"memory": 0.5}


def test_only_what_makes_a_difference_is_described() -> None:
    assert tq.Budget(memory=0.5, measure_latency=device, tflite_format="packed").as_dict() == {"memory": 0.5}
    assert tq.Budget(tflite_bytes=0.5).as_dict() == {"tflite_bytes": 0.5}
    packed = tq.Budget(tflite_bytes=0.5, tflite_format="packed")
    assert packed.as_dict() == {"tflite_bytes": 0.5, "tflite_format": "packed"}
    fast = tq.Budget(tflite_bytes=0.5, tflite_optimize="speed")
    assert fast.as_dict() == {"tflite_bytes": 0.5, "tflite_optimize": "speed"}
    assert str(packed) == "tflite_bytes 0.5"
    assert "tflite_format" not in tq.Budget(latency=0.5, measure_latency=device, tflite_format="packed").as_dict()


@given(st.floats(1e-6, 1), st.integers(1, 10**9))
def test_fractions_never_exceed_the_original(share: float, whole: int) -> None:
    limits = tq.Budget(params=share).resolve({"params": float(whole)})
    assert 0 < limits.limits["params"] <= whole


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("memory", 2560.0, "2.50 KiB"),
        ("tflite_bytes", 300.0, "300 B"),
        ("params", 1234567.0, "1,234,567 parameters"),
        ("latency", 1.2345, "1.23 ms"),
    ],
)
def test_format(name: str, value: float, text: str) -> None:
    assert format_cost(name, value) == text
