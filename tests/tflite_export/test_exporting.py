"""The promises around an export: verified, atomic, stripped, resizable, clear when refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.codes import named_layers
from tflite_export.exporting import gather_facts
from tflite_export.flatbuffer import read_model, serialize
from tflite_export.graph import Graph
from tflite_export.runtime import ask, predict
from tflite_export.samples import generated_inputs
from tfqprune.errors import DataError, ExportError, ModelTypeError, OutputError

layers = tf.keras.layers


@pytest.fixture
def broken(exported: Callable[..., te.ExportResult], tmp_path: Path) -> Path:
    """The packed plain network with the last layer's kernel negated."""
    model = read_model(exported("packed", "plain", "2").path)
    graph = Graph(model)
    last = next(operator for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED")
    kernel = -graph.constant(int(last.inputs[1]))
    model.buffers[graph.tensors[int(last.inputs[1])].buffer].data = np.frombuffer(kernel.tobytes(), np.uint8)
    path = tmp_path / "broken.tflite"
    path.write_bytes(serialize(model))
    return path


def test_verify_sees_a_wrong_file(net: Callable[..., Any], broken: Path) -> None:
    agreement = te.verify(net("plain", "2"), broken)
    assert agreement.off_share > 0.9
    assert agreement.top1 < 0.7


def test_verify_counts_on_user_data(net: Callable[..., Any], exported: Callable[..., te.ExportResult]) -> None:
    data = np.random.default_rng(0).normal(size=(10, 8, 8, 3))
    agreement = te.verify(net("plain", "2"), exported("packed", "plain", "2").path, data)
    assert (agreement.samples, agreement.generated, agreement.runtime) == (10, False, "litert")
    assert agreement.top1 == 1.0
    by_name = te.verify(net("plain", "2"), exported("packed", "plain", "2").path, {"image": data}, samples=4)
    assert by_name.samples == 4


@pytest.mark.parametrize("data", [np.zeros((4, 8, 8)), np.zeros((0, 8, 8, 3)), np.array(["x"]), {"picture": 1}])
def test_data_that_does_not_fit_is_refused(
    net: Callable[..., Any], exported: Callable[..., te.ExportResult], data: Any
) -> None:
    with pytest.raises(DataError, match="image"):
        te.verify(net("plain", "2"), exported("packed", "plain", "2").path, data)


def test_verify_refuses_another_models_file(net: Callable[..., Any], exported: Callable[..., te.ExportResult]) -> None:
    with pytest.raises(ExportError, match=r"another model|do not fit|to run"):
        te.verify(net("dense", "2"), exported("packed", "plain", "2").path)


def test_a_file_below_the_promise_is_not_left_behind(
    net: Callable[..., Any], broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = read_model(broken)
    monkeypatch.setattr("tflite_export.formats.packed.insert_decoder", lambda *arguments: None)
    monkeypatch.setattr("tflite_export.formats.packed.to_litert", lambda model, batch_size: wrong)
    monkeypatch.setattr("tflite_export.codes.missing_layers", lambda *arguments: [])
    target = tmp_path / "out" / "model.tflite"
    target.parent.mkdir()
    with pytest.raises(ExportError, match=r"at least 98.0% of first classes.*No file was written"):
        te.export(net("plain", "2"), target, "packed")
    assert not list(target.parent.iterdir())
    kept = te.export(net("plain", "2"), target, "packed", strict=False)
    assert kept.agreement.off_share > 0.9
    assert target.exists()


def test_names_and_signature_stay_and_the_rest_goes(exported: Callable[..., te.ExportResult]) -> None:
    model = read_model(exported("float32", "plain", "2").path)
    graph = Graph(model)
    visible = {int(i) for i in [*graph.subgraph.inputs, *graph.subgraph.outputs]}
    assert all(bool(t.name) == (i in visible) for i, t in enumerate(graph.tensors))
    signature = model.signatureDefs[0]
    assert [entry.name for entry in signature.inputs] == [b"image"]
    assert [entry.name for entry in signature.outputs] == [b"classes"]
    assert model.metadata is None
    assert model.description is None
    contents = [np.asarray(b.data).tobytes() for b in model.buffers if b.data is not None]
    assert len(contents) == len(set(contents))


def test_the_batch_stays_resizable_or_is_fixed(net: Callable[..., Any], tmp_path: Path) -> None:
    model = net("residual", "2")
    arrays = generated_inputs(model, 5)
    fixed = te.export(model, tmp_path / "fixed.tflite", "packed", batch_size=3)
    free = te.export(model, tmp_path / "free.tflite", "packed")
    assert te.benchmark(fixed.path, runs=2, seconds=0, warm_up_seconds=0).batch_size == 3
    np.testing.assert_allclose(
        predict(fixed.path, arrays, runtime="litert")[0], predict(free.path, arrays, runtime="litert")[0], atol=1e-5
    )


def test_a_nested_model_may_have_a_layer_of_the_same_name(tmp_path: Path) -> None:
    """One reads 2 bits, the other real numbers: the facts of each are its own, and so are its bytes."""

    def quantised(bits: int | None) -> lq.layers.QuantDense:
        reads = None if bits is None else lq.quantizers.DoReFa(bits, mode="activations")
        kernel = lq.quantizers.DoReFa(2, mode="weights")
        return lq.layers.QuantDense(8, input_quantizer=reads, kernel_quantizer=kernel, use_bias=False, name="same")

    vector = layers.Input((8,))
    nested = tf.keras.Model(vector, layers.BatchNormalization()(quantised(None)(vector)), name="nested")
    inputs = layers.Input((8,))
    model = tf.keras.Model(inputs, layers.Dense(3, name="head")(nested(quantised(2)(inputs))))
    facts = gather_facts(model)
    assert facts.input_bits == {"same": 2, "nested/same": 32}
    assert facts.kernel_bits == {"same.kernel": 2, "nested/same.kernel": 2}
    for format in ("packed", "hybrid", "fast"):
        result = te.export(model, tmp_path / f"{format}.tflite", format)
        assert result.agreement.max_error < 1e-5
        assert {"same", "nested/same", "head"} <= set(result.breakdown.by_layer)


def test_parts_of_one_name_in_a_layer_all_count() -> None:
    class Pair(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="pair")
            self.first, self.second = layers.Dense(4, name="same"), layers.Dense(5, name="same")

        def call(self, inputs: Any) -> Any:
            return self.second(self.first(inputs))

    inputs = layers.Input((3,))
    model = tf.keras.Model(inputs, Pair()(inputs))
    units = {name: part.units for name, part in named_layers(model).items() if isinstance(part, layers.Dense)}
    assert units == {"pair/same": 4, "pair/same'": 5}
    assert te.floor_bytes(model) == 4 * (3 * 4 + 4 + 4 * 5 + 5)


def test_batch_sizes_that_cannot_be_are_refused(net: Callable[..., Any], tmp_path: Path) -> None:
    for wrong in (0, 1.5, True):
        with pytest.raises(ExportError, match="batch_size to be a whole number of at least 1"):
            te.export(net("residual", "2"), tmp_path / "x.tflite", batch_size=wrong)
    given = layers.Input((4,), batch_size=4)
    fixed = tf.keras.Model(given, layers.Dense(3)(given))
    with pytest.raises(ExportError, match=r"Expected batch_size=4 or None.* Received: 1"):
        te.export(fixed, tmp_path / "x.tflite", batch_size=1)
    assert te.export(fixed, tmp_path / "four.tflite", batch_size=4).agreement.max_error < 1e-5


@pytest.mark.parametrize(("of_input", "of_file"), [(1, None), (None, 1)])
def test_each_sample_meets_a_recurrent_layer_anew(of_input: int | None, of_file: int | None, tmp_path: Path) -> None:
    """The file keeps its state from one run to the next, unless it is told to forget it."""
    inputs = layers.Input((5, 4), batch_size=of_input)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.LSTM(6)(inputs)))
    data = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    result = te.export(model, tmp_path / "m.tflite", "float32", data=data, batch_size=of_file)
    expected = np.concatenate([model(sample[None]) for sample in data])
    np.testing.assert_allclose(predict(result.path, [data], runtime="litert")[0], expected, atol=1e-5)


