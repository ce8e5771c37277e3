"""Penalties by hand, in training, and the allocator that cuts by what they drove to zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.allocation import Allocator
from tfqprune.allocation.scales import UnitScales
from tfqprune.errors import PlanError
from tfqprune.precision import variable_value
from tfqprune.testing import AllocatorConformance
from tfqprune.testing.criteria import network, samples_for

K = tf.keras.layers


def small(norm: type = K.BatchNormalization) -> tf.keras.Model:
    """Dense 2 on 2 inputs -> batch norm -> dense 1."""
    inputs = K.Input((2,))
    x = norm(name="norm")(K.Dense(2, use_bias=False, name="first")(inputs))
    model = tf.keras.Model(inputs, K.Dense(1, name="last")(x))
    model.get_layer("first").set_weights([np.array([[3.0, 0.0], [4.0, 2.0]], "float32")])
    model.get_layer("norm").gamma.assign([0.5, -2.0])
    return model


# The units' filters are (3, 4) and (0, 2), of norms 5 and 2.
def test_values_by_hand() -> None:
    model = small()
    root = np.sqrt(2)
    assert float(tq.GroupLasso(model, 0.1)()) == pytest.approx(0.1 * root * 7)
    np.testing.assert_allclose(tq.GroupLasso(model, 0.1).strengths()["first"], [5 / root, 2 / root])
    assert float(tq.NormRatio(model, 0.1)()) == pytest.approx(0.1 * 7 / np.sqrt(29))
    np.testing.assert_allclose(tq.NormRatio(model, 0.1).strengths()["first"], [5 / 3.5, 2 / 3.5])
    assert float(tq.ScaleLasso(model, 0.1)()) == pytest.approx(0.25)
    np.testing.assert_allclose(tq.ScaleLasso(model, 0.1).strengths()["first"], [0.5, 2])


def test_scales_of_a_batch_norm_of_tensorflow_1() -> None:
    model = small(tf.compat.v1.keras.layers.BatchNormalization)
    np.testing.assert_allclose(tq.ScaleLasso(model, 0.1).strengths()["first"], [0.5, 2])
    graph = tq.ChannelGraph(model)
    layers = {id(record.layer): record.layer for record in graph.records.values()}
    scales = UnitScales(graph, layers, np.isin(graph.group_of, [group.index for group in graph.prunable]))()
    np.testing.assert_allclose(scales.numpy()[graph.units_of(graph["first"])], [0.5 / 1.25, 2 / 1.25])


def test_norm_ratio_does_not_see_the_scale() -> None:
    model = small()
    before = float(tq.NormRatio(model, 1.0)())
    model.get_layer("first").set_weights([7 * model.get_layer("first").get_weights()[0]])
    assert float(tq.NormRatio(model, 1.0)()) == pytest.approx(before)


def test_gradients_by_hand() -> None:
    model = small()
    kernel = model.get_layer("first").kernel
    with tf.GradientTape(persistent=True) as tape:
        lasso, ratio, scales = (kind(model, 1.0)() for kind in (tq.GroupLasso, tq.NormRatio, tq.ScaleLasso))
    # d|w|/dw = w / |w|, times the root of 2 weights.
    np.testing.assert_allclose(tape.gradient(lasso, kernel), np.sqrt(2) * np.array([[0.6, 0], [0.8, 1]]), rtol=1e-5)
    # With n = (5, 2): d(sum n / |n|)/dn = 1 / |n| - sum n * n / |n|^3.
    slope = 1 / np.sqrt(29) - 7 * np.array([5, 2]) / 29**1.5
    np.testing.assert_allclose(tape.gradient(ratio, kernel), slope * np.array([[0.6, 0], [0.8, 1]]), rtol=1e-4)
    slopes = tape.gradient(scales, model.get_layer("norm").gamma)
    np.testing.assert_array_equal(tf.convert_to_tensor(slopes), [1, -1])


# "first" and "outer" are added up, so a unit of their group has filters of 3 x 3 x 3 and 3 x 3 x 8 weights: one norm.
def test_coupled_layers_share_a_norm() -> None:
    model = network("dorefa_residual")
    kernels = [variable_value(model.get_layer(name).kernel).reshape(-1, 8) for name in ("first", "outer")]
    expected = np.sqrt(sum((kernel**2).sum(0) for kernel in kernels) / (27 + 72))
    np.testing.assert_allclose(tq.GroupLasso(model, 1.0).strengths()["first"], expected, rtol=1e-5)


@pytest.mark.parametrize(("kind", "strength"), [(tq.GroupLasso, 0.05), (tq.NormRatio, 5.0), (tq.ScaleLasso, 0.2)])
def test_training_drives_them_down_while_attached(
    kind: type[tq.SparsityPenalty], strength: float, tmp_path: Path
) -> None:
    model = tf.keras.models.clone_model(network("dorefa_residual"))
    model.set_weights(network("dorefa_residual").get_weights())
    inputs, labels = samples_for(model)
    penalty = kind(model, strength)
    before = float(penalty.value())
    model.compile("adam", "sparse_categorical_crossentropy")
    plain = model.evaluate(inputs[0], labels, verbose=0)
    penalty.attach()
    model.compile("adam", "sparse_categorical_crossentropy")
    assert model.evaluate(inputs[0], labels, verbose=0) == pytest.approx(plain + strength * before, rel=1e-4)
    tq.finetune(model, (inputs[0], labels), epochs=15, learning_rate=0.02)
    assert float(penalty.value()) < 0.95 * before
    penalty.detach()
    trained = model.evaluate(inputs[0], labels, verbose=0)
    trained = trained[0] if isinstance(trained, list) else trained
    model.save(tmp_path / "model.keras")  # nothing of the penalty is left in the file
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    again = again.evaluate(inputs[0], labels, verbose=0)
    assert (again[0] if isinstance(again, list) else again) == pytest.approx(trained, rel=1e-4)


# A format that traces the model anew: it must not meet a variable that the model does not hold.
def test_saved_model_after_detaching(tmp_path: Path) -> None:
    model, x = small(), np.ones((3, 2), "float32")
    model.compile("sgd", "mse")
    plain = model.evaluate(x, np.zeros((3, 1)), verbose=0)
    penalty = tq.GroupLasso(model, 0.1)
    for _ in range(2):
        penalty.attach()
        penalty.attach()
        assert [float(loss) for loss in model.losses] == [pytest.approx(0.1 * np.sqrt(2) * 7)]
        penalty.detach()
        penalty.detach()
        assert model.losses == []
    model.save(tmp_path / "model", save_format="tf")
    again = tf.keras.models.load_model(tmp_path / "model")
    np.testing.assert_allclose(again(x), model(x))
    assert again.evaluate(x, np.zeros((3, 1)), verbose=0) == pytest.approx(plain)


def test_refused() -> None:
    with pytest.raises(PlanError, match=r"strength to be a finite number above 0\. Received: 0"):
        tq.GroupLasso(small(), 0)
    assert tq.GroupLasso(small(), np.float32(0.5)).strength == 0.5
    with pytest.raises(PlanError, match="ScaleLasso has something to say of"):
        tq.ScaleLasso(network("grouped"), 1.0)


class TestSlimming(AllocatorConformance):
    def make_allocator(self, budget: tq.Budget) -> Allocator:
        return tq.SlimmingAllocator(budget)


# Two groups of 4 units each; the 4 smallest strengths go, 1 to 4, three of them in "first".
def test_one_threshold_for_all_groups() -> None:
    inputs = K.Input((3,))
    x = K.Dense(4, use_bias=False, name="first")(inputs)
    x = K.Dense(4, use_bias=False, name="second")(x)
    model = tf.keras.Model(inputs, K.Dense(3, use_bias=False, name="last")(x))
    strengths = {"first": np.array([1.0, 2, 3, 9]), "second": np.array([4.0, 10, 11, 12])}
    # 12 + 16 + 12 parameters; with 1 and 3 units 3 + 3 + 9 = 15, with 2 and 3 units 6 + 6 + 9 = 21.
    allocator = tq.SlimmingAllocator(tq.Budget(params=15), strengths)
    plan = allocator.allocate(model, scores=strengths)
    assert plan.removed == {"first": (0, 1, 2), "second": (0,)}
    # The same without a word on "second", whose weights rank its units; one goes when "first" has one left.
    model.get_layer("second").kernel.assign(np.tile([[4.0, 3, 1, 2]], (4, 1)))
    alone = {"first": strengths["first"]}
    plan = tq.SlimmingAllocator(tq.Budget(params=15), alone).allocate(model, scores=alone)
    assert plan.removed == {"first": (0, 1, 2), "second": (2,)}
    with pytest.raises(PlanError, match="4 strengths of at least 0 for group 'first'"):
        tq.SlimmingAllocator(tq.Budget(params=15), {"first": np.ones(3)}).allocate(model, "latent_l1")
