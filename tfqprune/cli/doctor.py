"""``tfqprune doctor``: which versions are installed, and what really works on this machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from tfqprune.cli.session import Outcome, Session
from tfqprune.pipeline.environment import installed, processor_name

# What is tried -> (a program that fails where it does not work, what to do then). Each runs in a process of its own: a
# broken native library may end the process that loads it.
_TRIALS = {
    "legacy Keras": (
        "import tfqprune, tensorflow as tf; assert tf.keras.Model.__module__.startswith('tf_keras')",
        "pip install tensorflow==2.21.* tf_keras==2.21.*, and unset TF_USE_LEGACY_KERAS=0",
    ),
    "larq layers": (
        "import tfqprune, numpy as np, larq as lq; layer = lq.layers.QuantDense(1, kernel_quantizer='ste_sign',"
        " use_bias=False); out = layer(np.ones((1, 3), 'float32')); assert float(abs(out)[0, 0]) in (1.0, 3.0)",
        "pip install 'larq>=0.14,<0.15' 'numpy<2'",
    ),
    "LiteRT (.tflite, float and k-bit)": (
        "import tfqprune, numpy as np, tensorflow as tf; from ai_edge_litert.interpreter import Interpreter;"
        " model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1, kernel_initializer='ones')]);"
        " run = Interpreter(model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert());"
        " run.allocate_tensors(); run.set_tensor(run.get_input_details()[0]['index'], np.ones((1, 2), 'float32'));"
        " run.invoke(); assert run.get_tensor(run.get_output_details()[0]['index']) == 2",
        "pip install 'ai-edge-litert>=2.1'",
    ),
    "Larq Compute Engine (.tflite, binary)": (
        "import tfqprune, numpy as np, tensorflow as tf, larq as lq, larq_compute_engine as lce;"
        " binary = dict(input_quantizer='ste_sign', kernel_quantizer='ste_sign', padding='same', pad_values=1.0);"
        " model = tf.keras.Sequential([tf.keras.Input((4, 4, 32)), lq.layers.QuantConv2D(32, 3, **binary)]);"
        " run = lce.testing.Interpreter(lce.convert_keras_model(model)); x = np.ones((1, 4, 4, 32), 'float32');"
        " np.testing.assert_allclose(run.predict(x), np.asarray(model(x)), atol=1e-4)",
        "it has wheels for Linux on x86-64 only; there: pip install 'tfqprune[lce]'. Everything else works without",
    ),
    "Bayesian search (Keras-Tuner)": (
        "import tfqprune, keras_tuner, sklearn; keras_tuner.oracles.BayesianOptimizationOracle(max_trials=1)",
        "pip install 'keras-tuner[bayesian]' tensorboard",
    ),
}


def doctor(session: Session) -> Outcome:
    """Show versions, and try what works on this machine. Exit code 1 if something does not."""
    from rich.text import Text

    from tfqprune.progress import track
    from tfqprune.report import tables

    findings: dict[str, str | None] = {}
    for name in track(_TRIALS, "trying what works here"):
        findings[name] = _try(_TRIALS[name][0])
    packages = installed()
    shown = {name: found or "not installed" for name, found in packages.items()}
    rows = {name: "works" if not error else f"does not work: {error}" for name, error in findings.items()}
    return Outcome(
        {"machine": machine(), "versions": packages, "works": findings},
        [
            tables.pairs_table("Machine", machine()),
            tables.pairs_table("Versions", shown),
            tables.pairs_table("Tried here", rows),
            *(Text(f"{name}: {_TRIALS[name][1]}.", style="yellow") for name, error in findings.items() if error),
        ],
        1 if any(findings.values()) else 0,
    )


def machine() -> dict[str, str]:
    """What this runs on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }


def _try(program: str) -> str | None:
    """None if a program ends well, else the last line of its complaint."""
    try:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    except subprocess.TimeoutExpired:
        return "gave no answer in three minutes"
    if run.returncode == 0:
        return None
    if run.returncode < 0:
        return f"the process was ended by signal {-run.returncode}"
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {run.returncode}"
