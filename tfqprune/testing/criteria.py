"""The suite that the author of a criterion subclasses, and the small networks that it runs on."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.criteria import Criterion
from tfqprune.errors import CriterionError
from tfqprune.plan import plan_from_ratios
from tfqprune.rebuild import axes_of, values_of
from tfqprune.scoring import run_criterion, score
from tfqprune.slim import prune
from tfqprune.testing.law import shake

K = tf.keras.layers
_SAMPLES = 24
_WEIGHTS = {
    "latent": "latent weights",
    "deployed": "deployed weights",
    "both": "deployed and latent weights",
    "nothing": "no weights",
}


def _plain(kernel: Any, reader: Any) -> tf.keras.Model:
    """Conv 8 -> batch norm -> relu -> conv 6, stride 2 -> flatten -> dense 4 -> softmax."""
    image = K.Input((6, 6, 3))
    x = K.Conv2D(8, 3, padding="same", name="first")(image)
    x = K.ReLU()(K.BatchNormalization()(x))
    x = K.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    return tf.keras.Model(image, K.Dense(4, activation="softmax", name="last")(K.Flatten()(x)))


def _residual(kernel: Any, reader: Any) -> tf.keras.Model:
    """Conv 8 -+-> quantised conv 8 -> batch norm -> quantised conv 8 -> batch norm -+-> mean -> dense 4 -> softmax."""
    image = K.Input((6, 6, 3))
    x = stream = K.BatchNormalization()(K.Conv2D(8, 3, padding="same", name="first")(image))
    for name in ("inner", "outer"):
        pad = {"pad_values": 1.0} if kernel == "ste_sign" else {}
        x = lq.layers.QuantConv2D(
            8, 3, padding="same", kernel_quantizer=kernel, input_quantizer=reader, name=name, use_bias=False, **pad
        )(x)
        x = K.BatchNormalization()(x)
    x = K.GlobalAveragePooling2D()(K.Add()([x, stream]))
    return tf.keras.Model(image, K.Dense(4, activation="softmax", name="last")(x))


def _grouped(kernel: Any, reader: Any) -> tf.keras.Model:
    """Conv 8 -> conv 8 in 2 groups -> depthwise -> separable 6 -> transposed 4 -> flatten -> dense 4 (logits)."""
    image = K.Input((6, 6, 2))
    x = K.Conv2D(8, 1, name="first")(image)
    x = K.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = K.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = K.SeparableConv2D(6, 2, name="separable")(x)
    x = K.Conv2DTranspose(4, 2, strides=2, name="transposed")(x)
    return tf.keras.Model(image, K.Dense(4, name="last")(K.Flatten()(x)))


def _dense(kernel: Any, reader: Any) -> tf.keras.Model:
    """Two inputs -> quantised dense 8 each -> concatenate -> dense 5 -> dense 4 -> softmax."""
    first, second = K.Input((3,), name="one"), K.Input((2,), name="two")
    parts = [
        lq.layers.QuantDense(8, kernel_quantizer=kernel, name=f"quantised_{index}")(x)
        for index, x in enumerate((first, second))
    ]
    x = K.Dense(5, activation="relu", name="middle")(K.Concatenate()(parts))
    return tf.keras.Model([first, second], K.Dense(4, activation="softmax", name="last")(x))


def _dorefa(bits: int) -> tuple[Any, Any]:
    return lq.quantizers.DoReFa(bits, mode="weights"), lq.quantizers.DoReFa(bits, mode="activations")


#: name -> (builder, quantiser of kernels, quantiser of their inputs)
NETWORKS: dict[str, tuple[Callable[[Any, Any], tf.keras.Model], Callable[[], tuple[Any, Any]]]] = {
    "float": (_plain, lambda: (None, None)),
    "binary_residual": (_residual, lambda: ("ste_sign", "ste_sign")),
    "dorefa_residual": (_residual, lambda: _dorefa(2)),
    "grouped": (_grouped, lambda: (None, None)),
    "ternary_dense": (_dense, lambda: ("ste_tern", None)),
}


@functools.lru_cache
def network(name: str) -> tf.keras.Model:
    """One of the small networks, with random weights and statistics; always the same."""
    logging.getLogger("larq").setLevel(logging.ERROR)
    tf.keras.utils.set_random_seed(0)
    builder, quantizers = NETWORKS[name]
    return shake(builder(*quantizers()))


def samples_for(model: tf.keras.Model) -> tuple[list[np.ndarray], np.ndarray]:
    """Random inputs and labels for a network."""
    rng = np.random.default_rng(1)
    inputs = [rng.normal(size=(_SAMPLES, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    return inputs, rng.integers(0, model.output_shape[-1], _SAMPLES)


class CriterionConformance(ABC):
    """Puts one criterion through everything that is asked of all of them.

    Subclass it in a test module (name the subclass ``Test...``), and say how the criterion is made::

        class TestMyCriterion(CriterionConformance):
            def make_criterion(self):
                return MyCriterion()
    """

    #: False for a criterion whose scores depend on the position of a unit (random ones)
    equivariant: bool = True
    #: for a criterion whose attributes cannot tell what it reads and needs: what its docstring says instead
    says: str | None = None

    @abstractmethod
    def make_criterion(self) -> Criterion:
        """A fresh criterion."""

    def run(self, model: tf.keras.Model) -> dict[str, np.ndarray]:
        """Scores of a model, with data if the criterion needs it."""
        criterion = self.make_criterion()
        inputs, labels = samples_for(model)
        data = (inputs if len(inputs) > 1 else inputs[0], labels) if criterion.needs_data else None
        return run_criterion(ChannelGraph(model), criterion, data)

    def test_says_what_it_is(self) -> None:
        """Name, reads and source are filled in."""
        criterion = self.make_criterion()
        assert criterion.name
        assert criterion.reads in _WEIGHTS
        assert criterion.source
        assert criterion.needs_data or not criterion.needs_gradients

    def test_its_docstring_agrees(self) -> None:
        """The docstring says which weights it reads, what it needs and where it comes from, as the attributes do."""
        criterion = self.make_criterion()
        expected = self.says or statement(criterion)
        assert expected in " ".join((type(criterion).__doc__ or "").split()), (
            f"Expected the docstring of {type(criterion).__name__} to say: {expected}"
        )

    def test_asks_for_data(self) -> None:
        """Without data it needs, it is refused before any work; else it does without."""
        refused = False
        try:
            score(network("float"), self.make_criterion())
        except CriterionError as error:
            refused = "needs data" in str(error)
        assert refused == self.make_criterion().needs_data

    def test_scores_every_unit(self) -> None:
        """One finite number a unit, zeros for frozen groups, an order of removal if it is greedy."""
        for name in NETWORKS:
            self._scores_every_unit(network(name))

    def _scores_every_unit(self, model: tf.keras.Model) -> None:
        before = [weight.numpy().copy() for weight in model.weights]
        scores = self.run(model)
        graph = ChannelGraph(model)
        assert list(scores) == [group.name for group in graph.groups]
        for group in graph.groups:
            values = scores[group.name]
            assert values.shape == (group.size,)
            assert values.dtype == np.float64
            assert np.isfinite(values).all()
            if group.frozen:
                assert not values.any()
            elif self.make_criterion().greedy:
                assert sorted(values) == list(range(group.size))
        for weight, value in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)

    def test_same_again(self) -> None:
        """The same model and data give the same scores."""
        for name in ("binary_residual", "grouped"):
            first, again = self.run(network(name)), self.run(network(name))
            for group in first:
                np.testing.assert_array_equal(first[group], again[group])

    def test_follows_permuted_units(self) -> None:
        """A model whose units stand in another order gets its scores in that order."""
        for name in ("float", "binary_residual", "dorefa_residual"):
            self._follows_permuted_units(network(name))

    def _follows_permuted_units(self, model: tf.keras.Model) -> None:
        graph = ChannelGraph(model)
        scores = self.run(model)
        order = {group.name: np.random.default_rng(2).permutation(group.size) for group in graph.prunable}
        moved = self.run(permuted(model, order))
        same = [np.allclose(moved[group], scores[group][slots], rtol=1e-3, atol=1e-5) for group, slots in order.items()]
        assert all(same) == self.equivariant

    def test_leads_to_a_plan(self) -> None:
        """Its lowest half can be removed."""
        for name in ("dorefa_residual", "grouped"):
            model = network(name)
            plan = plan_from_ratios(ChannelGraph(model), 0.5, self.run(model))
            assert prune(model, plan).count_params() < model.count_params()


def statement(criterion: Criterion) -> str:
    """What the attributes of a criterion say, as a sentence of its docstring."""
    data, gradients = (
        f"{'needs' if needed else 'no'} {what}"
        for what, needed in (("data", criterion.needs_data), ("gradients", criterion.needs_gradients))
    )
    return f"Reads {_WEIGHTS[criterion.reads]}; {data}; {gradients}. Source: {criterion.source}."


def permuted(model: tf.keras.Model, order: dict[str, np.ndarray]) -> tf.keras.Model:
    """A copy of a model that computes the same, its units in another order.

    Args:
        model: the model.
        order: group name -> for each new slot the old one.
    """
    graph = ChannelGraph(model)
    copy = tf.keras.models.clone_model(model)
    values = []
    for record in graph.records.values():
        for value, roles in zip(values_of(record), axes_of(record), strict=True):
            for axis, role in enumerate(roles):
                if role:
                    value = np.take(value, _new_positions(graph, record.roles[role], order), axis)
            values.append((record.layer.name, value))
    by_layer: dict[str, list[np.ndarray]] = {}
    for name, value in values:
        by_layer.setdefault(name, []).append(value)
    for name, weights in by_layer.items():
        copy.get_layer(name).set_weights(weights)
    return copy


def _new_positions(graph: ChannelGraph, ids: np.ndarray, order: dict[str, np.ndarray]) -> np.ndarray:
    """For each position of an axis the old position whose channel comes to stand there."""
    number, slot = graph.units(ids)
    seen: dict[tuple[int, int, int], int] = {}
    count: dict[tuple[int, int], int] = {}
    keys = []
    for position, key in enumerate(zip(number.tolist(), slot.tolist(), strict=True)):
        occurrence = count[key] = count.get(key, -1) + 1  # the n-th channel of a unit stays its n-th
        seen[(*key, occurrence)] = position
        keys.append((*key, occurrence))
    names = {group.index: group.name for group in graph.groups}
    result = []
    for group, at, occurrence in keys:
        old = order[names[group]][at] if names[group] in order else at
        result.append(seen[group, int(old), occurrence])
    return np.asarray(result)
