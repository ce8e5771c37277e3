"""Data of the user's own: what a name means, folders of images, files of arrays, functions, and what fits a model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tfqprune import data
from tfqprune.data.sources import source_form
from tfqprune.errors import DataError


def picture(path: Path, value: int, size: tuple[int, int] = (6, 4), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "I;16", "F") else (value,) * len(mode)
    Image.new(mode, size, fill).save(path)


def pictures(folder: Path, count: int = 20, **options: object) -> Path:
    """Two classes, "dark" (value 10 and up) and "light" (value 200 and up), 6 pixels wide and 4 high."""
    for number in range(count):
        picture(folder / "dark" / f"{number}.png", 10 + number, **options)  # type: ignore[arg-type]
        picture(folder / "light" / f"{number}.png", 200 + number, **options)  # type: ignore[arg-type]
    return folder


class TestNames:
    @pytest.mark.parametrize(
        ("name", "form"),
        [
            ("digits", "digits"),
            ("cifar10", "set"),
            ("mnist_corrupted/identity", "set"),
            ("cifar10:3.0.2", "set"),
            ("my_module:make", "function"),
            ("package.module:make", "function"),
            ("there", "folder"),
            ("./cifar10", "folder"),
            ("file.npz", "file"),
        ],
    )
    def test_form(self, name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("there").mkdir()
        Path("cifar10").mkdir()
        Path("file.npz").touch()
        assert source_form(name) == form

    @pytest.mark.parametrize(
        ("name", "said"), [("none.npz", "which does not exist"), ("a.csv", "is no .npz file"), ("./none", "not exist")]
    )
    def test_refused(self, name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("a.csv").touch()
        with pytest.raises(DataError, match=said):
            source_form(name)


class TestFolder:
    def test_parts_labels_and_pixels(self, tmp_path: Path) -> None:
        found = data.load(str(pictures(tmp_path)))
        # 40 images: a fifth to test on, a tenth to validate on.
        assert (len(found.train), len(found.validation), len(found.test)) == (28, 4, 8)
        assert (found.input_shape, found.num_classes, found.class_names) == ((4, 6, 1), 2, ("dark", "light"))
        for part in (found.train, found.validation, found.test):
            values = np.rint(part.x[:, 0, 0, 0] * 255)
            np.testing.assert_array_equal(values >= 200, part.y == 1)
        everything = np.concatenate([part.x for part in (found.train, found.validation, found.test)])
        assert sorted(np.rint(everything.mean((1, 2, 3)) * 255)) == [*range(10, 30), *range(200, 220)]

    def test_parts_of_its_own(self, tmp_path: Path) -> None:
        for part, count in (("train", 6), ("val", 2), ("test", 3)):
            pictures(tmp_path / part, count)
        found = data.load(str(tmp_path))
        assert (len(found.train), len(found.validation), len(found.test)) == (12, 4, 6)

    def test_colour_grey_and_alpha(self, tmp_path: Path) -> None:
        assert data.load(str(pictures(tmp_path / "rgb", mode="RGB"))).input_shape == (4, 6, 3)
        assert data.load(str(pictures(tmp_path / "rgba", mode="RGBA"))).input_shape == (4, 6, 3)
        grey = data.load(str(tmp_path / "rgb"), image_shape=(None, None, 1))
        assert grey.input_shape == (4, 6, 1)
        np.testing.assert_array_equal(np.rint(grey.train.x.mean((1, 2, 3)) * 255) >= 200, grey.train.y == 1)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        picture(tmp_path / "a" / "1.png", 65535, mode="I;16")
        for number in range(9):
            picture(tmp_path / "b" / f"{number}.png", 13107, mode="I;16")  # a fifth of 65535
        found = data.load(str(tmp_path))
        everything = np.concatenate([part.x for part in (found.train, found.validation, found.test)])
        np.testing.assert_allclose(sorted(everything.mean((1, 2, 3))), [0.2] * 9 + [1.0], rtol=1e-6)

    def test_sixteen_bits_of_the_other_order(self, tmp_path: Path) -> None:
        pixels = np.array([[0, 13107], [65535, 13107]])
        for kind in "ab":
            (tmp_path / kind).mkdir()
            for number in range(10):
                image = Image.frombytes("I;16B", (2, 2), pixels.astype(">u2").tobytes())
                image.save(tmp_path / kind / f"{number}.tif")
        found = data.load(str(tmp_path))
        np.testing.assert_allclose(found.train.x[0, ..., 0], [[0, 0.2], [1, 0.2]], rtol=1e-6)

    def test_pixels_that_are_floats(self, tmp_path: Path) -> None:
        for kind in "ab":
            for number in range(3):
                picture(tmp_path / kind / f"{number}.tif", 0.5, mode="F")  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"8 or 16 bits a channel.*whose pixels are floats"):
            data.load(str(tmp_path))

    def test_resized_only_if_asked(self, tmp_path: Path) -> None:
        pictures(tmp_path)
        picture(tmp_path / "dark" / "other.png", 10, size=(12, 8))
        with pytest.raises(DataError, match=r"images of one size.*6x4 pixels.*12x8.*--resize"):
            data.load(str(tmp_path))
        assert data.load(str(tmp_path), image_shape=(3, 3, 1)).input_shape == (3, 3, 1)

    def test_limit_reads_no_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = data.load(str(pictures(tmp_path)), limit=2)
        assert [len(part) for part in (found.train, found.validation, found.test)] == [2, 2, 2]
        assert found.train.y.tolist() in ([0, 1], [1, 0])
        monkeypatch.setattr("tfqprune.data.splits._LARGEST", 40 * 6 * 4 * 4 - 1)
        with pytest.raises(DataError, match=r"fits in memory.*40 images.*--limit"):
            data.load(str(tmp_path))

    def test_refused(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        with pytest.raises(DataError, match="at least two classes"):
            data.load(str(tmp_path))
        pictures(tmp_path)
        with pytest.raises(DataError, match="the class 'one' without an image"):
            data.load(str(tmp_path))
        (tmp_path / "one" / "broken.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"Expected an image\. Received: .*broken\.png"):
            data.load(str(tmp_path))

    def test_class_that_training_does_not_know(self, tmp_path: Path) -> None:
        pictures(tmp_path / "train", 3)
        pictures(tmp_path / "test", 3)
        picture(tmp_path / "test" / "grey" / "1.png", 100)
        with pytest.raises(DataError, match=r"training images, dark, light\. Received: grey"):
            data.load(str(tmp_path))


X = np.arange(40 * 3, dtype=np.float32).reshape(40, 3)
Y = np.arange(40) % 4


class TestArrays:
    def test_x_and_y(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=X, y=Y)
        found = data.load(str(tmp_path / "a.npz"))
        assert (len(found.train), len(found.validation), len(found.test)) == (28, 4, 8)
        assert (found.input_shape, found.num_classes) == ((3,), 4)
        for part in (found.train, found.validation, found.test):
            np.testing.assert_array_equal(part.x[:, 0] // 3 % 4, part.y)  # row i starts with 3i

    def test_parts_of_its_own_and_one_hot(self, tmp_path: Path) -> None:
        hot = np.eye(4)[Y]
        np.savez(tmp_path / "a.npz", x_train=X, y_train=hot, x_val=X[:8], y_val=hot[:8], x_test=X[:12], y_test=Y[:12])
        found = data.load(str(tmp_path / "a.npz"))
        assert (len(found.train), len(found.validation), len(found.test)) == (40, 8, 12)
        np.testing.assert_array_equal(found.train.y, Y)

    def test_bytes_are_scaled(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.full((40, 2, 2), 51, np.uint8), y=Y)
        np.testing.assert_allclose(data.load(str(tmp_path / "a.npz")).train.x, 0.2)

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"images": X, "y": Y}, "Received: images, y in"),
            ({"x_train": X}, "x_train without y_train"),
            ({"x": X, "y": Y[:9]}, "as many labels"),
            ({"x": X.astype(int), "y": Y}, "uint8 or uint16"),
            ({"x": np.where(X == 5, np.nan, X), "y": Y}, "NaN or infinity"),
            ({"x": X, "y": Y - 1}, "class numbers from 0"),
            ({"x": X, "y": Y + 0.5}, "class numbers from 0"),
            ({"x": X, "y": np.array(["a"] * 40)}, "class numbers from 0"),
            ({"x": X[:2], "y": Y[:2]}, "Expected enough samples to train"),
            ({"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y}, "one shape in all parts"),
        ],
    )
    def test_refused(self, arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=said):
            data.load(str(tmp_path / "a.npz"))

    def test_damaged_files_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.npz").touch()
        with pytest.raises(DataError, match=r"'.*a.npz', which cannot be read \(No data left"):
            data.load(str(tmp_path / "a.npz"))
        np.save(tmp_path / "b.npy", X)
        (tmp_path / "b.npy").rename(tmp_path / "b.npz")
        with pytest.raises(DataError, match=r"'.*b.npz', a .npy file with one array, renamed"):
            data.load(str(tmp_path / "b.npz"))

    def test_pickled_objects_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.array([{}, None], dtype=object), y=Y)
        with pytest.raises(DataError, match=r"cannot be read.*allow_pickle"):
            data.load(str(tmp_path / "a.npz"))

    def test_a_single_sample(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros((1, 3)), y=np.array(3))
        np.savez(tmp_path / "b.npz", x=np.zeros((2, 3)), y=np.array(3))
        with pytest.raises(DataError, match="Expected"):  # too few to split
            data.load(str(tmp_path / "a.npz"))
        with pytest.raises(DataError, match=r"as many labels.*x \(2, 3\) and y \(1,\)"):
            data.load(str(tmp_path / "b.npz"))


class TestFunction:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "some_sources.py").write_text(
            "import numpy as np\nfrom tfqprune.data import load\nx, y = np.ones((40, 3)), np.arange(40) % 4\n"
            "def pair(): return x, y\n"
            "def keras(): return (x, y), (x[:12], y[:12])\n"
            "def three(): return (x, y), (x[:8], y[:8]), (x[:12], y[:12])\n"
            "def mapping(): return {'x': x, 'y': y}\n"
            "def splits(): return load('digits')\n"
            "def wrong(): return 3\n"
            "def failing(): raise RuntimeError('no disk')\n"
            "def late():\n    from some_sources_beside import y\n    return x, y\n"
            "def elsewhere():\n    import os\n    os.chdir('/')\n    return x, y\n"
        )
        (tmp_path / "some_sources_beside.py").write_text("import numpy as np\ny = np.arange(40) % 4\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "some_sources", raising=False)

    @pytest.mark.parametrize(
        ("function", "sizes"),
        [
            ("pair", (28, 4, 8)),
            ("mapping", (28, 4, 8)),
            ("keras", (36, 4, 12)),
            ("three", (40, 8, 12)),
            ("splits", (1168, 270, 359)),
            ("late", (28, 4, 8)),
            ("elsewhere", (28, 4, 8)),
        ],
    )
    def test_forms(self, function: str, sizes: tuple[int, ...]) -> None:
        folder, before = str(Path.cwd()), list(sys.path)
        found = data.load(f"some_sources:{function}")
        assert (len(found.train), len(found.validation), len(found.test)) == sizes
        assert folder not in sys.path
        assert sys.path == before

    def test_limit_holds_for_parts_that_exist(self) -> None:
        found = data.load("some_sources:splits", limit=50)
        assert (len(found.train), len(found.validation), len(found.test)) == (50, 50, 50)
        assert len(set(found.train.y.tolist())) == 10  # classes in proportion
        with pytest.raises(DataError, match="limit of at least 10"):
            data.load("some_sources:splits", limit=9)

    @pytest.mark.parametrize(
        ("said", "text"),
        [("ValueError: broken", "raise ValueError('broken')"), ("SyntaxError", "x ="), ("SystemExit: 2", "exit(2)")],
    )
    def test_a_module_that_cannot_be_imported(self, said: str, text: str) -> None:
        Path("broken_sources.py").write_text(text)
        with pytest.raises(DataError, match=rf"Received: 'broken_sources:make' \({said}"):
            data.load("broken_sources:make")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("no_such_module:make", "No module named 'no_such_module'"),
            ("some_sources:none", "has no attribute 'none'"),
            ("some_sources:x", "which is ndarray"),
            ("some_sources:wrong", "Received: int"),
            ("some_sources:failing", "RuntimeError: no disk"),
        ],
    )
    def test_refused(self, name: str, said: str) -> None:
        with pytest.raises(DataError, match=said):
            data.load(name)


class TestFitted:
    def test_grey_images_get_their_axis(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.ones((40, 5, 4)), y=Y)
        found = data.load(str(tmp_path / "a.npz")).fitted((None, 4, 1), outputs=4)
        assert found.input_shape == (5, 4, 1)
        assert found.test.x.shape == (8, 5, 4, 1)

    def test_refused(self) -> None:
        digits = data.load("digits", limit=10)
        assert digits.fitted((8, 8, 1), outputs=10) is digits
        with pytest.raises(DataError, match=r"Expected samples of 32x32x3.*'digits', with samples of 8x8x1.*--resize"):
            digits.fitted((32, 32, 3))
        with pytest.raises(DataError, match=r"at most 9 classes.*'digits', with 10"):
            digits.fitted((8, 8, 1), outputs=9)
