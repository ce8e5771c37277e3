"""A report with everything in it that a report can have, odd names included."""

from __future__ import annotations

from tfqprune.report import (
    CurveRow,
    GroupRow,
    LayerRow,
    NetworkReport,
    NodeRow,
    RunReport,
    TrialRow,
    VariantRow,
)

NAME = "resnet <binary> & $x$"

NETWORK = NetworkReport(
    NAME,
    (
        VariantRow(
            "dense",
            0.978,
            174_506,
            1_650_000,
            16_600_000,
            50_944,
            60_000,
            52_000,
            400_384,
            0.21,
            agreement=1.0,
        ),
        VariantRow("uniform", 0.955, 120_000, 1_100_000, memory=35_660.8, tflite_bytes=45_000, file="uniform.tflite"),
        VariantRow(
            "bayesian",
            0.969,
            118_000,
            1_150_000,
            memory=35_328,
            tflite_bytes=40_960,
            floor_bytes=30_720,
            ram_bytes=300_000,
            latency_ms=0.15,
            latency_spread_ms=0.02,
            runtime="litert, 1 thread, XNNPACK off",
            agreement=0.996,
            off_share=0.03,
            max_error=0.25,
            tolerance=1e-4,
            compared=256,
            format="packed",
            file_kinds={"weights": 28_672, "tables": 12_288},
            file_layers={"conv1": 2048, "9 MEAN <&>": 8},
            floor_layers={"conv1": 1024.0, "dense": 512.0},
            note="No runtime <here>.",
        ),
    ),
    "A residual network.",
    groups=(
        GroupRow("input", 3, {"uniform": 3, "bayesian": 3}, ("input",), "model input 'input'"),
        GroupRow("stage1", 16, {"uniform": 12, "bayesian": 8}, ("conv1", "conv2")),
        GroupRow("dense", 10, {}, ("dense",), "model output <script>"),
    ),
    nodes=(
        NodeRow("input", (), ("input",), "InputLayer"),
        NodeRow("conv1", ("input",), ("stage1",), "QuantConv2D"),
        NodeRow("conv2", ("conv1",), ("stage1",), "QuantConv2D"),
        NodeRow("add", ("conv2", "conv1"), ("stage1",), "Add"),
        NodeRow("dense", ("add",), ("dense",), "Dense"),
    ),
    layers=(
        LayerRow("conv1", {"dense": 2048, "uniform": 1024, "bayesian": 512}, "QuantConv2D", 1),
        LayerRow("dense", {"dense": 4096, "uniform": 4096, "bayesian": 4096}, "Dense", 32),
    ),
    trials=(
        TrialRow(1, 0.80, {"memory": 34_000, "macs": 1.1e6}, {"stage1": 0.2}, seconds=1.5, front=("macs",)),
        TrialRow(2, 0.95, {"memory": 40_000, "macs": 1.4e6}, {"stage1": 0.1}, feasible=False),
        TrialRow(3, None, why="ran <out> of memory"),
        TrialRow(4, 0.90, {"memory": 33_000, "macs": 1.2e6}, front=("memory", "macs")),
        TrialRow(5, 0.85, {"memory": 32_000, "macs": 1.3e6}, front=("memory",)),
    ),
    curves=(CurveRow("stage1", (0.25, 0.5, 0.75), (0.93, None, 0.61)),),
    baseline=0.95,
    budget={"memory": 35_660.8},
    plans={"uniform": "uniform.json"},
)

REPORT = RunReport(
    "Title <b>bold</b>",
    (NETWORK, NetworkReport("bare", (VariantRow("dense"),))),
    description="Handwritten digits.",
    created="2026-11-20 19:00",
    commands=("make demo", "tfqprune demo --seed 0"),
    settings={"seed": "0"},
    environment={"cores": "2"},
    versions={"tensorflow": "2.21.0"},
    notes=("A note & more.",),
)
