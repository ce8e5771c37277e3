"""What a criterion is, and the registry of criteria.

A criterion gives each unit of a group a score; low goes first. It says of itself which weights it reads, whether it
needs data and gradients, and where it comes from.
"""

from __future__ import annotations

import difflib
import inspect
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, overload

import numpy as np

from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.criteria.filters import Filters, members
from tfqprune.errors import CriterionError
from tfqprune.samples import Samples

Scores = dict[str, "np.ndarray | None"]
Reads = Literal["latent", "deployed", "both", "nothing"]
FilterFunction = Callable[[np.ndarray], np.ndarray]


class Criterion(ABC):
    """Base of all criteria.

    Subclass it, implement :meth:`score_groups`, and decorate with ``@register_criterion("name")``. A criterion that
    looks at one layer's filters at a time is easier to write from :class:`FilterCriterion`.
    ``tfqprune.testing.CriterionConformance`` is a suite to subclass.

    The docstring says the same of it as the attributes, in one sentence: ``Reads latent weights; needs data; no
    gradients. Source: ours.``

    Attributes:
        name: under which it is registered; it is kept in plans.
        reads: "latent", "deployed" or "both": which weights it looks at ("nothing": none).
        needs_data: whether it looks at samples.
        needs_gradients: whether it differentiates a loss.
        greedy: whether its scores are an order of removal (0 goes first), in which each unit was judged
            with those before it gone.
        source: the paper it comes from, or "ours".
    """

    name: str = ""
    reads: Reads = "deployed"
    needs_data: bool = False
    needs_gradients: bool = False
    greedy: ClassVar[bool] = False
    source: ClassVar[str] = "ours"

    @abstractmethod
    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        """Scores groups that may be pruned.

        Args:
            graph: the channel graph of the model.
            groups: the groups to score; none of them is frozen.
            samples: the data; not None if ``needs_data``.

        Returns:
            Group name -> score of each unit, float ``[units]``; None for a group of which the criterion has
            nothing to read (its units are then ranked by latent L1, with a warning).
        """


class FilterCriterion(Criterion):
    """Scores the filters of one layer at a time; the layers of a group are then brought together.

    Each layer's scores are divided by their mean over the group, so that a layer with large weights or many of
    them has no more to say than another, and averaged over the layers.
    """

    @abstractmethod
    def score_filters(self, filters: Filters) -> np.ndarray:
        """Scores one layer's filters.

        Args:
            filters: the kernel; ``filters.latent()`` and ``filters.deployed()`` are arrays ``[units, weights]``.

        Returns:
            Float array ``[units]``.
        """

    def score_groups(self, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None) -> Scores:
        result: Scores = {}
        for group in groups:
            parts = []
            for filters in members(graph, group):
                what = f"layer {filters.record.name!r} of group {group.name!r}"
                scores = checked(self, self.score_filters(filters), len(filters.slots), what)
                parts.append(filters.spread(scores))
            result[group.name] = together(parts)
        return result


class FunctionCriterion(FilterCriterion):
    """A user's function of one layer's filters.

    Reads deployed weights, or latent ones where ``reads`` says so; no data; no gradients. Source: its author.

    Args:
        function: takes a float array ``[units, weights]``, returns the score of each unit ``[units]``.
        name: kept in plans; by default the function's own name.
        reads: "deployed" or "latent".
    """

    source: ClassVar[str] = "its author"

    def __init__(self, function: FilterFunction, name: str | None = None, reads: Reads = "deployed") -> None:
        if reads not in ("deployed", "latent"):
            raise CriterionError(f"Expected reads to be 'deployed' or 'latent'. Received: {reads!r}.")
        self.function = function
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.reads = reads

    def score_filters(self, filters: Filters) -> np.ndarray:
        return self.function(filters.latent() if self.reads == "latent" else filters.deployed())


