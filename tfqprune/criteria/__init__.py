"""Criteria: which units of a group matter least. One file a family, one registry."""

from __future__ import annotations

from tfqprune.criteria import (  # noqa: F401  (they register)
    activation,
    batchnorm,
    chance,
    combination,
    flips,
    geometric_median,
    gradient,
    magnitude,
    reconstruction,
    redundancy,
)
from tfqprune.criteria.automatic import best_criterion, precision_kind
from tfqprune.criteria.base import (
    Criterion,
    FilterCriterion,
    FunctionCriterion,
    criterion_names,
    get_criterion,
    register_criterion,
)
from tfqprune.criteria.filters import Filters
from tfqprune.criteria.flips import FlipFrequencyCallback
from tfqprune.samples import Samples, take_samples

__all__ = [
    "Criterion",
    "FilterCriterion",
    "Filters",
    "FlipFrequencyCallback",
    "FunctionCriterion",
    "Samples",
    "best_criterion",
    "criterion_names",
    "get_criterion",
    "precision_kind",
    "register_criterion",
    "take_samples",
]
