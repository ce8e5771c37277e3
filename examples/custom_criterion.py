"""A criterion of your own beside those that exist, judged on data.

    python examples/custom_criterion.py [--quick] [--output runs/custom_criterion]

Each criterion chooses a quarter of every group; batch norms are re-estimated and the accuracy on validation images
decides, without training. The 2-bit network learns the digits of scikit-learn; the quick form learns less long.
"""

from __future__ import annotations

import numpy as np
from common import accuracy, arguments, trained

import tfqprune as tq
from tfqprune import data, zoo


@tq.register_criterion("level_entropy")
def level_entropy(filters: np.ndarray) -> np.ndarray:
    """How evenly a filter uses its levels, in bits: a filter that is nearly constant goes first.

    Args:
        filters: deployed weights [units, weights].

    Returns:
        Scores [units].
    """
    levels = np.unique(filters)
    shares = np.stack([(filters == level).mean(axis=1) for level in levels])
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=0)


def main() -> None:
    given = arguments(__doc__, "runs/custom_criterion")
    splits = data.load("digits")
    model = zoo.build("resnet_digits", precision=2)
    model = trained(model, splits, given.output / "dense.weights.h5", 10 if given.quick else 40)
    print(f"{'dense':16s} {accuracy(model, splits.validation):.4f}")
    for criterion in ("level_entropy", "latent_l1", "random", "reconstruction"):
        slim = tq.prune(model, tq.make_plan(model, 0.25, criterion, splits.train))
        tq.reestimate_batch_norms(slim, splits.train)
        slim.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        print(f"{criterion:16s} {accuracy(slim, splits.validation):.4f}")


if __name__ == "__main__":
    main()
