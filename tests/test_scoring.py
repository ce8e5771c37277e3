"""Scores and plans as a user asks for them: names, functions, "auto", and everything that can be wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import hypothesis
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tfqprune as tq
from tfqprune.criteria import Criterion, best_criterion, get_criterion, precision_kind
from tfqprune.criteria.base import _CRITERIA
from tfqprune.errors import CriterionError, DataError, PlanError
from tfqprune.scoring import score_graph
from tfqprune.testing.criteria import network, samples_for

K = tf.keras.layers


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten afterwards."""
    kept = dict(_CRITERIA)
    yield
    _CRITERIA.clear()
    _CRITERIA.update(kept)


def hidden(kernel: np.ndarray, quantizer: str | None = None) -> tf.keras.Model:
    """input -> dense "hidden" with this kernel -> dense"""
    inputs = K.Input((kernel.shape[0],))
    layer = lq.layers.QuantDense(kernel.shape[1], kernel_quantizer=quantizer, use_bias=False, name="hidden")
    model = tf.keras.Model(inputs, K.Dense(1)(layer(inputs)))
    layer.set_weights([kernel.astype("float32")])
    return model


def named(function: Callable, name: str) -> Callable:
    """The function under a name of its own."""
    function.__name__ = name
    return function


class TestAuto:
    @pytest.mark.parametrize(
        ("name", "kind", "without", "with_data"),
        [
            ("float", "float", "latent_l1", "reconstruction"),
            ("binary_residual", "binary", "latent_l1", "reconstruction + mean_activation"),
            ("dorefa_residual", "k-bit", "deployed_l2", "reconstruction"),
        ],
    )
    def test_chooses_by_precision_and_data(self, name: str, kind: str, without: str, with_data: str) -> None:
        graph = tq.ChannelGraph(network(name))
        assert precision_kind(graph) == kind
        assert best_criterion(graph, with_data=False) == without
        assert get_criterion(best_criterion(graph, with_data=True)).name == with_data
        x = samples_for(network(name))[0][0]
        assert tq.make_plan(network(name), 0.25).criterion == without
        assert tq.make_plan(network(name), 0.25, data=x).criterion == with_data

    def test_most_weights_decide(self) -> None:
        # stem 1 x 8 float weights; the quantised layer 8 x 8: binary
        inputs = K.Input((1,))
        x = lq.layers.QuantDense(8, kernel_quantizer="ste_sign")(K.Dense(8)(inputs))
        assert precision_kind(tq.ChannelGraph(tf.keras.Model(inputs, K.Dense(1)(x)))) == "binary"

    def test_nothing_to_prune(self) -> None:
        inputs = K.Input((3,))
        model = tf.keras.Model(inputs, K.Dense(2, name="only")(inputs))
        assert {name: values.tolist() for name, values in tq.score(model).items()} == {
            inputs.node.layer.name: [0, 0, 0],
            "only": [0, 0],
        }


