"""Full-integer layers for sequential DoReFa networks, level for level what the float network computes.

Between the first and the last quantised activation everything becomes 8-bit integers: a level is its integer plus the
zero point -128, a convolution or dense layer with its batch norm and quantiser one integer operator (see
:mod:`tflite_export.thresholds`). What comes before the first and after the last level stays float.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.codes import Match
from tflite_export.graph import BuiltinOperator, Graph, TensorType
from tflite_export.thresholds import Fit, Ramp, fit_channel, is_exact, other_fits
from tfqprune.errors import ExportError

ZERO_POINT = -128
_LARGEST = 127
_LARGEST_STEPS = 255
# Operator -> axis of the output channels in its kernel, first version that takes 8-bit integers per channel.
_PRODUCTS = {"CONV_2D": (0, 3), "DEPTHWISE_CONV_2D": (3, 3), "FULLY_CONNECTED": (0, 12)}
# Operators that move or choose levels, and their first version for 8 bits.
_PASSING = {"MAX_POOL_2D": 2, "RESHAPE": 1, "PAD": 2, "SQUEEZE": 1, "EXPAND_DIMS": 1}
_CLIPS = (
    schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU_N1_TO_1, schema.ActivationFunctionType.RELU6,
)  # fmt: skip
_ELEMENTWISE = ("MUL", "ADD", "SUB", "MINIMUM", "MAXIMUM")
_ADVICE = 'Use format="packed" or "fast", which take any topology.'


@dataclass(frozen=True)
class Levels8:
    """An 8-bit tensor of levels.

    Attributes:
        tensor: its index.
        steps: the largest level, n.
        scale: real value of one level in the file's terms.
    """

    tensor: int
    steps: int
    scale: float


@dataclass
class _Stage:
    """From a product with integer levels to the next levels.

    Attributes:
        product: the operator.
        match: its kernel.
        scale: float64 [channels], of a sum of integers.
        offset: float64 [channels].
        pools: max pools and the like after the product, in order.
        flipped: bool [channels]: the level falls where what is pooled rises.
    """

    product: Any
    match: Match
    scale: np.ndarray
    offset: np.ndarray
    pools: list[Any] = field(default_factory=list)
    flipped: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


class IntegerRewriter:
    """Turns the quantised part of a float graph into integers, in place.

    Args:
        graph: a converted file with float constants.
        matches: its quantised kernels.
    """

    def __init__(self, graph: Graph, matches: list[Match]) -> None:
        self.graph = graph
        self.matches = {match.tensor: match for match in matches}
        self.levels: dict[int, Levels8] = {}  # float tensor of whole levels -> the same in 8 bits

    def run(self) -> int:
        """Rewrites; returns the number of layers that compute in integers.

        Raises:
            ExportError: a topology that is not sequential, or a channel whose thresholds no integers hit.
        """
        done = 0
        for operator in [op for op in self.graph.operators if self.graph.kind(op) == "ROUND"]:
            steps = self._steps(operator)
            stage = self._stage(operator)
            if stage is None:
                self._enter(operator, steps)
            else:
                self._emit(operator, stage, steps)
                done += 1
        return done

    def _producer(self, tensor: int) -> Any | None:
        return self.graph.producer(tensor)

    def _scalar(self, operator: Any) -> tuple[int, float] | None:
        """The other input and the constant of an elementwise operator with a single number."""
        constants = [int(i) for i in operator.inputs if self.graph.is_constant(int(i))]
        others = [int(i) for i in operator.inputs if not self.graph.is_constant(int(i))]
        if len(constants) != 1 or len(others) != 1 or self.graph.constant(constants[0]).size != 1:
            return None
        return others[0], float(self.graph.constant(constants[0]).reshape(-1)[0])

    def _steps(self, operator: Any) -> int:
        """The largest level of a quantiser: the number that its ROUND's input was multiplied by."""
        before = self._producer(int(operator.inputs[0]))
        pair = self._scalar(before) if before is not None and self.graph.kind(before) == "MUL" else None
        steps = 1 if pair is None else round(pair[1])
        if steps > _LARGEST_STEPS:
            raise ExportError(f"Expected at most {_LARGEST_STEPS + 1} levels. Received: {steps + 1}. {_ADVICE}")
        return steps

    def _stage(self, rounding: Any) -> _Stage | None:
        """What leads to a ROUND, or None where real values do."""
        graph = self.graph
        tensor = int(rounding.inputs[0])
        channels_scale, channels_offset = np.ones(1), np.zeros(1)
        after_pools: np.ndarray = np.ones(1)
        pools: list[Any] = []
        ends: set[str] = set()  # of the clip to 0..1, seen so far
        while (operator := self._producer(tensor)) is not None:
            kind = graph.kind(operator)
            if kind in _PRODUCTS:
                return self._finish_stage(operator, channels_scale, channels_offset, pools, after_pools, ends)
            constants = [int(i) for i in operator.inputs if i >= 0 and graph.is_constant(int(i))]
            data = [int(i) for i in operator.inputs if i >= 0 and not graph.is_constant(int(i))]
            limits = [graph.constant(i) for i in constants] if kind in _ELEMENTWISE else []
            fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0
            untouched = bool(np.all(channels_scale == 1.0) and np.all(channels_offset == 0.0))
            # what else clips outside 0..1 changes nothing in front of the quantiser's own clip
            elementwise = (
                len(data) == 1
                and len(limits) == 1
                and limits[0].size in (1, *limits[0].shape[-1:])  # one number, or one for each channel
                and (not fused or (fused in _CLIPS and untouched))
            )
            if kind == "RELU_0_TO_1" and untouched:
                ends |= {"low", "high"}
            elif untouched and (kind == "RELU" or (kind == "MAXIMUM" and elementwise and np.all(limits[0] == 0.0))):
                ends.add("low")
            elif kind == "MINIMUM" and untouched and elementwise and np.all(limits[0] == 1.0):
                ends.add("high")
            elif kind == "MUL" and elementwise and not ends and limits[0].size == 1:
                pass  # n of the quantiser, which the levels count in
            elif kind == "MUL" and elementwise:
                channels_scale = channels_scale * limits[0].astype(np.float64).reshape(-1)
            elif kind in ("ADD", "SUB") and elementwise and not (kind == "SUB" and int(operator.inputs[0]) not in data):
                step = limits[0].astype(np.float64).reshape(-1) * (1 if kind == "ADD" else -1)
                channels_offset = channels_offset + channels_scale * step
            elif kind in _PASSING and len(data) == 1:
                if self._stays_behind(operator, channels_scale, channels_offset):
                    self._refuse_if_quantised(tensor, f"{kind} between a layer and its batch norm,")
                    return None
                if not pools:
                    after_pools = channels_scale
                elif np.shape(after_pools) != np.shape(channels_scale) or np.any(after_pools != channels_scale):
                    self._refuse_if_quantised(tensor, f"{kind} operators with a scale in between")
                    return None
                pools.insert(0, operator)
            else:
                self._refuse_if_quantised(tensor, f"a {kind} operator before the next quantiser")
                return None
            tensor = data[0]
        return None

    def _finish_stage(
        self, product: Any, scale: np.ndarray, offset: np.ndarray, pools: list[Any], after: np.ndarray, ends: set[str]
    ) -> _Stage | None:
        match = self.matches.get(int(product.inputs[1]))
        if match is None or self._source(int(product.inputs[0])) is None:
            self._refuse_if_quantised(int(product.inputs[0]), f"a {self.graph.kind(product)} without quantised kernel")
            return None
        name = match.kernel.layer
        if np.abs(match.kernel.integers).max() > _LARGEST:
            raise ExportError(f"Expected integers that 8 bits hold. Received: more for {name}. {_ADVICE}")
        untouched = bool(np.all(scale == 1.0) and np.all(offset == 0.0)) and not pools
        fused = int(product.builtinOptions.fusedActivationFunction or 0)
        if ends != {"low", "high"} or (fused and (fused not in _CLIPS or not untouched)):
            raise ExportError(
                f"Expected {name} to be followed by a DoReFa quantiser. Received: another activation. {_ADVICE}"
            )
        channels = len(match.scale)
        if {np.size(scale), np.size(offset)} - {1, channels}:
            raise ExportError(
                f"Expected one scale and offset for each of the {channels} channels of {name}. Received: "
                f"{max(np.size(scale), np.size(offset))} behind it. {_ADVICE}"
            )
        has_bias = len(product.inputs) > 2 and int(product.inputs[2]) >= 0
        bias = self.graph.constant(int(product.inputs[2])) if has_bias else 0.0
        total = np.broadcast_to(scale, channels) * match.scale.astype(np.float64)
        shift = offset + scale * np.asarray(bias, np.float64)
        flipped = np.broadcast_to(after, channels) < 0 if pools else np.zeros(channels, bool)
        return _Stage(product, match, total, np.broadcast_to(shift, channels), pools, np.asarray(flipped))

    def _stays_behind(self, operator: Any, scale: np.ndarray, offset: np.ndarray) -> bool:
        """Whether a scale and offset behind an operator cannot change places with it.

        Zeros that are padded in between would miss them; where the last axis changes they belong to no channel.
        """
        padded = self.graph.kind(operator) == "PAD" and not (np.all(scale == 1.0) and np.all(offset == 0.0))
        before, after = self.graph.shape(int(operator.inputs[0])), self.graph.shape(int(operator.outputs[0]))
        return padded or (max(np.size(scale), np.size(offset)) > 1 and before[-1:] != after[-1:])

    def _source(self, tensor: int) -> tuple[int, list[Any], float] | None:
        """The whole levels that a tensor shows, the operators in between in order, and their factor; else None."""
        between: list[Any] = []
        factor = 1.0
        while tensor not in self.levels:
            operator = self._producer(tensor)
            if operator is None:
                return None
            kind = self.graph.kind(operator)
            pair = self._scalar(operator) if kind == "MUL" else None
            if pair is not None:
                tensor, factor = pair[0], factor * pair[1]
            elif kind in _PASSING:
                between.insert(0, operator)
                tensor = int(operator.inputs[0])
            else:
                return None
        return tensor, between, factor

    def _refuse_if_quantised(self, tensor: int, what: str) -> None:
        """An error where integer sums lead to a tensor without another quantiser: they would have to stay float."""
        waiting, seen = [tensor], set()
        while waiting:
            current = waiting.pop()
            operator = None if current in seen or current in self.levels else self._producer(current)
            seen.add(current)
            if operator is None:
                continue
            match = self.matches.get(int(operator.inputs[1])) if len(operator.inputs) > 1 else None
            if match is not None and self._source(int(operator.inputs[0])) is not None:
                raise ExportError(
                    f"Expected a sequential network: each quantised layer, batch norm, quantiser. Received: {what} "
                    f"after {match.kernel.layer}. {_ADVICE}"
                )
            waiting += [int(i) for i in operator.inputs if i >= 0]

    def _quantised_tensor(self, shape: tuple[int, ...], scale: float) -> int:
        index = self.graph.add_tensor(shape, TensorType.INT8)
        self.graph.tensors[index].quantization = _record(np.asarray([scale], np.float32), ZERO_POINT)
        return index

    def _enter(self, rounding: Any, steps: int) -> None:
        """Float levels -> 8 bits."""
        graph = self.graph
        given = int(rounding.outputs[0])
        tensor = self._quantised_tensor(graph.shape(given), 1.0)
        operator = graph.new_operator(BuiltinOperator.QUANTIZE, [given], [tensor], schema.QuantizeOptionsT())
        at = next(i for i, other in enumerate(graph.operators) if other is rounding) + 1
        graph.subgraph.operators.insert(at, operator)
        self.levels[given] = Levels8(tensor, steps, 1.0)

    def _pass(self, before: Any, operators: list[Any], tensor: int, scale: float) -> int:
        """Copies of operators that move or choose, on 8-bit levels."""
        for operator in operators:
            shape = self.graph.shape(int(operator.outputs[0]))
            output = self._quantised_tensor(shape, scale)
            twin = copy.copy(operator)
            twin.inputs = np.asarray([tensor, *[int(i) for i in operator.inputs[1:]]], np.int32)
            twin.outputs = np.asarray([output], np.int32)
            kind = self.graph.kind(operator)
            self.graph.set_version(twin, getattr(BuiltinOperator, kind), _PASSING[kind])
            self.graph.insert(before, [twin])
            tensor = output
        return tensor

    def _emit(self, rounding: Any, stage: _Stage, steps: int) -> None:
        """The integer operators of a stage in front of its ROUND, which then reads their levels as floats."""
        graph = self.graph
        source = self._source(int(stage.product.inputs[0]))
        assert source is not None
        whole, between, factor = source
        given = self.levels[whole]
        tensor = self._pass(rounding, between, given.tensor, given.scale)
        output_scale = np.float32(1.0 / steps)
        fits, scales = fit_stage(stage.match, stage.scale * factor, stage.offset, given, steps, stage.flipped)
        shape = graph.shape(int(stage.product.outputs[0]))
        output = self._quantised_tensor(shape, float(output_scale))
        product = self._product(stage, fits, scales, given, tensor, output)
        graph.insert(rounding, [product])
        output = self._pass(rounding, stage.pools, output, float(output_scale))
        if stage.flipped.any():
            output = self._flip(rounding, output, stage.flipped, steps, output_scale)
        real_shape = graph.shape(output)
        real = graph.add_tensor(real_shape, TensorType.FLOAT32)
        counted = graph.add_tensor(real_shape, TensorType.FLOAT32)
        factor_ = graph.add_constant(np.asarray(steps, np.float32))
        graph.insert(
            rounding,
            [
                graph.new_operator(BuiltinOperator.DEQUANTIZE, [output], [real], schema.DequantizeOptionsT(), 2),
                graph.new_operator(BuiltinOperator.MUL, [real, factor_], [counted], schema.MulOptionsT()),
            ],
        )
        rounding.inputs = np.asarray([counted], np.int32)
        self.levels[int(rounding.outputs[0])] = Levels8(output, steps, float(output_scale))

    def _product(
        self, stage: _Stage, fits: list[Fit], scales: np.ndarray, given: Levels8, tensor: int, output: int
    ) -> Any:
        graph, kind = self.graph, self.graph.kind(stage.product)
        axis, version = _PRODUCTS[kind]
        column = [-1 if i == axis else 1 for i in range(stage.match.kernel.integers.ndim)]
        gains = np.asarray([fit.gain for fit in fits]).reshape(column)
        integers = (stage.match.kernel.integers * gains).astype(np.int8)
        kernel = graph.add_tensor(integers.shape, TensorType.INT8, integers.tobytes())
        graph.tensors[kernel].quantization = _record(scales, 0, axis)
        bias = graph.add_constant(np.asarray([fit.bias for fit in fits], np.int32))
        graph.tensors[bias].quantization = _record((scales * np.float32(given.scale)).astype(np.float32), 0)
        product = copy.copy(stage.product)
        product.builtinOptions = copy.copy(product.builtinOptions)
        # one level is 1 / n, so the largest is 1; the smallest is the smallest integer
        product.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU_N1_TO_1
        product.inputs = np.asarray([tensor, kernel, bias], np.int32)
        product.outputs = np.asarray([output], np.int32)
        graph.set_version(product, getattr(BuiltinOperator, kind), version)
        return product

    def _flip(self, before: Any, tensor: int, flipped: np.ndarray, steps: int, scale: np.float32) -> int:
        """Levels x -> n - x in some channels: a depthwise 1x1 convolution by +-1, which rounds nothing."""
        graph = self.graph
        shape = graph.shape(tensor)
        if len(shape) != 4:
            raise ExportError(f"Expected images after a pool under a negative scale. Received: {shape}. {_ADVICE}")
        signs = np.where(flipped, -1, 1).astype(np.int8).reshape(1, 1, 1, -1)
        kernel = graph.add_tensor(signs.shape, TensorType.INT8, signs.tobytes())
        graph.tensors[kernel].quantization = _record(np.ones(len(flipped), np.float32), 0, 3)
        bias = graph.add_constant(np.where(flipped, steps, 0).astype(np.int32))
        graph.tensors[bias].quantization = _record(np.full(len(flipped), scale, np.float32), 0)
        output = self._quantised_tensor(shape, float(scale))
        options = schema.DepthwiseConv2DOptionsT()
        options.padding = schema.Padding.VALID
        options.strideW = options.strideH = options.depthMultiplier = 1
        graph.insert(
            before,
            [
                graph.new_operator(
                    BuiltinOperator.DEPTHWISE_CONV_2D, [tensor, kernel, bias], [output], options, version=3
                )
            ],
        )
        return output


