"""The picture of a network: where nodes and tensors lie, and what is said beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.examples import NETWORK
from tfqprune.report import GroupRow, NodeRow
from tfqprune.report.picture import Lane, draw_network, lay_out, letters


def _nodes(text: str) -> tuple[NodeRow, ...]:
    """ "a; b a; c a b" -> nodes a, b (reads a), c (reads a and b)."""
    return tuple(NodeRow(name, tuple(inputs)) for name, *inputs in (part.split() for part in text.split(";")))


def test_a_chain_is_one_column() -> None:
    columns, lanes = lay_out(_nodes("a; b a; c b"))
    assert columns == [0, 0, 0]
    assert lanes == {"a": Lane(0, 0, (1,)), "b": Lane(0, 1, (2,))}


def test_a_residual_block_returns_to_its_column() -> None:
    r"""
    stem  *        0
          |\
    conv  | *      1   the stem is still read, so the branch moves aside
          |/
    add   *        0
    """
    columns, lanes = lay_out(_nodes("stem; conv stem; add conv stem; out add"))
    assert columns == [0, 1, 0, 0]
    assert lanes["stem"] == Lane(0, 0, (1, 2))


def test_columns_are_used_again() -> None:
    blocks = "; ".join(f"c{n} a{n - 1}; a{n} c{n} a{n - 1}" for n in range(1, 30))
    columns, _ = lay_out(_nodes(f"a0; {blocks}"))
    assert max(columns) == 1  # thirty blocks, two columns: deep networks grow long, not wide


def test_dense_blocks_stay_narrow() -> None:
    columns, _ = lay_out(_nodes("x0; c1 x0; x1 x0 c1; c2 x1; x2 x1 c2; c3 x2; x3 x2 c3"))
    assert columns == [0, 1, 0, 1, 0, 1, 0]


def test_two_inputs_and_two_outputs() -> None:
    columns, lanes = lay_out(_nodes("i; j; both i j; one both; two both"))
    assert columns == [0, 1, 0, 1, 0]
    assert "two" not in lanes


def _crossings(text: str) -> list[str]:
    """Nodes that lie on a tensor which they neither make nor read."""
    nodes = _nodes(text)
    columns, lanes = lay_out(nodes)
    return [
        f"{node.name} on {name}"
        for row, node in enumerate(nodes)
        for name, lane in lanes.items()
        if lane.start < row < lane.ends[-1] and columns[row] == lane.column and name not in node.inputs
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a; b a; c a; d a; e b c d a",
        "a; b a; c b; d a c; e b d; f a e",
        "a; b; c; d a b c; e a; f b; g c; h d e f g",
    ],
)
def test_no_tensor_runs_through_a_stranger(text: str) -> None:
    assert _crossings(text) == []


@pytest.mark.parametrize("text", ["a b; b", "a; a", "a; b c"])
def test_out_of_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nodes in order"):
        lay_out(_nodes(text))


def test_letters_for_what_is_tied() -> None:
    groups = [GroupRow("alone", 4, {}, ("alone",)), GroupRow("frozen", 4, {}, ("x", "y"), "why")]
    groups += [GroupRow(f"g{n}", 4, {}, ("x", "y")) for n in range(28)]
    given = letters(groups)
    assert (given["g0"], given["g25"], given["g26"], given["g27"]) == ("A", "Z", "A2", "B2")
    assert len(given) == 28


def _texts(network=NETWORK) -> list[str]:  # type: ignore[no-untyped-def]
    plot = draw_network(network)
    assert plot is not None
    return [text.get_text() for text in plot.figure.axes[0].texts if text.get_text()]


def test_what_stands_beside_the_nodes() -> None:
    assert _texts() == [
        "input", "3", "frozen: model input 'input'",
        "conv1", "16 → 8", "A",  # kept by the best variant, the Bayesian
        "conv2", "16 → 8", "A",
        "add", "16 → 8", "A",
        "dense", "10", "frozen: model output <script>",
    ]  # fmt: skip


def test_the_reason_of_a_frozen_group_stands_once() -> None:
    groups = (GroupRow("g", 4, {}, ("a", "b"), "because"),)
    nodes = (NodeRow("a", (), ("g",)), NodeRow("b", ("a",), ("g",)))
    assert _texts(replace(NETWORK, groups=groups, nodes=nodes)).count("frozen: because") == 1


def test_channels_of_several_groups() -> None:
    groups = tuple(GroupRow(f"g{n}", n + 1, {}, (f"c{n}",)) for n in range(3))
    nodes = (
        *(NodeRow(f"c{n}", (), (f"g{n}",)) for n in range(3)),
        NodeRow("two", ("c0", "c1"), ("g0", "g1")),
        NodeRow("three", ("c0", "c1", "c2"), ("g0", "g1", "g2")),
    )
    assert _texts(replace(NETWORK, groups=groups, nodes=nodes))[-4:] == ["two", "1 + 2", "three", "3 groups"]


def test_no_nodes_no_picture() -> None:
    assert draw_network(replace(NETWORK, nodes=())) is None
