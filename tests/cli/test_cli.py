"""The command line from outside: in processes of its own, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from tfqprune import __version__, zoo


def _run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfqprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.keras"
    zoo.resnet(8, precision="binary", input_shape=(8, 8, 1)).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "summary"),
        (["-h"], 0, "doctor"),
        (["--version"], 0, f"tfqprune {__version__}"),
        (["summary", "--help"], 0, "MODEL"),
        ([], 2, "Usage: tfqprune"),
        (["sumary"], 2, "Did you mean 'summary'?"),
        (["summary"], 2, "Missing argument 'MODEL'"),
        (["--nonsense"], 2, "No such option: --nonsense"),
        (["summary", "no_such_file.keras"], 1, "Error: Expected a Keras model. Received: 'no_such_file.keras'"),
    ],
)
def test_answers_at_once(arguments: list[str], code: int, said: str) -> None:
    run = _run(*arguments)
    assert run.returncode == code
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    # Answered at once: what takes seconds, TensorFlow, is not loaded (clocks say little on a busy machine).
    modules = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tfqprune", *arguments], capture_output=True, text=True
    ).stderr
    assert "typer" in modules
    assert not {"tensorflow", "numpy", "larq", "matplotlib"} & {
        line.split("|")[-1].strip() for line in modules.split("\n")
    }


class TestSummary:
    def test_table(self, model_file: Path) -> None:
        run = _run("summary", model_file)
        assert run.returncode == 0
        table = run.stdout.partition("Channel groups")[0]
        lines = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
        # 16 x 16 x 9 = 2,304 bits = 288 bytes; 64 pixels x 2,304 = 147,456 MACs, as many BOPs.
        assert " ".join(lines["stage1_block1a_conv"]) == "stage1_block1a_conv 1/1 2.30 k 147 k 147 k 288 B"
        # 64 x 10 + 10 parameters of 4 bytes: 2,600 bytes = 2.54 KiB; 640 MACs of 32 x 32 bits.
        assert " ".join(lines["dense"]) == "dense 32/32 650 640 655 k 2.54 KiB"
        assert "Channel groups" in run.stdout

    def test_not_a_word_from_tensorflow(self, model_file: Path) -> None:
        assert _run("summary", model_file).stderr == ""

    def test_json(self, model_file: Path) -> None:
        run = _run("summary", model_file, "--json")
        report = json.loads(run.stdout)
        # 144 first + 9 x 8,192 inner + 2,560 shortcuts + 650 dense + 2 x 336 of batch norms (see tests/zoo).
        assert report["cost"]["params"] == 144 + 73_728 + 2_560 + 650 + 672
        assert report["model"] == "resnet8_binary"
        frozen = {group["name"]: bool(group["frozen"]) for group in report["groups"]}
        assert frozen["dense"] is True
        assert frozen["stem_conv"] is False

    def test_lambda_is_refused_in_one_line(self, tmp_path: Path) -> None:
        layers = [tf.keras.Input((2,)), tf.keras.layers.Dense(3), tf.keras.layers.Lambda(lambda x: x * 2.0)]
        tf.keras.Sequential(layers).save(tmp_path / "l.keras")
        run = _run("summary", tmp_path / "l.keras")
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith("Error: Expected a model that runs no code of its own.")
        assert run.stderr.count("\n") == 1
        assert "--trust" in run.stderr
        assert _run("summary", tmp_path / "l.keras", "--trust").returncode == 0

    def test_verbose_shows_the_traceback(self, tmp_path: Path) -> None:
        run = _run("--verbose", "summary", tmp_path / "none.keras")
        assert run.returncode == 1
        assert "Traceback (most recent call last)" in run.stderr
        assert run.stderr.splitlines()[-1].startswith("Error: Expected a Keras model.")


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
        assert run.stderr == ""

    def test_says_what_does_not_work_and_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from typer.testing import CliRunner

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


def test_an_error_inside_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tfqprune.cli import frame

    def broken(**arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(frame, "app", broken)
    with pytest.raises(SystemExit) as leaving:
        frame.main()
    said = capsys.readouterr().err
    assert leaving.value.code == 3
    assert "RuntimeError: a bug" in said
    assert "Please report it" in said
