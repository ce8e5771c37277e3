"""Pruning plans: which units go. Small, serialisable, replayable.

A plan names units by group and slot, and carries a fingerprint of the model it was made for.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph, ChannelGroup
from tfqprune.errors import OutputError, PlanError, real_number, whole_number
from tfqprune.files import write_text

_VERSION = 1


@dataclass(frozen=True)
class PruningPlan:
    """Which units of which groups are removed.

    Attributes:
        removed: group name -> slots that go, ascending. Groups left whole may be missing.
        sizes: group name -> number of units, for every group of the model.
        fingerprint: layer name -> (type, weight shapes) of the model the plan was made for.
        criterion: the criterion that ranked the units, or "".
        notes: anything the maker wants to keep with it (budget, allocator, seed).
    """

    removed: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    fingerprint: dict[str, list[Any]] = field(repr=False)
    criterion: str = ""
    notes: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ratios(self) -> dict[str, float]:
        """Share of units removed, by group name, for every group."""
        return {name: len(self.removed.get(name, ())) / size for name, size in self.sizes.items()}

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """Slots that stay, by group name."""
        kept = {}
        for name, size in self.sizes.items():
            gone = set(self.removed.get(name, ()))
            kept[name] = tuple(slot for slot in range(size) if slot not in gone)
        return kept

    def alive_units(self, graph: ChannelGraph) -> np.ndarray:
        """Bool array over the graph's units, after checking that the plan fits.

        Raises:
            PlanError: see :meth:`check`.
        """
        self.check(graph)
        return graph.alive_units(self.removed)

    def check(self, graph: ChannelGraph) -> None:
        """Checks that the plan was made for a model like this one and is sound.

        Raises:
            PlanError: names the first difference, or the first unsound entry.
        """
        mine = fingerprint(graph)
        for name in [*self.fingerprint, *mine]:
            before, now = self.fingerprint.get(name), mine.get(name)
            if before != now:
                raise PlanError(
                    f"The plan was made for another model. First difference: layer {name!r} was "
                    f"{_describe(before)} and is {_describe(now)}."
                )
        groups = {group.name: group.size for group in graph.groups}
        for group in [*self.sizes, *groups]:
            if self.sizes.get(group) != groups.get(group):
                raise PlanError(
                    f"The plan was made for another model. First difference: group {group!r} had "
                    f"{self.sizes.get(group, 'no')} units and has {groups.get(group, 'none')}."
                )
        _check_removed(graph, self.removed)

    def report(self, model: tf.keras.Model) -> PlanReport:
        """What the plan does to a model: units per group, and deployed codes that change by the cut.

        A quantiser whose scale depends on the whole layer (DoReFa weights, ternary with the TWN
        threshold, magnitude-aware sign) may give remaining weights other codes once the rest is gone.

        Args:
            model: the model that the plan was made for.

        Raises:
            PlanError: see :meth:`check`.
        """
        graph = ChannelGraph(model)
        self.check(graph)
        alive, changes = graph.alive(self.removed), []
        for record in graph.records.values():
            for weight, quantizer in precision.quantized_weights(record.layer).items():
                roles = record.weight_axes.get(weight, ())
                latent = precision.latent(record.layer, weight)
                kept = precision.quantize(quantizer, latent)
                for axis, role in enumerate(roles):
                    if role:
                        positions = np.flatnonzero(alive[record.roles[role]])
                        latent, kept = np.take(latent, positions, axis), np.take(kept, positions, axis)
                moved = np.count_nonzero(~np.isclose(precision.quantize(quantizer, latent), kept, rtol=1e-5, atol=1e-7))
                changes.append(CodeChanges(record.name, weight, int(moved), latent.size))
        return PlanReport(self, {group.name: group.frozen for group in graph.groups}, tuple(changes))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the plan as JSON, in one step (an interrupted write leaves nothing behind).

        Raises:
            OutputError: it cannot be written there.
            PlanError: notes that JSON does not hold.
        """
        text = json.dumps({"tfqprune_plan": _VERSION, **asdict(self)}, indent=1, default=_plain)
        try:
            write_text(path, text)
        except OSError as error:
            raise OutputError(
                f"Expected a place where a plan can be written. Received: '{path}' ({error.strerror or error}). Create "
                "the folder, or choose another path."
            ) from error
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningPlan:
        """Reads a plan that :meth:`save` wrote.

        Raises:
            PlanError: no such file, no plan, or one of a later version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["tfqprune_plan"] != _VERSION:
                raise PlanError(f"Expected a plan of version {_VERSION}. Received: version {data['tfqprune_plan']}.")
            return cls(
                {str(name): tuple(slots) for name, slots in data["removed"].items()},
                {str(name): int(size) for name, size in data["sizes"].items()},
                {
                    str(name): [str(kind), [list(shape) for shape in shapes]]
                    for name, (kind, shapes) in data["fingerprint"].items()
                },
                str(data["criterion"]),
                dict(data["notes"]),
            )
        except PlanError:
            raise
        except OSError as error:
            raise PlanError(
                f"Expected the file of a plan. Received: '{path}', which cannot be read ({error.strerror or error})."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PlanError(
                f"Expected a plan written by PruningPlan.save. Received: '{path}', which is none "
                f"({type(error).__name__}: {error})."
            ) from error

    def __str__(self) -> str:
        lines = [f"PruningPlan: {sum(map(len, self.removed.values()))} of {sum(self.sizes.values())} units go"]
        lines += [
            f"  {name}: {self.sizes[name]} -> {self.sizes[name] - len(slots)}"
            if name in self.sizes
            else f"  {name}: {len(slots)} go of an unknown group"
            for name, slots in self.removed.items()
            if slots
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class CodeChanges:
    """How many of a weight's remaining values have another deployed value after the cut."""

    layer: str
    weight: str
    changed: int
    remaining: int


