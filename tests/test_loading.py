"""Models load from every form of file, and nothing in a file runs unless it is trusted."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from tfqprune.errors import ModelLoadError
from tfqprune.loading import load_model

FORMS = ["model.keras", "model.h5", "saved_model"]


def _model(*extra: Any) -> tf.keras.Model:
    image = tf.keras.Input((4, 4, 2), name="image")
    x = lq.layers.QuantConv2D(
        3, 3, kernel_quantizer=lq.quantizers.DoReFa(2, "weights"), input_quantizer="ste_sign", name="conv"
    )(image)
    for layer in extra:
        x = layer(x)
    return tf.keras.Model(image, x, name="tiny")


def _output(model: tf.keras.Model) -> np.ndarray:
    return np.asarray(model(np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)))


@pytest.mark.parametrize("form", FORMS)
def test_larq_layers(form: str, tmp_path: Path) -> None:
    model = _model(tf.keras.layers.BatchNormalization())
    model.save(tmp_path / form)
    loaded = load_model(tmp_path / form)
    np.testing.assert_array_equal(_output(loaded), _output(model))
    assert isinstance(loaded.get_layer("conv"), lq.layers.QuantConv2D)
    assert loaded.get_layer("conv").kernel_quantizer.precision == 2


def test_the_form_is_read_from_the_file_not_its_name(tmp_path: Path) -> None:
    _model().save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").name == "tiny"
    _model().save(tmp_path / "model.keras")
    (tmp_path / "model.keras").rename(tmp_path / "model.zip")
    assert load_model(tmp_path / "model.zip").name == "tiny"


@pytest.mark.parametrize("form", FORMS)
def test_lambda_needs_trust(form: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    model = _model(tf.keras.layers.Lambda(lambda x: x * 2.0, name="doubled"))
    model.save(tmp_path / form)
    with pytest.raises(ModelLoadError, match=r"runs no code of its own.*Lambda layer \(doubled\).*--trust"):
        load_model(tmp_path / form)
    np.testing.assert_array_equal(_output(load_model(tmp_path / form, trust=True)), _output(model))
    assert not ran.exists()


@pytest.mark.parametrize("form", FORMS)
def test_lambda_in_a_nested_model(form: str, tmp_path: Path) -> None:
    inner = tf.keras.Sequential([tf.keras.Input((2, 2, 3)), tf.keras.layers.Lambda(lambda x: x + 1.0, name="deep")])
    _model(inner).save(tmp_path / form)
    with pytest.raises(ModelLoadError, match=r"Lambda layer \(deep\)"):
        load_model(tmp_path / form)


@pytest.mark.parametrize("form", FORMS)
def test_operators_that_compute_are_welcome(form: str, tmp_path: Path) -> None:
    image = tf.keras.Input((4, 4, 2))
    x = tf.nn.relu6(image + 3.0) / 6.0
    x = tf.concat([x[:, :, :, :1], tf.math.square(x)], axis=-1)
    model = tf.keras.Model(image, tf.reshape(x, (-1, 48)))
    model.save(tmp_path / form)
    np.testing.assert_array_equal(_output(load_model(tmp_path / form)), _output(model))


def _rewritten(path: Path, change: Any) -> Path:
    """A copy of a .keras file with its description changed."""
    copy = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            target.writestr(name, data)
    return copy


@pytest.mark.parametrize("function", ["io.write_file", "py_function", "raw_ops.WriteFile", "load_library"])
def test_operators_that_do_more_than_compute_are_not(function: str, tmp_path: Path) -> None:
    image = tf.keras.Input((4, 4, 2))
    tf.keras.Model(image, tf.nn.relu6(image)).save(tmp_path / "model.keras")

    def change(config: Any) -> None:
        layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "TFOpLambda")
        assert layer["config"]["function"] == "nn.relu6"
        layer["config"]["function"] = function

    with pytest.raises(ModelLoadError, match=f"calls tf.{function}"):
        load_model(_rewritten(tmp_path / "model.keras", change))


@pytest.mark.parametrize(
    "activation",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
        {"module": "shutil", "class_name": "rmtree", "config": {}, "registered_name": None},
    ],
)
def test_classes_of_other_modules_need_trust(activation: dict[str, Any], tmp_path: Path) -> None:
    _model().save(tmp_path / "model.keras")

    def change(config: Any) -> None:
        config["config"]["layers"][1]["config"]["activation"] = activation

    with pytest.raises(ModelLoadError, match=f"of the module '{activation['module']}'"):
        load_model(_rewritten(tmp_path / "model.keras", change))


def test_saved_model_that_writes_files(tmp_path: Path) -> None:
    class Writer(tf.keras.layers.Layer):
        def call(self, x: Any) -> Any:
            with tf.control_dependencies([tf.io.write_file(str(tmp_path / "written"), "x")]):
                return tf.identity(x)

    _model(Writer()).save(tmp_path / "saved")
    (tmp_path / "written").unlink(missing_ok=True)
    with pytest.raises(ModelLoadError, match=r"operator WriteFile"):
        load_model(tmp_path / "saved")
    assert not (tmp_path / "written").exists()


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match=r"Expected a Keras model.*which does not exist"):
            load_model(tmp_path / "model.keras")

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x89HDF\r\n\x1a\n but no more", b"PK\x03\x04 neither"])
    def test_damaged(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "model.keras").write_bytes(content)
        with pytest.raises(ModelLoadError, match="Expected a Keras model"):
            load_model(tmp_path / "model.keras")

    def test_cut_off(self, tmp_path: Path) -> None:
        _model().save(tmp_path / "model.keras")
        data = (tmp_path / "model.keras").read_bytes()
        (tmp_path / "model.keras").write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelLoadError, match="Expected a Keras model"):
            load_model(tmp_path / "model.keras")

    def test_another_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
            archive.writestr("letter.txt", "dear reader")
        with pytest.raises(ModelLoadError, match=r"cannot be read .*config\.json"):
            load_model(tmp_path / "model.keras")

    def test_another_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match=r"a folder without saved_model\.pb"):
            load_model(tmp_path)

    def test_saved_model_without_keras(self, tmp_path: Path) -> None:
        tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
        with pytest.raises(ModelLoadError, match=r"without keras_metadata\.pb"):
            load_model(tmp_path / "saved")

    def test_weights_only(self, tmp_path: Path) -> None:
        _model().save_weights(tmp_path / "weights.h5")
        with pytest.raises(ModelLoadError, match="holds weights only"):
            load_model(tmp_path / "weights.h5")

    def test_keras_3(self, tmp_path: Path) -> None:
        import keras

        keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "model.keras")
        with pytest.raises(ModelLoadError, match=r"legacy Keras.*saved by Keras 3\..*set_weights"):
            load_model(tmp_path / "model.keras")

    def test_unknown_layer(self, tmp_path: Path) -> None:
        class Strange(tf.keras.layers.Layer):
            pass

        _model(Strange()).save(tmp_path / "model.h5")
        with pytest.raises(ModelLoadError, match="Keras cannot load: ValueError: Unknown layer: 'Strange'"):
            load_model(tmp_path / "model.h5")
