"""What a trial costs: on the evaluation twin, against rebuilding the slim model and running ``predict``.

    python benchmarks/trial_cost.py [--quick]
    python benchmarks/trial_cost.py --report    # the table of what is kept, into docs/criteria.md

Times are medians over several plans. "Evaluation data aside" means the time of a trial less the time that the
forward passes over the data take on a model that is ready; the rest is what a trial costs by itself: assigning
arrays here, a new model and its trace there. Results are kept as JSON, and networks that are in it are left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rows import Rows
from tables import source, table

import tfqprune as tq  # selects legacy Keras before TensorFlow is imported
from tfqprune import zoo
from tfqprune.data.batching import untuned
from tfqprune.testing import random_plan
from tfqprune.twin import EvaluationTwin

import tensorflow as tf  # isort: skip

HERE = Path(__file__).parent
BATCH = 128


def mobilenet() -> tf.keras.Model:
    """MobileNetV2 for CIFAR-sized images, in float."""
    return tf.keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)


NETWORKS: dict[str, Callable[[], tf.keras.Model]] = {
    "resnet20 binary": lambda: zoo.build("resnet20", precision="binary"),
    "resnet20 2-bit": lambda: zoo.build("resnet20", precision=2),
    "mobilenet_v2 float": mobilenet,
}


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of a call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure(model: tf.keras.Model, images: int, plans: int) -> dict[str, float]:
    """Seconds of a trial each way, in all and without the forward passes."""
    graph = tq.ChannelGraph(model)
    x = np.random.default_rng(0).normal(size=(images, *model.input_shape[1:])).astype("float32")
    batches = [tf.constant(x[start : start + BATCH]) for start in range(0, images, BATCH)]
    dataset = untuned(tf.data.Dataset.from_tensor_slices(x).batch(BATCH))
    chosen = [random_plan(graph, 0.3, seed) for seed in range(plans)]
    built = seconds(lambda: EvaluationTwin(graph))
    twin = EvaluationTwin(graph)

    def forward() -> None:
        for batch in batches:
            twin(batch).numpy()

    first = seconds(forward)  # traces
    passes = statistics.median(seconds(forward) for _ in range(3))
    own, whole = [], []
    for plan in chosen:
        own.append(seconds(lambda plan=plan: twin.set_plan(plan.removed)))
        whole.append(own[-1] + seconds(forward))

    slim_own, slim_whole = [], []
    for plan in chosen:
        began = time.perf_counter()
        slim = tq.prune(model, plan)
        slim.predict(dataset, verbose=0)
        slim_whole.append(time.perf_counter() - began)
        again = seconds(lambda slim=slim: slim.predict(dataset, verbose=0))
        slim_own.append(slim_whole[-1] - again)
    figures = {
        "images": images,
        "twin_build": built + first - passes,
        "twin_forward": passes,
        "twin_trial": statistics.median(whole),
        "twin_own": statistics.median(own),
        "slim_trial": statistics.median(slim_whole),
        "slim_own": statistics.median(slim_own),
    }
    return {**figures, "times_cheaper": figures["slim_own"] / figures["twin_own"]}


def report(rows: list[dict[str, Any]]) -> str:
    """A line for each network, in Markdown."""
    lines = [
        [
            row["network"], f"{row['twin_trial']:.2f} s", f"{1e3 * row['twin_own']:.0f} ms",
            f"{row['twin_build']:.1f} s", f"{row['slim_trial']:.2f} s", f"{row['slim_own']:.2f} s",
            f"{row['times_cheaper']:.0f}",
        ]
        for row in rows
    ]  # fmt: skip
    header = [
        "network", "trial on the twin", "of its own", "the twin, once", "rebuild and predict", "of its own",
        "times cheaper, data aside",
    ]  # fmt: skip
    return f"{table(header, lines)}\n\n{source(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ResNet-20 alone, few images and plans")
    parser.add_argument("--report", action="store_true", help="render the table of the rows that are there, and end")
    parser.add_argument(
        "--output", type=Path, help="JSON file; default benchmarks/results/trial_cost.json (runs/trial_cost_quick.json)"
    )
    given = parser.parse_args()
    quick = given.quick
    usual = Path("runs/trial_cost_quick.json") if quick else HERE / "results" / "trial_cost.json"
    rows = Rows(given.output or usual, ("network",))
    for name in [] if given.report else list(NETWORKS)[: 2 if quick else None]:
        rows.once({"network": name}, lambda name=name: measure(NETWORKS[name](), *((256, 3) if quick else (1024, 7))))
    rows.publish(report(rows.rows), "criteria.md")


if __name__ == "__main__":
    main()
