"""Bayesian ratios for a trained network, in a search that can be interrupted and spread over machines.

    python examples/search_ratios.py [--quick] [--directory search]

Run it again to go on where it stopped. To spread it over processes or machines, start it once with
KERASTUNER_TUNER_ID=chief and as often as you like with KERASTUNER_TUNER_ID=worker1, worker2, ..., each time with
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief, and a directory that all of them see.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import data, zoo

import tensorflow as tf  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="handwritten digits instead of CIFAR-10, a few trials")
    parser.add_argument("--directory", type=Path, default=Path("search"))
    parser.add_argument("--memory", default=0.5, type=float, help="of the original's memory")
    parser.add_argument(
        "--sensitivity",
        action=argparse.BooleanOptionalAction,
        help="guide the search by sensitivity curves; by default if they take no more evaluations than trials",
    )
    arguments = parser.parse_args()

    splits = data.load("digits" if arguments.quick else "cifar10")
    tf.keras.utils.set_random_seed(0)
    if arguments.quick:
        model, epochs, trials = zoo.build("resnet_digits", precision=2), 8, 15
    else:
        model, epochs, trials = zoo.build("resnet20", precision=2), 30, 60
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    arguments.directory.mkdir(parents=True, exist_ok=True)
    weights = arguments.directory / "dense.weights.h5"
    if weights.exists():
        model.load_weights(weights)
    else:
        model.fit(
            splits.train.x,
            splits.train.y,
            64,
            epochs,
            validation_data=(splits.validation.x, splits.validation.y),
            verbose=2,
        )
        part = arguments.directory / f"dense.{os.getpid()}.weights.h5"
        model.save_weights(part)
        os.replace(part, weights)

    tuner = tq.RatioTuner(
        model,
        tq.Budget(memory=arguments.memory),
        max_trials=trials,
        directory=arguments.directory,
        project_name="trials",
        evaluation="both",
        promote=1 if arguments.quick else 3,
        sensitivity=arguments.sensitivity,
    )
    tuner.search(splits.train, validation_data=splits.validation, epochs=1 if arguments.quick else 3)
    if os.environ.get("KERASTUNER_TUNER_ID", "chief") != "chief":
        return

    plan, slim = tuner.get_best_plans()[0], tuner.get_best_models()[0]
    plan.save(arguments.directory / "plan.json")
    slim.save(arguments.directory / "slim.keras")
    print(plan)
    print(f"memory {tq.cost(model).memory:,.0f} B -> {tq.cost(slim).memory:,.0f} B")
    print(f"validation accuracy {slim.evaluate(splits.validation.x, splits.validation.y, verbose=0)[1]:.4f}")


if __name__ == "__main__":
    main()
