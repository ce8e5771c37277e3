"""What subcommands work on: data brought to the model's input, outputs that are free."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from PIL import Image

from tfqprune.cli import inputs
from tfqprune.cli.session import Session
from tfqprune.errors import DataError, ExportError, ModelLoadError, OutputError

SESSION = Session("prune", {})
OPTIONS = {"seed": 0, "data_dir": None, "limit": None}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of five colour images, 12 pixels wide and 10 high."""
    for name, colour in (("day", (200, 220, 240)), ("night", (10, 10, 30))):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (12, 10), colour).save(tmp_path / "photographs" / name / f"{number}.jpg")
    return tmp_path / "photographs"


def small(shape: tuple[int | None, ...], classes: int = 2) -> tf.keras.Model:
    layers = [tf.keras.Input(shape), tf.keras.layers.GlobalAveragePooling2D(), tf.keras.layers.Dense(classes)]
    return tf.keras.Sequential(layers)


@pytest.mark.parametrize(
    ("shape", "resize", "found"),
    [
        ((8, 8, 3), True, (8, 8, 3)),
        ((8, 8, 1), True, (8, 8, 1)),
        ((10, 12, 1), False, (10, 12, 1)),
        ((None, None, 3), False, (10, 12, 3)),
    ],
)
def test_images_are_brought_to_the_input(
    shape: tuple[int | None, ...], resize: bool, found: tuple[int, ...], photographs: Path
) -> None:
    splits = inputs.open_data(SESSION, str(photographs), small(shape), resize=resize, **OPTIONS)  # type: ignore[arg-type]
    assert splits.input_shape == found
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 10


def test_refused(photographs: Path) -> None:
    with pytest.raises(DataError, match=r"Expected samples of 8x8x3.*with samples of 10x12x3.*--resize"):
        inputs.open_data(SESSION, str(photographs), small((8, 8, 3)), resize=False, **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="images of one size, to resize to"):
        inputs.open_data(SESSION, str(photographs), small((None, 8, 3)), resize=True, **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="at most 9 classes"):
        inputs.open_data(SESSION, "digits", small((8, 8, 1), 9), resize=False, **OPTIONS)  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    (tmp_path / "sub").mkdir()
    inputs.free_file(tmp_path / "sub" / "slim.keras", overwrite=False)
    with pytest.raises(OutputError, match=r"which cannot be written\. Choose another one"):
        inputs.free_file(tmp_path / "slim.keras", overwrite=True)


def test_several_inputs() -> None:
    a, b = tf.keras.Input((2,)), tf.keras.Input((2,))
    model = tf.keras.Model([a, b], tf.keras.layers.Dense(2)(a + b))
    with pytest.raises(DataError, match=r"one input and one output\. Received: 2 and 1"):
        inputs.open_data(SESSION, "digits", model, resize=False, **OPTIONS)  # type: ignore[arg-type]


class TestOutputs:
    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "slim.keras"
        inputs.free_file(path, overwrite=False, suffixes=(".keras",))
        path.touch()
        inputs.free_file(path, overwrite=True)
        with pytest.raises(OutputError, match="which exists"):
            inputs.free_file(path, overwrite=False)
        with pytest.raises(OutputError, match=r"ends in \.keras"):
            inputs.free_file(tmp_path / "slim.h5", overwrite=False, suffixes=(".keras",))
        with pytest.raises(OutputError, match="which is a folder"):
            inputs.free_file(tmp_path, overwrite=True)
        assert inputs.settings_of(path) == tmp_path / "slim.keras.toml"
        assert inputs.beside(path, "plan.json") == tmp_path / "slim.plan.json"

    def test_folders(self, tmp_path: Path) -> None:
        inputs.free_folder(tmp_path / "new", overwrite=False)
        (tmp_path / "run.json").write_text('{"status": "running", "settings": {}, "holds": []}')
        inputs.free_folder(tmp_path, overwrite=False)
        (tmp_path / "run.json").write_text('{"status": "finished", "settings": {}, "holds": []}')
        inputs.free_folder(tmp_path, overwrite=True)
        inputs.free_folder(tmp_path, overwrite=False, may_grow=True)
        with pytest.raises(OutputError, match="holds a finished run"):
            inputs.free_folder(tmp_path, overwrite=False)

    def test_tflite_files(self, tmp_path: Path) -> None:
        for path, what in ((tmp_path, "is a folder"), (tmp_path / "x.tflite", "does not exist")):
            with pytest.raises(ExportError, match=f"Expected a .tflite file. Received: .* which {what}"):
                inputs.require_tflite(path)

    def test_models(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="which does not exist"):
            inputs.require_model(tmp_path / "none.keras")
