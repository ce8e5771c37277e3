"""Prunes the filters of binary and k-bit Keras networks, and makes them physically slim.

Importing this package selects legacy Keras (tf_keras); TensorFlow itself is loaded when the first
public name is used, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tfqprune.legacy import select_legacy_keras

select_legacy_keras()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tfqprune.allocation import (
        Allocator,
        BayesianAllocator,
        HolisticAllocator,
        HolisticPruning,
        PruningHyperModel,
        RatioTuner,
        SensitivityAllocator,
        SensitivityCurves,
        SlimmingAllocator,
        UniformAllocator,
        legacy_tuner,
        register_allocator,
    )
    from tfqprune.budget import Budget
    from tfqprune.channels import ChannelGraph, ChannelGroup
    from tfqprune.costs import Cost, cost
    from tfqprune.criteria import Criterion, FilterCriterion, FlipFrequencyCallback, criterion_names, register_criterion
    from tfqprune.dead import remove_dead_channels
    from tfqprune.gradual import GradualPruning
    from tfqprune.layers import LayerHandler, register_handler
    from tfqprune.masking import mask
    from tfqprune.penalties import GroupLasso, NormRatio, ScaleLasso, SparsityPenalty
    from tfqprune.pipeline import CompressionResult, compress
    from tfqprune.plan import PruningPlan
    from tfqprune.recovery import clip_latent, distill, finetune, reestimate_batch_norms
    from tfqprune.scoring import make_plan, score
    from tfqprune.slim import prune
    from tfqprune.twin import EvaluationTwin

#: public name -> the module that holds it
_HOMES = {
    "Allocator": "tfqprune.allocation",
    "BayesianAllocator": "tfqprune.allocation",
    "HolisticAllocator": "tfqprune.allocation",
    "HolisticPruning": "tfqprune.allocation",
    "PruningHyperModel": "tfqprune.allocation",
    "RatioTuner": "tfqprune.allocation",
    "SensitivityAllocator": "tfqprune.allocation",
    "SensitivityCurves": "tfqprune.allocation",
    "SlimmingAllocator": "tfqprune.allocation",
    "UniformAllocator": "tfqprune.allocation",
    "legacy_tuner": "tfqprune.allocation",
    "register_allocator": "tfqprune.allocation",
    "Budget": "tfqprune.budget",
    "ChannelGraph": "tfqprune.channels",
    "ChannelGroup": "tfqprune.channels",
    "Cost": "tfqprune.costs",
    "cost": "tfqprune.costs",
    "Criterion": "tfqprune.criteria",
    "FilterCriterion": "tfqprune.criteria",
    "FlipFrequencyCallback": "tfqprune.criteria",
    "criterion_names": "tfqprune.criteria",
    "register_criterion": "tfqprune.criteria",
    "remove_dead_channels": "tfqprune.dead",
    "GradualPruning": "tfqprune.gradual",
    "LayerHandler": "tfqprune.layers",
    "register_handler": "tfqprune.layers",
    "mask": "tfqprune.masking",
    "GroupLasso": "tfqprune.penalties",
    "NormRatio": "tfqprune.penalties",
    "ScaleLasso": "tfqprune.penalties",
    "SparsityPenalty": "tfqprune.penalties",
    "CompressionResult": "tfqprune.pipeline",
    "compress": "tfqprune.pipeline",
    "PruningPlan": "tfqprune.plan",
    "clip_latent": "tfqprune.recovery",
    "distill": "tfqprune.recovery",
    "finetune": "tfqprune.recovery",
    "reestimate_batch_norms": "tfqprune.recovery",
    "make_plan": "tfqprune.scoring",
    "score": "tfqprune.scoring",
    "prune": "tfqprune.slim",
    "EvaluationTwin": "tfqprune.twin",
}

__all__ = [
    "Allocator",
    "BayesianAllocator",
    "Budget",
    "ChannelGraph",
    "ChannelGroup",
    "CompressionResult",
    "Cost",
    "Criterion",
    "EvaluationTwin",
    "FilterCriterion",
    "FlipFrequencyCallback",
    "GradualPruning",
    "GroupLasso",
    "HolisticAllocator",
    "HolisticPruning",
    "LayerHandler",
    "NormRatio",
    "PruningHyperModel",
    "PruningPlan",
    "RatioTuner",
    "ScaleLasso",
    "SensitivityAllocator",
    "SensitivityCurves",
    "SlimmingAllocator",
    "SparsityPenalty",
    "UniformAllocator",
    "__version__",
    "clip_latent",
    "compress",
    "cost",
    "criterion_names",
    "distill",
    "finetune",
    "legacy_tuner",
    "make_plan",
    "mask",
    "prune",
    "reestimate_batch_norms",
    "register_allocator",
    "register_criterion",
    "register_handler",
    "remove_dead_channels",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tfqprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
