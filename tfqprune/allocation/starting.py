"""What a ratio search starts from besides the uniform solution: what sensitivity says, and what the user gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfqprune.allocation.curves import LADDER, SensitivityCurves, measure
from tfqprune.allocation.expectation import expectation, least_loss_solution
from tfqprune.allocation.identity import model_digest, scores_digest
from tfqprune.allocation.oracle import BudgetOracle, as_starts
from tfqprune.allocation.sensitivity import SensitivityAllocator, rising
from tfqprune.channels import ChannelGraph
from tfqprune.errors import OutputError, PlanError
from tfqprune.evaluation import PlanEvaluator
from tfqprune.fitting import Fitter
from tfqprune.plan import resolve_ratios

#: the sensitivity curves, in the folder of the search
CURVES = "curves.json"

Sensitivity = SensitivityCurves | str | os.PathLike[str] | bool | None


def resolved_starts(fitter: Fitter, starts: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """Preferences by group, for preferences by group or member layer name.

    Raises:
        PlanError: a name that the model does not have, or a preference that is negative or not finite.
    """
    resolved = []
    for start in starts:
        if not isinstance(start, Mapping):
            raise PlanError(
                f"Expected starts as a list of ratios by group, such as [plan.ratios]. Received: {start!r}."
            )
        by_group = {
            group: ratio for name, ratio in start.items() for group in resolve_ratios(fitter.graph, {name: 0.0})
        }
        fitter.project(by_group, measure=False)  # refuses what is no preference
        resolved.append(by_group)
    return resolved


def check_sensitivity(given: Any) -> None:
    """Refuses what cannot be sensitivity curves, before there are scores to compare them with.

    Raises:
        PlanError: another type.
        OutputError: a path at which there is no file.
    """
    if given is None or isinstance(given, bool | SensitivityCurves):
        return
    if not isinstance(given, str | os.PathLike):
        raise PlanError(
            "Expected sensitivity to be True (measure), False, SensitivityCurves or the path of a file that holds "
            f"some. Received: {given!r} (of type {type(given).__name__})."
        )
    if not Path(given).is_file():
        raise OutputError(
            f"Expected a file with sensitivity curves. Received: {os.fspath(given)!r}, which does not exist. "
            "sensitivity=True measures them."
        )


def evaluations_of(fitter: Fitter) -> int:
    """The most evaluations that :func:`measured_curves` takes."""
    return 1 + len(LADDER) * len(fitter.names)


def measured_curves(
    fitter: Fitter, evaluator: PlanEvaluator, metric: str, larger_is_better: bool, path: Path
) -> SensitivityCurves:
    """Sensitivity curves of a search's own metric; what was measured before is read.

    Args:
        fitter: of the search.
        evaluator: of the search.
        metric: as trials name it: "val_accuracy".
        larger_is_better: which way it goes.
        path: where the curves are kept.

    Raises:
        EvaluationError: its value is not finite for the whole model.
    """
    curves = SensitivityCurves(
        {
            "model": model_digest(fitter.graph),
            "scores": scores_digest(fitter.scores),
            "metric": metric,
            "ladder": list(LADDER),
        }
    )
    if path.exists() and not (kept := SensitivityCurves.load(path)).changed(curves.identity):
        curves = kept
    evaluate = rising(evaluator, metric.removeprefix("val_"), larger_is_better)
    return measure(curves, fitter, evaluate, LADDER, path)


def sensitivity_solution(fitter: Fitter, curves: SensitivityCurves) -> dict[str, float]:
    """The ratios on the budget at which each group alone loses no more than the others.

    Raises:
        PlanError: the curves are those of another model, or incomplete.
    """
    check_curves(fitter.graph, curves)
    return SensitivityAllocator(fitter.budget, curves=curves).fit(fitter.graph.model, fitter).ratios


def check_curves(graph: ChannelGraph, curves: SensitivityCurves) -> None:
    """Refuses curves that cannot be those of a model.

    Raises:
        PlanError: they are of another model, or have no baseline.
    """
    own = model_digest(graph)
    if curves.identity.get("model", own) != own:
        raise PlanError(
            "Expected sensitivity curves of this model. Received: curves of another one, or of other weights. Measure "
            "them anew: sensitivity=True."
        )
    if curves.baseline is None:
        raise PlanError(
            "Expected sensitivity curves with a baseline, the value of the whole model. Received: curves without one."
        )


def guide(oracle: BudgetOracle, curves: SensitivityCurves) -> None:
    """Has an oracle try what curves say, and expect from ratios what curves say of them.

    The sensitivity solution comes right after the first start, that of the least loss after all others.

    Raises:
        PlanError: the curves are those of another model, or incomplete.
    """
    assert oracle.space is not None  # it has its space and its other starts before
    first, *others = oracle.starts
    sensitive = sensitivity_solution(oracle.space.fitter, curves)  # refuses curves that do not fit
    oracle.starts = as_starts([first, sensitive, *others, least_loss_solution(oracle.space, curves)])
    oracle.prior = expectation(oracle.space, curves)