class TestOwnCriteria:
    def test_function(self) -> None:
        scores = tq.score(hidden(np.array([[1.0, -2, 0.5], [3, 1, 0]])), lambda filters: filters.max(axis=1))
        np.testing.assert_allclose(scores["hidden"], np.array([3, 1, 0.5]) / 1.5)

    def test_function_sees_deployed_or_latent_weights(self) -> None:
        seen: list[np.ndarray] = []

        def look(filters: np.ndarray) -> np.ndarray:
            seen.append(filters)
            return filters[:, 0]

        model = hidden(np.array([[0.5, -2.0]]), "ste_sign")
        tq.score(model, look)
        tq.score(model, look, reads="latent")
        np.testing.assert_array_equal(seen[0], [[1], [-1]])
        np.testing.assert_array_equal(seen[1], [[0.5], [-2]])

    @pytest.mark.usefixtures("registry")
    def test_register_function_and_class(self) -> None:
        tq.register_criterion("own_first", lambda filters: filters[:, 0])

        @tq.register_criterion("own_constant")
        class Constant(Criterion):
            """All alike."""

            def score_groups(self, graph, groups, samples):
                return {group.name: np.full(group.size, 7) for group in groups}

        assert {"own_first", "own_constant"} <= set(tq.criterion_names())
        model = hidden(np.array([[1.0, 3.0]]))
        assert tq.make_plan(model, 0.5, "own_first").removed == {"hidden": (0,)}
        assert tq.make_plan(model, 0.5, "own_first").criterion == "own_first"
        np.testing.assert_array_equal(tq.score(model, "own_constant")["hidden"], [7, 7])
        np.testing.assert_array_equal(tq.score(model, Constant)["hidden"], [7, 7])
        with pytest.raises(CriterionError, match="registered already"):
            tq.register_criterion("own_first", lambda filters: filters[:, 0])

    @pytest.mark.parametrize("name", ["", "auto", 3])
    def test_names_that_are_none(self, name: object) -> None:
        with pytest.raises(CriterionError, match="Expected a name"):
            tq.register_criterion(name, lambda filters: filters[:, 0])

    def test_neither_class_nor_function(self) -> None:
        with pytest.raises(CriterionError, match="Expected a subclass of Criterion or a function"):
            tq.register_criterion("own_thing", 5)

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (np.zeros(3), r"'answer'.* return 2 real numbers for layer 'hidden' of group 'hidden'.*shape \(3,\)"),
            (np.zeros((2, 1)), r"shape \(2, 1\)"),
            (None, r"Received: None \(of type NoneType\)"),
            ([[1.0], [1.0, 2.0]], r"layer 'hidden'.*Received: \[\[1.0\], \[1.0, 2.0\]\] \(of type list\)"),
            ([1.0, None], r"Received: \[1.0, None\] \(of type list\)"),
            (["1", "2"], r"shape \(2,\) and type <U1"),
            (np.array([1, 2 + 1j]), "type complex128"),
            (np.array([1, np.nan]), "finite scores.*nan for unit 1"),
            (np.array([np.inf, 0]), "inf for unit 0"),
        ],
    )
    def test_nonsense_is_named(self, answer: object, message: str) -> None:
        with pytest.raises(CriterionError, match=message):
            tq.score(hidden(np.array([[1.0, 3.0]])), named(lambda filters: answer, "answer"))

    # Scores of a layer are divided by their mean.
    @pytest.mark.parametrize(
        ("numbers", "expected"),
        [
            ([1, 2], [2 / 3, 4 / 3]),
            (np.array([1, 2], np.int8), [2 / 3, 4 / 3]),
            (tf.constant([1, 2], tf.bfloat16), [2 / 3, 4 / 3]),
            ([True, False], [2, 0]),
        ],
    )
    def test_whatever_holds_numbers_is_taken(self, numbers: object, expected: list[float]) -> None:
        scores = tq.score(hidden(np.array([[1.0, 3.0]])), lambda filters: numbers)["hidden"]
        assert scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected)

    @pytest.mark.parametrize("combined", [False, True])
    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (None, r"'Answer' to return a mapping.*Received: None \(of type NoneType\)"),
            ([0.0, 1.0], r"a mapping.*Received: \[0.0, 1.0\] \(of type list\)"),
            ({}, "'Answer' to return a mapping.*Received: none for group 'hidden'"),
            ({"hidden": [[1], [1, 2]]}, r"'Answer'.*group 'hidden'.*Received: \[\[1\], \[1, 2\]\] \(of type list\)"),
            ({"hidden": np.array([1j, 2])}, "2 real numbers for group 'hidden'.*type complex128"),
            ({"hidden": [np.nan, 1]}, "finite scores for group 'hidden'.*nan for unit 0"),
        ],
    )
    def test_nonsense_of_a_class_is_named(self, answer: object, message: str, combined: bool) -> None:
        class Answer(Criterion):
            def score_groups(self, graph, groups, samples):
                return answer

        criterion = {Answer(): 1, "random": 1} if combined else Answer()
        with pytest.raises(CriterionError, match=message):
            tq.score(hidden(np.array([[1.0, 3.0]])), criterion)


