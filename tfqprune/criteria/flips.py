"""How often deployed weights change while a network trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, register_criterion, together
from tfqprune.criteria.filters import Filters, deployed_kernel, members
from tfqprune.errors import CriterionError, whole_number
from tfqprune.samples import Samples


class FlipFrequencyCallback(tf.keras.callbacks.Callback):
    """Counts, while a model trains, how often each deployed weight takes another value.

    Give it to ``fit``, ``tfqprune.finetune`` or ``tfqprune.distill`` and then ask for ``criterion="flip_frequency"``.
    ``larq.metrics.FlipRatio`` gives the same for a whole layer in one number.

    Args:
        every: look after every so many batches, counted on from one epoch, and one ``fit``, to the next.

    Attributes:
        flips: (layer, weight) -> changes seen, int64 array of the kernel's shape.
        looks: how many times it was looked.
        batches: how many batches went by.
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = whole_number("every", every, CriterionError)
        self.flips: dict[tuple[str, str], np.ndarray] = {}
        self.looks = 0
        self.batches = 0
        self._earlier = 0
        self._last: dict[tuple[str, str], np.ndarray] = {}
        self._watched: list[tuple[Any, str]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model: Any = getattr(self.model, "student", self.model)  # of a distillation, the student learns
        graph = ChannelGraph(model)
        self._watched = [
            (record, weight)
            for record in graph.records.values()
            for weight in precision.quantized_weights(record.layer)
        ]
        self._last = self._values()
        for key, value in self._last.items():  # a second fit goes on counting
            if key not in self.flips or self.flips[key].shape != value.shape:
                self.flips[key] = np.zeros(value.shape, np.int64)
        # The criterion can be asked for by its name alone. A table of models would never let go of one: the callback
        # holds its model, too.
        model._flip_frequency_callback = self

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._earlier = self.batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Of several steps in one execution only the last is told.
        before, self.batches = self.batches, self._earlier + batch + 1
        if self.batches // self.every > before // self.every:
            values = self._values()
            for key, value in values.items():
                self.flips[key] += value != self._last[key]
            self._last = values
            self.looks += 1

    def frequency(self, layer: str, weight: str = "kernel") -> np.ndarray:
        """Changes per look of each weight of a layer, float array of the kernel's shape."""
        return self.flips[layer, weight] / max(self.looks, 1)

    def _values(self) -> dict[tuple[str, str], np.ndarray]:
        return {(record.name, weight): deployed_kernel(record, weight) for record, weight in self._watched}


@register_criterion("flip_frequency")
class FlipFrequency(Criterion):
    """One minus the share of looks at which a filter's weights had changed: what never settles goes first.

    Li and Ren, "BNN Pruning: Pruning Binary Neural Network Guided by Weight Flipping Frequency",
    ISQED 2020, doi 10.1109/ISQED48828.2020.9136977, take the frequency as an indicator of sensitivity. For k-bit
    kernels any change of the code counts. Layers without a quantiser have no say; groups of such layers only are
    ranked by latent L1. Reads deployed weights; no data; no gradients. Source: ours, after Li and Ren, ISQED 2020.

    Args:
        callback: the callback that watched the training; by default the last one that watched this model.

    Raises:
        CriterionError: another kind of callback; when scoring, a model whose training was not watched.
    """

    source: ClassVar[str] = "ours, after Li and Ren, ISQED 2020"

    def __init__(self, callback: FlipFrequencyCallback | None = None) -> None:
        if not isinstance(callback, FlipFrequencyCallback | None):
            raise CriterionError(
                f"Expected callback to be a FlipFrequencyCallback. Received: {callback!r} "
                f"(of type {type(callback).__name__}). Hand over the one that watched the training, or none."
            )
        self.callback = callback

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        callback = self.callback or getattr(graph.model, "_flip_frequency_callback", None)
        if callback is None or not callback.looks:
            received = "a model without one"
            if callback is not None:
                received = f"one of {callback.batches} batches, watched every {callback.every}"
            raise CriterionError(
                f"Criterion 'flip_frequency' needs a training that was watched. Received: {received}. "
                "Train it with model.fit(..., callbacks=[FlipFrequencyCallback()]) first, or choose another criterion."
            )
        result: Scores = {}
        for group in groups:
            parts = []
            for filters in members(graph, group):
                key = (filters.record.name, str(filters.weight))
                if key in callback.flips:
                    _check_shape(callback.flips[key], filters)
                    share = filters.rows(callback.frequency(*key)).mean(axis=1)
                    parts.append(filters.spread(1 - share))
            result[group.name] = together(parts)
        return result


def _check_shape(flips: np.ndarray, filters: Filters) -> None:
    own = tuple(deployed_kernel(filters.record, filters.weight).shape)
    if flips.shape != own:
        raise CriterionError(
            f"Expected flips of the model that is scored. Received: those of another, whose {filters.weight} of layer "
            f"{filters.record.name!r} has shape {flips.shape} instead of {own}. Watch this model's training."
        )
