"""What stands in the plots, read back from their axes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.report.examples import NETWORK
from tfqprune.report import GroupRow, LayerRow, TrialRow, VariantRow, plots
from tfqprune.report.drawing import COLOURS, MARKERS, short
from tfqprune.report.model import NetworkReport
from tfqprune.report.search import best_so_far, shown_costs


def _luminance(colour: str) -> float:
    """WCAG 2.1, relative luminance of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", ["#ffffff", "#1b212a"])
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_light_and_dark(colour: str, page: str) -> None:
    """WCAG 2.1, 1.4.11: graphics need 3 : 1."""
    darker, lighter = sorted((_luminance(colour), _luminance(page)))
    assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_what_remains() -> None:
    axes = plots.draw(NETWORK)["costs"].figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["Parameters", "MACs", "Memory", ".tflite", "Peak RAM", "Latency"]  # BOPs: of the first alone
    uniform, bayesian = axes.collections[:2]
    # 120,000 / 174,506; 1.1 / 1.65; 35,660.8 / 50,944; 45 / 60 - and for Bayesian latency 0.15 / 0.21.
    assert uniform.get_offsets()[:, 0].tolist() == pytest.approx([68.765, 66.667, 70.0, 75.0], abs=1e-3)
    assert bayesian.get_offsets()[-1][0] == pytest.approx(71.4286, abs=1e-3)


def test_ratios() -> None:
    axes = plots.draw(NETWORK)["ratios"].figure.axes[0]
    # uniform: 12 of 16 stay; bayesian: 8 of 16; frozen groups have no row.
    assert [points.get_offsets()[:, 0].tolist() for points in axes.collections[:2]] == [[25.0], [50.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stage1 (16)"]


def test_nothing_to_choose_from_draws_no_ratios() -> None:
    frozen = tuple(replace(group, frozen="why not") for group in NETWORK.groups)
    assert "ratios" not in plots.draw(replace(NETWORK, groups=frozen))


def test_many_layers_become_the_largest_and_the_rest() -> None:
    layers = tuple(LayerRow(f"layer{i:03d}", {"dense": 1024.0 * (i + 1)}) for i in range(100))
    axes = plots.draw(replace(NETWORK, layers=layers))["layers"].figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    # The 23 largest are layers 77 to 99, in the order of the network; 77 are left, 1 + ... + 77 = 3,003 KiB.
    assert labels == [*(f"layer{i:03d}" for i in range(77, 100)), "77 smaller layers"]
    assert axes.patches[23].get_width() == pytest.approx(3003)


def test_layers_of_no_weight_are_shown_together() -> None:
    sizes = {"big": 10_000.0, "tiny": 10.0, "small": 10.0}  # a share of 0.1 % each
    layers = tuple(LayerRow(name, {"dense": size}) for name, size in sizes.items())
    axes = plots.draw(replace(NETWORK, layers=layers))["layers"].figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["big", "2 smaller layers"]


def test_bytes_of_the_file() -> None:
    axes = plots.draw(NETWORK)["file"].figure.axes[0]
    # Only the Bayesian variant says: 28 KiB of weights, then 12 KiB of tables; the floor lies at 30 KiB.
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0.0, 28.0), (28.0, 12.0)]
    assert axes.collections[0].get_segments()[0][:, 0].tolist() == [30.0, 30.0]


def test_layers_against_the_floor() -> None:
    axes = plots.draw(NETWORK)["floor"].figure.axes[0]
    # 8 bytes are less than 0.2 % of what is there, but they are the only rest, so they stand by themselves.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1", "dense", "9 MEAN <&>"]
    assert [bar.get_width() for bar in axes.patches] == [2.0, 0.0, 8 / 1024]
    assert [segment[0, 0] for segment in axes.collections[0].get_segments()] == [1.0, 0.5, 0.0]


def test_latency_with_its_spread() -> None:
    time, memory = plots.draw(NETWORK)["speed"].figure.axes
    assert [bar.get_width() for bar in time.patches] == [0.21, 0.15]
    (whisker,) = time.collections[0].get_segments()  # the first variant has no spread
    assert whisker[:, 0] == pytest.approx([0.14, 0.16])
    assert [bar.get_width() for bar in memory.patches] == [391.0, 300_000 / 1024]