@dataclass(frozen=True)
class PlanReport:
    """What a plan does to a model.

    Attributes:
        plan: the plan.
        frozen: group name -> why it is frozen, or None.
        codes: for each quantised weight, how many remaining codes change by the cut.
    """

    plan: PruningPlan
    frozen: dict[str, str | None]
    codes: tuple[CodeChanges, ...]

    def __str__(self) -> str:
        lines = [str(self.plan)]
        lines += [f"  {name}: left whole: {reason}" for name, reason in self.frozen.items() if reason]
        changed, remaining = sum(entry.changed for entry in self.codes), sum(entry.remaining for entry in self.codes)
        lines.append(f"Deployed codes changed by the cut: {changed} of {remaining} that stay")
        lines += [
            f"  {entry.layer}/{entry.weight}: {entry.changed} of {entry.remaining}"
            for entry in self.codes
            if entry.changed
        ]
        return "\n".join(lines)


def checked_removal(
    graph: ChannelGraph, plan: PruningPlan | Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """What a plan removes, after :meth:`PruningPlan.check`.

    Args:
        graph: the model's channel graph.
        plan: a plan, or group -> slots that go, as in ``plan.removed``.

    Raises:
        PlanError: it is neither, was made for another model, or is unsound.
    """
    if isinstance(plan, PruningPlan):
        plan.check(graph)
        return plan.removed
    if not isinstance(plan, Mapping):
        raise PlanError(
            f"Expected a PruningPlan, or its `removed` (group name -> slots). Received: {plan!r} "
            f"(of type {type(plan).__name__})."
        )
    _check_removed(graph, plan)
    return dict(plan)


def _check_removed(graph: ChannelGraph, removed: Mapping[str, tuple[int, ...]]) -> None:
    names = {group.name: group for group in graph.groups}
    for name, slots in removed.items():
        group = names.get(name)
        if group is None:
            raise PlanError(
                f"The plan removes units of {name!r}, a group that the model does not have.{_hint(name, names)}"
            )
        if any(isinstance(slot, bool) or not isinstance(slot, int | np.integer) for slot in slots):
            raise PlanError(f"Expected whole slot numbers for group {name!r}. Received: {list(slots)}.")
        if any(not 0 <= slot < group.size for slot in slots):
            raise PlanError(f"Expected slots from 0 to {group.size - 1} for group {name!r}. Received: {list(slots)}.")
        if len(set(slots)) != len(slots):
            raise PlanError(f"Expected each slot of group {name!r} at most once. Received: {list(slots)}.")
        if slots and group.frozen:
            raise PlanError(f"The plan removes units of group {name!r}, which is frozen: {group.frozen}.")
        if len(slots) >= group.size:
            raise PlanError(f"The plan removes all {group.size} units of group {name!r}; at least one must stay.")


def fingerprint(graph: ChannelGraph) -> dict[str, list[Any]]:
    """Layer name -> [type, weight shapes] for every layer that has weights."""
    return {
        name: [type(record.layer).__name__, [list(weight.shape) for weight in record.layer.weights]]
        for name, record in graph.records.items()
        if record.layer.weights
    }


def plan_from_ratios(
    graph: ChannelGraph,
    ratios: float | Mapping[str, float],
    scores: Mapping[str, np.ndarray],
    *,
    align: int = 1,
    criterion: str = "",
    notes: Mapping[str, Any] | None = None,
) -> PruningPlan:
    """Removes the lowest-scored share of each group.

    Args:
        graph: the model's channel graph.
        ratios: one ratio for all groups that are not frozen, or ratios by group or member layer
            name (groups not named stay whole). Never more than the ratio is removed.
        scores: group name -> score of each unit; low goes first.
        align: keep a multiple of this many channels in each layer of a group; a group that is
            smaller than that, or whose size does not allow it, is left whole.
        criterion: name kept in the plan.
        notes: kept in the plan.

    Raises:
        PlanError: a ratio below 0, of 1 or more or not a number; an unknown or frozen name; a
            layer named with two different ratios; align below 1; scores that are missing, too few or no numbers.
    """
    align = whole_number("align", align, PlanError)
    removed: dict[str, tuple[int, ...]] = {}
    for name, ratio in resolve_ratios(graph, ratios).items():
        count = removable(graph[name], ratio, align)
        if count:
            removed[name] = tuple(sorted(order_of_removal(graph[name], scores)[:count].tolist()))
    sizes = {group.name: group.size for group in graph.groups}
    return PruningPlan(removed, sizes, fingerprint(graph), criterion, dict(notes or {}))


def order_of_removal(group: ChannelGroup, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """The slots of a group, the first to go first; of equal scores, the first slot.

    Raises:
        PlanError: no scores for this group, not one a unit, or no numbers.
    """
    if group.name not in scores:
        raise PlanError(
            f"Expected scores for group {group.name!r}. Received: scores for {', '.join(scores) or 'none'}."
        )
    values = np.asarray(scores[group.name])
    if values.shape != (group.size,):
        raise PlanError(
            f"Expected {group.size} scores for group {group.name!r}, one a unit. Received: shape {values.shape}."
        )
    if values.dtype.kind not in "biuf" or np.isnan(values).any():
        raise PlanError(
            f"Expected numbers as scores for group {group.name!r}. Received: values of type {values.dtype}"
            f"{', NaN among them' if values.dtype.kind == 'f' else ''}. Look at the criterion, or score anew."
        )
    return np.argsort(values, kind="stable")


def removable(group: ChannelGroup, ratio: float, align: int = 1) -> int:
    """How many units of a group go at a ratio: never more than asked, never the last, aligned."""
    count = min(math.floor(ratio * group.size + 1e-9), group.size - 1)
    step = alignment(group, align)
    if step > 1:
        kept = math.ceil((group.size - count) / step) * step
        count = max(group.size - kept, 0)
    return count


def alignment(group: ChannelGroup, align: int) -> int:
    """Of how many units the kept number must be a multiple, so that channels are one of ``align``."""
    return math.lcm(*(align // math.gcd(align, width) for width in group.width.values() if width), 1)


def resolve_ratios(graph: ChannelGraph, ratios: float | Mapping[str, float]) -> dict[str, float]:
    """Ratios by the names of groups that are not frozen.

    Raises:
        PlanError: see :func:`plan_from_ratios`.
    """
    if not isinstance(ratios, Mapping):
        ratio = real_number("ratios", ratios, PlanError, 0, below=1)
        return {group.name: ratio for group in graph.prunable}
    by_name: dict[str, list[ChannelGroup]] = {}
    for group in graph.groups:
        for name in dict.fromkeys((group.name, *group.layers)):
            by_name.setdefault(name, []).append(group)
    exact = {group.name: group for group in graph.groups}
    resolved: dict[str, tuple[float, str]] = {}
    for name, value in ratios.items():
        ratio = real_number(f"ratios[{name!r}]", value, PlanError, 0, below=1)
        if name not in by_name:
            raise PlanError(
                f"Expected ratios for groups or layers of the model. Received: {name!r}.{_hint(name, by_name)}"
            )
        # A group's own name means that group; a layer's name means every group it is in.
        groups = [exact[name]] if name in exact else by_name[name]
        open_groups = [group for group in groups if group.frozen is None]
        if not open_groups and ratio > 0:
            raise PlanError(f"Group {groups[0].name!r} cannot be pruned: {groups[0].frozen}.")
        for group in open_groups:
            if group.name in resolved and resolved[group.name][0] != ratio:
                raise PlanError(
                    f"Expected one ratio for group {group.name!r}. Received: {resolved[group.name][0]} (as "
                    f"{resolved[group.name][1]!r}) and {ratio} (as {name!r}), which are tied together."
                )
            resolved[group.name] = (ratio, name)
    return {name: ratio for name, (ratio, _) in resolved.items()}


def _hint(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _describe(entry: list[Any] | None) -> str:
    if entry is None:
        return "missing"
    return f"{entry[0]} with weights {', '.join(str(tuple(shape)) for shape in entry[1])}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"Expected plain values in the notes of a plan. Received: {value!r}.")
