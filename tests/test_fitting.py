"""Fits to a budget, on a network whose costs are derived by hand.

    input 4x4x1 -> a: conv 3x3 to 4 -> b: conv 1x1 to 6 -> mean -> c: dense to 2, no biases, no padding

With p of a's and q of b's units left there are 9p + pq + 2q parameters (72 in all), and 4 (9p + pq) + 2q MACs
(252): the image is 2x2 after a.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tfqprune as tq
from tfqprune.errors import BudgetError, ExportError, PlanError
from tfqprune.fitting import Fitter
from tfqprune.measuring import Meter, StandIn

K = tf.keras.layers


def make_model() -> tf.keras.Model:
    image = K.Input((4, 4, 1))
    x = K.Conv2D(4, 3, use_bias=False, name="a")(image)
    x = K.Conv2D(6, 1, use_bias=False, name="b")(x)
    return tf.keras.Model(image, K.Dense(2, use_bias=False, name="c")(K.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def graph() -> tq.ChannelGraph:
    return tq.ChannelGraph(make_model())


SCORES = {"a": np.array([3.0, 1.0, 2.0, 4.0]), "b": np.arange(6.0), "c": np.zeros(2)}


def params(counts: dict[str, int]) -> int:
    p, q = 4 - counts["a"], 6 - counts["b"]
    return 9 * p + p * q + 2 * q


def uniform(fitter: Fitter):
    most = fitter.most
    return lambda ratio: {name: min(ratio, most[name]) for name in most}


def test_uniform_by_hand(graph: tq.ChannelGraph) -> None:
    # Limit 36. At a ratio of 1/3: (3, 4) left, 27 + 12 + 8 = 47; at 1/2: (2, 3), 18 + 6 + 6 = 30, the first that holds.
    # Given back: b's unit, (2, 4) = 34; then neither (3, 4) = 47 nor (2, 5) = 38.
    fitter = Fitter(graph, SCORES, tq.Budget(params=0.5))
    assert fitter.limits.limits == {"params": 36.0}
    fit = fitter.fit(uniform(fitter))
    assert fit.counts == {"a": 2, "b": 2}
    assert fit.costs["params"] == 34
    assert fit.ratios == {"a": 0.5, "b": 2 / 6}
    assert fit.parameter == pytest.approx(0.5)
    # The lowest scores go: slots 1 and 2 of a, 0 and 1 of b.
    assert fitter.plan(fit).removed == {"a": (1, 2), "b": (0, 1)}


def test_preferences_by_hand(graph: tq.ChannelGraph) -> None:
    # b alone: q = 1 leaves 36 + 4 + 2 = 42 > 36, so after b has given all it can, a gives one: 27 + 3 + 2 = 32.
    # Then q = 2 would make 27 + 6 + 4 = 37.
    fitter = Fitter(graph, SCORES, tq.Budget(params=0.5))
    fit = fitter.project({"a": 0.0, "b": 1.0})
    assert (fit.counts, fit.costs["params"]) == ({"a": 1, "b": 5}, 32)
    # a alone: p = 1 leaves 9 + 6 + 12 = 27 and p = 2 leaves 42; b stays whole.
    assert fitter.project({"a": 1.0, "b": 0.0}).counts == {"a": 3, "b": 0}


def test_several_costs(graph: tq.ChannelGraph) -> None:
    # MACs of 126: (2, 4) has 4 (18 + 8) + 8 = 112, (2, 5) 4 (18 + 10) + 10 = 122; params of 36 allow (2, 4) only.
    both = Fitter(graph, SCORES, tq.Budget(params=0.5, macs=0.5))
    assert both.fit(uniform(both)).counts == {"a": 2, "b": 2}
    macs = Fitter(graph, SCORES, tq.Budget(macs=0.5))
    assert macs.fit(uniform(macs)).counts == {"a": 2, "b": 1}


def test_alignment(graph: tq.ChannelGraph) -> None:
    # Multiples of 4: a stays whole; b may have 4 left. 36 + 16 + 8 = 60.
    fitter = Fitter(graph, SCORES, tq.Budget(params=60), align=4)
    assert {name: levels.tolist() for name, levels in fitter.levels.items()} == {"a": [0], "b": [0, 2]}
    assert fitter.fit(uniform(fitter)).counts == {"a": 0, "b": 2}
    with pytest.raises(BudgetError, match="60 parameters is the smallest reachable"):
        Fitter(graph, SCORES, tq.Budget(params=59), align=4)


def test_bounds_and_exclusions(graph: tq.ChannelGraph) -> None:
    fitter = Fitter(graph, SCORES, tq.Budget(params=0.8), minimum={"a": 0.5}, maximum={"b": 0.5})
    assert {name: levels.tolist() for name, levels in fitter.levels.items()} == {"a": [2, 3], "b": [0, 1, 2, 3]}
    # (2, 6) = 18 + 12 + 12 = 42 <= 57.6, but no less of a may go.
    assert fitter.fit(uniform(fitter)).counts == {"a": 2, "b": 0}
    fitter = Fitter(graph, SCORES, tq.Budget(params=0.8), exclude=["a"])
    # (4, 3) = 36 + 12 + 6 = 54; (4, 4) = 60.
    assert fitter.fit(uniform(fitter)).counts == {"b": 3}


def test_unreachable(graph: tq.ChannelGraph) -> None:
    # (1, 1) = 12 at least; with a excluded (4, 1) = 42.
    with pytest.raises(BudgetError, match=r"12 parameters is the smallest.*'c' \(model output 'c'\)"):
        Fitter(graph, SCORES, tq.Budget(params=11))
    with pytest.raises(BudgetError, match=r"42 parameters is the smallest.*'a' \(excluded\)"):
        Fitter(graph, SCORES, tq.Budget(params=36), exclude=["a"])
    with pytest.raises(BudgetError, match=r"at most 2 of 4 units go"):
        Fitter(graph, SCORES, tq.Budget(params=12), maximum=0.5)
    assert Fitter(graph, SCORES, tq.Budget(params=12)).project({"a": 1.0, "b": 1.0}).costs["params"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["d"]}, "'d'"),
        ({"align": 0}, "at least 1"),
        ({"minimum": 1.0}, "below 1"),
        ({"minimum": 0.9, "maximum": 0.5}, "some number of units"),
        ({"scores": {"a": np.zeros(4)}}, "scores for group 'b'"),
        ({"scores": {**SCORES, "a": np.zeros(5)}}, "4 scores for group 'a'"),
        ({"scores": {**SCORES, "a": np.array([1, np.nan, 2, 3])}}, "for group 'a'.*type float64, NaN among them"),
        ({"scores": {**SCORES, "b": list("abcdef")}}, "numbers as scores for group 'b'.*type <U1"),
        ({"scores": [1, 2]}, "scores by group.*type list"),
    ],
)
def test_refused(graph: tq.ChannelGraph, options: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Fitter(graph, options.pop("scores", SCORES), tq.Budget(params=0.5), **options)


def test_negative_preferences(graph: tq.ChannelGraph) -> None:
    with pytest.raises(PlanError, match="at least 0"):
        Fitter(graph, SCORES, tq.Budget(params=0.5)).project({"a": -1.0, "b": 1.0})


@given(st.floats(0, 1), st.floats(0, 1), st.integers(12, 72))
@settings(max_examples=100)
def test_maximal_within_the_budget(graph: tq.ChannelGraph, first: float, second: float, limit: int) -> None:
    fitter = Fitter(graph, SCORES, tq.Budget(params=limit))
    fit = fitter.project({"a": first, "b": second})
    assert params(fit.counts) == fit.costs["params"] <= limit
    for name, count in fit.counts.items():
        if count:
            assert params({**fit.counts, name: count - 1}) > limit
    assert fitter.counts(fit.ratios) == fit.counts == fitter.nearest({k: v + 1e-7 for k, v in fit.ratios.items()})


@pytest.mark.parametrize("cost", ["tflite_bytes", "latency"])
def test_measured_costs(graph: tq.ChannelGraph, cost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 4 bytes a parameter and 100 besides; a latency of one millisecond and a fifth of one a MAC."""
    measured = []

    def measure(self, slim):
        costs = tq.cost(slim)
        measured.append(slim)
        return {"tflite_bytes": 100.0 + 4 * costs.params, "latency": 1 + costs.macs / 5}

    monkeypatch.setattr("tfqprune.measuring.Meter._measure", measure)
    limit = {"tflite_bytes": 100 + 4 * 36, "latency": "26.2 ms"}[cost]  # 36 parameters, 126 MACs
    fitter = Fitter(graph, SCORES, tq.Budget(**{cost: limit}))
    fit = fitter.fit(uniform(fitter))
    assert fit.counts == ({"a": 2, "b": 2} if cost == "tflite_bytes" else {"a": 2, "b": 1})
    assert fitter.limits.holds(fit.costs)
    assert len(measured) <= 8
    tiny = Fitter(graph, SCORES, tq.Budget(**{cost: {"tflite_bytes": 140, "latency": "2 ms"}[cost]}))
    with pytest.raises(BudgetError, match="is the smallest reachable"):
        tiny.fit(uniform(tiny))


