"""Scores of all units of a model, and plans made from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.criteria import Criterion, Samples, best_criterion, get_criterion, take_samples
from tfqprune.criteria.base import checked_scores
from tfqprune.criteria.filters import check_weights
from tfqprune.errors import CriterionError
from tfqprune.plan import PruningPlan, plan_from_ratios, resolve_ratios
from tfqprune.samples import SAMPLES

_FALLBACK = "latent_l1"


def score(
    model: tf.keras.Model, criterion: Any = "auto", data: Any = None, *, samples: int = SAMPLES, **options: Any
) -> dict[str, np.ndarray]:
    """Scores the units of every group; low goes first.

    Args:
        model: a functional or sequential tf_keras model; it is only read.
        criterion: a registered name (``tfqprune.criteria.criterion_names()``), a ``Criterion`` (class or instance), a
            function from deployed filters ``[units, weights]`` to scores ``[units]``, a mapping name -> weight for a
            weighted mean of ranks, or "auto": the best known for the model's precision, with data if data is given,
            else the best that needs none.
        data: for criteria that need it: arrays x or (x, y), a tf.data.Dataset, or a split of ``tfqprune.data``.
        samples: how many samples of the data are looked at: of arrays a fixed random choice, of a data set the first
            ones (shuffle one that is sorted).
        **options: arguments of the criterion, where it is given by name, or of those in a combination that take them.

    Returns:
        Group name -> float array ``[units]``, for every group; zeros for frozen ones. A greedy criterion gives its
        order of removal (0 goes first).

    Raises:
        ModelTypeError: no graph model.
        CriterionError: unknown criterion; one that needs data, without data; weights that are not finite; a
            criterion that returns anything but one finite number for each unit.
        DataError: data that does not fit the model, or activations that are not finite.
    """
    return score_graph(ChannelGraph(model), criterion, data, samples=samples, **options)


def score_graph(
    graph: ChannelGraph, criterion: Any = "auto", data: Any = None, *, samples: int = SAMPLES, **options: Any
) -> dict[str, np.ndarray]:
    """As :func:`score`, on a channel graph that exists already."""
    return run_criterion(graph, choose_criterion(graph, criterion, data, **options), data, samples=samples)


def choose_criterion(graph: ChannelGraph, criterion: Any = "auto", data: Any = None, **options: Any) -> Criterion:
    """The criterion that is meant, "auto" resolved.

    Raises:
        CriterionError: unknown criterion, or one that needs data, without data.
    """
    if isinstance(criterion, str) and criterion == "auto":
        criterion = best_criterion(graph, data is not None)
    chosen = get_criterion(criterion, **options)
    if chosen.needs_data and data is None:
        raise CriterionError(
            f"Criterion {chosen.name!r} needs data, and none was given. Hand over samples: data=x, data=(x, y) or a "
            "tf.data.Dataset; or choose a criterion that needs none (criterion='auto' does so by itself)."
        )
    return chosen


def run_criterion(
    graph: ChannelGraph, criterion: Criterion, data: Any = None, *, samples: int = SAMPLES
) -> dict[str, np.ndarray]:
    """Scores every group with a criterion that was chosen; zeros for frozen groups."""
    check_weights(graph)
    taken: Samples | None = take_samples(graph.model, data, samples) if criterion.needs_data else None
    scores = {group.name: np.zeros(group.size) for group in graph.groups}
    found = checked_scores(criterion, graph, graph.prunable, taken) if graph.prunable else {}
    scores.update({name: values for name, values in found.items() if values is not None})
    unread = [group for group in graph.prunable if found[group.name] is None]
    if unread:
        names = ", ".join(repr(group.name) for group in unread)
        if criterion.name == _FALLBACK:
            warnings.warn(f"Criterion {_FALLBACK!r} finds no kernel in {names}: all their units score 0.", stacklevel=2)
        else:
            warnings.warn(
                f"Criterion {criterion.name!r} has nothing to read in {names}; their units are ranked by "
                f"{_FALLBACK!r}.",
                stacklevel=2,
            )
            fallback = get_criterion(_FALLBACK).score_groups(graph, unread, None)
            for group in unread:
                values = fallback[group.name]
                scores[group.name] = np.zeros(group.size) if values is None else values
    return scores


def make_plan(
    model: tf.keras.Model,
    ratios: float | Mapping[str, float] = 0.3,
    criterion: Any = "auto",
    data: Any = None,
    align: int = 1,
    *,
    samples: int = SAMPLES,
    **options: Any,
) -> PruningPlan:
    """A plan that removes the lowest-scored share of each group.

    Args:
        model: a functional or sequential tf_keras model; it is only read.
        ratios: share of the units that goes: one number for all groups, or by the name of a group or of a member
            layer (groups not named stay whole).
        criterion: see :func:`score`.
        data: see :func:`score`.
        align: keep a multiple of this many channels.
        samples: how many samples of the data are looked at.
        **options: arguments of the criterion, where it is given by name.

    Raises:
        PlanError: ratios or ``align`` that make no sense; said before any scoring starts.
        ModelTypeError, CriterionError, DataError: see :func:`score`.
    """
    graph = ChannelGraph(model)
    # Ratios are checked by using them: scoring may take a while.
    zeros = {group.name: np.zeros(group.size) for group in graph.groups}
    removed = plan_from_ratios(graph, ratios, zeros, align=align).removed
    if not graph.prunable:
        warnings.warn(graph.none_prunable(), stacklevel=2)
    elif not removed and any(resolve_ratios(graph, ratios).values()):
        warnings.warn(
            f"Expected ratios and align by which units go. Received: {ratios!r} and {align}, by which none of the "
            f"{len(graph.prunable)} groups that are not frozen loses one: the groups are too small for them.",
            stacklevel=2,
        )
    chosen = choose_criterion(graph, criterion, data, **options)
    scores = run_criterion(graph, chosen, data, samples=samples)
    return plan_from_ratios(graph, ratios, scores, align=align, criterion=chosen.name)
