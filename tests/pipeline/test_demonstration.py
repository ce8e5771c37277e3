"""``tfqprune demo`` from outside: refusals before any work, interruption and what goes on after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tensorflow as tf
import tomllib

from tfqprune.pipeline.demonstration import DemoSettings, demonstrate
from tfqprune.pipeline.folder import read_state
from tfqprune.report import VariantRow

SMALL = ["--limit", "120", "--epochs", "2", "--finetune-epochs", "1", "--trials", "8"]


def demo(*arguments: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfqprune", "demo", *map(str, arguments)],
        capture_output=True, text=True, cwd=folder, timeout=600, check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "digitz"], "digits"),
        (["--dataset", "cifar11"], "cifar10"),
        (["--memory", "0.001"], "smallest"),
        (["--memory", "7 parsec"], "7 parsec"),
        (["--memory", "1.5 MiB"], "at most the original"),
        (["-o", "taken"], "holds other files"),
        (["-o", "taken", "--overwrite"], "holds other files"),
        (["-o", "taken/mine.txt/deeper"], "can be written"),
    ],
)
def test_refused_before_training(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    done = demo(*arguments, folder=tmp_path)
    assert done.returncode == (2 if "7 parsec" in arguments else 1), done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert "epochs" not in done.stdout
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


def test_interrupted_and_continued(tmp_path: Path) -> None:
    """Ctrl-C in the first search: trials stay on disk, and the same command goes on with them."""
    command = [sys.executable, "-u", "-m", "tfqprune", "demo", *SMALL, "-o", "out"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A test run in the background ignores Ctrl-C, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("trial 3/"):
            process.send_signal(signal.SIGINT)
            break
    seen += process.stdout.readlines()
    assert process.wait(60) == 130, "".join(seen)
    assert tomllib.loads((tmp_path / "out" / "settings.toml").read_text())["demo"]["dataset"] == "digits"
    trials = list((tmp_path / "out" / "binary").rglob("trial_*/trial.json"))
    assert len(trials) >= 3
    trained = tmp_path / "out" / "binary" / "trained.keras"
    before = trained.stat().st_mtime_ns

    done = demo(*SMALL, "-o", "out", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Going on with" in done.stdout
    assert trained.stat().st_mtime_ns == before
    assert "trial 1/8" not in done.stdout.split("dorefa2:")[0]
    for name in ("binary", "dorefa2"):
        for variant in ("dense", "uniform", "bayesian"):
            assert (tmp_path / "out" / name / "compressed" / variant / "model.keras").exists()
    assert (tmp_path / "out" / "report.html").exists()

    again = demo(*SMALL, "-o", "out", folder=tmp_path)
    assert again.returncode == 1
    assert "finished run" in " ".join(again.stderr.split())


@pytest.mark.usefixtures("deterministic")
def test_interrupted_in_the_second_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first network is done by then; the same demonstration reads it, and goes on with the second."""
    trained: list[str] = []

    def train(model: tf.keras.Model, *arguments: object, **options: object) -> None:
        trained.append(model.name)
        if len(trained) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("tfqprune.pipeline.demonstration.finetune", train)
    monkeypatch.setattr(
        "tfqprune.pipeline.line.measure_variant",
        lambda name, *parts, **options: asdict(VariantRow(name, 0.5, 1, 1, 1, 1.0)),
    )
    settings = DemoSettings(epochs=1, finetune_epochs=0, trials=1, limit=60)
    with pytest.raises(KeyboardInterrupt):
        demonstrate(settings, output_dir=tmp_path, verbose=0)
    assert read_state(tmp_path / "binary" / "compressed")["status"] == "finished"
    plan = (tmp_path / "binary" / "compressed" / "bayesian" / "plan.json").stat().st_mtime_ns
    results = demonstrate(settings, output_dir=tmp_path, verbose=0)
    assert len(trained) == 3
    assert trained[1] == trained[2] != trained[0]
    assert list(results) == ["binary", "dorefa2"]
    assert (tmp_path / "binary" / "compressed" / "bayesian" / "plan.json").stat().st_mtime_ns == plan
    assert read_state(tmp_path)["status"] == "finished"


def test_without_larq_compute_engine(tmp_path: Path) -> None:
    """No wheel for this platform: the binary net has no file, which is said, and the rest goes on."""
    absent = tmp_path / "absent" / "larq_compute_engine"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ImportError('no wheel for this platform')\n")
    done = demo(
        *SMALL[:-2], "--trials", "2", "-o", "out", folder=tmp_path, PYTHONPATH=str(tmp_path / "absent")
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "larq-compute-engine" in done.stdout
    assert not list((tmp_path / "out" / "binary").rglob("*.tflite"))
    assert (tmp_path / "out" / "dorefa2" / "compressed" / "dense" / "model.keras").exists()


def test_quiet(tmp_path: Path) -> None:
    done = demo("--dataset", "digitz", "--quiet", folder=tmp_path)
    assert done.stdout == ""
    assert "digits" in done.stderr
