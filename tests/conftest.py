"""Set-up of all tests: legacy Keras before TensorFlow, quiet start, fixed seeds."""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

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
    backend = sys.modules.get("tf_keras.src.backend")
    if backend is not None:
        # What an earlier test's set_random_seed left; without it initialisers ask ``random``.
        vars(backend._SEED_GENERATOR).pop("generator", None)


@pytest.fixture(scope="module")
def load_benchmark() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a program of benchmarks/ by its name; programs there import their neighbours by name."""
    folder = Path(__file__).parents[1] / "benchmarks"
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == folder:
            del sys.modules[name]
