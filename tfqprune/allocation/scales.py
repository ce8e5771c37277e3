"""The scales of batch norms as one number for each unit, with their gradient."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.errors import PlanError
from tfqprune.layers.normalization import is_batch_norm


class UnitScales:
    """Mean |gamma| of the batch norms that a unit's channels pass, over the mean of its group at the start.

    Args:
        graph: the channel graph of the model.
        layers: the layers that train, by the identity of the model's own.
        free: bool [units]; units that need a scale.

    Attributes:
        variables: the gammas.

    Raises:
        PlanError: a free unit passes no batch norm that scales it.
    """

    def __init__(self, graph: ChannelGraph, layers: dict[int, tf.keras.layers.Layer], free: np.ndarray) -> None:
        norms = [
            record for record in graph.records.values() if is_batch_norm(record.layer) and "gamma" in record.weight_axes
        ]
        self.variables = [layers[id(record.layer)].gamma for record in norms]
        units = [graph.unit_index(record.roles["out"]) for record in norms]
        self._units = np.concatenate([np.empty(0, np.int64), *units])
        self._count = graph.unit_count
        passed = np.isin(np.arange(self._count), self._units)
        if (free & ~passed).any():
            bare = [group.name for group in graph.groups if (free & ~passed)[graph.group_of == group.index].any()]
            raise PlanError(
                "Expected groups whose channels all pass a batch norm with a scale. Received: "
                f"{', '.join(map(repr, bare))}, whose channels pass none. Take gates of their own (values='own')."
            )
        start = self._means().numpy()
        sums = np.bincount(graph.group_of, start * passed)
        counts = np.maximum(np.bincount(graph.group_of, passed), 1)
        means = np.where(sums > 0, sums / counts, 1.0)[graph.group_of]
        self._means_at_start = tf.constant(means.astype(np.float32))
        self._passed = tf.constant(passed)

    def __call__(self) -> tf.Tensor:
        """The scales [units]; 1 where no batch norm is passed."""
        return tf.where(self._passed, self._means() / self._means_at_start, 1.0)

    def gradients(self, pull: tf.Tensor) -> list[tf.Tensor]:
        """The gradient to each gamma for a gradient to the scales [units]."""
        with tf.GradientTape() as tape:
            scales = self()
        return list(tape.gradient(scales, self.variables, output_gradients=pull))

    def _means(self) -> tf.Tensor:
        sizes = tf.concat([tf.abs(tf.reshape(variable, [-1])) for variable in self.variables] or [tf.zeros([0])], 0)
        return tf.math.unsorted_segment_mean(tf.cast(sizes, tf.float32), self._units, self._count)
