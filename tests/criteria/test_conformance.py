"""Every criterion of the project goes through the conformance suite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tfqprune import precision
from tfqprune.channels import ChannelGraph
from tfqprune.criteria import Criterion, FilterCriterion, Filters, FlipFrequencyCallback, criterion_names, get_criterion
from tfqprune.criteria.flips import FlipFrequency
from tfqprune.scoring import run_criterion
from tfqprune.testing import CriterionConformance
from tfqprune.testing.criteria import network

pytestmark = pytest.mark.filterwarnings("ignore:Criterion .* has nothing to read")

SIMPLE = [
    "apoz", "batchnorm_scale", "deployed_geometric_median", "deployed_l1", "deployed_l2", "fisher", "geometric_median",
    "latent_l1", "latent_l2", "mean_activation", "reconstruction", "redundancy", "taylor",
]  # fmt: skip


def test_all_are_here() -> None:
    own = {name for name in criterion_names() if not name.startswith("my_")}  # examples of CONTRIBUTING.md
    assert own == {*SIMPLE, "random", "rank_combination", "flip_frequency"}


@pytest.fixture(params=SIMPLE)
def named(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestByName(CriterionConformance):
    @pytest.fixture(autouse=True)
    def _name(self, named: str) -> None:
        self.name = named

    def make_criterion(self) -> Criterion:
        return get_criterion(self.name)


class TestRandom(CriterionConformance):
    equivariant = False

    def make_criterion(self) -> Criterion:
        return get_criterion("random", seed=3)


class TestRankCombination(CriterionConformance):
    says = "Reads and needs what the criteria in it do. Source: ours."

    def make_criterion(self) -> Criterion:
        return get_criterion({"latent_l1": 2, "taylor": 1})


class TestFunction(CriterionConformance):
    says = "Reads deployed weights, or latent ones where ``reads`` says so; no data; no gradients. Source: its author."

    def make_criterion(self) -> Criterion:
        def spread(filters: np.ndarray) -> np.ndarray:
            return filters.std(axis=1)

        return get_criterion(spread)


@pytest.mark.parametrize(
    ("criterion", "reads"),
    [
        (lambda: get_criterion(np.ptp, reads="latent"), "latent"),
        (lambda: get_criterion(np.ptp), "deployed"),
        (lambda: get_criterion({"latent_l1": 1, "random": 2}), "latent"),
        (lambda: get_criterion({"latent_l1": 1, "deployed_l1": 1}), "both"),
        (lambda: get_criterion({"redundancy": 1}), "both"),
        (lambda: get_criterion({"random": 1}), "nothing"),
    ],
)
def test_reads_follows_what_it_is_made_of(criterion: Callable[[], Criterion], reads: str) -> None:
    assert criterion().reads == reads


@pytest.mark.parametrize(
    "docstring",
    [
        None,
        "Reads deployed weights; no data; no gradients. Source: ours.",
        "Reads latent weights; needs data; no gradients. Source: ours.",
        "Reads latent weights; no data; needs gradients. Source: ours.",
        "Reads latent weights; no data; no gradients. Source: theirs.",
    ],
)
def test_a_docstring_that_says_something_else(docstring: str | None) -> None:
    class Own(FilterCriterion):
        reads = "latent"

        def score_filters(self, filters: Filters) -> np.ndarray:
            return filters.latent().max(axis=1)

    class Suite(CriterionConformance):
        def make_criterion(self) -> Criterion:
            return Own()

    Own.__doc__ = docstring
    with pytest.raises(
        AssertionError, match=r"Own to say: Reads latent weights; no data; no gradients\. Source: ours\."
    ):
        Suite().test_its_docstring_agrees()
    Own.__doc__ = "The largest.\n\n    Reads latent weights; no data; no\n    gradients. Source: ours.\n    "
    Suite().test_its_docstring_agrees()


class TestFlipFrequency(CriterionConformance):
    def make_criterion(self) -> Criterion:
        return FlipFrequency(self.watched(network("float")))

    def run(self, model: tf.keras.Model) -> dict[str, np.ndarray]:
        return run_criterion(ChannelGraph(model), FlipFrequency(self.watched(model)))

    def watched(self, model: tf.keras.Model) -> FlipFrequencyCallback:
        """As if small latent weights had changed often; ten looks."""
        callback = FlipFrequencyCallback()
        callback.looks = 10
        for name, record in ChannelGraph(model).records.items():
            for weight in precision.quantized_weights(record.layer):
                size = np.abs(precision.latent(record.layer, weight))
                callback.flips[name, weight] = (10 * np.exp(-20 * size)).astype(np.int64)
        return callback
