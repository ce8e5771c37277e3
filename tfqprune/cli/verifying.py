"""``tfqprune verify``: does a file compute what the Keras model computes?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tfqprune.cli import options as opt
from tfqprune.cli.inputs import open_data, open_model, require_data, require_model, require_tflite
from tfqprune.cli.session import Outcome, Session


def verify(
    session: Session,
    model: opt.Model,
    file: opt.TfliteFile,
    at_least: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share with the same class first that is asked for; below: exit code 1."),
    ] = 0.95,
    samples: Annotated[int, typer.Option(min=1, help="At most so many samples.")] = 256,
    levels: Annotated[bool, typer.Option("--levels", help="Compare quantised activations by layer, too.")] = False,
    runtime: opt.Runtime = None,
    threads: opt.Threads = 1,
    xnnpack: opt.Xnnpack = None,
    data: opt.OptionalData = None,
    data_dir: opt.DataDir = None,
    limit: opt.Limit = None,
    resize: opt.Resize = False,
    seed: opt.Seed = 0,
    trust: opt.Trust = False,
) -> Outcome:
    """Compare FILE with the Keras MODEL that it came from, on generated inputs or test samples of --data.

    Single numbers have no class first: there the exit code is 1 where they are off by more than half of what always
    saying the same would be off by.
    """
    require_model(model)
    require_tflite(file)
    require_data(data)
    loaded = open_model(session, model, trust)
    inputs = None
    if data is not None:
        inputs = open_data(
            session, data, loaded, seed=seed, data_dir=data_dir, limit=limit, resize=resize
        ).test.x  # fmt: skip
    import tflite_export as te
    from tflite_export.formats import Promise
    from tfqprune.report import tables

    with session.working("comparing"):
        found = te.verify(
            loaded, file, inputs, samples=samples, runtime=runtime, threads=threads, xnnpack=xnnpack, seed=seed,
            levels=levels,
        )  # fmt: skip
    good = Promise(top1=at_least, off_share=1.0).kept(found)
    single = {}
    if found.unexplained:  # outputs without a first class
        single["single numbers"] = f"off by {found.unexplained:.2%} of what always saying the same would be off by"
    rows = {
        "same class first": f"{found.top1:.2%} of {found.samples} samples",
        **single,
        "off": f"{found.off_share:.2%} by more than {found.tolerance:g}, at most by {found.max_error:.3g}",
        "inputs": "generated" if found.generated else f"test samples of {data}",
        "runtime": f"{found.runtime}, {found.threads} thread(s), XNNPACK {'on' if found.xnnpack else 'off'}",
        **{f"levels of {entry.layer}": str(entry) for entry in found.levels},
        "verdict": f"{'agrees' if good else 'does NOT agree'} (asked for: {at_least:.0%} the same class)",
    }
    return Outcome(
        {"file": str(file), "agrees": good, **asdict(found)}, [tables.pairs_table(str(file), rows)], 0 if good else 1
    )
