"""Norms of filters, latent and deployed."""

from __future__ import annotations

import numpy as np

from tfqprune.criteria.base import FilterCriterion, register_criterion
from tfqprune.criteria.filters import Filters

_L1_SOURCE = "Li et al., Pruning Filters for Efficient ConvNets, arXiv 1608.08710"


@register_criterion("latent_l1")
class LatentL1(FilterCriterion):
    """Sum of |w| over a filter's latent weights.

    The paper takes it of float networks.

    Reads latent weights; no data; no gradients. Source: Li et al., Pruning Filters for Efficient ConvNets, arXiv
    1608.08710.
    """

    reads = "latent"
    source = _L1_SOURCE

    def score_filters(self, filters: Filters) -> np.ndarray:
        return np.abs(filters.latent()).sum(axis=1, dtype=np.float64)


@register_criterion("latent_l2")
class LatentL2(FilterCriterion):
    """Root of the sum of w^2 over a filter's latent weights.

    Reads latent weights; no data; no gradients. Source: the L2 variant of Li et al., Pruning Filters for Efficient
    ConvNets, arXiv 1608.08710.
    """

    reads = "latent"
    source = "the L2 variant of " + _L1_SOURCE

    def score_filters(self, filters: Filters) -> np.ndarray:
        return np.sqrt(np.square(filters.latent(), dtype=np.float64).sum(axis=1))


@register_criterion("deployed_l1")
class DeployedL1(FilterCriterion):
    """Sum of |q| over a filter's deployed weights.

    All ties for sign kernels, whose filters have the same norm: the order of the channels then decides.

    Reads deployed weights; no data; no gradients. Source: ours, the norm of arXiv 1608.08710 on the quantised kernel.
    """

    source = "ours, the norm of arXiv 1608.08710 on the quantised kernel"

    def score_filters(self, filters: Filters) -> np.ndarray:
        return np.abs(filters.deployed()).sum(axis=1, dtype=np.float64)


@register_criterion("deployed_l2")
class DeployedL2(FilterCriterion):
    """Root of the sum of q^2 over a filter's deployed weights; all ties for sign kernels.

    Reads deployed weights; no data; no gradients. Source: ours, the L2 variant of arXiv 1608.08710 on the quantised
    kernel.
    """

    source = "ours, the L2 variant of arXiv 1608.08710 on the quantised kernel"

    def score_filters(self, filters: Filters) -> np.ndarray:
        return np.sqrt(np.square(filters.deployed(), dtype=np.float64).sum(axis=1))
