"""Holistic pruning under a strategy of two virtual devices; test_learned_gates.py runs it in a process of its own."""

from __future__ import annotations

import numpy as np

import tfqprune as tq

import tensorflow as tf  # isort: skip

K = tf.keras.layers

device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
tf.keras.utils.set_random_seed(0)
image = K.Input((6, 6, 3))
features = K.Conv2D(12, 3, activation="relu", name="second")(K.Conv2D(8, 3, activation="relu", name="first")(image))
# No batch norm: a replica's statistics are those of its part of the batch.
model = tf.keras.Model(image, K.Dense(4, activation="softmax", name="last")(K.Flatten()(features)))
rng = np.random.default_rng(1)
x, y = rng.normal(size=(64, 6, 6, 3)).astype("float32"), rng.integers(0, 4, 64)


def trained(strategy: tf.distribute.Strategy) -> tq.HolisticPruning:
    with strategy.scope():
        hfp = tq.HolisticPruning(model, tq.Budget(params=0.6, macs=0.6), "latent_l1")
        hfp.compile(tf.keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    hfp.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(16), epochs=10, verbose=0)
    return hfp


mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
both, one = trained(mirrored), trained(tf.distribute.get_strategy())
slim, whole = tq.cost(both.finish()), tq.cost(model)
print("replicas", mirrored.num_replicas_in_sync)
print("holds", slim.params <= 0.6 * whole.params and slim.macs <= 0.6 * whole.macs)
print("steps", both.steps, one.steps)
print("same plan", both.plan().removed == one.plan().removed, both.plan().ratios)
print("as trained", np.allclose(both.finish()(x), both(x), atol=1e-5))
print("as one device", np.allclose(both(x), one(x), atol=1e-3), flush=True)
