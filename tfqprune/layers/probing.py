"""Decides about layers that no handler knows: by running them.

Two guesses are made about how channels pass: at their own positions (an element-wise layer, a
reduction over space), or moved (a shuffle in a Lambda). A guess is accepted only when the layer
commutes with dropping channels on random data; otherwise all it touches is frozen, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tfqprune.layers.base import Axes, Kept, LayerCall, LayerHandler, LayerRecord, resized
from tfqprune.layers.movement import trace, trial_shape
from tfqprune.layers.running import run, static_value
from tfqprune.layers.space import Channels

_DROPS = 3  # random subsets that a guess has to survive
#: what is sent through: values in which a layer that mixes channels a little, or those of some size only, is told
_PROBES: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    lambda values, rng: values,
    lambda values, rng: 100 * values,  # norms above a bound, sums beside which a constant is nothing
    lambda values, rng: 0.01 * values,
    lambda values, rng: values * (rng.random(values.shape) < 0.1),  # positions at which some channels alone are not 0
)


@dataclass
class _Guess:
    """Labels (inputs strung together) of each output along an axis, and what they tie."""

    outputs: list[tuple[int, np.ndarray]]
    ties: list[tuple[np.ndarray, np.ndarray]]


@dataclass
class _Weights:
    """How the weights of an unknown layer follow its channels."""

    axes: list[Axes] = field(default_factory=list)
    config_keys: tuple[str, ...] = ()


class ProbedHandler(LayerHandler):
    """In charge of one layer whose behaviour was proven by running it."""

    def __init__(self, weights: _Weights | None = None) -> None:
        self.weights = weights or _Weights()

    def flow(self, call: LayerCall) -> list[Channels]:
        wide = [channels for channels in call.inputs if channels.axis is not None]
        if not wide:
            return call.opaque(f"feeds {call.title}")
        ids = np.concatenate([channels.ids for channels in wide])
        values, probes, expected = _varied(call.layer), [], []
        for probe in _PROBES:
            inputs = _random_inputs(call, probe)
            try:
                answers = run(call, inputs, _rebuilt(call, values, inputs))
            except Exception as error:  # a user's layer may raise anything
                if probe is _PROBES[0]:
                    return call.opaque(f"feeds {call.title}, which cannot be run on its own ({type(error).__name__})")
                continue  # values that it does not take: indices beyond a table
            probes.append(inputs)
            expected.append(answers)
        for guess in _guesses(call):
            weights = _matching_weights(call, guess)
            if weights is None or not all(
                _survives(call, guess, weights, values, probes, expected, seed) for seed in range(_DROPS)
            ):
                continue
            self.weights = weights
            for first, second in guess.ties:
                call.space.tie(ids[first], ids[second])
            if call.layer.weights:
                call.role("out", wide[0].ids)
                for position, axes in enumerate(weights.axes):
                    call.weight(position, axes)
            return [Channels(axis, ids[labels]) for axis, labels in guess.outputs]
        return call.opaque(f"feeds {call.title}, whose result depends on channel positions (found by probing)")

    def resize(self, record: LayerRecord, config: dict[str, Any], kept: Kept) -> dict[str, Any]:
        return resized(config, kept, dict.fromkeys(self.weights.config_keys, "out"))

    def clone(self, layer: tf.keras.layers.Layer, config: dict[str, Any]) -> tf.keras.layers.Layer:
        if type(layer) is tf.keras.layers.Lambda:
            # A Lambda's config holds byte code, which loses what the function closes over.
            clone = tf.keras.layers.Lambda(
                layer.function, layer._output_shape, layer.mask, layer.arguments, name=layer.name, dtype=layer.dtype
            )
            clone.trainable = layer.trainable
            return clone
        return super().clone(layer, config)


def _guesses(call: LayerCall) -> Iterator[_Guess]:
    """Plausible ways in which channels pass, the likeliest first."""
    wide = [(index, channels) for index, channels in enumerate(call.inputs) if channels.axis is not None]
    count = max(len(channels) for _, channels in wide)
    starts = np.cumsum([0, *(len(channels) for _, channels in wide)])
    spans = [np.arange(start, start + len(channels)) for start, (_, channels) in zip(starts, wide, strict=False)]
    full = [span for span in spans if len(span) == count]
    if all(len(span) in (1, count) for span in spans):
        ties = [(full[0], span) for span in full[1:]]
        options = [
            [axis for axis in range(len(shape) - 1, 0, -1) if shape[axis] == count] for shape in call.output_shapes
        ]
        for choice in options[0]:
            if all(options):
                yield _Guess([(choice if choice in axes else axes[0], full[0]) for axes in options], ties)
    if len(call.layer.weights) == 0:
        guess = _moved(call, wide)
        if guess is not None:
            yield guess


def _moved(call: LayerCall, wide: list[tuple[int, Channels]]) -> _Guess | None:
    """The guess that channels are moved about, from sending their numbers through."""
    if len(wide) != len(call.inputs):
        return None
    try:
        movements = trace(lambda grids: run(call, grids), call.input_shapes, [channels for _, channels in wide])
    except Exception:  # whatever a user's layer raises on numbers it did not expect
        return None
    outputs: list[tuple[int, np.ndarray]] = []
    ties: list[tuple[np.ndarray, np.ndarray]] = []
    for movement in movements:
        if movement is None or (movement.labels < 0).any():
            return None
        outputs.append((movement.axis, movement.labels))
        ties.extend(movement.ties)
    return _Guess(outputs, ties)


def _matching_weights(call: LayerCall, guess: _Guess) -> _Weights | None:
    """Each weight's channel axis: the one axis that is as long as there are channels."""
    count = len(guess.outputs[0][1])
    axes: list[Axes] = []
    for weight in call.layer.weights:
        matches = [axis for axis, size in enumerate(weight.shape) if size == count]
        if len(matches) > 1:
            return None
        axes.append(tuple("out" if axis in matches else None for axis in range(len(weight.shape))))
    if not call.layer.weights:
        return _Weights()
    config = call.layer.get_config()
    keys = tuple(key for key, value in config.items() if type(value) is int and value == count)
    return _Weights(axes, keys)


