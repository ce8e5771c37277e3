"""What a layer handler is, and the registry of handlers.

A handler knows one family of layers. ``flow`` says how channel ids pass through a call and along
which axes the weights are indexed by them; ``resize`` says which entries of the config are channel
counts. Everything else (graph, plan, cost, masked and slim model) is derived from these two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import getattr_static, isfunction
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.errors import ModelTypeError
from tfqprune.layers.space import Channels, ChannelSpace

Axes = tuple[str | None, ...]
Kept = Callable[[str], np.ndarray]  # role -> positions that stay, ascending
#: roles by which a kernel reads channels, as opposed to producing or scaling them
CONSUMED = frozenset({"in", "slot", "middle"})


@dataclass
class LayerRecord:
    """What the graph knows of one layer, over all its calls.

    Attributes:
        layer: the Keras layer.
        name: its name, with the names of enclosing nested models before it (``block/conv``).
        handler: its handler.
        roles: role name -> ids. A role is an index set of the layer's weights or config
            ("in": input channels, "out": output channels, ...).
        weight_axes: weight attribute (or position in ``layer.weights`` for unknown layers) ->
            role of each axis, None for an axis that is no channel axis.
        reuse: weight attribute -> how often each of its values is multiplied for one sample
            (summed over calls), None where the spatial size is unknown; only weights that count
            as multiply-accumulates (kernels) appear.
        mixed: for a layer that mixes channels by statistics (a layer norm), the ids it mixes:
            the masked model computes it over what stays instead of silencing slices of a kernel.
        opaque: why the layer is left as it is, or None.
        facts: whatever else ``flow`` found out that ``resize`` needs.
    """

    layer: tf.keras.layers.Layer
    name: str
    handler: LayerHandler
    roles: dict[str, np.ndarray] = field(default_factory=dict)
    weight_axes: dict[str | int, Axes] = field(default_factory=dict)
    reuse: dict[str | int, int | None] = field(default_factory=dict)
    mixed: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    opaque: str | None = None

    def clone(self, kept: Kept | None = None) -> tf.keras.layers.Layer:
        """A new layer like this one; with the channels that stay alone where ``kept`` says which.

        Raises:
            ModelTypeError: the layer cannot be made anew from its config.
        """
        try:
            config = self.layer.get_config()
            if kept is not None and self.opaque is None and self.roles:
                config = self.handler.resize(self, config, kept)
            return self.handler.clone(self.layer, config)
        except Exception as error:  # a user's layer may raise anything
            raise ModelTypeError(
                "Expected layers that can be made anew from their get_config(). Received: "
                f"{self.name!r} (of type {type(self.layer).__name__}): {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}. Give the class a get_config() that returns all arguments of "
                "its constructor, as numbers, strings, lists and dicts."
            ) from error


@dataclass
class LayerCall:
    """One call of a layer in the graph (a node).

    Attributes:
        record: the layer's record.
        node: the Keras node.
        space: where ids are minted, tied and frozen.
        inputs / input_shapes: channels and static shapes of the Keras tensors that go in, flat.
        output_shapes: static shapes of what comes out, flat.
        outputs: channels of what comes out; filled in by the graph after ``flow``.
        mixed: the channels that this call mixes by statistics; a shared layer's calls may mix different ones.
    """

    record: LayerRecord
    node: Any
    space: ChannelSpace
    inputs: list[Channels]
    input_shapes: list[tuple[int | None, ...]]
    output_shapes: list[tuple[int | None, ...]]
    outputs: list[Channels] = field(default_factory=list)
    mixed: Channels | None = None

    @property
    def layer(self) -> tf.keras.layers.Layer:
        return self.record.layer

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def title(self) -> str:
        """Name and type of the layer, for messages."""
        return f"'{self.name}' ({type(self.layer).__name__})"

    def role(self, role: str, ids: np.ndarray) -> np.ndarray:
        """Gives ids a role in the layer. A shared layer's later calls are tied to its first."""
        if role in self.record.roles:
            self.space.tie(self.record.roles[role], ids)
        else:
            self.record.roles[role] = ids
        return self.record.roles[role]

    def mint(self, role: str, count: int) -> np.ndarray:
        """Ids of the channels that the layer's own weights produce: the same in each of its calls."""
        if role not in self.record.roles:
            self.record.roles[role] = self.space.mint(count, self.name)
        return self.record.roles[role]

    def weight(self, name: str | int, axes: Axes, reuse: int | None = 0) -> None:
        """Says which role each axis of a weight is indexed by.

        Args:
            name: weight attribute, or its position in ``layer.weights``.
            axes: a role or None for each axis.
            reuse: multiplications per weight value and sample in this call; None if unknown.
        """
        self.record.weight_axes[name] = axes
        if reuse != 0:
            before = self.record.reuse.get(name, 0)
            self.record.reuse[name] = None if before is None or reuse is None else before + reuse

    def mixes(self, channels: Channels) -> None:
        """Says that the layer takes statistics over these channels (a layer norm, a tensor-wide scale)."""
        before = self.record.mixed
        self.record.mixed = channels.ids if before is None else np.concatenate([before, channels.ids])
        self.mixed = channels

    def reads_arrays(self) -> bool:
        """Whether arrays are among the inputs, beside the Keras tensors."""
        given = tf.nest.flatten((self.node.call_args, self.node.call_kwargs))
        return any(
            (isinstance(entry, np.ndarray) and entry.ndim > 0)
            or (tf.is_tensor(entry) and not tf.keras.backend.is_keras_tensor(entry) and entry.shape.rank != 0)
            for entry in given
        )

    def align(self, axis: int, index: int = 0) -> bool:
        """Whether an input's channels run along ``axis``.

        Which axis of a model's input (or of an opaque layer's output) holds the channels is only
        known when someone reads them; such a tensor is never cut, so it is read along any axis.
        """
        channels, shape = self.inputs[index], self.input_shapes[index]
        if channels.axis != axis and self.space.is_rigid(channels.ids) and 0 < axis < len(shape):
            size = shape[axis]
            if size is not None:
                reason = f"channels of {self.title}'s input, which is never cut"
                self.inputs[index] = Channels(axis, self.space.mint_frozen(size, self.name, reason))
        return self.inputs[index].axis == axis

    def read_across(self, axis: int, reason: str, index: int = 0) -> bool:
        """Freezes an input's channels and reads it along ``axis`` instead; False where its size there is unknown."""
        size = self.input_shapes[index][axis]
        if size is None:
            return False
        self.space.freeze(self.inputs[index].ids, reason)
        self.inputs[index] = Channels(axis, self.space.mint_frozen(size, self.name, reason))
        return True

    def fits(self, outputs: list[Channels]) -> bool:
        """Whether there are as many channels as Keras says: a handler may not know an option of its layer."""
        return len(outputs) == len(self.output_shapes) and all(
            channels.axis is None or (channels.axis < len(shape) and shape[channels.axis] in (None, len(channels)))
            for channels, shape in zip(outputs, self.output_shapes, strict=True)
        )

    def freeze_inputs(self, reason: str) -> None:
        for channels in self.inputs:
            self.space.freeze(channels.ids, reason)

    def opaque(self, reason: str) -> list[Channels]:
        """Freezes all that goes in, and gives what comes out channels of its own, frozen too."""
        self.freeze_inputs(reason)
        # Other calls of a shared layer must not cut it either.
        self.record.opaque = reason
        for ids in self.record.roles.values():
            self.space.freeze(ids, reason)
        outputs = []
        for shape in self.output_shapes:
            if len(shape) < 2 or shape[-1] is None:
                outputs.append(Channels.none())
                continue
            came = f"comes out of {self.title}, whose channels cannot be cut"
            outputs.append(Channels(len(shape) - 1, self.space.mint_frozen(shape[-1], self.name, came)))
        return outputs


