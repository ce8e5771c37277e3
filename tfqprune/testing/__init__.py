"""What authors of layer handlers, criteria and allocators need to prove them: suites to subclass, the law checked."""

from __future__ import annotations

from tfqprune.testing.allocators import AllocatorConformance
from tfqprune.testing.conformance import LayerHandlerConformance
from tfqprune.testing.criteria import CriterionConformance
from tfqprune.testing.law import assert_law, random_plan, shake

__all__ = [
    "AllocatorConformance",
    "CriterionConformance",
    "LayerHandlerConformance",
    "assert_law",
    "random_plan",
    "shake",
]
