"""What the oracle suggests: on the budget, better than chance, and cheap."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import tfqprune as tq
from tfqprune import zoo
from tfqprune.allocation.oracle import PREFIX, BudgetOracle, ratios_of
from tfqprune.allocation.space import RatioSpace
from tfqprune.allocation.surrogate import Surrogate, _briefly, _last_fit, expected_improvement, tamed, warped
from tfqprune.errors import PlanError
from tfqprune.fitting import Fitter


def make_fitter(model: tf.keras.Model, **budget: float) -> Fitter:
    graph = tq.ChannelGraph(model)
    rng = np.random.default_rng(0)
    return Fitter(graph, {group.name: rng.random(group.size) for group in graph.groups}, tq.Budget(**budget))


@pytest.fixture(scope="module")
def deep() -> Fitter:
    """A 2-bit ResNet-32: 18 groups."""
    fitter = make_fitter(zoo.build("resnet32", precision=2), memory=0.5)
    assert len(fitter.names) == 18
    return fitter


def test_relaxed_costs_are_exact_at_whole_units(deep: Fitter) -> None:
    rng = np.random.default_rng(1)
    for budget in ({"memory": 0.5}, {"macs": 0.4, "params": 0.6, "bops": 0.7}):
        fitter = Fitter(deep.graph, deep.scores, tq.Budget(**budget))
        relaxed = RatioSpace(fitter).relaxed
        counts = [{group.name: int(rng.integers(group.size)) for group in fitter.groups} for _ in range(20)]
        ratios = np.array([list(fitter.ratios(own).values()) for own in counts])
        expected = [fitter.limits.load(fitter.costs(own)) for own in counts]
        np.testing.assert_allclose(relaxed.loads(ratios), expected, rtol=1e-9)


def test_relaxed_projection_lies_on_the_budget(deep: Fitter) -> None:
    space = RatioSpace(deep)
    preferences = np.random.default_rng(2).random((100, 18))
    projected = space.project(preferences)
    np.testing.assert_allclose(space.relaxed.loads(projected), 1, atol=1e-6)
    # Whole units leave the exact projection within a unit or two of it (groups have 16 to 64 units).
    exact = np.array([space.coordinates(space.exact(own).ratios) for own in preferences[:10]])
    assert np.abs(projected[:10] - exact).max() < 2 / 16


def test_shared_ratios(deep: Fitter) -> None:
    # The stages have images of 32, 16 and 8 pixels; the stem's image has 32, too.
    space = RatioSpace(deep, "stage")
    assert space.dimensions == 3
    stage = dict(zip(space.names, space.dimension_of.tolist(), strict=True))
    assert stage["stem_conv"] == stage["stage1_block1_conv1"] == 0
    assert stage["stage2_block1_shortcut_conv"] == stage["stage2_block3_conv1"] == 1
    assert stage["stage3_block5_conv1"] == 2
    ratios = space.exact(np.array([0.2, 1.0, 0.5])).ratios
    for name, number in stage.items():
        # One ratio a stage, to a unit of the group.
        reference = ratios[("stage1_block1_conv1", "stage2_block1_conv1", "stage3_block1_conv1")[number]]
        assert abs(ratios[name] - reference) <= 1.01 / deep.graph[name].size
    pair = RatioSpace(deep, [["stage1_block1_conv1", "stage3_block1_conv1"]])
    assert pair.dimensions == 17
    for share, message in [
        ("stages", '"stage", lists'),
        ([["stem_conv"], ["stem_conv"]], "in two"),
        ([["nothing"]], "'nothing'"),
        ([[deep.graph.groups[-1].name]], "groups that can be pruned"),  # the output is frozen
    ]:
        with pytest.raises(PlanError, match=message):
            RatioSpace(deep, share)


def test_kernel_is_fitted_at_fixed_sizes() -> None:
    assert [_last_fit(count) for count in (2, 3, 5, 6, 8, 9, 20, 23, 24, 26, 27)] == [
        2,
        3,
        3,
        6,
        6,
        9,
        18,
        21,
        24,
        24,
        24,
    ]


def test_surrogate_sees_which_dimension_matters() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((40, 3))
    process = Surrogate(3).fit(points, np.sin(5 * warped(points[:, 1])))
    scales = process.kernel.k1.k2.length_scale
    assert scales[1] < 0.2 * min(scales[0], scales[2])
    grid = np.tile([0.5, 0.0, 0.5], (91, 1))
    grid[:, 1] = np.linspace(0, 0.9, 91)
    np.testing.assert_allclose(process.predict(grid)[0], np.sin(5 * warped(grid[:, 1])), atol=0.05)


# Where a likelihood falls with slope a, a normal prior of deviation 1 around the start holds it at start - a.
# The last one, the noise, has no prior and runs into its bound.
def test_prior_of_the_kernel_by_hand() -> None:
    slopes = np.array([0.5, -0.25, 0.1])
    found, _ = _briefly(lambda theta: (float(slopes @ theta), slopes), np.zeros(3), np.array([[-2.0, 2.0]] * 3))
    np.testing.assert_allclose(found, [-0.5, 0.25, -2.0], atol=1e-5)


# Middle of the length scales: 0.3 times the square root of the dimensions.
@pytest.mark.parametrize(("dimensions", "middle"), [(4, 0.6), (9, 0.9), (16, 1.2)])
def test_prior_grows_with_distances(dimensions: int, middle: float) -> None:
    np.testing.assert_allclose(Surrogate(dimensions).kernel().k1.k2.length_scale, [middle] * dimensions)


# 1.05 / 0.05 = 21: all that stays is 0, nothing is 1; where sqrt(1.05 * 0.05) - 0.05 = 0.17913 stay, it is half way.
def test_warped_by_hand() -> None:
    np.testing.assert_allclose(warped(np.array([0.0, 1 - 0.17913, 1.0])), [0.0, 0.5, 1.0], atol=1e-4)


def test_tamed_by_hand() -> None:
    # The median is 0.8, the best lies 0.1 above it: nothing counts as less than 0.6.
    assert tamed(np.array([0.1, 0.7, 0.8, 0.85, 0.9])).tolist() == pytest.approx([0.6, 0.7, 0.8, 0.85, 0.9])
    assert tamed(np.array([0.5, 0.5])).tolist() == [0.5, 0.5]


def test_expected_improvement_by_hand() -> None:
    class Normal:
        def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.array([1.0, 0.0, 2.0]), np.array([1.0, 1e-12, 0.0])

    # At the mean: one standard deviation times phi(0) = 0.3989. Surely worse: 0. Surely better by 1: 1.
    assert expected_improvement(Normal(), np.zeros((3, 1)), 1.0) == pytest.approx([0.39894, 0.0, 1.0], abs=1e-5)


def objective_over(names: list[str], seed: int) -> Callable[[dict[str, float]], float]:
    """An accuracy that some groups matter far more for than others, with some noise."""
    rng = np.random.default_rng(seed)
    weights, powers = rng.lognormal(0, 1.2, len(names)), rng.uniform(1, 3, len(names))

    def accuracy(ratios: dict[str, float]) -> float:
        values = np.array([ratios[name] for name in names])
        loss = (weights * values**powers).sum() / weights.sum()
        return 0.9 * float(np.exp(-3 * loss)) + rng.normal(0, 0.004)

    return accuracy


def drive(oracle, accuracy, trials: int, project=lambda ratios: ratios) -> tuple[list[float], list[float]]:
    """Values of trials, and seconds of suggestions."""
    values, seconds = [], []
    for _ in range(trials):
        began = time.perf_counter()
        trial = oracle.create_trial("one")
        seconds.append(time.perf_counter() - began)
        values.append(accuracy(project(ratios_of(trial))))
        oracle.update_trial(trial.trial_id, {"value": values[-1]})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return values, seconds


def make_oracle(fitter: Fitter, folder: Path, trials: int, **options) -> BudgetOracle:
    oracle = BudgetOracle(
        {name: (0.0, most) for name, most in fitter.most.items()},
        objective=keras_tuner.Objective("value", "max"), max_trials=trials, seed=0, **options,
    )  # fmt: skip
    oracle.space = RatioSpace(fitter)
    oracle.starts = [oracle.space.uniform.ratios]
    oracle._set_project_dir(folder, "ours")
    oracle.verbose = 0
    return oracle


def test_finds_better_ratios_than_chance(deep: Fitter, tmp_path: Path) -> None:
    values, _ = drive(make_oracle(deep, tmp_path, 20), objective_over(deep.names, 0), 20)
    rng, accuracy = np.random.default_rng(3), objective_over(deep.names, 0)
    chance = [accuracy(deep.project(dict(zip(deep.names, rng.random(18), strict=True))).ratios) for _ in range(60)]
    assert max(values) > max(chance) + 0.02


def test_parallel_suggestions_differ(deep: Fitter, tmp_path: Path) -> None:
    oracle = make_oracle(deep, tmp_path, 40, num_random=3)
    drive(oracle, objective_over(deep.names, 0), 12)
    running = [oracle.create_trial(f"worker{number}") for number in range(4)]
    points = np.array([oracle.space.coordinates(ratios_of(trial)) for trial in running])
    distances = np.abs(points[:, None] - points[None]).max(axis=-1) + np.eye(4)
    assert distances.min() > 0.05


def test_starts_that_come_later_are_tried_next(deep: Fitter, tmp_path: Path) -> None:
    oracle, accuracy = make_oracle(deep, tmp_path, 10), objective_over(deep.names, 0)
    drive(oracle, accuracy, 3)
    given = deep.project(dict.fromkeys(deep.names[:9], 1.0)).ratios
    oracle.starts = [*oracle.starts, given]
    drive(oracle, accuracy, 2)
    assert [ratios_of(trial) == given for trial in oracle.in_order()] == [False, False, False, True, False]


@pytest.mark.slow
def test_ten_times_cheaper_than_the_stock_oracle(deep: Fitter, tmp_path: Path) -> None:
    _, ours = drive(make_oracle(deep, tmp_path, 110), objective_over(deep.names, 0), 110)
    parameters = keras_tuner.HyperParameters()
    for name in deep.names:
        parameters.Float(PREFIX + name, 0, 1)
    stock = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("value", "max"),
        max_trials=101,
        num_initial_points=100,
        hyperparameters=parameters,
    )
    stock._set_project_dir(tmp_path, "stock")
    stock.verbose = 0
    _, theirs = drive(stock, objective_over(deep.names, 0), 101, lambda ratios: deep.project(ratios).ratios)
    assert np.mean(ours[95:105]) < theirs[100] / 10
