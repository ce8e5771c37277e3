"""Criteria from the gradient of the loss with respect to each unit's gate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, register_criterion
from tfqprune.criteria.forward import Consumer, Forward, consumers
from tfqprune.errors import CriterionError, whole_number
from tfqprune.losses import sample_losses
from tfqprune.progress import track
from tfqprune.samples import Samples


class GateCriterion(Criterion):
    """Base of criteria on a unit's gate: a factor g = 1 on all that the consumers read of the unit.

    The gate stands where units are silenced: behind the consumers' input quantisers and padding. Its derivative for
    sample n, sum over consumers and positions of x dL_n/dx, is exact up to the straight-through gradients of the
    quantisers behind it. Batch norms run in inference mode. Without labels the model's own most likely classes stand
    in, unless its loss says that they are no classes.

    Args:
        loss: a Keras loss (name or object) or a function of labels and outputs, or several, as for ``compile``; by
            default what is compiled, else cross-entropy or squared error, by the labels.
        batch_size: samples in one run of the model.

    Raises:
        CriterionError: a batch size below 1; when scoring, a layer whose batch is not that of the samples, or gradients
            that are not finite.
    """

    needs_data = True
    needs_gradients = True

    def __init__(self, loss: Any = None, batch_size: int = 32) -> None:
        self.loss, self.batch_size = loss, whole_number("batch_size", batch_size, CriterionError)

    @abstractmethod
    def reduce(self, derivatives: np.ndarray) -> np.ndarray:
        """From the derivative for each sample and unit, ``[samples, units]``, to scores ``[units]``."""

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        assert samples is not None
        watched = consumers(graph, {group.index for group in groups})
        read = {index for consumer in watched.values() for index in consumer.units[0].tolist()}
        parts: dict[str, list[np.ndarray]] = {group.name: [] for group in groups}
        total = samples.steps(self.batch_size)
        for inputs, labels in track(samples.batches(self.batch_size), "gradients of the gates", total):
            for name, values in self._derivatives(graph, groups, watched, inputs, labels, samples.labels).items():
                parts[name].append(values)
        return {
            group.name: self.reduce(np.concatenate(parts[group.name])) if group.index in read else None
            for group in groups
        }

    def _derivatives(
        self,
        graph: ChannelGraph,
        groups: Sequence[ChannelGroup],
        watched: dict[str, Consumer],
        inputs: list[tf.Tensor],
        labels: list[tf.Tensor] | None,
        known: list[np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        """Derivative of each sample's loss with respect to each unit's gate, by group ``[samples, units]``."""
        seen: list[tuple[Consumer, tf.Tensor]] = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def tap(consumer: Consumer, _: tf.Tensor, prepared: tf.Tensor) -> tf.Tensor:
                gated = tf.identity(prepared)  # of its own: another consumer may read the very same tensor
                tape.watch(gated)
                seen.append((consumer, gated))
                return gated

            outputs = Forward(graph, watched, tap)(inputs)
            losses = sample_losses(graph.model, outputs, labels, self.loss, known)
        gradients = tape.gradient(losses, [prepared for _, prepared in seen])
        result = {group.name: np.zeros((len(inputs[0]), group.size)) for group in groups}
        for (consumer, prepared), gradient in zip(seen, gradients, strict=True):
            if gradient is None:  # a side branch that no output depends on
                continue
            axes = consumer.spatial_axes(prepared.shape.rank)
            if len(prepared) != len(inputs[0]):
                raise CriterionError(
                    f"Expected layers that work sample by sample. Received: {consumer.name!r}, which reads "
                    f"{len(prepared)} entries of a batch of {len(inputs[0])} samples. Choose a criterion that needs no "
                    "gradients."
                )
            by_channel = tf.cast(tf.reduce_sum(prepared * gradient, axis=axes), tf.float32).numpy()
            if not np.isfinite(by_channel).all():
                raise CriterionError(
                    f"Expected finite gradients. Received: NaN or infinity from the loss down to layer "
                    f"{consumer.name!r}, while activations are finite (a square root, a division or a logarithm at 0 "
                    "does so). Choose a criterion that needs no gradients, or mend the layer or loss behind it."
                )
            number, slot = consumer.units
            for group in groups:
                mine = np.flatnonzero(number == group.index)
                if len(mine):
                    np.add.at(result[group.name].T, slot[mine], by_channel[:, mine].T.astype(np.float64))
        return result


@register_criterion("taylor")
class Taylor(GateCriterion):
    """Mean over samples of |dL/dg|: how much the loss moves to first order when the gate closes.

    Ours: one gate for all consumers of a unit, behind their quantisers.

    Reads deployed weights; needs data; needs gradients. Source: Molchanov et al., arXiv 1611.06440, on the consumers'
    quantised inputs.
    """

    source: ClassVar[str] = "Molchanov et al., arXiv 1611.06440, on the consumers' quantised inputs"

    def reduce(self, derivatives: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(derivatives).mean(axis=0))


@register_criterion("fisher")
class Fisher(GateCriterion):
    """Half the mean over samples of (dL/dg)^2: the second-order change of the loss when the gate closes.

    Liu et al. take it of coupled channels. Ours: the gate behind the consumers' quantisers.

    Reads deployed weights; needs data; needs gradients. Source: Theis et al., arXiv 1801.05787; Liu et al., Group
    Fisher Pruning, arXiv 2108.00708.
    """

    source: ClassVar[str] = "Theis et al., arXiv 1801.05787; Liu et al., Group Fisher Pruning, arXiv 2108.00708"

    def reduce(self, derivatives: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 * np.square(derivatives).mean(axis=0))
