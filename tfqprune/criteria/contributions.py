"""What each unit contributes to the outputs of the kernels that read it, and how these contributions vary together.

A convolution is a sum over its input channels: y_o = sum_c z_co with z_co the response of output o to channel c alone.
The covariance of the z over positions and samples, summed over the outputs, is all that is needed to know how much
variance goes with any set of channels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.forward import Consumer, Forward, consumers
from tfqprune.progress import track
from tfqprune.samples import Samples

#: bytes that one block of an intermediate product may take
_BLOCK = 64 * 2**20
#: bytes that the responses kept of one layer may take, over all batches
_RESPONSES = 64 * 2**20


@dataclass
class Reading:
    """What a consumer's kernel read at sampled output positions.

    Attributes:
        kernel: ``[blocks, channels, taps, outputs]``: for each block of a grouped convolution the deployed weight
            of each input channel, kernel tap and output. The taps of a separable convolution are what its depthwise
            filters make of a channel.
        patches: arrays ``[rows, blocks, channels, taps]``, one a batch.
        responses: for layers that are not taken apart: arrays ``[rows, channels, outputs]``, the response to each
            channel alone.
    """

    kernel: np.ndarray | None = None
    patches: list[np.ndarray] = field(default_factory=list)
    responses: list[np.ndarray] = field(default_factory=list)


def read(
    graph: ChannelGraph,
    groups: list[ChannelGroup],
    samples: Samples,
    *,
    positions: int,
    batch_size: int,
    description: str,
) -> list[tuple[Consumer, Reading]]:
    """Runs the model on the samples and keeps what the consumers of some groups read.

    Args:
        graph: the channel graph of the model.
        groups: whose consumers are looked at.
        samples: the samples.
        positions: output positions kept of each sample and layer; chosen at random, always the same. Of wide layers
            that are not taken apart fewer are kept, and of fewer samples, so that their responses fit into 64 MiB.
        batch_size: samples in one run.
        description: for the progress bar.
    """
    watched = consumers(graph, {group.index for group in groups})
    readings = {name: Reading(_blocks(consumer)) for name, consumer in watched.items()}
    rngs = {name: np.random.default_rng(zlib.crc32(name.encode())) for name in watched}
    total = samples.steps(batch_size)

    def tap(consumer: Consumer, _: tf.Tensor, prepared: tf.Tensor) -> tf.Tensor:
        reading = readings[consumer.name]
        if reading.kernel is not None:
            reading.patches.append(_patches(consumer, prepared, positions, rngs[consumer.name]))
        else:
            room = _RESPONSES // total
            reading.responses.append(_responses(consumer, prepared, positions, rngs[consumer.name], room))
        return prepared

    forward = Forward(graph, watched, tap)
    for inputs, _ in track(samples.batches(batch_size), description, total):
        forward(inputs)
    return [(watched[name], reading) for name, reading in readings.items()]


def _blocks(consumer: Consumer) -> np.ndarray | None:
    """The deployed kernel as ``[blocks, channels, taps, outputs]``, or None for layers of other kinds."""
    if consumer.kernel is None:
        return None
    kernel = np.asarray(consumer.kernel, np.float32)
    if consumer.dense or consumer.separable:
        return kernel.reshape(1, -1, consumer.multiplier, kernel.shape[-1])
    blocks = consumer.record.layer.groups
    taps = kernel.reshape(-1, *kernel.shape[-2:])  # [taps, channels, outputs]
    return np.ascontiguousarray(
        taps.reshape(*taps.shape[:2], blocks, -1).transpose(2, 1, 0, 3)  # outputs of a block lie side by side
    )


def _patches(consumer: Consumer, prepared: tf.Tensor, positions: int, rng: np.random.Generator) -> np.ndarray:
    """What the kernel covers at some output positions: ``[rows, blocks, channels, taps]``."""
    if consumer.dense or consumer.separable:
        mixed = consumer.filtered(prepared) if consumer.separable else prepared
        rows = tf.reshape(mixed, [mixed.shape[0], -1, mixed.shape[-1]])
        chosen = _choose(rows.shape[1], positions, rng)
        values = tf.gather(rows, chosen, axis=1).numpy().astype(np.float32, copy=False)
        return values.reshape(-1, 1, values.shape[-1] // consumer.multiplier, consumer.multiplier)
    layer = consumer.record.layer
    axes = consumer.spatial_axes(prepared.shape.rank)
    sizes = [int(prepared.shape[axis]) for axis in axes]
    outputs = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    ]
    starts = np.unravel_index(_choose(int(np.prod(outputs)), positions, rng), outputs)
    taps = np.unravel_index(np.arange(int(np.prod(layer.kernel_size))), layer.kernel_size)
    covered = np.ravel_multi_index(
        [
            start[:, None] * stride + tap[None, :] * dilation
            for start, tap, stride, dilation in zip(starts, taps, layer.strides, layer.dilation_rate, strict=True)
        ],
        sizes,
    )
    last = prepared if consumer.axis == prepared.shape.rank - 1 else tf.transpose(prepared, [0, *axes, consumer.axis])
    flat = tf.reshape(last, [last.shape[0], -1, last.shape[-1]])
    values = tf.gather(flat, covered, axis=1).numpy().astype(np.float32, copy=False)  # [samples, positions, taps, in]
    return np.ascontiguousarray(
        values.reshape(-1, len(taps[0]), layer.groups, values.shape[-1] // layer.groups).transpose(0, 2, 3, 1)
    )


def _choose(count: int, positions: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(count) if count <= positions else np.sort(rng.choice(count, positions, replace=False))


def _responses(
    consumer: Consumer, prepared: tf.Tensor, positions: int, rng: np.random.Generator, most: int
) -> np.ndarray:
    """The response to each channel alone, for layers of any kind: one run of the layer for each channel.

    The layer must be linear in its input up to a constant and its activation, which is left out.

    Args:
        consumer: the layer.
        prepared: a batch of what it multiplies.
        positions: output positions looked at in each sample.
        rng: chooses them.
        most: bytes that the result may take; where that is too little, there are fewer samples and positions in it.

    Returns:
        Float32 array ``[rows, channels, outputs]``; one row at least.
    """
    axis = consumer.axis
    last = axis == prepared.shape.rank - 1
    count = int(prepared.shape[axis])
    shape = [1] * prepared.shape.rank
    shape[axis] = count
    base = consumer.respond(tf.zeros_like(prepared[:1]))
    outputs = int(base.shape[-1 if last else axis])
    cells = int(np.prod(base.shape[1:])) // outputs
    rows = max(most // (4 * count * outputs), 1)
    if rows < len(prepared):
        prepared = tf.gather(prepared, _choose(len(prepared), rows, rng))
    chosen = _choose(cells, min(positions, rows // len(prepared)), rng)
    columns = []
    for channel in range(count):
        only = tf.reshape(tf.one_hot(channel, count, dtype=prepared.dtype), shape)
        response = consumer.respond(prepared * only) - base
        if not last:
            response = tf.experimental.numpy.moveaxis(response, axis, -1)
        cell = tf.reshape(response, [response.shape[0], cells, outputs])
        columns.append(tf.gather(cell, chosen, axis=1).numpy().astype(np.float32).reshape(-1, outputs))
    return np.stack(columns, axis=1)


def covariance(
    consumer: Consumer,
    reading: Reading,
    group: ChannelGroup,
    weigh: Callable[[np.ndarray], np.ndarray],
    rescaled: float = 0.0,
) -> np.ndarray:
    """How the contributions of a group's units to one consumer's outputs vary together.

    Args:
        consumer: the consumer.
        reading: what it read.
        group: the group.
        weigh: from the variance of each output ``[outputs]`` to the weight of its contributions ``[outputs]``.
        rescaled: share, from 0 to 1, of what is proportional to the whole output that is left out: a batch norm that is
            re-estimated scales it back.

    Returns:
        Float64 array ``[units, units]``: the covariance of contributions over positions and samples, weighted
        and summed over the outputs, as a share of the same sum for the whole output.
    """
    number, slot = consumer.units
    result = np.zeros((group.size, group.size))
    whole = 0.0
    if reading.kernel is None:
        responses = np.concatenate(reading.responses)
        return _of_responses(responses, number == group.index, slot, group.size, weigh, rescaled)
    patches = np.concatenate(reading.patches)  # [rows, blocks, channels, taps]
    blocks, channels = patches.shape[1:3]
    for block in range(blocks):
        mine = slice(block * channels, (block + 1) * channels)
        values, kernel = patches[:, block], reading.kernel[block]
        values = values - values.mean(axis=0)
        output = np.tensordot(values, kernel, axes=([1, 2], [0, 1]))
        variance = np.square(output, dtype=np.float64).mean(axis=0)
        weights = weigh(variance)
        whole += float((variance * weights).sum())
        chosen = np.flatnonzero(number[mine] == group.index)
        if len(chosen):
            scaled = kernel[chosen] * np.sqrt(weights).astype(np.float32)
            result += _gram(values[:, chosen], scaled, slot[mine][chosen], group.size) / len(values)
            if rescaled:
                along = np.tensordot(values[:, chosen], output, axes=(0, 0))  # [channels, taps, outputs]
                by_channel = (along * kernel[chosen]).sum(axis=1, dtype=np.float64) / len(values)
                result -= rescaled * _proportional(
                    _owners(slot[mine][chosen], group.size) @ by_channel, variance, weights
                )
    return result / whole if whole > 0 else result


def _of_responses(
    responses: np.ndarray,
    mine: np.ndarray,
    slot: np.ndarray,
    size: int,
    weigh: Callable[[np.ndarray], np.ndarray],
    rescaled: float,
) -> np.ndarray:
    responses = responses - responses.mean(axis=0)
    output = responses.sum(axis=1)
    variance = np.square(output, dtype=np.float64).mean(axis=0)
    weights = weigh(variance)
    chosen = np.flatnonzero(mine)
    table = _owners(slot[chosen], size)
    by_unit = np.stack([table @ row for row in responses[:, chosen]])  # [rows, units, outputs]
    flat = (by_unit * np.sqrt(weights).astype(np.float32)).transpose(1, 0, 2).reshape(size, -1)
    whole = float((variance * weights).sum())
    product = (flat @ flat.T).astype(np.float64) / len(responses)
    if rescaled:
        along = (by_unit * output[:, None]).mean(axis=0, dtype=np.float64)
        product -= rescaled * _proportional(along, variance, weights)
    return product / whole if whole > 0 else product


def _proportional(along: np.ndarray, variance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The part of the covariance ``[units, units]`` that is proportional to the outputs.

    Args:
        along: covariance of each unit's contribution with the whole output, ``[units, outputs]``.
        variance: of the outputs.
        weights: of the outputs.
    """
    scaled = along * np.sqrt(weights * inverse(variance))
    return scaled @ scaled.T