def test_measured_on_a_device(graph: tq.ChannelGraph) -> None:
    seen = []

    def measure(slim: tf.keras.Model) -> float:
        seen.append(slim.count_params())
        return slim.count_params() / 10

    fitter = Fitter(graph, SCORES, tq.Budget(latency=0.5, measure_latency=measure))
    assert fitter.limits.limits == {"latency": pytest.approx(3.6)}
    assert fitter.fit(uniform(fitter)).costs["latency"] <= 3.6
    assert seen[0] == 72
    for nonsense in ("fast", float("nan"), -1.0, None):
        with pytest.raises(BudgetError, match="milliseconds"):
            Fitter(graph, SCORES, tq.Budget(latency=0.5, measure_latency=lambda slim, value=nonsense: value))


def test_latency_with_a_fixed_part(graph: tq.ChannelGraph) -> None:
    # 10 ms and 2 for the original's 252 MACs; 10.8 ms are 100.8 MACs. (2, 2) has 4 (18 + 4) + 4 = 92, (2, 3) 102 and
    # (3, 2) 136. By proportion, 10.8 of 12 ms are 227 MACs, and each step from there changes next to nothing.
    def device(slim: tf.keras.Model) -> float:
        return 10 + 2 * tq.cost(slim).macs / 252

    fitter = Fitter(graph, SCORES, tq.Budget(latency="10.8 ms", measure_latency=device))
    assert fitter.fit(uniform(fitter)).counts == {"a": 2, "b": 4}
    # (1, 1) has 4 (9 + 1) + 2 = 42 MACs, 10.33 ms.
    tight = Fitter(graph, SCORES, tq.Budget(latency="10.2 ms", measure_latency=device))
    with pytest.raises(BudgetError, match=r"10.2 ms, where 10.3 ms is the smallest reachable"):
        tight.fit(uniform(tight))


