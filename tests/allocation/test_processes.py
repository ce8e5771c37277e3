"""Searches in processes of their own: killed at any moment, resumed, spread over workers."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfqprune.allocation.cluster import chief_answers
from tfqprune.errors import ClusterError

SCRIPT = Path(__file__).with_name("search_script.py")
PATIENCE = 400  # seconds; a process takes about 10 to load TensorFlow


class Process:
    """The script in a process; what it prints goes to a file."""

    def __init__(self, folder: Path, name: str, *arguments: object, script: Path = SCRIPT, **environment: str) -> None:
        self.output = folder / f"{name}.log"
        with self.output.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script), str(folder), *map(str, arguments)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), **environment},
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, times: int = 1) -> None:
        end = time.monotonic() + PATIENCE
        while self.text.count(text) < times:
            assert time.monotonic() < end, f"no {text!r} x {times} in:\n{self.text}"
            assert self.process.poll() is None or self.text.count(text) >= times, self.text
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def succeed(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.text


@contextlib.contextmanager
def ended(processes: list[Process]) -> Iterator[None]:
    """Ends what a failed test leaves running."""
    try:
        yield
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.kill()


def trials(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((folder / "search").glob("trial_*/trial.json"))]


def test_kill_loses_at_most_the_running_trial(tmp_path: Path) -> None:
    first = Process(tmp_path, "first", 6, 0.3)
    with ended([first]):
        first.wait_for("begun", 4)
        first.kill()
    done = {trial["trial_id"]: trial for trial in trials(tmp_path) if trial["status"] == "COMPLETED"}
    assert set(done) == {"0", "1", "2"}
    second = Process(tmp_path, "second", 6, 0)
    with ended([second]):
        second.succeed()
    assert "Reloading Tuner" in second.text
    # The killed trial and those after it, and no other, run now.
    assert [line.split("_")[1] for line in second.text.splitlines() if line.startswith("begun")] == ["3", "4", "5"]
    after = {trial["trial_id"]: trial for trial in trials(tmp_path)}
    assert [trial["status"] for trial in after.values()] == ["COMPLETED"] * 6
    assert {key: after[key] for key in done} == done
    assert "plan {" in second.text


def test_worker_without_a_chief(monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", port)
    assert not chief_answers(lambda: True)
    with pytest.raises(ClusterError, match=f"a chief at 127.0.0.1:{port}. Received: no answer in 0.5 s"):
        chief_answers(lambda: False, patience=0.5)


@pytest.mark.slow
def test_chief_and_workers_one_of_which_dies(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}

    def start(name: str) -> Process:
        return Process(tmp_path, name, 10, 1.0, KERASTUNER_TUNER_ID=name, **address)

    def line(process: Process, word: str) -> list[str]:
        return next(line for line in process.text.splitlines() if line.startswith(f"{word} ")).split()[1:]

    # A process alone begins; chief and workers go on with its trials.
    alone = Process(tmp_path, "alone", 2, 0)
    with ended([alone]):
        alone.succeed()
    before = trials(tmp_path)
    assert [trial["trial_id"] for trial in before] == ["0", "1"]
    for path in (tmp_path / "search").glob("trial*.*"):
        path.unlink()  # tables, which the chief writes anew
    chief, one, two = start("chief"), start("worker1"), start("worker2")
    with ended([chief, one, two]):
        one.wait_for("begun", 2)
        two.wait_for("begun", 1)
        one.kill()
        chief.wait_for("Worker worker1 has been silent for 3 s")
        two.succeed()
        chief.succeed()
        assert [trial["status"] for trial in trials(tmp_path)] == ["COMPLETED"] * 10
        assert sorted(trials(tmp_path), key=lambda trial: int(trial["trial_id"]))[:2] == before
        # Every trial has one value, the one of the dead worker included.
        assert all(len(trial["metrics"]["metrics"]["val_accuracy"]["observations"]) == 1 for trial in trials(tmp_path))
        begun = [line for process in (one, two) for line in process.text.splitlines() if line.startswith("begun")]
        assert len(begun) == 9
        assert len(set(begun)) == 8
        assert "plan {" in two.text
        # The chief writes the tables; a worker sees what it has found.
        folder = tmp_path / "search"
        rows = list(csv.DictReader((folder / "trials.csv").open()))
        kept = json.loads((folder / "trials.json").read_text())
        assert [row["trial"] for row in rows] == [entry["trial"] for entry in kept] == line(two, "records")
        assert [int(row["trial"]) for row in rows] == list(range(10))
        front = json.loads((folder / "front.json").read_text())
        assert [entry["trial"] for entry in front] == line(chief, "front") == line(two, "front")
        # A worker that comes now does not wait for a chief that has gone.
        late = start("worker3")
        late.succeed()
        assert "has ended: nothing is left for this worker" in late.text
        assert late.text.count("begun") == 0
        assert line(late, "records") == line(two, "records")
        # A second chief cannot have the port of one that runs.
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after the chief that has just gone
            taken.bind(("127.0.0.1", int(port)))
            taken.listen()
            third = start("chief2")
            assert third.process.wait(PATIENCE) != 0
            assert f"ClusterError: Expected a free port for the chief. Received: 127.0.0.1:{port}" in third.text


@pytest.mark.slow
def test_fine_tuning_under_a_strategy_of_two_devices(tmp_path: Path) -> None:
    process = Process(tmp_path, "strategy", script=SCRIPT.with_name("strategy_script.py"))
    with ended([process]):
        process.succeed()
    assert [trial["status"] for trial in trials(tmp_path)] == ["COMPLETED"] * 2
    line = next(line for line in process.text.splitlines() if line.startswith("best "))
    _, best, _, again = line.split()
    assert float(best) == pytest.approx(float(again), abs=1e-6)
