"""What the examples share: their switches, and a trained network to start from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import tfqprune as tq


def arguments(text: str, output: str) -> argparse.Namespace:
    """``--quick`` and ``--output``, as every example has them.

    Args:
        text: what ``--help`` says: the example's own docstring.
        output: the default folder; it is made.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small network on small data, below a minute")
    parser.add_argument("--output", type=Path, default=Path(output), help=f"folder for the results ({output})")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    return given


def trained(model: Any, splits: Any, file: Path, epochs: int, learning_rate: float = 3e-3) -> Any:
    """The model, trained; the weights are kept in a file, so that a second run starts with them.

    Args:
        model: an untrained Keras model.
        splits: from ``tfqprune.data.load``.
        file: ends in ``.weights.h5``.
        epochs: of training.
        learning_rate: of the first step; it falls to 0 along half a cosine.
    """
    if file.exists():
        model.load_weights(file)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    if not file.exists():
        tq.finetune(
            model, splits.train, splits.validation, epochs, learning_rate=learning_rate, batch_size=64, verbose=2
        )
        model.save_weights(file)
    return model


def accuracy(model: Any, split: Any) -> float:
    """Share of a split that a compiled model gets right."""
    return float(model.evaluate(split.x, split.y, batch_size=256, verbose=0)[1])