def _survives(
    call: LayerCall,
    guess: _Guess,
    weights: _Weights,
    values: list[np.ndarray],
    probes: list[list[np.ndarray]],
    expected: list[list[np.ndarray]],
    seed: int,
) -> bool:
    """Whether dropping random channels before the layer is the same as dropping them behind it."""
    wide = [channels for channels in call.inputs if channels.axis is not None]
    alive = _random_alive([len(channels) for channels in wide], guess, np.random.default_rng(seed))
    dropped = [_dropped(call, inputs, alive) for inputs in probes]
    try:
        kept = np.flatnonzero(alive[guess.outputs[0][1]])
        less = [_cut(value, axes, kept) for value, axes in zip(values, weights.axes, strict=True)]
        layer = _rebuilt(call, less, dropped[0], weights.config_keys, len(kept))
        received = [run(call, inputs, layer) for inputs in dropped]
    except Exception:  # a user's layer may raise anything when channels are missing: it is not safe to cut
        return False
    if not all(len(whole) == len(part) == len(guess.outputs) for whole, part in zip(expected, received, strict=True)):
        return False
    for (axis, labels), *answers in zip(guess.outputs, *expected, *received, strict=True):
        places = np.flatnonzero(alive[labels])
        wholes = [np.take(whole, places, axis=axis).astype("float64") for whole in answers[: len(probes)]]
        if not np.isfinite(wholes[0]).any():
            return False
        if not all(map(_same, wholes, answers[len(probes) :])):
            return False
    return True


def _dropped(call: LayerCall, inputs: list[np.ndarray], alive: np.ndarray) -> list[np.ndarray]:
    """Inputs of a layer without the channels that are not alive."""
    dropped, start = [], 0
    for channels, value in zip(call.inputs, inputs, strict=True):
        if channels.axis is None:
            dropped.append(value)
            continue
        keep = np.flatnonzero(alive[start : start + len(channels)])
        dropped.append(np.take(value, keep, axis=channels.axis))
        start += len(channels)
    return dropped


def _same(whole: np.ndarray, part: np.ndarray) -> bool:
    """Whether what is left of an output is what the layer without some channels gives, up to rounding."""
    if whole.shape != part.shape:
        return False
    tolerance = 1e-2 if part.dtype.itemsize < 4 else 1e-5
    finite = np.abs(whole[np.isfinite(whole)])
    peak = float(finite.max()) if finite.size else 1.0
    return np.allclose(whole, part.astype("float64"), tolerance, tolerance * peak, equal_nan=True)


def _random_inputs(call: LayerCall, probe: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> list[np.ndarray]:
    """Random values for every input: positive mostly, so that logarithms and roots have some that are finite."""
    rng = np.random.default_rng(0)
    values = []
    for shape, tensor in zip(call.input_shapes, call.node.keras_inputs, strict=True):
        known = static_value(tensor)
        drawn = rng.uniform(-0.5, 1.5, trial_shape(shape))
        values.append(probe(drawn, rng).astype("float32") if known is None else known)
    return values


def _random_alive(sizes: list[int], guess: _Guess, rng: np.random.Generator) -> np.ndarray:
    """A random subset of labels that respects the ties; every input keeps some, and some go."""
    total = sum(sizes)
    first = np.concatenate([pair[0] for pair in guess.ties]) if guess.ties else np.empty(0, int)
    second = np.concatenate([pair[1] for pair in guess.ties]) if guess.ties else np.empty(0, int)
    edges = coo_matrix((np.ones(len(first)), (first, second)), shape=(total, total))
    count, component = connected_components(edges, directed=False)
    keep = rng.random(count) < 0.5
    if count > 1:
        keep[component[rng.integers(total)]] = False
    start = 0
    for size in sizes:  # a lone channel (broadcast over the others) stays, too
        keep[component[start + rng.integers(size)]] = True
        start += size
    alive: np.ndarray = keep[component]
    return alive


def _rebuilt(
    call: LayerCall, values: list[np.ndarray], inputs: list[np.ndarray], keys: tuple[str, ...] = (), size: int = 0
) -> tf.keras.layers.Layer | None:
    """A clone of a layer with these weights (None: no weights, run as it is), and ``size`` at keys of its config."""
    if not values:
        return None
    clone = type(call.layer).from_config({**call.layer.get_config(), **dict.fromkeys(keys, size)})
    run(call, inputs, clone)
    clone.set_weights(values)
    return clone


def _cut(value: np.ndarray, axes: Axes, kept: np.ndarray) -> np.ndarray:
    """A weight at the positions of its channel axis that stay."""
    for axis, role in enumerate(axes):
        if role:
            value = np.take(value, kept, axis=axis)
    return value


def _varied(layer: tf.keras.layers.Layer) -> list[np.ndarray]:
    """A layer's weights, random where they are constant: one that starts at zero may hide what it does later."""
    rng = np.random.default_rng(0)
    return [
        value + rng.uniform(0.25, 0.75, value.shape).astype(value.dtype)
        if value.dtype.kind == "f" and value.size and np.ptp(value) == 0
        else value
        for value in layer.get_weights()
    ]
