"""What is told of two sets of outputs, by hand, and what a promise makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tflite_export as te
from tflite_export.exporting import _check_against_noise
from tflite_export.formats.base import EXACT
from tflite_export.samples import generated_inputs
from tflite_export.verification import as_inputs, compare
from tfqprune.data import Split
from tfqprune.errors import DataError, ExportError

layers = tf.keras.layers


def agreement(**own: Any) -> te.Agreement:
    figures: dict[str, Any] = {
        "top1": 1.0, "off_share": 0.0, "max_error": 0.0, "mean_error": 0.0, "unexplained": 0.0, "samples": 64,
        "tolerance": 1e-4, "runtime": "litert", "threads": 1, "xnnpack": True, "generated": True,
    }  # fmt: skip
    return te.Agreement(**{**figures, **own})


def test_errors_are_relative_to_the_size_of_the_outputs() -> None:
    # over 1 each sample by its own largest; 2 of 200 and 0.03 of 1
    found = compare([np.array([[100.0, 200.0], [0.5, 0.1]])], [np.array([[100.0, 198.0], [0.53, 0.1]])], 1e-4)
    np.testing.assert_allclose(found.errors, [0.01, 0.03])
    # below 1 all by the largest of all: 0.2 and 0.1 millionths of 4
    small = compare([np.array([[4e-6, 1e-6], [2e-6, 0.0]])], [np.array([[4e-6, 0.8e-6], [2.1e-6, 0.0]])], 1e-4)
    np.testing.assert_allclose(small.errors, [0.05, 0.025])
    # no more than rounding where every output is zero
    assert compare([np.zeros((2, 3))], [np.full((2, 3), 1e-12)], 1e-4).errors.max() < 1e-4


def test_flat_classes_are_told_apart() -> None:
    """1,000 classes of about 0.001: a file that answers zero is wrong, and so is one that ranks them otherwise."""
    rng = np.random.default_rng(0)
    scores = np.exp(0.05 * rng.normal(size=(2, 64, 1000)))
    want, other = scores / scores.sum(axis=-1, keepdims=True)
    for have in (np.zeros_like(want), other):
        found = compare([want], [have], 1e-4)
        assert found.top1 < 0.1
        assert np.all(found.errors > 1e-4)


@pytest.mark.parametrize(
    ("want", "have", "error"),
    [(np.nan, 3.0, np.inf), (np.inf, 4.0, np.inf), (1.0, np.nan, np.inf), (-np.inf, np.inf, np.inf),
     (np.nan, np.nan, np.inf), (-np.inf, -np.inf, 0.0), (1.0, 1.0, 0.0)],
)  # fmt: skip
def test_what_is_not_finite_is_wrong_unless_it_is_the_same(want: float, have: float, error: float) -> None:
    # the largest finite output, 4, is what errors are relative to
    found = compare([np.array([[want, -4.0]])], [np.array([[have, -3.0]])], 1e-4)
    assert found.errors.tolist() == [max(error, 0.25)]
    single = compare([np.array([[want], [2.0]])], [np.array([[have], [2.0]])], 1e-4)
    assert single.unexplained == error


def test_masked_classes_still_have_a_first() -> None:
    classes = np.array([[-np.inf, 2.0, 1.0], [3.0, -np.inf, 1.0]])
    assert compare([classes], [classes], 1e-4).top1 == 1.0


def test_single_numbers_are_held_against_a_constant() -> None:
    # distances from the median 2.5 are 1.5, 0.5, 0.5, 1.5; those from 2 are 1, 0, 1, 2: both 1 on average
    want = np.array([[1.0], [2.0], [3.0], [4.0]])
    assert compare([want], [np.full((4, 1), 2.0)], 1e-4).unexplained == pytest.approx(1.0)
    assert compare([want], [want + 0.1], 1e-4).unexplained == pytest.approx(0.1)
    # with two or more entries there is a first class
    assert compare([np.ones((4, 2))], [np.zeros((4, 2))], 1e-4).unexplained == 0.0
    # one constant: a step of 8 bits off is no matter, half of it is
    assert compare([np.full((4, 1), 5.0)], [np.full((4, 1), 5.0 + 5 / 255)], 1e-4).unexplained < 0.25
    assert compare([np.full((4, 1), 5.0)], [np.full((4, 1), 2.5)], 1e-4).unexplained > 1
    # one sample: its own size
    assert compare([np.array([[4.0]])], [np.array([[3.0]])], 1e-4).unexplained == pytest.approx(0.25)


def test_promises() -> None:
    lossy = te.Promise(top1=0.8, off_share=1.0)
    assert lossy.kept(agreement(off_share=1.0, unexplained=0.4))
    assert not lossy.kept(agreement(off_share=1.0, unexplained=0.6))
    assert not te.Promise(top1=0.0, off_share=1.0, unexplained=np.inf).kept(agreement(max_error=np.inf))


def test_a_net_that_flips_everywhere_hides_no_error() -> None:
    chosen = te.get_format("packed")
    noise = agreement(off_share=0.9, mean_error=0.01, unexplained=0.1)
    _check_against_noise(chosen, EXACT, agreement(off_share=0.9, mean_error=0.02, unexplained=0.2), noise)
    for wrong in ({"mean_error": 0.3}, {"mean_error": 0.02, "unexplained": 0.7}):
        with pytest.raises(ExportError, match=r"mean error.*No file was written"):
            _check_against_noise(chosen, EXACT, agreement(off_share=1.0, **wrong), noise)
    # where the share of samples still counts, the size of their errors does not
    calm = agreement(off_share=0.1, mean_error=0.001)
    _check_against_noise(chosen, EXACT, agreement(off_share=0.2, mean_error=0.01), calm)


def test_a_lossy_file_that_always_says_the_same_is_refused(tmp_path: Path) -> None:
    """Two features of sizes 1 and 10,000, and the answer is the first: 8 bits for both leave nothing of it."""
    rng = np.random.default_rng(0)
    data = np.stack([rng.normal(size=256), 1e4 * rng.normal(size=256)], axis=1).astype(np.float32)
    given, dense = layers.Input((2,)), layers.Dense(1, use_bias=False)
    model = tf.keras.Model(given, dense(given))
    dense.set_weights([np.array([[1.0], [0.0]])])
    with pytest.raises(ExportError, match=r"single numbers are off by \d+.\d% of what a constant.* at most \d+.\d%"):
        te.export(model, tmp_path / "x.tflite", "int8", data=data)
    assert not list(tmp_path.iterdir())


def test_outputs_of_another_model_are_no_agreement_however_small(tmp_path: Path) -> None:
    def tiny(seed: int) -> Any:
        given = layers.Input((8,))
        start = tf.keras.initializers.RandomNormal(stddev=1e-6, seed=seed)
        return tf.keras.Model(given, layers.Dense(3, kernel_initializer=start)(given))

    result = te.export(tiny(1), tmp_path / "x.tflite", "float32")
    assert result.agreement.max_error < 1e-5
    assert te.verify(tiny(2), result.path).off_share > 0.9


def test_data_that_an_integer_input_would_cut_is_refused(net: Callable[..., Any]) -> None:
    model = te.with_uint8_input(net("plain", "2"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    assert as_inputs(model, pixels.astype(float), 4)[0].dtype == np.uint8
    for wrong in (pixels / 255, pixels - 1.0 - pixels.min(), np.full(pixels.shape, 256), np.full(pixels.shape, np.nan)):
        with pytest.raises(DataError, match=r"whole numbers that uint8 holds for input image. Received: \w+ from"):
            as_inputs(model, wrong, 4)


@pytest.mark.parametrize("samples", [0, -1, 2.5, True])
def test_samples_are_counted_before_any_work(net: Callable[..., Any], tmp_path: Path, samples: Any) -> None:
    with pytest.raises(DataError, match="samples to be a whole number of at least 1"):
        te.export(net("plain", "2"), tmp_path / "x.tflite", samples=samples)
    with pytest.raises(DataError, match="samples to be a whole number of at least 1"):
        as_inputs(net("plain", "2"), np.zeros((2, 8, 8, 3)), samples)


def test_data_may_bring_labels(net: Callable[..., Any]) -> None:
    model = net("plain", "2")
    x, y = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32), np.arange(6)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    for data in (x, [x], (x, y), (x, y, np.ones(6)), Split(x, y), dataset, dataset.batch(4), {"image": x}):
        (taken,) = as_inputs(model, data, 5)
        np.testing.assert_array_equal(taken, x[:5])
    a, b = layers.Input((2,), name="a"), layers.Input((2,), name="b")
    two = tf.keras.Model([a, b], layers.Add()([a, b]))
    parts = [np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32)]
    for several in (parts, tuple(parts), (parts, np.zeros(3)), ({"b": parts[1], "a": parts[0]}, np.zeros(3))):
        np.testing.assert_array_equal(as_inputs(two, several, 3), parts)
    with pytest.raises(DataError, match="yields batches"):
        as_inputs(model, iter([x]), 3)


@pytest.mark.parametrize(
    "wrong",
    [{"tolerance": float("nan")}, {"tolerance": -1}, {"tolerance": "x"}, {"threads": 0}, {"threads": 1.5}, {"seed": -1},
     {"threads": 100_000}, {"promise": 5}],
)  # fmt: skip
def test_numbers_that_make_no_sense(net: Callable[..., Any], tmp_path: Path, wrong: dict[str, Any]) -> None:
    message = f"Expected {next(iter(wrong))} to be"
    with pytest.raises((DataError, ExportError), match=message):
        te.export(net("plain", "2"), tmp_path / "x.tflite", "float32", **wrong)
    assert not list(tmp_path.iterdir())
    path = te.export(net("plain", "2"), tmp_path / "y.tflite", "float32").path
    if "promise" not in wrong:
        with pytest.raises((DataError, ExportError), match=message):
            te.verify(net("plain", "2"), path, **wrong)
    for bad in ({"runs": "5"}, {"runs": 0}, {"threads": 0}, {"seconds": float("nan")}, {"max_seconds": -1}):
        with pytest.raises(ExportError, match=f"Expected {next(iter(bad))} to be"):
            te.benchmark(path, **bad)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("format", ["float32", "int8"])
def test_inputs_that_index_a_table(tmp_path: Path, dtype: str, format: str) -> None:
    given = layers.Input((10,), dtype=dtype)
    model = tf.keras.Model(given, layers.Dense(3)(layers.Flatten()(layers.Embedding(50, 8)(given))))
    (rows,) = generated_inputs(model, 64)
    assert rows.dtype == dtype
    assert (rows.min(), rows.max()) == (0, 49)
    assert len(np.unique(rows)) > 40
    result = te.export(model, tmp_path / "x.tflite", format, strict=format == "float32")
    assert result.agreement.max_error < (1e-5 if format == "float32" else 0.1)
    if dtype == "int32":  # of a file alone one cannot see that its floats are rows
        assert te.benchmark(result.path, runs=2, seconds=0, warm_up_seconds=0).runs == 2


def test_inputs_that_index_several_tables_or_none(tmp_path: Path) -> None:
    """Words through a nested model into 300 rows, places into 7 at once and behind a sum; the floats into none."""
    word, place, rest = layers.Input((4,), dtype="int32"), layers.Input((4,), dtype="int64"), layers.Input((8,))
    inner = layers.Input((4,), dtype="int32")
    nested = tf.keras.Model(inner, layers.Embedding(300, 8)(inner))
    read = nested(word) + layers.Embedding(9, 8)(place) + layers.Embedding(7, 8)(place)
    model = tf.keras.Model([word, place, rest], layers.Flatten()(read * rest[:, None]))
    arrays = generated_inputs(model, 64)
    assert [array.max() for array in arrays[:2]] == [6, 6]  # the way into the nested model is not followed
    assert arrays[2].min() == -8
    assert te.export(model, tmp_path / "x.tflite", "float32").agreement.max_error < 1e-5


def test_inputs_that_index_a_table_out_of_sight(tmp_path: Path) -> None:
    """Said as what it is; with data all goes well."""
    given = layers.Input((10,))
    model = tf.keras.Model(given, layers.Dense(3)(layers.Flatten()(layers.Embedding(50, 8)(given * 2.0))))
    with pytest.raises(DataError, match=r"to take generated inputs.* is not in \[0, 50\).*pass data=\.\.\."):
        te.export(model, tmp_path / "x.tflite", "float32")
    data = np.random.default_rng(0).integers(0, 25, (8, 10))
    assert te.export(model, tmp_path / "x.tflite", "float32", data=data).agreement.max_error < 1e-5


def test_dict_outputs_go_by_the_names_of_their_layers(tmp_path: Path) -> None:
    """Keras flattens by key, box before logits, and names outputs after layers, d2 before d1."""
    given = layers.Input((4,))
    heads = {"logits": layers.Dense(4, name="d1")(given), "box": layers.Dense(4, name="d2")(given)}
    model = tf.keras.Model(given, heads)
    assert model.output_names == ["d2", "d1"]
    assert te.export(model, tmp_path / "x.tflite", "float32").agreement.max_error < 1e-5
