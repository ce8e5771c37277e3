"""The channel graph: which channels of which layers live and die together.

Ids flow through the model (``tfqprune.layers``); connected components of tied ids are the units,
and units that are produced by the same layers and frozen for the same reasons form a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tfqprune.layers import Channels, ChannelSpace, LayerCall, LayerRecord, choose_handler
from tfqprune.models import Shape, check_model, feed, is_graph_model, nodes, shapes_within


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several tensors that must live or die together.

    Attributes:
        name: the name of the first layer that produces its channels; with ``[n]`` behind it where
            that layer's channels fall into several groups.
        size: number of units, the removable slots.
        layers: names of the layers whose filters are its units.
        frozen: None, or the reason why nothing may be removed.
        index: its number in the graph.
        width: channels of each producing tensor that one unit stands for (more than 1 for
            grouped convolutions), by layer.
    """

    name: str
    size: int
    layers: tuple[str, ...]
    frozen: str | None
    index: int
    width: dict[str, int]


class ChannelGraph:
    """The channel groups of a functional or sequential tf_keras model.

    Args:
        model: the model; it is only read.

    Attributes:
        groups: all groups in the order of the model, the frozen ones with their reason.
        records: what is known of each layer, by the layer's name.
        calls: every layer call in order, by the identity of its node.

    Raises:
        ModelTypeError: not a model with a graph of legacy Keras layers.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self.model = check_model(model)
        self.space = ChannelSpace()
        self.records: dict[str, LayerRecord] = {}
        self.calls: dict[int, LayerCall] = {}
        #: channels of the inputs of nested models, by the identity of the model
        self.nested_inputs: dict[int, list[Channels]] = {}
        self._names: dict[int, str] = {}
        inputs = [self._input(tensor) for tensor in model.inputs]
        outputs = self._walk(model, inputs, [tuple(tensor.shape) for tensor in model.inputs], "")
        for tensor, channels in zip(model.outputs, outputs, strict=True):
            self.space.freeze(channels.ids, f"model output '{tensor._keras_history.layer.name}'")
        self._find_units()
        self.groups = self._find_groups()
        self._by_name = {group.name: group for group in self.groups}

    # -- the walk -----------------------------------------------------------------------------

    def _input(self, tensor: tf.Tensor) -> Channels:
        shape = tuple(tensor.shape)
        if len(shape) < 2:
            return Channels.none()
        axis = len(shape) - 1
        name = tensor._keras_history.layer.name
        if shape[axis] is None:
            return Channels.none()
        return Channels(axis, self.space.mint_frozen(shape[axis], name, f"model input '{name}'"))

    def _walk(self, model: tf.keras.Model, inputs: list[Channels], given: list[Shape], prefix: str) -> list[Channels]:
        table = {id(tensor): channels for tensor, channels in zip(model.inputs, inputs, strict=True)}
        shapes = shapes_within(model, given)
        for node in nodes(model):
            sources = [table[id(tensor)] for tensor in node.keras_inputs]
            if is_graph_model(node.layer):
                fed = [id(tensor) for tensor in feed(node.layer, node)]
                outputs = self._nested(node, [table[i] for i in fed], [shapes[i] for i in fed], prefix)
            else:
                outputs = self._call(node, sources, shapes, prefix)
            for tensor, channels in zip(tf.nest.flatten(node.outputs), outputs, strict=True):
                table[id(tensor)] = channels
        return [table[id(tensor)] for tensor in model.outputs]

    def _nested(self, node: Any, inputs: list[Channels], given: list[Shape], prefix: str) -> list[Channels]:
        inner = node.layer
        if id(inner) in self.nested_inputs:
            for first, again in zip(self.nested_inputs[id(inner)], inputs, strict=True):
                if len(first.ids) == len(again.ids):
                    self.space.tie(first.ids, again.ids)
                    continue
                for ids in (first.ids, again.ids):
                    self.space.freeze(
                        ids, f"feeds '{prefix}{inner.name}', which is called on several numbers of channels"
                    )
        else:
            self.nested_inputs[id(inner)] = inputs
        return self._walk(inner, inputs, given, f"{prefix}{inner.name}/")

    def _call(self, node: Any, inputs: list[Channels], shapes: dict[int, Shape], prefix: str) -> list[Channels]:
        layer = node.layer
        name = self._names.setdefault(id(layer), prefix + layer.name)
        record = self.records.get(name)
        if record is None:
            record = self.records[name] = LayerRecord(layer, name, choose_handler(layer))
        call = LayerCall(
            record,
            node,
            self.space,
            inputs,
            [shapes[id(tensor)] for tensor in node.keras_inputs],
            [shapes[id(tensor)] for tensor in tf.nest.flatten(node.outputs)],
        )
        call.outputs = record.handler.flow(call) if record.opaque is None else call.opaque(record.opaque)
        if not call.fits(call.outputs):
            call.outputs = call.opaque(f"feeds {call.title}, whose output has other channels than its handler knows")
        self.calls.setdefault(id(node), call)
        return call.outputs

    # -- units and groups ---------------------------------------------------------------------

    def _find_units(self) -> None:
        space = self.space
        first = np.concatenate([pair[0] for pair in space.ties]) if space.ties else np.empty(0, np.int64)
        second = np.concatenate([pair[1] for pair in space.ties]) if space.ties else np.empty(0, np.int64)
        edges = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(space.size, space.size))
        count, component = connected_components(edges, directed=False)
        # Number components by their first id, so that units come in the order of the model.
        order = np.full(count, space.size, np.int64)
        np.minimum.at(order, component, np.arange(space.size))
        rank = np.empty(count, np.int64)
        rank[np.argsort(order, kind="stable")] = np.arange(count)
        self._component: np.ndarray = rank[component]
        self._components = count

    def _find_groups(self) -> list[ChannelGroup]:
        space, component = self.space, self._component
        marks = [
            *(
                (np.arange(start, start + count), ("made", index))
                for index, (start, count, _) in enumerate(space.blocks)
            ),
            *((ids, ("frozen", reason)) for ids, reason in space.frozen),
            *(
                (part, ("part", index, number))
                for index, parts in enumerate(space.partitions)
                for number, part in enumerate(parts)
            ),
        ]
        label = self._refined([ids for ids, _ in marks])
        first = np.unique(label, return_index=True)[1]
        marked: list[list[int]] = [[] for _ in first]
        for mark, (ids, _) in enumerate(marks):
            for index in np.unique(label[component[ids]]).tolist():
                marked[index].append(mark)
        self.group_of = label
        self.slot_of = np.empty(self._components, np.int64)
        groups: list[ChannelGroup] = []
        for index, signed in enumerate(marked):
            units = np.flatnonzero(label == index)
            self.slot_of[units] = np.arange(len(units))
            makers = [space.blocks[mark] for mark in signed if mark < len(space.blocks)]
            layers = tuple(dict.fromkeys(source for _, _, source in makers))
            reasons = list(dict.fromkeys(marks[mark][1][1] for mark in signed if marks[mark][1][0] == "frozen"))
            frozen = "; ".join(str(reason) for reason in reasons) or None
            if frozen is None and len(units) == 1:
                frozen = "its only unit: no group loses its last one"
            width = {
                source: int(np.count_nonzero(component[start : start + count] == units[0]))
                for start, count, source in makers
            }
            groups.append(ChannelGroup(layers[0], len(units), layers, frozen, index, width))
        return self._with_depthwise(_numbered(groups))

    def _refined(self, sets: list[np.ndarray]) -> np.ndarray:
        """Splits the units until each set of ids holds all of a part or nothing of it.

        Returns:
            For each unit the number of its part; parts are numbered by their first unit.
        """
        label, parts = np.zeros(self._components, np.int64), 1
        for ids in sets:
            units = np.unique(self._component[ids])
            old, new = np.unique(label[units], return_inverse=True)
            label[units] = parts + new
            parts += len(old)
        _, first, label = np.unique(label, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[label]

    def _with_depthwise(self, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Adds layers that filter channels without producing new ones (depthwise convolutions)."""
        for record in self.records.values():
            if record.reuse and "out" in record.roles:
                ids = record.roles["out"]
                mine, counts = np.unique(self.group_of[self._component[ids]], return_counts=True)
                for number, count in zip(mine.tolist(), counts.tolist(), strict=True):
                    group = groups[number]
                    if record.name not in group.layers:
                        groups[number] = replace(
                            group,
                            layers=(*group.layers, record.name),
                            width={**group.width, record.name: count // group.size},
                        )
        return groups

    # -- look-ups -----------------------------------------------------------------------------

    def __getitem__(self, name: str) -> ChannelGroup:
        """A group by its name."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    @property
    def prunable(self) -> list[ChannelGroup]:
        """The groups that are not frozen."""
        return [group for group in self.groups if group.frozen is None]

    def none_prunable(self, otherwise: str = "") -> str:
        """What to say of a model with nothing to prune: each group and why it stays whole.

        Args:
            otherwise: the reason of groups that are not frozen.
        """
        whole = "; ".join(f"{group.name!r}: {group.frozen or otherwise}" for group in self.groups)
        return f"Expected a model with groups that can be pruned. Received: none ({whole or 'no groups'})."

    def units(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The group number and the slot within the group of each channel id."""
        unit = self._component[ids]
        return self.group_of[unit], self.slot_of[unit]

    def unit_index(self, ids: np.ndarray) -> np.ndarray:
        """The number of each channel id's unit, counted over the whole model."""
        return self._component[ids]

    def units_of(self, group: ChannelGroup) -> np.ndarray:
        """The numbers of a group's units, counted over the whole model, by slot."""
        mine = np.flatnonzero(self.group_of == group.index)
        return mine[np.argsort(self.slot_of[mine])]

    @property
    def unit_count(self) -> int:
        """Units of all groups together."""
        return self._components

    def alive_units(self, removed: dict[str, tuple[int, ...]]) -> np.ndarray:
        """Bool array over all units: False where a group's slot is removed."""
        alive = np.ones(self._components, bool)
        for name, slots in removed.items():
            if slots:
                gone = np.zeros(self._by_name[name].size, bool)
                gone[list(slots)] = True
                mine = self.group_of == self._by_name[name].index
                alive[mine] = ~gone[self.slot_of[mine]]
        return alive

    def alive(self, removed: dict[str, tuple[int, ...]]) -> np.ndarray:
        """Bool array over all channel ids: False for what goes with the removed units."""
        return self.alive_units(removed)[self._component]


def _numbered(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Tells groups of the same first layer apart by a number behind its name."""
    total = Counter(group.name for group in groups)
    seen: Counter[str] = Counter()
    named = []
    for group in groups:
        number = seen[group.name]
        seen[group.name] += 1
        named.append(replace(group, name=f"{group.name}[{number}]") if total[group.name] > 1 else group)
    return named
