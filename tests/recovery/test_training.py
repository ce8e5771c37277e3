"""Fine-tuning and distillation: schedules, losses and clipping by hand; that both learn."""

from __future__ import annotations

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.data import Split
from tfqprune.errors import DataError, ModelTypeError
from tfqprune.evaluation import PlanEvaluator
from tfqprune.recovery import clip_latent
from tfqprune.recovery.distillation import attention, divergence
from tfqprune.recovery.training import choose_loss, cosine, default_metrics, fresh_optimizer, prepare

K = tf.keras.layers


def classifier(softmax: bool = True, width: int = 8, name: str = "middle") -> tf.keras.Model:
    inputs = K.Input((2,))
    x = K.Dense(width, activation="relu", name=name)(inputs)
    return tf.keras.Model(inputs, K.Dense(2, activation="softmax" if softmax else None)(x))


def corners(count: int = 200) -> Split:
    """Two classes, told apart by the sign of the sum."""
    x = np.random.default_rng(0).normal(size=(count, 2)).astype("float32")
    return Split(x, (x.sum(axis=1) > 0).astype(np.int64))


# Half a cosine over 2 epochs of 5 steps: all, half, nothing.
def test_cosine() -> None:
    schedule = cosine(0.1, steps=5, epochs=2)
    np.testing.assert_allclose([float(schedule(step)) for step in (0, 5, 10, 11)], [0.1, 0.05, 0, 0], atol=1e-8)


@pytest.mark.parametrize("metrics", ["accuracy", ["accuracy"], {"answers": "accuracy"}])
def test_metrics_and_callbacks_as_for_keras(metrics) -> None:
    inputs = K.Input((2,))
    model = tf.keras.Model(inputs, K.Dense(2, activation="softmax", name="answers")(inputs))
    stop = tf.keras.callbacks.EarlyStopping("loss", min_delta=1e9)
    history = tq.finetune(model, corners(), epochs=9, metrics=metrics, callbacks=stop).history
    assert set(history) == {"loss", "accuracy", "lr"} or set(history) == {"loss", "accuracy"}
    assert len(history["loss"]) == 2  # a second epoch that is no better is the last


def test_an_optimizer_that_scales_its_loss_is_made_anew() -> None:
    """Keras wraps the optimiser of a model of mixed precision."""
    wrapped = tf.keras.mixed_precision.LossScaleOptimizer(tf.keras.optimizers.SGD(0.5, momentum=0.25))
    fresh = fresh_optimizer(wrapped, 0.1)
    assert (type(fresh).__name__, float(fresh.learning_rate), fresh.momentum) == ("SGD", pytest.approx(0.1), 0.25)


def test_finetune_learns() -> None:
    model, data = classifier(), corners()
    history = tq.finetune(model, data, data, epochs=8, learning_rate=0.05, batch_size=32)
    assert len(history.history["loss"]) == 8
    assert history.history["val_accuracy"][-1] > 0.95
    # 8 epochs of 7 steps; the last of the 56 was taken at 0.05 (1 + cos(55 pi / 56)) / 2
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025 * (1 + np.cos(np.pi * 55 / 56)), rel=1e-3)


@pytest.mark.parametrize("form", ["pair", "dataset", "single", "one hot", "logits", "regression"])
def test_finetune_takes(form: str) -> None:
    data = corners(64)
    model, train = classifier(softmax=form != "logits"), (data.x, data.y)
    if form == "dataset":
        train = tf.data.Dataset.from_tensor_slices(train).batch(16)
    elif form == "single":
        train = tf.data.Dataset.from_tensor_slices(train)
    elif form == "one hot":
        train = (data.x, np.eye(2, dtype="float32")[data.y])
    elif form == "regression":
        model = tf.keras.Sequential([K.Input((2,)), K.Dense(1)])
        train = (data.x, data.x.sum(axis=1))
    history = tq.finetune(model, train, epochs=6, learning_rate=0.05, batch_size=16).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert ("accuracy" in history) == (form != "regression")
    assert int(model.optimizer.iterations) == 6 * 64 / 16