class TestBadRequests:
    def test_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(CriterionError, match=r"one of auto, .*taylor.* Received: 'tailor'. Did you mean 'taylor'"):
            tq.score(network("float"), "tailor")

    @pytest.mark.parametrize("criterion", [None, 3, int])
    def test_no_criterion(self, criterion: object) -> None:
        with pytest.raises(CriterionError, match="Expected a criterion"):
            tq.score(network("float"), criterion)

    def test_unknown_option(self) -> None:
        with pytest.raises(CriterionError, match=r"'random' cannot be made with \{'sed': 1\}"):
            tq.score(network("float"), "random", sed=1)

    def test_options_of_a_criterion_that_is_made(self) -> None:
        with pytest.raises(CriterionError, match="give them where it is made"):
            tq.score(network("float"), get_criterion("random"), seed=1)

    @pytest.mark.parametrize("name", ["taylor", "reconstruction", "apoz"])
    def test_needs_data(self, name: str) -> None:
        with pytest.raises(CriterionError, match=f"{name!r} needs data"):
            tq.score(network("float"), name)

    def test_mode_of_a_call_may_stand_without_its_name(self) -> None:
        """Criteria look at the model in inference mode, whatever the model asks its layers for."""
        x, samples = K.Input((3,)), np.array([[1.0, 2, 3], [4, 5, 7]], "float32")
        first, last = K.Dense(4), K.Dense(1)
        outputs = [last(K.BatchNormalization()(first(x), *mode)) for mode in ((), (False,), (True,))]
        plain, *others = [tq.score(tf.keras.Model(x, y), "mean_activation", samples) for y in outputs]
        for scores in others:
            np.testing.assert_array_equal(np.concatenate([*scores.values()]), np.concatenate([*plain.values()]))

    def test_nan_in_weights_names_the_layer(self) -> None:
        model = hidden(np.array([[1.0, np.nan]]))
        for criterion in ("latent_l1", "random"):
            with pytest.raises(CriterionError, match=r"1 of 2 values that are NaN or infinite.*layer 'hidden'"):
                tq.score(model, criterion)

    def test_nan_in_activations_names_the_layer(self) -> None:
        inputs = K.Input((2,))
        x = K.Dense(2, use_bias=False, name="hidden")(inputs)
        x = K.Activation("exponential", name="exponential")(x)
        model = tf.keras.Model(inputs, K.Dense(1)(x))
        model.get_layer("hidden").set_weights([np.eye(2)])
        x = np.array([[1.0, 1000.0], [2, 2]])
        for criterion in ("taylor", "reconstruction", "apoz"):
            with pytest.raises(
                DataError, match=r"1 of 4 values that are NaN or infinite in the output of.*'exponential'"
            ):
                tq.score(model, criterion, (x, np.zeros((2, 1))))

    def test_labels_that_do_not_fit(self) -> None:
        # A fresh model: one that another test compiled would use its own loss.
        model = tf.keras.models.clone_model(network("float"))
        x = samples_for(model)[0][0]
        with pytest.raises(DataError, match="from 0 to 9, for 4 classes"):
            tq.score(model, "taylor", (x, np.arange(len(x)) % 10))
        with pytest.raises(DataError, match=r"labels of shape .*do not go together"):
            tq.score(model, "taylor", (x, np.zeros((len(x), 3))))

    def test_labels_that_do_not_fit_the_compiled_loss(self) -> None:
        model = tf.keras.models.clone_model(network("float"))
        model.compile("sgd", "sparse_categorical_crossentropy")
        x = samples_for(model)[0][0]
        with pytest.raises(DataError, match=r"labels of shape \(24, 3\) and output 'last' of shape \(24, 4\)"):
            tq.score(model, "taylor", (x, np.zeros((len(x), 3))))

    def test_ratios_are_looked_at_before_scoring(self) -> None:
        def never(filters: np.ndarray) -> np.ndarray:
            raise AssertionError("scored")

        for ratios in (1.0, -0.1, {"firts": 0.5}):
            with pytest.raises(PlanError):
                tq.make_plan(network("float"), ratios, never)
        with pytest.raises(PlanError, match="align"):
            tq.make_plan(network("float"), 0.5, never, align=0)