def test_curves() -> None:
    axes = plots.draw(NETWORK)["sensitivity"].figure.axes[0]
    level, curve, uniform, bayesian = axes.lines
    assert set(level.get_ydata()) == {95.0}
    assert curve.get_xydata().tolist() == [[0, 95], [25, 93], [75, 61]]  # the trial that broke down is left out
    assert (uniform.get_xdata()[0], bayesian.get_xdata()[0]) == (25.0, 50.0)


def test_best_so_far_counts_what_met_the_budget() -> None:
    # Trial 2 was better but over the budget, trial 3 failed, trial 5 was worse than trial 4.
    assert best_so_far(NETWORK.trials) == [(1, 0.80), (2, 0.80), (3, 0.80), (4, 0.90), (5, 0.90)]
    assert best_so_far(NETWORK.trials[1:3]) == []


def test_costs_that_trials_are_drawn_against() -> None:
    assert shown_costs(NETWORK) == ["memory", "macs"]
    assert shown_costs(replace(NETWORK, budget={"macs": 1e6})) == ["macs", "memory"]
    same = tuple(TrialRow(n, 0.5, {"memory": 7.0, "macs": 1.0 * n}) for n in (1, 2))
    assert shown_costs(replace(NETWORK, budget={}, trials=same)) == ["macs", "memory"]


def test_pareto_front_and_best() -> None:
    memory, macs = plots.draw(NETWORK)["trials"].figure.axes
    front, limit = memory.lines
    assert front.get_xydata().tolist() == [[32_000 / 1024, 85.0], [33_000 / 1024, 90.0]]
    assert limit.get_xdata()[0] == pytest.approx(35_660.8 / 1024)
    assert macs.lines[0].get_xydata().tolist() == [[1.1, 80.0], [1.2, 90.0]]
    star = macs.collections[-1]
    assert star.get_offsets().tolist() == [[1.2, 90.0]]


def test_trials_that_broke_down_do_not_press_the_others_together() -> None:
    scores = (0.90, 0.91, 0.92, 0.93, 0.94, 0.10)
    trials = tuple(TrialRow(n, score, {"memory": float(n)}) for n, score in enumerate(scores, start=1))
    axes = plots.draw(replace(NETWORK, trials=trials, budget={}))["progress"].figure.axes[0]
    # Median (the upper of the two) 0.92, best 0.94: the axis begins at 0.94 - 4 * 0.02.
    assert axes.collections[0].get_offsets()[:, 1].min() == pytest.approx(90.0)
    assert axes.collections[1].get_offsets()[0].tolist() == pytest.approx([6.0, 86.0])


def test_nothing_met_the_budget() -> None:
    over = tuple(replace(trial, feasible=False) for trial in NETWORK.trials)
    drawn = plots.draw(replace(NETWORK, trials=over))
    assert "none met the budget" in drawn["trials"].alt
    assert "none met the budget" in drawn["progress"].alt


def test_a_single_trial_and_equal_trials() -> None:
    one = (TrialRow(1, 0.0, {"memory": 0.0}),)
    assert {"trials", "progress"} <= set(plots.draw(replace(NETWORK, trials=one, budget={})))


def test_more_variants_than_colours() -> None:
    rows = tuple(VariantRow(f"v{n}", 0.5, 100 - n) for n in range(9))
    groups = (GroupRow("g", 10, {row.name: 9 for row in rows[1:]}, ("a", "b")),)
    assert len(plots.draw(NetworkReport("many", rows, groups=groups))["ratios"].figure.axes[0].collections) == 8 + 1
    assert len(set(zip(COLOURS, MARKERS, strict=True))) == len(COLOURS)


def test_nothing_known_nothing_drawn() -> None:
    assert plots.draw(NetworkReport("bare", (VariantRow("dense"),))) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conv1", "conv1"),
        ("a" * 24, "a" * 24),
        ("stage2_block1a_shortcut_conv", "stage2_bloc…hortcut_conv"),  # 11 + 1 + 12
        ("$x$", r"\$x\$"),
    ],
)
def test_short_names_keep_both_ends(name: str, text: str) -> None:
    assert short(name) == text


def test_titles_differ() -> None:
    titles = sorted(plot.title for plot in plots.draw(NETWORK).values())
    assert all(before != after for before, after in pairwise(titles))
