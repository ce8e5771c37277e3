"""The last units: whole ones moved between groups, so that every cost of a budget ends close below its limit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np

from tfqprune.fitting import Fitter

#: how far below its limit a cost may end without anything being tried
TOLERANCE = 0.01
_REACH = 0.2  # of a group's units: more is never moved, for the ratios are what was learned
_WAY = 0.02  # slack that a whole group's units moved are worth
_ALL = 5_000  # plans: with few groups, so many are all looked at
_MOVES = 100  # exchanges, with many groups
_STEPS = (1, 2, 3)  # of one exchange
_TRIALS = 5_000  # exchanges at random, where the best of those between pairs leave slack
_HEAT = 0.1  # slack that the first of them may lose, in the mean


def land(fitter: Fitter, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts near these, within the budget, whose costs lie at most ``TOLERANCE`` below their limits where possible.

    Units (or steps of the alignment) are exchanged between groups: one to three more of one for one to three less of
    another, the exchange that helps most first, and then among three groups, at random (with a fixed seed). With few
    groups all counts within reach are looked at instead. No group moves by more than 20 % of its units, or one step; in
    the end all units are given back that the budget still allows.

    Args:
        fitter: knows the costs.
        counts: units that go, by group; they hold the budget.
    """
    start = dict(counts)
    if _slack(fitter, start) == 0:
        return start
    near = {name: _near(fitter, name, start[name]) for name in fitter.names}
    if math.prod(map(len, near.values())) <= _ALL:
        best = _nearest(fitter, start, near)
    else:
        best = _annealed(fitter, _exchanged(fitter, start, near), near)
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


def _near(fitter: Fitter, name: str, count: int) -> list[int]:
    """Allowed numbers of units within reach of a count."""
    levels = fitter.levels[name]
    place = int(np.searchsorted(levels, count))
    reach = _REACH * fitter.graph[name].size
    return [int(level) for at, level in enumerate(levels) if abs(at - place) <= 1 or abs(level - count) <= reach]


def _nearest(fitter: Fitter, start: dict[str, int], near: Mapping[str, list[int]]) -> dict[str, int]:
    """Of all counts within reach those with the least slack, where far ones have to be worth it."""
    sizes = {name: fitter.graph[name].size for name in near}
    best, least = start, _slack(fitter, start)
    for trial in itertools.product(*near.values()):
        counts = dict(zip(near, trial, strict=True))
        loss = _WAY * sum(abs(counts[name] - start[name]) / size for name, size in sizes.items())
        if loss < least and fitter.holds(counts) and (loss := loss + _slack(fitter, counts)) < least:
            best, least = counts, loss
    return best


def _exchanged(fitter: Fitter, start: dict[str, int], near: Mapping[str, list[int]]) -> dict[str, int]:
    """Exchanges between pairs of groups until none helps."""
    best, slack = start, _slack(fitter, start)
    for _ in range(_MOVES):
        trials = [trial for trial in _exchanges(best, near) if fitter.holds(trial)]
        slacks = [_slack(fitter, trial) for trial in trials]
        if not slack or not slacks or min(slacks) >= slack - 1e-9:
            break
        place = int(np.argmin(slacks))
        best, slack = trials[place], slacks[place]
    return best


def _annealed(fitter: Fitter, start: dict[str, int], near: Mapping[str, list[int]]) -> dict[str, int]:
    """The best of random steps in three groups at once: out of where no pair can better itself.

    Kirkpatrick, Gelatt, Vecchi, "Optimization by Simulated Annealing", 1983: a step may lose slack, ever less of it.
    """
    rng, best, least = np.random.default_rng(0), start, _slack(fitter, start)
    now, slack, names, many = best, least, list(near), min(3, len(near))
    for heat in np.linspace(_HEAT, 0, _TRIALS):
        if not least:
            break
        trial = dict(now)
        for at, by in zip(rng.permutation(len(names))[:many], rng.integers(-max(_STEPS), max(_STEPS) + 1, many)):
            own = near[names[at]]
            trial[names[at]] = own[min(max(own.index(trial[names[at]]) + int(by), 0), len(own) - 1)]
        if fitter.holds(trial) and (found := _slack(fitter, trial)) <= slack + heat * rng.exponential():
            now, slack = trial, found
            if slack < least:
                best, least = now, slack
    return best


def _exchanges(counts: Mapping[str, int], near: Mapping[str, list[int]]) -> Iterator[dict[str, int]]:
    """Counts with some steps back in one group, alone or with some forward in another."""

    def moved(name: str, by: int) -> int | None:
        place = near[name].index(counts[name]) + by
        return near[name][place] if 0 <= place < len(near[name]) else None

    for back, by in itertools.product(near, _STEPS):
        less = moved(back, -by)
        if less is None:
            continue
        given = {**counts, back: less}
        yield given
        for name, on in itertools.product(near, _STEPS):
            more = moved(name, on)
            if name != back and more is not None:
                yield {**given, name: more}


def _one_back(fitter: Fitter, counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    for name in fitter.names:
        levels = fitter.levels[name]
        place = int(np.searchsorted(levels, counts[name]))
        if place:
            yield {**counts, name: int(levels[place - 1])}