def test_the_smallest_model_is_not_asked_for_where_a_larger_one_holds(graph: tq.ChannelGraph) -> None:
    """A toy that no format can store says nothing about the others; where all others break the budget, it is needed."""

    def device(slim: tf.keras.Model) -> float:
        if tq.cost(slim).params == 9 + 1 + 2:
            raise ExportError("Expected a model that this format can store. Received: a toy.")
        return 10 + 2 * tq.cost(slim).macs / 252

    def fitted(share: float) -> dict[str, int]:
        fitter = Fitter(graph, SCORES, tq.Budget(latency=share, measure_latency=device))
        return fitter.fit(uniform(fitter)).counts

    assert fitted(10.8 / 12) == {"a": 2, "b": 4}  # as above
    with pytest.raises(ExportError, match="a toy"):
        fitted(10.2 / 12)


def test_a_fixed_part_costs_few_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    # By proportion, 11.4 of 12 ms are 95 % of the MACs and then a little less each time; 70 % of them is the solution.
    wide = tq.ChannelGraph(tf.keras.Sequential([K.Dense(1000, input_shape=(3,), name="wide"), K.Dense(2)]))
    measured = []

    def measure(self: Meter, slim: tf.keras.Model) -> dict[str, float]:
        measured.append(slim)
        return {"latency": 10 + 2 * tq.cost(slim).macs / 5000}

    monkeypatch.setattr("tfqprune.measuring.Meter._measure", measure)
    fitter = Fitter(wide, {"wide": np.arange(1000.0)}, tq.Budget(latency="11.4 ms"))
    assert fitter.fit(uniform(fitter)).counts == {"wide": 300}
    assert len(measured) <= 9


