"""What a format is: data about what it can do, checked before any work, and one function that builds the bytes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tflite_export.codes import CodedKernel
from tfqprune.errors import ExportError


@dataclass(frozen=True)
class Promise:
    """The agreement with Keras that a format promises; export fails below it.

    Attributes:
        top1: smallest share of samples with the same class first.
        off_share: largest share of samples off by more than the tolerance.
        unexplained: largest error of outputs that are single numbers and have no first class, as a share of what a
            file that always says the same would be off by (see :class:`tflite_export.Agreement`).
    """

    top1: float
    off_share: float
    unexplained: float = 0.5

    def kept(self, agreement: Any) -> bool:
        """Whether an :class:`tflite_export.Agreement` is at least as good; never where an output is not finite."""
        return bool(
            agreement.top1 >= self.top1
            and agreement.off_share <= self.off_share
            and agreement.unexplained <= self.unexplained
            and math.isfinite(agreement.max_error)
        )


# How many inputs a format that calibrates looks at, where the user gives so many.
CALIBRATION_SAMPLES = 256
# For formats that keep every weight as deployed: only levels on a rounding boundary may differ.
EXACT = Promise(top1=0.98, off_share=0.1)


@dataclass(frozen=True)
class Facts:
    """What the formats need to know of a model, gathered once.

    Attributes:
        kernels: the quantised kernels as integers.
        unknown: ``layer.weight`` of quantised kernels whose levels are unknown, so that they are no integers.
        kernel_bits: ``layer.weight`` -> bits, of quantised kernels.
        input_bits: layer -> bits of its input quantiser, for layers with a quantised kernel (32: real input, or levels
            that :func:`tflite_export.activations.input_levels` does not know).
        junctions: names of layers where paths meet or part; none in a sequential network.
        sign_inputs: layers with a quantised kernel whose input quantiser gives negative levels.
        open_inputs: names of inputs that leave other sizes open than the batch.
    """

    kernels: tuple[CodedKernel, ...]
    kernel_bits: dict[str, int]
    input_bits: dict[str, int]
    junctions: tuple[str, ...] = ()
    sign_inputs: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    open_inputs: tuple[str, ...] = ()

    @property
    def binary(self) -> bool:
        """Whether all quantised kernels are of +-1 (not of 0 and 1), and one of them meets activations of +-1."""
        return (
            bool(self.kernel_bits)
            and set(self.kernel_bits.values()) == {1}
            and all(kernel.integers.all() for kernel in self.kernels)
            and any(self.input_bits[layer] == 1 for layer in self.sign_inputs)
        )


@dataclass(frozen=True)
class Request:
    """What a format is asked to build.

    Attributes:
        model: the Keras model.
        facts: what is known of it.
        data: representative inputs, a list of arrays [samples, ...] by input, or None.
        batch_size: that the file will have, or None where it stays as the model's inputs have it.
    """

    model: Any
    facts: Facts
    data: list[Any] | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Built:
    """A format's work.

    Attributes:
        model: the finished ``ModelT``, not stripped yet.
        notes: what the user should know.
        drop_shapes: whether the shapes of intermediate tensors may go.
        merge_clips: whether two operators that clip may become one that tflite-micro does not have.
    """

    model: Any
    notes: tuple[str, ...] = ()
    drop_shapes: bool = False
    merge_clips: bool = True


@dataclass(frozen=True)
class Capability:
    """What a format takes, as data.

    Attributes:
        kernel_bits: widths of quantised kernels that it stores at its own precision.
        needs_quantised: whether a model without any quantised kernel is refused.
        runtime: ``litert`` or ``lce``.
        platforms: where such a file runs.
        promise: the agreement with Keras that export demands.
    """

    kernel_bits: frozenset[int]
    needs_quantised: bool
    runtime: str
    platforms: str
    promise: Promise = EXACT


class Format(ABC):
    """One way to store a model. Subclass it, say what it can do, and register it.

    Attributes:
        name: what users write in ``format=``.
        summary: one line for a table.
        capability: what it takes.
        keeps_small: whether what is stored narrow should be unfolded at each run rather than once.
        needs_levels: whether it stores quantised kernels as integers, and so has to know their levels.
    """

    keeps_small: ClassVar[bool] = False
    needs_levels: ClassVar[bool] = True
    name: ClassVar[str]
    summary: ClassVar[str]
    capability: ClassVar[Capability]

    def refusal(self, facts: Facts) -> str | None:
        """Why a model cannot be stored in this format, or None where it can."""
        if self.capability.needs_quantised and not facts.kernel_bits:
            return 'no layer has a quantised kernel; use format="float32"'
        for name, bits in facts.kernel_bits.items():
            if bits not in self.capability.kernel_bits:
                return (
                    f"{name} has {bits}-bit weights, and this format takes "
                    f"{', '.join(map(str, sorted(self.capability.kernel_bits)))} bits"
                )
        if self.needs_levels and facts.unknown:
            return (
                f"the quantiser of {facts.unknown[0]} gives no equidistant levels that are known here; use a larq "
                'quantiser, or format="float32"'
            )
        return None

    def promise(self, facts: Facts) -> Promise:
        """The agreement with Keras that export demands of this model's file."""
        return self.capability.promise

    def check(self, facts: Facts) -> None:
        """Refuses a model that cannot be stored in this format.

        Raises:
            ExportError: with the reason.
        """
        reason = self.refusal(facts)
        if reason is not None:
            raise ExportError(f"Expected a model that format {self.name!r} can store. Received: {reason}.")

    @abstractmethod
    def build(self, request: Request) -> Built:
        """Builds the model in this format; :func:`tflite_export.export` strips, verifies and writes it."""
