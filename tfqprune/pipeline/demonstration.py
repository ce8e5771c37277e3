"""The demonstration: two small residual networks, from training to measured .tflite files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfqprune import data, zoo
from tfqprune.allocation.identity import model_digest
from tfqprune.allocation.records import TrialRecord
from tfqprune.budget import Budget
from tfqprune.channels import ChannelGraph
from tfqprune.costs import cost
from tfqprune.pipeline.compression import CompressionResult, compress, timestamp
from tfqprune.pipeline.display import Display
from tfqprune.pipeline.environment import command, processor, versions
from tfqprune.pipeline.folder import RunFolder
from tfqprune.pipeline.line import save_model
from tfqprune.recovery import finetune
from tfqprune.report import RunReport, write
from tfqprune.report.tables import comparison_table, score_table
from tfqprune.scoring import choose_criterion, score