def test_larq_compute_engine_takes_one_sample_at_a_time(net: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("larq_compute_engine")
    with pytest.raises(ExportError, match=r"Expected batch_size=1 or None.* Larq Compute Engine.* Received: 2"):
        te.export(net("plain", "binary"), tmp_path / "x.tflite", "binary", batch_size=2)


def test_what_can_be_refused_is_refused_before_the_conversion(
    net: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converts(*arguments: Any) -> None:
        raise AssertionError("converted first")

    monkeypatch.setattr("tflite_export.formats.float32.to_litert", converts)
    for wrong in ({"batch_size": 0}, {"float_weights": "int3"}, {"samples": 0}):
        with pytest.raises((ExportError, DataError), match=f"Expected {next(iter(wrong))} to be"):
            te.export(net("plain", "2"), tmp_path / "x.tflite", "float32", **wrong)


@pytest.mark.parametrize("format", ["float32", "packed"])
def test_sizes_that_the_model_leaves_open(tmp_path: Path, format: str) -> None:
    given = layers.Input((None, None, 3))
    x = lq.layers.QuantConv2D(4, 3, kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"))(given)
    model = tf.keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(5, 12, 9, 3))
    result = te.export(model, tmp_path / "open.tflite", format, data=images)
    assert result.agreement.max_error < 1e-5
    assert te.verify(model, result.path).max_error < 1e-5  # another size, in the same file
    # a benchmark takes 8 x 8 for what is open: the input of 192 floats and the map of 6 x 6 x 4 must be there
    assert te.benchmark(result.path, runs=2, seconds=0, warm_up_seconds=0).arena_bytes >= 4 * (192 + 144)
    one = te.export(model, tmp_path / "one.tflite", format, data=images, batch_size=2)
    assert one.agreement.max_error < 1e-5
    assert te.benchmark(one.path, runs=2, seconds=0, warm_up_seconds=0).batch_size == 2


def test_a_benchmark_runs_the_sizes_that_it_says(tmp_path: Path) -> None:
    given = layers.Input((None, 5))
    model = tf.keras.Model(given, layers.Conv1D(4, 3)(given))
    result = te.export(model, tmp_path / "open.tflite", "float32")
    answer = ask(
        {"task": "shapes", "model": str(result.path), "runtime": "litert", "threads": 1, "xnnpack": False}, 60.0
    )
    assert [1, 8, 5] in answer["shapes"]


def test_several_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    # names whose order differs from the order of definition
    b, a = layers.Input((3,), name="b_in"), layers.Input((2,), name="a_in")
    joined = layers.Concatenate()([b, a])
    model = tf.keras.Model([b, a], [layers.Dense(4, name="z_out")(joined), layers.Dense(2, name="c_out")(joined)])
    result = te.export(model, tmp_path / "two.tflite", "float32")
    assert result.agreement.max_error < 1e-5
    assert result.agreement.top1 == 1.0


def test_keras_3_and_subclassed_models_are_refused(tmp_path: Path) -> None:
    class Own(tf.keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(ModelTypeError, match=r"no graph of layers|has no graph"):
        te.export(Own(), tmp_path / "x.tflite")
    with pytest.raises(ModelTypeError, match="Expected a legacy Keras model"):
        te.export(object(), tmp_path / "x.tflite")


def test_low_precision_arithmetic_is_refused(tmp_path: Path) -> None:
    given = layers.Input((3,))
    model = tf.keras.Model(given, layers.Dense(2, dtype="mixed_bfloat16", name="low")(given))
    with pytest.raises(ExportError, match=r"low in bfloat16"):
        te.export(model, tmp_path / "x.tflite")


@pytest.mark.parametrize("path", [None, b"x.tflite", "a\0b", "x" * 300, "", "."])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(OutputError, match=r"Expected the path of a \.tflite file to write"):
        te.export(None, path)


def test_links_and_pipes(tmp_path: Path) -> None:
    """What a link leads to is written; a pipe or a device is never replaced."""
    model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(3)])
    (tmp_path / "real.tflite").write_text("old")
    (tmp_path / "link.tflite").symlink_to("real.tflite")
    result = te.export(model, tmp_path / "link.tflite")
    assert (tmp_path / "link.tflite").is_symlink()
    assert (tmp_path / "real.tflite").stat().st_size == result.bytes
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="a device or a pipe of that name"):
        te.export(model, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("layer", [tf.keras.layers.GRU, tf.keras.layers.SimpleRNN, tf.keras.layers.LSTM])
def test_sequences_of_recurrent_layers(layer: Any, tmp_path: Path) -> None:
    pool = tf.keras.layers.GlobalMaxPooling1D()
    model = tf.keras.Sequential([tf.keras.layers.Input((5, 3)), layer(4, return_sequences=True), pool])
    assert te.export(model, tmp_path / "x.tflite", "float32", batch_size=1).agreement.max_error < 1e-5


@pytest.mark.parametrize("layer", [tf.keras.layers.GRU, tf.keras.layers.SimpleRNN])
def test_loops_are_not_calibrated(layer: Any, tmp_path: Path) -> None:
    """TensorFlow's calibrator ends the process."""
    model = tf.keras.Sequential([tf.keras.layers.Input((5, 3)), layer(4)])
    with pytest.raises(ExportError, match="Expected a model without loops"):
        te.export(model, tmp_path / "x.tflite", "int8", batch_size=1)


def test_recurrent_layers_want_one_size(tmp_path: Path) -> None:
    model = tf.keras.Sequential([tf.keras.layers.Input((5, 3)), tf.keras.layers.GRU(4)])
    with pytest.raises(ExportError, match="pass batch_size=1"):
        te.export(model, tmp_path / "x.tflite")


@pytest.mark.parametrize("names", [["class"], ["a", "A"], ["a/b", "a.b"], ["x y", "x:0"], ["lambda", "b"]])
@pytest.mark.parametrize("format", ["float32", "int8"])
def test_names_that_python_functions_do_not_take(names: list[str], format: str, tmp_path: Path) -> None:
    inputs = [layers.Input((4,), name=name) for name in names]
    x = sum((i + 1) * layers.Dense(3)(tensor) for i, tensor in enumerate(inputs))
    model = tf.keras.Model(inputs, layers.Lambda(lambda x: x, name="sum")(x))
    result = te.export(model, tmp_path / "x.tflite", format)
    assert format == "int8" or result.agreement.max_error < 1e-5
    (signature,) = read_model(result.path).signatureDefs
    assert sorted(entry.name.decode() for entry in signature.inputs) == sorted(names)


def test_an_answer_that_depends_on_the_batch_is_no_fault_of_the_file(tmp_path: Path) -> None:
    """Ternary weight networks' threshold is a mean over the tensor, of activations over the batch."""
    ternary = lq.quantizers.SteTern(ternary_weight_networks=True)
    inputs = layers.Input((8, 8, 3))
    x = lq.layers.QuantConv2D(8, 3, input_quantizer=ternary, kernel_quantizer="ste_sign")(inputs)
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(ExportError, match="answers otherwise for a sample alone than among others"):
        te.export(model, tmp_path / "x.tflite")


def test_what_is_no_model_no_file_no_option(tmp_path: Path) -> None:
    model = tf.keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    path = te.export(model, tmp_path / "x.tflite").path
    for call in (lambda: te.verify("x", path), lambda: te.floor_bytes(None), lambda: te.size_report(path, 5)):
        with pytest.raises(ModelTypeError, match="Expected a legacy Keras model"):
            call()
    for call in (lambda: te.verify(model, None), lambda: te.size_report(5)):
        with pytest.raises(ExportError, match=r"Expected a readable \.tflite file"):
            call()
    with pytest.raises(ExportError, match="Expected format to be"):
        te.export(model, path, ["packed"])
    with pytest.raises(ExportError, match="Expected optimize to be"):
        te.export(model, path, "float32", optimize="small")
    for call in (lambda: te.export(model, path, xnnpack="no"), lambda: te.verify(model, path, xnnpack=1)):
        with pytest.raises(ExportError, match="Expected xnnpack to be True, False or None"):
            call()


def test_places_that_cannot_be_written_are_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        te.export(None, tmp_path / "absent" / "x.tflite")
    with pytest.raises(OutputError, match="a folder of that name"):
        te.export(None, tmp_path)


def test_benchmark(exported: Callable[..., te.ExportResult]) -> None:
    result = exported("packed", "plain", "2")
    measured = te.benchmark(result.path, runs=5, seconds=0.0, warm_up_seconds=0.0)
    assert measured.runs == 5
    assert 0 < measured.latency_min_ms <= measured.latency_ms
    assert measured.latency_spread_ms >= 0
    # at least the arena must have become resident, and a net of 30 kB cannot need 50 MB
    assert 0 < measured.peak_memory < 50e6
    assert measured.arena_bytes == 4 * (2 * 2304 + 1024 + 3 * 16)
    assert measured.file_bytes == result.bytes
    assert (measured.runtime, measured.xnnpack, measured.threads) == ("litert", False, 1)


def test_benchmark_sees_more_work(exported: Callable[..., te.ExportResult], tmp_path: Path) -> None:
    given = layers.Input((64, 64, 16))
    x = layers.Conv2D(64, 3, padding="same")(given)
    wide = te.export(
        tf.keras.Model(given, layers.Conv2D(64, 3, padding="same")(x)), tmp_path / "wide.tflite", "float32", samples=2
    )
    small = te.benchmark(exported("float32", "plain", "2").path, runs=5, seconds=0.0)
    large = te.benchmark(wide.path, runs=5, seconds=0.0)
    assert large.latency_ms > 5 * small.latency_ms
    # the input of 256 KiB and two maps of 1 MiB each
    assert large.arena_bytes == 2 * 64 * 64 * 64 * 4
    assert large.peak_memory > 64 * 64 * 64 * 4


def test_benchmark_of_a_binary_file(exported: Callable[..., te.ExportResult]) -> None:
    pytest.importorskip("larq_compute_engine")
    measured = te.benchmark(exported("binary", "plain", "binary").path, runs=3, seconds=0.0)
    assert measured.runtime == "lce"
    assert measured.latency_ms > 0
    with pytest.raises(ExportError, match="Larq Compute Engine file"):
        te.benchmark(exported("binary", "plain", "binary").path, runtime="litert")


def test_a_file_that_the_runtime_refuses_ends_in_an_error(
    exported: Callable[..., te.ExportResult], tmp_path: Path
) -> None:
    model = read_model(exported("float32", "plain", "2").path)
    model.operatorCodes[0].version = 99
    path = tmp_path / "future.tflite"
    path.write_bytes(serialize(model))
    with pytest.raises(ExportError, match=r"Expected litert on .* to run. Received"):
        te.benchmark(path)


def test_import_is_cheap_and_loads_no_tensorflow() -> None:
    code = (
        "import json, sys, tflite_export as te; te.benchmark; te.size_report; "
        "print(json.dumps([m for m in ('tensorflow', 'larq', 'larq_compute_engine') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_public_names_stay_functions_after_use(exported: Callable[..., te.ExportResult]) -> None:
    exported("packed", "plain", "2")
    assert all(callable(getattr(te, name)) for name in te.__all__)
