"""What pruning by TensorFlow Model Optimization leaves of a model, and whether it takes larq layers.

python benchmarks/peers/tfmot_shapes.py
"""

from __future__ import annotations

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import zoo

import tensorflow as tf  # isort: skip
import tensorflow_model_optimization as tfmot  # isort: skip


def main() -> None:
    sparsity = tfmot.sparsity.keras
    half = sparsity.ConstantSparsity(0.5, 0)
    layers = [tf.keras.layers.Conv2D(16, 3, input_shape=(8, 8, 3)), tf.keras.layers.Conv2D(8, 3)]
    model = tf.keras.Sequential(layers)
    stripped = sparsity.strip_pruning(sparsity.prune_low_magnitude(model, half))
    print(f"TFMOT, half the weights: {model.count_params():,} -> {stripped.count_params():,} parameters")
    slim = tq.prune(model, tq.make_plan(model, 0.5))
    print(f"tfqprune, half the filters: {model.count_params():,} -> {slim.count_params():,} parameters")
    try:
        sparsity.prune_low_magnitude(zoo.build("resnet_digits", precision=2), half)
        print("TFMOT takes larq layers")
    except ValueError as error:
        print(f"TFMOT and larq layers: {error}")


if __name__ == "__main__":
    main()
