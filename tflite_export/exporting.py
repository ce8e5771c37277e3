"""Keras model -> a small .tflite file that is proven to compute the same."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export.activations import input_levels
from tflite_export.codes import coded_kernels, named_layers, own_nodes, quantised_kernels
from tflite_export.convert import check_model
from tflite_export.flatbuffer import serialize, write_atomically
from tflite_export.formats import (
    CALIBRATION_SAMPLES,
    Facts,
    Format,
    Promise,
    Request,
    check_aim,
    choose_format,
    get_format,
)
from tflite_export.narrow import check_width, narrow_floats, wide_weights
from tflite_export.runtime import check_threads, check_xnnpack, require_lce
from tflite_export.simplify import simplify
from tflite_export.sizes import SizeReport, size_report
from tflite_export.strip import set_batch_size, strip
from tflite_export.support import check_support
from tflite_export.verification import (
    TOLERANCE,
    Agreement,
    as_inputs,
    check_tolerance,
    depends_on_batch,
    rounding_noise,
    verify,
)
from tfqprune.errors import DataError, ExportError, OutputError, seed_number, whole_number
from tfqprune.precision import input_bits, quantized_weights, weight_bits

# However much rounding noise flips, this share of first classes has to stay, and single numbers must not be off by
# more than this share of what a constant would be.
_LEAST_TOP1, _MOST_UNEXPLAINED = 0.8, 0.8
# Where every sample may be off, errors may be this many times those of rounding noise.
_NOISE_ROOM = 4.0
# What a file promises whose float kernels were stored narrower.
_NARROW = {"float16": Promise(top1=0.95, off_share=1.0, unexplained=0.25), "int8": Promise(top1=0.8, off_share=1.0)}


@dataclass(frozen=True)
class ExportResult:
    """An exported file and what is known of it.

    Attributes:
        path: where it is.
        bytes: its size.
        floor_bytes: the theoretical floor of the model (see :func:`tflite_export.floor_bytes`).
        breakdown: bytes by layer and kind.
        format: the format's name.
        reason: why this format.
        agreement: comparison with the Keras model.
        runtime: ``litert`` or ``lce``, what runs the file.
        notes: what else the user should know.
    """

    path: Path
    bytes: int
    floor_bytes: int
    breakdown: SizeReport
    format: str
    reason: str
    agreement: Agreement
    runtime: str
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Size over floor."""
        return self.bytes / self.floor_bytes if self.floor_bytes else float("inf")


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    optimize: str = "size",
    data: Any = None,
    samples: int = 64,
    tolerance: float = TOLERANCE,
    strict: bool = True,
    promise: Promise | None = None,
    threads: int = 1,
    xnnpack: bool | None = None,
    batch_size: int | None = None,
    float_weights: str = "float32",
    seed: int = 0,
) -> ExportResult:
    """Stores a Keras model as a .tflite file and compares the two in the runtime that will run the file.

    Args:
        model: a legacy Keras model: float, binary, ternary, DoReFa or mixed; functional or Sequential.
        path: the file to write; replaced if it exists, there in full or not at all.
        format: ``auto`` or a name from :func:`tflite_export.list_formats`.
        optimize: ``size`` or ``speed``, what ``auto`` goes by.
        data: inputs for the comparison (and for formats that calibrate), as for :func:`tflite_export.verify`.
        samples: how many samples to compare.
        tolerance: error above which a sample counts as off.
        strict: fail, leaving no file, where the agreement is below the promise; False keeps the file and leaves the
            judgement to the caller.
        promise: the agreement to demand; None for the format's own.
        threads: threads of the runtime in the comparison.
        xnnpack: whether LiteRT may use the XNNPACK delegate in the comparison; None for what suits the file.
        batch_size: fixes the batch dimension; None keeps it as the model's inputs have it: resizable where they leave
            it open (LiteRT), or 1 (Larq Compute Engine).
        float_weights: how to store kernels that are float in the format (first and last layer, say): ``float32``,
            ``float16`` or ``int8`` with a scale for each output channel. Arithmetic stays float; the loss is in the
            agreement, and the promise allows for it.
        seed: of generated inputs.

    Returns:
        An :class:`ExportResult`.

    Raises:
        ModelTypeError: no legacy Keras model with a graph of layers.
        ExportError: the format does not take the model, the converter failed, or the file is below the promise.
        DataError: ``data`` does not fit the model; samples, tolerance or seed make no sense.
        OutputError: the file cannot be written; said before any work.
        MissingDependencyError: the format needs larq-compute-engine, which is not installed.
    """
    target = _as_path(path)
    check_writable(target)
    check_model(model)
    samples = whole_number("samples", samples, DataError)
    batch_size = None if batch_size is None else whole_number("batch_size", batch_size, ExportError)
    check_width(float_weights)
    check_aim(optimize)
    check_xnnpack(xnnpack)
    tolerance, threads, seed = check_tolerance(tolerance), check_threads(threads), seed_number(seed, DataError)
    if promise is not None and not isinstance(promise, Promise):
        raise ExportError(f"Expected promise to be a tflite_export.Promise or None. Received: {promise!r}.")
    facts = gather_facts(model)
    name, reason = choose_format(facts, optimize) if format == "auto" else (format, "asked for")
    chosen = get_format(name)
    chosen.check(facts)
    if chosen.capability.runtime == "lce":
        require_lce(f"for format {name!r}")
    # calibration may see more than the comparison
    arrays = None if data is None else as_inputs(model, data, max(samples, CALIBRATION_SAMPLES))
    built = chosen.build(Request(model, facts, arrays, batch_size))
    if batch_size is not None:
        set_batch_size(built.model, batch_size)
    narrowed = narrow_floats(built.model, float_weights, keep_small=chosen.keeps_small)
    notes = built.notes
    if (float_weights != "float32" or name == "float16") and (wide := wide_weights(built.model)):
        kinds = ", ".join(f"{size:,} B of {kind}" for kind, size in wide.items())
        notes += (f"weights that stay float32, for only those of convolutions and dense layers are narrowed: {kinds}",)
    check_support(built.model)
    if built.merge_clips:
        simplify(built.model)
    strip(built.model, drop_shapes=built.drop_shapes)
    content = serialize(built.model)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / "model.tflite"
        trial.write_bytes(content)
        agreement = verify(
            model, trial, data, samples=samples, tolerance=tolerance, threads=threads,
            xnnpack=xnnpack, seed=seed,
        )  # fmt: skip
    if strict:
        wanted = promise or (_NARROW[float_weights] if narrowed else chosen.promise(facts))
        if not wanted.kept(agreement):
            noise = rounding_noise(model, data, samples=samples, tolerance=tolerance, seed=seed)
            alone = depends_on_batch(model, data, tolerance=tolerance, seed=seed)
            _check_against_noise(chosen, wanted, agreement, noise, alone)
    report = size_report(content, model)
    write_atomically(target, content)
    return ExportResult(
        path=target, bytes=len(content), floor_bytes=report.floor_bytes, breakdown=report, format=name, reason=reason,
        agreement=agreement, runtime=chosen.capability.runtime, notes=notes,
    )  # fmt: skip