def several(width: int = 2, **compiled: object) -> tf.keras.Model:
    """Inputs a (2 numbers) and b -> sum of a, "left"; sum of b, "right"; kernels of ones."""
    a, b = K.Input((2,), name="a"), K.Input((width,), name="b")
    outputs = [K.Dense(1, kernel_initializer="ones", name=name)(x) for name, x in (("left", a), ("right", b))]
    model = tf.keras.Model([a, b], outputs)
    if compiled:
        model.compile(**compiled)
    return model


# Outputs are right, but for 3 on the left and 1 on the right: 9 + 1.
@pytest.mark.parametrize("width", [2, 3])
@pytest.mark.parametrize("form", ["lists", "mappings", "data set of mappings"])
def test_several_inputs_and_outputs(width: int, form: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(8, 2)).astype("float32"), rng.normal(size=(8, width)).astype("float32")
    left, right = a.sum(1) - 3, b.sum(1) - 1
    data = ([a, b], [left, right])
    if form != "lists":
        data = ({"b": b, "a": a}, {"right": right, "left": left})
    if form == "data set of mappings":
        data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    model = several(width)
    history = tq.finetune(model, data, data, loss="mse", batch_size=8, learning_rate=1e-6).history
    assert history["loss"] == pytest.approx([10], rel=1e-5)
    assert history["val_left_loss"] == pytest.approx([9], rel=1e-3)
    metrics = PlanEvaluator(tq.ChannelGraph(several(width)), data, loss="mse")({})
    assert metrics["loss"] == pytest.approx(10, rel=1e-5)
    assert metrics["right_loss"] == pytest.approx(1, rel=1e-5)


# Squared errors 9 and 1, weighted as compiled: 0.5 * 9 + 4 * 1; a loss of one's own comes without weights.
def test_compiled_loss_keeps_its_weights() -> None:
    x = np.ones((4, 2), np.float32)
    data = ([x, x], [np.full(4, -1.0), np.full(4, 1.0)])
    for weights in ([0.5, 4.0], {"right": 4.0, "left": 0.5}):
        model = several(loss=["mse", "mse"], loss_weights=weights)
        for _ in range(2):
            history = tq.finetune(model, data, learning_rate=1e-6).history
            assert history["loss"] == pytest.approx([8.5], rel=1e-3)
    assert tq.finetune(model, data, learning_rate=1e-6, loss="mae").history["loss"] == pytest.approx([4], rel=1e-3)


# A model that says 0. Of the squared errors 1 and 9 only the first counts: (1 * 1 + 0 * 9) / 2.
@pytest.mark.parametrize("form", ["arrays", "data set"])
def test_sample_weights_count(form: str) -> None:
    data = (np.ones((2, 1), "float32"), np.array([[1.0], [3.0]]), np.array([1.0, 0.0]))
    if form == "data set":
        data = tf.data.Dataset.from_tensor_slices(data).batch(2)
    model = tf.keras.Sequential([K.Input((1,)), K.Dense(1, kernel_initializer="zeros")])
    history = tq.finetune(model, data, data, loss="mse", learning_rate=1e-7).history
    assert (history["loss"], history["val_loss"]) == (pytest.approx([0.5]), pytest.approx([0.5]))
    assert PlanEvaluator(tq.ChannelGraph(model), data)({})["loss"] == pytest.approx(0.5)


# Squared errors 9 and 1, of 4 samples: 9 * 2 / 4 + 1 for two of weight 1, two of 0 on the left; both halved for all.
def test_sample_weights_of_several_outputs() -> None:
    x, half = np.ones((4, 2), np.float32), np.array([1.0, 0.0, 1.0, 0.0])
    y = [np.full(4, -1.0), np.full(4, 1.0)]
    for weights, expected in (({"left": half}, 5.5), ([half, np.ones(4)], 5.5), (half, 5.0), (None, 10.0)):
        history = tq.finetune(several(), ([x, x], y, weights), loss="mse", learning_rate=1e-7).history
        assert history["loss"] == pytest.approx([expected], rel=1e-3)


