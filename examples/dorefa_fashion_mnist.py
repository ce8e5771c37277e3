"""A 2-bit DoReFa network on Fashion-MNIST, step by step: sensitivity, plan, slim model, recovery, file.

    python examples/dorefa_fashion_mnist.py [--quick] [--output runs/dorefa_fashion]

``tq.compress`` does all of this in one call; here every step stands by itself. Fashion-MNIST is downloaded by
TensorFlow Datasets. The quick form takes the digits of scikit-learn.
"""

from __future__ import annotations

from common import accuracy, arguments, trained

import tflite_export as te
import tfqprune as tq
from tfqprune import data, zoo


def main() -> None:
    given = arguments(__doc__, "runs/dorefa_fashion")
    if given.quick:
        splits, epochs = data.load("digits"), 12
        model = zoo.build("resnet_digits", precision=2)
    else:
        splits, epochs = data.load("fashion_mnist"), 30
        model = zoo.build("resnet20", precision=2, input_shape=splits.input_shape)
    model = trained(model, splits, given.output / "dense.weights.h5", epochs)

    # How much does each group matter? Measured on the validation images; the curves stay in a file.
    allocator = tq.SensitivityAllocator(
        tq.Budget(memory=0.6, macs=0.7), validation=splits.validation, path=given.output / "curves.json"
    )
    plan = allocator.allocate(model, "auto", splits.train)
    plan.save(given.output / "plan.json")
    print(plan.report(model))

    # Cut, then recover: first the statistics of the batch norms, then a few epochs of training.
    slim = tq.prune(model, plan)
    slim.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    print(f"dense            {accuracy(model, splits.test):.4f}")
    print(f"right after      {accuracy(slim, splits.test):.4f}")
    tq.reestimate_batch_norms(slim, splits.train)
    print(f"batch norms anew {accuracy(slim, splits.test):.4f}")
    tq.finetune(slim, splits.train, splits.validation, max(epochs // 3, 1), batch_size=64)
    print(f"fine-tuned       {accuracy(slim, splits.test):.4f}")
    slim.save(given.output / "slim.keras")

    # k bits in the file, compared with the Keras model before it is written.
    result = te.export(slim, given.output / "slim.tflite", "packed", data=splits.test.x)
    print(f"{result.bytes:,} B, {result.ratio:.2f} of the floor; {result.agreement}")
    print(te.verify(slim, result.path, splits.test.x[:64], levels=True))
    print(result.breakdown)


if __name__ == "__main__":
    main()
