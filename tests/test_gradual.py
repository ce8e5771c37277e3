"""Gradual pruning: the masked training model computes what the slim model will; schedules are followed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_optimization.sparsity.keras import ConstantSparsity, PolynomialDecay

import tfqprune as tq
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.errors import CriterionError, DataError, PlanError
from tfqprune.masking import mask
from tfqprune.testing.criteria import network, samples_for

K = tf.keras.layers
NETWORKS = ["float", "binary_residual", "dorefa_residual", "grouped", "ternary_dense"]


def never(step: tf.Tensor) -> tuple[bool, float]:
    return False, 0.0


@pytest.mark.filterwarnings("ignore:Criterion .* has nothing to read")
@pytest.mark.parametrize("name", NETWORKS)
def test_masked_is_slim_at_every_moment(name: str) -> None:
    model = network(name)
    inputs, labels = samples_for(model)
    x = inputs if len(inputs) > 1 else inputs[0]
    gradual = tq.GradualPruning(model, never, "latent_l1")
    training = gradual.training_model
    np.testing.assert_array_equal(training(x), model(x))
    training.compile(tf.keras.optimizers.SGD(0.05), tf.keras.losses.SparseCategoricalCrossentropy(name == "grouped"))
    for share in (0.25, 0.5):
        gradual.prune_to(share)
        training.fit(x, labels, batch_size=8, epochs=1, verbose=0, callbacks=[gradual])
        slim = gradual.finish()
        np.testing.assert_allclose(training(x), slim(x), rtol=1e-4, atol=1e-5)
        for group in tq.ChannelGraph(model).prunable:
            assert len(gradual.removed[group.name]) == int(share * group.size)
    assert slim.count_params() < model.count_params()
    plan = gradual.plan()
    assert plan.removed == {name: slots for name, slots in gradual.removed.items() if slots}
    assert mask(model, plan).count_params() == model.count_params()  # the plan fits the original


def test_blocks_of_a_grouped_convolution_down_to_one_input() -> None:
    """Conv 8 -> conv 16 in 4 groups, units of 4 channels each: 2 and 4 of them, then 1 and 2, then 1 and 1.

    With one input for each group the slim model could lose groups; the whole model's units are still slots of blocks.
    A unit of the second has its filters at j, 4 + j, 8 + j, 12 + j: those of 4 times |w| = 1 + j go in the order of j.
    """
    image = K.Input((4, 4, 3))
    x = K.Conv2D(16, 1, groups=4, use_bias=False, name="grouped")(K.Conv2D(8, 1, name="first")(image))
    model = tf.keras.Model(image, K.Dense(2)(K.Flatten()(x)))
    kernel = np.ones((1, 1, 2, 16)) * (1 + np.arange(16) % 4)
    model.get_layer("grouped").set_weights([kernel])
    gradual = tq.GradualPruning(model, never, "latent_l1")
    for share, gone in ((0.5, (0, 1)), (0.75, (0, 1, 2))):
        gradual.prune_to(share)
        assert len(gradual.removed["first"]) == 1
        assert gradual.removed["grouped"] == gone
        x = samples_for(model)[0][0]
        np.testing.assert_allclose(gradual.training_model(x), gradual.finish()(x), rtol=1e-4, atol=1e-5)


def test_what_is_gone_stays_gone() -> None:
    gradual = tq.GradualPruning(network("float"), never, "random")
    gradual.prune_to(0.25)
    first = {name: set(slots) for name, slots in gradual.removed.items()}
    gradual.prune_to(0.75)
    assert all(first[name] < set(slots) for name, slots in gradual.removed.items())
    again = dict(gradual.removed)
    gradual.prune_to(0.5)
    assert gradual.removed == again


# PolynomialDecay from 0 to 0.5, power 1, steps 0 to 4, every 2: share 0 at step 0, 0.25 at 2, 0.5 at 4. Groups of 8:
# 0, 2, 4 units.
def test_follows_a_polynomial_decay() -> None:
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    schedule = PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, power=1, frequency=2)
    gradual = tq.GradualPruning(model, schedule, data=x)
    seen = []

    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(len(gradual.removed["inner"]))

    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    gradual.training_model.fit(x, labels, batch_size=4, verbose=0, callbacks=[gradual, Watch()])  # 6 steps
    assert seen == [0, 0, 2, 2, 4, 4]
    assert gradual.plan().criterion == "reconstruction"
    assert gradual.finish().get_layer("inner").filters == 4


def gone_of_eight(schedule, steps: int) -> tuple[int, int]:
    """Units of 'inner' (8) that are gone after so many steps: while it trained, and in the slim model."""
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    gradual = tq.GradualPruning(model, schedule, "latent_l1", groups=["inner"])
    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4).repeat().take(steps)
    gradual.training_model.fit(data, verbose=0, callbacks=[gradual])
    return len(gradual.removed["inner"]), 8 - gradual.finish().get_layer("inner").filters


# At the last of 10 steps 0.5 (1 - 0.1^3) = 0.4995 is asked for: 3.996 of 8 units.
@pytest.mark.filterwarnings("error")
def test_a_decay_that_ends_with_the_training_is_complete() -> None:
    assert gone_of_eight(PolynomialDecay(0.0, 0.5, begin_step=0, end_step=10, frequency=1), 10) == (4, 4)


# Every 4 steps and to step 10: last asked at step 8, for 0.5 (1 - 0.2^3) = 0.496, 3.968 of 8 units.
@pytest.mark.parametrize(
    ("schedule", "steps", "gone", "received"),
    [
        (PolynomialDecay(0.0, 0.5, begin_step=0, end_step=10, frequency=4), 12, 3, "asked for 0.496 at most; 3 units"),
        (PolynomialDecay(0.0, 0.5, begin_step=0, end_step=12, frequency=4), 9, 3, "9 steps with this callback"),
        (ConstantSparsity(0.5, begin_step=20), 3, 0, "asked for 0 at most; 0 units"),
    ],
)
def test_what_is_short_of_the_target_is_said(schedule, steps: int, gone: int, received: str) -> None:
    with pytest.warns(UserWarning, match=f"reaches the schedule's share of 0.5. Received: .*{received}"):
        assert gone_of_eight(schedule, steps) == (gone, gone)


def test_a_forgotten_callback_is_said() -> None:
    gradual = tq.GradualPruning(network("dorefa_residual"), lambda step: (True, 0.5), "latent_l1")
    with pytest.warns(UserWarning, match="Received: 0 steps with this callback"):
        gradual.finish()


def test_a_training_model_is_not_saved_whole(tmp_path: Path) -> None:
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    gradual = tq.GradualPruning(model, ConstantSparsity(0.5, 0), "latent_l1")
    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(PlanError, match="save_weights_only=True"):
        gradual.training_model.save(tmp_path / "whole.keras")
    keep = tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "some.weights.h5"), save_weights_only=True)
    gradual.training_model.fit(x, labels, verbose=0, callbacks=[gradual, keep])
    assert (tmp_path / "some.weights.h5").exists()


@pytest.mark.parametrize("answer", [0.5, None, (True, 0.5, 1)])
def test_schedules_that_give_no_pair(answer) -> None:
    with pytest.raises(PlanError, match=r"Expected the schedule to give \(prune now, share\).*for step 0"):
        gone_of_eight(lambda step: answer, 1)


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_schedules_with_a_share_out_of_range(share: float) -> None:
    with pytest.raises(PlanError, match="Expected the schedule's share to be"):
        gone_of_eight(lambda step: (True, share), 1)


@pytest.mark.parametrize("groups", [["inner"], "inner"])
def test_constant_sparsity_of_some_groups(groups) -> None:
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    gradual = tq.GradualPruning(model, ConstantSparsity(0.5, begin_step=1, frequency=1), "latent_l1", groups=groups)
    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    gradual.training_model.fit(x, labels, batch_size=12, verbose=0, callbacks=[gradual])  # steps 0 and 1
    assert {name: len(slots) for name, slots in gradual.removed.items()} == {"inner": 4}


def trained(*callbacks: tf.keras.callbacks.Callback) -> tq.GradualPruning:
    """Five epochs of 4 steps; the share grows at steps 0, 4, 8, 12 and is one half from step 12 on."""
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    schedule = PolynomialDecay(0.0, 0.5, begin_step=0, end_step=12, power=1, frequency=4)
    gradual = tq.GradualPruning(model, schedule, "latent_l1")
    gradual.training_model.compile(tf.keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    options = {"batch_size": 6, "epochs": 5, "shuffle": False, "verbose": 0}
    with contextlib.suppress(KeyboardInterrupt):
        gradual.training_model.fit(x, labels, callbacks=[gradual, *callbacks], **options)
    return gradual


def test_in_a_strategy() -> None:
    model = network("dorefa_residual")
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        gradual = tq.GradualPruning(model, ConstantSparsity(0.5, begin_step=1, frequency=1), "latent_l1")
        gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    (x,), labels = samples_for(model)
    gradual.training_model.fit(x, labels, batch_size=12, verbose=0, callbacks=[gradual])
    assert sum(map(len, gradual.removed.values())) > 0


class Interrupt(tf.keras.callbacks.Callback):
    """In the third epoch, after the tenth step."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 1):
            raise KeyboardInterrupt


