"""The space that a ratio search moves in: points on the budget, whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tfqprune.allocation.relaxation import RelaxedBudget
from tfqprune.errors import PlanError
from tfqprune.fitting import Fit, Fitter
from tfqprune.plan import resolve_ratios

Shared = str | Sequence[Sequence[str]] | None


class RatioSpace:
    """Preferences in, ratios on the budget out.

    Args:
        fitter: the exact search.
        share: which groups have one ratio: ``"stage"`` (those whose first layers put out images of one
            size), lists of group or layer names, or None (every group its own).
        below: whether points may lie below the budget, too: preferences that hold it as ratios are taken
            as they are.

    Attributes:
        names: the groups, in the order of the model.
        dimensions: number of preferences that a point has.

    Raises:
        PlanError: ``share`` names groups that do not exist, cannot be pruned or are named twice.
    """

    def __init__(self, fitter: Fitter, share: Shared = None, *, below: bool = False) -> None:
        self.fitter = fitter
        self.below = below
        self.names = fitter.names
        self.dimension_of = dimensions(fitter, share)
        self.dimensions = int(self.dimension_of.max()) + 1 if len(self.names) else 0
        most = fitter.most
        self.uniform: Fit = fitter.fit(lambda ratio: {name: min(ratio, most[name]) for name in most})
        self.relaxed = RelaxedBudget(fitter, self.uniform.costs)
        self._average = np.zeros((len(self.names), self.dimensions))
        self._average[np.arange(len(self.names)), self.dimension_of] = 1
        self._average /= np.maximum(self._average.sum(axis=0), 1)

    def exact(self, preferences: np.ndarray) -> Fit:
        """The largest model within the budget for one point of preferences [dimensions].

        Costs that have to be measured are estimated, on the cautious side.
        """
        wide = self.by_group(preferences)
        wanted = {name: float(value) for name, value in zip(self.names, wide, strict=True)}
        if self.below and self.fitter.expects(counts := self.fitter.counts(wanted)):
            return self.fitter.fitted(counts, measure=False)
        return self.fitter.project(wanted, measure=False)

    def project(self, preferences: np.ndarray) -> np.ndarray:
        """Coordinates [n, dimensions] on the budget, unrounded, for preferences [n, dimensions]."""
        wide = self.by_group(preferences)
        projected = self.relaxed.project(wide)
        if self.below:
            as_they_are = np.clip(wide, self.relaxed.least, self.relaxed.most)
            projected = np.where((self.relaxed.loads(as_they_are) <= 1)[:, None], as_they_are, projected)
        return projected @ self._average

    def by_group(self, points: np.ndarray) -> np.ndarray:
        """Points [..., dimensions] with a column for each group [..., groups]."""
        return points[..., self.dimension_of]

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random preferences [count, dimensions]."""
        points: np.ndarray = rng.random((count, self.dimensions))
        # Small ones are scaled up onto the budget, large ones lie below it.
        return points * rng.random((count, 1)) if self.below else points

    def coordinates(self, ratios: Mapping[str, float]) -> np.ndarray:
        """Coordinates [dimensions] of ratios by group: averages over the groups that share one."""
        return np.array([ratios[name] for name in self.names]) @ self._average


def dimensions(fitter: Fitter, share: Shared) -> np.ndarray:
    """The number of the preference that each group follows, the same however ``share`` is spelled.

    Raises:
        PlanError: see :class:`RatioSpace`.
    """
    names = fitter.names
    if share is None:
        return np.arange(len(names))
    if isinstance(share, str):
        if share != "stage":
            raise PlanError(f'Expected share to be "stage", lists of group names or None. Received: {share!r}.')
        labels = [_image_size(fitter, name) for name in names]
        return np.unique(_numbers(labels), return_inverse=True)[1]
    owner: dict[str, int] = {}
    for number, members in enumerate(share):
        for name in _resolved(fitter, members):
            if name in owner:
                raise PlanError(f"Expected every group in one list of share at most. Received: {name!r} in two.")
            owner[name] = number
    return np.array(_numbers([owner.get(name, name) for name in names]))


def _resolved(fitter: Fitter, members: Iterable[str]) -> list[str]:
    known = set(fitter.names)
    resolved = [name for name in resolve_ratios(fitter.graph, dict.fromkeys(members, 0.0)) if name in known]
    if not resolved:
        raise PlanError(f"Expected lists of groups that can be pruned. Received: {list(members)!r}.")
    return resolved


def _numbers(labels: Sequence[object]) -> list[int]:
    """Numbers labels in the order in which they first appear."""
    known: dict[object, int] = {}
    return [known.setdefault(label, len(known)) for label in labels]


def _image_size(fitter: Fitter, name: str) -> tuple[object, ...]:
    layer = fitter.graph[name].layers[0]
    for call in fitter.graph.calls.values():
        if call.name == layer and call.output_shapes:
            axis = call.outputs[0].axis
            return tuple(size for position, size in enumerate(call.output_shapes[0]) if position not in (0, axis))
    return ()
