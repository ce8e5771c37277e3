"""Ratios from one threshold over the units of all groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.allocation.base import Allocator, register_allocator
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import PlanError
from tfqprune.fitting import Fit, Fitter
from tfqprune.penalties import GroupLasso, ScaleLasso
from tfqprune.scoring import score_graph


@register_allocator("slimming")
class SlimmingAllocator(Allocator):
    """As many units of each group go as lie below one threshold, which is bisected on the cost.

    Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", arXiv 1708.06519, train with an L1
    penalty on the scales of the batch norms (:class:`tfqprune.ScaleLasso`) and cut all below one threshold. Ours: any
    strengths, any costs. Which units go is the criterion's matter; hand the strengths over as ``scores``, too, to cut
    those that lie below the threshold.

    Args:
        budget: what must hold.
        strengths: group name -> a number for each unit, comparable between groups; None: the mean size of the batch
            norms' scales that a unit passes, or, in a model where no group passes one, the root mean square of its
            latent weights. Groups without strengths give nothing until all others are at their maximum.

    Raises:
        PlanError: (from ``allocate``) strengths of the wrong length or below 0.
    """

    def __init__(self, budget: Budget, strengths: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(budget)
        self._strengths = strengths

    def completed(
        self, scores: Mapping[str, np.ndarray], graph: ChannelGraph, criterion: Any, data: Any
    ) -> Mapping[str, np.ndarray]:
        """Where scores leave groups out, as strengths may, the criterion ranks their units."""
        if not isinstance(scores, Mapping) or all(group.name in scores for group in graph.prunable):
            return scores
        return {**score_graph(graph, criterion, data), **scores}

    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        strengths = {name: value for name, value in self._found(model).items() if name in fitter.names}
        for name, values in strengths.items():
            size = fitter.graph[name].size
            if np.shape(values) != (size,) or not (np.asarray(values) >= 0).all():
                raise PlanError(
                    f"Expected {size} strengths of at least 0 for group {name!r}. Received: shape {np.shape(values)}, "
                    f"from {np.min(values, initial=np.inf)}."
                )
        every = np.sort(np.concatenate([np.empty(0), *strengths.values()]))
        most = fitter.most

        def family(part: float) -> dict[str, float]:
            below = every[: int(np.ceil(part * len(every)))]
            threshold = below[-1] if len(below) else -1.0
            return {name: min(float(np.mean(values <= threshold)), most[name]) for name, values in strengths.items()}

        return fitter.fit(family)

    def _found(self, model: tf.keras.Model) -> Mapping[str, np.ndarray]:
        if self._strengths is not None:
            return self._strengths
        try:
            return ScaleLasso(model, 1.0).strengths()
        except PlanError:  # no batch norm with a scale
            return GroupLasso(model, 1.0).strengths()
