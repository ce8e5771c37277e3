"""Geometric median: filters in the middle of the others say least."""

from __future__ import annotations

import numpy as np

from tfqprune.criteria.base import FilterCriterion, register_criterion
from tfqprune.criteria.filters import Filters
from tfqprune.criteria.pairwise import squared_distances


@register_criterion("geometric_median")
class GeometricMedian(FilterCriterion):
    """Sum of a filter's Euclidean distances to all others of its layer, on latent weights.

    Reads latent weights; no data; no gradients. Source: He et al., FPGM, arXiv 1811.00250.
    """

    reads = "latent"
    source = "He et al., FPGM, arXiv 1811.00250"

    def score_filters(self, filters: Filters) -> np.ndarray:
        return np.sqrt(squared_distances(filters.latent())).sum(axis=1)


@register_criterion("deployed_geometric_median")
class DeployedGeometricMedian(FilterCriterion):
    """Sum of a filter's Euclidean distances to all others of its layer, on deployed codes.

    Reads deployed weights; no data; no gradients. Source: ours, FPGM (arXiv 1811.00250) on the quantised kernel.
    """

    source = "ours, FPGM (arXiv 1811.00250) on the quantised kernel"

    def score_filters(self, filters: Filters) -> np.ndarray:
        rows, _ = filters.codes()
        return np.sqrt(squared_distances(rows)).sum(axis=1)
