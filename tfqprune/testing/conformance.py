"""The suite that the author of a layer handler subclasses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.plan import PruningPlan
from tfqprune.slim import prune
from tfqprune.testing.law import assert_law, random_inputs, random_plan, shake

_CHANNELS = 12


class LayerHandlerConformance(ABC):
    """Puts one layer through everything that a handler is good for.

    Subclass it in a test module (name the subclass ``Test...``), and say how the layer is made and
    on what it works::

        class TestMyLayer(LayerHandlerConformance):
            input_shape = (8, 8)

            def make_layer(self):
                return MyLayer()
    """

    #: spatial shape in front of the channels that the layer is fed; () for a flat vector
    input_shape: tuple[int, ...] = (8, 8)
    #: False for a layer that must freeze what feeds it
    cuttable: bool = True

    @abstractmethod
    def make_layer(self) -> tf.keras.layers.Layer:
        """A fresh layer."""

    def make_model(self) -> tf.keras.Model:
        """The layer between a producer and a consumer of channels, both 12 wide."""
        tf.keras.utils.set_random_seed(0)
        inputs = tf.keras.Input((*self.input_shape, 3))
        outputs = tf.keras.layers.Dense(_CHANNELS, name="producer")(inputs)
        outputs = self.make_layer()(outputs)
        if len(outputs.shape) > 2:
            outputs = tf.keras.layers.Flatten()(outputs)
        return shake(tf.keras.Model(inputs, tf.keras.layers.Dense(5, name="consumer")(outputs)))

    def test_frozen_only_if_it_must_be(self) -> None:
        """The producer's channels are free, or frozen with a reason."""
        graph = ChannelGraph(self.make_model())
        frozen = [group.frozen for group in graph.groups if "producer" in group.layers]
        assert frozen
        if self.cuttable:
            assert frozen == [None] * len(frozen)
        else:
            assert all(isinstance(reason, str) and len(reason) > 10 for reason in frozen)

    def test_law(self) -> None:
        """Slim and masked compute the same at several ratios, and the plan's cost is the slim model's."""
        for seed, ratio in enumerate((0.0, 0.25, 0.5, 0.9)):
            assert_law(self.make_model(), ratios=ratio, seed=seed)

    def test_really_smaller(self) -> None:
        """Half the units gone means fewer parameters."""
        model = self.make_model()
        slim = prune(model, random_plan(ChannelGraph(model)))
        assert (slim.count_params() < model.count_params()) == self.cuttable

    def test_prune_again(self) -> None:
        """A slim model can be pruned again."""
        model = self.make_model()
        assert_law(prune(model, random_plan(ChannelGraph(model), 0.25)), ratios=0.5)

    def test_keeps_names_and_config(self) -> None:
        """An empty plan gives the same layers back, with the same results."""
        model = self.make_model()
        graph = ChannelGraph(model)
        slim = prune(model, random_plan(graph, 0.0))
        assert [layer.name for layer in slim.layers] == [layer.name for layer in model.layers]
        assert [layer.get_config() for layer in slim.layers] == [layer.get_config() for layer in model.layers]
        (values,) = random_inputs(model)
        np.testing.assert_allclose(slim(values), model(values), rtol=1e-6, atol=1e-6)

    def test_plan_is_replayable(self, tmp_path) -> None:  # type: ignore[no-untyped-def]
        """A saved plan gives the same slim model."""
        model = self.make_model()
        plan = random_plan(ChannelGraph(model))
        again = PruningPlan.load(plan.save(tmp_path / "plan.json"))
        for first, second in zip(prune(model, plan).get_weights(), prune(model, again).get_weights(), strict=True):
            np.testing.assert_array_equal(first, second)
