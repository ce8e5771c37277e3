"""The Gaussian process behind the Bayesian search, and what it suggests next."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

Prior = Callable[[np.ndarray], np.ndarray]

_ITERATIONS = 30  # of a fit of the kernel: it has one length scale a dimension
_FLOOR = 0.05  # of the share that stays, where its logarithm is taken: no group goes altogether
_SCALE = 0.3  # middle of the prior of length scales, over the square root of the dimensions; the cube has edges of 1
#: the kernel is fitted anew whenever the number of points has grown by this share, at least by 3
_GROWTH = 0.15


def _briefly(objective: Callable[..., Any], start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """A short L-BFGS ascent of the marginal likelihood times the prior, from where the prior is largest.

    The logarithms of amplitude and length scales have normal priors of deviation 1 around the start; noise has none.
    """

    def with_prior(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(theta)
        off = np.append((theta - start)[:-1], 0.0)  # the last is the noise
        return value + 0.5 * float(off @ off), gradient + off

    result = scipy.optimize.minimize(
        with_prior, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": _ITERATIONS}
    )
    return result.x, result.fun


class Surrogate:
    """A Gaussian process with a length scale for each dimension; larger values are better.

    Matern 5/2 kernel plus noise. A dozen points do not determine a dozen length scales: by likelihood alone some become
    so short or so long that the search tries extremes. So they have a prior whose middle grows with the square root of
    the number of dimensions, as distances do (Hvarfner, Hellsten, Nardi, "Vanilla Bayesian Optimization Performs Great
    in High Dimensions", arXiv 2402.02229; their log-normal has a deviation of 1.7, ours of 1).

    The kernel's parameters depend on the points alone, not on what was fitted before, so that a resumed search suggests
    what an uninterrupted one would have.

    Args:
        dimensions: of a point.
        prior: points [n, dimensions] -> what they are expected to be worth [n], on any scale; None: nothing is known.
    """

    def __init__(self, dimensions: int, prior: Prior | None = None) -> None:
        self.dimensions, self.prior = dimensions, prior
        self._fitted: tuple[int, Kernel] | None = None

    def kernel(self) -> Kernel:
        """The kernel before it is fitted."""
        scales = np.full(self.dimensions, _SCALE * np.sqrt(self.dimensions))
        noise = WhiteKernel(0.05, (1e-4, 1.0))
        return ConstantKernel(1.0, (1e-2, 1e2)) * Matern(scales, (0.05, 50.0), nu=2.5) + noise

    def fit(self, points: np.ndarray, values: np.ndarray) -> Process:
        """The process given points [n, dimensions] and their values [n]."""
        size = _last_fit(len(points))
        if self._fitted is None or self._fitted[0] != size:
            with warnings.catch_warnings():
                # A length scale at its upper bound means a dimension that does not matter: no news for the user.
                warnings.simplefilter("ignore", ConvergenceWarning)
                process = Process(self.kernel(), _briefly, self.prior).fit(points[:size], values[:size])
                self._fitted = (size, process.kernel)
        return self.condition(points, values)

    def condition(self, points: np.ndarray, values: np.ndarray) -> Process:
        """The process given these points, with the kernel as it was last fitted."""
        assert self._fitted is not None  # fit() comes first
        return Process(self._fitted[1], None, self.prior).fit(points, values)


class Process:
    """A Gaussian process over warped ratios; its mean is a line through what is expected of the points.

    Args:
        kernel: of the process.
        optimizer: fits the kernel's parameters; None: they stay.
        prior: as for :class:`Surrogate`; the mean is a constant where there is none.
    """

    def __init__(self, kernel: Kernel, optimizer: Callable[..., Any] | None, prior: Prior | None) -> None:
        regressor = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=optimizer, normalize_y=True)
        self._pipeline = make_pipeline(FunctionTransformer(warped), regressor)
        self._prior = prior
        self._slope = 0.0

    def fit(self, points: np.ndarray, values: np.ndarray) -> Process:
        """The process given points [n, dimensions] and their values [n]."""
        if self._prior is not None:
            self._slope = _slope(self._prior(points), values)
        self._pipeline.fit(points, values - self._mean(points))
        return self

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means [n] and standard deviations [n] at points [n, dimensions]."""
        mean, deviation = self._pipeline.predict(points, return_std=True)
        return mean + self._mean(points), deviation

    @property
    def kernel(self) -> Kernel:
        """The kernel with its fitted parameters."""
        return self._pipeline[-1].kernel_

    def _mean(self, points: np.ndarray) -> np.ndarray:
        return np.zeros(len(points)) if self._prior is None else self._slope * self._prior(points)


def _slope(expected: np.ndarray, values: np.ndarray) -> float:
    """Of the line by least squares through expected and measured values; 0 where the line would fall."""
    off = expected - expected.mean()
    return max(0.0, float(off @ values) / max(float(off @ off), 1e-12))


def warped(ratios: np.ndarray) -> np.ndarray:
    """Ratios as the process sees them: the logarithm of what stays, from 0 (all) to 1 (nothing).

    The last units of a group matter far more than the first: half of what is left is about as much at every size.
    """
    stays = np.clip(1 - np.asarray(ratios, float), 0, 1)
    return np.asarray(np.log((1 + _FLOOR) / (stays + _FLOOR)) / np.log((1 + _FLOOR) / _FLOOR))


def tamed(values: np.ndarray) -> np.ndarray:
    """Values with the worst ones lifted: none lies further below the median than twice the best lies above it.

    Plans that broke down would stretch the scale on which the good ones have to be told apart.
    """
    median = np.median(values)
    return np.asarray(np.maximum(values, median - 2 * (values.max() - median)))


def _last_fit(count: int) -> int:
    """The largest number of points up to ``count`` at which the kernel is fitted."""
    size = 3
    while (following := size + max(3, round(size * _GROWTH))) <= count:
        size = following
    return min(size, count)


def expected_improvement(process: Process, points: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement over ``best`` at points [n, dimensions], [n]."""
    mean, deviation = process.predict(points)
    deviation = np.maximum(deviation, 1e-9)
    gap = (mean - best) / deviation
    improvement: np.ndarray = deviation * (gap * scipy.stats.norm.cdf(gap) + scipy.stats.norm.pdf(gap))
    return improvement


def propose(
    merit: Prior,
    parents: np.ndarray,
    project: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    *,
    candidates: int = 512,
    rounds: int = 3,
) -> np.ndarray:
    """Preferences worth trying, the best first.

    Candidates are random points, and parents with some of their coordinates moved; the most promising are moved
    further in each round. All are judged where they land on the budget.

    Args:
        merit: coordinates on the budget [n, dimensions] -> what is largest where a trial is worth most [n].
        parents: preferences to begin from [m, dimensions].
        project: preferences [n, dimensions] -> coordinates on the budget.
        rng: source of all chance.
        candidates: how many in each round.
        rounds: how often.

    Returns:
        Preferences [m, dimensions], by falling merit.
    """
    dimensions = parents.shape[1]
    pool, merits = np.empty((0, dimensions)), np.empty(0)
    for number in range(rounds):
        fresh = _moved(parents, candidates if number else candidates // 2, rng, 0.3 / 2**number)
        if number == 0:
            fresh = np.concatenate([fresh, rng.random((candidates - len(fresh), dimensions))])
        pool = np.concatenate([pool, fresh])
        merits = np.concatenate([merits, merit(project(fresh))])
        order = np.argsort(-merits, kind="stable")[:50]
        pool, merits = pool[order], merits[order]
        parents = pool[:10]
    return pool


def _moved(parents: np.ndarray, count: int, rng: np.random.Generator, width: float) -> np.ndarray:
    """Copies of the parents with a few coordinates moved."""
    dimensions = parents.shape[1]
    moved = parents[rng.integers(len(parents), size=count)]
    # About three coordinates each: the process knows little about points far from all others.
    which = rng.random(moved.shape) < min(1.0, 3 / dimensions)
    which[np.arange(count), rng.integers(dimensions, size=count)] = True
    step = rng.normal(0, width, moved.shape) * which
    return np.clip(moved + step, 0, 1)
