"""Plans: how ratios become units, how plans travel, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import tfqprune as tq
from tfqprune.channels import ChannelGroup
from tfqprune.errors import OutputError, PlanError
from tfqprune.plan import alignment, plan_from_ratios, removable

K = tf.keras.layers


def network(first: int = 16) -> tf.keras.Model:
    """input -> conv a(first) -> conv b(10) -+-> add -> pool -> dense head(3)
    conv c(10) --------+
    """
    inputs = K.Input((8, 8, 3))
    x = K.Conv2D(first, 3, name="a")(inputs)
    x = K.Add()([K.Conv2D(10, 3, name="b")(x), K.Conv2D(10, 3, name="c")(x)])
    return tf.keras.Model(inputs, K.Dense(3, name="head")(K.GlobalAveragePooling2D()(x)))


def ascending(graph: tq.ChannelGraph) -> dict[str, np.ndarray]:
    """Scores that rank units by their number."""
    return {group.name: np.arange(group.size) for group in graph.groups}


def plan_of(model: tf.keras.Model, ratios, **kwargs) -> tq.PruningPlan:
    graph = tq.ChannelGraph(model)
    return plan_from_ratios(graph, ratios, ascending(graph), **kwargs)


def test_lowest_scores_go() -> None:
    graph = tq.ChannelGraph(network())
    scores = {group.name: np.zeros(group.size) for group in graph.groups}
    scores["a"] = np.array([5, 1, 4, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 2])
    plan = plan_from_ratios(graph, {"a": 0.25}, scores)
    assert plan.removed == {"a": (1, 2, 3, 15)}
    assert plan.kept["a"] == (0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
    assert plan.ratios["a"] == 0.25
    assert plan.ratios["head"] == 0.0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores for group 'b'.* scores for a"),
        ({"b": np.zeros(9)}, r"10 scores for group 'b'.*shape \(9,\)"),
        ({"b": np.full(10, np.nan)}, "numbers as scores for group 'b'.*NaN among them"),
        ({"b": list("abcdefghij")}, "numbers as scores for group 'b'.*type <U1"),
    ],
)
def test_bad_scores(scores, message: str) -> None:
    graph = tq.ChannelGraph(network())
    with pytest.raises(PlanError, match=message):
        plan_from_ratios(graph, 0.3, {"a": np.zeros(16), **scores})


def test_never_more_than_asked() -> None:
    """0.3 of 16 is 4.8: 4 go. 0.3 of 10 is 3, though 0.3 * 10 is 2.9999999999999996 or so in floats."""
    plan = plan_of(network(), 0.3)
    assert {name: len(slots) for name, slots in plan.removed.items()} == {"a": 4, "b": 3}


def test_by_member_layer_name() -> None:
    """c is tied to b, so its name means b's group."""
    assert plan_of(network(), {"c": 0.5}).removed == {"b": (0, 1, 2, 3, 4)}


def test_align_keeps_multiples() -> None:
    """Of 16, half: 8 stay. Of 10, half: 5, up to 8. Aligned to 16: a stays whole (8 -> 16), b is smaller than 16."""
    assert {name: len(kept) for name, kept in plan_of(network(), 0.5, align=8).kept.items() if name in "ab"} == {
        "a": 8,
        "b": 8,
    }
    assert plan_of(network(), 0.5, align=16).removed == {}


def test_align_counts_channels_not_units() -> None:
    """4 groups of 4 filters: a unit is 4 channels, so multiples of 8 channels are multiples of 2 units."""
    inputs = K.Input((8, 8, 3))
    x = K.Conv2D(24, 3, groups=4, name="grouped")(K.Conv2D(16, 1, name="wide")(inputs))
    model = tf.keras.Model(inputs, K.Conv2D(2, 1)(x))
    graph = tq.ChannelGraph(model)
    assert (graph["grouped"].size, graph["grouped"].width) == (6, {"grouped": 4})
    assert alignment(graph["grouped"], 8) == 2
    plan = plan_of(model, {"grouped": 0.5}, align=8)
    assert len(plan.kept["grouped"]) == 4  # 3 units would be 12 channels
    assert tq.prune(model, plan).get_layer("grouped").filters == 16


