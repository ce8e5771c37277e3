"""What a run found, for people: one HTML page, PNG plots, JSON and terminal tables, all from plain data.

Nothing here knows TensorFlow or any other part of the project: whoever ran something fills the dataclasses of
``tfqprune.report.model`` and calls ``write``; ``redraw`` makes the page of an output folder again.
"""

from __future__ import annotations

from tfqprune.report.files import read, redraw, write
from tfqprune.report.model import (
    CurveRow,
    GroupRow,
    LayerRow,
    NetworkReport,
    NodeRow,
    RunReport,
    TrialRow,
    VariantRow,
)

__all__ = [
    "CurveRow", "GroupRow", "LayerRow", "NetworkReport", "NodeRow", "RunReport", "TrialRow", "VariantRow", "read",
    "redraw", "write",
]  # fmt: skip
