"""Set-up of all tests: legacy Keras before TensorFlow, quiet start, fixed seeds."""

from __future__ import annotations

import os
import random
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import numpy as np
import pytest

import tfqprune  # noqa: F401  (before any test module imports tensorflow: it selects legacy Keras)

# One example may trace a TensorFlow graph, so time limits say nothing here. `make fuzz` chooses the second profile.
_HEALTH = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
hypothesis.settings.register_profile(
    "default", deadline=None, max_examples=300, print_blob=True, suppress_health_check=_HEALTH
)
hypothesis.settings.register_profile("fuzz", parent=hypothesis.settings.get_profile("default"), max_examples=5000)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, in whatever order the tests run."""
    random.seed(0)
    np.random.seed(0)
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None:
        tensorflow.random.set_seed(0)