def inverse(variance: np.ndarray) -> np.ndarray:
    """One over the variance, 0 where nothing varies (to rounding)."""
    smallest = 1e-12 * max(float(variance.max(initial=0.0)), 1e-30)
    return np.where(variance > smallest, 1.0 / np.maximum(variance, smallest), 0.0)


def _owners(slot: np.ndarray, size: int) -> csr_matrix:
    """Sparse ``[units, channels]``: which unit each channel belongs to."""
    return csr_matrix((np.ones(len(slot), np.float32), (slot, np.arange(len(slot)))), shape=(size, len(slot)))


def _gram(values: np.ndarray, kernel: np.ndarray, slot: np.ndarray, size: int) -> np.ndarray:
    """Sum over rows and outputs of the products of two units' contributions.

    Either through the contributions themselves, or through the products of patches and those of kernels, whose
    product value by value, summed over the taps, is the same: whichever takes fewer multiplications.

    Args:
        values: ``[rows, channels, taps]``, centred.
        kernel: ``[channels, taps, outputs]``.
        slot: unit of each channel.
        size: number of units.

    Returns:
        Float64 array ``[units, units]``.
    """
    rows, channels, taps = values.shape
    outputs = kernel.shape[2]
    order = np.argsort(slot, kind="stable")
    owners = _owners(slot[order], size)
    direct = rows * outputs * (channels * taps + size * size)
    through = (rows + outputs) * (channels * taps) ** 2
    cheaper = _gram_direct if direct <= through else _gram_through
    return cheaper(values[:, order], kernel[order], owners)


