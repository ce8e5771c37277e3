"""The scale of the batch norms that a group's channels pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, register_criterion, together
from tfqprune.criteria.filters import latent_kernel
from tfqprune.layers.normalization import is_batch_norm
from tfqprune.samples import Samples


@register_criterion("batchnorm_scale")
class BatchNormScale(Criterion):
    """|gamma| of the batch norms that the group's channels pass, each norm's divided by its mean.

    The paper trains with a penalty on gamma; here it is taken as it is. Directly before a sign gamma only moves a
    threshold, so there it means little. Groups that pass no batch norm with a gamma are ranked by latent L1.

    Reads latent weights; no data; no gradients. Source: Liu et al., Network Slimming, arXiv 1708.06519 (without its
    training penalty).
    """

    reads = "latent"
    source = "Liu et al., Network Slimming, arXiv 1708.06519 (without its training penalty)"

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        parts: dict[int, list[np.ndarray]] = {group.index: [] for group in groups}
        sizes = {group.index: group.size for group in groups}
        for record in graph.records.values():
            if not is_batch_norm(record.layer) or "gamma" not in record.weight_axes:
                continue
            gamma = np.abs(latent_kernel(record, "gamma")).astype(np.float64).ravel()
            number, slot = graph.units(record.roles["out"])
            for index in np.unique(number).tolist():
                if index in parts:
                    mine = number == index
                    counts = np.bincount(slot[mine], minlength=sizes[index])
                    sums = np.bincount(slot[mine], gamma[mine], minlength=sizes[index])
                    parts[index].append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
        return {group.name: together(parts[group.index]) for group in groups}
