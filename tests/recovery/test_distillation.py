"""Arguments of the distillation; what it computes is in test_training.py."""

from __future__ import annotations

import larq as lq
import numpy as np
import tensorflow as tf

import tfqprune as tq

K = tf.keras.layers


def dense(kernel: float) -> tf.keras.Model:
    """Dense 1 on 1 input."""
    inputs = K.Input((1,))
    layer = K.Dense(1, kernel_initializer=tf.keras.initializers.Constant(kernel), use_bias=False)
    return tf.keras.Model(inputs, layer(inputs))


# One unit of value 3 x beside the teacher's 1 x, at x = 1: (3 - 1)^2 = 4; the task, against 0, is worth 9.
# 0.25 * 4 + 0.75 * 9 = 7.75
def test_numbers_of_numpy() -> None:
    numbers = {"temperature": np.float32(2), "alpha": np.float32(0.25), "feature_weight": np.int64(1)}
    data = np.ones((4, 1)), np.zeros((4, 1))
    history = tq.distill(dense(3), dense(1), data, loss="mse", **numbers).history
    np.testing.assert_allclose([history["distillation"], history["total"]], [[4], [7.75]], rtol=1e-6)


def test_flips_of_the_student_are_watched() -> None:
    """Its only weight, 0.5, is deployed as 1 and should be -1: the slope of (1 + 1)^2 is 4, the rate 4, the step 16."""
    inputs = K.Input((1,))
    layer = lq.layers.QuantDense(1, kernel_quantizer="ste_sign", use_bias=False, name="signs")
    student = tf.keras.Model(inputs, layer(inputs))
    layer.set_weights([np.array([[0.5]], np.float32)])
    watch = tq.FlipFrequencyCallback()
    data = np.ones((4, 1)), np.full((4, 1), -1.0)
    tq.distill(student, dense(-1), data, loss="mse", optimizer="sgd", learning_rate=4.0, callbacks=[watch])
    assert watch.frequency("signs").tolist() == [[1.0]]
    assert watch.looks == 1


def test_outputs_by_name() -> None:
    """The numbers of above, with the only output by its name in labels, loss and metrics."""
    student = dense(3)
    (name,) = student.output_names
    arrays = np.ones((4, 1), np.float32), {name: np.zeros((4, 1), np.float32)}
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(4)
    options = {"alpha": 0.25, "epochs": 1, "verbose": 0}
    history = tq.distill(student, dense(1), data, data, loss={name: "mse"}, metrics={name: "mae"}, **options).history
    np.testing.assert_allclose(history["total"], [7.75], rtol=1e-6)
    assert any(key.endswith("mae") or "absolute" in key for key in history)
    student = dense(3)
    student.compile("sgd", {student.output_names[0]: "mse"})
    history = tq.distill(student, dense(1), (np.ones((4, 1)), np.zeros((4, 1))), **options).history
    np.testing.assert_allclose(history["total"], [7.75], rtol=1e-6)
