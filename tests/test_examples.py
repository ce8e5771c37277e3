"""The examples run as they stand, in their quick form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "first_steps.ipynb"

#: example -> what its quick form prints; those that take less than ten seconds are no slow tests
PRINTS = {
    "binary_resnet_cifar10.py": r"uniform: accuracy 0\.[5-9].*\n(.*\n)*uniform +binary, agreement (1\.0|0\.9)",
    "custom_criterion.py": r"level_entropy +0\.\d+\nlatent_l1 +0\.\d+\nrandom +0\.\d+\nreconstruction +0\.\d+",
    "custom_layer_handler.py": r"by probing.*\nafter: .*'wide': 'can be cut'.*\n6,202 -> 1,954 parameters\nsaved",
    "dorefa_fashion_mnist.py": r"anew 0\.[6-9]\d+\nfine-tuned +0\.[89]\d+\n[\d,]+ B, 1\.\d+ of the floor; top-1 [19]",
    "holistic_pruning.py": r"parameters 0\.(59|60)\d*, MACs 0\.(59|60)\d* of the original\ntest accuracy 0\.[6-9]",
    "hypermodel_random_search.py": r"memory [\d,]+ B -> [\d,]+ B\ntest accuracy 0\.[6-9]\d+ -> 0\.[5-9]",
    "mobilenet_int8.py": r"dense float accuracy 0\.\d+, .*file [\d,]+ B.*\nslim +float accuracy 0\.\d+.*file [\d,]+ B",
    "phone_benchmark.py": r"no adb on the PATH.*\nMeasured here.*\npacked +dense [\d,]+ B.* ms.*\npacked +slim ",
    "search_ratios.py": r"memory [\d,]+ B -> [\d,]+ B\nvalidation accuracy 0\.[5-9]",
}
CHEAP = {"custom_layer_handler.py", "phone_benchmark.py"}


def _run(example: str, folder: Path, *arguments: str) -> str:
    """What an example prints, run in an empty folder, where no adb is found even if there is one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KERASTUNER_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *arguments], capture_output=True, text=True, cwd=folder, check=False,
        timeout=900, env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT), "PATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_run_and_told_of() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(PRINTS) | {"smallest.py", "common.py"}
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert {name for name in [*scripts, NOTEBOOK.name] if f"(../examples/{name})" not in page} == set()


@pytest.mark.parametrize(
    "example", [pytest.param(name, marks=[] if name in CHEAP else pytest.mark.slow) for name in PRINTS]
)
def test_quick_form(example: str, tmp_path: Path) -> None:
    folder = "--directory" if example == "search_ratios.py" else "--output"
    printed = _run(example, tmp_path, "--quick", folder, "results")
    assert re.search(PRINTS[example], printed), printed
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    assert any((tmp_path / "results").iterdir())


def test_the_readme_shows_the_smallest_example() -> None:
    """The script of the README is the file, which has fewer than 15 lines of code."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```python\n(import tfqprune as tq\n.*?)```", text, re.DOTALL)
    assert shown is not None
    code = (EXAMPLES / "smallest.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert shown.group(1) == code
    assert len(code.splitlines()) < 15


@pytest.mark.slow
def test_smallest(tmp_path: Path) -> None:
    assert "bayesian: accuracy 0.9" in _run("smallest.py", tmp_path)
    assert (tmp_path / "runs" / "smallest" / "report.html").exists()


def test_the_notebook_is_stored_without_results() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [
        output["data"]["text/plain"]
        for cell in notebook.cells if cell.cell_type == "code"
        for output in cell.outputs if output.output_type == "execute_result"
    ]  # fmt: skip
    accuracy, groups, share, error, steps = results
    assert float(accuracy) > 0.8
    assert "can be cut" in groups
    assert 0.55 < float(share) <= 0.6
    assert float(error) < 1e-5  # the law; probabilities are at most 1
    assert re.search(r"'fine-tuned': 0\.[89]", steps), steps