def test_inputs_and_outputs_with_keys_of_their_own() -> None:
    a, b = K.Input((2,), name="a"), K.Input((3,), name="b")
    outputs = {"sum": K.Dense(1, kernel_initializer="ones", name="left")(a), "n": K.Dense(1, name="right")(b)}
    model = tf.keras.Model({"second": a, "first": b}, outputs)
    x = {"second": np.ones((4, 2)), "first": np.ones((4, 3))}
    y = {"sum": np.full(4, 5.0), "n": np.zeros(4)}  # 2 for 5: 9
    loss = {"sum": "mse", "n": "mse"}
    for data in ((x, y), tf.data.Dataset.from_tensor_slices((x, y))):
        history = tq.finetune(model, data, loss=loss, learning_rate=1e-7).history
        assert history["left_loss"] == pytest.approx([9], rel=1e-3)


# Outputs 30, far from what the labels that are looked at first say alone.
@pytest.mark.parametrize(("rest", "kind"), [([2, 30], "MeanSquaredError"), ([0, 1], "BinaryCrossentropy")])
def test_loss_by_all_labels_of_arrays(rest: list[int], kind: str) -> None:
    labels = np.array([0, 1] * 16 + rest)
    model = tf.keras.Sequential([K.Input((2,)), K.Dense(1)])
    data = prepare(model, (np.ones((34, 2)), labels), 8, "train")
    assert type(choose_loss(model, data, None)).__name__ == kind
    # of a data set the first 32 are looked at
    data = prepare(model, tf.data.Dataset.from_tensor_slices((np.ones((34, 2)), labels)), 8, "train")
    assert type(choose_loss(model, data, None)).__name__ == "BinaryCrossentropy"


# Logits 0.3 and -0.7 for the labels 1 and 0: both right.
def test_accuracy_of_logits_of_two_classes() -> None:
    bias = tf.keras.initializers.Constant(0.3)
    model = tf.keras.Sequential([K.Input((1,)), K.Dense(1, kernel_initializer="ones", bias_initializer=bias)])
    data = (np.array([[0.0], [-1.0]]), np.array([1, 0]))
    assert PlanEvaluator(tq.ChannelGraph(model), data)({})["accuracy"] == 1
    assert tq.finetune(model, data, data, learning_rate=1e-7).history["accuracy"] == [1]
    assert model.loss.from_logits
    assert default_metrics(tf.keras.losses.BinaryCrossentropy()) == ["accuracy"]
    assert default_metrics(tf.keras.losses.MeanSquaredError()) == []


# 6 of 10 samples, 4 in a batch: 2 steps an epoch; half a cosine over 4: the last was taken at 0.1 (1 + cos 3/4 pi) / 2.
def test_data_set_of_unknown_length() -> None:
    data = tf.data.Dataset.from_tensor_slices((np.ones((10, 2)), np.arange(10))).filter(lambda _, y: y < 6)
    model = tf.keras.Sequential([K.Input((2,)), K.Dense(1)])
    for train in (data, data.batch(4)):
        prepared = prepare(model, train, 4, "train")
        assert prepared.steps == int(prepared.dataset.cardinality()) == 2
        assert [len(y) for _, y in prepared.dataset] == [4, 2]
    tq.finetune(model, data.batch(4), epochs=2, loss="mse", optimizer="sgd", learning_rate=0.1)
    assert int(model.optimizer.iterations) == 4
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05 * (1 + np.cos(np.pi * 3 / 4)), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Expected at least")
def test_holistic_ratios_of_several_inputs_and_outputs() -> None:
    """Arrays in lists, and data of unknown length; the copy that trains has the compiled weights of the losses."""
    a, b = K.Input((2,)), K.Input((2,))
    x = K.Dense(8, name="hidden")(K.Concatenate()([a, b]))
    model = tf.keras.Model([a, b], [K.Dense(1, name="left")(x), K.Dense(1, name="right")(x)])
    model.compile(loss="mse", loss_weights=[0.5, 4.0])
    arrays = ((np.ones((10, 2)), np.ones((10, 2))), (np.ones(10), np.ones(10)))
    unknown = tf.data.Dataset.from_tensor_slices(arrays).filter(lambda *_: True).batch(4)
    for data in (tuple(map(list, arrays)), unknown):
        allocator = tq.HolisticAllocator(tq.Budget(params=0.6), epochs=2, batch_size=4)
        plan = allocator.allocate(model, "latent_l1", data)
        assert plan.notes["steps"] == 6
        assert tq.cost(model, plan).params <= 0.6 * tq.cost(model).params
        assert allocator.pruning.compiled_loss._user_loss_weights == [0.5, 4.0]


