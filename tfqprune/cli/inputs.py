"""What subcommands work on: models, data and outputs, checked before any long work."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfqprune.cli.session import Session
from tfqprune.errors import DataError, ExportError, ModelLoadError, OutputError

if TYPE_CHECKING:
    from tfqprune.channels import ChannelGraph
    from tfqprune.data import DataSplits


def require_model(path: Path) -> None:
    """Refuses a model that is not there, before TensorFlow is loaded."""
    if not path.exists():
        raise ModelLoadError(f"Expected a Keras model. Received: '{path}', which does not exist.")


def require_tflite(path: Path) -> None:
    """Refuses a .tflite file that is not there, likewise."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ExportError(f"Expected a .tflite file. Received: '{path}', which {what}.")


def require_data(source: str | None, what_for: str = "") -> None:
    """Refuses data that are not there, likewise; of sets and functions that is not known yet."""
    if source is None:
        if what_for:
            raise DataError(f"Expected data {what_for}: give --data. Received: none.")
        return
    from tfqprune.data.sources import source_form

    source_form(source)


def free_file(path: Path, overwrite: bool, suffixes: tuple[str, ...] = ()) -> None:
    """Makes sure that a file may be written.

    Raises:
        OutputError: it exists and ``overwrite`` is False, has another suffix, or its folder is not there or cannot be
            written.
    """
    if suffixes and path.suffix not in suffixes:
        raise OutputError(f"Expected an output that ends in {' or '.join(suffixes)}. Received: '{path}'.")
    if path.is_dir():
        raise OutputError(f"Expected a file to write. Received: '{path}', which is a folder.")
    if path.exists() and not overwrite:
        raise OutputError(
            f"Expected a new file. Received: '{path}', which exists. Choose another name, or replace it (--overwrite)."
        )
    if not path.parent.is_dir():
        raise OutputError(f"Expected a folder to write into. Received: '{path.parent}', which does not exist.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"Expected a folder to write into. Received: '{path.parent}', which cannot be written. Choose another one."
        )


def beside(path: Path, ending: str) -> Path:
    """A file that goes with another: ``slim.keras`` -> ``slim.plan.json``."""
    return path.with_name(f"{path.stem}.{ending}")


def free_folder(
    path: Path, overwrite: bool, *, may_grow: bool = False, needed: Iterable[str | Path | None] = ()
) -> None:
    """Makes sure, before anything is loaded, that a run may begin or go on in a folder.

    Args:
        path: the folder.
        overwrite: an earlier run may be removed from it.
        may_grow: a finished run may go on.
        needed: what is read later, files or names of something else: not to be removed with an earlier run.

    Raises:
        OutputError: it holds other files, or a finished run that is neither to be overwritten nor may grow; what is
            needed lies in it.
    """
    from tfqprune.pipeline.folder import refuse_finished, state_of

    for name in needed if overwrite else ():
        if name is not None and path.resolve() in Path(name).resolve().parents:
            raise OutputError(
                f"Expected a folder to overwrite without anything that is still to be read. Received: '{path}', which "
                f"holds '{name}'. Move it, or choose another folder."
            )
    if overwrite or may_grow:
        state_of(path, overwrite=overwrite)
    else:
        refuse_finished(path)


def settings_of(path: Path) -> Path:
    """Where the settings go that made a file: ``slim.keras`` -> ``slim.keras.toml``."""
    return path.with_name(f"{path.name}.toml")


def open_model(session: Session, path: Path, trust: bool) -> Any:
    """Loads a Keras model, and TensorFlow first."""
    session.load_tensorflow()
    from tfqprune.loading import load_model

    with session.working(f"loading {path}"):
        return load_model(path, trust=trust)


def hint_at_dead_channels(graph: ChannelGraph) -> None:
    """Warns of channels that can go at no price, of which ratios and budgets do not know."""
    from tfqprune.dead import dead_hint

    if hint := dead_hint(graph):
        warnings.warn(hint, stacklevel=2)


def samples_of(model: Any, data: DataSplits) -> list[str]:
    """What tells the samples of a run from those of another one: a digest of each part."""
    from tfqprune.allocation.identity import data_digest

    return [data_digest(model, part) for part in (data.train, data.validation, data.test)]


def open_data(
    session: Session, source: str, model: Any, *, seed: int, data_dir: Path | None, limit: int | None, resize: bool
) -> DataSplits:
    """Loads data for a model.

    Raises:
        DataError: there are no such data, or they do not go with the model.
    """
    from tfqprune.data import load

    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise DataError(
            f"Expected a model with one input and one output. Received: {len(model.inputs)} and {len(model.outputs)}. "
            "In a script, tfqprune.score, make_plan, prune and finetune, and tflite_export.export take any number."
        )
    shape = tuple(model.inputs[0].shape[1:])
    image_shape = shape if len(shape) == 3 else (None, None, None)
    if not resize:
        image_shape = (None, None, image_shape[2])
    elif None in shape or len(shape) != 3:
        raise DataError(f"Expected a model whose input is images of one size, to resize to. Received: {shape}.")
    # Images in folders have a bar of their own.
    with contextlib.nullcontext() if Path(source).is_dir() else session.working(f"loading {source}"):
        splits = load(source, seed=seed, data_dir=data_dir, limit=limit, image_shape=image_shape)
    return splits.fitted(shape, _classes(model))


def _classes(model: Any) -> int | None:
    """How many classes a model tells apart; None where its output is no vector of classes."""
    import tensorflow as tf

    if len(model.output_shape) != 2:
        return None
    if model.output_shape[-1] > 1:
        return int(model.output_shape[-1])
    return 2 if getattr(model.layers[-1], "activation", None) is tf.keras.activations.sigmoid else None
