"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

import tfqprune as tq  # noqa: F401 - selects legacy Keras


@pytest.fixture
def deterministic() -> Iterator[None]:
    """As the demonstration has it; taken back, because it changes what other tests in this process see."""
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()