def together(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """The mean of several layers' scores, each divided by its own mean over the units first.

    Args:
        parts: float arrays ``[units]``; NaN where a layer has no filter for a unit.

    Returns:
        Float array ``[units]``, about 1 on average; None if there is no layer at all.
    """
    if not parts:
        return None
    scaled = []
    for part in parts:
        known = np.abs(part[~np.isnan(part)])
        mean = known.mean() if known.size else 0.0
        scaled.append(part / mean if np.isfinite(mean) and mean > 0 else part)
    stack = np.stack(scaled)
    counts = (~np.isnan(stack)).sum(axis=0)
    return np.where(counts > 0, np.nansum(stack, axis=0) / np.maximum(counts, 1), 0.0)


def ranks(order: np.ndarray) -> np.ndarray:
    """Scores from an order of removal: the first to go gets 0."""
    scores = np.empty(len(order))
    scores[order] = np.arange(len(order))
    return scores


def checked(criterion: Criterion, scores: Any, count: int, what: str) -> np.ndarray:
    """What a criterion returned for some units, as one finite number for each.

    Args:
        criterion: the criterion.
        scores: what it returned.
        count: how many units there are.
        what: what they are units of, for the message.

    Returns:
        Float64 array ``[count]``.

    Raises:
        CriterionError: another shape or type, or NaN or infinity among the scores.
    """
    try:
        array = np.asarray(scores)
    except Exception:  # ragged lists, or whatever a user's object raises
        array = np.asarray(None)
    if array.shape != (count,) or not np.can_cast(array.dtype, np.float64, "same_kind"):
        form = f"an array of shape {array.shape} and type {array.dtype}"
        raise CriterionError(
            f"Expected criterion {criterion.name!r} to return {count} real numbers for {what}, one a unit. "
            f"Received: {_shown(scores) if array.dtype == object else form}. Return a float array [units]."
        )
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise CriterionError(
            f"Expected criterion {criterion.name!r} to return finite scores for {what}. "
            f"Received: {array[bad[0]]} for unit {bad[0]} ({len(bad)} of {count} are not finite)."
        )
    return array


def checked_scores(
    criterion: Criterion, graph: ChannelGraph, groups: Sequence[ChannelGroup], samples: Samples | None
) -> Scores:
    """What a criterion scores, checked: for each group float64 ``[units]``, or None where it has nothing to read.

    Raises:
        CriterionError: no mapping, a group left out, or scores that :func:`checked` refuses.
    """
    found = criterion.score_groups(graph, groups, samples)
    expected = f"Expected criterion {criterion.name!r} to return a mapping from the name of each group to its scores. "
    if not isinstance(found, Mapping):
        raise CriterionError(f"{expected}Received: {_shown(found)}.")
    result: Scores = {}
    for group in groups:
        if group.name not in found:
            raise CriterionError(
                f"{expected}Received: none for group {group.name!r}. Return None for it where there is nothing to read."
            )
        scores = found[group.name]
        result[group.name] = None if scores is None else checked(criterion, scores, group.size, f"group {group.name!r}")
    return result


def _shown(value: Any) -> str:
    return f"{reprlib.repr(value)} (of type {type(value).__name__})"


_CRITERIA: dict[str, Callable[..., Criterion]] = {}
Registered = TypeVar("Registered", bound="type[Criterion] | FilterFunction")


@overload
def register_criterion(name: str) -> Callable[[Registered], Registered]: ...
@overload
def register_criterion(name: str, criterion: Registered) -> Registered: ...


def register_criterion(name: str, criterion: Any = None) -> Any:
    """Makes a criterion known by a name; works as a decorator, too.

    Args:
        name: how users ask for it. A name that is taken is refused.
        criterion: a subclass of :class:`Criterion`, or a function from deployed filters ``[units, weights]``
            to scores ``[units]``.

    Raises:
        CriterionError: the name is taken or no name, or the object is neither.
    """
    if criterion is None:
        return lambda decorated: register_criterion(name, decorated)
    if not isinstance(name, str) or not name or name == "auto":
        raise CriterionError(f"Expected a name for the criterion, other than 'auto'. Received: {name!r}.")
    if name in _CRITERIA:
        raise CriterionError(f"A criterion named {name!r} is registered already. Choose another name.")
    if isinstance(criterion, type) and issubclass(criterion, Criterion):
        criterion.name = name
        _CRITERIA[name] = criterion
    elif callable(criterion) and not isinstance(criterion, type):
        _CRITERIA[name] = lambda **options: FunctionCriterion(criterion, name, **options)
    else:
        raise CriterionError(f"Expected a subclass of Criterion or a function. Received: {criterion!r}.")
    return criterion


def criterion_names() -> list[str]:
    """The names of all registered criteria, sorted."""
    return sorted(_CRITERIA)


def option_names(criterion: Any) -> list[str]:
    """By which names a criterion, given as for :func:`get_criterion`, takes options; none where it is made already."""
    maker = _CRITERIA.get(criterion) if isinstance(criterion, str) else criterion
    if isinstance(maker, type):
        return list(inspect.signature(maker).parameters)
    return ["reads"] if callable(maker) and not isinstance(maker, Criterion) else []


def get_criterion(criterion: Any, **options: Any) -> Criterion:
    """A criterion by name, class, function or weights of several.

    Args:
        criterion: a registered name; a :class:`Criterion` (class or instance); a function from deployed filters
            ``[units, weights]`` to scores ``[units]``; or a mapping name -> weight, for a weighted mean of ranks.
        **options: arguments of the criterion's class.

    Raises:
        CriterionError: an unknown name, an option it does not have, or none of these.
    """
    if isinstance(criterion, Criterion):
        if options:
            raise CriterionError(
                f"Expected options ({', '.join(options)}) with a criterion's name. Received: criterion "
                f"{criterion.name!r}, which is made already; give them where it is made."
            )
        criterion.name = criterion.name or type(criterion).__name__
        return criterion
    if isinstance(criterion, Mapping):
        return get_criterion("rank_combination", weights=criterion, **options)
    if isinstance(criterion, str):
        if criterion == "auto":
            raise CriterionError(
                "Expected criteria by their own names in a combination. Received: 'auto', which stands for one by "
                f"itself. Choose among {', '.join(criterion_names())}."
            )
        if criterion not in _CRITERIA:
            close = difflib.get_close_matches(criterion, _CRITERIA, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise CriterionError(
                f"Expected a criterion, one of auto, {', '.join(criterion_names())}. Received: {criterion!r}.{hint}"
            )
        maker: Callable[..., Criterion] = _CRITERIA[criterion]
    elif isinstance(criterion, type) and issubclass(criterion, Criterion):
        maker = criterion
    elif callable(criterion) and not isinstance(criterion, type):
        maker = lambda **given: FunctionCriterion(criterion, **given)  # noqa: E731
    else:
        raise CriterionError(
            "Expected a criterion: a name, a subclass of Criterion, a function or a mapping of weights. "
            f"Received: {reprlib.repr(criterion):.80} (of type {type(criterion).__name__})."
        )
    try:
        made = maker(**options)
    except TypeError as error:
        raise CriterionError(f"Criterion {criterion!r} cannot be made with {options}: {error}.") from error
    made.name = made.name or type(made).__name__
    return made
