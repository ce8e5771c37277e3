"""What the tests of subcommands share: a trained network, its data, a way to run a command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import tfqprune as tq
from tfqprune import zoo
from tfqprune.cli import app
from tfqprune.data import load


@dataclass(frozen=True)
class Answer:
    """What a command line said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, all of which has to be JSON."""
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture
def run() -> Run:
    """Runs a command line in this process."""

    def invoke(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``model.keras``, a 2-bit network trained on digits, and ``digits.npz``, 300 of them."""
    folder = tmp_path_factory.mktemp("cli")
    digits = load("digits", limit=100)
    parts = {"train": digits.train, "validation": digits.validation, "test": digits.test}
    arrays = {f"{axis}_{name}": getattr(part, axis) for name, part in parts.items() for axis in "xy"}
    np.savez(folder / "digits.npz", **arrays)
    tf.keras.utils.set_random_seed(0)
    model = zoo.resnet(8, precision=2, input_shape=(8, 8, 1), width=0.5)
    tq.finetune(model, digits.train, epochs=6, learning_rate=1e-2, batch_size=10)
    model.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="package")
def model_file(home: Path) -> Path:
    return home / "model.keras"


@pytest.fixture(scope="package")
def data_file(home: Path) -> Path:
    return home / "digits.npz"


@pytest.fixture(scope="package")
def model(model_file: Path) -> tf.keras.Model:
    return tf.keras.models.load_model(model_file)
