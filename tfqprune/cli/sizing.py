"""``tfqprune size``: where the bytes of a file go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tfqprune.cli import options as opt
from tfqprune.cli.inputs import open_model, require_model, require_tflite
from tfqprune.cli.session import Outcome, Session


def size(
    session: Session,
    file: opt.TfliteFile,
    model: Annotated[
        Path | None, typer.Option("--model", help="The Keras model it came from: for the floor, and layers by name.")
    ] = None,
    trust: opt.Trust = False,
) -> Outcome:
    """Count the bytes of FILE by kind and by layer, against the floor."""
    require_tflite(file)
    if model is not None:
        require_model(model)
    loaded = None if model is None else open_model(session, model, trust)
    import tflite_export as te
    from tfqprune.report import tables, words

    with session.working("counting"):
        found = te.size_report(file, loaded)
    total = f"{words.size(found.total)}, {found.ratio:.2f} of the floor of {words.size(found.floor_bytes)}"
    kinds = {kind: f"{count:,} B" for kind, count in found.by_kind.items()}
    layers = {layer: f"{count:,} B" for layer, count in found.by_layer.items() if count}
    return Outcome(
        {**asdict(found), "ratio": found.ratio, "by_layer": found.by_layer},
        [tables.pairs_table(f"{file}: {total}", kinds), tables.pairs_table("By layer", layers)],
    )
