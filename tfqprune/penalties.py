"""Penalties that train a model towards units that can go: added to its loss, and read as strengths afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.criteria.filters import Filters, members
from tfqprune.errors import PlanError, real_number
from tfqprune.layers.base import weight_index
from tfqprune.layers.normalization import is_batch_norm

_TINY = 1e-12  # under roots, whose gradient at 0 is infinite


class SparsityPenalty(ABC):
    """A number that a model's loss is to hold, differentiable in its weights.

        penalty = GroupLasso(model, 1e-4)
        penalty.attach()
        tfqprune.finetune(model, ...)  # or compile and fit
        penalty.detach()
        plan = SlimmingAllocator(budget, strengths=penalty.strengths()).allocate(model, scores=penalty.strengths())

    Args:
        model: a functional or sequential tf_keras model; its own weights are looked at.
        strength: factor of the penalty, above 0.

    Raises:
        ModelTypeError: no graph model.
        PlanError: a strength that is not above 0, or a model without groups that the penalty can reach.
    """

    def __init__(self, model: tf.keras.Model, strength: float) -> None:
        self.model, self.strength = model, real_number("strength", strength, PlanError, above=0)
        self._factor = tf.Variable(0.0, trainable=False, name="strength")  # of the model's loss: 0 while detached
        self._loss: Any = None  # what the model has of it while attached
        self.graph = ChannelGraph(model)
        self._parts = self._find()
        if not self._parts:
            raise PlanError(
                f"Expected a model that {type(self).__name__} has something to say of. Received: "
                f"{model.name!r}, in which it finds nothing ({len(self.graph.prunable)} groups can be pruned)."
            )

    @abstractmethod
    def _find(self) -> dict[str, list[Any]]:
        """Group name -> what of it is looked at; groups without anything left out."""

    @abstractmethod
    def value(self) -> tf.Tensor:
        """The penalty without its factor, a scalar."""

    @abstractmethod
    def strengths(self) -> dict[str, np.ndarray]:
        """Group name -> what the penalty drives towards zero, one number a unit [units]."""

    def __call__(self) -> tf.Tensor:
        """What is added to the loss."""
        return self.strength * self.value()

    def attach(self) -> None:
        """Adds the penalty to the model's loss until :meth:`detach`; compile the model afterwards."""
        if self._loss is None:
            self.model.add_loss(lambda: self._factor * self.value())
            self._loss = self.model._callable_losses[-1]
        self._factor.assign(self.strength)

    def detach(self) -> None:
        """Takes it away again; the model can be saved in all formats then."""
        self._factor.assign(0.0)  # for functions that were traced with it
        if self._loss is not None:
            self.model._callable_losses.remove(self._loss)
            self._loss = None


class _FilterPenalty(SparsityPenalty):
    """A penalty on the norms of latent filters."""

    def _find(self) -> dict[str, list[Filters]]:
        found = {group.name: list(members(self.graph, group)) for group in self.graph.prunable}
        return {name: parts for name, parts in found.items() if parts}

    def _squares(self, filters: Filters) -> tf.Tensor:
        """The sum of squares of each unit's filters in one kernel [units]."""
        variable = filters.record.layer.weights[weight_index(filters.record.layer)[filters.weight]]
        kernel = tf.convert_to_tensor(getattr(variable, "latent_variable", variable))
        others = [axis for axis in range(kernel.shape.rank) if axis != filters.axis]
        squares = tf.gather(tf.reduce_sum(tf.square(tf.cast(kernel, tf.float32)), others), filters.positions)
        return tf.math.unsorted_segment_sum(squares, filters.slots[filters.owner], filters.size)


class GroupLasso(_FilterPenalty):
    """The L2 norms of the units, summed: each unit's over all its filters in all layers of its group.

    Yuan and Lin, "Model selection and estimation in regression with grouped variables", 2006; on filters of
    convolutions: Wen et al., arXiv 1608.03665. As there, each norm counts times the root of how many weights it is
    over. Ours: coupled layers share one norm, so that all of a unit goes to zero together.
    """

    def value(self) -> tf.Tensor:
        return tf.add_n([self._root(name) * tf.reduce_sum(self._norms(name)) for name in self._parts])

    def strengths(self) -> dict[str, np.ndarray]:
        """Root mean square of the latent weights of each unit."""
        return {name: (self._norms(name) / self._root(name)).numpy().astype(np.float64) for name in self._parts}

    def _norms(self, name: str) -> tf.Tensor:
        return tf.sqrt(tf.add_n([self._squares(filters) for filters in self._parts[name]]) + _TINY)

    def _root(self, name: str) -> float:
        weights = sum(filters.latent().size for filters in self._parts[name])
        return float(np.sqrt(weights / self.graph[name].size))


class NormRatio(_FilterPenalty):
    """The L1 norm over the L2 norm of each layer's filter norms, summed over the layers: it does not see their scale.

    The idea of the ratio of both norms over a layer's filters is that of arXiv 2007.10022, whose text we have not seen.
    Ours: a filter's own norm is the L2 norm of its latent weights, and layers count alike.
    """

    def value(self) -> tf.Tensor:
        ratios = []
        for parts in self._parts.values():
            for filters in parts:
                norms = tf.sqrt(self._squares(filters) + _TINY)
                ratios.append(tf.reduce_sum(norms) / tf.norm(norms))
        return tf.add_n(ratios)

    def strengths(self) -> dict[str, np.ndarray]:
        """Norm of each unit's filters over the mean of its layer, averaged over the group's layers."""
        found = {}
        for name, parts in self._parts.items():
            norms = [np.sqrt(self._squares(filters).numpy().astype(np.float64)) for filters in parts]
            found[name] = np.mean([values / max(values.mean(), _TINY) for values in norms], axis=0)
        return found


class ScaleLasso(SparsityPenalty):
    """The sizes of the batch norms' scales, summed: network slimming.

    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", arXiv 1708.06519. A scale right
    before a sign only moves a threshold: in binary networks it says little.
    """

    def _find(self) -> dict[str, list[tuple[Any, np.ndarray, np.ndarray]]]:
        found: dict[str, list[Any]] = {}
        for record in self.graph.records.values():
            if not is_batch_norm(record.layer) or "gamma" not in record.weight_axes:
                continue
            numbers, slots = self.graph.units(record.roles["out"])
            for group in self.graph.prunable:
                mine = np.flatnonzero(numbers == group.index)
                if len(mine):
                    found.setdefault(group.name, []).append((record.layer.gamma, mine, slots[mine]))
        return found

    def value(self) -> tf.Tensor:
        sizes = [
            tf.reduce_sum(tf.abs(tf.gather(gamma, mine))) for parts in self._parts.values() for gamma, mine, _ in parts
        ]
        return tf.add_n([tf.cast(size, tf.float32) for size in sizes])

    def strengths(self) -> dict[str, np.ndarray]:
        """Mean size of the scales that each unit passes."""
        found = {}
        for name, parts in self._parts.items():
            slots = np.concatenate([part[2] for part in parts])
            sizes = np.concatenate([np.abs(np.asarray(gamma)[mine]) for gamma, mine, _ in parts]).astype(np.float64)
            counts = np.bincount(slots, minlength=self.graph[name].size)
            # A unit that passes no scale cannot have a small one.
            sums = np.bincount(slots, sizes, minlength=self.graph[name].size)
            found[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
        return found
