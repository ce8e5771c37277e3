"""Labelled samples to train and judge on, from wherever they are, always in the same form."""

from __future__ import annotations

from tfqprune.data.augmentation import augmented
from tfqprune.data.sources import load
from tfqprune.data.splits import DataSplits, Split

__all__ = ["DataSplits", "Split", "augmented", "load"]
