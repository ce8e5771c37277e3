"""Budgets of measured costs, through the real exporter, and what stands in for measuring."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
import tfqprune as tq
from tfqprune.errors import BudgetError
from tfqprune.fitting import Fitter
from tfqprune.measuring import Meter, lines
from tfqprune.testing.criteria import network


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tf.keras.Model]:
    """Every slim model that was measured."""
    models, measure = [], Meter._measure

    def counting(self: Meter, slim: tf.keras.Model) -> dict[str, float]:
        models.append(slim)
        return measure(self, slim)

    monkeypatch.setattr(Meter, "_measure", counting)
    return models


def make_fitter(budget: tq.Budget) -> Fitter:
    graph = tq.ChannelGraph(network("dorefa_residual"))
    return Fitter(graph, {group.name: np.arange(group.size) for group in graph.groups}, budget)


def test_bytes_of_the_real_file(tmp_path, measured) -> None:
    fitter = make_fitter(tq.Budget(tflite_bytes=0.8))
    fit = fitter.fit(lambda ratio: {name: min(ratio, fitter.most[name]) for name in fitter.names})
    file = te.export(tq.prune(fitter.graph.model, fitter.plan(fit)), tmp_path / "slim.tflite", samples=1, strict=False)
    assert file.bytes == (tmp_path / "slim.tflite").stat().st_size == fit.costs["tflite_bytes"]
    limit = fitter.limits.limits["tflite_bytes"]
    assert limit == 0.8 * fitter.meter.costs({})["tflite_bytes"]
    assert fit.costs["tflite_bytes"] <= limit
    for name, count in fit.counts.items():
        assert not count or fitter.costs({**fit.counts, name: count - 1})["tflite_bytes"] > limit
    assert len(measured) <= 9


def test_bytes_of_the_kind_of_file_that_is_exported(tmp_path) -> None:
    sizes = {}
    for purpose in ("size", "speed"):
        fitter = make_fitter(tq.Budget(tflite_bytes=1.0, tflite_optimize=purpose))
        file = te.export(fitter.graph.model, tmp_path / "whole.tflite", optimize=purpose, samples=1, strict=False)
        assert fitter.limits.limits["tflite_bytes"] == file.bytes
        sizes[purpose] = file.bytes
    assert sizes["size"] < sizes["speed"]


def test_latency_of_the_real_file(measured) -> None:
    # Times of a file this small are mostly noise, so only the two ends are sure.
    fitter = make_fitter(tq.Budget(latency=1.0))
    fit = fitter.fit(lambda ratio: dict.fromkeys(fitter.names, ratio))
    assert fit.costs["latency"] == fitter.limits.limits["latency"] > 0
    assert set(fit.counts.values()) == {0}
    assert len(measured) == 1
    tight = make_fitter(tq.Budget(latency="1e-6 us"))
    with pytest.raises(BudgetError, match="smallest reachable"):
        tight.fit(lambda ratio: dict.fromkeys(tight.names, ratio))


def test_latency_of_a_device() -> None:
    # Milliseconds in proportion to the MACs, and two for everything else.
    def device(slim: tf.keras.Model) -> float:
        return 2 + tq.cost(slim).macs / 10_000

    fitter = make_fitter(tq.Budget(latency=0.6, measure_latency=device))
    limit = fitter.limits.limits["latency"]
    fit = fitter.fit(lambda ratio: {name: min(ratio, fitter.most[name]) for name in fitter.names})
    assert fit.costs["latency"] == pytest.approx(2 + fit.costs["macs"] / 10_000)
    assert fit.costs["latency"] <= limit
    for name, count in fit.counts.items():
        if count:
            assert 2 + fitter.counted({**fit.counts, name: count - 1})["macs"] / 10_000 > limit


def test_lines_by_hand() -> None:
    seen = [
        {"memory": 100.0, "macs": 1000.0, "tflite_bytes": 350.0, "latency": 3.0},
        {"memory": 60.0, "macs": 500.0, "tflite_bytes": 320.0, "latency": 2.0},
    ]
    # The largest rest is 320 - 60. The line through both latencies has a fixed part of 1, and 1 / 500 a MAC.
    found = lines(["tflite_bytes", "latency"], seen)
    assert found == {"tflite_bytes": (260.0, 1.0), "latency": (pytest.approx(1.0), pytest.approx(1 / 500))}


@pytest.mark.parametrize(
    ("seen", "fixed", "slope"),
    [
        # One model: in proportion.
        ([(1000, 3)], 0, 0.003),
        # The larger one was faster: the fixed part is all that it took; the median of 0 and 1 / 500 a MAC says 2.5 for
        # the other one, which took 1.2 times that.
        ([(1000, 2), (500, 3)], 1.2 * 2, 1.2 * 0.001),
        # In proportion, and one of five took three times as long: no matter which.
        ([(1000, 10), (600, 18), (500, 5), (450, 4.5), (300, 3)], 0, 0.01),
        ([(1000, 10), (600, 6), (500, 5), (450, 4.5), (300, 9)], 0, 0.01),
        # Two of seven took half as long again: that is no chance.
        ([(1000, 10), (600, 9), (550, 5.5), (500, 5), (450, 6.75), (400, 4), (300, 3)], 0, 0.015),
        # Nothing takes any time.
        ([(1000, 0), (500, 0)], 0, 0),
    ],
)
def test_latency_is_estimated_with_care(seen: list[tuple[float, float]], fixed: float, slope: float) -> None:
    found = lines(["latency"], [{"macs": macs, "latency": latency} for macs, latency in seen])
    assert found["latency"] == (pytest.approx(fixed, abs=1e-9), pytest.approx(slope))


def test_projection_by_estimates_measures_nothing(measured) -> None:
    fitter = make_fitter(tq.Budget(latency=0.6, measure_latency=lambda slim: 2 + tq.cost(slim).macs / 10_000))
    fitter.fit(lambda ratio: {name: min(ratio, fitter.most[name]) for name in fitter.names})
    before, limit = len(measured), fitter.limits.limits["latency"]
    rng = np.random.default_rng(0)
    fits = [fitter.project(dict(zip(fitter.names, rng.random(2))), measure=False) for _ in range(20)]
    assert len(measured) == before
    assert len({tuple(fit.counts.values()) for fit in fits}) > 3
    for fit in fits:
        assert fit.costs["latency"] <= limit
        # What was estimated from smaller models is cautious: per MAC, these pay more for "everything else".
        if fit.costs["macs"] >= min(costs["macs"] for costs in fitter.meter.observations):
            assert fitter.costs(fit.counts)["latency"] <= limit


@pytest.mark.parametrize("nonsense", [float("nan"), -1.0, "fast", None, True])
def test_device_must_return_milliseconds(nonsense: object) -> None:
    with pytest.raises(BudgetError, match="Expected measure_latency to return milliseconds"):
        make_fitter(tq.Budget(latency=0.6, measure_latency=lambda slim: nonsense))
