"""Accuracy regained after a cut: batch norms re-estimated, fine-tuning, distillation. Each is usable alone."""

from __future__ import annotations

from tfqprune.recovery.batchnorm import reestimate_batch_norms
from tfqprune.recovery.distillation import distill
from tfqprune.recovery.training import clip_latent, finetune

__all__ = ["clip_latent", "distill", "finetune", "reestimate_batch_norms"]