def _as_path(path: Any) -> Path:
    """A path that the system can look up."""
    try:
        target = Path(path)
        if not target.name:
            raise ValueError("no name of a file")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            target.lstat()
    except (TypeError, ValueError, OSError) as error:
        raise OutputError(f"Expected the path of a .tflite file to write. Received: {path!r} ({error}).") from error
    return target


def check_writable(path: Path) -> None:
    """Makes sure that a file can be put somewhere.

    Raises:
        OutputError: it cannot.
    """
    folder = path.parent
    problem = None
    if path.is_dir():
        problem = "a folder of that name"
    elif path.exists() and not path.is_file():
        problem = "a device or a pipe of that name"
    elif not folder.is_dir():
        problem = f"no folder {str(folder)!r}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"no right to write in {str(folder)!r}"
    if problem:
        raise OutputError(
            f"Expected a place where {path.name!r} can be written. Received: {problem}. "
            "Create the folder or choose another path."
        )


def gather_facts(model: Any) -> Facts:
    """What the formats need to know of a model."""
    every = named_layers(model)
    layers = {name: layer for name, layer in every.items() if quantized_weights(layer)}
    kernel_bits = {
        f"{name}.{weight}": weight_bits(layer, weight)
        for name, layer in layers.items()
        for weight in quantized_weights(layer)
        if weight_bits(layer, weight) < 32
    }
    narrow = all(bits <= 8 for bits in kernel_bits.values())
    kernels = coded_kernels(model) if narrow else []
    known = {(kernel.layer, kernel.weight) for kernel in kernels}
    unknown = [(name, weight) for name, _, weight in quantised_kernels(model)] if narrow else []
    own = own_nodes(model)
    levels = {name: input_levels(layer) for name, layer in layers.items()}
    return Facts(
        kernels=tuple(kernels),
        unknown=tuple(f"{layer}.{weight}" for layer, weight in unknown if (layer, weight) not in known),
        kernel_bits=kernel_bits,
        input_bits={name: input_bits(layer) if levels[name] else 32 for name, layer in layers.items()},
        junctions=tuple(name for name, layer in every.items() if _is_junction(layer, own)),
        open_inputs=tuple(n for n, t in zip(model.input_names, model.inputs, strict=True) if None in t.shape[1:]),
        sign_inputs=tuple(name for name, known in levels.items() if known is not None and known.signed),
    )