def group_of(size: int, width: int) -> ChannelGroup:
    return ChannelGroup("g", size, ("g",), None, 0, {"g": width})


@given(st.integers(2, 300), st.floats(0, 0.999), st.integers(1, 40), st.integers(1, 6))
def test_removable_is_lawful(size: int, ratio: float, align: int, width: int) -> None:
    count = removable(group_of(size, width), ratio, align)
    assert 0 <= count <= ratio * size + 1e-6
    assert count < size
    if count:
        assert (size - count) * width % align == 0


def test_saved_and_loaded(tmp_path) -> None:
    plan = plan_of(network(), 0.5, criterion="latent_l1", notes={"seed": np.int64(3)})
    again = tq.PruningPlan.load(plan.save(tmp_path / "plan.json"))
    assert again == tq.PruningPlan.load(again.save(tmp_path / "again.json"))
    assert (again.removed, again.criterion, again.notes) == (plan.removed, "latent_l1", {"seed": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "plan.json"]


def test_refused_on_another_model_with_the_first_difference() -> None:
    plan = plan_of(network(), 0.5)
    with pytest.raises(
        PlanError, match=r"layer 'a' was Conv2D with weights \(3, 3, 3, 16\).* and is .*\(3, 3, 3, 12\)"
    ):
        tq.prune(network(12), plan)
    with pytest.raises(PlanError, match="another model"):
        tq.mask(network(12), plan)
    with pytest.raises(PlanError, match="another model"):
        tq.cost(network(12), plan)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda removed: removed.update(a=[16]), "slots from 0 to 15"),
        (lambda removed: removed.update(a=[-1]), "slots from 0 to 15"),
        (lambda removed: removed.update(a=[1, 1]), "at most once"),
        (lambda removed: removed.update(a=["x"]), "whole slot numbers"),
        (lambda removed: removed.update(a=[1.5]), "whole slot numbers"),
        (lambda removed: removed.update(a=[True]), "whole slot numbers"),
        (lambda removed: removed.update(a=list(range(16))), "all 16 units"),
        (lambda removed: removed.update(head=[0]), "frozen: model output 'head'"),
        (lambda removed: removed.update(aa=[0]), "Did you mean 'a'"),
    ],
)
def test_plans_edited_into_nonsense(edit, message: str, tmp_path) -> None:
    model = network()
    path = plan_of(model, 0.25).save(tmp_path / "plan.json")
    data = json.loads(path.read_text())
    edit(data["removed"])
    path.write_text(json.dumps(data))
    with pytest.raises(PlanError, match=message):
        tq.prune(model, tq.PruningPlan.load(path))


def test_a_plan_with_an_unknown_group_is_shown() -> None:
    plan = plan_of(network(), 0.25)
    assert "  aa: 1 go of an unknown group" in str(replace(plan, removed={**plan.removed, "aa": (0,)}))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "{'a'", '{"tfqprune_plan": 99}', '{"tfqprune_plan": 1, "removed": 3}', "null", "[" * 100_000,
        '{"tfqprune_plan": 1, "removed": {}, "sizes": {}, "fingerprint": {"a": 3}, "criterion": "", "notes": {}}',
        '{"tfqprune_plan": 1, "removed": {}, "sizes": {}, "fingerprint": {"a": ["", [7]]}, "criterion": "", '
        '"notes": {}}',
    ],
)  # fmt: skip
def test_files_that_are_no_plan(text: str, tmp_path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match="Expected a plan"):
        tq.PruningPlan.load(tmp_path / "plan.json")


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None, True])
def test_bad_ratios(ratio) -> None:
    with pytest.raises(PlanError, match="at least 0 and below 1"):
        plan_of(network(), ratio)
    with pytest.raises(PlanError, match=r"ratios\['a'\]"):
        plan_of(network(), {"a": ratio})


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(PlanError, match="Did you mean 'head'"):
        plan_of(network(), {"haed": 0.5})


