"""Data: shapes, disjoint and repeatable splits, augmentation pixel by pixel, and every way to ask wrongly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tfqprune import data
from tfqprune.data import splits
from tfqprune.errors import DataError


def _keys(split: data.Split) -> set[bytes]:
    return {image.tobytes() for image in split.x}


class TestDigits:
    def test_parts(self) -> None:
        digits = data.load("digits", seed=0)
        # 1797 images: 0.2 x 1797 = 359.4 -> 359 to test on, 0.15 x 1797 = 269.55 -> 270 to validate on, 1168 stay.
        assert (len(digits.train), len(digits.validation), len(digits.test)) == (1168, 270, 359)
        assert digits.train.x.shape == (1168, 8, 8, 1)
        assert digits.train.x.dtype == np.float32
        assert digits.train.y.dtype == np.int64
        assert (digits.input_shape, digits.num_classes, digits.name) == ((8, 8, 1), 10, "digits")
        assert (digits.train.x.min(), digits.train.x.max()) == (0.0, 1.0)

    def test_parts_are_disjoint_and_complete(self) -> None:
        from sklearn.datasets import load_digits

        digits = data.load("digits", seed=3)
        parts = [_keys(part) for part in (digits.train, digits.validation, digits.test)]
        assert sum(map(len, parts)) == len(parts[0] | parts[1] | parts[2])
        everything = {image.tobytes() for image in (load_digits().images[..., None] / 16).astype(np.float32)}
        assert parts[0] | parts[1] | parts[2] == everything

    def test_classes_in_proportion(self) -> None:
        digits = data.load("digits", seed=0)
        # 174 to 183 images a class: a tenth of each part, give or take one and a half images.
        for part in (digits.train, digits.validation, digits.test):
            assert np.abs(np.bincount(part.y, minlength=10) - len(part) / 10).max() <= 0.04 * len(part) / 10 + 1.5

    def test_labels_belong_to_their_images(self) -> None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        label = {(i[..., None] / 16).astype(np.float32).tobytes(): t for i, t in zip(raw.images, raw.target)}
        digits = data.load("digits", seed=5)
        for part in (digits.train, digits.validation, digits.test):
            assert [label[image.tobytes()] for image in part.x] == part.y.tolist()

    def test_the_seed_decides(self) -> None:
        first, again, other = (data.load("digits", seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.train.x, again.train.x)
        np.testing.assert_array_equal(first.test.y, again.test.y)
        assert _keys(first.test) != _keys(other.test)

    def test_limit(self) -> None:
        digits = data.load("digits", seed=0, limit=100)
        assert (len(digits.train), len(digits.validation), len(digits.test)) == (100, 100, 100)
        assert set(np.bincount(digits.train.y)) <= {9, 10, 11}
        assert len(data.load("digits", seed=0, limit=300).validation) == 270


class TestBadRequests:
    @pytest.mark.parametrize("limit", [0, -1, 2.5, True])
    def test_limit_must_be_a_positive_integer(self, limit: object) -> None:
        with pytest.raises(DataError, match="Expected limit, a positive number"):
            data.load("digits", limit=limit)  # type: ignore[arg-type]

    def test_limit_below_the_classes(self) -> None:
        with pytest.raises(DataError, match=r"at least 10, one image per class of 'digits'\. Received: 9"):
            data.load("digits", limit=9)

    @pytest.mark.parametrize(
        ("name", "nearest"), [("cifra10", "cifar10"), ("fashion-mnist", "fashion_mnist"), ("digit", "digits")]
    )
    def test_unknown_name_suggests_the_nearest(self, name: str, nearest: str) -> None:
        with pytest.raises(DataError, match=f"Received: '{name}'. Did you mean '{nearest}'"):
            data.load(name)

    @pytest.mark.parametrize("name", ["glue", "coco", "imdb_reviews"])
    def test_not_an_image_classification_set(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"Expected an image-classification set.*Received: '{name}'"):
            data.load(name, data_dir=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_images_of_different_sizes(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="images of one size"):
            data.load("tf_flowers", data_dir=tmp_path)

    def test_unknown_configuration_of_a_known_set(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="Received: 'cifar10/no_such_config'"):
            data.load("cifar10/no_such_config", data_dir=tmp_path)

    def test_missing_folder(self) -> None:
        with pytest.raises(DataError, match="Expected data_dir, an existing folder"):
            data.load("mnist", data_dir="/no/such/folder")

    def test_failed_download(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import tensorflow_datasets as tfds

        def fail(self: object, **arguments: object) -> None:
            raise ConnectionError("no route to host\nand more")

        monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
        with pytest.raises(DataError, match=r"download and prepare 'mnist'.*ConnectionError: no route to host\. Check"):
            data.load("mnist", data_dir=tmp_path)


class TestWrittenSets:
    """Small sets written by TensorFlow Datasets itself, so that its path is walked without a download."""

    @staticmethod
    def _write(folder: Path, splits: dict[str, int], *, label_names: int = 3, image: object = None) -> str:
        import tensorflow_datasets as tfds

        rng = np.random.default_rng(0)
        image = image or tfds.features.Image(shape=(6, 6, 3))
        features = tfds.features.FeaturesDict({"pic": image, "kind": tfds.features.ClassLabel(num_classes=label_names)})

        def examples(count: int) -> list[dict[str, object]]:
            pixels = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
            return [{"pic": pixels[i], "kind": i % label_names} for i in range(count)]

        class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            name = "tiny_pictures"

            def _info(self) -> object:
                return self.dataset_info_from_configs(features=features, supervised_keys=("pic", "kind"))

            def _split_generators(self, manager: object) -> object:
                return {split: enumerate(examples(count)) for split, count in splits.items()}

            def _generate_examples(self) -> object:
                raise NotImplementedError

        Tiny(data_dir=folder).download_and_prepare()
        return "tiny_pictures"

    @pytest.mark.parametrize("where", ["argument", "environment"])
    def test_with_a_test_split(self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = self._write(tmp_path, {"train": 60, "test": 30})
        if where == "environment":
            monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        tiny = data.load(name, seed=0, data_dir=tmp_path if where == "argument" else None)
        assert (len(tiny.train), len(tiny.validation), len(tiny.test)) == (54, 6, 30)
        assert (tiny.num_classes, tiny.input_shape) == (3, (6, 6, 3))
        assert np.bincount(tiny.validation.y).tolist() == [2, 2, 2]
        assert tiny.train.x.dtype == np.float32
        assert 0.9 < tiny.train.x.max() <= 1.0
        # 255 was the largest level, so every pixel is a multiple of 1/255.
        np.testing.assert_allclose(tiny.train.x * 255, np.rint(tiny.train.x * 255), atol=1e-3)

    def test_without_a_test_split(self, tmp_path: Path) -> None:
        tiny = data.load(self._write(tmp_path, {"train": 60}), seed=0, data_dir=tmp_path)
        # 0.2 x 60 to test on and 0.1 x 60 to validate on.
        assert (len(tiny.train), len(tiny.validation), len(tiny.test)) == (42, 6, 12)

    def test_without_a_training_split(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"Expected a set with a 'train' split.*\['test'\]"):
            data.load(self._write(tmp_path, {"test": 9}), data_dir=tmp_path)

    def test_too_large_for_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        name = self._write(tmp_path, {"train": 60, "test": 30})
        monkeypatch.setattr(splits, "_LARGEST", 90 * 6 * 6 * 3 * 4 - 1)
        with pytest.raises(DataError, match=r"fits in memory.*90 images.*limit"):
            data.load(name, data_dir=tmp_path)
        assert len(data.load(name, data_dir=tmp_path, limit=12).train) == 12


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("cifar10", (32, 32, 3), (45_000, 5_000, 10_000)), ("fashion_mnist", (28, 28, 1), (54_000, 6_000, 10_000))],
)
def test_real_sets_where_they_are(name: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    if not (Path(os.environ.get("TFDS_DATA_DIR", "/nonexistent")) / name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR has no {name}")
    loaded = data.load(name, seed=0)
    assert loaded.input_shape == shape
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == sizes
    assert np.bincount(loaded.train.y).tolist() == [sizes[0] // 10] * 10


class TestAugmented:
    def test_pad_and_crop_moves_whole_pixels(self) -> None:
        # One white pixel in the middle of 9x9: after the crop it lies at most 2 pixels away, and nothing else is lit.
        x = np.zeros((200, 9, 9, 1), np.float32)
        x[:, 4, 4] = 1.0
        images = np.concatenate(
            [b for b, _ in data.augmented(x, np.arange(200), batch_size=32, pad=2).as_numpy_iterator()]
        )
        assert images.sum() == 200
        rows, columns = np.argwhere(images[..., 0])[:, 1], np.argwhere(images[..., 0])[:, 2]
        assert set(rows) == set(columns) == {2, 3, 4, 5, 6}

    def test_zeros_move_in(self) -> None:
        x = np.ones((64, 8, 8, 3), np.float32)
        images, _ = next(iter(data.augmented(x, np.zeros(64), batch_size=64, pad=1, flip=False).as_numpy_iterator()))
        # A shift by (a, b) leaves (8 - |a|)(8 - |b|) lit pixels of 3 channels: 64, 56 or 49.
        assert set(images[..., 0].sum((1, 2))) == {64.0, 56.0, 49.0}

    def test_flip_mirrors_about_half(self) -> None:
        x = np.tile(np.arange(6, dtype=np.float32)[None, None, :, None], (400, 5, 1, 1))
        images = np.concatenate(
            [b for b, _ in data.augmented(x, np.zeros(400), batch_size=400, pad=0, flip=True).as_numpy_iterator()]
        )
        mirrored = (images == x[0][:, ::-1]).all((1, 2, 3))
        assert ((images == x[0]).all((1, 2, 3)) ^ mirrored).all()
        assert 140 < mirrored.sum() < 260  # six standard deviations of 10 around 200

    def test_defaults_leave_grey_images_alone(self) -> None:
        digits = data.load("digits", limit=50)
        seen = np.concatenate([b for b, _ in data.augmented(digits.train.x, digits.train.y, batch_size=16)])
        assert {i.tobytes() for i in seen} == {i.tobytes() for i in digits.train.x}

    def test_labels_travel_with_their_images_and_epochs_differ(self) -> None:
        x = np.arange(40, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 1), np.float32)
        pipeline = data.augmented(x, np.arange(40), batch_size=16, seed=7, targets=[np.arange(40) * 2])
        assert len(pipeline) == 3
        epochs = []
        for _ in range(2):
            order = []
            for images, (labels, doubled) in pipeline.as_numpy_iterator():
                np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
                np.testing.assert_array_equal(doubled, 2 * labels)
                order += labels.tolist()
            assert sorted(order) == list(range(40))
            epochs.append(order)
        assert epochs[0] != epochs[1]

    def test_the_seed_decides(self) -> None:
        x = np.random.default_rng(0).random((30, 8, 8, 3), dtype=np.float32)

        def two_epochs(seed: int) -> np.ndarray:
            pipeline = data.augmented(x, np.arange(30), batch_size=8, seed=seed)
            return np.concatenate([b for _ in range(2) for b, _ in pipeline.as_numpy_iterator()])

        np.testing.assert_array_equal(two_epochs(1), two_epochs(1))
        assert not np.array_equal(two_epochs(1), two_epochs(2))
        assert not np.array_equal(two_epochs(1)[:30], two_epochs(1)[30:])

    @pytest.mark.parametrize(
        ("shape", "labels", "arguments", "message"),
        [
            ((5, 8, 8), 5, {}, r"Expected images \[images, height"),
            ((5, 8, 8, 3), 4, {}, "as many labels"),
            ((0, 8, 8, 3), 0, {}, "Expected images"),
            ((5, 8, 8, 3), 5, {"pad": 8}, "pad < 8"),
            ((5, 8, 8, 3), 5, {"batch_size": 0}, "batch_size of 1 or more"),
        ],
    )
    def test_refuses(self, shape: tuple[int, ...], labels: int, arguments: dict[str, int], message: str) -> None:
        with pytest.raises(DataError, match=message):
            data.augmented(np.zeros(shape, np.float32), np.zeros(labels), **{"batch_size": 2, **arguments})


def test_digits_need_no_tensorflow() -> None:
    import subprocess

    code = "import sys; from tfqprune import data; data.load('digits'); print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