def _is_junction(layer: Any, own: set[int]) -> bool:
    before = [node for node in layer._inbound_nodes if id(node) in own]
    after = [node for node in layer._outbound_nodes if id(node) in own]
    return len(before) > 1 or len(after) > 1 or any(len(node.keras_inputs) > 1 for node in before)


def _check_against_noise(
    chosen: Format, promise: Promise, agreement: Agreement, noise: Agreement, batches: bool = False
) -> None:
    """A net that flips levels under mere rounding noise may do so in the file too; anything beyond that is an error."""
    relaxed = Promise(
        top1=max(min(promise.top1, _LEAST_TOP1), promise.top1 - 1.5 * (1 - noise.top1)),
        off_share=promise.off_share + 1.5 * noise.off_share,
        unexplained=max(
            promise.unexplained, min(_MOST_UNEXPLAINED, promise.unexplained + 1.5 * noise.unexplained)
        ),
    )  # fmt: skip
    # formats that lose precision promise no share; the others must not hide behind a net that flips everywhere
    counts = promise.off_share < 1 <= relaxed.off_share
    near = agreement.mean_error <= agreement.tolerance + _NOISE_ROOM * noise.mean_error
    if relaxed.kept(agreement) and (near or not counts):
        return
    single = (
        f" Its single numbers are off by {agreement.unexplained:.1%} of what a constant would be off by, expected at "
        f"most {relaxed.unexplained:.1%}."
        if agreement.unexplained > relaxed.unexplained
        else ""
    )
    raise ExportError(
        f"Expected format {chosen.name!r} to agree with Keras on at least {promise.top1:.1%} of first classes, with at "
        f"most {promise.off_share:.1%} of samples off (rounding noise alone: {noise.top1:.1%} and "
        f"{noise.off_share:.1%}, mean error {noise.mean_error:.3g}). Received: {agreement}, mean error "
        f"{agreement.mean_error:.3g}.{single} No file was written. "
        + (
            "The Keras model itself answers otherwise for a sample alone than among others, and a file cannot know "
            "these: replace the layer or quantiser that looks at the whole batch, or keep the file with strict=False."
            if batches
            else 'Compare on real inputs with data=..., use format="float32", or pass strict=False to keep the file '
            "anyway."
        )
    )