def test_optimiser_is_fresh_and_keeps_its_settings() -> None:
    used = tf.keras.optimizers.SGD(0.5, momentum=0.7)
    model, data = classifier(), corners(32)
    model.compile(used, "sparse_categorical_crossentropy")
    model.fit(data.x, data.y, verbose=0)
    tq.finetune(model, data, optimizer=used, batch_size=32, learning_rate=0.1)
    assert model.optimizer is not used
    assert model.optimizer.momentum == 0.7
    assert int(model.optimizer.iterations) == 1
    assert model.loss == "sparse_categorical_crossentropy"  # the compiled loss was kept
    assert fresh_optimizer(tf.keras.optimizers.RMSprop, 0.1).learning_rate.numpy() == np.float32(0.1)


def test_latent_weights_are_clipped_first() -> None:
    model = tf.keras.Sequential(
        [K.Input((2,)), lq.layers.QuantDense(2, kernel_quantizer="ste_sign", kernel_constraint="weight_clip")]
    )
    model.set_weights([np.array([[5.0, -0.5], [-3, 1]]), np.array([9.0, 9])])
    assert clip_latent(model) == 2
    kernel, bias = model.get_weights()
    np.testing.assert_array_equal(kernel, [[1, -0.5], [-1, 1]])
    np.testing.assert_array_equal(bias, [9, 9])
    assert clip_latent(model) == 0


