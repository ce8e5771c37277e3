"""Trained networks that benchmarks start from: their options, how they are named, kept and loaded.

A baseline lies in ``--cache``, in a folder named after data set, precision, epochs and every option that is not the
default; all benchmarks with the same options share it. Training that was interrupted goes on there. Baselines that lie
in ``benchmarks/trained`` are taken as they are: threads add up in another order every time, so a second training ends
elsewhere, and rows of two networks in one table compare nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from training import in_one_step, train

from tfqprune import data, zoo

import tensorflow as tf  # isort: skip
from tfqprune.criteria import FlipFrequencyCallback

HERE = Path(__file__).parent
RATE, BATCH = 0.01, 128  # unless told otherwise
#: data set -> network; resnet20 for all others
_NETWORKS = {"digits": "resnet_digits", "fashion_mnist": "resnet_digits"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the baselines: the same for every benchmark that uses them."""
    parser.add_argument("--quick", action="store_true", help="digits and a few epochs, to show that it runs")
    parser.add_argument("--dataset", help="default: cifar10 (digits with --quick)")
    parser.add_argument("--network", help="of the zoo; default resnet20 (resnet_digits for small images)")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the network's channels, where it takes one")
    parser.add_argument("--limit", type=int, help="at most so many images in each part of the data; default: all")
    parser.add_argument("--epochs", type=int, help="epochs of each baseline; default 40 (10)")
    parser.add_argument("--finish", type=int, help="of these, the last ones in float32; default 5 (2)")
    parser.add_argument("--learning-rate", type=float, default=RATE)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--cache", type=Path, help="folder of baselines; default runs/criteria[_quick]")


def fill_in(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Fills in defaults that depend on ``--quick``, and refuses what makes no sense."""
    given.dataset = given.dataset or ("digits" if given.quick else "cifar10")
    given.network = given.network or _NETWORKS.get(given.dataset, "resnet20")
    given.epochs = given.epochs or (10 if given.quick else 40)
    given.finish = given.finish or _finish(given.quick)
    given.cache = given.cache or Path("runs/criteria_quick" if given.quick else "runs/criteria")
    if not 1 <= given.finish < given.epochs:
        parser.error(f"--finish must be at least 1 and below --epochs ({given.epochs}); received {given.finish}.")


def _finish(quick: bool) -> int:
    """Epochs in float32, unless told otherwise."""
    return 2 if quick else 5


def load_data(given: argparse.Namespace) -> data.DataSplits:
    """The data set, in its three parts."""
    return data.load(given.dataset, limit=given.limit)


def network(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tf.keras.Model:
    """The untrained network for a data set."""
    own = {} if given.width == 1 else {"width": given.width}
    return zoo.build(
        given.network,
        precision=int(precision) if precision.isdigit() else precision,
        input_shape=splits.input_shape,
        classes=splits.num_classes,
        **own,
    )


def folder_of(given: argparse.Namespace, precision: str) -> Path:
    """Where a baseline is kept."""
    parts: list[Any] = [given.dataset, precision, given.epochs]
    if given.network != _NETWORKS.get(given.dataset, "resnet20"):
        parts.insert(1, given.network)
    parts += [] if given.width == 1 else [f"width{given.width}"]
    parts += [] if given.limit is None else [given.limit]
    usual = {"finish": _finish(given.quick), "learning_rate": RATE, "batch_size": BATCH}
    parts += [f"{name}{getattr(given, name)}" for name, value in usual.items() if getattr(given, name) != value]
    return given.cache / "_".join(map(str, parts))


def baseline(given: argparse.Namespace, precision: str, splits: data.DataSplits) -> tuple[tf.keras.Model, Any]:
    """A trained network and the flips of its last epochs; as they are kept, or trained (and resumed) in the cache."""
    folder = folder_of(given, precision)
    model = network(given, precision, splits)
    callback = FlipFrequencyCallback(every=10 if given.dataset != "digits" else 1)
    kept = next(filter(Path.exists, (folder / "final.npz", HERE / "trained" / f"{folder.name}.npz")), None)
    if kept is None:
        folder.mkdir(parents=True, exist_ok=True)
        train(
            given, model, splits, given.epochs, given.finish, 0, given.learning_rate, folder, [callback], verbose=2
        )  # fmt: skip
        kept = folder / "final.npz"
        _keep(kept, model, callback)
        for state in ("coarse", "finish"):
            shutil.rmtree(folder / state, ignore_errors=True)
    with np.load(kept) as stored:
        model.set_weights([stored[f"weight/{index}"].astype(np.float32) for index in range(len(model.weights))])
        callback.looks = int(stored["looks"])
        callback.flips = {tuple(key.split("/")[1:]): stored[key] for key in stored.files if key.startswith("flips/")}
    return model, callback


def _keep(path: Path, model: tf.keras.Model, callback: FlipFrequencyCallback) -> None:
    """Writes a baseline: kernels in float16, which halves the file; the baseline is what is read back."""
    arrays: dict[str, Any] = {"looks": callback.looks}
    for index, value in enumerate(model.get_weights()):
        arrays[f"weight/{index}"] = value.astype(np.float16 if value.ndim > 1 else np.float32)
    arrays |= {"/".join(("flips", *key)): value for key, value in callback.flips.items()}
    in_one_step(path, lambda part: np.savez_compressed(part, **arrays))
