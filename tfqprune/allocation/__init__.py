"""How much from each group: allocators that turn a budget into ratios."""

from __future__ import annotations

from tfqprune.allocation.base import Allocator, allocator_names, get_allocator, register_allocator
from tfqprune.allocation.bayesian import BayesianAllocator
from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.allocation.holistic import HolisticPruning
from tfqprune.allocation.hypermodel import PruningHyperModel, legacy_tuner
from tfqprune.allocation.learned import HolisticAllocator
from tfqprune.allocation.ratio_tuner import RatioTuner
from tfqprune.allocation.sensitivity import SensitivityAllocator
from tfqprune.allocation.slimming import SlimmingAllocator
from tfqprune.allocation.uniform import UniformAllocator

__all__ = [
    "Allocator",
    "BayesianAllocator",
    "HolisticAllocator",
    "HolisticPruning",
    "PruningHyperModel",
    "RatioTuner",
    "SensitivityAllocator",
    "SensitivityCurves",
    "SlimmingAllocator",
    "UniformAllocator",
    "allocator_names",
    "get_allocator",
    "legacy_tuner",
    "register_allocator",
]
