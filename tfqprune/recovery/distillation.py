"""Knowledge distillation: a slim student learns what the dense teacher answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_keras.src.engine.base_layer import AddLoss

from tfqprune.errors import DataError, ModelTypeError, real_number
from tfqprune.losses import is_probabilities, loss_name, within_one
from tfqprune.models import check_model
from tfqprune.recovery.training import callbacks_of, check_finite, choose_loss, fit_anew, prepare

_TINY = 1e-7  # smallest probability whose logarithm is taken
_OF_VALUES = ("error", "mse", "mae", "mape", "msle", "huber", "cosh")  # in the names of losses of regressions


def distill(
    student: tf.keras.Model,
    teacher: tf.keras.Model,
    train: Any,
    validation: Any = None,
    epochs: int = 1,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
    features: Sequence[str | tuple[str, str]] = (),
    feature_weight: float = 1.0,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    optimizer: Any = "adam",
    loss: Any = None,
    metrics: Any = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> tf.keras.callbacks.History:
    """Trains a student on the teacher's answers and on the labels, in place.

    Loss = alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) task + feature_weight mean |A_s - A_t|^2 + own
    with the logits t and s (Hinton et al., arXiv 1503.02531). Own is what the student adds by itself (regularisers).
    For models that end in a softmax the logarithms of the probabilities serve as logits, which is the same. Where both
    end in a sigmoid, or the task's loss is a binary cross-entropy, each unit stands for two classes with the logits 0
    and t. Other values that are no classes (one unit, or a loss such as the squared error) have no softmax: their mean
    (t - s)^2 takes its place (Ba and Caruana, arXiv 1312.6184), without a temperature. A is the attention map of a
    layer's output: the sum of squares over its channels, flattened and divided by its norm (Zagoruyko and Komodakis,
    arXiv 1612.03928), so that teacher and student may have different numbers of channels.

    Args:
        student: a functional or sequential tf_keras model with one output. Its own compilation stays as it is: compile
            it to ``evaluate`` it.
        teacher: one with inputs and an output of the same shapes; it runs in inference mode and stays as it is.
        train: see :func:`finetune`.
        validation: see :func:`finetune`.
        epochs: passes over the data.
        temperature: T, above 0.
        alpha: share of the teacher's answers, from 0 to 1.
        features: names of layers whose outputs are compared as well; or pairs (student layer, teacher layer).
        feature_weight: weight of that comparison.
        learning_rate: of the first step; it falls to 0 along half a cosine.
        batch_size: for arrays.
        optimizer: see :func:`finetune`; always new.
        loss: the task's loss; see :func:`finetune`.
        metrics: metrics of the student.
        callbacks: Keras callbacks; ``self.model`` is the distiller, ``self.model.student`` the student.
        verbose: as for ``fit``.

    Returns:
        The history of ``fit``: the task's ``loss``, the ``distillation`` part, the minimised ``total``, and
        the student's metrics.

    Raises:
        ModelTypeError: no graph models, several outputs, or inputs or outputs of different shapes.
        DataError: data that does not fit, weights of student or teacher that are not finite, unknown layers, layers of
            different spatial size, numbers that make no sense.
    """
    check_model(student)
    check_model(teacher)
    for model in (student, teacher):
        if len(model.outputs) != 1:
            raise ModelTypeError(
                f"Expected models with one output. Received: {model.name!r} with {len(model.outputs)}."
            )
    for what in ("inputs", "outputs"):
        mine, theirs = ([tensor.shape for tensor in getattr(model, what)] for model in (student, teacher))
        if len(mine) != len(theirs) or not all(a.is_compatible_with(b) for a, b in zip(mine, theirs, strict=True)):
            raise ModelTypeError(
                f"Expected {what} of the same shape. Received: student {', '.join(map(str, mine))}, teacher "
                f"{', '.join(map(str, theirs))}."
            )
    check_finite(teacher)
    temperature = real_number("temperature", temperature, DataError, 1e-6, 1e6)
    alpha = real_number("alpha", alpha, DataError, 0, 1)
    feature_weight = real_number("feature_weight", feature_weight, DataError, 0, 1e9)
    pairs = [_pair(entry) for entry in ([features] if isinstance(features, str) else features)]
    data = prepare(student, train, batch_size, "train")
    held_out = None if validation is None else prepare(student, validation, batch_size, "validation", shuffle=False)
    chosen = choose_loss(student, data, loss, held_out)
    inputs = tf.nest.pack_sequence_as(student._nested_inputs, [tf.constant(array) for array in data.example.inputs])
    outputs = [tf.cast(model(inputs), tf.float32) for model in (student, teacher)]
    sigmoids = [_ends_in_sigmoid(model) for model in (student, teacher)]
    answers = _answers(chosen, outputs, all(sigmoids))
    distiller = Distiller(
        _with_own_losses(_with_features(student, [own for own, _ in pairs]), student),
        _with_features(teacher, [other for _, other in pairs]),
        temperature=temperature,
        alpha=alpha,
        feature_weight=feature_weight,
        answers=answers,
        probabilities=tuple(
            is_probabilities(output) if answers != "binary" else within_one(output) if sigmoid is None else sigmoid
            for output, sigmoid in zip(outputs, sigmoids, strict=True)
        ),
    )
    for (own, other), mine, theirs in zip(
        pairs, _flat(distiller.own(inputs))[1:], _flat(distiller.taught(inputs))[1:], strict=True
    ):
        if mine.shape[1:-1] != theirs.shape[1:-1]:
            raise DataError(
                f"Expected features of the same size apart from channels. Received: student {own!r} {mine.shape[1:]}, "
                f"teacher {other!r} {theirs.shape[1:]}."
            )
    distiller.student = student
    return fit_anew(
        distiller, student, data, held_out, epochs, chosen, metrics,
        optimizer=optimizer, learning_rate=learning_rate, callbacks=callbacks_of(callbacks), verbose=verbose,
    )  # fmt: skip


def _pair(entry: Any) -> tuple[str, str]:
    """The student's and the teacher's layer of one feature."""
    pair = (entry, entry) if isinstance(entry, str) else tuple(entry) if isinstance(entry, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair):
        raise DataError(
            f"Expected features as names of layers, or as pairs (student layer, teacher layer). Received: {entry!r}."
        )
    return pair


class Distiller(tf.keras.Model):
    """A student and its teacher, trained by ``fit``; only the student has weights to train.

    Args:
        own: the student; gives its output, then its features.
        taught: the teacher; the same.
        temperature: T.
        alpha: share of the teacher's answers.
        feature_weight: weight of the attention maps.
        answers: what the outputs are: ``classes``, ``binary`` (each unit on its own) or ``values``.
        probabilities: whether student and teacher give probabilities (else logits).
    """

    def __init__(
        self,
        own: tf.keras.Model,
        taught: tf.keras.Model,
        *,
        temperature: float,
        alpha: float,
        feature_weight: float,
        answers: str,
        probabilities: tuple[bool, ...],
    ) -> None:
        super().__init__()
        self.own, self.taught = own, taught
        self.temperature, self.alpha, self.feature_weight = temperature, alpha, feature_weight
        self.answers, self.probabilities = answers, probabilities
        self.output_names = own.output_names[:1]  # losses, metrics and labels may go by it
        self.parts = {name: tf.keras.metrics.Mean(name) for name in ("total", "distillation")}

    @property
    def trainable_variables(self) -> list[Any]:
        return list(self.own.trainable_variables)

    @property
    def trainable_weights(self) -> list[Any]:
        return list(self.own.trainable_weights)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        return _flat(self.own(inputs, training=training))[0]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        theirs = _flat(self.taught(x, training=False))
        with tf.GradientTape() as tape:
            mine = _flat(self.own(x, training=True))
            task = self.compiled_loss(y, mine[0], weight)
            taught = self.difference(theirs[0], mine[0])
            total = self.alpha * taught + (1 - self.alpha) * tf.cast(task, tf.float32)
            if len(mine) > 1:
                parts = [
                    tf.reduce_mean(tf.square(attention(own) - attention(other)))
                    for own, other in zip(mine[1:], theirs[1:], strict=True)
                ]
                total += self.feature_weight * tf.add_n(parts) / len(parts)
            for added in self.own.losses:
                total += tf.cast(added, tf.float32)
        self.optimizer.minimize(total, self.own.trainable_variables, tape=tape)
        self.compiled_metrics.update_state(y, mine[0], weight)
        self.parts["total"].update_state(total)
        self.parts["distillation"].update_state(taught)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y, weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        output = _flat(self.own(x, training=False))[0]
        self.compiled_loss(y, output, weight)
        self.compiled_metrics.update_state(y, output, weight)
        return {metric.name: metric.result() for metric in self.metrics if metric.name not in self.parts}

    def difference(self, teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
        """How far the student's output is from the teacher's."""
        if self.answers == "values":
            return tf.reduce_mean(tf.square(tf.cast(teacher, tf.float32) - tf.cast(student, tf.float32)))
        return divergence(self.logits(teacher, 1), self.logits(student, 0), self.temperature)

    def logits(self, output: tf.Tensor, which: int) -> tf.Tensor:
        """Logits of the student (0) or teacher (1), up to a constant, classes last."""
        output = tf.cast(output, tf.float32)
        if self.answers == "binary":
            other = 1 - output if self.probabilities[which] else tf.zeros_like(output)
            output = tf.stack([other, output], axis=-1)
        return tf.math.log(tf.maximum(output, _TINY)) if self.probabilities[which] else output


def _flat(outputs: Any) -> list[tf.Tensor]:
    """Outputs as a list: Keras gives a lone output without one."""
    return list(tf.nest.flatten(outputs))


def _answers(loss: Any, outputs: list[tf.Tensor], sigmoids: bool) -> str:
    """What outputs mean, by their activations and the task's loss: ``classes``, ``binary`` or ``values``."""
    name = loss_name(next(iter(tf.nest.flatten(loss))))
    wide = outputs[0].shape[-1] > 1
    if wide and any(is_probabilities(output) for output in outputs):
        return "classes"
    if sigmoids or "binary" in name:
        return "binary"
    return "values" if not wide or any(part in name for part in _OF_VALUES) else "classes"


