"""What sensitivity curves lead to expect of ratios that no trial has had yet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.allocation.space import RatioSpace
from tfqprune.allocation.surrogate import Prior, propose, warped

_ROUNDS = 6  # of moving ratios to where groups lose least


def expectation(space: RatioSpace, curves: SensitivityCurves) -> Prior:
    """The less single groups lose in sum, the better a point [n, dimensions] -> [n].

    Groups lose otherwise together than alone, so this is an order of points, not their values. Between the rungs of a
    curve and beyond the last, losses follow straight lines over the logarithm of what stays (:func:`warped`): the last
    units of a group cost most. A cut that broke the model down counts as twice the largest loss.

    Args:
        space: of the points.
        curves: of all its groups.
    """
    measured = [curves.losses(name) for name in space.names]
    broken = 2 * max((loss for _, losses in measured for loss in losses[np.isfinite(losses)]), default=0.0)
    lines = [_line(warped(ratios), np.where(np.isfinite(losses), losses, broken)) for ratios, losses in measured]

    def expected(points: np.ndarray) -> np.ndarray:
        columns = warped(space.by_group(points)).T
        return -np.sum([line(column) for line, column in zip(lines, columns, strict=True)], axis=0)

    return expected


def least_loss_solution(space: RatioSpace, curves: SensitivityCurves) -> dict[str, float]:
    """The ratios on the budget at which single groups lose least in sum, as far as a random search finds them."""
    start = space.coordinates(space.uniform.ratios)[None]
    found = propose(expectation(space, curves), start, space.project, np.random.default_rng(0), rounds=_ROUNDS)
    return space.exact(found[0]).ratios


def _line(places: np.ndarray, losses: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Straight lines through points; after the last, as before it."""
    slope = (losses[-1] - losses[-2]) / (places[-1] - places[-2]) if len(places) > 1 else 0.0
    return lambda at: np.interp(at, places, losses) + slope * np.maximum(at - places[-1], 0.0)
