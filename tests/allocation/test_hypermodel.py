"""Slim models under tuners of the user's choice."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras_tuner
import larq as lq
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune.errors import BudgetError, ModelTypeError


@pytest.fixture
def compiled(model: tf.keras.Model) -> tf.keras.Model:
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return copy


def test_every_model_holds_the_budget(compiled, train) -> None:
    hypermodel = tq.PruningHyperModel(compiled, tq.Budget(memory=0.6), "latent_l1", train)
    hp = keras_tuner.HyperParameters()
    default = hypermodel.build(hp)
    assert [parameter.name for parameter in hp.space] == [f"ratio/{name}" for name in hypermodel.fitter.names]
    uniform = tq.UniformAllocator(tq.Budget(memory=0.6)).allocate(compiled, "latent_l1")
    assert hypermodel.plan(hp).removed == uniform.removed  # equal preferences are one ratio
    hp.values["ratio/first"] = 1.0
    other = hypermodel.build(hp)
    limit = 0.6 * tq.cost(compiled).memory
    assert tq.cost(default).memory <= limit
    assert tq.cost(other).memory <= limit
    assert other.get_layer("first").filters < default.get_layer("first").filters
    assert other.optimizer is not compiled.optimizer


def test_larqs_case_optimizer_trains_every_weight(train) -> None:
    """What the trained model's optimiser remembers are names of variables that a slim model does not have."""
    tf.keras.utils.set_random_seed(0)
    binary = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", "use_bias": False}
    image = tf.keras.layers.Input(train[0].shape[1:])
    x = lq.layers.QuantConv2D(8, 3, name="one", **binary)(image)
    x = tf.keras.layers.BatchNormalization()(x)
    x = lq.layers.QuantConv2D(8, 3, name="two", input_quantizer="ste_sign", **binary)(x)
    x = tf.keras.layers.Flatten()(tf.keras.layers.BatchNormalization()(x))
    model = tf.keras.Model(image, tf.keras.layers.Dense(10, activation="softmax")(x))
    pair = lq.optimizers.Bop.is_binary_variable, lq.optimizers.Bop(threshold=1e-9, gamma=0.1)
    for default in (tf.keras.optimizers.legacy.Adam(0.01), None):
        optimizer = lq.optimizers.CaseOptimizer(pair, default_optimizer=default)
        model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
        if default is not None:
            model.fit(*train, epochs=1, verbose=0)
        slim = tq.PruningHyperModel(model, tq.Budget(memory=0.7), "deployed_l2").build(keras_tuner.HyperParameters())
        before = [weight.numpy().copy() for weight in slim.trainable_weights]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # larq says that some are not trained where there is no default
            slim.fit(*train, epochs=2, verbose=0)
        moved = {w.name: (w.numpy() != old).any() for w, old in zip(slim.trainable_weights, before, strict=True)}
        # Without a default only the binary kernels are claimed.
        assert all(done for name, done in moved.items() if default is not None or name.startswith(("one/", "two/")))


@pytest.mark.parametrize("kind", ["RandomSearch", "Hyperband", "BayesianOptimization", "GridSearch"])
def test_with_a_tuner_of_choice(compiled, train, validation, tmp_path: Path, kind: str) -> None:
    hypermodel = tq.PruningHyperModel(compiled, tq.Budget(memory=0.6), "latent_l1", train, exclude=["fourth"])
    trials = {"max_epochs": 2} if kind == "Hyperband" else {"max_trials": 2}
    tuner = tq.legacy_tuner(getattr(keras_tuner, kind))(
        hypermodel, objective="val_accuracy", directory=tmp_path, project_name=kind, seed=1, **trials
    )
    tuner.search(*train, validation_data=validation, epochs=1, verbose=0)
    best = tuner.get_best_models()[0]
    assert tq.cost(best).memory <= 0.6 * tq.cost(compiled).memory
    score = tuner.oracle.get_best_trials()[0].score
    assert best.evaluate(*validation, verbose=0)[1] == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "sparse_categorical_accuracy"])
def test_the_best_epoch_counts(compiled, train, validation, tmp_path: Path, metric: str) -> None:
    compiled.compile(tf.keras.optimizers.Adam(0.3), "sparse_categorical_crossentropy", [metric])
    hypermodel = tq.PruningHyperModel(compiled, tq.Budget(memory=0.6), "latent_l1", train)
    seen: list[list[float]] = []

    class Recorder(tf.keras.callbacks.Callback):
        """Is copied for each trial, so it writes to a list outside."""

        def on_train_begin(self, logs=None) -> None:
            seen.append([])

        def on_epoch_end(self, epoch, logs=None) -> None:
            seen[-1].append(logs[f"val_{metric}"])

    tuner = tq.legacy_tuner(keras_tuner.RandomSearch)(
        hypermodel, objective="val_accuracy", directory=tmp_path, max_trials=3, seed=1
    )
    tuner.search(*train, validation_data=validation, epochs=6, verbose=0, callbacks=[Recorder()])
    assert any(values[-1] < max(values) for values in seen)  # else the last epoch would do
    trials = [tuner.oracle.trials[name] for name in sorted(tuner.oracle.trials)]
    assert [trial.score for trial in trials] == [max(values) for values in seen]
    best = tuner.oracle.get_best_trials()[0]
    assert best.best_step == seen[trials.index(best)].index(best.score)
    assert tuner.get_best_models()[0].evaluate(*validation, verbose=0)[1] == pytest.approx(best.score, abs=1e-6)


def test_a_model_that_is_not_compiled_is_refused_before_the_search(model, tmp_path: Path) -> None:
    hypermodel = tq.PruningHyperModel(model, tq.Budget(memory=0.6), "latent_l1")
    assert hypermodel.plan(keras_tuner.HyperParameters()).removed
    with pytest.raises(ModelTypeError, match="compiled with a loss"):
        tq.legacy_tuner(keras_tuner.RandomSearch)(
            hypermodel, objective="val_accuracy", max_trials=1, directory=tmp_path
        )


def test_refused(compiled, train, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="smallest reachable"):
        tq.PruningHyperModel(compiled, tq.Budget(memory=0.01), "latent_l1")
    with pytest.raises(BudgetError, match=r"Expected a tfqprune.Budget, .* Received: 0.5 \(of type float\)"):
        tq.PruningHyperModel(compiled, 0.5, "latent_l1")
    with pytest.raises(TypeError, match="a tuner class"):
        tq.legacy_tuner(keras_tuner.oracles.RandomSearchOracle)
    tuner = tq.legacy_tuner(keras_tuner.RandomSearch)(
        lambda hp: hp.Float("a", 0, 1) and None, objective="val_accuracy", max_trials=1, directory=tmp_path
    )
    with pytest.raises(TypeError, match="legacy Keras model"):
        tuner.search(*train, verbose=0)
