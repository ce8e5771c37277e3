"""Loads Keras models from files without running code that the file brings along.

A Keras file is a description of layers; some descriptions hold Python byte code (Lambda layers), name functions of
arbitrary modules, or call TensorFlow operators that read and write files. The description is read and judged here
before Keras sees it; whoever trusts the file says so.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfqprune.errors import ModelLoadError

# Modules whose classes Keras may look up by name. "builtins" is how Keras writes the names of its own functions.
_KNOWN_MODULES = ("keras", "tf_keras", "larq", "tfqprune")
# Namespaces of TensorFlow operators that only compute (a TFOpLambda layer names its operator as tf.<this>).
_COMPUTING = {"__operators__", "bitwise", "image", "linalg", "math", "nn", "quantization", "signal", "strings"}
_NOT_COMPUTING = {"py_function", "numpy_function", "load_library", "load_op_library", "print", "function", "eval"}
_FILE_OPERATORS = {"WriteFile", "ReadFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"}
_HOW = "Expected a Keras model: a .keras or .h5 file, or the folder of a SavedModel."


def load_model(path: str | os.PathLike[str], *, trust: bool = False) -> Any:
    """Loads a legacy Keras model with its larq layers; its optimiser and losses stay behind.

    Args:
        path: a .keras or .h5 file, or the folder of a SavedModel.
        trust: load Lambda layers and classes of any module too; they run code that the file's author chose.

    Returns:
        The ``tf.keras.Model``, not compiled.

    Raises:
        ModelLoadError: there is no such file, it is no Keras model, was saved by Keras 3, has layers unknown here, or
            would run code of its own and ``trust`` is False.
    """
    path = Path(path)
    form = _form(path)
    if not trust:
        for description in _descriptions(path, form):
            _refuse_code(path, description)
        if form == "savedmodel":
            _refuse_file_operators(path)
    _known_classes()
    import tensorflow as tf

    try:
        loaded = _load(path, form, trust)
    except Exception as error:
        raise ModelLoadError(
            f"Expected a model whose layers are those of Keras and larq. Received: '{path}', which Keras cannot load: "
            f"{type(error).__name__}: {_short(error)}"
        ) from error
    if not isinstance(loaded, tf.keras.Model):
        raise ModelLoadError(f"{_HOW} Received: '{path}', a SavedModel that Keras did not write.")
    return loaded


def _load(path: Path, form: str, trust: bool) -> Any:
    """What Keras makes of a file, whatever the file is called (Keras goes by the name)."""
    import tensorflow as tf

    if form == "h5":
        import h5py

        with h5py.File(path, "r") as file:
            return tf.keras.models.load_model(file, compile=False)
    if form == "savedmodel":
        return tf.keras.models.load_model(str(path), compile=False)
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix != ".keras":
            path = Path(shutil.copyfile(path, Path(folder) / "model.keras"))
        # Keras has a lock of its own on Lambda layers, narrower than ours.
        return tf.keras.models.load_model(str(path), compile=False, safe_mode=not trust)


def _known_classes() -> None:
    """Imports what models may be made of: their classes register themselves by name."""
    import larq  # noqa: F401

    import tfqprune.zoo.quicknet  # noqa: F401


def _form(path: Path) -> str:
    """One of "keras", "h5" and "savedmodel", from what the file is rather than what it is called."""
    if not path.exists():
        raise ModelLoadError(f"{_HOW} Received: '{path}', which does not exist.")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "savedmodel"
        raise ModelLoadError(f"{_HOW} Received: '{path}', a folder without saved_model.pb.")
    if zipfile.is_zipfile(path):
        return "keras"
    with path.open("rb") as file:
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return "h5"
    raise ModelLoadError(f"{_HOW} Received: '{path}', which is none of them.")


def _descriptions(path: Path, form: str) -> Iterator[Any]:
    """The descriptions of layers in a file, as JSON values."""
    try:
        if form == "keras":
            with zipfile.ZipFile(path) as archive:
                yield json.loads(archive.read("config.json"))
                version = str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
            if version and not version.startswith("2."):
                raise ModelLoadError(
                    f"Expected a model saved by legacy Keras (tf_keras 2.x). Received: '{path}', saved by Keras "
                    f"{version}. Build the same network with tf_keras, copy its weights (set_weights) and save it "
                    "again."
                )
        elif form == "h5":
            yield _h5_description(path)
        else:
            yield from _saved_model_descriptions(path)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, ModelLoadError):
            raise
        reason = f"whose description cannot be read ({_short(error)})"
        raise ModelLoadError(f"{_HOW} Received: '{path}', {reason}.") from error


def _h5_description(path: Path) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise ModelLoadError(
            f"{_HOW} Received: '{path}', which holds weights only. Save the whole model: model.save(...)."
        )
    return json.loads(config)


def _saved_model_descriptions(path: Path) -> Iterator[Any]:
    from tf_keras.protobuf import saved_metadata_pb2

    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise ModelLoadError(f"{_HOW} Received: '{path}', a SavedModel without keras_metadata.pb.")
    nodes = saved_metadata_pb2.SavedMetadata.FromString(metadata.read_bytes()).nodes
    for node in nodes:
        if node.metadata:
            yield json.loads(node.metadata)


def _refuse_file_operators(path: Path) -> None:
    """A SavedModel is a program: refuses one whose graphs read or write files or call Python."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for meta_graph in saved.meta_graphs:
        graph = meta_graph.graph_def
        for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
            if node.op in _FILE_OPERATORS:
                raise _untrusted(path, f"its graph has the operator {node.op} ('{node.name}')")


def _refuse_code(path: Path, value: Any) -> None:
    """Walks a description and refuses whatever would run code of the file's own choice."""
    if isinstance(value, list):
        for entry in value:
            _refuse_code(path, entry)
    if not isinstance(value, dict):
        return
    kind, config = value.get("class_name"), value.get("config")
    if kind in ("Lambda", "__lambda__"):
        name = config.get("name") if isinstance(config, dict) else None
        raise _untrusted(path, f"it has a Lambda layer{f' ({name})' if name else ''}, which is Python code in the file")
    if kind in ("TFOpLambda", "SlicingOpLambda") and isinstance(config, dict):
        operator = str(config.get("function"))
        space, _, _ = operator.rpartition(".")
        if (space and space.split(".")[0] not in _COMPUTING) or operator in _NOT_COMPUTING:
            raise _untrusted(path, f"its layer '{config.get('name')}' calls tf.{operator}")
    module = value.get("module")
    if isinstance(module, str) and "class_name" in value:
        harmless = module == "builtins" and not (isinstance(config, str) and hasattr(builtins, config))
        if not harmless and module.split(".")[0] not in _KNOWN_MODULES:
            raise _untrusted(path, f"it uses {kind} of the module '{module}'")
    for entry in value.values():
        _refuse_code(path, entry)


def _untrusted(path: Path, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"Expected a model that runs no code of its own. Received: '{path}': {reason}. "
        "If you know who made the file, load it with --trust (in Python: trust=True)."
    )


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Keras puts the cause last, behind the whole configuration.
    line = next((line for line in lines if line.startswith("Exception encountered:")), lines[0] if lines else "")
    return line if len(line) <= 300 else line[:297] + "..."
