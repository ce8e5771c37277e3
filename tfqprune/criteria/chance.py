"""Random scores: what every other criterion has to beat."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, register_criterion
from tfqprune.errors import CriterionError, seed_number
from tfqprune.samples import Samples


@register_criterion("random")
class Random(Criterion):
    """Uniform random scores, the same for the same seed and group name.

    Reads no weights; no data; no gradients. Source: chance.

    Args:
        seed: a whole number of at least 0.

    Raises:
        CriterionError: another seed.
    """

    reads = "nothing"
    source = "chance"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed_number(seed, CriterionError)

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        # Seeded by the name, so that a group's scores do not depend on which others are scored.
        return {
            group.name: np.random.default_rng([self.seed, zlib.crc32(group.name.encode())]).random(group.size)
            for group in groups
        }
