"""Criteria from what the consumers' kernels read: its mean size, its share of zeros."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, register_criterion, together
from tfqprune.criteria.forward import Consumer, Forward, consumers, is_sign
from tfqprune.errors import CriterionError, whole_number
from tfqprune.progress import track
from tfqprune.samples import Samples


class ActivationCriterion(Criterion):
    """Base of criteria on a mean over samples and positions of what each consumer reads, padding left out.

    Each consumer's means are divided by their mean over the group before they are averaged.

    Args:
        batch_size: samples in one run of the model.

    Raises:
        CriterionError: a batch size below 1.
    """

    reads = "nothing"
    needs_data = True

    def __init__(self, batch_size: int = 32) -> None:
        self.batch_size = whole_number("batch_size", batch_size, CriterionError)

    @abstractmethod
    def measure(self, consumer: Consumer, inputs: tf.Tensor) -> tf.Tensor:
        """A value for each entry of a consumer's input (as it arrives), of the same shape."""

    def finish(self, consumer: Consumer, means: np.ndarray) -> np.ndarray:
        """From the means of :meth:`measure` to scores, ``[channels]`` both."""
        return means

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        assert samples is not None
        watched = consumers(graph, {group.index for group in groups})
        sums: dict[str, np.ndarray] = {name: np.zeros(len(own.units[0])) for name, own in watched.items()}
        counts = dict.fromkeys(watched, 0)

        def tap(consumer: Consumer, inputs: tf.Tensor, prepared: tf.Tensor) -> tf.Tensor:
            values = tf.cast(self.measure(consumer, inputs), tf.float32)
            axes = [0, *consumer.spatial_axes(values.shape.rank)]
            sums[consumer.name] += tf.reduce_mean(values, axis=axes).numpy().astype(np.float64) * len(inputs)
            counts[consumer.name] += len(inputs)
            return prepared

        forward = Forward(graph, watched, tap)
        total = samples.steps(self.batch_size)
        for batch, _ in track(samples.batches(self.batch_size), "activations", total):
            forward(batch)
        parts: dict[str, list[np.ndarray]] = {group.name: [] for group in groups}
        for name, consumer in watched.items():
            scores = self.finish(consumer, sums[name] / max(counts[name], 1))
            number, slot = consumer.units
            for group in groups:
                mine = number == group.index
                if mine.any():
                    seen = np.bincount(slot[mine], minlength=group.size)
                    summed = np.bincount(slot[mine], scores[mine], minlength=group.size)
                    parts[group.name].append(np.where(seen > 0, summed / np.maximum(seen, 1), np.nan))
        return {name: together(part) for name, part in parts.items()}


@register_criterion("mean_activation")
class MeanActivation(ActivationCriterion):
    """Mean |x| of what the consumers' kernels read, behind their input quantisers.

    Ours: the size counts, not the value; in front of a sign quantiser, whose outputs all have size 1, its input is read
    instead.

    Reads no weights; needs data; no gradients. Source: mean activation as in Molchanov et al., arXiv 1611.06440.
    """

    source: ClassVar[str] = "mean activation as in Molchanov et al., arXiv 1611.06440"

    def measure(self, consumer: Consumer, inputs: tf.Tensor) -> tf.Tensor:
        return tf.abs(inputs if is_sign(consumer.quantizer) else consumer.quantise(inputs))


@register_criterion("apoz")
class APoZ(ActivationCriterion):
    """One minus the average percentage of zeros in what the consumers' kernels read.

    Ours: the share is taken behind the input quantiser; behind a sign quantiser, which has no zero, the share of the
    commoner of its two values stands for it: a channel that is always +1 is a constant, which the batch norm behind the
    consumer takes up.

    Reads no weights; needs data; no gradients. Source: Hu et al., Network Trimming, arXiv 1607.03250.
    """

    source: ClassVar[str] = "Hu et al., Network Trimming, arXiv 1607.03250"

    def measure(self, consumer: Consumer, inputs: tf.Tensor) -> tf.Tensor:
        values = consumer.quantise(inputs)
        return values > 0 if is_sign(consumer.quantizer) else tf.not_equal(values, 0)

    def finish(self, consumer: Consumer, means: np.ndarray) -> np.ndarray:
        return np.minimum(means, 1 - means) if is_sign(consumer.quantizer) else means
