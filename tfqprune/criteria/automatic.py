"""The criterion that "auto" stands for: the best one known for a model's precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tfqprune.channels import ChannelGraph
from tfqprune.criteria.filters import members
from tfqprune.layers.base import bits_of

Kind = Literal["binary", "k-bit", "float"]

#: (precision, whether data is given) -> criterion, or the weights of a combination
AUTO: dict[tuple[Kind, bool], str | Mapping[str, float]] = {
    ("binary", True): {"reconstruction": 1, "mean_activation": 1},
    ("k-bit", True): "reconstruction",
    ("float", True): "reconstruction",
    ("binary", False): "latent_l1",
    ("k-bit", False): "deployed_l2",
    ("float", False): "latent_l1",
}


def precision_kind(graph: ChannelGraph) -> Kind:
    """The precision of most weights that can be pruned: binary, k-bit (2 to 8) or float."""
    weights: dict[Kind, int] = {"binary": 0, "k-bit": 0, "float": 0}
    for group in graph.prunable:
        for filters in members(graph, group):
            bits = bits_of(filters.record.layer, filters.weight)
            kind: Kind = "binary" if bits == 1 else "k-bit" if bits <= 8 else "float"
            variable = getattr(filters.record.layer, str(filters.weight), None)
            size = int(variable.shape.num_elements()) if variable is not None else 1
            weights[kind] += size
    return max(weights, key=lambda kind: weights[kind]) if any(weights.values()) else "float"


def best_criterion(graph: ChannelGraph, with_data: bool) -> str | Mapping[str, float]:
    """The criterion that "auto" stands for on this model: a name, or names and weights of a combination.

    Args:
        graph: the channel graph of the model.
        with_data: whether samples are at hand.
    """
    return AUTO[precision_kind(graph), with_data]