class LayerHandler:
    """Base of all layer handlers: an unknown layer without weights is its default.

    Subclass it, override what differs, and decorate with ``@register_handler(LayerType, ...)``.
    ``tfqprune.testing.LayerHandlerConformance`` is a suite to subclass that checks the law slim(x) == masked(x).
    """

    def flow(self, call: LayerCall) -> list[Channels]:
        """How channel ids flow: returns the channels of each output tensor."""
        return call.opaque(f"feeds {call.title}, which tfqprune has no handler for")

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        """The layer's config with its channel counts replaced; ``kept(role)`` gives positions."""
        return config

    def edit_call(
        self, call: LayerCall, alive: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the slim layer's call, where channel counts are arguments (tf.split)."""
        return args, kwargs

    def clone(self, layer: tf.keras.layers.Layer, config: dict[str, Any]) -> tf.keras.layers.Layer:
        """A new layer of the same type from a (resized) config."""
        activation = getattr(layer, "activation", None)
        if isinstance(config.get("activation"), dict) and isfunction(activation):
            config = {**config, "activation": activation}  # one of the user's own, which has no name to find it by
        for name in ("input_quantizer", *precision.QUANTIZER_OF_WEIGHT.values()):
            quantizer = getattr(layer, name, None)
            if name in config and isfunction(quantizer):  # larq keeps its name alone
                config = {**config, name: quantizer}
        return type(layer).from_config(config)


_HANDLERS: dict[type, LayerHandler] = {}
#: methods that set up, describe or store a layer: a subclass that overrides them computes what its base computes
_SETS_UP = frozenset(
    {
        "build", "get_config", "from_config", "get_build_config", "build_from_config", "compute_output_shape",
        "compute_output_signature", "compute_mask", "count_params", "get_weights", "set_weights",
        "save_own_variables", "load_own_variables",
    }
)  # fmt: skip


def register_handler(*layer_types: type) -> Callable[[type[LayerHandler]], type[LayerHandler]]:
    """Class decorator: this handler is in charge of these layer types.

    Subclasses of theirs count, too, as long as they inherit what computes (``call`` and all it may rest on).
    """

    def register(handler: type[LayerHandler]) -> type[LayerHandler]:
        instance = handler()
        for layer_type in layer_types:
            _HANDLERS[layer_type] = instance
        return handler

    return register


def handler_for(layer: tf.keras.layers.Layer) -> LayerHandler | None:
    """The handler of a layer, or None where it has to be probed.

    A subclass of a known layer counts as known only while it inherits what computes: a different
    computation may move channels differently.
    """
    kind: type = type(layer)
    for known in kind.__mro__:
        if known in _HANDLERS:
            return _HANDLERS[known] if _computes_as(kind, known) else None
    return None


@cache
def _computes_as(kind: type, known: type) -> bool:
    """Whether a subclass has all methods of a known layer that ``call`` may rest on (``convolution_op``, for one)."""
    names = (name for name in dir(known) if name == "__call__" or not (name.startswith("__") or name in _SETS_UP))
    methods = ((name, getattr_static(known, name)) for name in names)
    return all(getattr_static(kind, name) is method for name, method in methods if hasattr(method, "__get__"))


def weight_index(layer: tf.keras.layers.Layer) -> dict[str | int, int]:
    """Weight attribute -> its position in ``layer.weights``; positions themselves are keys too."""
    variables = layer.weights
    index: dict[str | int, int] = {position: position for position in range(len(variables))}
    for position, variable in enumerate(variables):
        index[variable.name.split("/")[-1].split(":")[0]] = position
    return index


def bits_of(layer: tf.keras.layers.Layer, weight: str | int) -> int:
    """Bits of one deployed weight, by attribute name or position."""
    if isinstance(weight, str) and precision.weight_quantizer(layer, weight) is not None:
        return precision.weight_bits(layer, weight)
    return int(tf.as_dtype(layer.weights[weight_index(layer)[weight]].dtype).size) * 8


def channel_axis(layer: tf.keras.layers.Layer, rank: int) -> int:
    """The axis that the layer itself treats as channels (its ``data_format``)."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def pixels(shape: tuple[int | None, ...], channels: int) -> int | None:
    """Positions per sample apart from the channel axis; None where one is unknown."""
    sizes = [size for axis, size in enumerate(shape) if axis not in (0, channels)]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def resized(config: dict[str, Any], kept: Kept, sizes: dict[str, str]) -> dict[str, Any]:
    """The config with entries replaced by the number of kept positions of a role."""
    return {**config, **{key: len(kept(role)) for key, role in sizes.items()}}
