"""TensorFlow operators on Keras tensors (``x + y``, ``tf.concat``, ``x[..., :k]``, ...).

Keras wraps them in TFOpLambda and SlicingOpLambda layers, told apart by the operator's symbol.
An operator not named here is probed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.layers.base import LayerCall, LayerHandler
from tfqprune.layers.elementwise import meet
from tfqprune.layers.merging import concatenate
from tfqprune.layers.reshaping import move
from tfqprune.layers.space import Channels

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_OPERATORS: dict[str, LayerHandler] = {}


def operator(*symbols: str) -> Callable[[type[LayerHandler]], type[LayerHandler]]:
    """Class decorator: this handler is in charge of these TensorFlow symbols."""

    def register(handler: type[LayerHandler]) -> type[LayerHandler]:
        instance = handler()
        _OPERATORS.update(dict.fromkeys(symbols, instance))
        return handler

    return register


def operator_for(layer: tf.keras.layers.Layer) -> LayerHandler | None:
    """The handler of an operator layer, or None for other layers and operators unknown here."""
    symbol = getattr(layer, "symbol", None)
    if not isinstance(symbol, str):
        return None
    return _OPERATORS.get(symbol.removeprefix("compat.v1."))


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    """An argument by position or name."""
    return args[position] if len(args) > position else kwargs.get(name, default)


def replaced(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, value: Any) -> Arguments:
    """The arguments with one of them replaced."""
    if len(args) > position:
        return (*args[:position], value, *args[position + 1 :]), kwargs
    return args, {**kwargs, name: value}


def own(call: LayerCall, position: int, name: str, default: Any = None) -> Any:
    """An argument of the call as the model holds it."""
    return argument(tuple(call.node.call_args), call.node.call_kwargs, position, name, default)


def _is_keras_tensor(value: Any) -> bool:
    return tf.keras.backend.is_keras_tensor(value) if tf.is_tensor(value) else False


def _holds_numbers(value: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list, nested or not, holds numbers and nothing else."""
    entries = tf.nest.flatten(value)
    return bool(entries) and all(isinstance(entry, int | float | np.number) for entry in entries)


@operator(
    "__operators__.add", "__operators__.sub", "__operators__.mul", "__operators__.truediv", "__operators__.pow",
    "math.add", "math.subtract", "math.multiply", "math.divide", "math.truediv", "math.divide_no_nan",
    "math.multiply_no_nan", "math.maximum", "math.minimum", "math.pow", "math.squared_difference", "math.add_n",
    "nn.bias_add",
)  # fmt: skip
class ElementwiseOperator(LayerHandler):
    """Value by value; constants that run along the channels are cut with them."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return meet(call, [constant for _, constant in self._constants(call.node.call_args, call.node.call_kwargs)])

    def edit_call(self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        channels, rank = call.outputs[0], len(call.output_shapes[0])
        if channels.axis is None:
            return args, kwargs
        positions = np.flatnonzero(alive[channels.ids])
        for key, constant in self._constants(call.node.call_args, call.node.call_kwargs):
            axis = channels.axis - rank + constant.ndim
            if axis >= 0 and constant.shape[axis] > 1:
                cut = np.take(constant, positions, axis=axis)
                own_value = args[key] if isinstance(key, int) else kwargs[key]
                # Numbers without a type of their own take that of the tensor that they meet.
                cut = tf.constant(cut) if tf.is_tensor(own_value) else cut.tolist()
                if isinstance(key, int):
                    args = (*args[:key], cut, *args[key + 1 :])
                else:
                    kwargs = {**kwargs, key: cut}
        return args, kwargs

    @staticmethod
    def _constants(args: Any, kwargs: dict[str, Any]) -> list[tuple[int | str, np.ndarray]]:
        entries: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        return [
            (key, np.asarray(value))
            for key, value in entries
            if isinstance(value, np.ndarray)
            or (tf.is_tensor(value) and not _is_keras_tensor(value))
            or (isinstance(value, list | tuple) and _holds_numbers(value))
        ]


@operator("concat", "keras.backend.concatenate")
class ConcatOperator(LayerHandler):
    """Strings channels together, or ties them where another axis is joined."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return concatenate(call, int(own(call, 1, "axis")) % len(call.input_shapes[0]))


