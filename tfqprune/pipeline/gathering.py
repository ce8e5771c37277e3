"""Turns what a run left behind (graph, plans, costs, files on disk) into the plain rows of a report."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.allocation.records import TrialRecord, pareto_front
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.models import feed, is_graph_model, nodes
from tfqprune.plan import PruningPlan
from tfqprune.report import CurveRow, GroupRow, LayerRow, NodeRow, TrialRow

# Metrics of a trial that are costs.
_COSTS = ("params", "macs", "bops", "memory", "tflite_bytes", "latency")


def group_rows(
    graph: ChannelGraph, plans: Mapping[str, PruningPlan], excluded: Collection[str] = ()
) -> tuple[GroupRow, ...]:
    """The channel groups, with the units that each plan keeps; those that the user excluded say so."""
    return tuple(
        GroupRow(
            group.name,
            group.size,
            {name: len(plan.kept[group.name]) for name, plan in plans.items()},
            group.layers,
            group.frozen or ("excluded by the user" if group.name in excluded else None),
        )
        for group in graph.groups
    )


def layer_rows(
    graph: ChannelGraph, costs: CostModel, original: str, plans: Mapping[str, PruningPlan]
) -> tuple[LayerRow, ...]:
    """Bytes of every layer with weights at deployed precision, before and under each plan.

    Nothing where the input has no fixed size.
    """
    if not all(map(math.isfinite, costs.totals().values())):
        return ()  # the input has no fixed size, and costs by layer want one
    totals = {original: costs.cost()}
    totals |= {name: costs.cost(plan.alive_units(graph)) for name, plan in plans.items()}
    return tuple(
        LayerRow(
            layer.name,
            {name: total.layers[index].memory for name, total in totals.items()},
            layer.type,
            layer.weight_bits,
        )
        for index, layer in enumerate(totals[original].layers)
    )


def node_rows(graph: ChannelGraph) -> tuple[NodeRow, ...]:
    """The network as a picture needs it: inputs, layers that make or join channels, and those that nobody knows.

    Layers through which channels only pass (batch norms, activations, pooling) are left out; nested models are
    walked through; a layer that is called again stands there again, numbered.
    """
    rows: dict[str, NodeRow] = {}
    makers = {layer for group in graph.groups for layer in group.layers}

    def add(name: str, sources: Iterable[str], groups: Iterable[str], layer: Any, why: str | None = None) -> str:
        unique, number = name, 2
        while unique in rows:
            unique, number = f"{name} ({number})", number + 1
        rows[unique] = NodeRow(unique, tuple(sources), tuple(groups), type(layer).__name__, why)
        return unique

    def walk(model: tf.keras.Model, fed: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        table = {id(tensor): sources for tensor, sources in zip(model.inputs, fed, strict=True)}
        for node in nodes(model):
            sources = [table[id(tensor)] for tensor in node.keras_inputs]
            if is_graph_model(node.layer):
                outputs = walk(node.layer, [table[id(tensor)] for tensor in feed(node.layer, node)])
            else:
                call = graph.calls[id(node)]
                merged = tuple(dict.fromkeys(source for several in sources for source in several))
                if call.name in makers or call.record.opaque is not None or len(merged) > 1:
                    numbers = [graph.units(channels.ids)[0].tolist() for channels in call.outputs]
                    groups = dict.fromkeys(graph.groups[n].name for found in numbers for n in found)
                    merged = (add(call.name, merged, groups, call.layer, call.record.opaque),)
                outputs = [merged] * len(call.outputs)
            for tensor, found in zip(tf.nest.flatten(node.outputs), outputs, strict=True):
                table[id(tensor)] = found
        return [table[id(tensor)] for tensor in model.outputs]

    inputs: list[tuple[str, ...]] = []
    for tensor in graph.model.inputs:
        layer = tensor._keras_history.layer
        mine = [group.name for group in graph.groups if layer.name in group.layers]
        inputs.append((add(layer.name, (), mine, layer),))
    walk(graph.model, inputs)
    return tuple(rows.values())


def read_trials(file: Path) -> tuple[TrialRow, ...]:
    """The trials that a ratio search left on disk, with their Pareto fronts; none where there was no search."""
    if not file.exists():
        return ()
    records = [TrialRecord(**record) for record in json.loads(file.read_text(encoding="utf-8"))]
    fronts = {cost: {record.trial for record in pareto_front(records, cost)} for cost in _COSTS}
    return tuple(
        TrialRow(
            number,
            record.value,
            {cost: record.metrics[cost] for cost in _COSTS if cost in record.metrics},
            record.ratios,
            record.status == "COMPLETED",
            record.metrics.get("seconds"),
            tuple(cost for cost, front in fronts.items() if record.trial in front),
            record.message,
        )
        for number, record in enumerate(records, start=1)
    )


def read_curves(file: Path) -> tuple[tuple[CurveRow, ...], float | None]:
    """The sensitivity curves that an allocator left on disk, and the value that they begin at."""
    if not file.exists():
        return (), None
    curves = SensitivityCurves.load(file)
    rows = tuple(
        CurveRow(
            name,
            tuple(curves.ratios[name]),
            tuple(value if math.isfinite(value) else None for value in values),
        )
        for name, values in curves.values.items()
    )
    return rows, curves.baseline
