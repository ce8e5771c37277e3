"""``tfqprune export``: a .tflite file that is proven to compute the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tfqprune.cli import names
from tfqprune.cli import options as opt
from tfqprune.cli.inputs import free_file, open_data, open_model, require_data, require_model, settings_of
from tfqprune.cli.session import Outcome, Session


def export(
    session: Session,
    model: opt.Model,
    output: opt.OutputFile,
    format: opt.ExportFormat = "auto",
    optimize: opt.Optimize = "size",
    float_weights: Annotated[
        str,
        names.choice(names.FLOAT_WEIGHTS, help="How kernels are stored that are float in the format."),
    ] = "float32",
    fix_batch: Annotated[
        int | None, typer.Option(min=1, help="Fix the batch dimension; else it stays resizable where it can.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples on which file and MODEL are compared.")] = 64,
    keep: Annotated[bool, typer.Option("--keep", help="Keep a file that agrees less than promised.")] = False,
    data: opt.OptionalData = None,
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
    overwrite: opt.Overwrite = False,
) -> Outcome:
    """Store MODEL as a .tflite file, and compare the two in the runtime that will run the file.

    Compared on generated inputs, or on test samples of --data; formats that calibrate look at the same.
    """
    require_model(model)
    require_data(data)
    settings = settings_of(output)
    for path in (output, settings):
        free_file(path, overwrite)
    loaded = open_model(session, model, trust)
    inputs = None
    if data is not None:
        inputs = open_data(
            session, data, loaded, seed=seed, data_dir=data_dir, limit=limit, resize=resize
        ).test.x  # fmt: skip
    import tflite_export as te
    from tfqprune.cli.quiet import standard_error_aside
    from tfqprune.report import tables, words

    with session.working("exporting and comparing"), standard_error_aside():  # the converter has its say
        result = te.export(
            loaded, output, format, optimize=optimize, data=inputs, samples=samples, strict=not keep,
            batch_size=fix_batch, float_weights=float_weights, seed=seed,
        )  # fmt: skip
    session.save_settings(settings)
    return Outcome(
        {
            "file": str(result.path),
            "format": result.format,
            "reason": result.reason,
            "runtime": result.runtime,
            "bytes": result.bytes,
            "floor_bytes": result.floor_bytes,
            "by_kind": result.breakdown.by_kind,
            "agreement": asdict(result.agreement),
            "notes": list(result.notes),
        },
        [
            tables.pairs_table(
                str(result.path),
                {
                    "format": f"{result.format} ({result.reason})",
                    "runtime": result.runtime,
                    "size": f"{words.size(result.bytes)}, {result.ratio:.2f} of the floor",
                    "agreement": str(result.agreement),
                    **{f"note {number}": note for number, note in enumerate(result.notes, start=1)},
                },
            )
        ],
    )
