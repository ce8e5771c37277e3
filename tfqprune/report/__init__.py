"""What a run found, for people: one HTML page, PNG plots, JSON and terminal tables, all from plain data.

Nothing here knows TensorFlow or any other part of the project: whoever ran something fills the dataclasses of
``tfqprune.report.model`` and calls ``write``.
"""

from __future__ import annotations

from tfqprune.report.files import read, write
from tfqprune.report.model import GroupRow, LayerRow, NetworkReport, RunReport, TrialRow, VariantRow

__all__ = ["GroupRow", "LayerRow", "NetworkReport", "RunReport", "TrialRow", "VariantRow", "read", "write"]
