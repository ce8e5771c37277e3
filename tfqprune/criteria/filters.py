"""The filters of a group: for each of its layers an array with one row per unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfqprune import precision
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.errors import CriterionError
from tfqprune.layers import LayerRecord
from tfqprune.layers.base import weight_index


@dataclass(frozen=True)
class Filters:
    """One kernel's filters as far as they belong to one group.

    Attributes:
        record: the layer.
        weight: the kernel's attribute name, or position in ``layer.weights``.
        axis: the kernel's axis of output channels.
        positions: where along that axis the group's channels are, ordered by slot.
        slots: the group's slots that have filters here, ascending.
        owner: for each position the index of its slot in ``slots``.
        size: number of units of the group.
    """

    record: LayerRecord
    weight: str | int
    axis: int
    positions: np.ndarray
    slots: np.ndarray
    owner: np.ndarray
    size: int

    def latent(self) -> np.ndarray:
        """Latent weights ``[units, weights]``. The filters of a unit that has several stand in one row."""
        return self.rows(latent_kernel(self.record, self.weight))

    def deployed(self) -> np.ndarray:
        """Deployed weights ``[units, weights]``."""
        return self.rows(deployed_kernel(self.record, self.weight))

    def codes(self) -> tuple[np.ndarray, float]:
        """Deployed weights as codes ``[units, weights]``, and the largest size a code can have.

        Where the kernel has no code book (float kernels), the deployed values and the largest of them.
        """
        found = precision.codes(self.record.layer, self.weight) if isinstance(self.weight, str) else None
        if found is None:
            values = self.deployed().astype(np.float64)
            return values, float(np.abs(values).max(initial=0.0)) or 1.0
        largest = max(int(np.abs(found.integers).max()), 1)
        return self.rows(found.integers).astype(np.float64), float(largest)

    def spread(self, scores: np.ndarray) -> np.ndarray:
        """Scores of ``slots`` as an array over all units of the group, NaN elsewhere."""
        result = np.full(self.size, np.nan)
        result[self.slots] = scores
        return result

    def rows(self, kernel: np.ndarray) -> np.ndarray:
        """An array of the kernel's shape as ``[units, weights]``."""
        # Channels are last nearly always: the transposed array is a view then, and no weight is copied.
        rows = np.moveaxis(kernel, self.axis, -1).reshape(-1, kernel.shape[self.axis]).T
        if not np.array_equal(self.positions, np.arange(len(rows))):
            rows = rows[self.positions]
        counts = np.bincount(self.owner, minlength=len(self.slots))
        if (counts == 1).all():
            return rows
        # A unit may stand for several channels (grouped convolutions): its filters go side by side, the
        # few that have fewer of them are filled up with zeros.
        wide = np.zeros((len(self.slots), int(counts.max()), rows.shape[1]), rows.dtype)
        start = np.concatenate([[0], np.cumsum(counts)[:-1]])
        wide[self.owner, np.arange(len(rows)) - start[self.owner]] = rows
        return wide.reshape(len(self.slots), -1)


def latent_kernel(record: LayerRecord, weight: str | int) -> np.ndarray:
    """The float variable behind a weight."""
    return precision.variable_value(record.layer.weights[weight_index(record.layer)[weight]])


def deployed_kernel(record: LayerRecord, weight: str | int) -> np.ndarray:
    """What the layer multiplies with."""
    if isinstance(weight, str):
        return precision.quantize(precision.weight_quantizer(record.layer, weight), latent_kernel(record, weight))
    return latent_kernel(record, weight)


def kernels(record: LayerRecord) -> Iterator[tuple[str | int, int, np.ndarray]]:
    """The kernels of a layer that produce or filter channels: weight, axis of these channels, their ids.

    A depthwise kernel counts, too: its filters belong to the channels that it reads.
    """
    for weight in record.reuse:
        axes = record.weight_axes[weight]
        if "out" in axes:
            yield weight, axes.index("out"), record.roles["out"]
            continue
        for axis, role in enumerate(axes):
            if role and passes_on(record, role):
                yield weight, axis, record.roles[role]


def passes_on(record: LayerRecord, role: str) -> bool:
    """Whether what comes out are the very channels of a role, as in a depthwise convolution.

    Their ids tell, not their units: a residual sum may tie what a convolution reads to what it puts out.
    """
    return "out" in record.roles and np.array_equal(np.unique(record.roles["out"]), np.unique(record.roles[role]))


def members(graph: ChannelGraph, group: ChannelGroup) -> Iterator[Filters]:
    """The kernels whose filters belong to a group's units."""
    for name in group.layers:
        record = graph.records.get(name)
        if record is None:  # channels that a model input brings in
            continue
        for weight, axis, ids in kernels(record):
            number, slot = graph.units(ids)
            positions = np.flatnonzero(number == group.index)
            if len(positions):
                positions = positions[np.argsort(slot[positions], kind="stable")]
                slots, owner = np.unique(slot[positions], return_inverse=True)
                yield Filters(record, weight, axis, positions, slots, owner, group.size)


def check_weights(graph: ChannelGraph) -> None:
    """Checks that all weights of the model are finite.

    Raises:
        CriterionError: names the first layer and weight that hold NaN or infinity.
    """
    for record in graph.records.values():
        for variable in record.layer.weights:
            if bad := precision.broken_values(variable):
                raise CriterionError(
                    f"Expected finite weights. Received: {bad} of {np.prod(variable.shape)} values that are NaN or "
                    f"infinite in {variable.name!r} of layer {record.name!r}. Train or load the model anew before "
                    "scoring it."
                )
