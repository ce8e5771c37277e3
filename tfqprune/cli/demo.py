"""``tfqprune demo``: the whole line on real data, in a few minutes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tfqprune.cli.amounts import parse_budget
from tfqprune.cli.inputs import free_folder
from tfqprune.cli.session import Outcome, Session


def demo(
    session: Session,
    dataset: Annotated[
        str, typer.Option(help='"digits" (shipped with scikit-learn), or a name of TensorFlow Datasets.')
    ] = "digits",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results; by default a new one in runs/.")
    ] = None,
    memory: Annotated[str, typer.Option(help='Budget: a share ("0.7", "70 %") or a size ("20 KiB").')] = "0.7",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training.")] = 40,
    finetune_epochs: Annotated[int, typer.Option(min=0, help="Epochs of fine-tuning after a cut.")] = 15,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the Bayesian search.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 64,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images in each part of the data.")] = None,
    quantize_ends: Annotated[
        bool, typer.Option("--quantize-ends", help="Quantise the first convolution and the last dense layer, too.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of TensorFlow Datasets; else TFDS_DATA_DIR, else its own default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same plans on the same machine.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove an earlier run in the output folder.")] = False,
) -> Outcome:
    """Train a binary and a 2-bit network, prune, export and measure both, and write a report.

    Interrupted with Ctrl-C, the same command goes on where it stopped.
    """
    share = parse_budget([f"memory={memory}"]).as_dict()["memory"]
    if output is not None:
        free_folder(output, overwrite)
    session.load_tensorflow()
    from tfqprune.pipeline.demonstration import DemoSettings, demonstrate

    settings = DemoSettings(
        dataset=dataset,
        budget=share,
        epochs=epochs,
        finetune_epochs=finetune_epochs,
        trials=trials,
        batch_size=batch_size,
        quantize_ends=quantize_ends,
        limit=limit,
        seed=seed,
    )
    results = demonstrate(
        settings, output_dir=output, data_dir=data_dir, overwrite=overwrite, verbose=session.verbosity,
        begun=lambda folder: session.save_settings(folder / "settings.toml"),
    )  # fmt: skip
    folder = next(iter(results.values())).output_dir.parents[1]
    return Outcome(
        {
            "networks": {
                name: [asdict(variant.row) for variant in result.variants] for name, result in results.items()
            },
            "output": str(folder),
        }
    )
