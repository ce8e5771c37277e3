"""The law of the house, slim(x) == masked(x), as a check that any model can be put to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune.channels import ChannelGraph
from tfqprune.costs import cost
from tfqprune.masking import mask
from tfqprune.plan import PruningPlan, plan_from_ratios
from tfqprune.precision import variable_value
from tfqprune.slim import prune


@dataclass(frozen=True)
class Lawful:
    """What :func:`assert_law` built: the plan, both models and their largest relative difference."""

    plan: PruningPlan
    slim: tf.keras.Model
    masked: tf.keras.Model
    difference: float


def shake(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Gives every weight that starts as a constant a random value, in place.

    A fresh model hides mistakes: its biases and moved means are 0, its scales 1. Scales become
    0.5 to 1.5 with a third of them negative, variances 0.5 to 2, other constants normal with 0.3.

    Args:
        model: any Keras model.
        seed: of the random values.

    Returns:
        The same model.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for weight in model.weights:
        value = variable_value(weight)
        if value.size == 0 or value.dtype.kind != "f" or value.ndim == 0 or not (value == value.flat[0]).all():
            continue
        name = weight.name.split("/")[-1]
        if "variance" in name:
            new = rng.uniform(0.5, 2, value.shape)
        elif "gamma" in name:
            new = rng.uniform(0.5, 1.5, value.shape) * np.where(rng.random(value.shape) < 1 / 3, -1, 1)
        else:
            new = rng.normal(size=value.shape) * 0.3
        pairs.append((getattr(weight, "latent_variable", weight), new.astype(value.dtype)))
    tf.keras.backend.batch_set_value(pairs)
    return model


def random_plan(
    graph: ChannelGraph, ratios: float | Mapping[str, float] = 0.5, seed: int = 0, align: int = 1
) -> PruningPlan:
    """A plan that removes random units at the given ratios."""
    rng = np.random.default_rng(seed)
    return plan_from_ratios(graph, ratios, {group.name: rng.random(group.size) for group in graph.groups}, align=align)


def random_inputs(model: tf.keras.Model, batch: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Normal random inputs of a model; unknown sizes become 16, whole numbers are 0 to 2."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (batch, *(16 if size is None else size for size in tensor.shape[1:]))
        dtype = tensor.dtype.as_numpy_dtype
        values = rng.integers(0, 3, shape) if np.dtype(dtype).kind in "iu" else rng.normal(size=shape)
        arrays.append(values.astype(dtype))
    return arrays


def assert_law(
    model: tf.keras.Model,
    plan: PruningPlan | None = None,
    *,
    ratios: float | Mapping[str, float] = 0.5,
    seed: int = 0,
    tolerance: float = 1e-5,
    align: int = 1,
) -> Lawful:
    """Checks slim(x) == masked(x), that the cost of the plan is the slim model's, and that the model is untouched.

    Args:
        model: the model; its constant weights are shaken first (see :func:`shake`) unless a plan is given.
        plan: the plan; by default a random one at ``ratios``.
        ratios: see ``make_plan``.
        seed: of plan and inputs.
        tolerance: largest difference allowed, relative to the largest output.
        align: see ``make_plan``.

    Returns:
        What was built.

    Raises:
        AssertionError: the law is broken; says where and by how much.
    """
    if plan is None:
        shake(model, seed)
        plan = random_plan(ChannelGraph(model), ratios, seed, align)
    before = [variable_value(weight) for weight in model.weights]
    slim, masked = prune(model, plan), mask(model, plan)
    inputs = random_inputs(model, seed=seed)
    fed: Any = inputs if len(inputs) > 1 else inputs[0]
    if isinstance(model.input, dict):
        fed = dict(zip(model.input, inputs, strict=True))
    worst = 0.0
    pairs = zip(tf.nest.flatten(slim(fed, training=False)), tf.nest.flatten(masked(fed, training=False)), strict=True)
    for index, (slim_output, masked_output) in enumerate(pairs):
        ours, theirs = np.asarray(slim_output, np.float64), np.asarray(masked_output, np.float64)
        assert ours.shape == theirs.shape, f"output {index}: slim has shape {ours.shape}, masked {theirs.shape}"
        assert np.isfinite(theirs).all(), f"output {index} of the masked model is not finite"
        worst = max(worst, float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12)))
    assert worst <= tolerance, f"slim(x) and masked(x) differ by {worst:.2e} of the largest output, under {plan}"
    if all(size is not None for tensor in model.inputs for size in tensor.shape[1:]):
        planned, real = cost(model, plan), cost(slim)
        assert planned.as_dict() == real.as_dict(), f"cost of the plan {planned} is not the slim model's {real}"
    for weight, old in zip(model.weights, before, strict=True):
        assert np.array_equal(variable_value(weight), old), f"the original's {weight.name} was changed"
    return Lawful(plan, slim, masked, worst)
