"""One ratio for all groups."""

from __future__ import annotations

import tensorflow as tf

from tfqprune.allocation.base import Allocator, register_allocator
from tfqprune.fitting import Fit, Fitter


@register_allocator("uniform")
class UniformAllocator(Allocator):
    """The same ratio for all groups, found by bisection on the cost.

    Liu, Kong, Yu, "Automatic Compression Ratio Allocation", doi 10.1145/3387168.3387184, find one
    ratio for all layers by binary search on a target of FLOPs. Ours: any cost of a budget in place
    of FLOPs, and units given back to the groups that rounding hit hardest.

    Args:
        budget: what must hold.
    """

    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        most = fitter.most
        return fitter.fit(lambda ratio: {name: min(ratio, most[name]) for name in most})
