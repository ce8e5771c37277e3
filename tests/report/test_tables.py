"""Terminal tables hold the same figures, and print names as they are."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from tests.report.examples import NAME, NETWORK
from tfqprune.report import tables


def _text(table: Table, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_comparison() -> None:
    text = _text(tables.comparison_table(NETWORK))
    assert NAME in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "95.5 % (−2.3 pp)" in lines["Accuracy"]
    assert "34.8 KiB (−30.0 %)" in lines["Memory"]
    assert lines["Peak"].split() == ["Peak", "RAM", "391", "KiB", "–", "293", "KiB", "(−25.1", "%)"]


def test_comparison_fits_eighty_columns() -> None:
    assert "…" not in _text(tables.comparison_table(NETWORK), 80)


def test_cost() -> None:
    layers = [
        dict(name="conv[0]", params=2304, macs=147_456, bops=589_824, memory=576.0, weight_bits=2, input_bits=2),
        dict(name="bn", params=32, macs=0, bops=0, memory=128.0, weight_bits=32, input_bits=32),
    ]
    text = _text(tables.cost_table("m", layers, {"params": 2336, "macs": 147_456, "bops": 589_824, "memory": 704.0}))
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["conv[0]"] == ["conv[0]", "2/2", "2.30", "k", "147", "k", "590", "k", "576", "B"]
    assert lines["bn"] == ["bn", "–", "32", "–", "–", "128", "B"]
    assert lines["total"] == ["total", "2.34", "k", "147", "k", "590", "k", "704", "B"]


def test_narrow_terminals_lose_nothing() -> None:
    layer = dict(name="a_long_name/conv", params=2304, macs=10**9, bops=10**10, memory=5e6, weight_bits=2, input_bits=2)
    total = {"params": 2304, "macs": 10**9, "bops": 10**10, "memory": 5e6}
    group = {"name": "a_long_name", "units": 1600, "layers": [f"conv{i}" for i in range(6)], "frozen": None}
    for table in (
        tables.cost_table("m", [layer], total),
        tables.group_table([group]),
        tables.comparison_table(NETWORK),
    ):
        assert "…" not in _text(table, 40)


def test_groups() -> None:
    groups = [
        {"name": "a", "units": 16, "layers": [f"conv{i}" for i in range(6)], "frozen": None},
        {"name": "b", "units": 10, "layers": ["dense"], "frozen": "model [output]"},
    ]
    text = " ".join(_text(tables.group_table(groups), 200).split())
    assert "a 16 conv0, conv1, conv2, conv3 and 2 more yes" in text
    assert "b 10 dense no: model [output]" in text


def test_pairs() -> None:
    assert "cores 2" in " ".join(_text(tables.pairs_table("Machine", {"cores": "2"})).split())
