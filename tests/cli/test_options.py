"""Names, budgets, ratios and settings files: what is typed, before anything is loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.cli.conftest import Run
from tfqprune.cli import amounts, frame, names
from tfqprune.cli.config import read_settings


class TestNames:
    def test_are_those_of_the_registries(self) -> None:
        # In a process of its own: other tests register more.
        fresh = "from tfqprune import criterion_names; from tflite_export import list_formats; "
        fresh += "from tfqprune.pipeline import METHODS; print(*criterion_names()); print(*list_formats())"
        fresh += "; print(*METHODS)"
        said = subprocess.run([sys.executable, "-c", fresh], capture_output=True, text=True).stdout.splitlines()
        criteria, formats, methods = (set(line.split()) for line in said[-3:])
        assert (criteria - {"flip_frequency", "rank_combination"} | {"auto"}, formats | {"auto"}, methods) == (
            set(names.CRITERIA), set(names.FORMATS), set(names.METHODS)
        )  # fmt: skip

    def test_completion(self) -> None:
        assert names.completion(names.FORMATS)("f") == ["fast", "float16", "float32"]
        assert amounts.complete_budget("m") == ["macs=", "memory="]

    def test_a_wrong_one_is_refused_with_the_nearest(self) -> None:
        check = names.one_of(names.METHODS)
        assert check("uniform") == "uniform"
        assert check(None) is None
        with pytest.raises(typer.BadParameter, match=r"Received: 'bayes'\. Did you mean 'bayesian'\?"):
            check(["uniform", "bayes"])


class TestAmounts:
    def test_budget(self) -> None:
        budget = amounts.parse_budget(["memory=0.5", "macs = 40 MMAC", "params=250000"])
        assert budget.as_dict() == {"memory": 0.5, "macs": "40 MMAC", "params": 250_000.0}

    def test_the_last_counts(self) -> None:
        assert amounts.parse_budget(["memory=0.5", "memory=70 %"]).as_dict() == {"memory": "70 %"}

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            (["memry=0.5"], "Did you mean 'memory'"),
            (["memory"], "Say how much: memory=0.5."),
            (["memory=1.5 furlongs"], "Expected the budget for memory in one of"),
            (["memory=0"], "above zero"),
            (["latency=5"], "with its unit"),
            ([], "Received: none"),
        ],
    )
    def test_budget_refused(self, entries: list[str], said: str) -> None:
        with pytest.raises(typer.BadParameter, match=said):
            amounts.parse_budget(entries)

    def test_ratios(self) -> None:
        assert amounts.parse_ratios(["0.3"]) == 0.3
        assert amounts.parse_ratios(["conv1=0.25", "block=a=0.5"]) == {"conv1": 0.25, "block=a": 0.5}

    @pytest.mark.parametrize("entries", [["1"], ["-0.1"], ["many"], ["conv1=x"], ["0.3", "0.4"], ["conv1=1.5"]])
    def test_ratios_refused(self, entries: list[str]) -> None:
        with pytest.raises(typer.BadParameter, match="Expected one ratio from 0 to below 1"):
            amounts.parse_ratios(entries)


KNOWN = {"prune": {"model": "model", "budget": "budget", "align": "align"}, "size": {"file": "file", "json": "as_json"}}


class TestSettings:
    def test_sections_come_before_what_is_for_all(self, tmp_path: Path) -> None:
        file = tmp_path / "s.toml"
        file.write_text('align = 4\njson = true\n[prune]\nalign = 8\nbudget = {memory = 0.5, macs = "1 M"}\n')
        assert read_settings(file, "prune", KNOWN) == {"align": "8", "budget": ["memory=0.5", "macs=1 M"]}
        assert read_settings(file, "size", KNOWN) == {"as_json": "true"}

    def test_lists_and_a_table_for_all(self, tmp_path: Path) -> None:
        file = tmp_path / "s.toml"
        file.write_text("[budget]\nmemory = 0.5\n")
        assert read_settings(file, "prune", KNOWN) == {"budget": ["memory=0.5"]}
        file.write_text('budget = ["memory=0.5", "macs=0.4"]\n')
        assert read_settings(file, "prune", KNOWN) == {"budget": ["memory=0.5", "macs=0.4"]}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("alin = 4", r"Received: 'alin' in .*Did you mean 'align'\?"),
            ("[prune]\nbudgets = 1", r"Received: '\[prune\] budgets' in .*Did you mean 'budget'\?"),
            ("[size]\nalign = 4", r"Received: '\[size\] align'"),
            ("[prnue]\nalign = 4", r"Received: 'prnue' in .*Did you mean 'prune'\?"),
            ("align = = 4", "which cannot be read"),
        ],
    )
    def test_refused(self, text: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "s.toml").write_text(text)
        with pytest.raises(typer.BadParameter, match=said):
            read_settings(tmp_path / "s.toml", "prune", KNOWN)

    def test_values_are_checked_as_if_typed(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "s.toml"
        file.write_text("[prune]\nmodel = 'm.keras'\noutput = 's.keras'\nratio = 0.3\nalign = 2.5\n")
        answer = run("prune", "--config", file)
        assert answer.code == 2
        assert "Invalid value for '--align'" in answer.err
        # The command line comes first; the model of the file is missing, so its path was read.
        answer = run("prune", "--config", file, "--align", 2)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == "Error: Expected a Keras model. Received: 'm.keras', which does not exist.\n"

    def test_lists_where_one_value_is_meant(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "s.toml").write_text("align = [2, 4]\n")
        answer = run("prune", "--config", tmp_path / "s.toml")
        assert answer.code == 2
        assert "Expected one value for align. Received: ['2', '4']" in answer.err

    def test_a_file_that_is_missing(self, run: Run, tmp_path: Path) -> None:
        answer = run("summary", "--config", tmp_path / "none.toml")
        assert answer.code == 2
        assert "Expected a TOML file" in answer.err


class TestPage:
    """``docs/cli.md`` against the command line itself."""

    PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")

    def test_has_every_subcommand(self) -> None:
        rows = re.findall(r"^\| \[?`([a-z-]+)", self.PAGE, flags=re.MULTILINE)
        assert set(rows) >= set(frame.OPTIONS)

    def test_names_only_options_that_exist(self) -> None:
        known = {f"--{name}" for options in frame.OPTIONS.values() for name in options}
        known |= {"--help", "--config", "--install-completion", "--show-completion"}
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", self.PAGE)) <= known

    def test_settings_are_accepted(self, tmp_path: Path) -> None:
        (block,) = re.findall(r"```toml\n(.*?)```", self.PAGE, flags=re.DOTALL)
        (tmp_path / "s.toml").write_text(block)
        found = read_settings(tmp_path / "s.toml", "compress", frame.OPTIONS)
        assert set(found) == {"data", "seed", "model", "output", "method", "trials", "epochs", "budget"}
        assert read_settings(tmp_path / "s.toml", "search", frame.OPTIONS) == {"data": "digits", "seed": "0"}
