"""Ratios as hyperparameters of any tuner of Keras-Tuner: here RandomSearch with PruningHyperModel.

    python examples/hypermodel_random_search.py [--quick] [--output runs/random_search]

Every trial builds a slim model on the budget and trains it for some epochs. ``tq.RatioTuner`` (search_ratios.py) judges
plans without building models and is the better search; this is for those who bring a tuner of their own.
"""

from __future__ import annotations

from common import accuracy, arguments, trained

import tfqprune as tq
from tfqprune import data, zoo

import keras_tuner  # isort: skip  (it loads TensorFlow, so tfqprune comes first)


def main() -> None:
    given = arguments(__doc__, "runs/random_search")
    if given.quick:
        splits, epochs, trials = data.load("digits"), 6, 3
        model = zoo.build("resnet_digits", precision=2, width=0.5)
    else:
        splits, epochs, trials = data.load("cifar10"), 30, 20
        model = zoo.build("resnet20", precision=2)
    model = trained(model, splits, given.output / "dense.weights.h5", epochs)

    random_search = tq.legacy_tuner(keras_tuner.RandomSearch)  # Keras-Tuner's own classes take Keras 3 models only
    tuner = random_search(
        tq.PruningHyperModel(model, tq.Budget(memory=0.6), data=splits.train),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=trials,
        seed=0,
        directory=given.output,
        project_name="trials",
    )
    tuner.search(
        splits.train.x,
        splits.train.y,
        epochs=1 if given.quick else 3,
        validation_data=(splits.validation.x, splits.validation.y),
        verbose=0,
    )
    best = tuner.get_best_hyperparameters()[0]
    plan = tuner.hypermodel.plan(best)
    plan.save(given.output / "plan.json")
    slim = tq.prune(model, plan)
    tq.reestimate_batch_norms(slim, splits.train)
    tq.finetune(slim, splits.train, splits.validation, max(epochs // 3, 1), batch_size=64)
    print(plan)
    print(f"memory {tq.cost(model).memory:,.0f} B -> {tq.cost(slim).memory:,.0f} B")
    print(f"test accuracy {accuracy(model, splits.test):.4f} -> {accuracy(slim, splits.test):.4f}")


if __name__ == "__main__":
    main()
