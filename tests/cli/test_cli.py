"""The command line as a whole: answers at once, errors, outputs; where it matters in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import typer
from typer.testing import CliRunner

import tfqprune as tq
from tests.cli.conftest import Run
from tfqprune import __version__, zoo
from tfqprune.cli import frame
from tfqprune.cli.session import Outcome, Session


def _run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tfqprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
    )


def _said(errors: str) -> str:
    """Standard error without the account of imports."""
    return "".join(line for line in errors.splitlines(keepends=True) if not line.startswith("import time:"))


def _loaded(errors: str) -> set[str]:
    """The modules that were imported."""
    return {line.split("|")[-1].strip() for line in errors.splitlines() if line.startswith("import time:")}


PRUNE = ["prune", "model.keras", "-o", "slim.keras"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "train-prune"),
        (["-h"], 0, "doctor"),
        (["--version"], 0, f"tfqprune {__version__}"),
        (["compress", "--help"], 0, "MODEL"),
        ([], 2, "Usage: tfqprune"),
        (["sumary"], 2, "Did you mean 'summary'?"),
        (["summary"], 2, "Missing argument 'MODEL'"),
        (["--nonsense"], 2, "No such option: --nonsense"),
        ([*PRUNE, "--budget", "memry=0.5"], 2, "Did you mean 'memory'?"),
        ([*PRUNE, "--budget", "macs=40 MMAX"], 2, "Expected the budget for macs in one of"),
        ([*PRUNE, "--ratio", "1.5"], 2, "Expected one ratio from 0 to below 1"),
        ([*PRUNE, "--ratio", "0.5", "--criterion", "tailor"], 2, "Did you mean 'taylor'?"),
        (["summary", "no_such_file.keras"], 1, "Error: Expected a Keras model. Received: 'no_such_file.keras'"),
    ],
)
def test_answers_at_once(arguments: list[str], code: int, said: str) -> None:
    run = _run(*arguments)
    message = " ".join((run.stdout + _said(run.stderr)).replace("│", " ").split())
    assert run.returncode == code
    assert said in message
    assert "Traceback" not in message
    # Answered at once: what takes seconds, TensorFlow, is not loaded (clocks say little on a busy machine).
    assert "typer" in _loaded(run.stderr)
    assert not {"tensorflow", "numpy", "larq", "matplotlib"} & _loaded(run.stderr)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("export --format p", ["packed"]),
        ("search --method b", ["bayesian"]),
        ("prune --criterion deployed_", ["deployed_geometric_median", "deployed_l1", "deployed_l2"]),
        ("compress --budget mem", ["memory="]),
        ("train", ["train-prune"]),
    ],
)
def test_completion_by_the_shell(typed: str, offered: list[str]) -> None:
    words = f"tfqprune {typed}"
    run = _run(_TFQPRUNE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(len(words.split()) - 1))
    assert run.stdout.split() == offered
    assert not {"tensorflow", "numpy"} & _loaded(run.stderr)


class TestSummary:
    @pytest.fixture(scope="class")
    @staticmethod
    def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("models") / "model.keras"
        zoo.resnet(8, precision="binary", input_shape=(8, 8, 1)).save(path)
        return path

    def test_table_and_not_a_word_from_tensorflow(self, binary: Path) -> None:
        done = _run("summary", binary)
        assert (done.returncode, _said(done.stderr)) == (0, "")
        table = done.stdout.partition("Channel groups")[0]
        lines = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
        # 16 x 16 x 9 = 2,304 bits = 288 bytes; 64 pixels x 2,304 = 147,456 MACs, as many BOPs.
        assert " ".join(lines["stage1_block1a_conv"]) == "stage1_block1a_conv 1/1 2.30 k 147 k 147 k 288 B"
        # 64 x 10 + 10 parameters of 4 bytes: 2,600 bytes = 2.54 KiB; 640 MACs of 32 x 32 bits.
        assert " ".join(lines["dense"]) == "dense 32/32 650 640 655 k 2.54 KiB"
        assert "Channel groups" in done.stdout

    def test_json(self, binary: Path, run: Run) -> None:
        report = run("summary", binary, "--json").json
        # 144 first + 9 x 8,192 inner + 2,560 shortcuts + 650 dense + 2 x 336 of batch norms (see tests/zoo).
        assert report["cost"]["params"] == 144 + 73_728 + 2_560 + 650 + 672
        assert report["model"] == "resnet8_binary"
        frozen = {group["name"]: bool(group["frozen"]) for group in report["groups"]}
        assert frozen["dense"] is True
        assert frozen["stem_conv"] is False

    def test_lambda_is_refused_in_one_line(self, run: Run, tmp_path: Path) -> None:
        layers = [tf.keras.Input((2,)), tf.keras.layers.Dense(3), tf.keras.layers.Lambda(lambda x: x * 2.0)]
        tf.keras.Sequential(layers).save(tmp_path / "l.keras")
        answer = run("summary", tmp_path / "l.keras")
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.startswith("Error: Expected a model that runs no code of its own.")
        assert answer.err.count("\n") == 1
        assert "--trust" in answer.err
        assert run("summary", tmp_path / "l.keras", "--trust").code == 0

    def test_other_forms_of_models(self, run: Run, model: tf.keras.Model, tmp_path: Path) -> None:
        model.save(tmp_path / "m.h5", include_optimizer=False)
        model.save(tmp_path / "saved")
        both = [run("summary", tmp_path / name, "--json").json for name in ("m.h5", "saved")]
        assert both[0]["cost"] == both[1]["cost"]
        assert both[0]["cost"]["params"] == tq.cost(model).params


class TestErrors:
    @pytest.mark.parametrize("before", [True, False])
    def test_verbose_shows_the_traceback(self, before: bool, run: Run, tmp_path: Path) -> None:
        command = ["summary", tmp_path / "none.keras"]
        answer = run("--verbose", *command) if before else run(*command, "--verbose")
        assert answer.code == 1
        assert "Traceback (most recent call last)" in answer.err
        assert answer.err.splitlines()[-1].startswith("Error: Expected a Keras model.")
        assert "Traceback" not in run(*command).err

    def test_an_error_inside_shows_its_traceback(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("tfqprune.cli.sizing.require_tflite", broken)
        answer = run("size", "model.tflite")
        assert (answer.code, answer.out) == (3, "")
        assert "RuntimeError: a bug" in answer.err
        assert "Please report it" in answer.err

    def test_trouble_of_the_machine_is_one_line(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device", "slim.keras")

        monkeypatch.setattr("tfqprune.cli.summary.open_model", full)
        (tmp_path / "model.keras").touch()
        answer = run("summary", tmp_path / "model.keras")
        assert answer.code == 1
        assert answer.err == (
            "Error: Expected files that can be read and written. Received: [Errno 28] No space left on device: "
            "'slim.keras'.\n"
        )

    def test_interrupted(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*arguments: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("tfqprune.cli.sizing.require_tflite", interrupt)
        answer = run("size", "model.tflite")
        assert (answer.code, answer.out, answer.err) == (130, "", "")


class TestOutcome:
    @pytest.fixture
    def chatty(self, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
        """A command that prints, warns, and finds numbers that JSON does not know."""

        def work(session: Session) -> Outcome:
            print("chatter")
            warnings.warn("one\n  line", stacklevel=1)
            return Outcome({"number": np.float32(0.5), "none": float("nan"), "path": Path("a")}, ["found [it]"], 1)

        app = typer.Typer()
        monkeypatch.setattr(frame, "OPTIONS", {})
        frame.add(app, "work", work)
        return app

    @pytest.mark.parametrize(
        ("arguments", "out", "err"),
        [
            ([], "chatter\nfound [it]\n", "Warning: one line\n"),
            (["--quiet"], "chatter\n", ""),  # what commands say themselves asks the session first
            (["--json", "--quiet"], None, "chatter\n"),
            (["--json"], None, "chatter\nWarning: one line\n"),
        ],
    )
    def test_shown(self, arguments: list[str], out: str | None, err: str, chatty: typer.Typer) -> None:
        result = CliRunner().invoke(chatty, arguments)
        assert result.exit_code == 1
        assert result.stderr == err
        if out is None:
            assert json.loads(result.stdout) == {"number": 0.5, "none": None, "path": "a"}
        else:
            assert result.stdout == out


class TestQuiet:
    def test_holds_back_and_restores(self) -> None:
        code = (
            "import os, sys; from tfqprune.cli.quiet import standard_error_aside\n"
            "with standard_error_aside(): os.write(2, b'chatter'); print('more', file=sys.stderr)\n"
            "os.write(2, b'after')"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == "after"

    def test_shows_what_was_said_before_a_failure(self) -> None:
        code = (
            "import os; from tfqprune.cli.quiet import standard_error_aside\n"
            "with standard_error_aside(): os.write(2, b'the reason'); raise RuntimeError('failed')\n"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.stderr.startswith("the reason")
        assert "RuntimeError: failed" in run.stderr


class TestDoctor:
    def test_everything_works_here(self) -> None:
        run = _run("doctor", "--json")
        found = json.loads(run.stdout)
        assert found["versions"]["tfqprune"] == __version__
        assert found["machine"]["python"].startswith("3.")
        assert len(found["works"]) == 5
        needed = {name: error for name, error in found["works"].items() if "Larq Compute Engine" not in name}
        assert needed == dict.fromkeys(needed)
        assert run.returncode == int(any(found["works"].values()))
        assert _said(run.stderr) == ""

    def test_says_what_does_not_work_and_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tfqprune.cli import app, doctor

        trials = {
            "good": ("pass", "never said"),
            "missing": ("import no_such_package", "pip install it"),
            "crashing": ("import os; os.kill(os.getpid(), 11)", "buy another"),
        }
        monkeypatch.setattr(doctor, "_TRIALS", trials)
        run = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"})
        text = " ".join(run.output.split())
        assert run.exit_code == 1
        assert "good works" in text
        assert "missing does not work: ModuleNotFoundError: No module named 'no_such_package'" in text
        assert "crashing does not work: the process was ended by signal 11" in text
        assert "missing: pip install it." in text
        assert "crashing: buy another." in text
        assert "never said" not in text
