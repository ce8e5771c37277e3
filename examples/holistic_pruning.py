"""Ratios learned while training, towards exact targets for parameters and multiplications.

    python examples/holistic_pruning.py [--quick] [--output runs/holistic]

The wrapped model is compiled and fitted like any Keras model; its logs show what is left of each bounded cost and the
target of the moment.
"""

from __future__ import annotations

from common import accuracy, arguments, trained

import tfqprune as tq
from tfqprune import data, zoo

import tensorflow as tf  # isort: skip  (tfqprune selects legacy Keras first)


def main() -> None:
    given = arguments(__doc__, "runs/holistic")
    if given.quick:
        splits, epochs = data.load("digits"), 10
        model = zoo.build("resnet_digits", precision=2, width=0.5)
    else:
        splits, epochs = data.load("cifar10"), 40
        model = zoo.build("resnet20", precision=2)
    model = trained(model, splits, given.output / "dense.weights.h5", epochs)

    hfp = tq.HolisticPruning(model, tq.Budget(params=0.6, macs=0.6), data=splits.train)
    hfp.compile(tf.keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", ["accuracy"])
    hfp.fit(
        splits.train.x,
        splits.train.y,
        64,
        epochs,
        validation_data=(splits.validation.x, splits.validation.y),
        verbose=2,
    )
    plan, slim = hfp.plan(), hfp.finish()
    plan.save(given.output / "plan.json")
    slim.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    tq.reestimate_batch_norms(slim, splits.train)
    slim.save(given.output / "slim.keras")
    before, after = tq.cost(model), tq.cost(slim)
    print(plan)
    print(f"parameters {after.params / before.params:.4f}, MACs {after.macs / before.macs:.4f} of the original")
    print(f"test accuracy {accuracy(model, splits.test):.4f} -> {accuracy(slim, splits.test):.4f}")


if __name__ == "__main__":
    main()
