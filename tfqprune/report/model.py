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
        agreement: share of samples for which file and Keras model choose the same class, 0 to 1.
        tflite_accuracy: share of the test images that the file gets right, 0 to 1.
        format: of the file: "packed", "lce", ...
        file: name of the .tflite file, relative to the report.
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
    agreement: float | None = None
    tflite_accuracy: float | None = None
    format: str | None = None
    file: str | None = None
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
        size: bytes at deployed precision (the axis of the plot).
        ratios: group name -> ratio that was tried.
        feasible: whether the trial met the budget.
        seconds: it took.
    """

    number: int
    score: float | None
    size: float | None
    ratios: Mapping[str, float] = field(default_factory=dict)
    feasible: bool = True
    seconds: float | None = None


@dataclass(frozen=True)
class NetworkReport:
    """All about one network.

    Attributes:
        name: of the network.
        variants: the first is the one before pruning.
        description: a sentence or two.
        groups: in the order of the network.
        layers: those with weights, in the order of the network.
        trials: of the search, if there was one.
        size_budget: bytes that ``TrialRow.size`` had to stay under, or None.
        plans: variant name -> file of its plan, relative to the report.
    """

    name: str
    variants: tuple[VariantRow, ...]
    description: str = ""
    groups: tuple[GroupRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    size_budget: float | None = None
    plans: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunReport:
    """A whole run.

    Attributes:
        title: of the page.
        networks: at least one.
        description: what was done, and on which data.
        created: date and time, as text.
        commands: that repeat the run, line by line.
        environment: what it ran on: "processor" -> "...", "seed" -> "0".
        versions: package -> version.
        notes: warnings and remarks, a sentence each.
    """

    title: str
    networks: tuple[NetworkReport, ...]
    description: str = ""
    created: str = ""
    commands: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
