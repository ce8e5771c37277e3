"""Networks of the zoo for measurements of files: random weights, batch norms calibrated on noise, dense and pruned.

Sizes do not depend on how good the weights are, and latencies hardly; agreement is judged on the same kind of noise
that the batch norms were calibrated on. No accuracy is claimed for any of these networks.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

import tfqprune as tq

# What Guerra et al. (arXiv 2002.00523) cut from their binary ResNet-18: 26.12 % of the memory.
PUBLISHED_SHARE = 0.2612
PACKAGES = (
    "tensorflow", "tf_keras", "larq", "larq-compute-engine", "ai-edge-litert", "ai-edge-quantizer", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Net:
    """One network to measure.

    Attributes:
        name: of the zoo.
        precision: "binary", k for DoReFa-k, or None for float.
        pruned: whether ``PUBLISHED_SHARE`` of its memory is cut.
        samples: how many inputs its files are compared on.
        align: the cut leaves multiples of so many channels.
    """

    name: str
    precision: str | int | None
    pruned: bool
    samples: int
    align: int = 1

    @property
    def label(self) -> str:
        """For tables and messages."""
        bits = {"binary": "binary", None: "float"}.get(self.precision, f"k={self.precision}")
        return f"{self.name} {bits} {'pruned' if self.pruned else 'dense'}"


def build(net: Net, seed: int) -> tuple[Any, np.ndarray]:
    """A network with calibrated batch norms, and inputs to compare its files on.

    Pruning removes whole filters by their latent L1 norm, the same share everywhere; batch norms are calibrated anew.
    """
    import tensorflow as tf

    from tfqprune import zoo

    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    model = zoo.build(net.name, precision=net.precision)
    rng = np.random.default_rng(seed)
    shape = tuple(model.input_shape[1:])
    calibration = rng.normal(size=(64 if shape[0] <= 64 else 16, *shape)).astype(np.float32)
    _lively_batch_norms(model, rng)
    tq.reestimate_batch_norms(model, calibration, batch_size=16)
    if net.pruned:
        budget = tq.Budget(memory=1 - PUBLISHED_SHARE)
        plan = tq.UniformAllocator(budget).allocate(model, criterion="latent_l1", align=net.align)
        model = tq.prune(model, plan)
        tq.reestimate_batch_norms(model, calibration, batch_size=16)
    return model, rng.normal(size=(net.samples, *shape)).astype(np.float32)


def _lively_batch_norms(model: Any, rng: np.random.Generator) -> None:
    """Scales and shifts that differ by channel, as after training (all ones and zeros would be a special case)."""
    import tensorflow as tf

    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            channels = int(layer.gamma.shape[0])
            layer.gamma.assign(rng.uniform(0.5, 1.5, channels).astype(np.float32))
            layer.beta.assign(rng.normal(0.2, 0.3, channels).astype(np.float32))


def kept_filters(dense: Any, slim: Any) -> dict[str, list[int]]:
    """Convolution -> output channels before and after, in the order of the dense model."""
    import tensorflow as tf

    kinds = (tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D)
    return {
        layer.name: [int(layer.output_shape[-1]), int(slim.get_layer(layer.name).output_shape[-1])]
        for layer in dense.layers
        if isinstance(layer, kinds)
    }


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Python and the packages that the figures depend on; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
