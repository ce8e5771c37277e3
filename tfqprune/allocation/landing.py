"""The last units: whole ones moved between groups, so that every cost of a budget ends close below its limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tfqprune.fitting import Fitter

#: how far below its limit a cost may end without anything being tried
TOLERANCE = 0.01
_REACH = 0.15  # of a group's units: more is never moved, for the ratios are what was learned
_MOVES = 100


def land(fitter: Fitter, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts near these, within the budget, whose costs lie at most ``TOLERANCE`` below their limits where possible.

    One unit (or one step of the alignment) more goes from one group and one less from another, the exchange that helps
    most first. No group moves by more than 15 % of its units, or one step.

    Args:
        fitter: knows the costs.
        counts: units that go, by group; they hold the budget.
    """
    start, best = dict(counts), dict(counts)
    slack = _slack(fitter, best)
    for _ in range(_MOVES):
        if slack == 0:
            break
        trials = [trial for trial in _neighbours(fitter, start, best) if fitter.holds(trial)]
        slacks = [_slack(fitter, trial) for trial in trials]
        if not slacks or min(slacks) >= slack - 1e-9:
            break
        place = int(np.argmin(slacks))
        best, slack = trials[place], slacks[place]
    return fitter.give_back(best, fitter.ratios(start))


def binding(fitter: Fitter, counts: Mapping[str, int]) -> list[str]:
    """The bounded costs that allow no further unit in any group that has given some."""
    held = []
    for name in fitter.limits.limits:
        loads = [fitter.counted(trial)[name] for trial in _one_back(fitter, counts)]
        if not any(load <= fitter.limits.limits[name] for load in loads):
            held.append(name)
    return held


def _slack(fitter: Fitter, counts: Mapping[str, int]) -> float:
    """How far costs lie below the tolerance, summed, in shares of their limits."""
    costs = fitter.counted(counts)
    return sum(max(1 - TOLERANCE - costs[name] / limit, 0.0) for name, limit in fitter.limits.limits.items())


def _one_back(fitter: Fitter, counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for name in fitter.names:
        less = _step(fitter, name, counts[name], -1)
        if less is not None:
            yield {**counts, name: less}


def _neighbours(fitter: Fitter, start: Mapping[str, int], counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Counts with a step back in one group, alone or with a step forward in another."""

    def near(name: str, count: int | None) -> bool:
        levels = fitter.levels[name]
        if count is None:
            return False
        moved = abs(count - start[name])
        steps = abs(int(np.searchsorted(levels, count)) - int(np.searchsorted(levels, start[name])))
        return steps <= 1 or moved <= _REACH * fitter.graph[name].size

    for back in fitter.names:
        less = _step(fitter, back, counts[back], -1)
        if not near(back, less):
            continue
        given = {**counts, back: less}
        yield given  # type: ignore[misc]  # near() has seen that it is a number
        for name in fitter.names:
            more = _step(fitter, name, counts[name], 1)
            if name != back and near(name, more):
                yield {**given, name: more}  # type: ignore[dict-item]


def _step(fitter: Fitter, name: str, count: int, by: int) -> int | None:
    """The next allowed number of units after a count, or None at the end."""
    levels = fitter.levels[name]
    place = int(np.searchsorted(levels, count)) + by
    return int(levels[place]) if 0 <= place < len(levels) else None