def _ends_in_sigmoid(model: tf.keras.Model) -> bool | None:
    """Whether the last activation is a sigmoid; None where there is none to tell by, or one of another kind."""
    known = {tf.keras.activations.sigmoid: True, tf.keras.activations.linear: False}
    return known.get(getattr(model.outputs[0]._keras_history.layer, "activation", None))


def divergence(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over samples.

    Args:
        teacher: logits ``[samples, ..., classes]``.
        student: logits ``[samples, ..., classes]``.
        temperature: T.
    """
    target = tf.nn.log_softmax(teacher / temperature)
    answer = tf.nn.log_softmax(student / temperature)
    each = tf.reduce_sum(tf.exp(target) * (target - answer), axis=-1)
    return temperature**2 * tf.reduce_mean(each)


def attention(features: tf.Tensor) -> tf.Tensor:
    """Sum of squares over the channels, flattened to ``[samples, positions]``, divided by its norm."""
    values = tf.reduce_sum(tf.square(tf.cast(features, tf.float32)), axis=-1)
    return tf.math.l2_normalize(tf.reshape(values, [tf.shape(values)[0], -1]), axis=-1)


def _with_features(model: tf.keras.Model, names: list[str]) -> tf.keras.Model:
    """The model with the outputs of some layers behind its own output."""
    known = {layer.name: layer for layer in model.layers}
    for name in names:
        if name not in known:
            raise DataError(
                f"Expected features to name layers. Received: {name!r}, which {model.name!r} does not have."
            )
        if len(known[name].output_shape) < 3:
            raise DataError(
                f"Expected features of layers with positions and channels. Received: {name!r} with output shape "
                f"{known[name].output_shape}."
            )
    return tf.keras.Model(model.inputs, [model.outputs[0], *(known[name].output for name in names)])


def _with_own_losses(model: tf.keras.Model, student: tf.keras.Model) -> tf.keras.Model:
    """The model with what the student was given by ``add_loss``, which does not lie on the way to its outputs."""
    for layer in student.layers:
        if isinstance(layer, AddLoss):
            model.add_loss(layer.input)
    model.add_loss(list(student._callable_losses))
    return model