@pytest.mark.parametrize("share", [0.5, 0.7, 0.8])
def test_no_unit_could_be_given_back_on_a_device_that_computes_in_blocks(graph: tq.ChannelGraph, share: float) -> None:
    measured = []

    def time(p: int, q: int) -> int:
        """Channels count as the next multiple of 2 and 4: 72 for the original's 4 and 6."""
        p, q = -(-p // 2) * 2, -(-q // 4) * 4
        return 9 * p + p * q // 2 + q * 5 // 2

    def device(slim: tf.keras.Model) -> float:
        measured.append(slim)
        return time(slim.get_layer("a").filters, slim.get_layer("b").filters)

    fitter = Fitter(graph, SCORES, tq.Budget(latency=share, measure_latency=device))
    counts = fitter.fit(uniform(fitter)).counts
    p, q = 4 - counts["a"], 6 - counts["b"]
    assert time(p, q) <= share * 72
    assert p == 4 or time(p + 1, q) > share * 72
    assert q == 6 or time(p, q + 1) > share * 72
    assert len(measured) <= 12


def test_leaps_ask_seldom() -> None:
    model = tf.keras.Sequential([K.Dense(64, input_shape=(3,), name="wide"), K.Dense(2)])
    wide = tq.ChannelGraph(model)
    fitter = Fitter(wide, {"wide": np.arange(64.0)}, tq.Budget(params=0.99))
    asked: list[int] = []

    def holds(counts: dict[str, int]) -> bool:
        asked.append(counts["wide"])
        return counts["wide"] >= 10

    assert fitter.give_back({"wide": 60}, {}, holds) == {"wide": 10}
    assert asked == [*range(59, 8, -1)]
    asked.clear()
    assert fitter.give_back({"wide": 60}, {}, holds, leap=True) == {"wide": 10}
    # Steps of 1, 2, 4, 8 and 16; 32 would be more than half of what is left, 15; 7 breaks it, then halves of the rest.
    assert asked == [59, 57, 53, 45, 29, 14, 7, 11, 9, 10]


def test_stand_in_halves_what_it_cannot_foresee() -> None:
    limits = tq.Budget(tflite_bytes=150).resolve({"tflite_bytes": 200.0, "memory": 100.0, "macs": 1.0})
    stand_in = StandIn(limits)
    assert stand_in.holds({"memory": 50.0})  # 100 + 150 - 200
    assert not stand_in.holds({"memory": 51.0})
    # 50 B of memory made a file of 160: 10 less should do. Then 40 made 155, which falls too slowly.
    assert not stand_in.learn({"tflite_bytes": 160.0, "memory": 50.0}, held=False)
    assert stand_in.holds({"memory": 40.0})
    assert not stand_in.holds({"memory": 41.0})
    below = StandIn(limits)
    for size, memory in ((160.0, 50.0), (155.0, 40.0)):
        below.learn({"tflite_bytes": size, "memory": memory}, held=False)
    # Three in a row broke it, the original among them: half of 40, not 40 + 150 - 155.
    assert below.holds({"memory": 20.0})
    assert not below.holds({"memory": 21.0})
    assert stand_in.learn({"tflite_bytes": 140.0, "memory": 40.0}, held=True)
    # 40 held and 50 broke: the estimate of 50 is known to be wrong, so 45 is next.
    assert stand_in.holds({"memory": 45.0})
    assert not stand_in.holds({"memory": 46.0})
