"""What a report is filled with: rows of graphs, plans, trials and curves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import tensorflow as tf

import tfqprune as tq
from tfqprune.allocation.curves import SensitivityCurves
from tfqprune.channels import ChannelGraph
from tfqprune.costs import CostModel
from tfqprune.pipeline.environment import as_text
from tfqprune.pipeline.gathering import group_rows, layer_rows, node_rows, read_curves, read_trials
from tfqprune.report import CurveRow, NodeRow
from tfqprune.report.picture import lay_out

layers = tf.keras.layers


def _residual() -> tf.keras.Model:
    r"""
    image -> stem -> bn --> conv -> relu --> add -> pool -> head
                      \_____________________/
    """
    image = layers.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, padding="same", name="stem")(image))
    y = layers.ReLU(name="relu")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.Add(name="add")([x, y])
    return tf.keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))


def test_nodes_leave_out_what_channels_only_pass_through() -> None:
    rows = node_rows(ChannelGraph(_residual()))
    assert rows == (
        NodeRow("image", (), ("image",), "InputLayer"),
        NodeRow("stem", ("image",), ("stem",), "Conv2D"),
        NodeRow("conv", ("stem",), ("stem",), "Conv2D"),
        NodeRow("add", ("stem", "conv"), ("stem",), "Add"),
        NodeRow("head", ("add",), ("head",), "Dense"),
    )


def test_nested_and_shared_layers() -> None:
    inner_in = layers.Input((8, 8, 4))
    inner = tf.keras.Model(inner_in, layers.Conv2D(4, 3, padding="same", name="conv")(inner_in), name="block")
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="stem")(image)
    rows = node_rows(ChannelGraph(tf.keras.Model(image, inner(inner(x)))))
    assert [(row.name, row.inputs) for row in rows] == [
        ("image", ()),
        ("stem", ("image",)),
        ("block/conv", ("stem",)),
        ("block/conv (2)", ("block/conv",)),
    ]


def test_unknown_layers_say_why() -> None:
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="stem")(image)
    x = layers.Lambda(lambda t: tf.sort(t, axis=-1), name="sorting")(x)
    rows = node_rows(ChannelGraph(tf.keras.Model(image, layers.Conv2D(2, 1, name="head")(x))))
    why = {row.name: row.why for row in rows}
    assert why["sorting"] is not None
    assert "probing" in why["sorting"]
    assert why["stem"] is None


def test_concatenations_carry_several_groups() -> None:
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Concatenate(name="cat")([layers.Conv2D(4, 1, name="a")(image), layers.Conv2D(2, 1, name="b")(image)])
    rows = node_rows(ChannelGraph(tf.keras.Model(image, layers.Conv2D(2, 1, name="head")(x))))
    assert next(row for row in rows if row.name == "cat").groups == ("a", "b")


def test_big_networks_have_narrow_pictures() -> None:
    for make, most in ((tf.keras.applications.ResNet50, 80), (tf.keras.applications.MobileNetV2, 80)):
        rows = node_rows(ChannelGraph(make(weights=None, input_shape=(32, 32, 3))))
        columns, _ = lay_out(rows)
        assert len(rows) < most
        assert max(columns) == 1


def test_groups_and_layers_of_a_plan() -> None:
    model = _residual()
    graph = ChannelGraph(model)
    plan = tq.make_plan(model, 0.5, "latent_l1")
    rows = {row.name: row for row in group_rows(graph, {"half": plan})}
    assert (rows["stem"].units, rows["stem"].kept, rows["stem"].layers) == (4, {"half": 2}, ("stem", "conv"))
    assert rows["image"].frozen is not None
    excluded = {row.name: row.frozen for row in group_rows(graph, {}, {"stem"})}
    assert excluded["stem"] == "excluded by the user"
    sizes = {row.name: row.sizes for row in layer_rows(graph, CostModel(graph), "dense", {"half": plan})}
    # conv: 3*3*4*4 weights and 4 biases, and half of each; 4 bytes a float.
    assert sizes["conv"] == {"dense": 4 * (144 + 4), "half": 4 * (36 + 2)}


def test_trials_with_their_fronts(tmp_path: Path) -> None:
    def record(trial: str, value: float | None, memory: float, macs: float) -> dict[str, object]:
        return {
            "trial": trial, "status": "COMPLETED" if value else "FAILED", "value": value, "ratios": {"g": 0.5},
            "metrics": {"memory": memory, "macs": macs, "seconds": 2.0, "val_loss": 1.0},
            "message": None if value else "out of memory",
        }  # fmt: skip

    assert read_trials(tmp_path / "trials.json") == ()
    records = [
        record("00", 0.8, 10, 30),
        record("01", 0.9, 20, 20),
        record("02", None, 5, 5),
        record("03", 0.7, 15, 10),
    ]
    (tmp_path / "trials.json").write_text(json.dumps(records))
    rows = read_trials(tmp_path / "trials.json")
    # By memory 10, 15, 20: trial 4 is dearer and worse than trial 1. By MACs 10, 20, 30: trial 1 than trial 2.
    assert [row.front for row in rows] == [("memory",), ("macs", "memory"), (), ("macs",)]
    assert [row.score for row in rows] == [0.8, 0.9, None, 0.7]
    assert rows[0].costs == {"macs": 30, "memory": 10}
    assert (rows[2].feasible, rows[2].why, rows[2].seconds) == (False, "out of memory", 2.0)


def test_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "curves.json") == ((), None)
    curves = SensitivityCurves({}, 0.9, {"g": [0.25, 0.5]}, {"g": [0.8, math.nan]})
    curves.save(tmp_path / "curves.json")
    assert read_curves(tmp_path / "curves.json") == ((CurveRow("g", (0.25, 0.5), (0.8, None)),), 0.9)


def test_settings_as_text() -> None:
    settings = {"learning_rate": 1e-3, "data": [[600, 8, 8, 1], [270, 8]], "exclude": [], "limit": None, "seed": 0}
    assert as_text(settings) == {"learning rate": "0.001", "data": "600×8×8×1, 270×8", "seed": "0"}
