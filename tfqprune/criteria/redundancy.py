"""Redundancy: filters whose deployed codes another filter repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, ranks, register_criterion, together
from tfqprune.criteria.filters import Filters, members
from tfqprune.criteria.magnitude import LatentL2
from tfqprune.criteria.pairwise import batch_norm_follows, squared_distances
from tfqprune.samples import Samples


@register_criterion("redundancy")
class Redundancy(Criterion):
    """Distance of a filter's deployed codes to the nearest filter that stays; the nearer, the sooner it goes.

    For codes from -q to q the distance of filters a and b of m weights is |a - b|^2 / (4 q^2 m), between 0 and 1: for
    binary kernels the share of weights that differ (Hamming distance d). Where a batch norm follows, a filter with all
    signs turned is a twin as well, and the smaller of the distances to b and -b counts: min(d, 1 - d). Of the nearest
    pair the filter with the smaller latent norm goes, then the next pair among those that stay is looked for. A layer's
    distances are divided by their mean before those of a group's layers are averaged.

    Ours: a reconstruction. Guerra et al. have a rule that finds redundant low-precision filters; the rule itself we
    know only from the abstract.

    The score is the order of removal: 0 goes first.

    Reads deployed and latent weights; no data; no gradients. Source: ours, after the idea of Guerra et al., arXiv
    2002.00523.
    """

    reads = "both"
    greedy: ClassVar[bool] = True
    source: ClassVar[str] = "ours, after the idea of Guerra et al., arXiv 2002.00523"

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        result: Scores = {}
        for group in groups:
            layers = list(members(graph, group))
            if not layers:
                result[group.name] = None
                continue
            distances = np.zeros((group.size, group.size))
            counts = np.zeros((group.size, group.size))
            norms = []
            for filters in layers:
                own = _scaled(code_distances(filters, flipped=batch_norm_follows(graph, filters.record)))
                place = np.ix_(filters.slots, filters.slots)
                distances[place] += own
                counts[place] += 1
                norms.append(filters.spread(LatentL2().score_filters(filters)))
            norm = together(norms)
            assert norm is not None
            # Units that no layer compares are far from each other.
            known = np.where(counts > 0, distances / np.maximum(counts, 1), np.inf)
            result[group.name] = ranks(nearest_first(known, norm))
        return result


def code_distances(filters: Filters, *, flipped: bool) -> np.ndarray:
    """Code distances between all pairs of a layer's filters, from 0 to 1, float64 ``[units, units]``.

    Args:
        filters: the layer's filters.
        flipped: whether a filter's negative is as near as the filter itself.
    """
    rows, largest = filters.codes()
    return squared_distances(rows, flipped=flipped) / (4 * largest**2 * rows.shape[1])


def _scaled(distances: np.ndarray) -> np.ndarray:
    """Distances divided by their mean over all pairs."""
    count = len(distances) * (len(distances) - 1)
    mean = distances.sum() / count if count else 0.0
    return distances / mean if mean > 0 else distances


def nearest_first(distances: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """The order in which units go: of the nearest pair that is left, the one with the smaller norm.

    Args:
        distances: ``[units, units]``, symmetric.
        norms: ``[units]``, break ties (among equals the lower slot goes).

    Returns:
        Slots, first to go first.
    """
    left = np.round(distances, 9)  # equal distances must not differ by rounding
    np.fill_diagonal(left, np.inf)
    count = len(left)
    nearest = left.min(axis=1, initial=np.inf)
    gone = np.zeros(count, bool)
    order = np.empty(count, np.int64)
    for step in range(count):
        open_units = np.flatnonzero(~gone)
        candidates = open_units[nearest[open_units] == nearest[open_units].min()]
        order[step] = unit = int(candidates[np.argmin(norms[candidates])])
        gone[unit] = True
        stale = np.flatnonzero(~gone & (left[:, unit] == nearest))
        left[unit, :] = left[:, unit] = np.inf
        nearest[stale] = left[stale].min(axis=1, initial=np.inf)
    return order
