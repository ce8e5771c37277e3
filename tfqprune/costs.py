"""What a model costs, and what it would cost under a plan, without building the slim model.

Counts follow ``larq.models.summary``: a batch norm counts two floats a channel (what is left once
it is folded), a multiply-accumulate (MAC) is one multiplication with the addition behind it, and
memory is counted at the deployed precision. BOPs are MACs x weight bits x activation bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.errors import ModelTypeError
from tfqprune.layers.base import LayerRecord, bits_of, weight_index
from tfqprune.layers.normalization import ScaleHandler, is_batch_norm
from tfqprune.plan import PruningPlan, checked_removal

COSTS = ("params", "macs", "bops", "memory")


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer: counts, and memory in bytes at deployed precision."""

    name: str
    type: str
    params: int
    macs: int
    bops: int
    memory: float
    weight_bits: int
    input_bits: int


@dataclass(frozen=True)
class Cost:
    """Cost of a model.

    Attributes:
        params: weights, batch norms counted as two a channel.
        macs: multiply-accumulates for one sample.
        bops: the same, times weight bits and activation bits.
        memory: bytes of all weights at deployed precision.
        layers: the same for each layer that has weights.
    """

    params: int
    macs: int
    bops: int
    memory: float
    layers: tuple[LayerCost, ...] = field(repr=False)

    def __getitem__(self, name: str) -> float:
        """A cost by its name: params, macs, bops or memory."""
        return float(getattr(self, name))

    def as_dict(self) -> dict[str, float]:
        """The totals by name."""
        return {name: self[name] for name in COSTS}


@dataclass(frozen=True)
class _Terms:
    """One entry a weight: size = constant x kept[first] x kept[second], where kept counts channels that stay.

    ``first`` and ``second`` are rows of :attr:`CostModel.channels`; -1: no such axis.
    """

    layer: np.ndarray
    constant: np.ndarray
    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray
    reuse: np.ndarray
    product_bits: np.ndarray
    counted: np.ndarray


class CostModel:
    """Costs as a function of the units that stay; microseconds a call.

    Every weight's size is a constant times the number of kept channels along one or two axes, so
    a plan costs two sparse products, whatever the size of the network.

    Args:
        graph: the channel graph of the model.

    Raises:
        ModelTypeError: (from ``macs``) the model's input has no fixed size.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.records = [record for record in graph.records.values() if record.layer.weights]
        role_rows: list[np.ndarray] = []
        entries: list[tuple[int, float, int, int, int, float, int, bool]] = []
        for number, record in enumerate(self.records):
            layer, index = record.layer, weight_index(record.layer)
            quantised = precision.quantized_weights(layer)
            axes = {index[name]: (name, roles) for name, roles in record.weight_axes.items()}
            inner, rows = _bits_inside(layer), {}
            for position, variable in enumerate(layer.weights):
                name, roles = axes.get(position, (position, (None,) * len(variable.shape)))
                if isinstance(name, int):
                    name = variable.name.split("/")[-1].split(":")[0]
                used = [role for role in roles if role]
                for role in used:
                    if role not in rows:
                        rows[role] = len(role_rows)
                        role_rows.append(graph.unit_index(record.roles[role]))
                fixed = [size for size, role in zip(variable.shape, roles, strict=True) if not role]
                times = record.reuse.get(name, 0)
                reuse = float("nan") if times is None else float(times)
                bits = inner.get(position) or bits_of(layer, name if name in quantised else position)
                entries.append(
                    (
                        number,
                        float(np.prod(fixed, dtype=np.float64)),
                        rows[used[0]] if used else -1,
                        rows[used[1]] if len(used) > 1 else -1,
                        bits,
                        reuse,
                        bits * precision.input_bits(layer),
                        not (is_batch_norm(layer) and name in _folded(layer)),
                    )
                )
        _warn_of_unknown(self.records)
        columns = list(zip(*entries, strict=True)) if entries else [()] * 8
        types = (int, float, int, int, int, float, int, bool)
        self.terms = _Terms(*(np.asarray(column, dtype) for column, dtype in zip(columns, types, strict=True)))
        indptr = np.cumsum([0, *(len(row) for row in role_rows)])
        indices = np.concatenate(role_rows) if role_rows else np.empty(0, np.int64)
        #: for each index set of channels that weights run along, which units it counts: [index sets, units]
        self.channels = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(role_rows), graph.unit_count))

    def sizes(self, alive: np.ndarray | None = None) -> np.ndarray:
        """Number of values of each weight when only the units in ``alive`` (bool [units]) stay."""
        if alive is None:
            alive = np.ones(self.graph.unit_count)
        # The last entry, 1, stands for "no further channel axis" (index -1).
        kept = np.append(self.channels @ alive.astype(np.float64), 1.0)
        terms = self.terms
        return terms.constant * kept[terms.first] * kept[terms.second]

    def totals(self, alive: np.ndarray | None = None) -> dict[str, float]:
        """Costs by name under a bool array over the graph's units (None: nothing removed)."""
        sizes, terms = self.sizes(alive), self.terms
        if not len(sizes):
            return dict.fromkeys(COSTS, 0.0)
        counted, macs = sizes * terms.counted, sizes * terms.reuse
        return {
            "params": float(counted.sum()),
            "macs": float(macs.sum()),
            "bops": float((macs * terms.product_bits).sum()),
            "memory": float((counted * terms.bits).sum() / 8),
        }

    def cost(self, alive: np.ndarray | None = None) -> Cost:
        """The full cost with its layers.

        Raises:
            ModelTypeError: the model's input has no fixed size, so multiplications cannot be counted.
        """
        sizes, terms = self.sizes(alive), self.terms
        layers = []
        if len(sizes) and np.isnan(terms.reuse).any():
            raise ModelTypeError(
                f"Expected a model with a fixed input size, to count its multiplications. Received: "
                f"{self.graph.model.name!r} with input {self.graph.model.input_shape}. "
                "Build it with a full input_shape, the one it will be deployed with."
            )
        for number, record in enumerate(self.records):
            mine = terms.layer == number
            counted, macs = sizes[mine] * terms.counted[mine], sizes[mine] * terms.reuse[mine]
            kernel = terms.bits[mine][terms.reuse[mine] > 0]
            layers.append(
                LayerCost(
                    record.name,
                    type(record.layer).__name__,
                    round(counted.sum()),
                    round(macs.sum()),
                    round((macs * terms.product_bits[mine]).sum()),
                    float((counted * terms.bits[mine]).sum() / 8),
                    int(kernel.max()) if len(kernel) else 32,
                    precision.input_bits(record.layer),
                )
            )
        return Cost(
            sum(layer.params for layer in layers),
            sum(layer.macs for layer in layers),
            sum(layer.bops for layer in layers),
            sum(layer.memory for layer in layers),
            tuple(layers),
        )