class TestPlan:
    def test_lowest_go(self) -> None:
        model = hidden(np.array([[5.0, 1, 3, 2]]))
        assert tq.make_plan(model, 0.5, "latent_l1").removed == {"hidden": (1, 3)}
        assert tq.make_plan(model, {"hidden": 0.25}, "latent_l1").removed == {"hidden": (1,)}
        assert tq.make_plan(model, 0.75, "latent_l1", align=2).removed == {"hidden": (1, 3)}

    def test_without_labels_the_models_own_classes_stand_in(self) -> None:
        (x,), _ = samples_for(network("float"))
        own = network("float").predict(x, verbose=0).argmax(-1)
        with_labels = tq.score(network("float"), "taylor", (x, own))
        without = tq.score(network("float"), "taylor", x)
        np.testing.assert_allclose(with_labels["first"], without["first"])

    def test_samples_bound_the_work(self) -> None:
        x = np.array([[1.0, 1], [1, 1], [5, 9]])
        model = hidden(np.eye(2))
        dataset = tf.data.Dataset.from_tensor_slices(x.astype("float32")).batch(1)
        few = tq.score(model, "mean_activation", dataset, samples=2)["hidden"]
        np.testing.assert_allclose(few, [1, 1])
        assert tq.score(model, "mean_activation", dataset)["hidden"][1] > 1

    def test_existing_graph(self) -> None:
        graph = tq.ChannelGraph(network("grouped"))
        scores = score_graph(graph, "latent_l1")
        for name, values in tq.score(network("grouped"), "latent_l1").items():
            np.testing.assert_array_equal(values, scores[name])


kernels = arrays.arrays(
    np.float64, (4, 5), elements=st.floats(0.0625, 2, width=32).flatmap(lambda size: st.sampled_from([size, -size]))
)
WEIGHT_BASED = ["latent_l1", "latent_l2", "deployed_l1", "deployed_l2", "geometric_median"]


@hypothesis.given(
    kernels, st.permutations(range(5)), st.sampled_from(WEIGHT_BASED), st.sampled_from([None, "ste_sign"])
)
@hypothesis.settings(max_examples=25)
def test_scores_follow_their_units(kernel: np.ndarray, order: list[int], name: str, quantizer: str | None) -> None:
    whole = tq.score(hidden(kernel, quantizer), name)["hidden"]
    moved = tq.score(hidden(kernel[:, order], quantizer), name)["hidden"]
    np.testing.assert_allclose(moved, whole[order], rtol=1e-5, atol=1e-9)


@hypothesis.given(kernels, st.sampled_from([2.0**-6, 0.5, 8.0]), st.sampled_from([*WEIGHT_BASED, "redundancy"]))
@hypothesis.settings(max_examples=25)
def test_scale_of_a_layer_does_not_matter(kernel: np.ndarray, factor: float, name: str) -> None:
    # A power of two, so that no rounding comes in; scores are divided by their mean, or are an order.
    for quantizer in (None, "ste_sign"):
        whole = tq.score(hidden(kernel, quantizer), name)["hidden"]
        scaled = tq.score(hidden(kernel * factor, quantizer), name)["hidden"]
        np.testing.assert_allclose(scaled, whole, rtol=1e-5, atol=1e-9)


def test_a_plan_by_which_nothing_goes_says_so() -> None:
    inputs = tf.keras.Input((4,))
    frozen = tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="head")(inputs))
    with pytest.warns(UserWarning, match=r"Received: none \(.*'head': model output 'head'\)") as said:
        assert not tq.make_plan(frozen, 0.5).removed
    assert len(said) == 1
    small = tf.keras.Model(inputs, tf.keras.layers.Dense(3)(tf.keras.layers.Dense(8, name="first")(inputs)))
    for ratio, align in ((0.1, 1), (0.5, 8)):
        with pytest.warns(UserWarning, match=rf"Received: {ratio} and {align}, by which none of the 1 groups"):
            assert not tq.make_plan(small, ratio, align=align).removed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tq.make_plan(small, 0.5).removed
        assert not tq.make_plan(small, 0.0).removed
