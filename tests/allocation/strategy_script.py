"""A fine-tuning search under a strategy of two virtual devices; test_processes.py runs it in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import tfqprune as tq

sys.path.insert(0, str(Path(__file__).parent))
from conftest import make_data, make_model

import tensorflow as tf  # isort: skip

device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
model = make_model()
tuner = tq.RatioTuner(
    model,
    tq.Budget(memory=0.6),
    "latent_l1",
    2,
    sys.argv[1],
    "search",
    evaluation="finetune",
    calibration_samples=64,
    batch_size=16,
    distribution_strategy=tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
)
validation = make_data(model, 2)
tuner.search(make_data(model, 1), validation_data=validation)
slim = tuner.get_best_models(1)[0]
slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
print("best", tuner.oracle.get_best_trials(1)[0].score, "again", slim.evaluate(*validation, verbose=0)[1], flush=True)
