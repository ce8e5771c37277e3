"""``tfqprune summary``: what a model costs, layer by layer, and what could be pruned."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tfqprune.cli import options as opt
from tfqprune.cli.inputs import open_model, require_model
from tfqprune.cli.session import Outcome, Session

if TYPE_CHECKING:
    from tfqprune.channels import ChannelGraph


def summary(session: Session, model: opt.Model, trust: opt.Trust = False) -> Outcome:
    """Show parameters, MACs, BOPs and memory of MODEL, and its channel groups."""
    require_model(model)
    loaded = open_model(session, model, trust)
    from tfqprune.channels import ChannelGraph
    from tfqprune.costs import cost
    from tfqprune.dead import dead_counts, dead_hint
    from tfqprune.report import tables

    with session.working("tracing channels"):
        total, graph = cost(loaded), ChannelGraph(loaded)
    groups, hint = _groups(graph, dead_counts(graph)), dead_hint(graph)
    return Outcome(
        {"model": loaded.name, "cost": asdict(total), "groups": groups},
        [
            tables.cost_table(loaded.name, [asdict(layer) for layer in total.layers], total.as_dict()),
            tables.group_table(groups),
            *([hint] if hint else []),
        ],
    )


def _groups(graph: ChannelGraph, dead: dict[str, int]) -> list[dict[str, object]]:
    return [
        {
            "name": group.name,
            "units": group.size,
            "dead": dead.get(group.name, 0),
            "layers": list(group.layers),
            "frozen": group.frozen,
        }
        for group in graph.groups
    ]