# Teacher logits (log 4, 0): probabilities 0.8, 0.2; student (0, 0): 0.5, 0.5; T = 1:
#   KL = 0.8 log(0.8 / 0.5) + 0.2 log(0.2 / 0.5) = 0.3760 - 0.1833 = 0.1927.
# T = 2: logits (log 2, 0): 2/3, 1/3: KL = 2/3 log(4/3) + 1/3 log(2/3) = 0.1918 - 0.1352 = 0.0566; times 4: 0.2265.
def test_divergence() -> None:
    teacher, student = tf.math.log([[4.0, 1.0]]), tf.zeros((1, 2))
    assert float(divergence(teacher, student, 1.0)) == pytest.approx(0.8 * np.log(1.6) + 0.2 * np.log(0.4), rel=1e-5)
    expected = 4 * (2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3))
    assert float(divergence(teacher, student, 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(teacher + 7, teacher, 3.0)) == pytest.approx(0, abs=1e-6)  # only differences count


# Two positions, three channels: sums of squares 1 + 4 + 4 = 9 and 12, divided by the norm of (9, 12), 15.
def test_attention() -> None:
    features = tf.constant([[[1.0, 2, -2], [0, 0, np.sqrt(12)]]])
    np.testing.assert_allclose(attention(features), [[9 / 15, 12 / 15]], rtol=1e-6)


@pytest.mark.parametrize("softmax", [True, False])
def test_student_learns_what_the_teacher_says(softmax: bool) -> None:
    data = corners()
    teacher, student = classifier(softmax), classifier(softmax, width=4)
    tq.finetune(teacher, data, epochs=6, learning_rate=0.05)
    before = [weight.numpy() for weight in teacher.weights]
    wrong = Split(data.x, 1 - data.y)  # with alpha = 1 the labels have no say
    history = tq.distill(student, teacher, wrong, epochs=10, alpha=1.0, learning_rate=0.1, batch_size=32).history
    assert history["distillation"][-1] < 0.2 * history["distillation"][0]
    np.testing.assert_allclose(history["total"], history["distillation"], rtol=1e-5)
    agreement = (student.predict(data.x, verbose=0).argmax(1) == teacher.predict(data.x, verbose=0).argmax(1)).mean()
    assert agreement > 0.9  # what the labels say would be below 0.1
    for weight, value in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_distillation_in_half_precision(policy: str) -> None:
    """Softmax outputs in half precision are probabilities still, and small gradients do not vanish."""
    data = corners()
    teacher = classifier()
    tq.finetune(teacher, data, epochs=20, learning_rate=0.05, batch_size=16)
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        student = classifier()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    history = tq.distill(student, teacher, data, epochs=10, learning_rate=0.02, batch_size=16, alpha=1.0).history
    assert history["distillation"][-1] < 0.5 * history["distillation"][0]


def constant(*values: float, activation: str | None = None) -> tf.keras.Model:
    """Units whose activations get ``values``, whatever the model sees."""
    model = tf.keras.Sequential([K.Input((2,)), K.Dense(len(values), activation)])
    model.set_weights([np.zeros((2, len(values))), np.array(values)])
    return model


def one_step(student: tf.keras.Model, teacher: tf.keras.Model, labels: object, loss: object) -> tuple[float, float]:
    """The teacher's part of the loss before a step of gradient descent of length 0.1, and the first bias after it."""
    history = tq.distill(
        student, teacher, (np.zeros((4, 2)), labels), alpha=1.0, temperature=2.0, learning_rate=0.1, optimizer="sgd",
        loss=loss,
    ).history  # fmt: skip
    return history["distillation"][0], float(student.get_weights()[1][0])


# Two classes in one number, teacher's logit log 4, student's 0, T = 2: as in test_divergence, 0.2265.
# The slope at the student's logit s is T^2 (sigmoid(s / T) - sigmoid(t / T)) / T = 2 (1/2 - 2/3) = -1/3.
@pytest.mark.parametrize("own", ["sigmoid", None])
@pytest.mark.parametrize("other", ["sigmoid", None])
def test_distillation_of_two_classes_in_one_unit(own: str | None, other: str | None) -> None:
    loss = tf.keras.losses.BinaryCrossentropy(from_logits=own is None)
    taught, bias = one_step(constant(0, activation=own), constant(np.log(4), activation=other), [0, 0, 0, 0], loss)
    assert taught == pytest.approx(4 * (2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3)), rel=1e-4)
    assert bias == pytest.approx(0.1 / 3, rel=1e-4)
    if own == other == "sigmoid":  # a sigmoid says so itself, whatever the loss
        again, _ = one_step(constant(0, activation=own), constant(np.log(4), activation=other), [0] * 4, "mse")
        assert again == pytest.approx(taught)


# Sums of (1, 1) and ones: student 2 + width, teacher 1 more; of two inputs, a list for both.
@pytest.mark.parametrize("width", [2, 3])
def test_distillation_of_several_inputs(width: int) -> None:
    models = []
    for more in (0, 1):
        both = several(width)
        model = tf.keras.Model(both.inputs, K.Add()(both.outputs))
        both.get_layer("left").set_weights([np.ones((2, 1)), np.full(1, more)])
        models.append(model)
    data = ([np.ones((4, 2)), np.ones((4, width))], np.full(4, 2.0 + width))
    history = tq.distill(*models, data, loss="mse", learning_rate=1e-6).history
    assert history["distillation"] == pytest.approx([1])
    assert history["loss"] == pytest.approx([0])


