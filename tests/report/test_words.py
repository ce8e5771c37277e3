"""Numbers as text, with every expected text written out."""

from __future__ import annotations

import pytest

from tfqprune.report import words
from tfqprune.report.model import VariantRow


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (28_600.0, "27.9 KiB"),  # 28600 / 1024 = 27.93
        (3_522_720, "3.36 MiB"),  # 3522720 / 1048576 = 3.3595
        (5 * 2**30, "5.00 GiB"),
        (None, "–"),
    ],
)
def test_size(value: float | None, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (650, "650"),
        (176_090, "176 k"),
        (1_650_000, "1.65 M"),
        (12_400_000_000, "12.4 G"),
        (2e12, "2.00 T"),
        (None, "–"),
    ],
)
def test_count(value: float | None, text: str) -> None:
    assert words.count(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.9777, "97.8 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (None, "–")])
def test_percent(value: float | None, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.21, "210 µs"), (3.4, "3.40 ms"), (120.6, "121 ms"), (None, "–")])
def test_milliseconds(value: float | None, text: str) -> None:
    assert words.milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "before", "points", "text"),
    [
        (70, 100, False, "−30.0 %"),
        (110, 100, False, "+10.0 %"),
        (0.955, 0.978, True, "−2.3 pp"),
        (None, 100, False, ""),
        (70, None, False, ""),
        (70, 0, False, ""),
        (0.1, 0.0, True, "+10.0 pp"),
    ],
)
def test_change(value: float | None, before: float | None, points: bool, text: str) -> None:
    assert words.change(value, before, points=points) == text


def test_ratio() -> None:
    assert words.ratio(16, 12) == 0.25
    assert words.ratio(0, 0) == 0.0


def test_columns_without_any_value_are_left_out() -> None:
    rows = (VariantRow("dense", accuracy=0.9, macs=5), VariantRow("slim"))
    assert [column.title for column in words.columns(rows)] == ["Accuracy", "MACs", "Memory", ".tflite"]


def test_cells_compare_with_the_first_variant_only() -> None:
    first, other = VariantRow("dense", memory=2048, agreement=1.0), VariantRow("slim", memory=1024, agreement=0.5)
    memory, agreement = (column for column in words.COLUMNS if column.field in ("memory", "agreement"))
    assert memory.cell(first, first) == ("2.00 KiB", "")
    assert memory.cell(other, first) == ("1.00 KiB", "−50.0 %")
    assert agreement.cell(other, first) == ("50.0 %", "")
