"""The data of a report.

A run looks at one or more networks; each network has variants (dense, pruned with one ratio, pruned with Bayesian
ratios, ...), of which the first is the one that the others are compared with. Everything that was not measured is
None, and is shown as such: a report never fills a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class VariantRow:
    """One variant of a network, as it was counted and measured.

    Attributes:
        name: for people: "dense", "uniform", "bayesian".
        accuracy: share of the test images that the Keras model gets right, 0 to 1.
        params: weights.
        macs: multiply-accumulates for one image.
        bops: the same, times weight bits and activation bits.
        memory: bytes of the weights at deployed precision.
        tflite_bytes: size of the .tflite file.
        floor_bytes: the smallest size such a file could have.
        ram_bytes: peak memory of one inference.
        latency_ms: milliseconds of one inference, median.
        latency_spread_ms: distance between the quartiles.
        runtime: that ran the file: "litert, 1 thread, XNNPACK on".
        agreement: share of samples for which file and Keras model choose the same class, 0 to 1.
        off_share: share of samples with an output off by more than ``tolerance``, 0 to 1.
        max_error: the largest difference of any output.
        tolerance: what counts as off.
        compared: samples on which file and Keras model were compared.
        format: of the file: "packed", "lce", ...
        file: name of the .tflite file, relative to the report.
        file_kinds: "weights", "scales", "biases", ... -> bytes of the file; they sum to ``tflite_bytes``.
        file_layers: layer -> bytes of its constants in the file.
        floor_layers: layer -> bytes that it needs at least.
        note: anything a reader should know, such as why a figure is missing.
    """

    name: str
    accuracy: float | None = None
    params: int | None = None
    macs: int | None = None
    bops: int | None = None
    memory: float | None = None
    tflite_bytes: int | None = None
    floor_bytes: int | None = None
    ram_bytes: int | None = None
    latency_ms: float | None = None
    latency_spread_ms: float | None = None
    runtime: str | None = None
    agreement: float | None = None
    off_share: float | None = None
    max_error: float | None = None
    tolerance: float | None = None
    compared: int | None = None
    format: str | None = None
    file: str | None = None
    file_kinds: Mapping[str, int] = field(default_factory=dict)
    file_layers: Mapping[str, int] = field(default_factory=dict)
    floor_layers: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class GroupRow:
    """One channel group.

    Attributes:
        name: of the group.
        units: before pruning.
        kept: variant name -> units that stay; variants that were not pruned may be left out.
        layers: members.
        frozen: why it must not be pruned, or None.
    """

    name: str
    units: int
    kept: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    frozen: str | None = None


@dataclass(frozen=True)
class NodeRow:
    """One layer in the picture of the network; layers through which channels only pass are left out.

    Attributes:
        name: of the layer, different from that of every other node.
        inputs: names of the nodes that it reads, which stand before it.
        groups: names of the groups whose channels come out.
        type: its class.
        why: why nothing is known of it, where that is so.
    """

    name: str
    inputs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    type: str = ""
    why: str | None = None


@dataclass(frozen=True)
class CurveRow:
    """What one group alone costs.

    Attributes:
        group: its name.
        ratios: that were tried, ascending, without 0.
        scores: accuracy on the validation images at each, 0 to 1; None where the trial failed.
    """

    group: str
    ratios: tuple[float, ...]
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class LayerRow:
    """One layer's size.

    Attributes:
        name: of the layer.
        sizes: variant name -> bytes at deployed precision.
        type: its class.
        bits: of a deployed weight.
    """

    name: str
    sizes: Mapping[str, float]
    type: str = ""
    bits: int | None = None


@dataclass(frozen=True)
class TrialRow:
    """One trial of a search.

    Attributes:
        number: from 1, in the order in which they ran.
        score: accuracy on the validation images, 0 to 1; None where the trial failed.
        costs: cost -> value: "params", "macs", "bops", "memory" (bytes), ...
        ratios: group name -> ratio that was tried.
        feasible: whether the trial met the budget.
        seconds: it took.
        front: costs for which no other trial is both cheaper and better (the Pareto front).
        why: why it failed, where it did.
    """

    number: int
    score: float | None
    costs: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, float] = field(default_factory=dict)
    feasible: bool = True
    seconds: float | None = None
    front: tuple[str, ...] = ()
    why: str | None = None


@dataclass(frozen=True)
class NetworkReport:
    """All about one network.

    Attributes:
        name: of the network.
        variants: the first is the one before pruning.
        description: a sentence or two.
        groups: in the order of the network.
        nodes: the network itself, each layer after those that it reads.
        layers: those with weights, in the order of the network.
        trials: of the search, if there was one.
        curves: of each group's sensitivity, if they were measured.
        baseline: accuracy on the validation images that the curves begin at.
        budget: cost -> what it had to stay under.
        plans: variant name -> file of its plan, relative to the report.
    """

    name: str
    variants: tuple[VariantRow, ...]
    description: str = ""
    groups: tuple[GroupRow, ...] = ()
    nodes: tuple[NodeRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    curves: tuple[CurveRow, ...] = ()
    baseline: float | None = None
    budget: Mapping[str, float] = field(default_factory=dict)
    plans: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> VariantRow:
        """The pruned variant with the highest accuracy (the first, where none has one); the only one, if it is."""
        return max(self.variants[1:] or self.variants, key=lambda row: row.accuracy or 0.0)

    @property
    def pruned(self) -> tuple[str, ...]:
        """Names of the variants that were pruned by ratios of the groups, in order."""
        return tuple(row.name for row in self.variants if any(row.name in group.kept for group in self.groups))


@dataclass(frozen=True)
class RunReport:
    """A whole run.

    Attributes:
        title: of the page.
        networks: at least one.
        description: what was done, and on which data.
        created: date and time, as text.
        commands: that repeat the run, line by line.
        settings: of the run: "budget" -> "...", "seed" -> "0".
        environment: what it ran on: "processor" -> "...".
        versions: package -> version.
        notes: warnings and remarks, a sentence each.
    """

    title: str
    networks: tuple[NetworkReport, ...]
    description: str = ""
    created: str = ""
    commands: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