def test_resumes_after_an_interruption(tmp_path: Path) -> None:
    model = network("dorefa_residual")
    (x,), _ = samples_for(model)
    whole = trained()
    assert whole.step == 20
    assert {len(slots) for slots in whole.removed.values()} == {4}
    assert trained(tf.keras.callbacks.BackupAndRestore(tmp_path), Interrupt()).step == 10
    resumed = trained(tf.keras.callbacks.BackupAndRestore(tmp_path))
    assert resumed.plan() == whole.plan()
    np.testing.assert_allclose(resumed.training_model(x), whole.training_model(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(resumed.training_model(x), resumed.finish()(x), rtol=1e-4, atol=1e-5)


# The metric falls: the first epoch is the best, when nothing had gone. From the fourth on all is gone that is to go.
@pytest.mark.parametrize(("start", "step", "gone"), [(0, 4, 0), (3, 16, 4)])
def test_early_stopping_brings_back_what_was_gone_then(start: int, step: int, gone: int) -> None:
    class Falling(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["quality"] = -epoch

    early = tf.keras.callbacks.EarlyStopping(
        "quality", mode="max", patience=9, restore_best_weights=True, start_from_epoch=start
    )
    gradual = trained(Falling(), early)
    (x,), _ = samples_for(network("dorefa_residual"))
    assert gradual.step == step
    assert {len(slots) for slots in gradual.removed.values()} == {gone}
    outputs = gradual.training_model(x)
    with pytest.warns(UserWarning, match="of step 4, when 0 were") if start == 0 else contextlib.nullcontext():
        slim, plan = gradual.finish(), gradual.plan()
    np.testing.assert_allclose(outputs, slim(x), rtol=1e-4, atol=1e-5)
    assert plan.notes == {"steps": step}


def test_weights_hold_what_is_gone(tmp_path: Path) -> None:
    model = network("float")
    (x,), _ = samples_for(model)
    gradual, other = (tq.GradualPruning(model, never, "latent_l1") for _ in range(2))
    gradual.prune_to(0.5)
    for name in ("state.weights.h5", "state"):
        gradual.training_model.save_weights(tmp_path / name)
        other.training_model.load_weights(tmp_path / name)
        assert other.removed == gradual.removed
        np.testing.assert_array_equal(other.training_model(x), gradual.training_model(x))
        other.training_model.set_weights(tq.GradualPruning(model, never, "latent_l1").training_model.get_weights())
        assert not any(other.removed.values())


# What goes is "inner"; the layer norm stands on the model's output and, second, on the channels of "outer".
def test_layer_norm_over_what_stays() -> None:
    inputs = K.Input((3,))
    x = K.Dense(4, name="outer")(K.Dense(8, activation="relu", name="inner")(inputs))
    model = tf.keras.Model(inputs, K.LayerNormalization()(K.Dense(2)(x)))
    data = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    within = tf.keras.Model(inputs, K.Dense(2)(K.LayerNormalization(name="norm")(x)))
    for gradual in (tq.GradualPruning(model, never), tq.GradualPruning(within, never, groups=["inner"])):
        gradual.prune_to(0.5)
        assert len(gradual.removed["inner"]) == 4
        np.testing.assert_allclose(gradual.training_model(data), gradual.finish()(data), rtol=1e-5, atol=1e-6)
    with pytest.raises(PlanError, match="'norm' takes statistics over channels that may go"):
        tq.GradualPruning(within, never)


def test_original_is_left_alone() -> None:
    model = network("binary_residual")
    before = model.get_weights()
    (x,), labels = samples_for(model)
    gradual = tq.GradualPruning(model, never, "latent_l1")
    gradual.prune_to(0.5)
    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy")
    gradual.training_model.fit(x, labels, verbose=0, callbacks=[gradual])
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


# Units can go between executions only: of 6 batches in two executions the callback would see two.
@pytest.mark.parametrize("steps", [3, "auto"])
def test_several_steps_an_execution_are_refused(steps: int | str) -> None:
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    gradual = tq.GradualPruning(model, never, "latent_l1")
    gradual.training_model.compile("sgd", "sparse_categorical_crossentropy", steps_per_execution=steps)
    with pytest.raises(PlanError, match=f"Expected steps_per_execution=1.*Received: {steps!r}"):
        gradual.training_model.fit(x, labels, batch_size=4, verbose=0, callbacks=[gradual])
    assert gradual.training_model.optimizer.iterations == 0


def test_data_is_checked_at_once() -> None:
    model = network("dorefa_residual")
    (x,), labels = samples_for(model)
    with pytest.raises(DataError, match=r"shape \(samples, 6, 6, 3\).*\(24, 3, 6, 3\)"):
        tq.GradualPruning(model, never, "taylor", (x[:, :3], labels))
    tq.GradualPruning(model, never, "latent_l1", x[:, :3])  # nobody looks at it


@pytest.mark.parametrize("criterion", ["flip_frequency", FlipFrequency(), {"latent_l1": 1, "flip_frequency": 1}])
def test_flips_of_the_full_shape_are_refused(criterion) -> None:
    with pytest.raises(CriterionError, match="'flip_frequency', whose counts belong to kernels of the full shape"):
        tq.GradualPruning(network("dorefa_residual"), never, criterion)


def test_refused() -> None:
    model = network("float")
    with pytest.raises(PlanError, match="Expected a PruningSchedule"):
        tq.GradualPruning(model, 0.5)
    with pytest.raises(PlanError, match="Expected a PruningSchedule"):
        tq.GradualPruning(model, PolynomialDecay)
    with pytest.raises(PlanError, match="'last' cannot be pruned"):
        tq.GradualPruning(model, never, groups=["last"])
    with pytest.raises(PlanError, match="Did you mean 'first'"):
        tq.GradualPruning(model, never, groups=["firs"])
    gradual = tq.GradualPruning(model, never)
    with pytest.raises(PlanError, match="below 1"):
        gradual.prune_to(1.0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(PlanError, match="its own training_model"):
        model.fit(*samples_for(model)[0], samples_for(model)[1], verbose=0, callbacks=[gradual])
