"""A binary ResNet-20 on CIFAR-10: trained, pruned to 70 % of its memory in two ways, exported, measured, reported.

    python examples/binary_resnet_cifar10.py [--quick] [--output runs/binary_resnet]

CIFAR-10 is downloaded by TensorFlow Datasets. The quick form takes the digits of scikit-learn. An interrupted run goes
on when the same command is given again.
"""

from __future__ import annotations

from common import arguments, trained

import tfqprune as tq
from tfqprune import data, zoo


def main() -> None:
    given = arguments(__doc__, "runs/binary_resnet")
    if given.quick:
        splits, epochs, methods = data.load("digits"), 12, ["uniform"]
        model = zoo.build("resnet_digits", precision="binary")
    else:
        splits, epochs, methods = data.load("cifar10"), 60, ["uniform", "bayesian"]
        model = zoo.build("resnet20", precision="binary")
    model = trained(model, splits, given.output / "dense.weights.h5", epochs)
    result = tq.compress(
        model,
        splits.train,
        splits.validation,
        test=splits.test,
        budget=tq.Budget(memory=0.7),
        method=methods,
        output_dir=given.output / "compressed",
        epochs=max(epochs // 4, 1),
        overwrite=given.quick,
    )
    print(result)
    for variant in result.variants:
        print(f"{variant.name:8s} {variant.row.format}, agreement {variant.row.agreement}")


if __name__ == "__main__":
    main()