# A kernel of ones, regularised by 3 (1 + 1) = 6; the model's own: 5 times the mean output (2) and, without inputs, 4.
# It answers what the teacher does, so that nothing else is left, whatever alpha.
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_distillation_adds_the_losses_of_the_student(alpha: float) -> None:
    inputs = K.Input((2,))
    outputs = K.Dense(1, kernel_initializer="ones", kernel_regularizer=tf.keras.regularizers.L1(3.0))(inputs)
    student, teacher = tf.keras.Model(inputs, outputs), tf.keras.Model(inputs, outputs)
    student.add_loss(5 * tf.reduce_mean(outputs))
    student.add_loss(lambda: tf.constant(4.0))
    assert len(student.losses) == 3
    data = (np.ones((4, 2)), np.full((4, 1), 2.0))
    history = tq.distill(student, teacher, data, alpha=alpha, loss="mse", learning_rate=0.1, optimizer="sgd").history
    assert history["total"] == pytest.approx([6 + 10 + 4])
    # slopes: 3 of the regulariser, 5 of the mean output
    np.testing.assert_allclose(student.get_weights()[0], np.full((2, 1), 1 - 0.1 * 8), rtol=1e-5)
    assert len(student.losses) == 3


# No classes, so no temperature: (3 - 1)^2 = 4, and a slope of 2 (1 - 3) = -4.
@pytest.mark.parametrize("loss", [None, "mae", tf.keras.losses.Huber()])
def test_distillation_of_a_value(loss: object) -> None:
    taught, bias = one_step(constant(1), constant(3), [-7.5, 0, 0, 0], loss)
    assert taught == pytest.approx(4)
    assert bias == pytest.approx(1 + 0.1 * 4)


# Several units, outputs (log 4, 0) and (0, 0). Values: the mean of log(4)^2 and 0.
# Each unit on its own: the mean of 0.2265 (see above) and 0.
@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", np.log(4) ** 2 / 2),
        (tf.keras.losses.BinaryCrossentropy(from_logits=True), 2 * (2 / 3 * np.log(4 / 3) + 1 / 3 * np.log(2 / 3))),
    ],
)
def test_distillation_of_several_units_that_are_no_classes(loss: object, expected: float) -> None:
    taught, _ = one_step(constant(0, 0), constant(np.log(4), 0), np.eye(4)[:, :2], loss)
    assert taught == pytest.approx(expected, rel=1e-4)


def test_sigmoid_student_learns_what_the_teacher_says() -> None:
    data = corners()
    teacher, student = (
        tf.keras.Sequential([K.Input((2,)), K.Dense(width, "relu"), K.Dense(1, "sigmoid")]) for width in (8, 4)
    )
    tq.finetune(teacher, data, epochs=6, learning_rate=0.05)
    wrong = Split(data.x, 1 - data.y)  # with alpha = 1 the labels have no say
    tq.distill(student, teacher, wrong, epochs=10, alpha=1.0, learning_rate=0.1, batch_size=32)
    agreement = ((student.predict(data.x, verbose=0) > 0.5) == (teacher.predict(data.x, verbose=0) > 0.5)).mean()
    assert agreement > 0.9  # what the labels say would be below 0.1


def convolutional(width: int) -> tf.keras.Model:
    image = K.Input((4, 4, 1))
    x = K.Conv2D(width, 3, padding="same", name="features")(image)
    return tf.keras.Model(image, K.Dense(2, activation="softmax")(K.GlobalAveragePooling2D()(K.ReLU()(x))))


