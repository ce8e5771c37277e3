"""What an allocator is, and the registry of allocators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf

from tfqprune.budget import Budget, check_budget
from tfqprune.channels import ChannelGraph
from tfqprune.errors import BudgetError
from tfqprune.fitting import Bounds, Fit, Fitter, names_of
from tfqprune.measuring import Meter, metered_graph
from tfqprune.plan import PruningPlan
from tfqprune.scoring import choose_criterion, run_criterion


class Allocator(ABC):
    """Turns a budget into ratios, and ratios with scores into a plan.

    Subclass it, implement :meth:`fit`, and decorate with ``@register_allocator("name")``.
    ``tfqprune.testing.AllocatorConformance`` is a suite to subclass.

    Args:
        budget: what must hold.
    """

    #: the name it is registered under
    name: ClassVar[str] = ""

    def __init__(self, budget: Budget) -> None:
        self.budget = check_budget(budget)
        #: what :meth:`allocate` was given for the criterion; allocators that try plans out use it, too
        self._data: Any = None

    @abstractmethod
    def fit(self, model: tf.keras.Model, fitter: Fitter) -> Fit:
        """Ratios that hold the budget, from ``fitter.fit`` or ``fitter.project``."""

    def notes(self) -> dict[str, Any]:
        """What to keep in the plan besides the budget and the allocator's name."""
        return {}

    def completed(
        self, scores: Mapping[str, np.ndarray], graph: ChannelGraph, criterion: Any, data: Any
    ) -> Mapping[str, np.ndarray]:
        """Scores that were given to :meth:`allocate`, with whatever else this allocator ranks units by."""
        return scores

    def allocate(
        self,
        model: tf.keras.Model,
        criterion: Any = "auto",
        data: Any = None,
        align: int = 1,
        *,
        minimum: Bounds = 0.0,
        maximum: Bounds | None = None,
        exclude: Iterable[str] = (),
        scores: Mapping[str, np.ndarray] | None = None,
        meter: Meter | None = None,
    ) -> PruningPlan:
        """A plan whose slim model holds the budget, as large as the units allow.

        Args:
            model: the model to prune.
            criterion: ranks the units of each group (see :func:`tfqprune.score`).
            data: what the criterion looks at, if it needs data.
            align: keep a multiple of so many channels in each layer.
            minimum: the least ratio, one or by group or member layer name.
            maximum: the largest ratio, likewise; None: all but one unit.
            exclude: groups or layers that stay whole.
            scores: scores that exist already, instead of ``criterion``.
            meter: of this model and budget: what it measured is not measured again, and limits are the same.

        Raises:
            BudgetError: the budget is above the original or cannot be met; the meter has another one.
            PlanError: names, bounds, align or scores do not fit the model.
            ModelTypeError: no graph model.
        """
        graph = metered_graph(model, self.budget, meter)
        limits: dict[str, Any] = {
            "align": align, "minimum": minimum, "maximum": maximum, "exclude": names_of(exclude), "meter": meter
        }  # fmt: skip
        title = "given"
        self._data = data
        if scores is None:
            # What cannot be met is said before any scoring starts; which units go hardly changes what they cost.
            limits["meter"] = Fitter(graph, unscored(graph), self.budget, **limits).meter
            chosen = choose_criterion(graph, criterion, data)
            title, scores = chosen.name, run_criterion(graph, chosen, data)
        else:
            scores = self.completed(scores, graph, criterion, data)
        fitter = Fitter(graph, scores, self.budget, **limits)
        fit = self.fit(model, fitter)
        notes = {"allocator": self.name, "budget": self.budget.as_dict(), "costs": fit.costs, **self.notes()}
        return fitter.plan(fit, title, notes)


def unscored(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """Equal scores for all units of a graph: a stand-in where only costs matter."""
    return {group.name: np.zeros(group.size) for group in graph.groups}


_ALLOCATORS: dict[str, type[Allocator]] = {}
_T = TypeVar("_T", bound=Allocator)


def register_allocator(name: str) -> Callable[[type[_T]], type[_T]]:
    """Class decorator: makes an allocator known by a name.

    Raises:
        ValueError: another allocator has that name.
    """

    def register(allocator: type[_T]) -> type[_T]:
        known = _ALLOCATORS.get(name)
        if known is not None and known.__qualname__ != allocator.__qualname__:
            raise ValueError(f"Expected a name that is free. Received: {name!r}, which is {known.__qualname__}.")
        allocator.name = name
        _ALLOCATORS[name] = allocator
        return allocator

    return register


def allocator_names() -> list[str]:
    """The names of all registered allocators."""
    return sorted(_ALLOCATORS)


def get_allocator(name: str) -> type[Allocator]:
    """A registered allocator class by its name.

    Raises:
        BudgetError: there is none of that name.
    """
    if name not in _ALLOCATORS:
        raise BudgetError(f"Expected one of {', '.join(allocator_names())}. Received: {name!r}.")
    return _ALLOCATORS[name]