def fit_stage(
    match: Match, scale: np.ndarray, offset: np.ndarray, given: Levels8, steps: int, flipped: np.ndarray
) -> tuple[list[Fit], np.ndarray]:
    """Integers for all channels of a layer, each proven, and the weight scales (float32) that go with them.

    Args:
        match: the kernel.
        scale: float64 [channels], from a sum of integers to the real value that the quantiser clips to 0..1.
        offset: float64 [channels].
        given: the levels that the layer reads.
        steps: n of the quantiser after it.
        flipped: channels to be computed as n - level.

    Raises:
        ExportError: a channel that cannot be made exact.
    """
    rows = np.moveaxis(match.kernel.integers, match.kernel.axis, 0).reshape(len(match.scale), -1).astype(np.int64)
    fits, scales = [], np.zeros(len(rows), np.float32)
    output_scale = np.float32(1.0 / steps)
    for channel, row in enumerate(rows):
        s, b = float(scale[channel]), float(offset[channel])
        if flipped[channel]:
            s, b = -s, 1.0 - b
        ramp = Ramp(s, b, steps, int(row[row < 0].sum()) * given.steps, int(row[row > 0].sum()) * given.steps)
        gain = _LARGEST // max(int(np.abs(row).max()), 1)
        first = fit_channel(ramp, gain)
        for fit in [*([first] if first else []), *([] if first and _proven(ramp, first, given, output_scale) else
                    other_fits(ramp, gain))]:  # fmt: skip
            if _proven(ramp, fit, given, output_scale):
                fits.append(fit)
                scales[channel] = _weight_scale(fit, given, output_scale)
                break
        else:
            raise ExportError(
                f"Expected integers that hit all {steps} thresholds of each channel. Received: none for channel "
                f"{channel} of {match.kernel.layer}: 8-bit weights of up to {np.abs(row).max()} leave a resolution of "
                f"1/{gain} of a sum, too coarse for its batch norm. {_ADVICE}"
            )
    return fits, scales


def _weight_scale(fit: Fit, given: Levels8, output_scale: np.float32) -> np.float32:
    return np.float32(float(output_scale) / (float(np.float32(given.scale)) * fit.unit))


def _proven(ramp: Ramp, fit: Fit, given: Levels8, output_scale: np.float32) -> bool:
    weight = _weight_scale(fit, given, output_scale)
    read = np.float32(given.scale)
    return is_exact(ramp, fit, float(read) * float(weight) / float(output_scale), read * weight / output_scale)


def _record(scale: np.ndarray, zero_point: int, axis: int = 0) -> Any:
    record = schema.QuantizationParametersT()
    record.scale = scale
    record.zeroPoint = np.full(len(scale), zero_point, np.int64)
    record.quantizedDimension = axis
    return record
