"""Output reconstruction: which units can go so that the consumers' outputs vary least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import Criterion, Scores, ranks, register_criterion
from tfqprune.criteria.contributions import covariance, inverse, read
from tfqprune.errors import CriterionError, real_number, whole_number
from tfqprune.progress import track
from tfqprune.samples import Samples


@register_criterion("reconstruction")
class Reconstruction(Criterion):
    """Greedy choice of the units whose joint contribution to the consumers' deployed outputs varies least.

    Ours. In the family of ThiNet (Luo et al., arXiv 1707.06342) and channel pruning by reconstruction (He et al., arXiv
    1707.06168), but with the deployed kernels and what their input quantisers let through, and with the mean of what is
    lost left out: batch norms take it up when they are re-estimated. The weights of an output are one over its
    variance, as the batch norm behind it will divide by that.

    The score is the order of removal: 0 goes first.

    Reads deployed weights; needs data; no gradients. Source: ours; in the family of ThiNet, arXiv 1707.06342.

    Args:
        positions: output positions looked at in each sample and layer.
        batch_size: samples in one run of the model.
        rescaled: share, from 0 to 1, of what is proportional to the whole output that is left out, too: re-estimated
            batch norms scale it back, but what is disturbed with it.

    Raises:
        CriterionError: a number that makes no sense.
    """

    needs_data = True
    greedy: ClassVar[bool] = True
    source: ClassVar[str] = "ours; in the family of ThiNet, arXiv 1707.06342"

    def __init__(self, positions: int = 16, batch_size: int = 32, rescaled: float = 0.0) -> None:
        self.positions = whole_number("positions", positions, CriterionError)
        self.batch_size = whole_number("batch_size", batch_size, CriterionError)
        self.rescaled = real_number("rescaled", rescaled, CriterionError, 0, 1)

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        assert samples is not None
        totals = {group.name: np.zeros((group.size, group.size)) for group in groups}
        seen = dict.fromkeys(totals, 0)
        readings = read(
            graph,
            list(groups),
            samples,
            positions=self.positions,
            batch_size=self.batch_size,
            description="what the kernels read",
        )
        for consumer, reading in track(readings, "contributions"):
            numbers = set(consumer.units[0].tolist())
            for group in groups:
                if group.index in numbers:
                    totals[group.name] += covariance(consumer, reading, group, inverse, self.rescaled)
                    seen[group.name] += 1
            reading.patches.clear()  # large; no other consumer needs them
            reading.responses.clear()
        return {name: ranks(removal_order(total)) if seen[name] else None for name, total in totals.items()}


def removal_order(covariances: np.ndarray) -> np.ndarray:
    """The order in which units go so that the variance of all that is gone grows least at each step.

    Args:
        covariances: ``[units, units]``.

    Returns:
        Slots, first to go first; of equal ones the lower slot.
    """
    diagonal = np.diag(covariances).copy()
    shared = np.zeros(len(diagonal))  # covariance of each unit with all that is gone
    gone = np.zeros(len(diagonal), bool)
    order = np.empty(len(diagonal), np.int64)
    for step in range(len(diagonal)):
        growth = np.where(gone, np.inf, diagonal + 2 * shared)
        order[step] = unit = int(np.argmin(growth))
        gone[unit] = True
        shared += covariances[unit]
    return order