def test_frozen_name_says_why() -> None:
    with pytest.raises(PlanError, match="'head' cannot be pruned: model output 'head'"):
        plan_of(network(), {"head": 0.5})


def test_two_ratios_for_tied_layers() -> None:
    with pytest.raises(PlanError, match="tied together"):
        plan_of(network(), {"b": 0.5, "c": 0.25})


@pytest.mark.parametrize("align", [0, -8, 1.5, True, "8"])
def test_bad_alignment(align) -> None:
    with pytest.raises(PlanError, match="align"):
        plan_of(network(), 0.5, align=align)


def test_report_counts_codes_that_change() -> None:
    """Kernel 0.2, 0.4, 2.0 at 2 bits is 1/3, 1/3, 1; without the third, 0.4 becomes 1 (derived in
    layers/test_quantised.py): one of the two remaining codes changes."""
    inputs = K.Input((1,))
    hidden = lq.layers.QuantDense(
        3, kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights"), use_bias=False, name="hidden"
    )
    model = tf.keras.Model(inputs, K.Dense(1, name="out")(hidden(inputs)))
    hidden.set_weights([np.array([[0.2, 0.4, 2.0]])])
    graph = tq.ChannelGraph(model)
    plan = plan_from_ratios(graph, {"hidden": 0.34}, {group.name: -np.arange(group.size) for group in graph.groups})
    report = plan.report(model)
    assert [(entry.layer, entry.changed, entry.remaining) for entry in report.codes] == [("hidden", 1, 2)]
    assert "1 of 2 that stay" in str(report)
    assert "out: left whole: model output 'out'" in str(report)


def test_a_plan_of_a_model_with_other_ties_is_refused() -> None:
    """The same layers, of the same shapes; here b and c are added, there each of them is a group."""
    inputs = K.Input((8, 8, 3))
    x = K.Conv2D(16, 3, name="a")(inputs)
    x = K.Maximum(name="joined")([K.Conv2D(10, 3, name="b")(x), K.Conv2D(10, 3, name="c")(x)])
    tied = tf.keras.Model(inputs, K.Dense(3, name="head")(K.GlobalAveragePooling2D()(x)))
    x = K.Conv2D(16, 3, name="a")(inputs)
    parts = [K.GlobalAveragePooling2D()(K.Conv2D(10, 3, name=name)(x)) for name in "bc"]
    apart = tf.keras.Model(inputs, [K.Dense(3, name="head")(parts[0]), parts[1]])
    plan = plan_of(apart, {"b": 0.5})
    for use in (tq.prune, tq.mask, tq.cost):
        with pytest.raises(PlanError, match="The plan was made for another model"):
            use(tied, plan)


@pytest.mark.parametrize("plan", [None, "plan.json", 3])
def test_what_is_no_plan_is_said(plan: object) -> None:
    for use in (tq.prune, tq.mask, tq.cost)[: 2 if plan is None else 3]:
        with pytest.raises(PlanError, match="Expected a PruningPlan"):
            use(network(), plan)


def test_damaged_sizes_are_refused() -> None:
    model = network()
    plan = plan_of(model, 0.3)
    with pytest.raises(PlanError, match="group 'a' had 0 units and has 16"):
        tq.prune(model, dataclasses.replace(plan, sizes={**plan.sizes, "a": 0}))


def test_places_without_a_plan(tmp_path) -> None:
    for nowhere in (tmp_path / "none.json", tmp_path):
        with pytest.raises(PlanError, match="which cannot be read"):
            tq.PruningPlan.load(nowhere)
        with pytest.raises(OutputError, match="Expected a place where a plan can be written"):
            plan_of(network(), 0.5).save(nowhere / "plan.json" if nowhere.suffix else nowhere)
    assert not list(tmp_path.iterdir())


def test_cost_of_what_a_plan_removes() -> None:
    model = network()
    plan = plan_of(model, 0.5)
    assert tq.cost(model, plan.removed) == tq.cost(model, plan)
