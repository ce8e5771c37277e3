"""Budgets of measured costs, through the real exporter, and what stands in for measuring."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
import tfqprune as tq
from tfqprune.errors import BudgetError
from tfqprune.fitting import Fitter
from tfqprune.measuring import Meter, estimate
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


def test_estimates_by_hand() -> None:
    seen = [
        {"memory": 100.0, "macs": 1000.0, "tflite_bytes": 350.0, "latency": 3.0},
        {"memory": 60.0, "macs": 500.0, "tflite_bytes": 320.0, "latency": 2.0},
    ]
    # The largest rest is 320 - 60. The line through both latencies has a fixed part of 1, and 1 / 500 a MAC.
    assert estimate(["tflite_bytes", "latency"], {"memory": 80.0, "macs": 600.0}, seen) == {
        "tflite_bytes": pytest.approx(340.0),
        "latency": pytest.approx(2.2),
    }


def test_estimates_are_cautious() -> None:
    def latency(*seen: tuple[float, float]) -> float:
        known = [{"macs": macs, "latency": time} for macs, time in seen]
        return estimate(["latency"], {"macs": 600.0}, known)["latency"]

    # One model: in proportion, 600 / 1000 of 3.
    assert latency((1000.0, 3.0)) == pytest.approx(1.8)
    # The ends again say 1 and 1 / 500; the model between them took 2 / 500 more for each MAC: 1 + 600 * 3 / 500.
    assert latency((1000.0, 3.0), (500.0, 4.0), (100.0, 1.2)) == pytest.approx(4.6)
    # The larger one was faster: the fixed part is all that it took, and the other paid 1 / 500 a MAC.
    assert latency((1000.0, 2.0), (500.0, 3.0)) == pytest.approx(3.2)


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