def test_features_of_different_width() -> None:
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype("float32")
    data = (x, (x.mean((1, 2, 3)) > 0).astype(int))
    teacher, student = convolutional(6), convolutional(3)
    history = tq.distill(
        student, teacher, data, data, epochs=8, features=["features"], feature_weight=100.0, learning_rate=0.05,
        batch_size=16,
    ).history  # fmt: skip
    assert history["total"][-1] < 0.5 * history["total"][0]
    assert "val_accuracy" in history
    with pytest.raises(DataError, match=r"'nothing', which .* does not have"):
        tq.distill(student, teacher, data, features=["nothing"])
    with pytest.raises(DataError, match="positions and channels"):
        tq.distill(student, teacher, data, features=[(student.layers[-1].name, teacher.layers[-1].name)])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": np.float32("nan")}, "learning_rate"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "adamm"}, "Expected a Keras optimiser"),
    ],
)
def test_bad_numbers(wrong: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tq.finetune(classifier(), corners(16), **wrong)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"alpha": 1.5}, {"feature_weight": -1.0}])
def test_bad_numbers_of_distillation(wrong: dict) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        tq.distill(classifier(), classifier(), corners(16), **wrong)


@pytest.mark.parametrize("wrong", [-1, 2])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_classes_that_the_model_does_not_have(wrong: int, split: str) -> None:
    data, model = corners(16), classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    other = Split(data.x, np.where(np.arange(16) == 7, wrong, data.y))
    given = (other, data) if split == "train" else (data, other)
    with pytest.raises(DataError, match=r"Expected class numbers from 0 to 1 .* Received: numbers from"):
        tq.finetune(model, *given)
    with pytest.raises(DataError, match="Expected class numbers from 0 to 1"):
        tq.distill(model, classifier(), *given, loss="sparse_categorical_crossentropy")


def test_a_class_that_the_loss_ignores() -> None:
    data = corners(16)
    labels = np.where(np.arange(16) == 7, 255, data.y)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    history = tq.finetune(classifier(), (data.x, labels), epochs=1, loss=loss, metrics=[])
    assert np.isfinite(history.history["loss"]).all()


def test_weights_that_are_no_numbers() -> None:
    model = classifier()
    kernel, *others = model.get_weights()
    kernel[0, :3] = np.nan, np.inf, np.nan
    model.set_weights([kernel, *others])
    with pytest.raises(DataError, match=r"Expected finite weights\. Received: 3 values .* in 'middle/kernel"):
        tq.finetune(model, corners(16))
    with pytest.raises(DataError, match="Expected finite weights"):
        tq.distill(model, classifier(), corners(16))
    student = classifier()
    before = student.get_weights()
    with pytest.raises(DataError, match=r"Expected finite weights\. Received: 3 values .* in 'middle/kernel"):
        tq.distill(student, model, corners(16))
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_data_and_models() -> None:
    data = corners(16)
    with pytest.raises(DataError, match="train data with labels"):
        tq.finetune(classifier(), data.x)
    with pytest.raises(DataError, match="validation data with labels"):
        tq.finetune(classifier(), data, data.x)
    with pytest.raises(DataError, match="endless"):
        tq.finetune(classifier(), tf.data.Dataset.from_tensors((data.x, data.y)).repeat())
    with pytest.raises(DataError, match="from 0 to 5, for 2 classes"):
        tq.finetune(classifier(), (data.x, np.arange(16) % 6))
    with pytest.raises(DataError, match="class numbers of type float32; cast them to integers"):
        tq.finetune(classifier(), (data.x, data.y.astype("float32")))
    with pytest.raises(DataError, match=r"the labels of output .* Received: 16 that are NaN"):
        tq.finetune(classifier(), (data.x, np.full(16, np.nan)))
    with pytest.raises(ModelTypeError, match="Expected outputs of the same shape"):
        tq.distill(classifier(), tf.keras.Sequential([K.Input((2,)), K.Dense(3)]), data)
    with pytest.raises(ModelTypeError, match=r"Expected inputs of the same shape.*teacher \(None, 3\)"):
        tq.distill(classifier(), tf.keras.Sequential([K.Input((3,)), K.Dense(2)]), data)
    with pytest.raises(DataError, match=r"Expected features as names.*\('middle', 'middle', 1\)"):
        tq.distill(classifier(), classifier(), data, features=[("middle", "middle", 1)])
    with pytest.raises(ModelTypeError, match="Received: an object of type NoneType"):
        clip_latent(None)
