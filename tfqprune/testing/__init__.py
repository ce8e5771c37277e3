"""What authors of layer handlers need to prove their handler: the law slim(x) == masked(x), checked."""

from __future__ import annotations

from tfqprune.testing.conformance import LayerHandlerConformance
from tfqprune.testing.law import assert_law, random_plan, shake

__all__ = ["LayerHandlerConformance", "assert_law", "random_plan", "shake"]