def _bits_inside(layer: tf.keras.layers.Layer) -> dict[int, int]:
    """Position in ``layer.weights`` -> bits of the kernels that layers inside of it quantise."""
    positions = {id(variable): position for position, variable in enumerate(layer.weights)}
    return {
        positions[id(variable)]: bits_of(part, weight)
        for part in layer._flatten_layers(include_self=False)
        for weight in precision.quantized_weights(part)
        if id(variable := part.weights[weight_index(part)[weight]]) in positions
    }


def _warn_of_unknown(records: Sequence[LayerRecord]) -> None:
    """Names the layers whose multiplications are not counted, for want of knowing what they do with their kernels."""
    unknown = [
        f"{record.name!r} ({type(record.layer).__name__})"
        for record in records
        if not (record.weight_axes or isinstance(record.handler, ScaleHandler))
        and any(len(variable.shape) > 1 for variable in record.layer.weights)
    ]
    if unknown:
        warnings.warn(
            f"Expected layers whose multiplications are known. Received: {', '.join(unknown)}, which count as none: "
            "MACs and BOPs leave them out. Weigh a budget of macs accordingly, or give one of memory or params.",
            stacklevel=3,
        )


def _folded(layer: tf.keras.layers.Layer) -> set[str]:
    """Weights of a batch norm that vanish once it is one scale and one offset (as larq counts)."""
    folded = set()
    if layer.beta is not None:
        folded.add("beta")
    if layer.gamma is not None:
        folded.add("gamma")
    return folded


def cost(model: tf.keras.Model, plan: PruningPlan | Mapping[str, tuple[int, ...]] | None = None) -> Cost:
    """Parameters, MACs, BOPs and memory of a model, per layer and in total.

    Agrees with ``larq.models.summary``, and 2 x MACs with the FLOPs that TensorFlow's profiler
    counts for kernels (it adds biases and pooling). It differs from larq in a transposed convolution
    (each input pixel meets the kernel once; larq counts output pixels), a layer called several times
    (counted each time), channels-first and 3-D layers, half-precision weights (16 bits), and batch norms
    of TensorFlow 1 (folded) or with a ``call`` of the user's own (not folded).

    Args:
        model: a functional or sequential tf_keras model with a fixed input size.
        plan: count the slim model that this plan, or ``plan.removed``, leads to instead (it is not built).

    Raises:
        ModelTypeError: no graph model, or its input has no fixed size.
        PlanError: it is no plan, or was made for another model.
    """
    graph = ChannelGraph(model)
    return CostModel(graph).cost(None if plan is None else graph.alive_units(checked_removal(graph, plan)))
