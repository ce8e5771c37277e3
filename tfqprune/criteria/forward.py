"""Runs a model layer by layer, and shows each kernel what it is about to multiply.

A unit is silenced by zeroing the kernel slices that read it (see ``tfqprune.masking``), so what counts is what
arrives there: behind the layer's own input quantiser and padding, before its deployed kernel. Everything runs
eagerly: for a few hundred samples tracing a graph would take longer than the run.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.criteria.filters import deployed_kernel, passes_on
from tfqprune.errors import DataError
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import CONSUMED
from tfqprune.layers.convolution import ConvHandler, DenseHandler, SeparableConvHandler
from tfqprune.layers.running import inference, substitute
from tfqprune.models import feed, is_graph_model, nodes


class Consumer:
    """A layer whose kernel reads channels, taken apart: quantise, pad, multiply.

    Args:
        graph: the channel graph of the model.
        record: the layer.

    Attributes:
        units: number of the group, and slot in it, of each channel that is read.
        axis: the channel axis of what is read in the layer's first call.
        convolution: whether a kernel slides over padded inputs: a plain convolution, or a separable one.
        multiplier: values that reach the mixing kernel for each channel: more than one in separable convolutions.
        separable: whether filters of single channels come in front of the mixing kernel.
        kernel: the deployed mixing kernel; None for layers that are neither convolutions of these kinds nor dense.
    """

    def __init__(self, graph: ChannelGraph, record: LayerRecord) -> None:
        self.record = record
        self.units = graph.units(record.roles["in"])
        call = next(call for call in graph.calls.values() if call.record is record)
        axis = call.inputs[0].axis
        assert axis is not None
        self.axis = axis
        self.separable = isinstance(record.handler, SeparableConvHandler)
        self.convolution = self.separable or isinstance(record.handler, ConvHandler)
        self.dense = isinstance(record.handler, DenseHandler)
        self.multiplier = record.layer.depth_multiplier if self.separable else 1
        self.kernel = None
        if self.convolution or self.dense:
            self.kernel = deployed_kernel(record, "pointwise_kernel" if self.separable else "kernel")
        self.quantizer = getattr(record.layer, "input_quantizer", None)
        self.layer = self._bare()

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.record.name

    def channel_axis(self, rank: int) -> int:
        """The channel axis of an input of this rank: a shared dense layer may read several."""
        return rank - 1 if self.dense else self.axis

    def _bare(self) -> tf.keras.layers.Layer:
        """A copy that shares the layer's variables, without quantisers and padding: the original stays as it is."""
        layer = copy.copy(self.record.layer)
        state = layer.__dict__
        state.pop("call", None)  # saving as SavedModel leaves the original's bound method there
        for weight in precision.quantized_weights(self.record.layer):
            state[weight] = tf.cast(deployed_kernel(self.record, weight), layer.compute_dtype)
            state[precision.QUANTIZER_OF_WEIGHT[weight]] = None
        if self.quantizer is not None:
            state["input_quantizer"] = None
        if self.convolution:
            state.update(padding="valid", _is_causal=False, _is_native_padding=True)
        return layer

    def quantise(self, inputs: tf.Tensor) -> tf.Tensor:
        """The input behind the layer's quantiser."""
        inputs = tf.cast(inputs, self.layer.compute_dtype)
        return inputs if self.quantizer is None else self.quantizer(inputs)

    def prepare(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the kernel multiplies: the input behind the layer's quantiser, padded."""
        inputs = self.quantise(inputs)
        if not self.convolution:
            return inputs
        padding = self._padding(tuple(inputs.shape))
        if not any(before or after for before, after in padding):
            return inputs
        value = tf.cast(getattr(self.record.layer, "pad_values", 0.0), inputs.dtype)
        return tf.pad(inputs, padding, constant_values=value)

    def multiply(self, prepared: tf.Tensor) -> Any:
        """The layer's output for what :meth:`prepare` returned."""
        return self.layer(prepared)

    def respond(self, prepared: tf.Tensor) -> tf.Tensor:
        """As :meth:`multiply`, in front of the layer's activation."""
        layer = copy.copy(self.layer)
        if hasattr(layer, "activation"):
            layer.__dict__["activation"] = tf.keras.activations.linear
        return tf.nest.flatten(layer(prepared))[0]

    def filtered(self, prepared: tf.Tensor) -> tf.Tensor:
        """What the pointwise kernel of a separable convolution reads: ``[samples, *spatial, in * multiplier]``."""
        layer = self.layer
        values = tf.transpose(prepared, [0, *self.spatial_axes(prepared.shape.rank), self.axis])
        kernel = tf.cast(layer.depthwise_kernel, values.dtype)
        strides, dilations = layer.strides, layer.dilation_rate
        line = len(strides) == 1
        if line:  # TensorFlow filters images
            values, kernel, strides, dilations = values[:, None], kernel[None], strides * 2, (1, *dilations)
        result = tf.nn.depthwise_conv2d(values, kernel, [1, *strides, 1], "VALID", dilations=dilations)
        return result[:, 0] if line else result

    def spatial_axes(self, rank: int) -> list[int]:
        """The axes a convolution slides over: all but samples and channels."""
        return [axis for axis in range(1, rank) if axis != self.channel_axis(rank)]

    def _padding(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        layer = self.record.layer
        padding = [(0, 0)] * len(shape)
        for number, axis in enumerate(self.spatial_axes(len(shape))):
            stride, spread = layer.strides[number], layer.dilation_rate[number] * (layer.kernel_size[number] - 1)
            if layer.padding == "causal":
                padding[axis] = (spread, 0)
            elif layer.padding == "same":
                total = max((-(-shape[axis] // stride) - 1) * stride + spread + 1 - shape[axis], 0)
                padding[axis] = (total // 2, total - total // 2)
        return padding


def consumers(graph: ChannelGraph, groups: set[int] | None = None) -> dict[str, Consumer]:
    """The layers that read channels of these groups (numbers; None: any) and mint others, by name.

    Depthwise kernels are left out: they pass their channels on, and whoever reads those is found.
    """
    found = {}
    for name, record in graph.records.items():
        axes = [role for weight in record.reuse for role in record.weight_axes[weight]]
        if "in" not in record.roles or not any(role in CONSUMED for role in axes):
            continue
        if passes_on(record, "in"):
            continue
        if groups is None or groups & set(graph.units(record.roles["in"])[0].tolist()):
            found[name] = Consumer(graph, record)
    return found


Tap = Callable[[Consumer, tf.Tensor, tf.Tensor], tf.Tensor]


class Forward:
    """Runs a model on samples in inference mode.

    Args:
        graph: the channel graph of the model.
        watched: the consumers that are taken apart.
        tap: called for each of them with the consumer, its input as it arrives, and what :meth:`Consumer.prepare`
            made of it; returns what the kernel is to multiply.
    """

    def __init__(self, graph: ChannelGraph, watched: dict[str, Consumer], tap: Tap) -> None:
        self.graph = graph
        self.tap = tap
        self._consumers = {id(consumer.record.layer): consumer for consumer in watched.values()}

    def __call__(self, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        """The model's outputs.

        Raises:
            DataError: a layer's output holds NaN or infinity.
        """
        return self._run(self.graph.model, inputs)

    def _run(self, model: tf.keras.Model, inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        steps = list(nodes(model))
        sources = [
            [id(tensor) for tensor in (feed(node.layer, node) if is_graph_model(node.layer) else node.keras_inputs)]
            for node in steps
        ]
        results = [id(tensor) for tensor in model.outputs]
        left = Counter(itertools.chain(results, *sources))
        table = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for node, keys in zip(steps, sources, strict=True):
            values = [table[key] for key in keys]
            if is_graph_model(node.layer):
                outputs = self._run(node.layer, values)
            else:
                outputs = self._call(node, values)
            for tensor, value in zip(tf.nest.flatten(node.outputs), outputs, strict=True):
                table[id(tensor)] = value
            for key in keys:  # let go of what nobody needs any more
                left[key] -= 1
                if not left[key]:
                    del table[key]
        return [table[key] for key in results]

    def _call(self, node: Any, values: list[tf.Tensor]) -> list[tf.Tensor]:
        layer = node.layer
        consumer = self._consumers.get(id(layer))
        if consumer is not None:
            outputs = consumer.multiply(self.tap(consumer, values[0], consumer.prepare(values[0])))
        else:
            outputs = inference(layer, *substitute(node, values))
        flat: list[tf.Tensor] = tf.nest.flatten(outputs)
        for output in flat:
            # One sum is enough to see NaN and infinity, and costs less than looking at every value.
            if tf.is_tensor(output) and output.dtype.is_floating and not np.isfinite(float(tf.reduce_sum(output))):
                self._check(layer, output)
        return flat

    def _check(self, layer: tf.keras.layers.Layer, output: tf.Tensor) -> None:
        bad = int(tf.reduce_sum(tf.cast(~tf.math.is_finite(output), tf.int64)))
        if bad:
            name = next((name for name, record in self.graph.records.items() if record.layer is layer), layer.name)
            raise DataError(
                f"Expected finite activations. Received: {bad} of {tf.size(output)} values that are NaN or infinite "
                f"in the output of layer {name!r} ({type(layer).__name__}). Look at its input and its weights."
            )


def is_sign(quantizer: Any) -> bool:
    """Whether a quantiser's outputs all have the same size, so that only their sign says anything."""
    return (
        quantizer is not None
        and precision.quantizer_bits(quantizer) == 1
        and not isinstance(quantizer, lq.quantizers.NoOp)
        and bool((np.abs(precision.quantize(quantizer, np.array([-0.7, 0.2, 0.6], np.float32))) == 1).all())
    )
