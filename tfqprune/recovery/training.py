"""Fine-tuning after a cut: a fresh optimiser on a cosine schedule, latent weights clipped first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.data.batching import untuned
from tfqprune.errors import DataError, ModelTypeError, real_number, whole_number
from tfqprune.losses import check_classes, compiled_arguments, infer_loss, loss_name
from tfqprune.models import check_model, is_keras_model
from tfqprune.precision import broken_values
from tfqprune.samples import Samples, arrays_of, batched, own_batch, sample_weights, take_samples


def finetune(
    model: tf.keras.Model,
    train: Any,
    validation: Any = None,
    epochs: int = 1,
    *,
    learning_rate: float = 1e-3,
    batch_size: int = 128,
    optimizer: Any = "adam",
    loss: Any = None,
    metrics: Any = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] | tf.keras.callbacks.Callback = (),
    verbose: int = 0,
) -> tf.keras.callbacks.History:
    """Trains a model further, in place.

    The learning rate falls from ``learning_rate`` to 0 along half a cosine over all steps (Loshchilov and Hutter, SGDR,
    arXiv 1608.03983, without restarts). The optimiser is always new: momenta of the model before the cut belong to
    other shapes and another loss surface. Latent weights are clipped to what their constraints allow before the first
    step: values far outside would not move for long.

    Args:
        model: a functional or sequential tf_keras model; it is compiled anew, and stays so: its schedule has run out,
            so a further ``fit`` learns nothing until it is compiled again (a further ``finetune`` does that).
        train: a pair (x, y) or a triple (x, y, sample weights), an object with ``x`` and ``y``
            (``tfqprune.data.Split``), or a tf.data.Dataset of such pairs or triples, batched or not.
        validation: the same, or None.
        epochs: passes over the data, at least 1.
        learning_rate: of the first step.
        batch_size: for arrays, and for data sets that are not batched.
        optimizer: a Keras optimiser's name, class, or an instance, of which a fresh copy is made with the schedule as
            its learning rate.
        loss: a Keras loss; by default the model's compiled one, else cross-entropy or squared error, by the labels: all
            of them where they are arrays, those of the first 32 samples of a data set.
        metrics: as for ``compile``; by default accuracy where the loss is a cross-entropy.
        callbacks: Keras callbacks.
        verbose: as for ``fit``.

    Returns:
        The history of ``fit``.

    Raises:
        ModelTypeError: no graph model.
        DataError: data without labels, that does not fit, or is endless; weights that are not finite; numbers that make
            no sense.
    """
    check_model(model)
    data = prepare(model, train, batch_size, "train")
    held_out = None if validation is None else prepare(model, validation, batch_size, "validation", shuffle=False)
    chosen = choose_loss(model, data, loss, held_out)
    return fit_anew(
        model, model, data, held_out, epochs, chosen, metrics,
        optimizer=optimizer, learning_rate=learning_rate, callbacks=callbacks_of(callbacks), verbose=verbose,
    )  # fmt: skip


def callbacks_of(given: Any) -> list[tf.keras.callbacks.Callback]:
    """One callback or several, as for ``fit``."""
    return [given] if isinstance(given, tf.keras.callbacks.Callback) else list(given or ())


def fit_anew(
    model: tf.keras.Model,
    latent: tf.keras.Model,
    data: TrainingData,
    held_out: TrainingData | None,
    epochs: int,
    loss: Any,
    metrics: Any = None,
    *,
    optimizer: Any,
    learning_rate: float,
    **options: Any,
) -> tf.keras.callbacks.History:
    """Compiles a model with a new optimiser on a cosine, clips latent weights, and trains.

    Args:
        model: what is compiled and trained.
        latent: the model in it whose latent weights are clipped.
        data: to train on.
        held_out: to validate on, or None.
        epochs: passes over the data.
        loss: a Keras loss, or one for each output; weighted as compiled where it is the compiled one.
        metrics: as for ``compile``; None: accuracy where the loss is a cross-entropy.
        optimizer: see :func:`finetune`.
        learning_rate: of the first step.
        **options: further arguments of ``fit``.

    Raises:
        DataError: latent weights that are not finite; numbers that make no sense.
    """
    check_finite(latent)
    model.compile(
        optimizer=fresh_optimizer(optimizer, cosine(learning_rate, data.steps, epochs)),
        loss=loss,
        loss_weights=data.loss_weights if loss is data.loss else None,
        metrics=default_metrics(loss) if metrics is None else metrics,
    )
    clip_latent(latent)
    validation = None if held_out is None else held_out.dataset
    return model.fit(data.dataset, validation_data=validation, epochs=epochs, **options)


def check_finite(model: tf.keras.Model) -> None:
    """Checks that all weights are numbers.

    Raises:
        DataError: NaN or infinity is among them; names the weight and the model.
    """
    for variable in model.weights:
        if bad := broken_values(variable):
            raise DataError(
                f"Expected finite weights. Received: {bad} values that are NaN or infinite in {variable.name!r} of "
                f"model {model.name!r}. Load it anew, or train it with a lower learning rate."
            )


def clip_latent(model: tf.keras.Model) -> int:
    """Applies each trainable weight's constraint once, as after a training step.

    Args:
        model: any tf_keras model; changed in place.

    Returns:
        How many values moved.

    Raises:
        ModelTypeError: no tf_keras model.
    """
    if not is_keras_model(model):
        raise ModelTypeError(f"Expected a tf_keras model. Received: an object of type {type(model).__name__}.")
    moved, pairs = 0, []
    for variable in model.trainable_variables:
        constraint = getattr(variable, "constraint", None)
        if constraint is not None:
            latent = getattr(variable, "latent_variable", variable)
            before = np.asarray(tf.keras.backend.get_value(latent))
            after = np.asarray(constraint(tf.constant(before)))
            if not np.array_equal(before, after):
                moved += int(np.count_nonzero(before != after))
                pairs.append((latent, after))
    tf.keras.backend.batch_set_value(pairs)
    return moved


@dataclass(frozen=True)
class TrainingData:
    """Batches to train on.

    Attributes:
        dataset: of (inputs, labels) or (inputs, labels, sample weights), batched.
        steps: batches in one epoch.
        example: a few samples.
        labels: all labels, one array an output; None where they come from a data set.
        loss: the compiled loss of the model that they are for, or None.
        loss_weights: the compiled weights of that loss for each output, or None.
    """

    dataset: tf.data.Dataset
    steps: int
    example: Samples
    labels: list[np.ndarray] | None = None
    loss: Any = None
    loss_weights: Any = None


def prepare(model: tf.keras.Model, data: Any, batch_size: int, what: str, shuffle: bool = True) -> TrainingData:
    """Batches from arrays or a data set, checked against the model.

    Raises:
        DataError: no labels, data that does not fit, an endless data set, a batch size below 1.
    """
    batch_size = whole_number("batch_size", batch_size, DataError)
    own = own_batch(model)
    compiled = (getattr(model, "loss", None), compiled_arguments(model).get("loss_weights"))
    if isinstance(data, tf.data.Dataset):
        if any(tensor.shape.rank is None for tensor in tf.nest.flatten(data.element_spec) if tensor is not None):
            raise DataError(
                f"Expected {what} data of known shapes. Received: a data set whose elements have any number of axes. "
                "Say the shapes: tf.data.Dataset.from_generator(..., output_signature=...)."
            )
        data = batched(model, data, batch_size)
        if own is not None:
            data = data.rebatch(own, drop_remainder=True)
        example = _with_labels(take_samples(model, data, own or 32), what)
        steps = int(data.cardinality())
        if steps == tf.data.INFINITE_CARDINALITY:
            raise DataError(f"Expected {what} data that ends. Received: an endless data set; bound it with .take(n).")
        if steps == tf.data.UNKNOWN_CARDINALITY:
            steps = int(data.reduce(np.int64(0), lambda count, *_: count + 1))
            data = data.repeat().take(steps)  # of known length, even where another pass would be shorter
        return TrainingData(data, steps, example, None, *compiled)
    samples = _with_labels(take_samples(model, data, 2**31), what)
    assert samples.labels is not None
    inputs = tf.nest.pack_sequence_as(_without_lists(model._nested_inputs), samples.inputs)
    labels = tf.nest.pack_sequence_as(_without_lists(model._nested_outputs), samples.labels)
    weights: Any = sample_weights(model, data, len(arrays_of(model, data)[0][0]))
    if isinstance(weights, list):
        weights = tf.nest.pack_sequence_as(_without_lists(model._nested_outputs), weights)
    if own is not None and weights is not None:
        weights = tf.nest.map_structure(lambda array: array[: len(samples)], weights)
    entries = (inputs, labels) if weights is None else (inputs, labels, weights)
    dataset = tf.data.Dataset.from_tensor_slices(entries)
    if shuffle:
        dataset = dataset.shuffle(len(samples), seed=0)
    dataset = untuned(dataset.batch(own or batch_size))
    first = own or 32
    example = Samples([array[:first] for array in samples.inputs], [array[:first] for array in samples.labels])
    return TrainingData(dataset, samples.steps(batch_size), example, samples.labels, *compiled)


def _without_lists(structure: Any) -> Any:
    """Tuples in place of lists, which a tf.data.Dataset would stack to one tensor."""
    if isinstance(structure, Mapping):
        return {key: _without_lists(entry) for key, entry in structure.items()}
    return tuple(map(_without_lists, structure)) if isinstance(structure, list | tuple) else structure


def _with_labels(samples: Samples, what: str) -> Samples:
    if samples.labels is None:
        raise DataError(f"Expected {what} data with labels, as (x, y). Received: inputs alone.")
    return samples


def choose_loss(model: tf.keras.Model, data: TrainingData, loss: Any, held_out: TrainingData | None = None) -> Any:
    """The loss given, else the compiled one, else the one that goes with labels and outputs.

    Of arrays all labels are looked at; of a data set those of its first 32 samples.

    Raises:
        DataError: several outputs; labels, those of ``held_out`` too, that do not go with the output or the loss.
    """
    chosen = data.loss if loss is None else loss
    if chosen is None:
        chosen = _inferred_loss(model, data)
    for part in (data, held_out):
        if part is not None and (labels := part.labels or part.example.labels) is not None:
            check_classes(model, labels, chosen)
    return chosen


def _inferred_loss(model: tf.keras.Model, data: TrainingData) -> Any:
    """The loss that goes with labels and the output."""
    assert data.example.labels is not None
    if len(model.outputs) > 1:
        raise DataError(f"Expected a loss for a model of {len(model.outputs)} outputs. Received: loss=None.")
    inputs = tf.nest.pack_sequence_as(model._nested_inputs, [tf.constant(array) for array in data.example.inputs])
    output = tf.cast(tf.nest.flatten(model(inputs, training=False))[0], tf.float32)
    try:
        known = None if data.labels is None else data.labels[0]
        return infer_loss(tf.constant(data.example.labels[0]), output, known)
    except ValueError as error:
        raise DataError(
            f"No loss follows from labels of shape {data.example.labels[0].shape} and outputs of shape "
            f"{tuple(output.shape)}: {error}"
        ) from error


def default_metrics(loss: Any) -> list[Any]:
    """Accuracy where the loss is a cross-entropy, else nothing."""
    binary = tf.keras.losses.BinaryCrossentropy, tf.keras.losses.BinaryFocalCrossentropy
    if isinstance(loss, binary) and loss.from_logits:
        return [tf.keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)]  # Keras would ask for logits above 0.5
    return ["accuracy"] if "crossentropy" in loss_name(loss) else []


def cosine(learning_rate: float, steps: int, epochs: int) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """From ``learning_rate`` to 0 along half a cosine over all steps of all epochs.

    Raises:
        DataError: a learning rate that is not above 0, or epochs below 1.
    """
    epochs = whole_number("epochs", epochs, DataError)
    learning_rate = real_number("learning_rate", learning_rate, DataError, above=0, below=1e6)
    return tf.keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps=max(steps * epochs, 1))


def fresh_optimizer(optimizer: Any, schedule: Any) -> tf.keras.optimizers.Optimizer:
    """A new optimiser with a schedule as its learning rate, whatever state the one given has.

    Raises:
        DataError: no optimiser of Keras.
    """
    try:
        if isinstance(optimizer, type):
            return optimizer(learning_rate=schedule)
        made = tf.keras.optimizers.get(optimizer)
        if isinstance(made, tf.keras.mixed_precision.LossScaleOptimizer):  # compile() wraps it again
            made = made.inner_optimizer
        config = {key: value for key, value in made.get_config().items() if key != "is_legacy_optimizer"}
        if "learning_rate" not in config:
            raise ValueError("it has no learning rate of its own")
        return type(made).from_config({**config, "learning_rate": schedule})
    except (ValueError, TypeError, AttributeError) as error:  # larq's CaseOptimizer without a default has no config
        raise DataError(
            f"Expected a Keras optimiser: its name, class or an instance. Received: {optimizer!r} ({error})."
        ) from error
