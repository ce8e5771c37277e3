"""Several criteria together: a weighted mean of their ranks."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.base import (
    Criterion,
    Reads,
    Scores,
    checked_scores,
    get_criterion,
    option_names,
    register_criterion,
)
from tfqprune.errors import CriterionError, real_number
from tfqprune.samples import Samples


@register_criterion("rank_combination")
class RankCombination(Criterion):
    """Weighted mean of the ranks that several criteria give, each from 0 (goes first) to 1.

    Ties get the mean of their ranks. A criterion that has nothing to read in a group has no say there.

    Reads and needs what the criteria in it do. Source: ours.

    Args:
        weights: criterion (a name or a ``Criterion``) -> weight, above 0. Weights need not sum to 1.
        **options: arguments of the criteria in it; each goes to those that take it.

    Raises:
        CriterionError: no weights; an unknown criterion; an option that none of them takes.
    """

    def __init__(self, weights: Mapping[Any, float], **options: Any) -> None:
        if not isinstance(weights, Mapping) or not weights:
            raise CriterionError(f"Expected a mapping from criteria to weights. Received: {reprlib.repr(weights)}.")
        own = {key: {name: options[name] for name in option_names(key) if name in options} for key in weights}
        if unknown := sorted(set(options).difference(*own.values())):
            raise CriterionError(
                f"Expected options that {' or '.join(map(str, weights))} takes. Received: {', '.join(unknown)}."
            )
        self.parts = [
            (
                get_criterion(key, **own[key]),
                real_number(f"the weight of criterion {key!r}", weight, CriterionError, above=0),
            )
            for key, weight in weights.items()
        ]
        self.reads = _together({part.reads for part, _ in self.parts})
        self.needs_data = any(part.needs_data for part, _ in self.parts)
        self.needs_gradients = any(part.needs_gradients for part, _ in self.parts)
        self.name = " + ".join(part.name if weight == 1 else f"{weight:g} {part.name}" for part, weight in self.parts)

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        total = {group.name: np.zeros(group.size) for group in groups}
        share = dict.fromkeys(total, 0.0)
        for part, weight in self.parts:
            scores = checked_scores(part, graph, groups, samples)
            for group in groups:
                values = scores[group.name]
                if values is not None:
                    total[group.name] += weight * (rankdata(values) - 1) / max(group.size - 1, 1)
                    share[group.name] += weight
        return {name: total[name] / share[name] if share[name] else None for name in total}


def _together(reads: set[Reads]) -> Reads:
    """Which weights several criteria look at between them."""
    some = reads - {"nothing"}
    return "both" if len(some) > 1 else next(iter(some), "nothing")
