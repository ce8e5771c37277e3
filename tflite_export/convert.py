"""Keras model -> float .tflite object tree: TensorFlow's converter and Larq Compute Engine's, kept quiet."""

from __future__ import annotations

import keyword
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tflite_export.flatbuffer import read_model
from tflite_export.runtime import require_lce
from tfqprune.errors import ExportError, ModelTypeError


def check_keras(model: Any) -> None:
    """Refuses what is no model.

    Raises:
        ModelTypeError: no legacy Keras model.
    """
    import tensorflow as tf

    if not isinstance(model, tf.keras.Model):
        module = type(model).__module__
        hint = (
            "It is a Keras 3 model: build it with tf_keras (TF_USE_LEGACY_KERAS=1)."
            if module.split(".")[0] == "keras"
            else "Pass a tf.keras.Model."
        )
        raise ModelTypeError(f"Expected a legacy Keras model. Received: {type(model).__name__} ({module}). {hint}")


def check_graph(model: Any) -> None:
    """Refuses what has no inputs and outputs that are known.

    Raises:
        ModelTypeError: no legacy Keras model with a graph of layers.
    """
    check_keras(model)
    if not getattr(model, "_is_graph_network", False):
        raise ModelTypeError(
            f"Expected a built functional or Sequential model. Received: {type(model).__name__} {model.name!r}, which "
            "has no graph of layers. Build it with the functional API, or give a Sequential model an Input first."
        )


def check_model(model: Any) -> None:
    """Refuses what cannot be converted, before any work.

    Raises:
        ModelTypeError: no legacy Keras model with a graph of layers and known inputs.
        ExportError: the model computes in less than float32 (its levels would not be exact).
    """
    check_graph(model)
    dtypes = {layer.name: layer.compute_dtype for layer in model._flatten_layers() if hasattr(layer, "compute_dtype")}
    low = {name: dtype for name, dtype in dtypes.items() if dtype in ("float16", "bfloat16")}
    if low:
        name, dtype = next(iter(low.items()))
        raise ExportError(
            f"Expected layers that compute in float32. Received: {name} in {dtype}, where quantiser levels are not "
            "exact. Set the policy to float32, build the model again, copy the weights and re-estimate batch norms."
        )


def to_litert(model: Any, batch_size: int | None = None, configure: Any = None) -> Any:
    """The TensorFlow converter's output as a ``ModelT``; quantised kernels are float constants, batch norms folded.

    Args:
        model: a legacy Keras model.
        batch_size: that the graph is traced with (recurrent layers need one), or None for what the inputs have.
        configure: called with the converter before it runs, to set options.

    Raises:
        ExportError: the converter failed; the message has its last words.
    """
    import tensorflow as tf

    def run(folder: str) -> bytes:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if configure is not None:
            configure(converter)
        return bytes(converter.convert())

    return _renamed(read_model(converted(run, model, "the TensorFlow Lite converter", batch_size)), model)


def to_lce(model: Any) -> Any:
    """Larq Compute Engine's converter's output as a ``ModelT``.

    Raises:
        MissingDependencyError: larq-compute-engine is not installed.
        ExportError: the converter failed.
    """
    require_lce("to convert binary networks")
    import larq_compute_engine as lce

    content = converted(lambda folder: bytes(lce.convert_saved_model(folder)), model, "Larq Compute Engine")
    return _renamed(read_model(content), model)


def traced_names(model: Any) -> list[str]:
    """The names of the inputs of the function that is converted: the model's, where a Python function takes these."""
    names = list(model.input_names)
    plain = all(name.isidentifier() and not keyword.iskeyword(name) for name in names)
    alike = len({name.lower() for name in names}) < len(names)
    return names if plain and not alike else [f"input_{i}" for i in range(len(names))]


def _renamed(converted_model: Any, model: Any) -> Any:
    """The converted model, its inputs under the names that they have in Keras."""
    names = dict(zip(traced_names(model), model.input_names, strict=True))
    for signature in converted_model.signatureDefs or []:
        for entry in signature.inputs or []:
            entry.name = names.get(bytes(entry.name).decode(), bytes(entry.name).decode()).encode()
    return converted_model


def has_loops(model: Any, batch_size: int | None = None) -> bool:
    """Whether the graph of a model's inference has loops, as those of recurrent layers do."""
    graph = _inference(model, batch_size).get_concrete_function().graph.as_graph_def()
    nodes = [graph.node, *(function.node_def for function in graph.library.function)]
    return any(node.op in ("While", "StatelessWhile") for part in nodes for node in part)


def _inference(model: Any, batch_size: int | None) -> Any:
    """A model's inference as a function of TensorFlow, of one batch size or of any."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec([t.shape[0] or batch_size, *t.shape[1:]], t.dtype, name=name)
        for t, name in zip(model.inputs, traced_names(model), strict=True)
    ]

    @tf.function(input_signature=specs, autograph=False)
    def serve(*inputs: Any) -> dict[str, Any]:
        outputs = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
        # names come from the layers, in the order of the flattened outputs, whatever structure these have
        return dict(zip(model.output_names, tf.nest.flatten(outputs), strict=True))

    return serve


def _save_inference(model: Any, folder: str, batch_size: int | None) -> None:
    """A SavedModel with the inference function alone: saving the Keras model would trace every layer again."""
    import tensorflow as tf

    serve = _inference(model, batch_size)
    function = serve.get_concrete_function()
    holder = tf.Module()
    holder.serve = serve
    holder.kept = list(function.graph.variables)
    tf.saved_model.save(holder, folder, signatures={"serving_default": function})


def converted(run: Any, model: Any, who: str, batch_size: int | None = None) -> bytes:
    """What a converter makes of a Keras model; nothing that it prints reaches the terminal.

    Args:
        run: from the folder of an inference-only SavedModel to the bytes of a file.
        model: a legacy Keras model.
        who: the converter, for messages.
        batch_size: that the graph is traced with, or None for what the inputs have.

    Raises:
        ExportError: the converter failed; the message has its last words.
    """
    with _captured_chatter() as chatter:
        try:
            with tempfile.TemporaryDirectory() as folder:
                _save_inference(model, folder, batch_size)
                result: bytes = run(folder)
                return result
        except Exception as error:
            failure = error
    said = [line for line in chatter[0].splitlines() if "error" in line.lower()][:2]
    raise ExportError(
        f"Expected {who} to convert model {model.name!r}. Received: {type(failure).__name__}: "
        f"{str(failure).strip().splitlines()[0] if str(failure).strip() else ''} {' | '.join(said)}. "
        f"{_what_to_do(model, batch_size)}"
    ) from failure


def _what_to_do(model: Any, batch_size: int | None) -> str:
    import tensorflow as tf

    open_sizes = any(None in tensor.shape[1:] or not (tensor.shape[0] or batch_size) for tensor in model.inputs)
    recurrent = (tf.keras.layers.RNN, tf.keras.layers.Bidirectional)
    if open_sizes and any(isinstance(layer, recurrent) for layer in model._flatten_layers()):
        return "Recurrent layers need fixed sizes: pass batch_size=1, and give the inputs a length."
    return "The layer named in the message has no counterpart in TensorFlow Lite: replace it, or split the model there."


@contextmanager
def _captured_chatter() -> Iterator[list[str]]:
    """Keeps what converters print (from C++ too) off the terminal; the text is there afterwards."""
    import logging

    chatter = [""]
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield chatter
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, source in enumerate(saved, start=1):
                os.dup2(source, target)
                os.close(source)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            sink.seek(0)
            chatter[0] = sink.read().decode(errors="replace")
