"""``tfqprune summary``: what a model costs, layer by layer, and what could be pruned."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tfqprune.channels import ChannelGraph
    from tfqprune.costs import Cost


def summary(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .keras or .h5 file, or a SavedModel folder.")],
    trust: Annotated[
        bool, typer.Option("--trust", help="Load Lambda layers and unknown modules: runs code from the file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show parameters, MACs, BOPs and memory of MODEL, and its channel groups."""
    from tfqprune.cli.quiet import load_tensorflow
    from tfqprune.errors import ModelLoadError

    if not model.exists():  # before TensorFlow is loaded
        raise ModelLoadError(f"Expected a Keras model. Received: '{model}', which does not exist.")
    load_tensorflow()
    from tfqprune.channels import ChannelGraph
    from tfqprune.costs import cost
    from tfqprune.loading import load_model

    loaded = load_model(model, trust=trust)
    total, graph = cost(loaded), ChannelGraph(loaded)
    if as_json:
        typer.echo(json.dumps({"model": loaded.name, "cost": asdict(total), "groups": _groups(graph)}, indent=2))
    else:
        _print(loaded.name, total, graph)


def _groups(graph: ChannelGraph) -> list[dict[str, object]]:
    return [
        {"name": group.name, "units": group.size, "layers": list(group.layers), "frozen": group.frozen}
        for group in graph.groups
    ]


def _print(name: str, total: Cost, graph: ChannelGraph) -> None:
    from rich.console import Console

    from tfqprune.report import tables

    console = Console()
    console.print(tables.cost_table(name, [asdict(layer) for layer in total.layers], total.as_dict()))
    console.print(tables.group_table(_groups(graph)))
