"""A report with everything in it that a report can have, odd names included."""

from __future__ import annotations

from tfqprune.report import GroupRow, LayerRow, NetworkReport, RunReport, TrialRow, VariantRow

NAME = "resnet <binary> & $x$"

NETWORK = NetworkReport(
    NAME,
    (
        VariantRow("dense", 0.978, 174_506, 1_650_000, 16_600_000, 50_944, 60_000, 52_000, 400_384, 0.21, 1.0, 0.978),
        VariantRow("uniform", 0.955, 120_000, 1_100_000, memory=35_660.8, tflite_bytes=45_000, file="uniform.tflite"),
        VariantRow("bayesian", 0.969, 118_000, 1_150_000, memory=35_328, format="packed", note="No runtime <here>."),
    ),
    "A residual network.",
    groups=(
        GroupRow("stage1", 16, {"uniform": 12, "bayesian": 8}, ("conv1", "conv2")),
        GroupRow("dense", 10, {}, ("dense",), "model output <script>"),
    ),
    layers=(
        LayerRow("conv1", {"dense": 2048, "uniform": 1024, "bayesian": 512}, "QuantConv2D", 1),
        LayerRow("dense", {"dense": 4096, "uniform": 4096, "bayesian": 4096}, "Dense", 32),
    ),
    trials=(
        TrialRow(1, 0.80, 34_000, {"stage1": 0.2}, seconds=1.5),
        TrialRow(2, 0.95, 40_000, {"stage1": 0.1}, feasible=False),
        TrialRow(3, None, None),
        TrialRow(4, 0.90, 33_000),
        TrialRow(5, 0.85, 32_000),
    ),
    size_budget=35_660.8,
    plans={"uniform": "uniform.json"},
)

REPORT = RunReport(
    "Title <b>bold</b>",
    (NETWORK, NetworkReport("bare", (VariantRow("dense"),))),
    description="Handwritten digits.",
    created="2026-11-20 19:00",
    commands=("make demo", "tfqprune demo --seed 0"),
    environment={"cores": "2"},
    versions={"tensorflow": "2.21.0"},
    notes=("A note & more.",),
)