@operator("transpose", "expand_dims", "squeeze", "stack", "nn.depth_to_space", "nn.space_to_depth", "tile")
class MovementOperator(LayerHandler):
    """Moves data, and none of its arguments counts channels."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return move(call)


@operator("repeat")
class RepeatOperator(MovementOperator):
    """As often everywhere; a count for each position would have to be cut with the channels."""

    def flow(self, call: LayerCall) -> list[Channels]:
        repeats = own(call, 1, "repeats")
        if tf.is_tensor(repeats) or np.ndim(repeats):
            return call.opaque(f"feeds {call.title}, which repeats each position in a number of its own")
        return super().flow(call)


@operator("nn.local_response_normalization", "nn.lrn", "clip_by_norm", "clip_by_global_norm")
class NormOperator(LayerHandler):
    """Divides by a norm over channels, where it is large: probing with small values would not see it."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return call.opaque(f"feeds {call.title}, which looks at several channels together")


@operator("shape")
class ShapeOperator(LayerHandler):
    """The shape of a tensor: it follows a cut by itself."""

    def flow(self, call: LayerCall) -> list[Channels]:
        return [Channels.none()]


@operator("reshape")
class ReshapeOperator(LayerHandler):
    """The target shape holds the size of the channel axis."""

    def flow(self, call: LayerCall) -> list[Channels]:
        if call.inputs[0].axis is None:
            return [Channels.none()] if len(call.output_shapes[0]) < 2 else call.opaque(f"feeds {call.title}")
        if _is_keras_tensor(own(call, 1, "shape")):
            return call.opaque(f"feeds {call.title}, whose target shape is computed")
        return move(call)

    def edit_call(self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        channels, shape = call.outputs[0], argument(args, kwargs, 1, "shape")
        if channels.axis is None:
            return args, kwargs
        shape = list(shape) if isinstance(shape, list | tuple) else np.asarray(shape).tolist()
        entry = shape[channels.axis]
        if not tf.is_tensor(entry) and int(entry) != -1:
            shape[channels.axis] = int(alive[channels.ids].sum())
        return replaced(args, kwargs, 1, "shape", shape)


@operator("split")
class SplitOperator(LayerHandler):
    """Each part along the channels keeps at least one; sizes become explicit."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels, rank = call.inputs[0], len(call.input_shapes[0])
        axis = own(call, 2, "axis", 0)
        if channels.axis is None or _is_keras_tensor(axis) or _is_keras_tensor(own(call, 1, "num_or_size_splits")):
            return call.opaque(f"feeds {call.title}, whose parts are computed")
        axis = int(axis) % rank
        if channels.axis != axis:
            return [channels] * len(call.output_shapes)
        bounds = np.cumsum([shape[axis] for shape in call.output_shapes])[:-1]
        parts = np.split(channels.ids, bounds)
        call.space.partition(parts)
        call.record.facts["along_channels"] = True
        return [Channels(axis, part) for part in parts]

    def edit_call(self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        if not call.record.facts.get("along_channels"):
            return args, kwargs
        sizes = [int(alive[part.ids].sum()) for part in call.outputs]
        return replaced(args, kwargs, 1, "num_or_size_splits", sizes)


@operator("pad")
class PadOperator(LayerHandler):
    """Padding along the channels brings in channels of its own (a ResNet's parameter-free shortcut)."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels, paddings = call.inputs[0], own(call, 1, "paddings")
        if channels.axis is None or any(map(_is_keras_tensor, tf.nest.flatten(paddings))):
            return call.opaque(f"feeds {call.title}, whose paddings are computed")
        before, after = (int(count) for count in np.asarray(paddings)[channels.axis])
        if before == after == 0:
            return [channels]
        if str(own(call, 2, "mode", "CONSTANT")).upper() != "CONSTANT":
            return call.opaque(f"feeds {call.title}, which mirrors channels")
        fresh = call.mint("pad", before + after)
        return [Channels(channels.axis, np.concatenate([fresh[:before], channels.ids, fresh[before:]]))]

    def edit_call(self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        channels = call.outputs[0]
        if "pad" not in call.record.roles:
            return args, kwargs
        paddings = np.asarray(own(call, 1, "paddings")).copy()
        before = int(paddings[channels.axis][0])
        fresh = alive[call.record.roles["pad"]]
        paddings[channels.axis] = [int(fresh[:before].sum()), int(fresh[before:].sum())]
        return replaced(args, kwargs, 1, "paddings", paddings.tolist())


@operator("__operators__.getitem")
class GetItemOperator(LayerHandler):
    """``x[..., a:b]`` along the channels: the part and the rest become separate groups."""

    def flow(self, call: LayerCall) -> list[Channels]:
        channels = call.inputs[0]
        if channels.axis is None:
            return [Channels.none()] * len(call.output_shapes)
        entry, _ = self._entry(call)
        if any(_is_keras_tensor(part) for part in tf.nest.flatten(own(call, 1, "slice_spec"))):
            return call.opaque(f"feeds {call.title}, whose bounds are computed")
        if entry is None:
            return move(call)
        if not isinstance(entry, dict):
            return call.opaque(f"feeds {call.title}, which takes one channel by its number")
        size = len(channels)
        start, stop, step = slice(entry["start"], entry["stop"], entry["step"]).indices(size)
        if (start, stop, step) == (0, size, 1):
            return move(call)
        if step == 1:
            call.space.partition(
                [part for part in (channels.ids[:start], channels.ids[start:stop], channels.ids[stop:]) if len(part)]
            )
        elif step > 1 and start < step and stop == size and size % step == 0:
            # Whole periods go, so that every step-th channel stays every step-th.
            periods = channels.ids.reshape(-1, step).T
            for other in periods[1:]:
                call.space.tie(periods[0], other)
        else:
            return call.opaque(f"feeds {call.title}, which takes channels in an irregular step")
        return move(call)

    def edit_call(self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        channels = call.inputs[0]
        if channels.axis is None:
            return args, kwargs
        entry, position = self._entry(call)
        if not isinstance(entry, dict):
            return args, kwargs
        start, stop, step = slice(entry["start"], entry["stop"], entry["step"]).indices(len(channels))
        if step != 1 or (start, stop) == (0, len(channels)):
            return args, kwargs
        counts = np.concatenate([[0], np.cumsum(alive[channels.ids])])
        new = {"start": int(counts[start]), "stop": int(counts[stop]), "step": None}
        spec = own(call, 1, "slice_spec")
        if isinstance(spec, tuple | list):
            spec = tuple(new if index == position else part for index, part in enumerate(spec))
        else:
            spec = new
        return replaced(args, kwargs, 1, "slice_spec", spec)

    @staticmethod
    def _entry(call: LayerCall) -> tuple[Any, int]:
        """The part of the slice spec that falls on the channel axis, and its position; None: all of it."""
        spec = own(call, 1, "slice_spec")
        parts = list(spec) if isinstance(spec, tuple | list) else [spec]
        rank, axis = len(call.input_shapes[0]), call.inputs[0].axis
        assert axis is not None
        consumed = sum(part is not Ellipsis and part is not None for part in parts)
        at = 0
        for position, part in enumerate(parts):
            if part is None:
                continue
            if part is Ellipsis:
                at += rank - consumed
                if at > axis:
                    return None, position
                continue
            if at == axis:
                return part, position
            at += 1
        return None, -1