def _gram_through(values: np.ndarray, kernel: np.ndarray, owners: csr_matrix) -> np.ndarray:
    """Through the products of patches and those of kernels, some channels at a time."""
    rows, channels, taps = values.shape
    table = kernel.reshape(channels * taps, -1)
    flat = values.reshape(rows, channels * taps)
    step = max(1, _BLOCK // (4 * taps * channels * taps))
    strips = []
    for start in range(0, channels, step):
        part = slice(start * taps, min(start + step, channels) * taps)
        product = (flat[:, part].T @ flat) * (table[part] @ table.T)
        strips.append(product.reshape(-1, taps, channels, taps).sum(axis=(1, 3), dtype=np.float64))
    by_channel = np.concatenate(strips)
    return np.asarray(owners @ (owners @ by_channel).T)


def _gram_direct(values: np.ndarray, kernel: np.ndarray, owners: csr_matrix) -> np.ndarray:
    """Through the contributions ``[units, rows, outputs]`` themselves, some rows at a time."""
    size, channels = owners.shape
    rows, outputs = len(values), kernel.shape[2]
    step = max(1, _BLOCK // (4 * channels * outputs))
    result = np.zeros((size, size))
    by_channel = np.ascontiguousarray(values.transpose(1, 0, 2))  # [channels, rows, taps]
    for start in range(0, rows, step):
        parts = np.matmul(by_channel[:, start : start + step], kernel)  # [channels, rows, outputs]
        flat = owners @ parts.reshape(channels, -1)
        result += flat @ flat.T
    return result
